//! The CUDA driver API for guests: every call is checked and limited, and the driver is opened at run time.
//!
//! ```text
//! Cuda::start          opens the driver and creates contexts in the background              service
//! add_to_linker        provides a module's imports in its data model                        linker
//! Instance::new        CUDA for one run; dropping it releases everything                    instance, teardown
//!
//! a call:   linker -> calls/* -> call (memory, waits)     checks what the guest passes
//!                            -> handles, addresses        translates the guest's handles and addresses
//!                            -> driver                    calls the driver                  (unsafe)
//! ```
//!
//! The arguments of a driver call name only memory, handles, and devices of the instance. This crate does not check
//! what a running kernel accesses; only its context bounds that. With [`Isolation::Context`] each instance has a
//! separate context.
//!
//! The crate knows neither HTTP nor WASI; the embedder reads files for guests ([`CudaHost::read_file`]). Unsafe code is
//! in `driver/table.rs`, `driver/calls.rs`, and `driver/library.rs`, which state their assumptions.
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
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
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
