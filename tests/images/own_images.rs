//! The images faas-wasm-runner and faas-wasm.

use faas_wasm_tests::{Outcome, Work, fixture};

use crate::engine::{VERSION, docker, inspect, run};

/// The runner's image must stay below this.
const RUNNER_LIMIT: u64 = 12_000_000;

fn runner_image() -> String {
    format!("faas-wasm-runner:{VERSION}")
}

pub(crate) fn tool_image() -> String {
    format!("faas-wasm:{VERSION}")
}

#[test]
fn the_runners_image_is_small_and_unprivileged() {
    let image = runner_image();
    let size: u64 = inspect(&image, "{{.Size}}").parse().expect("a number");
    assert!(size <= RUNNER_LIMIT, "{size} bytes");
    assert_eq!(inspect(&image, "{{.Config.User}}"), "10001:10001");
    assert_eq!(
        inspect(&image, "{{json .Config.ExposedPorts}}"),
        r#"{"8080/tcp":{},"8081/tcp":{}}"#
    );
}

/// of-watchdog's image has the program at /fwatchdog, and templates copy it from there.
#[test]
fn the_runners_image_has_the_program_at_both_places() {
    for program in ["/fwatchdog", "/usr/bin/fwatchdog"] {
        let outcome =
            Outcome::of(docker().args(["run", "--rm", &runner_image(), program, "-version"]));
        outcome.success();
        assert!(outcome.stderr.contains("Version: "), "{}", outcome.stderr);
    }
}

/// A driver is mounted by the NVIDIA container runtime into Debian's directory of libraries.
#[test]
fn the_runners_image_finds_libraries_where_a_container_runtime_puts_them() {
    let work = Work::new();
    let source = work.path().join("driver.c");
    std::fs::write(
        &source,
        "#include <math.h>\n#include <pthread.h>\n#include <stdio.h>\n\
         __attribute__((constructor)) static void loaded(void) { puts(\"loaded\"); fflush(stdout); }\n",
    )
    .expect("a file can be written");
    let library = work.path().join("libdriver.so.1");
    let mut compiler = std::process::Command::new("cc");
    // With the libraries that NVIDIA's driver names.
    compiler
        .args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"])
        .arg(&library)
        .arg(&source)
        .args(["-lm", "-ldl", "-lpthread", "-lrt"]);
    Outcome::of(&mut compiler).success();
    let mount = format!(
        "{}:/usr/lib/{}-linux-gnu/libdriver.so.1:ro",
        library.display(),
        std::env::consts::ARCH
    );
    // By name alone, as the runner opens libcuda.so.1.
    let said = run(&[
        "run",
        "--rm",
        "--read-only",
        "--volume",
        &mount,
        "--env=LD_PRELOAD=libdriver.so.1",
        &runner_image(),
        "/fwatchdog",
        "-version",
    ]);
    assert!(said.starts_with("loaded"), "{said}");
}

#[test]
fn the_tools_image_compiles_and_runs_a_module() {
    let work = Work::new();
    std::fs::copy(fixture("hello"), work.path().join("hello.wasm")).expect("it can be copied");
    let volume = format!("{}:/work", work.path().display());
    let image = tool_image();
    let build = run(&[
        "run",
        "--rm",
        "--volume",
        &volume,
        &image,
        "build",
        "--backend",
        "cranelift",
        "hello.wasm",
    ]);
    assert!(build.contains("artifact   hello.so"), "{build}");
    let outcome = Outcome::of(docker().args([
        "run", "--rm", "--volume", &volume, &image, "run", "hello.so",
    ]));
    assert!(
        !outcome.success().is_empty(),
        "the guest has said something"
    );
}
