//! The images faas-wasm-runner and faas-wasm.

use faas_wasm_tests::{Guest, Outcome, Work, fixture};
use serde_json::json;

use crate::container::Container;
use crate::engine::{VERSION, docker, inspect, run};

/// Maximum size of the runner's image in bytes.
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

/// of-watchdog's image has the program at /fwatchdog, from where templates copy it.
#[test]
fn the_runners_image_has_the_program_at_both_places() {
    for program in ["/fwatchdog", "/usr/bin/fwatchdog"] {
        let outcome =
            Outcome::of(docker().args(["run", "--rm", &runner_image(), program, "-version"]));
        outcome.success();
        assert!(outcome.stderr.contains("Version: "), "{}", outcome.stderr);
    }
}

/// The NVIDIA container runtime mounts the driver into Debian's library directory.
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
    // Link it to the libraries that NVIDIA's driver needs.
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
    // Open it by name alone, as the runner opens libcuda.so.1.
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

/// Under a stricter seccomp profile than the engine's default, the runner uses other means for the calls that are
/// refused.
#[test]
fn instances_are_fresh_whatever_a_seccomp_profile_refuses() {
    const PAGEMAP_SCAN: u32 = 0xc060_6610;
    let refused = [
        "copy_file_range",
        "io_uring_setup",
        "madvise",
        "membarrier",
        "memfd_create",
        "openat2",
        "prlimit64",
        "rseq",
        "statx",
        "userfaultfd",
    ];
    let scan = json!([{ "index": 1, "value": PAGEMAP_SCAN, "op": "SCMP_CMP_EQ" }]);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": refused, "action": "SCMP_ACT_ERRNO" },
            { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": scan },
        ],
    });
    let work = Work::new();
    let profile = work.write("profile.json", profile.to_string());
    let guest = Guest::fixture("isolation");
    let container = Container::start_with(
        &runner_image(),
        &[
            &format!("--security-opt=seccomp={}", profile.display()),
            &format!("--volume={}:/function.so:ro", guest.artifact().display()),
            "--env=fprocess=/function.so",
            "--env=healthcheck_interval=100ms",
        ],
    );
    for _ in 0..20 {
        assert_eq!(container.get("/").text(), "1 0 clean\n");
    }
    container.ends_well();
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
