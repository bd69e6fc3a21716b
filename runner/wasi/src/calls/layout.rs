//! Structures in guest memory, in the layout of witx.

use super::{Abi, Call};
use crate::errno::Outcome;
use crate::fs::Metadata;
use crate::table::Descriptor;

/// Size of a directory entry without its name.
pub(crate) const DIRENT: usize = 24;

impl Call<'_, '_> {
    /// Writes a `filestat`. In `wasi_unstable` the number of links has 32 bits.
    pub(crate) fn write_filestat(&mut self, at: u32, metadata: &Metadata) -> Outcome {
        let mut bytes = [0; 64];
        put(&mut bytes, 0, &metadata.device.to_le_bytes());
        put(&mut bytes, 8, &metadata.inode.to_le_bytes());
        bytes[16] = metadata.kind as u8;
        let (rest, size) = match self.abi {
            Abi::Preview1 => {
                put(&mut bytes, 24, &metadata.links.to_le_bytes());
                (32, 64)
            }
            Abi::Unstable => {
                let links = u32::try_from(metadata.links).unwrap_or(u32::MAX);
                put(&mut bytes, 20, &links.to_le_bytes());
                (24, 56)
            }
        };
        let times = metadata.times;
        let numbers = [metadata.size, times.accessed, times.modified, times.changed];
        for (index, number) in numbers.into_iter().enumerate() {
            put(&mut bytes, rest + 8 * index, &number.to_le_bytes());
        }
        let target = self.memory.slice_mut(at, size as u32)?;
        target.copy_from_slice(&bytes[..size]);
        Ok(())
    }

    /// Writes an `fdstat`.
    pub(crate) fn write_fdstat(&mut self, at: u32, kind: u8, descriptor: &Fdstat) -> Outcome {
        let mut bytes = [0; 24];
        bytes[0] = kind;
        put(&mut bytes, 2, &descriptor.flags.to_le_bytes());
        put(&mut bytes, 8, &descriptor.rights.to_le_bytes());
        put(&mut bytes, 16, &descriptor.inheriting.to_le_bytes());
        self.memory.slice_mut(at, 24)?.copy_from_slice(&bytes);
        Ok(())
    }
}

/// The fields of `fdstat` besides the kind of the descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fdstat {
    pub(crate) flags: u16,
    pub(crate) rights: u64,
    pub(crate) inheriting: u64,
}

impl From<&Descriptor> for Fdstat {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            flags: descriptor.flags,
            rights: descriptor.rights,
            inheriting: descriptor.inheriting,
        }
    }
}

/// A directory entry without its name.
pub(crate) fn dirent(next: u64, inode: u64, name_length: usize, kind: u8) -> [u8; DIRENT] {
    let mut bytes = [0; DIRENT];
    put(&mut bytes, 0, &next.to_le_bytes());
    put(&mut bytes, 8, &inode.to_le_bytes());
    // A name has at most 255 bytes.
    put(&mut bytes, 16, &(name_length as u32).to_le_bytes());
    bytes[20] = kind;
    bytes
}

fn put(bytes: &mut [u8], at: usize, number: &[u8]) {
    bytes[at..at + number.len()].copy_from_slice(number);
}
