//! The interface through which calls reach the guest.

use std::time::Instant;

/// Access to the memory, files, and deadline of the guest.
pub(crate) trait GuestHost {
    /// A range of guest memory; `None` if it is not all inside.
    fn bytes(&self, offset: u32, length: u32) -> Option<&[u8]>;
    /// The same for writing.
    fn bytes_mut(&mut self, offset: u32, length: u32) -> Option<&mut [u8]>;
    /// Size of guest memory in bytes.
    fn memory_size(&self) -> u64;
    /// Grows guest memory by pages of 64 KiB. Returns the old size in pages, or `None` if it cannot grow.
    fn grow(&mut self, pages: u32) -> Option<u32>;
    /// Reads a file from the guest's file system.
    fn read_file(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, FileProblem>;
    /// The deadline of the run.
    fn deadline(&self) -> Option<Instant>;
    /// Whether the run must end now.
    fn is_interrupted(&self) -> bool;
}

/// Why a file of the guest could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileProblem {
    /// The file does not exist, or the guest may not read it.
    NotFound,
    /// The file is larger than the limit.
    TooLarge,
}
