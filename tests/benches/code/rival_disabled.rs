//! No rival: this was compiled without the feature `bench`.

use std::path::Path;

/// Whether the rival was compiled in.
pub(crate) const IS_THERE: bool = false;

/// Tells a child process to run a module.
pub(crate) const FLAG: &str = "--wasmtime";

/// What the settings are called in the report.
pub(crate) const SETTINGS: &str = "wasmtime: not measured";

/// Runs nothing.
pub(crate) fn run(_: &Path, _: &str) {
    unreachable!("no contestant starts this program so");
}
