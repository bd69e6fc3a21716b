//! The CUDA guests as native programs on the stand-in driver. A failure here is a fault in a guest or in the
//! stand-in, not in the host.

use std::process::Command;

use faas_wasm_tests::{FakeCuda, Outcome, fake_cuda, native_cuda_guest};

fn command(guest: &str, arguments: &[&str], driver: &FakeCuda) -> Command {
    let mut command = Command::new(native_cuda_guest(guest));
    let library = fake_cuda();
    let directory = library.parent().expect("a file is in a directory");
    command
        .args(arguments)
        .env_clear()
        .env("LD_LIBRARY_PATH", directory)
        .envs(driver.variables().iter().cloned());
    command
}

/// Runs a guest, and asserts that all of its checks pass and that it printed them.
fn run(guest: &str, arguments: &[&str], driver: &FakeCuda) {
    let outcome = Outcome::of(&mut command(guest, arguments, driver));
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(outcome.code(), 0, "{text}{}", outcome.stderr);
    let last = text.lines().last().expect("guests say how it went");
    assert!(last.ends_with(" checks, 0 failed"), "{last}");
    assert_eq!(driver.census().violations(), [""; 0]);
}

fn run_to_nothing(guest: &str, arguments: &[&str]) {
    let driver = FakeCuda::new();
    run(guest, arguments, &driver);
    driver.assert_empty(0);
}

#[test]
fn all_guest_checks_pass() {
    for guest in [
        "device", "memory", "vecadd", "launches", "streams", "graphs", "hostile",
    ] {
        run_to_nothing(guest, &[]);
    }
    run_to_nothing("matmul", &["33"]);
}

#[test]
fn a_module_loads_from_a_file() {
    let directory = native_cuda_guest("vecadd");
    let kernels = directory.parent().and_then(|native| native.parent());
    let kernels = kernels.expect("a directory").join("kernels.ptx");
    run_to_nothing("vecadd", &[kernels.to_str().expect("a plain path")]);
}

#[test]
fn a_guest_that_frees_nothing_leaks_every_kind_of_object() {
    let driver = FakeCuda::new();
    run("leak", &[], &driver);
    let census = driver.census();
    let kinds = [
        "contexts",
        "allocations",
        "pool_allocations",
        "pools",
        "pinned",
        "streams",
        "events",
        "modules",
        "graphs",
        "graph_execs",
        "threads_with_context",
    ];
    for kind in kinds {
        assert!(census.live(kind) > 0, "{kind}");
    }
}

#[test]
fn kernel_that_writes_out_of_bounds_poisons_its_context() {
    let driver = FakeCuda::new();
    run("overrun", &[], &driver);
    assert_eq!(driver.census().kernels("faulted"), 1);
    driver.assert_empty(0);
}

#[test]
fn endless_kernel_runs_until_the_launch_times_out() {
    let driver = FakeCuda::new().with("launch_timeout", "50ms");
    let outcome = Outcome::of(&mut command("spin", &["stream"], &driver));
    assert_eq!(outcome.code(), 1, "{outcome:?}");
    assert_eq!(driver.census().kernels("faulted"), 1);
    assert!(driver.trace().contains("702 CUDA_ERROR_LAUNCH_TIMEOUT"));
}

#[test]
fn ordered_failures_reach_the_guest() {
    let driver = FakeCuda::new().with("inject", "cuMemAlloc_v2#2=2");
    let outcome = Outcome::of(&mut command("memory", &[], &driver));
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(outcome.code(), 1);
    assert!(
        text.contains("FAIL cuMemAlloc(&a, SIZE)\n     gave 2, wanted 0"),
        "{text}"
    );
}

#[test]
fn function_multiplies_matrices() {
    let (n, k, m) = (5usize, 20usize, 33usize);
    let a: Vec<_> = (0..n * k).map(|index| (index % 11) as f32 - 5.0).collect();
    let b: Vec<_> = (0..k * m).map(|index| (index % 7) as f32 - 3.0).collect();
    let mut body: Vec<u8> = [n, k, m]
        .iter()
        .flat_map(|size| (*size as u32).to_le_bytes())
        .collect();
    body.extend(a.iter().chain(&b).flat_map(|value| value.to_le_bytes()));
    let driver = FakeCuda::new();
    let outcome = Outcome::with_input(&mut command("product", &[], &driver), &body);
    assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
    let words = outcome.stdout.chunks_exact(4);
    let found: Vec<_> = words
        .map(|word| f32::from_le_bytes(word.try_into().expect("four bytes")))
        .collect();
    let product = |row: usize, column: usize| -> f32 {
        (0..k)
            .map(|index| a[row * k + index] * b[index * m + column])
            .sum()
    };
    let cells = (0..n).flat_map(|row| (0..m).map(move |column| (row, column)));
    let expected: Vec<_> = cells.map(|(row, column)| product(row, column)).collect();
    assert_eq!(found, expected);
    driver.assert_empty(0);

    body.pop();
    let outcome = Outcome::with_input(&mut command("product", &[], &driver), &body);
    assert_eq!(outcome.code(), 1);
    assert!(
        outcome.stderr.contains("the body is too short"),
        "{}",
        outcome.stderr
    );
}
