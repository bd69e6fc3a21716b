//! Misbehaving guests and kernels: nothing stays behind, other guests continue, and a lost device ends the process
//! cleanly.

use faas_wasm_tests::http::reset;
use faas_wasm_tests::{Backend, FakeCuda, Gpu, Guest, RunnerCommand, cuda_fixtures};

fn guest(name: &str) -> Guest {
    Guest::compiled(
        &cuda_fixtures().join(format!("{name}.wasm")),
        Backend::Cranelift,
    )
}

/// Serves a guest whose output is held back until it ends, so that the status reflects how it ended.
fn serve(gpu: &Gpu, guest: &Guest, arguments: &[&str]) -> RunnerCommand {
    gpu.runner(guest.serve_with(arguments))
        .env("wasm_output_hold_time", "1m")
}

#[test]
fn every_end_of_a_guest_frees_its_objects() {
    for isolation in ["context", "shared"] {
        for (how, status) in [("return", 200), ("exit", 200), ("trap", 500), ("spin", 504)] {
            let gpu = Gpu::new().env("cuda_isolation", isolation);
            let guest = guest("leak");
            let runner = serve(&gpu, &guest, &[how])
                .env("exec_timeout", "2s")
                .start();
            for _ in 0..2 {
                assert_eq!(
                    runner.get("/").status,
                    status,
                    "{isolation}, {how}: {}",
                    runner.log()
                );
            }
            gpu.is_empty_but_for(1);
            assert_eq!(gpu.census().left_to_context(), 0, "{isolation}, {how}");
            runner.stop();
            gpu.is_empty_but_for(0);
        }
    }
}

#[test]
fn a_kernel_without_end_meets_the_deadline() {
    for how in ["context", "stream", "event", "copy", "free", "launches"] {
        // A launch into a full stream blocks in the driver.
        let gpu = Gpu::of(FakeCuda::new().with("queue", "1024"));
        let guest = guest("spin");
        let runner = serve(&gpu, &guest, &[how])
            .env("exec_timeout", "500ms")
            .start();
        assert_eq!(runner.get("/").status, 504, "{how}: {}", runner.log());
        // The runner gave up the context and continues with another one.
        gpu.is_empty_but_for(1);
        assert_eq!(runner.get("/_/health").status, 200);
        runner.stop();
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn cuda_kernel_timeout_ends_a_kernel() {
    let gpu = Gpu::new().env("cuda_kernel_timeout", "300ms");
    let guest = guest("spin");
    let runner = serve(&gpu, &guest, &[]).env("exec_timeout", "1m").start();
    assert_eq!(runner.get("/").status, 504);
    assert!(
        runner.log().contains("cuda_kernel_timeout"),
        "{}",
        runner.log()
    );
    gpu.is_empty_but_for(1);
}

#[test]
fn a_kernel_fault_does_not_affect_the_next_guest() {
    for model in ["", "64"] {
        let gpu = Gpu::new();
        let guest = guest(&format!("overrun{model}"));
        let runner = serve(&gpu, &guest, &[]).start();
        for _ in 0..2 {
            let response = runner.get("/");
            assert_eq!(
                response.status,
                200,
                "{}\n{}",
                response.text(),
                runner.log()
            );
        }
        gpu.is_empty_but_for(1);
        assert_eq!(runner.get("/_/health").status, 200);
        runner.stop();
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn a_lost_device_fails_the_probes_and_ends_the_process() {
    let gpu = Gpu::of(FakeCuda::new().with("sticky", "process"));
    let guest = guest("overrun");
    let mut runner = serve(&gpu, &guest, &[])
        .env("healthcheck_interval", "2s")
        .start();
    let _ = runner.get("/");
    runner.wait_for_log("the CUDA device is lost for this process");
    assert_eq!(runner.get("/_/health").status, 503);
    assert_eq!(runner.get("/_/ready").status, 503);
    assert_eq!(runner.get("/").status, 503);
    gpu.has_no_violations();
    let (status, log) = runner.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("so this process ends"), "{log}");
}

#[test]
fn a_context_that_cannot_be_destroyed_loses_the_device() {
    let gpu = Gpu::of(FakeCuda::new().with("destroy_waits", "true"));
    let guest = guest("spin");
    let runner = serve(&gpu, &guest, &[])
        .env("exec_timeout", "500ms")
        .start();
    assert_eq!(runner.get("/").status, 504);
    let (status, log) = runner.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("a context could not be destroyed within"),
        "{log}"
    );
    gpu.has_no_violations();
}

#[test]
fn a_kernel_that_outlives_its_guest_is_ended_with_the_context() {
    let gpu = Gpu::new();
    let guest = guest("spin");
    let runner = serve(&gpu, &guest, &["exit"]).start();
    for _ in 0..2 {
        assert_eq!(runner.get("/").status, 200, "{}", runner.log());
        gpu.is_empty_but_for(1);
    }
    assert_eq!(gpu.census().kernels("cancelled"), 2);
    assert_eq!(runner.get("/_/health").status, 200);
    runner.stop();
    gpu.is_empty_but_for(0);
}

#[test]
fn a_kernel_without_end_in_a_shared_context_loses_the_device() {
    let gpu = Gpu::new().env("cuda_isolation", "shared");
    let guest = guest("spin");
    let runner = serve(&gpu, &guest, &[])
        .env("exec_timeout", "500ms")
        .start();
    assert_eq!(runner.get("/").status, 504);
    let (status, log) = runner.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("does not end"), "{log}");
    gpu.has_no_violations();
}

#[test]
fn a_client_that_leaves_ends_the_wait() {
    let gpu = Gpu::new();
    let guest = guest("spin");
    let runner = serve(&gpu, &guest, &[]).env("exec_timeout", "1m").start();
    let mut connection = std::net::TcpStream::connect(runner.address()).expect("it listens");
    std::io::Write::write_all(&mut connection, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("it reads");
    runner.wait_for_metric("wasm_instances_running", 1.0);
    reset(connection);
    runner.wait_for_metric("wasm_instances_running", 0.0);
    gpu.is_empty_but_for(1);
    runner.stop();
    gpu.is_empty_but_for(0);
}

#[test]
fn freed_memory_is_overwritten_before_reuse_by_others() {
    // The guest itself sets its memory once before it frees it.
    for (isolation, overwritten) in [("context", 1), ("shared", 2)] {
        let gpu = Gpu::new().env("cuda_isolation", isolation);
        let runner = gpu.runner(guest("scrub").serve()).start();
        assert_eq!(runner.get("/").status, 200);
        gpu.is_empty_but_for(1);
        assert_eq!(
            gpu.calls("cuMemsetD8Async"),
            overwritten,
            "{:#?}",
            gpu.census()
        );
        runner.stop();
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn a_fault_in_a_shared_context_does_not_affect_the_next_guest() {
    for how in ["keep", "unseen"] {
        let gpu = Gpu::new().env("cuda_isolation", "shared");
        let guest = guest("overrun");
        let runner = serve(&gpu, &guest, &[how]).start();
        for _ in 0..2 {
            let response = runner.get("/");
            assert_eq!(response.status, 200, "{how}: {}", response.text());
            // The broken context is destroyed and never reused.
            gpu.is_empty_but_for(1);
        }
        assert_eq!(runner.get("/_/health").status, 200, "{}", runner.log());
        runner.stop();
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn compiling_meets_the_deadline() {
    for isolation in ["context", "shared"] {
        let driver = FakeCuda::new().with("latency", "cuLinkCreate_v2=2s");
        let gpu = Gpu::of(driver).env("cuda_isolation", isolation);
        let guest = guest("vecadd");
        let runner = serve(&gpu, &guest, &[])
            .env("exec_timeout", "500ms")
            .start();
        assert_eq!(runner.get("/").status, 504, "{isolation}: {}", runner.log());
        // A module that was compiled too late is unloaded before its context is destroyed.
        gpu.is_empty_but_for(1);
        assert_eq!(gpu.calls("cuModuleUnload"), 1, "{isolation}");
        assert_eq!(runner.get("/_/health").status, 200);
        runner.stop();
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn making_a_context_meets_the_deadline() {
    for isolation in ["context", "shared"] {
        let driver = FakeCuda::new();
        driver.control("latency = cuCtxCreate_v2=2s\n");
        let gpu = Gpu::of(driver)
            .env("cuda_isolation", isolation)
            .env("cuda_warm_contexts", "0");
        let guest = guest("vecadd");
        let runner = serve(&gpu, &guest, &[])
            .env("exec_timeout", "500ms")
            .start();
        assert_eq!(runner.get("/").status, 504, "{isolation}: {}", runner.log());
        runner.stop();
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn a_call_that_never_returns_loses_the_device() {
    let gpu = Gpu::of(FakeCuda::new().with("latency", "cuMemAlloc_v2=1000s"));
    let guest = guest("vecadd");
    let runner = serve(&gpu, &guest, &[])
        .env("exec_timeout", "500ms")
        .start();
    // The runner cannot respond: the thread that would do it is blocked in the driver.
    let connection = std::net::TcpStream::connect(runner.address()).expect("it listens");
    std::io::Write::write_all(&mut &connection, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("it reads");
    let (status, log) = runner.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("a driver call has not returned"), "{log}");
    gpu.has_no_violations();
}

/// Functions that release something. If one of them fails, something may be left.
fn gives_back(function: &str) -> bool {
    ["Destroy", "Free", "Unload", "Complete", "SetCurrent"]
        .iter()
        .any(|part| function.contains(part))
}

#[test]
fn a_failing_driver_call_leaves_nothing_behind_and_touches_nothing_foreign() {
    for name in ["leak"] {
        let guest = guest(name);
        let gpu = Gpu::new();
        gpu.run(guest.artifact(), None, &[]);
        for function in gpu.census().called() {
            for (which, code) in [("", 2), ("#2+", 801)] {
                let inject = format!("{function}{which}={code}");
                let gpu = Gpu::of(FakeCuda::new().with("inject", &inject));
                let outcome = gpu.run(guest.artifact(), None, &[]);
                assert!(
                    !outcome.stderr.contains("panicked"),
                    "{name}, {inject}: {}",
                    outcome.stderr
                );
                match gives_back(&function) {
                    true => gpu.has_no_violations(),
                    false => gpu.is_empty_but_for(0),
                }
            }
        }
    }
}
