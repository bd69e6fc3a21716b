//! The fixed header: the last [`HEADER_SIZE`] bytes of an artifact.
//!
//! It stands at the end so that a truncated file is recognised by its absence, and so that all of
//! the ELF file before it can stay where the linker put it. All numbers are little-endian.
//!
//! ```text
//! offset  size
//!      0     8  magic "faaswasm"
//!      8     4  format version
//!     12     4  number of regions in use
//!     16     8  size of the file in bytes, of all of it in a fat artifact
//!     24     8  XXH3-64 over the load set: the bytes of all regions in order, then the
//!               header's first 24 bytes and its region table
//!     32    32  SHA-256 over the file with this field as zeros; zeros in a fat artifact, whose
//!               directory has it
//!     64  16*16  region table: offset and length of each, unused ones zero
//!    320   192  zeros; a reader rejects anything else
//!    512
//! ```

use xxhash_rust::xxh3::Xxh3;

/// Version of everything this crate describes. Any change to a layout raises it.
pub const FORMAT_VERSION: u32 = 2;
/// Size of the header in bytes.
pub const HEADER_SIZE: usize = 512;
/// First bytes of the header.
pub(crate) const MAGIC: [u8; 8] = *b"faaswasm";
/// Where the SHA-256 stands in the header.
pub(crate) const SHA256: std::ops::Range<usize> = 32..64;

/// Where the fast sum stands in the header.
pub(crate) const FAST_SUM: std::ops::Range<usize> = 24..32;
pub(crate) const REGIONS: std::ops::Range<usize> = 64..64 + 16 * REGION_COUNT;
const REGION_COUNT: usize = 16;

/// A range of bytes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

impl Range {
    /// The range as indices into a file of `size` bytes, or `None` if it does not lie inside.
    pub fn within(self, size: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        let length = usize::try_from(self.length).ok()?;
        let end = start.checked_add(length)?;
        (end <= size).then_some(start..end)
    }
}

/// The number of eight bytes at a place in a header or directory.
pub(crate) fn number_at(bytes: &[u8; HEADER_SIZE], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// The parts of the file that loading relies on: the *load set*. The fast sum covers them all.
/// The ELF's own dynamic section, symbols and relocations are not among them: they serve tools,
/// while the loader follows [`crate::LoadPlan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Region {
    /// ELF header and program headers.
    ElfHeaders = 0,
    /// [`crate::section::MANIFEST`].
    Manifest,
    /// [`crate::section::MODULE`].
    Module,
    /// [`crate::section::TABLES`].
    Tables,
    /// Unwind information of the code, `.eh_frame` and `.gcc_except_table`, where the module has
    /// exception tags and so can throw; else empty.
    Unwind,
}

impl Region {
    pub(crate) const ALL: [Self; 5] = [
        Self::ElfHeaders,
        Self::Manifest,
        Self::Module,
        Self::Tables,
        Self::Unwind,
    ];
}

/// The decoded header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// [`FORMAT_VERSION`] of the writer.
    pub format: u32,
    /// Size of the whole file in bytes.
    pub file_size: u64,
    /// XXH3-64 over the load set.
    pub fast_sum: u64,
    /// SHA-256 over the file, this field taken as zeros.
    pub sha256: [u8; 32],
    regions: [Range; REGION_COUNT],
}

impl Header {
    /// Where a region lies.
    pub fn region(&self, region: Region) -> Range {
        self.regions[region as usize]
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.format.to_le_bytes());
        bytes[12..16].copy_from_slice(&(Region::ALL.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.file_size.to_le_bytes());
        bytes[FAST_SUM].copy_from_slice(&self.fast_sum.to_le_bytes());
        bytes[SHA256].copy_from_slice(&self.sha256);
        for (slot, range) in bytes[REGIONS].chunks_exact_mut(16).zip(self.regions) {
            slot[..8].copy_from_slice(&range.offset.to_le_bytes());
            slot[8..].copy_from_slice(&range.length.to_le_bytes());
        }
        bytes
    }

    /// Decodes a header whose magic was checked. Nothing in it is trusted yet.
    pub(crate) fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        let u64_at = |at: usize| number_at(bytes, at);
        let mut regions = [Range::default(); REGION_COUNT];
        for (index, range) in regions.iter_mut().enumerate() {
            let at = REGIONS.start + 16 * index;
            *range = Range {
                offset: u64_at(at),
                length: u64_at(at + 8),
            };
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&bytes[SHA256]);
        Self {
            format: u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
            file_size: u64_at(16),
            fast_sum: u64_at(FAST_SUM.start),
            sha256,
            regions,
        }
    }

    /// Computes the fast sum over `file`, or `None` if a region does not lie in it.
    pub(crate) fn sum_load_set(&self, file: &[u8]) -> Option<u64> {
        self.sum_regions(|range| file.get(range.within(file.len())?))
    }

    fn sum_regions<B: AsRef<[u8]>>(&self, read: impl Fn(Range) -> Option<B>) -> Option<u64> {
        let mut sum = Xxh3::new();
        for region in Region::ALL {
            sum.update(read(self.region(region))?.as_ref());
        }
        let header = self.encode();
        sum.update(&header[..FAST_SUM.start]);
        sum.update(&header[REGIONS]);
        Some(sum.digest())
    }
}

/// For the writer.
#[cfg(feature = "build")]
impl Header {
    /// A header with everything but its sums.
    pub(crate) fn new(file_size: u64) -> Self {
        Self {
            format: FORMAT_VERSION,
            file_size,
            fast_sum: 0,
            sha256: [0; 32],
            regions: [Range::default(); REGION_COUNT],
        }
    }

    pub(crate) fn set_region(&mut self, region: Region, range: Range) {
        self.regions[region as usize] = range;
    }

    /// As [`Header::sum_load_set`], for a writer that has the parts.
    pub(crate) fn sum_parts(&self, read: impl Fn(Range) -> Vec<u8>) -> Option<u64> {
        self.sum_regions(|range| Some(read(range)))
    }
}
