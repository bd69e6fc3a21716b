//! Harness of the black-box tests, which use only the two programs and not their internals.
//!
//! The Makefile builds the programs, fixtures and other inputs, and passes their paths in environment variables; run
//! the tests with `make test`. Every test has a separate directory and a separate runner on ports that the kernel
//! picks, and waits for conditions instead of sleeping. A runner ends when its handle is dropped.

mod cuda;
mod gpu;
mod guest;
pub mod http;
mod outcome;
pub mod random;
pub mod results;
mod runner;
mod surroundings;

pub use cuda::{Census, FakeCuda};
pub use gpu::Gpu;
pub use guest::{Backend, Guest, Work};
pub use outcome::Outcome;
pub use runner::{Runner, RunnerCommand};
pub use surroundings::{
    builds_for_this_machine, cargo_deny, cuda_fixtures, esbuild, fake_cuda, fixture, guests,
    native_cuda_guest, runner_program, skip, tool, tool_at, tool_program, wasi_errno_guest,
};
