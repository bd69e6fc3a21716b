//! Mappings of an artifact: the whole file for reading, and its code for execution.
//!
//! Both are owner types that unmap on drop. Unsafe code here assumes that the file neither shrinks nor
//! changes while it is mapped; [`crate::Module::load`] requires that from its caller.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use faas_wasm_artifact::{LoadPlan, Protection, Range, Relocation};
use rustix::io::Errno;
use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};

/// A whole file, mapped read-only and private.
#[derive(Debug)]
pub(crate) struct FileMapping {
    file: File,
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is read-only and owned.
unsafe impl Send for FileMapping {}
// SAFETY: as above.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    /// Maps `length` bytes of a file.
    ///
    /// # Errors
    ///
    /// The error of `mmap`. An empty file cannot be mapped.
    ///
    /// # Safety
    ///
    /// The file must not shrink or change while the mapping exists.
    pub(crate) unsafe fn new(file: File, length: usize) -> Result<Self, Errno> {
        // SAFETY: creates a new mapping. The file does not change, by this function's contract.
        let base = unsafe {
            mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::PRIVATE,
                &file,
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { file, base, length })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped readable while `self` exists, and unchanging by the contract of `new`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: unmaps our mapping, to which no borrow exists any more.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// Why code could not be mapped.
#[derive(Debug)]
pub(crate) enum MapError {
    System(Errno),
    UnknownLibcall(String),
}

impl From<Errno> for MapError {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// The loaded segments of an artifact. All processes that map the file share code and constants. Only
/// the few pages with relocated words are private; they are read-only after loading.
#[derive(Debug)]
pub(crate) struct CodeMapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: nothing writes the mapping after `new` has returned.
unsafe impl Send for CodeMapping {}
// SAFETY: as above.
unsafe impl Sync for CodeMapping {}

impl CodeMapping {
    /// Maps the segments and writes the relocated words. `libcall` returns the address of a library call
    /// by name.
    ///
    /// # Errors
    ///
    /// [`MapError`]. Nothing remains mapped then.
    ///
    /// # Safety
    ///
    /// The plan must have been checked against the file (`Artifact::parse`). The file must not change while
    /// the mapping exists, and its code is trusted.
    pub(crate) unsafe fn new(
        plan: &LoadPlan,
        file: &FileMapping,
        libcall: impl Fn(&str) -> Option<usize>,
    ) -> Result<Self, MapError> {
        let page = rustix::param::page_size() as u64;
        let end = |segment: &faas_wasm_artifact::Segment| segment.address + segment.memory_size;
        let length = plan.segments.iter().map(end).max().unwrap_or(0);
        let length = length.next_multiple_of(page) as usize;
        // SAFETY: creates a new mapping, which overlaps no other.
        let base = unsafe {
            mm::mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM)?;
        let mapping = Self { base, length };
        for segment in &plan.segments {
            // SAFETY: this function's contract.
            unsafe { mapping.map(segment, file, page)? };
        }
        for relocation in &plan.relocations {
            let (address, value) = match relocation {
                Relocation::Libcall {
                    address,
                    name,
                    addend,
                } => {
                    let target =
                        libcall(name).ok_or_else(|| MapError::UnknownLibcall(name.clone()))?;
                    (*address, target.wrapping_add_signed(*addend as isize))
                }
                Relocation::Base { address, addend } => (
                    *address,
                    mapping.address(0).wrapping_add_signed(*addend as isize),
                ),
            };
            // SAFETY: the plan's words are inside writable segments, which are mapped now.
            unsafe {
                let word = mapping.base.as_ptr().add(address as usize).cast::<usize>();
                word.write_unaligned(value);
            }
        }
        for segment in &plan.segments {
            if segment.protection == Protection::ReadWrite {
                let start = segment.address - segment.address % page;
                let length = end(segment).next_multiple_of(page) - start;
                // SAFETY: pages of our mapping that nothing writes from here on.
                unsafe {
                    let start = mapping.base.as_ptr().add(start as usize);
                    mm::mprotect(start.cast(), length as usize, MprotectFlags::READ)?;
                }
            }
        }
        Ok(mapping)
    }

    /// Maps one segment over the reservation.
    ///
    /// # Safety
    ///
    /// As [`CodeMapping::new`].
    unsafe fn map(
        &self,
        segment: &faas_wasm_artifact::Segment,
        file: &FileMapping,
        page: u64,
    ) -> Result<(), MapError> {
        let protection = match segment.protection {
            Protection::Read => ProtFlags::READ,
            Protection::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
            Protection::ReadExecute => ProtFlags::READ | ProtFlags::EXEC,
        };
        let slack = segment.address % page;
        if segment.bytes.offset % page != slack {
            // The artifact was linked for smaller pages than this host has.
            return Err(Errno::INVAL.into());
        }
        // SAFETY: the address is inside the reservation, whose length was computed from the segments.
        let start = unsafe { self.base.as_ptr().add((segment.address - slack) as usize) };
        let from_file = segment.bytes.length + slack;
        if segment.bytes.length > 0 {
            // SAFETY: replaces pages of our reservation.
            unsafe {
                mm::mmap(
                    start.cast(),
                    from_file as usize,
                    protection,
                    MapFlags::PRIVATE | MapFlags::FIXED,
                    file.fd(),
                    segment.bytes.offset - slack,
                )?
            };
        }
        let mapped = from_file.next_multiple_of(page);
        let wanted = (segment.memory_size + slack).next_multiple_of(page);
        if segment.protection == Protection::ReadWrite && segment.memory_size > segment.bytes.length
        {
            let rest = mapped.min(segment.memory_size + slack) - from_file;
            // SAFETY: writes the rest of the last mapped page, which is private and writable.
            unsafe { start.add(from_file as usize).write_bytes(0, rest as usize) };
        }
        if wanted > mapped {
            // SAFETY: replaces pages of our reservation after those of the file.
            unsafe {
                let start = start.add(mapped as usize).cast();
                let flags = MapFlags::PRIVATE | MapFlags::FIXED;
                mm::mmap_anonymous(start, (wanted - mapped) as usize, protection, flags)?
            };
        }
        Ok(())
    }

    /// A range of the plan, which must be inside a readable segment.
    pub(crate) fn bytes(&self, range: Range) -> &[u8] {
        let Some(range) = range.within(self.length) else {
            return &[];
        };
        // SAFETY: inside the mapping. Callers ask only for the unwind information, and
        // `Artifact::parse` has checked that it is inside a mapped, read-only segment.
        unsafe {
            let start = self.base.as_ptr().add(range.start);
            std::slice::from_raw_parts(start, range.len())
        }
    }

    /// Translates an address of the plan to an address in memory.
    pub(crate) fn address(&self, address: u32) -> usize {
        self.base.addr().get() + address as usize
    }
}

/// Unwind information registered with the platform's unwinder, for modules that throw.
#[derive(Debug)]
pub(crate) struct UnwindTables(Vec<*const u8>);

// SAFETY: addresses in a read-only mapping.
unsafe impl Send for UnwindTables {}
// SAFETY: as above.
unsafe impl Sync for UnwindTables {}

unsafe extern "C" {
    // libgcc: both take a list of records that ends with a zero length.
    fn __register_frame(list: *const u8);
    fn __deregister_frame(list: *const u8);
}

impl UnwindTables {
    /// Registers an `.eh_frame` section: lists of records, each terminated by a zero length. A truncated
    /// list is omitted, so exceptions of its functions end the run as uncaught.
    ///
    /// # Safety
    ///
    /// The records must describe the code and remain mapped while the result exists.
    pub(crate) unsafe fn register(section: &[u8]) -> Self {
        let mut lists = Vec::new();
        let mut rest = section;
        let mut list = section;
        while let Some((length, _)) = rest.split_first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length) as usize;
            let Some(next) = rest.get(4 + length..) else {
                break;
            };
            if length == 0 {
                if list.len() > rest.len() {
                    // SAFETY: the list is complete, and its records are valid by this function's contract.
                    unsafe { __register_frame(list.as_ptr()) };
                    lists.push(list.as_ptr());
                }
                list = next;
            }
            rest = next;
        }
        Self(lists)
    }
}

impl Drop for UnwindTables {
    fn drop(&mut self) {
        for list in &self.0 {
            // SAFETY: `register` registered it, and it is still mapped.
            unsafe { __deregister_frame(*list) };
        }
    }
}

impl Drop for CodeMapping {
    fn drop(&mut self) {
        // SAFETY: unmaps our mapping. Code that runs in it holds the module, which owns the mapping.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
