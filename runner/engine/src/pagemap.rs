//! Finds the private pages of a private mapping, which a reset must restore.
//!
//! The kernel has this information. It is read with the ioctl `PAGEMAP_SCAN` (Linux 6.7), which walks
//! only existing page tables and costs less than a page fault, or else from `/proc/self/pagemap`, which
//! has a word for every page. If neither works (no `/proc`, or a sandbox that emulates it),
//! [`Pagemap::get`] returns `None`, and a reset drops all pages instead.
//!
//! A wrong answer would let one request read what another has written. Before the first use, the kernel
//! is therefore asked about pages whose state is known, and a method is used only if its answer is right.
//!
//! Unsafe code here assumes nothing about other code: it maps two small areas for that check, and
//! passes the kernel buffers that outlive the call.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{self, MapFlags, ProtFlags};

/// From the kernel's `include/uapi/linux/fs.h`.
mod uapi {
    pub(super) const PAGEMAP_SCAN: libc::Ioctl =
        rustix::ioctl::opcode::read_write::<ScanArguments>(b'f', 16) as libc::Ioctl;
    pub(super) const PAGE_IS_FILE: u64 = 1 << 2;
    pub(super) const PAGE_IS_PRESENT: u64 = 1 << 3;
    pub(super) const PAGE_IS_SWAPPED: u64 = 1 << 4;
    pub(super) const PAGE_IS_PFNZERO: u64 = 1 << 5;

    /// `struct pm_scan_arg`.
    #[repr(C)]
    #[derive(Default)]
    pub(super) struct ScanArguments {
        pub(super) size: u64,
        pub(super) flags: u64,
        pub(super) start: u64,
        pub(super) end: u64,
        pub(super) walk_end: u64,
        pub(super) vec: u64,
        pub(super) vec_len: u64,
        pub(super) max_pages: u64,
        pub(super) category_inverted: u64,
        pub(super) category_mask: u64,
        pub(super) category_anyof_mask: u64,
        pub(super) return_mask: u64,
    }

    /// `struct page_region`.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    pub(super) struct PageRegion {
        pub(super) start: u64,
        pub(super) end: u64,
        pub(super) categories: u64,
    }

    // Bits of a word of `/proc/pid/pagemap` (Documentation/admin-guide/mm/pagemap.rst).
    pub(super) const ENTRY_PRESENT: u64 = 1 << 63;
    pub(super) const ENTRY_SWAPPED: u64 = 1 << 62;
    pub(super) const ENTRY_FILE: u64 = 1 << 61;
}

/// Maximum number of regions in one answer.
const MAX_REGIONS: usize = 64;
/// Words of `/proc/self/pagemap` to read at once.
const WORDS: usize = 512;
/// Size in bytes of a memory beyond which reading a word for every page costs more than it saves.
const LARGEST_READ: usize = 16 << 20;

/// Consecutive private pages: written ones, or zero pages that the kernel allocated for a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnPages {
    /// Their addresses.
    pub(crate) range: Range<usize>,
    /// Whether they are swapped out.
    pub(crate) swapped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Scan,
    Read,
}

/// A verified method to ask the kernel. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Pagemap {
    file: File,
    method: Method,
    page: usize,
}

thread_local! {
    /// This thread's descriptor. The kernel counts the users of an open file, and threads that share one
    /// contend for the counter. A thread without its own descriptor uses the common one.
    static OWN_FILE: Option<File> = open().ok();
}

fn open() -> std::io::Result<File> {
    File::open("/proc/self/pagemap")
}

impl Pagemap {
    /// The process's pagemap, or `None` if no method gives right answers.
    pub(crate) fn get() -> Option<&'static Self> {
        static PAGEMAP: OnceLock<Option<Pagemap>> = OnceLock::new();
        let found =
            PAGEMAP.get_or_init(|| Self::tried(Method::Scan).or_else(|| Self::tried(Method::Read)));
        found.as_ref()
    }

    /// A pagemap with this method, if the method proves to work.
    fn tried(method: Method) -> Option<Self> {
        let pagemap = Self {
            file: open().ok()?,
            method,
            page: rustix::param::page_size(),
        };
        pagemap.tells_the_truth().then_some(pagemap)
    }

    fn with_file<T>(&self, use_it: impl FnOnce(&File) -> T) -> T {
        OWN_FILE.with(|own| use_it(own.as_ref().unwrap_or(&self.file)))
    }

    /// Appends the private pages in `range` to `found`, in ascending order, up to `most` pages. Returns
    /// the address up to which it has looked, or `None` if the kernel gave no answer.
    pub(crate) fn own_pages(
        &self,
        range: Range<usize>,
        most: usize,
        found: &mut Vec<OwnPages>,
    ) -> Option<usize> {
        match self.method {
            Method::Scan => self.scan(range, most, found),
            Method::Read if range.len() <= LARGEST_READ => self.read(range, most, found),
            Method::Read => None,
        }
    }

    fn scan(&self, range: Range<usize>, most: usize, found: &mut Vec<OwnPages>) -> Option<usize> {
        let mut regions = [uapi::PageRegion::default(); MAX_REGIONS];
        // Present or swapped pages that are neither clean pages of a file nor the kernel's zero page.
        let clean = uapi::PAGE_IS_FILE | uapi::PAGE_IS_PFNZERO;
        let mut arguments = uapi::ScanArguments {
            size: size_of::<uapi::ScanArguments>() as u64,
            start: range.start as u64,
            end: range.end as u64,
            vec: regions.as_mut_ptr().expose_provenance() as u64,
            vec_len: regions.len() as u64,
            max_pages: most as u64,
            category_inverted: clean,
            category_mask: clean,
            category_anyof_mask: uapi::PAGE_IS_PRESENT | uapi::PAGE_IS_SWAPPED,
            return_mask: uapi::PAGE_IS_SWAPPED,
            ..Default::default()
        };
        // SAFETY: the arguments have the kernel's layout and state their size. `regions` outlives the
        // call and has as many entries as the arguments say. Without flags the kernel writes only these.
        let count = self.with_file(|file| unsafe {
            libc::ioctl(file.as_raw_fd(), uapi::PAGEMAP_SCAN, &raw mut arguments)
        });
        let filled = regions.get(..usize::try_from(count).ok()?)?;
        found.extend(filled.iter().map(|region| OwnPages {
            range: region.start as usize..region.end as usize,
            swapped: region.categories & uapi::PAGE_IS_SWAPPED != 0,
        }));
        let end = arguments.walk_end as usize;
        // Each call must make progress, or the caller would loop forever.
        (end > range.start && end <= range.end).then_some(end)
    }

    fn read(&self, range: Range<usize>, most: usize, found: &mut Vec<OwnPages>) -> Option<usize> {
        let first = found.len();
        let mut words = [0u64; WORDS];
        let mut address = range.start;
        let mut left = most;
        while address < range.end {
            let count = WORDS.min((range.end - address) / self.page);
            let bytes = bytes_of(&mut words[..count]);
            let offset = (address / self.page * size_of::<u64>()) as u64;
            let read = |file: &File| file.read_exact_at(bytes, offset);
            self.with_file(read).ok()?;
            for word in &words[..count] {
                let here = word & (uapi::ENTRY_PRESENT | uapi::ENTRY_SWAPPED) != 0;
                if here && word & uapi::ENTRY_FILE == 0 {
                    if left == 0 {
                        return Some(address);
                    }
                    left -= 1;
                    let swapped = word & uapi::ENTRY_SWAPPED != 0;
                    let end = address + self.page;
                    match found[first..].last_mut() {
                        Some(last) if last.range.end == address && last.swapped == swapped => {
                            last.range.end = end;
                        }
                        _ => found.push(OwnPages {
                            range: address..end,
                            swapped,
                        }),
                    }
                }
                address += self.page;
            }
        }
        Some(range.end)
    }

    /// Asks about pages whose state is known, in an anonymous mapping and in one of a file.
    fn tells_the_truth(&self) -> bool {
        let Some(anonymous) = Probe::new(None, self.page) else {
            return false;
        };
        let file = memfd_create("faas-wasm-probe", MemfdFlags::CLOEXEC);
        let Ok(file) = file.map(File::from) else {
            return false;
        };
        if file.set_len((Probe::PAGES * self.page) as u64).is_err() {
            return false;
        }
        let Some(private) = Probe::new(Some(&file), self.page) else {
            return false;
        };
        [anonymous, private].iter().all(|probe| {
            for page in Probe::READ {
                probe.read(page);
            }
            for page in Probe::WRITTEN {
                probe.write(page);
            }
            let mut found = Vec::new();
            let mut start = probe.range().start;
            while start < probe.range().end {
                match self.own_pages(start..probe.range().end, Probe::PAGES, &mut found) {
                    Some(end) => start = end,
                    None => return false,
                }
            }
            let own: Vec<usize> = found
                .iter()
                .flat_map(|own| own.range.clone().step_by(self.page))
                .map(|address| (address - probe.range().start) / self.page)
                .collect();
            // Reading reports the kernel's zero page as private, which is harmless.
            let harmless = |page: &usize| self.method == Method::Read && Probe::READ.contains(page);
            Probe::WRITTEN.iter().all(|page| own.contains(page))
                && own
                    .iter()
                    .all(|page| Probe::WRITTEN.contains(page) || harmless(page))
        })
    }
}

/// The words as bytes, to read into.
fn bytes_of(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: all bytes are valid words and vice versa, and the lifetime stays that of the borrow.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

/// A private mapping of which some pages are written.
struct Probe {
    base: *mut u8,
    page: usize,
}

impl Probe {
    const PAGES: usize = 9;
    const READ: [usize; 2] = [0, 3];
    const WRITTEN: [usize; 4] = [1, 2, 5, 8];

    fn new(file: Option<&File>, page: usize) -> Option<Self> {
        let (length, access) = (Self::PAGES * page, ProtFlags::READ | ProtFlags::WRITE);
        let anywhere = std::ptr::null_mut();
        // SAFETY: creates a new mapping, which overlaps no other.
        let base = unsafe {
            match file {
                Some(file) => mm::mmap(anywhere, length, access, MapFlags::PRIVATE, file, 0),
                None => mm::mmap_anonymous(anywhere, length, access, MapFlags::PRIVATE),
            }
        };
        let base = base.ok()?.cast();
        Some(Self { base, page })
    }

    fn range(&self) -> Range<usize> {
        let start = self.base.addr();
        start..start + Self::PAGES * self.page
    }

    fn read(&self, page: usize) -> u8 {
        // SAFETY: inside the mapping, which is ours.
        unsafe { self.base.add(page * self.page).read_volatile() }
    }

    fn write(&self, page: usize) {
        // SAFETY: as in `read`.
        unsafe { self.base.add(page * self.page).write_volatile(1) }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: unmaps our mapping, to which nothing refers any more.
        let _ = unsafe { mm::munmap(self.base.cast(), Self::PAGES * self.page) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both methods find the same pages, in one answer or in several.
    #[test]
    fn private_pages_are_found_by_either_method() {
        for method in [Method::Scan, Method::Read] {
            let Some(pagemap) = Pagemap::tried(method) else {
                // This kernel does not support it.
                assert_ne!(method, Method::Read, "/proc/self/pagemap can be read");
                continue;
            };
            let probe = Probe::new(None, pagemap.page).unwrap();
            for page in Probe::WRITTEN {
                probe.write(page);
            }
            let page = |number: usize| probe.range().start + number * pagemap.page;
            let mut found = Vec::new();
            let end = pagemap.own_pages(probe.range(), 100, &mut found);
            assert_eq!(end, Some(probe.range().end));
            let ranges: Vec<_> = found.iter().map(|own| own.range.clone()).collect();
            let expected = [page(1)..page(3), page(5)..page(6), page(8)..page(9)];
            assert_eq!(ranges, expected, "{method:?}");
            assert!(found.iter().all(|own| !own.swapped));

            found.clear();
            let end = pagemap.own_pages(probe.range(), 3, &mut found).unwrap();
            assert_eq!(found.len(), 2, "{method:?}: {found:?}");
            assert!((page(6)..=page(8)).contains(&end), "{method:?}: {end:#x}");
        }
    }
}
