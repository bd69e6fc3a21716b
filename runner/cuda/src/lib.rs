//! The CUDA driver API for guests: checked, limited, and without a driver at link time.
//!
//! ```text
//! Cuda::start          opens the driver and makes contexts ahead, in the background         service
//! add_to_linker        gives a module its imports, in its data model                        linker
//! Instance::new        what one run has of it; dropping it gives everything back            instance, teardown
//!
//! a call:   linker -> calls/* -> call (memory, waits)     what the guest says, checked
//!                            -> handles, addresses        what the guest's names stand for
//!                            -> driver                    what the driver is told           (unsafe)
//! ```
//!
//! Arguments of calls never name memory, handles or devices that are not the instance's. What a kernel reaches by itself
//! is bounded by its context and by nothing here: with [`Isolation::Context`] each instance has one of its own.
//!
//! The crate knows neither HTTP nor WASI: whoever embeds it gives guests their files ([`CudaHost::read_file`]). Unsafe
//! code is in `driver/table.rs`, `driver/calls.rs` and `driver/library.rs`, which say what they rely on.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod addresses;
mod arguments;
mod call;
mod calls;
mod code;
mod compiled;
mod device;
#[allow(unsafe_code, reason = "see the module's text")]
mod driver;
mod guest_strings;
mod handles;
mod host;
mod host_blocks;
mod image;
mod imports;
mod instance;
mod layout;
mod lease;
mod linker;
mod objects;
mod offload;
mod outcome;
mod parameters;
mod service;
mod settings;
mod teardown;

#[cfg(test)]
mod tests;

pub use host::FileProblem;
pub use imports::Imports;
pub use instance::Instance;
pub use linker::{CudaHost, add_to_linker};
pub use service::{Cuda, Health};
pub use settings::{Isolation, Level, Log, Settings};
