//! Write protection of the pages of a linear memory that no run writes.
//!
//! The kernel knows which pages a run has written, but asking it is a system call under a lock that
//! all threads of the process share. A function that does the same work for each request writes the
//! same few pages each time. Once enough resets of a slot have found the same pages, all other pages
//! become read-only. While that protection is in place, a reset compares the writable pages with the
//! image and asks the kernel nothing.
//!
//! ```text
//!                  the same pages for `Backoff::needed` resets
//! unprotected ---------------------------------------------------> protected
//!     ^                                                                |
//!     +----------------------------------------------------------------+
//!         a write elsewhere, a growth, a page that is no longer written
//! ```
//!
//! Compiled code that writes a protected page faults. The handler lifts the protection and the guest
//! continues (`signal.rs`). That takes some microseconds, so a slot whose protection does not last
//! is protected later the next time. The host must ask before it writes guest memory
//! ([`crate::signal::allow_write`]): a system call that writes to a protected page fails instead of
//! faulting.
//!
//! Protection splits mappings, and the kernel limits the number of mappings of a process, so at most
//! [`MAX_PROTECTED`] memories are protected at once.
//!
//! Unsafe code here assumes that the protection is lifted or dropped no later than its slot, and that
//! only the thread that runs the guest writes the slot's memory.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use rustix::io::Errno;
use rustix::mm::{self, MprotectFlags};

/// Maximum number of memories of the process that are protected at once.
const MAX_PROTECTED: usize = 64;
/// Maximum number of writable ranges in a protected memory. Each takes two mappings.
const MAX_WRITABLE_RANGES: usize = 8;
/// Number of resets that must find the same pages, at first.
const MIN_BACKOFF: u32 = 32;
/// The same for a memory whose protection is lifted again and again.
const MAX_BACKOFF: u32 = 1 << 16;
/// Protection that lasted for this many times its backoff was worth its cost.
const WORTH: u32 = 16;

/// A protected memory. See the module's documentation.
#[derive(Debug)]
pub(crate) struct WriteProtection {
    /// The initial memory, as addresses.
    memory: Range<usize>,
    /// The pages that stay writable, as addresses.
    writable: Vec<Range<usize>>,
    /// Lifting was attempted. Some protected pages may be writable, because `mprotect` can fail
    /// halfway.
    lifted: AtomicBool,
    /// Lifting succeeded: all pages are writable.
    fully_lifted: AtomicBool,
    /// Held for its `Drop`.
    #[expect(dead_code, reason = "held until the protection is dropped")]
    permit: Permit,
}

impl WriteProtection {
    /// Protects a memory except for the given pages, which must be in ascending order. Returns
    /// `None` if the pages are too scattered or too many memories are protected already.
    ///
    /// # Errors
    ///
    /// The error of `mprotect`, if it left the memory unusable.
    ///
    /// # Safety
    ///
    /// The memory must be mapped, writable, and exclusively the caller's while the protection exists.
    pub(crate) unsafe fn new(
        memory: Range<usize>,
        pages: impl Iterator<Item = Range<usize>>,
    ) -> Result<Option<Self>, Errno> {
        let mut writable = Vec::<Range<usize>>::new();
        for page in pages {
            match writable.last_mut() {
                Some(last) if last.end == page.start => last.end = page.end,
                _ => writable.push(page),
            }
        }
        let permit = (writable.len() <= MAX_WRITABLE_RANGES)
            .then(Permit::acquire)
            .flatten();
        let Some(permit) = permit else {
            return Ok(None);
        };
        let protection = Self {
            memory,
            writable,
            lifted: AtomicBool::new(false),
            fully_lifted: AtomicBool::new(false),
            permit,
        };
        let read_write = MprotectFlags::READ | MprotectFlags::WRITE;
        let protected = protection
            .protect(&protection.memory, MprotectFlags::READ)
            .and_then(|()| {
                let mut writable = protection.writable.iter();
                writable.try_for_each(|range| protection.protect(range, read_write))
            });
        if protected.is_err() {
            // The process may have run out of mappings. The memory works without protection.
            protection.protect(&protection.memory, read_write)?;
            return Ok(None);
        }
        Ok(Some(protection))
    }

    fn protect(&self, range: &Range<usize>, flags: MprotectFlags) -> Result<(), Errno> {
        let start = std::ptr::with_exposed_provenance_mut(range.start);
        // SAFETY: the range is part of the memory, which is mapped and exclusively the slot's
        // (contract of `new`). No code relies on writing protected pages: compiled code may fault,
        // and the host asks first (`allow`).
        unsafe { mm::mprotect(start, range.len(), flags) }
    }

    /// Whether protected pages may have been written.
    pub(crate) fn is_lifted(&self) -> bool {
        self.lifted.load(Relaxed)
    }

    /// Lifts the protection if it explains a write fault at this address. Returns whether it did.
    /// Safe in a signal handler.
    pub(crate) fn lift_for_fault(&self, address: usize) -> bool {
        !self.fully_lifted.load(Relaxed) && self.memory.contains(&address) && self.lift()
    }

    /// Makes the part of a range that lies in the memory writable. Returns `false` if the system
    /// refuses.
    pub(crate) fn allow(&self, range: Range<usize>) -> bool {
        let contains =
            |writable: &Range<usize>| writable.start <= range.start && range.end <= writable.end;
        let overlaps = range.start < self.memory.end && self.memory.start < range.end;
        !overlaps || self.writable.iter().any(contains) || self.lift()
    }

    /// Makes the whole memory writable. Returns `false` if the system refuses.
    pub(crate) fn lift(&self) -> bool {
        if self.fully_lifted.load(Relaxed) {
            return true;
        }
        self.lifted.store(true, Relaxed);
        let read_write = MprotectFlags::READ | MprotectFlags::WRITE;
        let fully_lifted = self.protect(&self.memory, read_write).is_ok();
        self.fully_lifted.store(fully_lifted, Relaxed);
        fully_lifted
    }
}

/// Permission to protect one memory.
#[derive(Debug)]
struct Permit;

/// Number of permits in use.
static PERMITS: AtomicUsize = AtomicUsize::new(0);

impl Permit {
    fn acquire() -> Option<Self> {
        let increment = |used: usize| (used < MAX_PROTECTED).then_some(used + 1);
        PERMITS
            .fetch_update(Relaxed, Relaxed, increment)
            .ok()
            .map(|_| Self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        PERMITS.fetch_sub(1, Relaxed);
    }
}

/// Decides when a slot's memory is worth protecting.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// Number of resets in a row that must find the same pages.
    needed: u32,
    /// While unprotected: resets in a row that found the same pages. While protected: resets since
    /// protection began.
    resets: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            needed: MIN_BACKOFF,
            resets: 0,
        }
    }
}

impl Backoff {
    /// Counts a reset of an unprotected memory, which found the same pages as the one before or not.
    /// Returns whether to protect the memory now.
    pub(crate) fn count_reset(&mut self, same_pages: bool) -> bool {
        self.resets = if same_pages { self.resets + 1 } else { 0 };
        let is_due = self.resets >= self.needed;
        if is_due {
            self.resets = 0;
        }
        is_due
    }

    /// Counts a reset that found the protection in place.
    pub(crate) fn count_protected_reset(&mut self) {
        self.resets = self.resets.saturating_add(1);
    }

    /// Notes that the protection ended. Doubles the backoff if it did not last.
    pub(crate) fn protection_ended(&mut self) {
        let was_worth_it = self.resets / WORTH >= self.needed;
        self.needed = if was_worth_it {
            MIN_BACKOFF
        } else {
            MAX_BACKOFF.min(self.needed * 2)
        };
        self.resets = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts resets that find the same pages until the memory is to be protected.
    fn resets_until_protected(backoff: &mut Backoff) -> u32 {
        (1..).find(|_| backoff.count_reset(true)).unwrap()
    }

    #[test]
    fn backoff_doubles_while_protection_does_not_last() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            assert!(!backoff.count_reset(false), "other pages each time");
        }
        let mut resets = Vec::new();
        for _ in 0..20 {
            resets.push(resets_until_protected(&mut backoff));
            backoff.count_protected_reset();
            backoff.protection_ended();
        }
        assert_eq!(resets[..3], [MIN_BACKOFF, 64, 128]);
        assert_eq!(resets[19], MAX_BACKOFF);
        assert_eq!(resets_until_protected(&mut backoff), MAX_BACKOFF);
        for _ in 0..MAX_BACKOFF * WORTH {
            backoff.count_protected_reset();
        }
        backoff.protection_ended();
        assert_eq!(resets_until_protected(&mut backoff), MIN_BACKOFF);
    }

    #[test]
    fn protection_lifted_halfway_counts_as_lifted() {
        let page = rustix::param::page_size();
        let access = mm::ProtFlags::READ | mm::ProtFlags::WRITE;
        // SAFETY: creates a new mapping and touches no existing one.
        let base = unsafe {
            let flags = mm::MapFlags::PRIVATE;
            mm::mmap_anonymous(std::ptr::null_mut(), 3 * page, access, flags)
        };
        let base = base.unwrap();
        let start = base.expose_provenance();
        // SAFETY: the pages are mapped, writable, and only this test uses them.
        let protection =
            unsafe { WriteProtection::new(start..start + 3 * page, std::iter::empty()) };
        let protection = protection.unwrap().unwrap();
        assert!(!protection.is_lifted());
        // SAFETY: nothing uses the last page. Without it `mprotect` fails halfway.
        unsafe { mm::munmap(base.add(2 * page), page) }.unwrap();
        assert!(!protection.lift_for_fault(start));
        assert!(protection.is_lifted());
        assert!(!protection.lift(), "not all of it is writable");
        // SAFETY: unmaps the rest of the mapping, which nothing uses any more.
        unsafe { mm::munmap(base, 2 * page) }.unwrap();
    }
}
