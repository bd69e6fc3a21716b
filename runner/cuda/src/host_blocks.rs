//! Blocks of guest memory that the guest uses as page-locked memory.

use std::collections::BTreeMap;

/// The blocks of an instance.
#[derive(Debug, Default)]
pub(crate) struct HostBlocks {
    /// Number of pages by address.
    pub(crate) live: BTreeMap<u32, u32>,
    pub(crate) free: Vec<(u32, u32)>,
    /// Lengths by address.
    pub(crate) registered: BTreeMap<u64, u64>,
}
