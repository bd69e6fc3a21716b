//! Loads the artifact that this process serves, and gives it its imports.

use std::path::Path;
use std::sync::Arc;

use faas_wasm_cuda::Imports;
use faas_wasm_engine::{Limits, LinkError, Linked, Linker, LoadError, Module};

use crate::cuda::Host;

/// A module ready for instances.
pub type Guest = Linked<Host>;

/// A guest, and what is known of its CUDA imports if it has any.
#[derive(Debug)]
pub struct Loaded {
    /// The module.
    pub guest: Arc<Guest>,
    /// For [`crate::cuda::Provider`].
    pub cuda: Option<Arc<Imports>>,
}

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
    /// It imports CUDA, and that is not switched on.
    #[error(
        "{path} imports the CUDA driver API\nhint: set use_cuda=true (its calls fail where there is no driver) or use_cuda=required"
    )]
    NoCuda {
        /// The artifact.
        path: String,
    },
}

/// Loads an artifact and resolves its imports.
///
/// # Errors
/// [`GuestError`].
pub fn load(path: &Path, limits: Limits, use_cuda: bool) -> Result<Loaded, GuestError> {
    // SAFETY: the artifact is named by the runner's own configuration or command line, by somebody who could name any
    // program to run as well; SECURITY.md asks that nobody else can write the file or change it in place.
    let module = unsafe { Module::load(path) }?;
    let mut linker = Linker::new();
    faas_wasm_wasi::add_to_linker(&mut linker);
    let cuda = match module.cuda() {
        Some(_) if !use_cuda => {
            let path = path.display().to_string();
            return Err(GuestError::NoCuda { path });
        }
        Some(cuda) => Some(faas_wasm_cuda::add_to_linker(
            &mut linker,
            cuda,
            module.imports(),
        )),
        None => None,
    };
    let guest = linker
        .link(module, limits)
        .map_err(|source| GuestError::Link {
            path: path.display().to_string(),
            source,
        })?;
    Ok(Loaded { guest, cuda })
}
