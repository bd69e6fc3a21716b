//! Guests that use a GPU, over the stand-in driver: they run real kernels, in three data models each.
//!
//! Every test ends with an empty census: nothing of a guest is left on the device, and the driver saw no forbidden
//! call.

use faas_wasm_tests::{Backend, Gpu, Guest, Work, cuda_fixtures};

/// 4-byte device pointers, 8-byte ones, and kernels whose PTX does not mark which parameters are pointers.
const MODELS: [&str; 3] = ["", "64", "-bare"];

fn guest(name: &str) -> Guest {
    guest_by(name, Backend::Cranelift)
}

fn guest_by(name: &str, backend: Backend) -> Guest {
    Guest::compiled(&cuda_fixtures().join(format!("{name}.wasm")), backend)
}

/// Runs a guest in each data model and isolation mode. All checks of the guest must pass.
#[track_caller]
fn passes(name: &str, arguments: &[&str]) {
    for isolation in ["context", "shared"] {
        passes_in(isolation, name, arguments);
    }
}

#[track_caller]
fn passes_in(isolation: &str, name: &str, arguments: &[&str]) {
    for model in MODELS {
        let name = format!("{name}{model}");
        let guest = guest(&name);
        let gpu = Gpu::new().env("cuda_isolation", isolation);
        let outcome = gpu.run(guest.artifact(), Some(&cuda_fixtures()), arguments);
        let text = outcome.text();
        assert_eq!(
            outcome.code(),
            0,
            "{name}, {isolation}:\n{text}\n{}",
            outcome.stderr
        );
        assert!(
            text.contains(" checks, 0 failed"),
            "{name}, {isolation}: {text}"
        );
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn devices_are_described() {
    passes_in("context", "device", &[]);
}

#[test]
fn a_guest_cannot_set_limits_of_a_shared_context() {
    let gpu = Gpu::new().env("cuda_isolation", "shared");
    let outcome = gpu.run(guest("device").artifact(), None, &[]);
    let text = outcome.text();
    let failed: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("FAIL "))
        .collect();
    let expected = [
        "FAIL cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 2048)",
        "FAIL size >= 2048",
    ];
    assert_eq!(failed, expected, "{text}");
    assert!(text.contains("gave 215, wanted 0"), "{text}");
    // The host sets a limit on each context when it creates it.
    assert_eq!(gpu.calls("cuCtxSetLimit"), gpu.calls("cuCtxCreate_v2"));
    gpu.is_empty_but_for(0);
}

#[test]
fn memory_is_copied_and_set() {
    passes("memory", &[]);
}

#[test]
fn vectors_are_added() {
    passes("vecadd", &[]);
    passes("vecadd", &["kernels.ptx"]);
}

/// An uncompressed fatbin that contains PTX: a header of 16 bytes, and an entry with a header of 64.
fn fatbin(text: &[u8]) -> Vec<u8> {
    let mut part = Vec::new();
    part.extend(1_u16.to_le_bytes());
    part.extend(0x101_u16.to_le_bytes());
    part.extend(64_u32.to_le_bytes());
    part.extend((text.len() as u64 + 1).to_le_bytes());
    part.resize(64, 0);
    part.extend(text);
    part.push(0);
    let mut image = 0xba55_ed50_u32.to_le_bytes().to_vec();
    image.extend(1_u16.to_le_bytes());
    image.extend(16_u16.to_le_bytes());
    image.extend((part.len() as u64).to_le_bytes());
    image.extend(part);
    image
}

#[test]
fn modules_come_in_fatbins() {
    let work = Work::new();
    for (model, kernels) in [
        ("", "kernels"),
        ("64", "kernels"),
        ("-bare", "kernels-bare"),
    ] {
        let text = std::fs::read(cuda_fixtures().join(format!("{kernels}.ptx")));
        work.write("k.fatbin", fatbin(&text.expect("it has been built")));
        let guest = guest(&format!("vecadd{model}"));
        let gpu = Gpu::new();
        let outcome = gpu.run(guest.artifact(), Some(work.path()), &["k.fatbin"]);
        let text = outcome.text();
        assert_eq!(outcome.code(), 0, "{model}:\n{text}\n{}", outcome.stderr);
        gpu.is_empty_but_for(0);
    }
}

#[test]
fn matrices_are_multiplied() {
    passes("matmul", &["24"]);
}

#[test]
fn every_kind_of_parameter_arrives() {
    passes("launches", &[]);
}

#[test]
fn streams_and_events_order_work() {
    passes("streams", &[]);
}

#[test]
fn graphs_are_captured_and_launched() {
    passes("graphs", &[]);
}

#[test]
fn forged_and_stale_values_are_refused() {
    passes("hostile", &[]);
}

#[test]
fn a_function_multiplies_matrices_over_http() {
    let guest = guest("product");
    let gpu = Gpu::new().env("use_cuda", "required");
    let runner = gpu.runner(guest.serve()).start();
    let begun = std::time::Instant::now();
    while runner.get("/_/ready").status != 200 {
        assert!(begun.elapsed().as_secs() < 60, "{}", runner.log());
    }
    let (n, k, m) = (5_u32, 3_u32, 4_u32);
    let a: Vec<f32> = (0..n * k).map(|at| at as f32).collect();
    let b: Vec<f32> = (0..k * m).map(|at| (at % 5) as f32 - 2.0).collect();
    let mut body: Vec<u8> = [n, k, m]
        .iter()
        .flat_map(|size| size.to_le_bytes())
        .collect();
    body.extend(a.iter().chain(&b).flat_map(|value| value.to_le_bytes()));
    let mut expected = Vec::new();
    for row in 0..n as usize {
        for column in 0..m as usize {
            let sum: f32 = (0..k as usize)
                .map(|at| a[row * k as usize + at] * b[at * m as usize + column])
                .sum();
            expected.extend(sum.to_le_bytes());
        }
    }
    for _ in 0..3 {
        let response = runner.post("/", body.clone());
        assert_eq!(response.status, 200, "{}", runner.log());
        assert_eq!(response.body, expected);
    }
    gpu.is_empty_but_for(1);
    runner.stop();
    gpu.is_empty_but_for(0);
}

#[test]
fn llvm_guests_behave_the_same() {
    for name in ["memory", "launches64", "graphs-bare", "hostile"] {
        let guest = guest_by(name, Backend::Llvm);
        let gpu = Gpu::new();
        let outcome = gpu.run(guest.artifact(), None, &[]);
        let text = outcome.text();
        assert_eq!(outcome.code(), 0, "{name}:\n{text}\n{}", outcome.stderr);
        gpu.is_empty_but_for(0);
    }
}
