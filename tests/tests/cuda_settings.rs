//! The settings `use_cuda` and `cuda_*` as an operator sees them, and the build's messages about CUDA imports.

use faas_wasm_tests::{Backend, FakeCuda, Gpu, Guest, Outcome, Work, cuda_fixtures, tool};

fn guest(name: &str) -> Guest {
    Guest::compiled(
        &cuda_fixtures().join(format!("{name}.wasm")),
        Backend::Cranelift,
    )
}

#[test]
fn without_use_cuda_a_guest_that_needs_it_is_refused() {
    let outcome = guest("device").serve().run_to_end();
    assert_eq!(outcome.code(), 1);
    assert!(
        outcome.stderr.contains("hint: set use_cuda=true"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn without_a_driver_calls_fail_and_the_runner_starts() {
    let guest = guest("device");
    let runner = guest
        .serve()
        .env("use_cuda", "true")
        .env("cuda_driver_library", "/nonexistent/libcuda.so.1")
        .start();
    assert_eq!(runner.get("/_/ready").status, 200);
    let response = runner.get("/");
    assert_eq!(response.status, 500, "the guest's own exit code is 2");
    assert!(
        runner
            .log()
            .contains("cannot open the CUDA driver /nonexistent/libcuda.so.1"),
        "{}",
        runner.log()
    );
    let work = Work::new();
    let gpu = Gpu::new().env("cuda_driver_library", work.join("absent"));
    let outcome = gpu.run(guest.artifact(), None, &[]);
    assert!(
        outcome.text().contains("gave 100, wanted 0"),
        "{}",
        outcome.text()
    );
}

#[test]
fn required_refuses_to_start_without_a_driver() {
    let outcome = guest("device")
        .serve()
        .env("use_cuda", "required")
        .env("cuda_driver_library", "/nonexistent/libcuda.so.1")
        .run_to_end();
    assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
    assert!(
        outcome
            .stderr
            .contains("use_cuda=required, but there is no CUDA"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn readiness_waits_for_a_required_device() {
    let guest = guest("device");
    let gpu = Gpu::of(FakeCuda::new().with("latency", "cuInit=1s")).env("use_cuda", "required");
    let mut runner = gpu.runner(guest.serve()).start();
    if runner.get("/_/ready").status == 200 {
        assert!(
            gpu.calls("cuCtxCreate_v2") > 0,
            "ready before there is a context"
        );
    }
    runner.wait_for_log("CUDA driver 13.0");
    let begun = std::time::Instant::now();
    while runner.get("/_/ready").status != 200 {
        assert!(begun.elapsed().as_secs() < 60, "{}", runner.log());
    }
    runner.stop();
    gpu.is_empty_but_for(0);
}

#[test]
fn exceeded_limits_are_errors_of_the_guests_calls() {
    let guest = guest("memory");
    for (name, value) in [("cuda_mem_limit", "4Ki"), ("cuda_max_allocations", "1")] {
        let gpu = Gpu::new().env(name, value);
        let outcome = gpu.run(guest.artifact(), None, &[]);
        assert!(
            outcome.text().contains("gave 2, wanted 0"),
            "{name}: {}",
            outcome.text()
        );
        gpu.is_empty_but_for(0);
    }
    for (guest, name) in [
        ("streams", "cuda_max_streams"),
        ("streams", "cuda_max_events"),
        ("graphs", "cuda_max_graphs"),
        ("vecadd", "cuda_max_modules"),
        ("vecadd", "cuda_max_contexts"),
    ] {
        let gpu = Gpu::new().env(name, "0");
        let outcome = gpu.run(self::guest(guest).artifact(), None, &[]);
        assert!(
            outcome.text().contains("gave 2, wanted 0"),
            "{name}: {}",
            outcome.text()
        );
        gpu.is_empty_but_for(0);
    }
    let gpu = Gpu::new().env("cuda_max_module_size", "16");
    let outcome = gpu.run(self::guest("vecadd").artifact(), None, &[]);
    assert!(
        outcome.text().contains("gave 1, wanted 0"),
        "{}",
        outcome.text()
    );
    gpu.is_empty_but_for(0);
}

#[test]
fn strict_parameters_refuse_undeclared_pointers() {
    let gpu = Gpu::new().env("cuda_strict_params", "true");
    let outcome = gpu.run(guest("launches-bare").artifact(), None, &[]);
    assert!(
        outcome.text().contains("gave 801, wanted 0"),
        "{}",
        outcome.text()
    );
    assert!(
        outcome.stderr.contains("cuda_strict_params"),
        "{}",
        outcome.stderr
    );
    gpu.is_empty_but_for(0);
    // A parameter that the PTX declares as a pointer needs no guess.
    let gpu = Gpu::new().env("cuda_strict_params", "true");
    let outcome = gpu.run(guest("vecadd").artifact(), None, &[]);
    assert_eq!(outcome.code(), 0, "{}", outcome.text());
    gpu.is_empty_but_for(0);
}

#[test]
fn compiled_device_code_is_cached_in_a_directory() {
    let cache = Work::new();
    let guest = guest("vecadd");
    for (run, compiled) in [(1, 1), (2, 0)] {
        let gpu = Gpu::new().env("cuda_module_cache", cache.path());
        let outcome = gpu.run(guest.artifact(), None, &[]);
        assert_eq!(outcome.code(), 0, "{}", outcome.text());
        assert_eq!(
            gpu.calls("cuLinkCreate_v2"),
            compiled,
            "run {run}: {:#?}",
            gpu.census()
        );
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn parameter_layout_is_parsed_without_driver_support() {
    for model in ["launches", "launches64"] {
        let driver = FakeCuda::new();
        let old = driver.lacking(&["cuFuncGetParamInfo"]);
        let gpu = Gpu::of(driver).env("cuda_driver_library", &old);
        let outcome = gpu.run(guest(model).artifact(), None, &[]);
        assert_eq!(outcome.code(), 0, "{}", outcome.text());
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn unsupported_calls_are_logged_once_by_name() {
    let work = Work::new();
    let text = r#"(module
        (import "env" "cuInit" (func $init (param i32) (result i32)))
        (import "env" "cuMemAllocManaged" (func $managed (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (drop (call $init (i32.const 0)))
            (drop (call $managed (i32.const 8) (i32.const 4) (i32.const 1)))
            (call $exit (i32.eq (call $managed (i32.const 8) (i32.const 4) (i32.const 1)) (i32.const 801)))))"#;
    let module = work.write("a.wasm", wat::parse_str(text).expect("the text is correct"));
    let guest = Guest::compiled(&module, Backend::Cranelift);
    let gpu = Gpu::new();
    let outcome = gpu.run(guest.artifact(), None, &[]);
    assert_eq!(outcome.code(), 1, "it got 801: {}", outcome.stderr);
    assert_eq!(
        outcome.stderr.matches("cuMemAllocManaged").count(),
        1,
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_build_reports_imports_that_contradict_each_other() {
    let work = Work::new();
    let text = r#"(module
        (import "env" "cuMemFree_v2" (func (param i64) (result i32)))
        (import "env" "cuMemsetD8_v2" (func (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")))"#;
    let module = work.write("a.wasm", wat::parse_str(text).expect("the text is correct"));
    let outcome = Outcome::of(tool().arg("build").arg(&module));
    assert_eq!(outcome.code(), 1);
    assert!(
        outcome
            .stderr
            .contains("four bytes in the import cuMemsetD8_v2 and eight in cuMemFree_v2"),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("hint: "), "{}", outcome.stderr);
    for (name, model) in [("device", "w32, "), ("memory64", "w32p64, ")] {
        let outcome = Outcome::of(tool().arg("inspect").arg(guest(name).artifact()));
        assert!(
            outcome.success().contains(&format!("needed ({model}")),
            "{name}"
        );
    }
}

/// Functions that a driver may lack or report as unsupported, because the host has a fallback.
const DISPENSABLE: &[&str] = &[
    "cuFuncGetParamInfo",
    "cuLinkCreate_v2",
    "cuModuleLoadDataEx",
    "cuStreamCreateWithPriority",
    "cuStreamQuery",
    "cuEventQuery",
    "cuMemAllocHost_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpy2DAsync_v2",
    "cuMemsetD8Async",
    "cuMemsetD16Async",
    "cuMemsetD32Async",
    "cuCtxSetLimit",
];

#[test]
fn a_minimal_driver_is_enough() {
    let driver = FakeCuda::new();
    let small = driver.lacking(DISPENSABLE);
    let absent = Gpu::of(driver).env("cuda_driver_library", &small);
    let refused: Vec<_> = DISPENSABLE
        .iter()
        .filter(|name| **name != "cuModuleLoadDataEx")
        .map(|name| format!("{name}=801"))
        .collect();
    let refusing = Gpu::of(FakeCuda::new().with("inject", &refused.join(",")));
    for gpu in [absent, refusing] {
        for name in ["vecadd", "matmul", "launches", "launches64"] {
            let outcome = gpu.run(guest(name).artifact(), None, &[]);
            assert_eq!(outcome.code(), 0, "{name}: {}", outcome.text());
            gpu.is_empty_but_for(0);
        }
    }
}

#[test]
fn all_invalid_settings_are_reported_together() {
    let outcome = guest("device")
        .serve()
        .env("use_cuda", "yes")
        .env("cuda_mem_limit", "1Gb")
        .env("cuda_max_streams", "-1")
        .env("cuda_isolation", "process")
        .env("cuda_devices", "0,first")
        .env("cuda_kernel_timeout", "0")
        .env("cuda_strict_params", "perhaps")
        .env("cuda_sm_limit", "0")
        .run_to_end();
    assert_eq!(outcome.code(), 2, "{}", outcome.stderr);
    for name in [
        "use_cuda",
        "cuda_mem_limit",
        "cuda_max_streams",
        "cuda_isolation",
        "cuda_devices",
        "cuda_kernel_timeout",
        "cuda_strict_params",
        "cuda_sm_limit",
    ] {
        assert!(
            outcome.stderr.contains(&format!("{name}=")),
            "{name}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn multiprocessors_cannot_be_limited_yet() {
    let guest = guest("device");
    let gpu = Gpu::new().env("cuda_sm_limit", "8");
    let outcome = gpu.runner(guest.serve()).run_to_end();
    assert_eq!(outcome.code(), 2, "{}", outcome.stderr);
    let reason = "cannot limit multiprocessors";
    assert!(outcome.stderr.contains(reason), "{}", outcome.stderr);
    let outcome = gpu.run(guest.artifact(), None, &[]);
    assert_ne!(outcome.code(), 0);
    assert!(outcome.stderr.contains(reason), "{}", outcome.stderr);
}

#[test]
fn devices_are_selected_and_renumbered() {
    let guest = guest("vecadd");
    let two = || FakeCuda::new().with("devices", "2");
    let gpu = Gpu::of(two()).env("cuda_devices", "1");
    let outcome = gpu.run(guest.artifact(), None, &[]);
    assert_eq!(outcome.code(), 0, "{}", outcome.text());
    gpu.is_empty_but_for(0);
    // With a device that does not exist, all calls fail, or the runner does not start.
    let gpu = Gpu::of(two()).env("cuda_devices", "0,2");
    let outcome = gpu.run(guest.artifact(), None, &[]);
    assert!(
        outcome.text().contains("gave 101, wanted 0"),
        "{}",
        outcome.text()
    );
    assert!(
        outcome
            .stderr
            .contains("cuda_devices names device 2, but the driver has 2"),
        "{}",
        outcome.stderr
    );
    let gpu = gpu.env("use_cuda", "required");
    let outcome = gpu.runner(guest.serve()).run_to_end();
    assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
    // Without any device.
    let gpu = Gpu::of(FakeCuda::new().with("devices", "0"));
    let outcome = gpu.run(guest.artifact(), None, &[]);
    assert!(
        outcome.text().contains("gave 100, wanted 0"),
        "{}",
        outcome.text()
    );
}

#[test]
fn contexts_are_created_ahead_up_to_the_setting() {
    let guest = guest("vecadd");
    for warm in [0, 3] {
        let gpu = Gpu::new().env("cuda_warm_contexts", warm.to_string());
        let runner = gpu.runner(guest.serve()).start();
        gpu.wait_for_contexts(warm);
        assert_eq!(runner.get("/").status, 200);
        gpu.is_empty_but_for(warm);
        gpu.wait_for_contexts(warm);
        runner.stop();
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn cuda_enabled_for_a_guest_without_cuda_is_a_warning() {
    let gpu = Gpu::new();
    let mut runner = gpu.runner(Guest::fixture("hello-http").serve()).start();
    runner.wait_for_log("does not import CUDA");
    assert_eq!(runner.get("/").status, 200);
}
