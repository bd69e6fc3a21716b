//! Paths of the programs and inputs, from the environment variables that the Makefile sets.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variable with the path of `faas-wasm`.
const TOOL: &str = "FAAS_WASM";
/// Environment variable with the path of `faas-wasm-runner`.
const RUNNER: &str = "FAAS_WASM_RUNNER";
/// Environment variable with the directory of the built fixtures.
const FIXTURES: &str = "FAAS_WASM_FIXTURES";
/// Environment variable with the path of esbuild's module.
const ESBUILD: &str = "FAAS_WASM_ESBUILD";
/// Environment variable with the directory of third-party modules.
const GUESTS: &str = "FAAS_WASM_GUESTS";
/// Environment variable with the path of the stand-in for the CUDA driver.
const FAKE_CUDA: &str = "FAAS_WASM_FAKE_CUDA";
/// Environment variable with the path of cargo-deny.
const CARGO_DENY: &str = "FAAS_WASM_CARGO_DENY";
/// Environment variable with the compilation target, for a runner of another architecture.
const TARGET: &str = "FAAS_WASM_TARGET";
/// Environment variable with the file that records skipped tests.
const SKIPPED: &str = "FAAS_WASM_SKIPPED";

fn required(variable: &str) -> PathBuf {
    let path = env::var_os(variable).map(PathBuf::from);
    let path = path.unwrap_or_else(|| {
        panic!("{variable} is not set: these tests need built programs; run them with `make test`")
    });
    assert!(
        path.exists(),
        "{variable} names {}, which is not there: run `make test`",
        path.display()
    );
    path
}

/// Path of `faas-wasm`.
pub fn tool_program() -> PathBuf {
    required(TOOL)
}

/// Path of `faas-wasm-runner`.
pub fn runner_program() -> PathBuf {
    required(RUNNER)
}

/// `faas-wasm`, without any variables from the tests' environment that would change its behavior.
pub fn tool() -> Command {
    tool_at(&tool_program())
}

/// Another build of `faas-wasm`, with the same environment.
pub fn tool_at(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default());
    // The two programs may be in different directories.
    if let Some(runner) = env::var_os(RUNNER) {
        command.env(RUNNER, runner);
    }
    if let Some(target) = env::var_os(TARGET) {
        command.env("wasm_c_target", target);
    }
    command
}

/// Whether the tool builds for this machine by default.
pub fn builds_for_this_machine() -> bool {
    env::var_os(TARGET).is_none()
}

/// The directory of the CUDA guests.
pub fn cuda_fixtures() -> PathBuf {
    required(FIXTURES).join("cuda")
}

/// The path of a fixture's module.
pub fn fixture(name: &str) -> PathBuf {
    let path = required(FIXTURES).join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "there is no fixture {}: run `make fixtures`",
        path.display()
    );
    path
}

/// The path of the stand-in CUDA driver, a `libcuda.so.1`.
pub fn fake_cuda() -> PathBuf {
    required(FAKE_CUDA)
}

/// The path of a CUDA guest that is compiled as a native program.
pub fn native_cuda_guest(name: &str) -> PathBuf {
    let path = required(FIXTURES).join("cuda/native").join(name);
    assert!(
        path.exists(),
        "there is no program {}: run `make fake-cuda`",
        path.display()
    );
    path
}

/// The path of esbuild's module, if it could be downloaded.
pub fn esbuild() -> Option<PathBuf> {
    env::var_os(ESBUILD)
        .map(PathBuf::from)
        .filter(|path| path.exists())
}

/// The directory of third-party modules, if they could be downloaded.
pub fn guests() -> Option<PathBuf> {
    env::var_os(GUESTS)
        .map(PathBuf::from)
        .filter(|path| path.join("complete").exists())
}

/// The path of cargo-deny, if the Makefile installed it.
pub fn cargo_deny() -> Option<PathBuf> {
    env::var_os(CARGO_DENY)
        .map(PathBuf::from)
        .filter(|path| path.exists())
}

/// The guest that prints the error number of every failing call, and its output under wasmtime.
pub fn wasi_errno_guest() -> (PathBuf, PathBuf) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../runner/wasi/errno");
    (directory.join("errno.c"), directory.join("wasmtime.txt"))
}

/// Records that a test is skipped, and why. The Makefile counts these records at the end.
#[expect(clippy::print_stdout, reason = "shown when a single test runs")]
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}\n");
    print!("{line}");
    if let Some(path) = env::var_os(SKIPPED) {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the list of skipped tests can be written");
    }
}
