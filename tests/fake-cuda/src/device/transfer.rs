//! Copies and fills, of rows and planes.

use std::sync::Arc;

use super::{Memory, Misuse};
use crate::abi::Host;
use crate::driver::SHARED;

/// The location of one side of a copy.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Device(u64),
    Host(Host),
    /// The caller's bytes, read when the copy was requested.
    Bytes(Arc<Vec<u8>>),
}

/// One side of a copy: a location, and the distances between rows and between planes.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) place: Place,
    pub(crate) pitch: usize,
    pub(crate) plane: usize,
}

/// A copy of `depth` planes of `height` rows of `width` bytes.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    pub(crate) context: u64,
    pub(crate) from: Side,
    pub(crate) to: Side,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) depth: usize,
}

impl Side {
    pub(crate) fn row(place: Place) -> Self {
        Self {
            place,
            pitch: 0,
            plane: 0,
        }
    }
}

impl Copy {
    /// A copy of bytes that are contiguous on both sides.
    pub(crate) fn flat(context: u64, from: Place, to: Place, length: usize) -> Self {
        Self {
            context,
            from: Side::row(from),
            to: Side::row(to),
            width: length,
            height: 1,
            depth: 1,
        }
    }

    /// Number of bytes from the first to the last byte of one side.
    pub(crate) fn extent(&self, side: &Side) -> usize {
        if self.width == 0 || self.height == 0 || self.depth == 0 {
            return 0;
        }
        (self.depth - 1)
            .saturating_mul(side.plane)
            .saturating_add((self.height - 1).saturating_mul(side.pitch))
            .saturating_add(self.width)
    }

    pub(crate) fn perform(&self) -> Result<(), Misuse> {
        let mut memory = SHARED.memory.lock();
        let mut row = vec![0; self.width];
        if self.width == 0 {
            return Ok(());
        }
        for plane in 0..self.depth {
            for line in 0..self.height {
                let from = plane * self.from.plane + line * self.from.pitch;
                self.load(&memory, from, &mut row)?;
                let to = plane * self.to.plane + line * self.to.pitch;
                self.store(&mut memory, to, &row)?;
            }
        }
        Ok(())
    }

    fn load(&self, memory: &Memory, offset: usize, row: &mut [u8]) -> Result<(), Misuse> {
        match &self.from.place {
            Place::Device(base) => {
                let bytes = memory.bytes(self.context, base + offset as u64, row.len())?;
                row.copy_from_slice(bytes);
            }
            Place::Host(base) => base.plus(offset).read(row),
            Place::Bytes(bytes) => row.copy_from_slice(&bytes[offset..offset + row.len()]),
        }
        Ok(())
    }

    fn store(&self, memory: &mut Memory, offset: usize, row: &[u8]) -> Result<(), Misuse> {
        match &self.to.place {
            Place::Device(base) => {
                let address = base + offset as u64;
                memory
                    .bytes_mut(self.context, address, row.len())?
                    .copy_from_slice(row);
            }
            Place::Host(base) => base.plus(offset).write(row),
            // These bytes come from the caller and are never written.
            Place::Bytes(_) => {}
        }
        Ok(())
    }
}

/// A fill of `height` rows of `width` elements.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) context: u64,
    pub(crate) to: u64,
    pub(crate) pitch: usize,
    pub(crate) value: u32,
    /// Size of an element in bytes: 1, 2 or 4.
    pub(crate) element: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Set {
    /// Number of bytes from the first to the last byte.
    pub(crate) fn extent(&self) -> usize {
        if self.width == 0 || self.height == 0 {
            return 0;
        }
        (self.height - 1)
            .saturating_mul(self.pitch)
            .saturating_add(self.width.saturating_mul(self.element))
    }

    pub(crate) fn perform(&self) -> Result<(), Misuse> {
        let mut memory = SHARED.memory.lock();
        let value = self.value.to_le_bytes();
        for line in 0..self.height {
            let address = self.to + (line * self.pitch) as u64;
            let length = self.width * self.element;
            if length == 0 {
                continue;
            }
            for element in memory
                .bytes_mut(self.context, address, length)?
                .chunks_exact_mut(self.element)
            {
                element.copy_from_slice(&value[..self.element]);
            }
        }
        Ok(())
    }
}
