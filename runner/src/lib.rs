//! The runner of faas-wasm: a watchdog for OpenFaaS functions that is a drop-in for of-watchdog and serves compiled
//! WebAssembly modules.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod app;
pub mod artifact;
pub mod cli;
pub mod config;
pub mod cuda;
pub mod descriptors;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gotext;
pub mod guest;
pub mod jwt;
pub mod log;
pub mod metrics;
pub mod modes;
pub mod one_shot;
pub mod process;
pub mod request;
pub mod response;
pub mod server;
pub mod sniff;
pub mod threads;
