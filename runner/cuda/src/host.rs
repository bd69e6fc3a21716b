//! What calls need of the guest around them.

use std::time::Instant;

/// What a call needs of the guest around it.
pub(crate) trait GuestHost {
    /// Bytes of the guest's memory, if all of them are in it.
    fn bytes(&self, offset: u32, length: u32) -> Option<&[u8]>;
    /// The same, for writing.
    fn bytes_mut(&mut self, offset: u32, length: u32) -> Option<&mut [u8]>;
    /// Length of the memory.
    fn memory_size(&self) -> u64;
    /// Makes the memory longer by pages of 64 KiB; the old length in pages, or `None`.
    fn grow(&mut self, pages: u32) -> Option<u32>;
    /// The contents of a file of the guest's own tree.
    fn read_file(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, FileProblem>;
    /// When the run must end.
    fn deadline(&self) -> Option<Instant>;
    /// Whether it is to end now.
    fn is_interrupted(&self) -> bool;
}

/// Why a file of the guest could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileProblem {
    /// There is none of that name, or the guest may not read it.
    NotFound,
    /// It is longer than a module may be.
    TooLarge,
}
