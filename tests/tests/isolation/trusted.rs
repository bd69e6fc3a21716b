//! Loading of an artifact, which is unsafe: its code will be executed.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use faas_wasm_engine::Module;

/// Loads an artifact that the test has just made, in a directory that goes away with it.
pub(crate) fn load(path: &Path) -> Arc<Module> {
    // SAFETY: the tool of this tree made it, and nobody changes it meanwhile.
    let module = unsafe { Module::load(path) };
    module.expect("it was made by the tool of this tree")
}
