//! Harness of the black-box tests: the two programs as a user has them, nothing of their insides.
//!
//! The programs, the fixtures and other inputs are made by the Makefile, which passes their places
//! by environment variables; `make test` is the way to run the tests. Every test has a directory of
//! its own, a runner of its own on ports that the kernel picks, and waits for what it needs instead
//! of sleeping. A runner ends when its handle is dropped.

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
