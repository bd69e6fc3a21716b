//! What a module says of its use of CUDA.

use std::collections::HashMap;
use std::sync::Arc;

use faas_wasm_artifact::CudaAbi;

/// What the linker found out about a module, which its instances need.
#[derive(Debug)]
pub struct Imports {
    pub(crate) abi: CudaAbi,
    /// Functions that are not provided, in the order of their stubs.
    pub(crate) unsupported: Vec<String>,
    /// What the module says of its kernels' parameters: which are device pointers.
    pub(crate) declared: HashMap<String, Arc<[bool]>>,
}

/// A letter for each parameter, `p` for device pointers and any other for the rest.
pub(crate) fn declaration(kinds: &str) -> Arc<[bool]> {
    kinds.bytes().map(|kind| kind == b'p').collect()
}
