//! Loading compiled code is unsafe because it will be executed.
//!
//! This program has just written the files, in a temporary directory that it removes at the end. No other process
//! changes them.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

/// Loads an artifact.
pub(crate) fn load(path: &Path) -> Arc<faas_wasm_engine::Module> {
    // SAFETY: as above.
    let module = unsafe { faas_wasm_engine::Module::load(path) };
    module.expect("it was made by the tool of this tree")
}

/// Loads a module that the rival has compiled.
pub(crate) fn load_rival(engine: &wasmtime::Engine, path: &Path) -> wasmtime::Module {
    // SAFETY: as above.
    let module = unsafe { wasmtime::Module::deserialize_file(engine, path) };
    module.expect("it was made by the same engine")
}
