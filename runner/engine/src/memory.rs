//! The checked view of a guest's linear memory for host functions.
//!
//! Every guest pointer passes through this view. A pointer is a `u32` offset, a range is checked against
//! the memory's current length, and the borrow ends before the guest runs again. No guest code runs
//! while a host function does, so the memory does not change during a borrow.

use std::marker::PhantomData;

use crate::signal;

/// A range from the guest that is not inside its linear memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("guest range {offset:#x}+{length:#x} is outside a memory of {size:#x} bytes")]
pub struct MemoryFault {
    /// First byte of the range.
    pub offset: u32,
    /// Length of the range in bytes.
    pub length: u64,
    /// Length of the memory in bytes.
    pub size: usize,
}

/// A little-endian number of fixed size. Only such numbers are read from or written to guest memory by
/// value.
pub trait Number: Copy {
    /// Size in bytes.
    const SIZE: usize;
    /// Reads the number from exactly [`Number::SIZE`] bytes.
    fn from_le(bytes: &[u8]) -> Self;
    /// Writes the number to exactly [`Number::SIZE`] bytes.
    fn to_le(self, bytes: &mut [u8]);
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Number for $number {
            const SIZE: usize = size_of::<$number>();
            fn from_le(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$number>()];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }
            fn to_le(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, i32, i64, f32, f64);

/// The linear memory of the instance that called a host function.
#[derive(Debug)]
pub struct GuestMemory<'a> {
    base: *mut u8,
    length: usize,
    lifetime: PhantomData<&'a mut [u8]>,
}

impl<'a> GuestMemory<'a> {
    /// Creates a view of `length` bytes at `base`.
    ///
    /// # Safety
    ///
    /// For `'a` the range must be mapped readable and, except for pages that the running guest's write
    /// protection covers, writable. Nothing else may access it.
    pub unsafe fn new(base: *mut u8, length: usize) -> Self {
        Self {
            base,
            length,
            lifetime: PhantomData,
        }
    }

    /// Creates a view of a host buffer, for tests of host functions.
    pub fn from_slice(bytes: &'a mut [u8]) -> Self {
        Self {
            base: bytes.as_mut_ptr(),
            length: bytes.len(),
            lifetime: PhantomData,
        }
    }

    /// Length of the memory in bytes.
    pub fn size(&self) -> usize {
        self.length
    }

    fn check(&self, offset: u32, length: u64) -> Result<usize, MemoryFault> {
        let end = u64::from(offset).checked_add(length);
        match end {
            Some(end) if end <= self.length as u64 => Ok(offset as usize),
            _ => Err(MemoryFault {
                offset,
                length,
                size: self.length,
            }),
        }
    }

    /// Borrows `length` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// [`MemoryFault`] if any byte of the range is outside the memory. An empty range must start inside or
    /// at the end.
    pub fn slice(&self, offset: u32, length: u32) -> Result<&[u8], MemoryFault> {
        let start = self.check(offset, u64::from(length))?;
        // SAFETY: the range was checked against the length. By the contract of `new` the memory is
        // mapped and nothing else writes it while `self` exists, to which the borrow is tied.
        Ok(unsafe { std::slice::from_raw_parts(self.base.add(start), length as usize) })
    }

    /// Borrows `length` bytes at `offset` for writing.
    ///
    /// # Errors
    ///
    /// As [`GuestMemory::slice`].
    pub fn slice_mut(&mut self, offset: u32, length: u32) -> Result<&mut [u8], MemoryFault> {
        let start = self.check(offset, u64::from(length))?;
        // SAFETY: the range was checked.
        let first = unsafe { self.base.add(start) };
        if !signal::allow_write(first, length as usize) {
            // The system refused to make the pages writable.
            let (length, size) = (u64::from(length), self.length);
            return Err(MemoryFault {
                offset,
                length,
                size,
            });
        }
        // SAFETY: as in `slice`, and `&mut self` makes the borrow the only one.
        Ok(unsafe { std::slice::from_raw_parts_mut(first, length as usize) })
    }

    /// Reads a number at `offset`, which need not be aligned.
    ///
    /// # Errors
    ///
    /// [`MemoryFault`] if it is not inside the memory.
    pub fn read<N: Number>(&self, offset: u32) -> Result<N, MemoryFault> {
        Ok(N::from_le(self.slice(offset, N::SIZE as u32)?))
    }

    /// Writes a number at `offset`, which need not be aligned.
    ///
    /// # Errors
    ///
    /// [`MemoryFault`] if it is not inside the memory.
    pub fn write<N: Number>(&mut self, offset: u32, value: N) -> Result<(), MemoryFault> {
        value.to_le(self.slice_mut(offset, N::SIZE as u32)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_without_overflow() {
        let mut bytes = [0u8; 64];
        let mut memory = GuestMemory::from_slice(&mut bytes);
        assert!(memory.slice(0, 64).is_ok());
        assert!(memory.slice(64, 0).is_ok());
        for (offset, length) in [
            (65, 0),
            (1, 64),
            (u32::MAX, 1),
            (1, u32::MAX),
            (u32::MAX, u32::MAX),
        ] {
            assert!(memory.slice(offset, length).is_err(), "{offset}+{length}");
            assert!(
                memory.slice_mut(offset, length).is_err(),
                "{offset}+{length}"
            );
        }
        assert!(memory.read::<u64>(57).is_err());
        memory.write(55, 0x1122_3344u32).unwrap();
        assert_eq!(memory.read::<u32>(55).unwrap(), 0x1122_3344);
        assert_eq!(memory.slice(55, 4).unwrap(), [0x44, 0x33, 0x22, 0x11]);
    }
}
