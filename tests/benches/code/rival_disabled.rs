//! Replaces the rival if the feature `bench` is off.

use std::path::Path;

/// Whether the rival is compiled in.
pub(crate) const IS_THERE: bool = false;

/// The argument that makes a child process run a module.
pub(crate) const FLAG: &str = "--wasmtime";

/// Description of the settings for the report.
pub(crate) const SETTINGS: &str = "wasmtime: not measured";

/// Does nothing, because no rival is compiled in.
pub(crate) fn run(_: &Path, _: &str) {
    unreachable!("no contestant starts this program with the flag");
}
