//! How fast compiled code is, beside clang's native code and wasmtime. `make bench-code` runs this.
//!
//! Each kernel (`kernels/*.c`) is compiled by clang to a native program and to two WebAssembly modules, with and
//! without SIMD. Our backends and wasmtime compile the modules. Every program measures itself and prints a checksum
//! of its results; a checksum that differs from clang's fails the benchmark.
//!
//! ```text
//! round 1   gemm: clang, LLVM, ..., wasmtime    jacobi-1d: clang, LLVM, ...
//! round 2   gemm: LLVM, ..., wasmtime, clang    jacobi-1d: LLVM, ...
//! ```
//!
//! The contestants take turns, so that each of them meets the same conditions. The shortest time of all rounds
//! counts, because other programs on the machine only ever add time.

mod compare;
mod contestant;
mod measure;
mod report;
#[cfg(feature = "bench")]
mod rival;
#[cfg(not(feature = "bench"))]
#[path = "rival_disabled.rs"]
mod rival;
mod selection;

use std::process::ExitCode;

use faas_wasm_tests::Work;

use selection::Selection;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(rival::FLAG) {
        let module = arguments.next().expect("the parent passes a module");
        let repeats = arguments.next().expect("the parent passes a number");
        rival::run(module.as_ref(), &repeats);
        return ExitCode::SUCCESS;
    }
    let selection = match Selection::from_environment() {
        Ok(selection) => selection,
        Err(error) => return fail(&error),
    };
    let work = Work::new();
    let mut kernels = contestant::build(&selection, &work);
    match measure::by_turns(&mut kernels, selection.rounds) {
        Ok(times) if selection.compares() => compare::conclude(&selection, &times),
        Ok(times) => report::conclude(&selection, &times),
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "shown to the user of the benchmark")]
fn fail(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
