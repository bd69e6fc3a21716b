//! The directory of a fat artifact: which variants are in the file, and for what hosts.
//!
//! A fat artifact is several artifacts in one file, one behind the other, and behind them the
//! directory: its last [`HEADER_SIZE`] bytes, in place of an artifact's header and with the sums at
//! the same places. All numbers are little-endian.
//!
//! ```text
//! offset  size
//!      0     8  magic "faasfat\0"
//!      8     4  format version
//!     12     4  number of variants
//!     16     8  size of the file in bytes
//!     24     8  XXH3-64 over this directory without its sums
//!     32    32  SHA-256 over the file with this field as zeros
//!     64 14*32  variants: offset, length, ELF machine, zeros, bits of CPU features; zeros if unused
//!    512
//! ```

use xxhash_rust::xxh3::Xxh3;

use crate::cpu::{self, CpuFeature};
use crate::error::ReadError;
use crate::header::{FAST_SUM, FORMAT_VERSION, HEADER_SIZE, Range, SHA256, number_at};
use crate::manifest::Manifest;

/// First bytes of a directory.
pub(crate) const MAGIC: [u8; 8] = *b"faasfat\0";
/// Most variants in a file.
pub const MAX_VARIANTS: usize = 14;
pub(crate) const ENTRIES: usize = 64;
pub(crate) const ENTRY_SIZE: usize = 32;

/// A variant, as the directory describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the variant lies.
    pub(crate) place: Range,
    /// What it is for, as in the ELF header.
    pub(crate) machine: u16,
    /// A bit for each of [`CpuFeature::ALL`].
    pub(crate) features: u64,
}

impl Entry {
    /// Whether this host has what the variant needs.
    fn runs_here(&self) -> bool {
        Some(self.machine) == machine(cpu::host_triple())
            && CpuFeature::ALL
                .iter()
                .enumerate()
                .all(|(bit, feature)| self.features >> bit & 1 == 0 || cpu::host_has(*feature))
    }

    /// Whether the variant's own manifest says the same.
    pub(crate) fn agrees_with(&self, manifest: &Manifest<'_>) -> bool {
        machine(&manifest.triple) == Some(self.machine)
            && feature_bits(&manifest.cpu_features) == self.features
    }
}

/// The decoded directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) file_size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) variants: Vec<Entry>,
}

impl Directory {
    /// Reads the directory at the end of `file`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn read(file: &[u8]) -> Result<Option<Self>, ReadError> {
        let Some(bytes) = file
            .last_chunk::<HEADER_SIZE>()
            .filter(|bytes| bytes.starts_with(&MAGIC))
        else {
            return Ok(None);
        };
        let small = |at: usize| number_at(bytes, at) as u32;
        let format = small(8);
        if format != FORMAT_VERSION {
            return Err(ReadError::Format {
                expected: FORMAT_VERSION,
                found: format,
            });
        }
        let file_size = number_at(bytes, 16);
        if file_size != file.len() as u64 {
            return Err(ReadError::Size {
                expected: file_size,
                found: file.len(),
            });
        }
        let inconsistent = |what| Err(ReadError::Inconsistent { what });
        let count = small(12) as usize;
        if !(2..=MAX_VARIANTS).contains(&count) {
            return inconsistent("its directory has an impossible number of variants");
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&bytes[SHA256]);
        let entry = |index: usize| {
            let at = ENTRIES + index * ENTRY_SIZE;
            Entry {
                place: Range {
                    offset: number_at(bytes, at),
                    length: number_at(bytes, at + 8),
                },
                machine: small(at + 16) as u16,
                features: number_at(bytes, at + 24),
            }
        };
        let directory = Self {
            file_size,
            sha256,
            variants: (0..count).map(entry).collect(),
        };
        let (expected, found) = (number_at(bytes, FAST_SUM.start), sum(bytes));
        if found != expected {
            return Err(ReadError::Sum { expected, found });
        }
        // Unused bytes are fixed.
        if directory.encode() != *bytes {
            return inconsistent("its directory has content that its format does not know");
        }
        let size = file.len() - HEADER_SIZE;
        let inside = |entry: &Entry| entry.place.within(size).is_some();
        if !directory.variants.iter().all(inside) {
            return inconsistent("a variant lies outside of the file");
        }
        Ok(Some(directory))
    }

    /// The number of the best variant for this host: the one that uses most of its CPU, and the
    /// first one of equals. `None` if no variant runs here.
    pub(crate) fn best(&self) -> Option<usize> {
        let variants = self.variants.iter().enumerate().rev();
        variants
            .filter(|(_, entry)| entry.runs_here())
            .max_by_key(|(_, entry)| entry.features.count_ones())
            .map(|(index, _)| index)
    }

    /// The directory with its fast sum.
    pub(crate) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.variants.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.file_size.to_le_bytes());
        bytes[SHA256].copy_from_slice(&self.sha256);
        let slots = bytes[ENTRIES..].chunks_exact_mut(ENTRY_SIZE);
        for (slot, entry) in slots.zip(&self.variants) {
            slot[..8].copy_from_slice(&entry.place.offset.to_le_bytes());
            slot[8..16].copy_from_slice(&entry.place.length.to_le_bytes());
            slot[16..18].copy_from_slice(&entry.machine.to_le_bytes());
            slot[24..].copy_from_slice(&entry.features.to_le_bytes());
        }
        let sum = sum(&bytes);
        bytes[FAST_SUM].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// The sum of a directory: all of it but its sums.
pub(crate) fn sum(bytes: &[u8; HEADER_SIZE]) -> u64 {
    let mut sum = Xxh3::new();
    sum.update(&bytes[..FAST_SUM.start]);
    sum.update(&bytes[ENTRIES..]);
    sum.digest()
}

/// A set of features as the directory has it.
pub(crate) fn feature_bits(features: &[CpuFeature]) -> u64 {
    let all = CpuFeature::ALL.iter().enumerate();
    all.filter(|(_, feature)| features.contains(feature))
        .map(|(bit, _)| 1 << bit)
        .sum()
}

/// The ELF machine of a triple, if artifacts can be for it.
pub(crate) fn machine(triple: &str) -> Option<u16> {
    match cpu::architecture(triple) {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        "riscv64" => Some(243),
        _ => None,
    }
}
