//! An image that was made for of-watchdog, with the runner in its place.

use faas_wasm_tests::{Guest, Outcome};

use crate::container::{Container, wait_for};
use crate::engine::{VERSION, base_image, docker, inspect, own, run, toolchain_image};

/// Builds the image of a function that converts its input to upper case.
fn classic(tag: &str, watchdog: &str, base: &str) -> String {
    let tag = format!("faas-wasm-test/{tag}");
    let arguments = [
        format!("WATCHDOG_IMAGE={watchdog}"),
        format!("BASE_IMAGE={base}"),
    ];
    let mut command = docker();
    command.args(["build", "--tag", &tag]);
    for argument in &arguments {
        command.args(["--build-arg", argument]);
    }
    Outcome::of(command.arg(own("functions/classic"))).success();
    tag
}

fn answers_and_ends(container: &Container) {
    let answer = container.post("/", "hello");
    assert_eq!((answer.status, answer.text().as_str()), (200, "HELLO"));
    assert_eq!(answer.header("Content-Type"), Some("text/plain"));
    container.wait_until_healthy();
    container.ends_well();
}

#[test]
fn an_image_works_with_only_its_watchdog_replaced() {
    let runner = format!("faas-wasm-runner:{VERSION}");
    let image = classic("swapped", &runner, &base_image());
    answers_and_ends(&Container::start(&image));
}

#[test]
fn without_glibc_the_static_runner_serves() {
    let Some(base) = toolchain_image("no-glibc", "the static runner") else {
        return;
    };
    let runner = format!("faas-wasm-runner:{VERSION}-static");
    let size: u64 = inspect(&runner, "{{.Size}}").parse().expect("a number");
    assert!(size < 9_000_000, "{size} bytes");
    let image = classic("swapped-static", &runner, &base);
    answers_and_ends(&Container::start(&image));

    let guest = Guest::fixture("hello");
    let mount = format!("--volume={}:/function.so:ro", guest.artifact().display());
    let options = [&mount, "--env=fprocess=/function.so", "--env=mode=wasm"];
    let container = Container::start_with(&image, &options);
    assert_eq!(container.get("/").status, 200);
    container.ends_well();

    let guest = Guest::fixture("cuda/device");
    let container = run(&[
        "run",
        "--detach",
        &format!("--volume={}:/function.so:ro", guest.artifact().display()),
        "--env=fprocess=/function.so",
        "--env=mode=wasm",
        "--env=use_cuda=required",
        &image,
    ]);
    wait_for("the start is refused", || {
        (inspect(&container, "{{.State.Running}}") == "false").then_some(())
    });
    let outcome = Outcome::of(docker().args(["logs", &container]));
    run(&["rm", &container]);
    assert!(
        outcome.stderr.contains("linked statically"),
        "{}",
        outcome.stderr
    );
}
