//! What a module declares about its use of CUDA.

use std::collections::HashMap;
use std::sync::Arc;

use faas_wasm_artifact::CudaAbi;

/// The CUDA imports of a module, shared by its instances.
#[derive(Debug)]
pub struct Imports {
    pub(crate) abi: CudaAbi,
    /// Names of imported functions that are not provided, in the order of their stubs.
    pub(crate) unsupported: Vec<String>,
    /// Which parameters of each kernel are device pointers, as the module declares.
    pub(crate) declared: HashMap<String, Arc<[bool]>>,
}

/// Parses a declaration with one letter per parameter: `p` for a device pointer, any other letter for a value.
pub(crate) fn declaration(kinds: &str) -> Arc<[bool]> {
    kinds.bytes().map(|kind| kind == b'p').collect()
}
