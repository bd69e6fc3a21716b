//! WASI preview1 over a copy-on-write root.
//!
//! All functions of `wasi_snapshot_preview1` and of the older `wasi_unstable`, for guests of
//! `faas-wasm-engine`. An embedder opens a [`Namespace`] once, builds a [`WasiContext`] for each run,
//! and keeps it in its state ([`WasiHost`]):
//!
//! ```
//! use std::sync::Arc;
//! use faas_wasm_engine::Linker;
//! use faas_wasm_wasi::{Access, Namespace, Root, WasiContext, add_to_linker};
//!
//! let namespace = Arc::new(Namespace::new(Root::open("/tmp")?, Access::CopyOnWrite));
//! let mut linker = Linker::<WasiContext>::new();
//! add_to_linker(&mut linker);
//! let context = WasiContext::builder(namespace)
//!     .arguments(vec![b"guest".to_vec()])
//!     .own_environment(|| vec![b"PWD=/".to_vec()])
//!     .build();
//! # drop(context);
//! # Ok::<(), faas_wasm_wasi::RootError>(())
//! ```
//!
//! The guest's `/` is descriptor 3. A guest's changes to files are private and vanish with its context,
//! except in mounts that write through ([`Access::ReadWrite`]). This crate knows neither HTTP nor how
//! guests run, and has no unsafe code.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod calls;
mod context;
mod errno;
mod fs;
mod linker;
mod read_file;
mod rights;
mod stream;
mod table;

pub use context::{
    DEFAULT_DESCRIPTORS, DEFAULT_QUOTA, Usage, WasiContext, WasiContextBuilder, WasiHost,
};
pub use errno::Errno;
#[cfg(feature = "fault-injection")]
pub use fs::keep_nodes;
pub use fs::{Access, Mount, MountError, MountProblem, Namespace, Root, RootError};
pub use linker::add_to_linker;
pub use stream::{Discard, Empty, HostStream, InputStream, OutputStream, StreamError};
