//! Loads the artifact that this process serves, and gives it its imports.

use std::path::Path;
use std::sync::Arc;

use faas_wasm_engine::{Limits, LinkError, Linked, Linker, LoadError, Module};
use faas_wasm_wasi::WasiContext;

/// A module ready for instances.
pub type Guest = Linked<WasiContext>;

/// Why an artifact cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// It cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It needs what is not there.
    #[error(
        "{path}: {source}\nhint: `faas-wasm inspect {path}` lists what the module imports and needs"
    )]
    Link {
        /// The artifact.
        path: String,
        /// What is missing.
        source: LinkError,
    },
}

/// Loads an artifact and resolves its imports.
///
/// # Errors
/// [`GuestError`].
pub fn load(path: &Path, limits: Limits) -> Result<Arc<Guest>, GuestError> {
    // SAFETY: the artifact is named by the runner's own configuration or command line, by somebody who could name any
    // program to run as well; SECURITY.md asks that nobody else can write the file or change it in place.
    let module = unsafe { Module::load(path) }?;
    let mut linker = Linker::new();
    faas_wasm_wasi::add_to_linker(&mut linker);
    linker
        .link(module, limits)
        .map_err(|source| GuestError::Link {
            path: path.display().to_string(),
            source,
        })
}
