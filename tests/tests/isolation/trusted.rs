//! Loading an artifact is unsafe because its code will be executed.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use faas_wasm_engine::Module;

/// Loads an artifact that the test has just built, in a directory that the test removes.
pub(crate) fn load(path: &Path) -> Arc<Module> {
    // SAFETY: the tool in this tree wrote the file, and no other process changes it.
    let module = unsafe { Module::load(path) };
    module.expect("it was made by the tool of this tree")
}
