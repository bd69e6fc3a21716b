//! Maps artifacts and runs them: modules, instances, memory slots, traps and deadlines.
//!
//! ```text
//! Module::load          an artifact, checked and mapped; shared by all
//! Linker::link          its imports resolved to host functions, limits set
//! Replica::new          on a worker thread: slots and a spare instance
//! Replica::run          one request in a fresh instance, until it ends or its deadline passes
//! ```
//!
//! The engine knows neither HTTP nor WASI nor CUDA: crates above give guests their imports through
//! [`Linker`] and plain functions over checked memory views ([`host`]). All unsafe code of running
//! guests is in this crate, in the modules `atomics`, `caller`, `host`, `image`, `instance`,
//! `libcalls`, `map`, `memory`, `module`, `pagemap`, `sched`, `signal`, `slot` and `state`; each says what it assumes.
//!
//! One guest runs on a thread at a time. An instance of a hostile guest can end its own run and
//! nothing else: memory accesses stay in its slot by address arithmetic (`slot`), its stack is its
//! own and ends in a red zone (`signal`), and every run ends at its deadline (`deadline`).
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
