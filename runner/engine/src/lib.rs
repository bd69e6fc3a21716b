//! Maps artifacts and runs them: modules, instances, memory slots, traps and deadlines.
//!
//! ```text
//! Module::load          checks and maps an artifact, which all threads share
//! Linker::link          resolves imports to host functions and sets limits
//! Replica::new          creates slots and a spare instance on a worker thread
//! Replica::run          runs one request in a fresh instance, at most until its deadline
//! ```
//!
//! The engine knows neither HTTP nor WASI nor CUDA. Crates above it provide imports through
//! [`Linker`], as plain functions over checked memory views ([`host`]). All unsafe code that runs
//! guests is in this crate, in the modules `host`, `image`, `instance`, `libcalls`, `map`, `memory`,
//! `module`, `pagemap`, `sched`, `signal`, `slot`, `state`, `unwind` and `write_protect`. Each states
//! its assumptions.
//!
//! One guest runs on a thread at a time. A hostile guest can end only its own run: address arithmetic
//! keeps memory accesses in its slot (`slot`), its separate stack ends in a red zone (`signal`), and
//! every run ends at its deadline (`deadline`).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod host;
pub mod memory;

mod deadline;
#[cfg(feature = "fault-injection")]
pub mod fault_injection;
#[cfg(not(feature = "fault-injection"))]
#[path = "fault_injection_disabled.rs"]
mod fault_injection;
mod image;
mod instance;
mod libcalls;
mod link;
mod map;
mod module;
mod names;
mod pagemap;
mod replica;
mod sched;
mod signal;
mod slot;
mod state;
mod stop;
mod trap;
mod unwind;
mod write_protect;

pub use deadline::{Canceler, RunLimits};
pub use host::{Caller, HostFunction, Linker};
pub use instance::{InstanceError, Usage};
pub use link::{Limits, LinkError, Linked};
pub use memory::{GuestMemory, MemoryFault};
pub use module::{ENGINE_VERSION, LoadError, Module};
pub use replica::Replica;
pub use sched::run_as_batch;
pub use slot::SlotError;
pub use stop::{Interruption, Stop, TrapKind};
pub use trap::{Backtrace, RunOutcome, Trap};
