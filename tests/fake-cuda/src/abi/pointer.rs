//! Pointers that callers pass, and every access to the caller's memory.
//!
//! All unsafe code that accesses the caller's memory is here. Like any C library, it assumes that a pointer that is
//! not null refers to memory of the type and length that the driver's interface requires, and that this memory stays
//! valid until the call returns, or, for page-locked memory, until the work is done. The caller is the program under
//! test. If it breaks this assumption, it crashes, and the test fails.

use std::ffi::{CStr, c_char};
use std::fmt;

use super::{Code, Result};

/// A pointer to a result.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

/// A pointer to an argument.
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

/// A C string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct CText(*const c_char);

/// An address in the caller's memory, of bytes to read or write.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host(pub(crate) usize);

/// A `CUstream`: a handle, 0 (default), 1 (legacy default) or 2 (per-thread default).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream(pub(crate) u64);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}
impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for In<T> {}

impl<T: Copy> Out<T> {
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Fails on null, so that a call checks its result pointers before it does anything.
    pub(crate) fn required(self) -> Result<Self> {
        if self.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        Ok(self)
    }

    /// Writes the result, or nothing if the caller passed null.
    pub(crate) fn put(self, value: T) {
        self.put_at(0, value);
    }

    /// Writes one element of an array result.
    pub(crate) fn put_at(self, index: usize, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, so by this module's assumption room for as many elements as the
            // caller said, and every user of this stays below that number; alignment is not assumed.
            unsafe { self.0.add(index).write_unaligned(value) };
        }
    }
}

impl<T: Copy> In<T> {
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    pub(crate) fn get(self) -> Result<T> {
        self.get_at(0)
    }

    pub(crate) fn get_at(self, index: usize) -> Result<T> {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null, so by this module's assumption `T`s, as many as the caller said; all
        // `T`s here are plain numbers and structures of them.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }
}

impl CText {
    pub(crate) fn get(self) -> Result<String> {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null, so by this module's assumption a string that ends with a zero.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str()
            .map(str::to_owned)
            .or(Err(Code::INVALID_VALUE))
    }
}

impl Host {
    pub(crate) fn is_null(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn plus(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    pub(crate) fn read(self, into: &mut [u8]) {
        // SAFETY: by this module's assumption `into.len()` readable bytes; the fake's own memory
        // is no part of the caller's, so the two do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(self.0 as *const u8, into.as_mut_ptr(), into.len());
        }
    }

    pub(crate) fn write(self, from: &[u8]) {
        // SAFETY: as in `read`, for writing.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.0 as *mut u8, from.len()) };
    }

    pub(crate) fn bytes(self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read(&mut bytes);
        bytes
    }

    /// A 32-bit number.
    pub(crate) fn word32(self) -> u64 {
        let mut bytes = [0; 4];
        self.read(&mut bytes);
        u64::from(u32::from_le_bytes(bytes))
    }

    /// A word of a pointer array.
    pub(crate) fn word(self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        self.plus(index * 8).read(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl Stream {
    pub(crate) const PER_THREAD: u64 = 2;
}

/// Bytes of a module image. The image contains its length: an ELF file, a fatbin, or text up to a zero.
pub(crate) fn image_bytes(image: Host) -> Result<Vec<u8>> {
    if image.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    let mut magic = [0; 4];
    // A text may be shorter than four bytes, so read nothing beyond its zero.
    for (index, byte) in magic.iter_mut().enumerate() {
        let mut one = [0];
        image.plus(index).read(&mut one);
        *byte = one[0];
        if one[0] == 0 {
            break;
        }
    }
    match crate::image::header_length(magic) {
        Some(header) => {
            let header = image.bytes(header);
            let length = crate::image::total_length(&header).ok_or(Code::INVALID_IMAGE)?;
            Ok(image.bytes(length))
        }
        None => {
            // SAFETY: not null, and by this module's assumption the text ends with a zero.
            let text = unsafe { CStr::from_ptr(image.0 as *const c_char) };
            Ok(text.to_bytes().to_vec())
        }
    }
}

/// The corresponding argument of the `_ptsz` and `_ptds` variants, in which stream 0 is the per-thread default.
pub(crate) trait PerThread {
    fn per_thread(self) -> Self;
}

macro_rules! unchanged {
    ($($kind:ty),*) => { $(impl PerThread for $kind { fn per_thread(self) -> Self { self } })* };
}
unchanged!(i32, u8, u16, u32, u64, usize, CText, Host);

impl<T> PerThread for Out<T> {
    fn per_thread(self) -> Self {
        self
    }
}
impl<T> PerThread for In<T> {
    fn per_thread(self) -> Self {
        self
    }
}
impl PerThread for Stream {
    fn per_thread(self) -> Self {
        if self.0 == 0 {
            Self(Self::PER_THREAD)
        } else {
            self
        }
    }
}

impl<T> fmt::Debug for Out<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_null() { "null" } else { "&out" })
    }
}
impl<T> fmt::Debug for In<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_null() { "null" } else { "&in" })
    }
}
impl fmt::Debug for CText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.get().unwrap_or_default())
    }
}
impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_null() { "null" } else { "&host" })
    }
}
impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}
