//! Mappings of an artifact: the whole file for reading, and its code for running.
//!
//! Both are owner types that unmap on drop. Unsafe here assumes that the file neither shrinks nor
//! changes while it is mapped; [`crate::Module::load`] passes that on to its caller.

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
    /// What the system says; an empty file cannot be mapped.
    ///
    /// # Safety
    ///
    /// The file must not shrink or change while the mapping lives.
    pub(crate) unsafe fn new(file: File, length: usize) -> Result<Self, Errno> {
        // SAFETY: a new mapping; the caller promises that the file stays as it is.
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
        // SAFETY: mapped readable for the life of `self`, and unchanging as `new` was promised.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, borrowed by nobody any more.
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

/// The loaded segments of an artifact. Code and constants are shared with everybody who maps the
/// same file; only the few pages with relocated words are private, and read-only afterwards.
#[derive(Debug)]
pub(crate) struct CodeMapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: nothing writes the mapping once `new` has returned.
unsafe impl Send for CodeMapping {}
// SAFETY: as above.
unsafe impl Sync for CodeMapping {}

impl CodeMapping {
    /// Maps the segments and fills in the relocated words; `libcall` gives the address of a
    /// library call by name.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing stays mapped then.
    ///
    /// # Safety
    ///
    /// The plan must have been checked against the file (`Artifact::parse`), which must stay as it
    /// is while the mapping lives. The code in it will be trusted.
    pub(crate) unsafe fn new(
        plan: &LoadPlan,
        file: &FileMapping,
        libcall: impl Fn(&str) -> Option<usize>,
    ) -> Result<Self, MapError> {
        let page = rustix::param::page_size() as u64;
        let end = |segment: &faas_wasm_artifact::Segment| segment.address + segment.memory_size;
        let length = plan.segments.iter().map(end).max().unwrap_or(0);
        let length = length.next_multiple_of(page) as usize;
        // SAFETY: a new reservation that no other mapping overlaps.
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
            // SAFETY: as this function's.
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
            // SAFETY: the plan's words lie in writable segments, which are mapped by now.
            unsafe {
                let word = mapping.base.as_ptr().add(address as usize).cast::<usize>();
                word.write_unaligned(value);
            }
        }
        for segment in &plan.segments {
            if segment.protection == Protection::ReadWrite {
                let start = segment.address - segment.address % page;
                let length = end(segment).next_multiple_of(page) - start;
                // SAFETY: pages of our own mapping that nobody writes from here on.
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
            // Linked for smaller pages than this host's.
            return Err(Errno::INVAL.into());
        }
        // SAFETY: addresses lie inside of the reservation, as its length was computed from them.
        let start = unsafe { self.base.as_ptr().add((segment.address - slack) as usize) };
        let from_file = segment.bytes.length + slack;
        if segment.bytes.length > 0 {
            // SAFETY: replaces pages of our own reservation.
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
            // SAFETY: the end of the last mapped page, which is private and writable.
            unsafe { start.add(from_file as usize).write_bytes(0, rest as usize) };
        }
        if wanted > mapped {
            // SAFETY: zero pages of our own reservation behind the file's.
            unsafe {
                let start = start.add(mapped as usize).cast();
                let flags = MapFlags::PRIVATE | MapFlags::FIXED;
                mm::mmap_anonymous(start, (wanted - mapped) as usize, protection, flags)?
            };
        }
        Ok(())
    }

    /// A range of the plan that lies in a readable segment.
    pub(crate) fn bytes(&self, range: Range) -> &[u8] {
        let Some(range) = range.within(self.length) else {
            return &[];
        };
        // SAFETY: inside of the mapping; `Artifact::parse` has checked that unwind information,
        // the only thing that is asked for, lies in a mapped, read-only segment.
        unsafe {
            let start = self.base.as_ptr().add(range.start);
            std::slice::from_raw_parts(start, range.len())
        }
    }

    /// Where something at this address of the plan lies in memory.
    pub(crate) fn address(&self, address: u32) -> usize {
        self.base.addr().get() + address as usize
    }
}

/// Unwind information that is known to the platform's unwinder, for modules that throw.
#[derive(Debug)]
pub(crate) struct UnwindTables(Vec<*const u8>);

// SAFETY: addresses in a mapping that is never written.
unsafe impl Send for UnwindTables {}
// SAFETY: as above.
unsafe impl Sync for UnwindTables {}

unsafe extern "C" {
    // libgcc: takes a list of records that ends with a zero length.
    fn __register_frame(list: *const u8);
    fn __deregister_frame(list: *const u8);
}

impl UnwindTables {
    /// Registers an `.eh_frame` section: lists of records, each ended by a zero length. A list that
    /// is cut off is left out, so that exceptions of its functions end the run as uncaught.
    ///
    /// # Safety
    ///
    /// The records must be the code's own, and stay mapped while the result lives.
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
                    // SAFETY: the list is complete, and the caller vouches for its records.
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
            // SAFETY: registered by `register`, and still mapped.
            unsafe { __deregister_frame(*list) };
        }
    }
}

impl Drop for CodeMapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; whoever runs code in it holds the module that owns it.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
