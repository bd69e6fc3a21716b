//! Wasm mode: replicas, and the isolation of requests from each other.

use std::time::Instant;

use faas_wasm_tests::http::Request;
use faas_wasm_tests::{Backend, Guest, Runner};

/// The values from `/scale-reader`, in order.
fn scale(runner: &Runner) -> [u64; 3] {
    let response = runner.get("/scale-reader");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("Content-Type"),
        Some("application/json; charset=utf-8")
    );
    let text = response.text();
    let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let numbers = ["replicas", "availableReplicas", "invocationCount"].map(|key| {
        json[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key} in {text}"))
    });
    let [replicas, available, count] = numbers;
    assert_eq!(
        text,
        format!(
            r#"{{"replicas":{replicas},"availableReplicas":{available},"invocationCount":{count}}}"#
        ),
        "to the letter"
    );
    numbers
}

fn update(runner: &Runner, body: &str) -> (u16, String) {
    let response = runner.send(&Request::post("/scale-updater", body));
    (response.status, response.text())
}

#[test]
fn replicas_are_reported() {
    let guest = Guest::fixture("hello");
    let runner = guest
        .serve()
        .env("min_scale", "2")
        .env("max_scale", "4")
        .start();
    assert_eq!(scale(&runner), [2, 2, 0]);
    for _ in 0..5 {
        runner.get("/");
    }
    assert_eq!(scale(&runner)[2], 5);
}

#[test]
fn replicas_can_be_set() {
    let guest = Guest::fixture("hello");
    let runner = guest
        .serve()
        .env("min_scale", "1")
        .env("max_scale", "4")
        .env("wasm_idle_timeout", "10ms")
        .start();
    let body = |replicas: &str| format!(r#"{{"serviceName":"f","replicas":{replicas}}}"#);
    let (status, text) = update(&runner, &body("3"));
    assert_eq!((status, text.as_str()), (200, ""));
    wait_until(|| scale(&runner)[..2] == [3, 3]);
    assert_eq!(update(&runner, &body("1")).0, 200);
    wait_until(|| scale(&runner)[..2] == [1, 1]);
    let (status, text) = update(&runner, &body("5"));
    assert_eq!(status, 500);
    assert!(text.contains("greater than `4`"), "{text}");
    let (status, text) = update(&runner, &body("0"));
    assert_eq!(status, 500);
    assert!(text.contains("less then `1`"), "{text}");
    for bad in [
        "",
        "{}",
        r#"{"replicas"}"#,
        r#"{"replicas":}"#,
        r#"{"replicas":"x"}"#,
    ] {
        let (status, text) = update(&runner, bad);
        assert_eq!(status, 400, "{bad}: {text}");
        assert!(text.starts_with("Cannot parse request"), "{bad}: {text}");
    }
    assert_ne!(update(&runner, &body("99999999999999999999999")).0, 200);
    assert_eq!(runner.get("/").status, 200);
}

#[test]
fn load_adds_replicas_up_to_the_limit() {
    let guest = Guest::fixture("sleep");
    let runner = guest.serve_with(&["500"]).env("max_scale", "4").start();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(runner.get("/").text(), "slept\n"));
        }
    });
    let took = start.elapsed().as_millis();
    // Two rounds of four runs. Eight runs in sequence would take eight times the sleep.
    assert!((1000..3000).contains(&took), "{took} ms");
    assert!(scale(&runner)[0] <= 4);
}

/// A request waits only if no replica can be started for it.
#[test]
fn replicas_start_if_the_queue_limit_is_zero() {
    let guest = Guest::fixture("sleep");
    for floor in ["0", "1"] {
        let runner = guest
            .serve_with(&["1000"])
            .env("min_scale", floor)
            .env("max_scale", "3")
            .env("wasm_queue_limit", "0")
            .start();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(runner.get("/").status, 200, "{floor}"));
            }
            runner.wait_for_metric("wasm_instances_running", 3.0);
            assert_eq!(runner.get("/").status, 429, "{floor}");
        });
        assert_eq!(runner.get("/").status, 200, "{floor}");
    }
}

#[test]
fn a_thousand_requests_are_isolated() {
    for backend in Backend::all() {
        let runner = Guest::fixture_by("isolation", backend).serve().start();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..250 {
                        let response = runner.get("/");
                        assert_eq!(response.text(), "1 0 clean\n", "{backend:?}");
                    }
                });
            }
        });
        assert_eq!(scale(&runner)[2], 1000);
    }
}

#[test]
fn failures_leave_nothing_behind() {
    let guest = Guest::fixture("trap");
    // The guest writes before it fails. On a slow machine, that output would otherwise be sent.
    let runner = guest
        .serve_with(&["stack"])
        .env("wasm_output_hold_time", "1h")
        .start();
    for _ in 0..200 {
        assert_eq!(runner.get("/").status, 500);
    }
    let before = resident_pages(&runner);
    for _ in 0..500 {
        assert_eq!(runner.get("/").status, 500);
    }
    let grown = resident_pages(&runner).saturating_sub(before);
    assert!(grown < 1024, "{grown} pages more");
}

fn resident_pages(runner: &Runner) -> u64 {
    let path = format!("/proc/{}/statm", runner.pid());
    let text = std::fs::read_to_string(path).expect("the runner is there");
    let resident = text.split(' ').nth(1).expect("the second number");
    resident.parse().expect("it is a number")
}

#[track_caller]
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not come to it");
    }
}
