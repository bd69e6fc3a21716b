//! The template c-wasm, and the properties that all images with an artifact share.

use std::thread;

use faas_wasm_tests::http::Request;

use crate::container::{Container, wait_for};
use crate::engine::{FunctionImage, inspect, own};

#[test]
fn a_new_function_serves() {
    let image = FunctionImage::new("c-wasm", "c-wasm").build();
    let container = Container::start(&image);

    let greeting = container.post("/?name=J%C3%BCrgen+B.", "some text");
    assert_eq!(greeting.status, 200);
    assert_eq!(
        greeting.header("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(
        greeting.text(),
        "Hello from C, Jürgen B.! You sent 9 bytes.\n"
    );
    assert_eq!(container.get("/elsewhere").status, 404);
    assert_eq!(container.post("/", vec![b'x'; (1 << 20) + 1]).status, 413);
    let metrics = container.metrics();
    assert!(
        metrics.contains("http_requests_total{code=\"200\""),
        "{metrics}"
    );

    container.is_confined_and_healthy();
    container.ends_well();
    let logs = container.logs();
    assert!(logs.contains("Watchdog mode: wasm"), "{logs}");
    assert!(logs.contains("POST /?name=J%C3%BCrgen+B. - 200"), "{logs}");
}

#[test]
fn a_request_in_flight_is_answered_after_sigterm() {
    let image = FunctionImage::new("c-wasm", "slow")
        .handler(own("functions/slow"))
        .argument("BUILD_FLAGS=--backend cranelift")
        .build();
    let container = Container::start_with(&image, &["--env=healthcheck_interval=100ms"]);
    let answer = thread::scope(|scope| {
        let request = scope.spawn(|| container.send(&Request::get("/")));
        wait_for("the request is in the function", || {
            container
                .metrics()
                .contains("http_requests_in_flight 1\n")
                .then_some(())
        });
        container.ends_well();
        request.join().expect("the request has been answered")
    });
    assert_eq!((answer.status, answer.text().as_str()), (200, "done\n"));
    assert!(answer.complete);
}

/// Each guest reserves much address space but uses little memory.
#[test]
fn a_small_container_serves_many_guests() {
    let image = FunctionImage::new("c-wasm", "c-wasm").build();
    let options = ["--memory=32m", "--memory-swap=32m", "--env=max_scale=16"];
    let container = Container::start_with(&image, &options);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert_eq!(container.post("/", "some text").status, 200));
        }
    });
    assert_eq!(container.inspect("{{.State.OOMKilled}}"), "false");
    container.ends_well();
}

#[test]
fn a_failing_case_fails_the_build() {
    let image = FunctionImage::new("c-wasm", "wrong")
        .handler(own("functions/wrong"))
        .argument("BUILD_FLAGS=--backend cranelift");
    let (_, outcome) = image.try_build();
    assert_ne!(outcome.code(), 0, "{}", outcome.text());
    let said = outcome.text() + &outcome.stderr;
    for line in [
        "ok   right",
        "FAIL wrong: the response differs",
        "1 of 2 cases failed",
    ] {
        assert!(said.contains(line), "`{line}` is not in\n{said}");
    }
}

#[test]
fn the_image_contains_only_the_function_and_the_runner() {
    let image = FunctionImage::new("c-wasm", "c-wasm").build();
    let container = Container::start(&image);
    assert!(
        container.exec(&["/bin/sh"]).status.code() != Some(0),
        "there is a shell"
    );
    let size: u64 = inspect(&image, "{{.Size}}").parse().expect("a number");
    assert!(size < 13_000_000, "{size} bytes");
}
