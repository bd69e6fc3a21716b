//! Guards: what a reset need not look at, because nobody can have written it.
//!
//! The kernel knows which pages a run has written, but asking it is a system call, under a lock that
//! all threads of the process share. A function that does the same for each request writes the same
//! few pages each time. So when a slot's resets have found the same pages often enough, all others
//! become read-only, and as long as that guard stands, a reset compares the pages that can be
//! written with the image and asks for nothing.
//!
//! ```text
//!                 the same pages for `patience` resets
//! no guard ----------------------------------------------> guard stands
//!     ^                                                        |
//!     +--------------------------------------------------------+
//!        a write elsewhere, a growth, a page that is not written any more
//! ```
//!
//! Compiled code that writes elsewhere faults, and the handler lifts the guard and lets it go on
//! (`signal.rs`): some microseconds, which is why a guard that does not stand for long is put up
//! later the next time. Whoever else writes guest memory must ask first ([`crate::signal::allow_write`]):
//! a system call that is to write there would not fault but fail.
//!
//! A guard takes mappings, of which a process may have only so many. So there are [`MOST`] at once.
//!
//! Unsafe here assumes that a guard is lifted or dropped no later than its slot, and that its memory is
//! written by the thread that runs its guest alone.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use rustix::io::Errno;
use rustix::mm::{self, MprotectFlags};

/// Guards that may stand at once in the process.
const MOST: usize = 64;
/// Most ranges of pages that can be written. Each takes two mappings.
const MOST_OPEN: usize = 8;
/// Resets that must have found the same pages, at first.
const FIRST_PATIENCE: u32 = 32;
/// The same where guards are lifted again and again.
const LONGEST_PATIENCE: u32 = 1 << 16;
/// A guard that has stood for as many times its patience was worth it.
const WORTH: u32 = 16;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The initial memory, in addresses.
    memory: Range<usize>,
    /// What can be written, in addresses.
    open: Vec<Range<usize>>,
    /// It was to be lifted: some of its pages can be written at least, since the system may give up
    /// halfway.
    lifted: AtomicBool,
    /// All of them can.
    all_open: AtomicBool,
    _place: Place,
}

impl Guard {
    /// Puts up a guard around these pages of a memory, which are given in ascending order. `None` if
    /// they are too scattered, or if there are too many guards.
    ///
    /// # Errors
    ///
    /// What the system says; the memory must not be used any more.
    ///
    /// # Safety
    ///
    /// The memory and its pages must be mapped, writable, and the caller's alone as long as the
    /// guard stands.
    pub(crate) unsafe fn new(
        memory: Range<usize>,
        pages: impl Iterator<Item = Range<usize>>,
    ) -> Result<Option<Self>, Errno> {
        let mut open = Vec::<Range<usize>>::new();
        for page in pages {
            match open.last_mut() {
                Some(last) if last.end == page.start => last.end = page.end,
                _ => open.push(page),
            }
        }
        let place = (open.len() <= MOST_OPEN).then(Place::take).flatten();
        let Some(place) = place else {
            return Ok(None);
        };
        let guard = Self {
            memory,
            open,
            lifted: AtomicBool::new(false),
            all_open: AtomicBool::new(false),
            _place: place,
        };
        let writable = MprotectFlags::READ | MprotectFlags::WRITE;
        let put_up = guard
            .protect(&guard.memory, MprotectFlags::READ)
            .and_then(|()| {
                let mut open = guard.open.iter();
                open.try_for_each(|range| guard.protect(range, writable))
            });
        if put_up.is_err() {
            // Not as many mappings as that, perhaps. It works without.
            guard.protect(&guard.memory, writable)?;
            return Ok(None);
        }
        Ok(Some(guard))
    }

    fn protect(&self, range: &Range<usize>, flags: MprotectFlags) -> Result<(), Errno> {
        let start = std::ptr::with_exposed_provenance_mut(range.start);
        // SAFETY: a part of the memory, which is the slot's alone and mapped (`new`). Nobody counts on
        // writing what a guard closes: compiled code may fault, and others ask.
        unsafe { mm::mprotect(start, range.len(), flags) }
    }

    /// Whether pages that were closed may have been written.
    pub(crate) fn is_lifted(&self) -> bool {
        self.lifted.load(Relaxed)
    }

    /// Lifts the guard if it keeps this address from being written; says whether it did. Safe in a
    /// signal handler.
    pub(crate) fn let_pass(&self, address: usize) -> bool {
        !self.all_open.load(Relaxed) && self.memory.contains(&address) && self.lift()
    }

    /// Sees to it that this range, if it lies in the memory, can be written; `false` if the system
    /// refuses.
    pub(crate) fn allow(&self, range: Range<usize>) -> bool {
        let is_open = |open: &Range<usize>| open.start <= range.start && range.end <= open.end;
        let is_inside = range.start < self.memory.end && self.memory.start < range.end;
        !is_inside || self.open.iter().any(is_open) || self.lift()
    }

    /// Lets everything be written; `false` if the system refuses.
    pub(crate) fn lift(&self) -> bool {
        let writable = MprotectFlags::READ | MprotectFlags::WRITE;
        if self.all_open.load(Relaxed) {
            return true;
        }
        self.lifted.store(true, Relaxed);
        let all_open = self.protect(&self.memory, writable).is_ok();
        self.all_open.store(all_open, Relaxed);
        all_open
    }
}

/// One of the guards that may stand.
#[derive(Debug)]
struct Place;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Place {
    fn take() -> Option<Self> {
        let one_more = |taken: usize| (taken < MOST).then_some(taken + 1);
        TAKEN
            .fetch_update(Relaxed, Relaxed, one_more)
            .ok()
            .map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Relaxed);
    }
}

/// When a slot is to have a guard.
#[derive(Debug)]
pub(crate) struct Patience {
    needed: u32,
    /// Resets that have found the same pages, or since the guard stands.
    resets: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            needed: FIRST_PATIENCE,
            resets: 0,
        }
    }
}

impl Patience {
    /// A reset has found these pages; says whether a guard is worth it now.
    pub(crate) fn found(&mut self, same: bool) -> bool {
        self.resets = if same { self.resets + 1 } else { 0 };
        let is_over = self.resets >= self.needed;
        if is_over {
            self.resets = 0;
        }
        is_over
    }

    /// The guard stands for another reset.
    pub(crate) fn stands(&mut self) {
        self.resets = self.resets.saturating_add(1);
    }

    /// The guard does not stand any more.
    pub(crate) fn lost(&mut self) {
        let was_worth_it = self.resets / WORTH >= self.needed;
        self.needed = if was_worth_it {
            FIRST_PATIENCE
        } else {
            LONGEST_PATIENCE.min(self.needed * 2)
        };
        self.resets = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resets that find the same pages until a guard is put up.
    fn resets_until_guarded(patience: &mut Patience) -> u32 {
        (1..).find(|_| patience.found(true)).unwrap()
    }

    #[test]
    fn guards_that_are_lifted_again_and_again_come_later_each_time() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            assert!(!patience.found(false), "other pages each time");
        }
        let mut resets = Vec::new();
        for _ in 0..20 {
            resets.push(resets_until_guarded(&mut patience));
            patience.stands();
            patience.lost();
        }
        assert_eq!(resets[..3], [FIRST_PATIENCE, 64, 128]);
        assert_eq!(resets[19], LONGEST_PATIENCE);
        assert_eq!(resets_until_guarded(&mut patience), LONGEST_PATIENCE);
        for _ in 0..LONGEST_PATIENCE * WORTH {
            patience.stands();
        }
        patience.lost();
        assert_eq!(resets_until_guarded(&mut patience), FIRST_PATIENCE);
    }

    #[test]
    fn a_guard_that_was_lifted_halfway_vouches_for_nothing() {
        let page = rustix::param::page_size();
        let access = mm::ProtFlags::READ | mm::ProtFlags::WRITE;
        // SAFETY: a new mapping that nobody else knows of.
        let base = unsafe {
            let flags = mm::MapFlags::PRIVATE;
            mm::mmap_anonymous(std::ptr::null_mut(), 3 * page, access, flags)
        };
        let base = base.unwrap();
        let start = base.expose_provenance();
        // SAFETY: the pages are mapped, writable and nobody else's.
        let guard = unsafe { Guard::new(start..start + 3 * page, std::iter::empty()) };
        let guard = guard.unwrap().unwrap();
        assert!(!guard.is_lifted());
        // SAFETY: nobody uses the last page. Without it the system gives up in the middle.
        unsafe { mm::munmap(base.add(2 * page), page) }.unwrap();
        assert!(!guard.let_pass(start));
        assert!(guard.is_lifted());
        assert!(!guard.lift(), "not all of it can be written");
        // SAFETY: what is left of the mapping, which nobody uses any more.
        unsafe { mm::munmap(base, 2 * page) }.unwrap();
    }
}
