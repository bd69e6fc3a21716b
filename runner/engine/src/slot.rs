//! Slots: reserved address space for linear memories, reused from run to run.
//!
//! Compiled code adds a 32-bit index and a 32-bit constant offset without a check, so a memory
//! must be followed by inaccessible space up to 8 GiB (plus the largest access), whatever its own
//! size. A slot reserves that space once:
//!
//! ```text
//! base                     initial size              current size              8 GiB + 64 KiB
//! | image (image.rs)         | grown, zeros ...        | inaccessible ...              |
//! ```
//!
//! The initial memory is a private mapping of the image: clean pages are shared with every other
//! mapping, and a written page is copied. A reset asks the kernel which pages are private to the
//! slot (`pagemap.rs`) and restores the initial content of each:
//!
//! ```text
//!                 written by a run                 same content for IDLE_RESETS resets,
//! (not there) ----------------------> kept page -- or more than MAX_KEPT ------------> (not there)
//!                                       |    ^
//!                                       +----+ reset: compared with the image, copied back
//! ```
//!
//! A kept page costs no fault when the next run writes it; faults would dominate a short run.
//! Keeping pages affects cost only: the kernel names every page that a run has written, and each is
//! either made equal to the image or dropped, so that the image shows through again. The grown part
//! becomes inaccessible; its kept pages hold zeros until the memory grows again.
//!
//! Where runs write the same pages each time, the other pages are write-protected and the reset does
//! not ask the kernel (`write_protect.rs`).
//!
//! Unsafe here assumes that the artifact's file keeps its size and content while it is mapped.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};

use crate::fault_injection::{self, Fault};
use crate::image::MemoryImage;
use crate::pagemap::{OwnPages, Pagemap};
use crate::write_protect::{Backoff, WriteProtection};

/// Size of a page of WebAssembly memory in bytes.
pub(crate) const WASM_PAGE: usize = 65536;
/// Reserved address space of one memory: see the module's documentation.
const RESERVATION: usize = (8 << 30) + WASM_PAGE;
/// Largest linear memory in bytes.
const LARGEST: usize = 4 << 30;
/// Maximum number of pages that a slot keeps from one run to the next.
const MAX_KEPT: usize = 512;
/// Resets after which a page that no run has changed is returned to the kernel. Comparing it this often
/// costs about as much as a page fault.
const IDLE_RESETS: u8 = 16;

/// Why a slot could not be created or reset.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// There is no address space for another memory.
    #[error(
        "the system refused 8 GiB of address space for a linear memory: {0} (limits: `ulimit -v`, \
         /proc/sys/vm/max_map_count)"
    )]
    Reserve(Errno),
    /// Part of the memory could not be mapped or made accessible.
    #[error("the system refused to map a linear memory: {0}")]
    Map(Errno),
}

/// Checks that the system grants `size` bytes of writable address space, by mapping and unmapping them.
///
/// # Errors
///
/// The error of `mmap`.
pub(crate) fn try_reserve(size: usize) -> Result<(), Errno> {
    // SAFETY: creates a mapping and removes it again; no other code knows its address.
    unsafe {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let base = mm::mmap_anonymous(std::ptr::null_mut(), size, access, MapFlags::PRIVATE)?;
        mm::munmap(base, size)
    }
}

/// One reserved linear memory.
#[derive(Debug)]
pub(crate) struct Slot {
    base: NonNull<u8>,
    image: Arc<MemoryImage>,
    current: usize,
    /// Whether the embedder's limit kept it from growing.
    limited: bool,
    /// Bytes from the base that may hold private pages. There are none beyond.
    touched: usize,
    /// In ascending order.
    kept: Vec<Kept>,
    /// Buffers of a reset, kept so that it allocates nothing.
    before: Vec<Kept>,
    own: Vec<OwnPages>,
    /// Whether the memory may be write-protected.
    protectable: bool,
    backoff: Backoff,
    /// Boxed, because the thread that runs the guest holds a pointer to it.
    protection: Option<Box<WriteProtection>>,
}

/// A private page that survives a reset.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// Offset of its first byte.
    start: usize,
    /// Resets since a run last changed it.
    idle: u8,
}

// SAFETY: a slot is the only owner of its address range.
unsafe impl Send for Slot {}

impl Slot {
    /// Reserves a slot for a memory and maps its image.
    ///
    /// # Errors
    ///
    /// [`SlotError`] if the system refuses.
    pub(crate) fn new(image: &Arc<MemoryImage>) -> Result<Self, SlotError> {
        // SAFETY: creates a new private mapping and touches no existing one.
        let base = unsafe {
            mm::mmap_anonymous(
                std::ptr::null_mut(),
                RESERVATION,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(SlotError::Reserve)?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(SlotError::Reserve(Errno::NOMEM))?;
        // From here on, dropping `slot` unmaps the reservation.
        let slot = Self {
            base,
            image: Arc::clone(image),
            current: image.initial(),
            limited: false,
            touched: 0,
            kept: Vec::new(),
            before: Vec::new(),
            own: Vec::new(),
            protectable: false,
            backoff: Backoff::default(),
            protection: None,
        };
        // SAFETY: the reservation is larger than any initial memory and exclusively ours.
        unsafe { image.map(base) }.map_err(SlotError::Map)?;
        Ok(slot)
    }

    /// Allows the memory to be write-protected. The caller must then publish
    /// [`protection`](Slot::protection) to the signal handler while a guest runs.
    pub(crate) fn allow_write_protection(&mut self) {
        self.protectable = true;
    }

    /// The write protection for the next run, if the memory is protected.
    pub(crate) fn protection(&self) -> Option<&WriteProtection> {
        self.protection.as_deref()
    }

    fn protect(&self, start: usize, length: usize, flags: MprotectFlags) -> Result<(), SlotError> {
        // SAFETY: callers pass ranges inside the reservation, which is exclusively ours.
        unsafe { mm::mprotect(self.base.as_ptr().add(start).cast(), length, flags) }
            .map_err(SlotError::Map)
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes that the guest can access now.
    pub(crate) fn size(&self) -> usize {
        self.current
    }

    /// Whether the embedder's limit has prevented a growth since the last reset.
    pub(crate) fn was_limited(&self) -> bool {
        self.limited
    }

    /// Notes that the embedder's limit prevented a growth.
    pub(crate) fn note_limited(&mut self) {
        self.limited = true;
    }

    /// Whether an address lies in the slot, accessible or not.
    pub(crate) fn contains(&self, address: usize) -> bool {
        (self.base.addr().get()..self.base.addr().get() + RESERVATION).contains(&address)
    }

    /// Makes `additional` more bytes accessible. Returns `false` if the system or the limit refuses.
    pub(crate) fn grow(&mut self, additional: usize, limit: usize) -> bool {
        let Some(size) = self.current.checked_add(additional) else {
            return false;
        };
        if size > limit.min(LARGEST) {
            return false;
        }
        let lifted = self
            .protection()
            .is_none_or(|protection| additional == 0 || protection.lift());
        if !lifted {
            return false;
        }
        let flags = MprotectFlags::READ | MprotectFlags::WRITE;
        if additional > 0 && self.protect(self.current, additional, flags).is_err() {
            return false;
        }
        self.current = size;
        true
    }

    /// Restores the slot's initial state.
    ///
    /// # Errors
    ///
    /// [`SlotError`]; the slot must then be dropped.
    pub(crate) fn reset(&mut self) -> Result<(), SlotError> {
        self.limited = false;
        if self.restore_writable()? {
            return Ok(());
        }
        let initial = self.image.initial();
        if fault_injection::is(Fault::GrownTail) {
            self.current = initial;
        }
        self.touched = self.touched.max(self.current);
        match Pagemap::get() {
            Some(pagemap) => self.restore(pagemap)?,
            None => self.discard(0..self.touched)?,
        }
        if self.current > initial {
            self.protect(initial, self.current - initial, MprotectFlags::empty())?;
            self.current = initial;
        }
        Ok(())
    }

    /// Restores the writable pages of a protected memory. Returns `false` if the memory is not
    /// protected, or no longer.
    fn restore_writable(&mut self) -> Result<bool, SlotError> {
        let Some(protection) = self.protection.take() else {
            return Ok(false);
        };
        if !protection.is_lifted() || fault_injection::is(Fault::LiftedProtection) {
            let mut kept = std::mem::take(&mut self.kept);
            for (number, page) in kept.iter_mut().enumerate() {
                let skipped = number == 0 && fault_injection::is(Fault::HotPage);
                let changed = !skipped && self.restore_page(page.start);
                page.idle = if changed { 0 } else { page.idle + 1 };
            }
            let all_in_use = kept.iter().all(|page| page.idle <= IDLE_RESETS);
            self.kept = kept;
            if all_in_use {
                self.backoff.count_protected_reset();
                self.protection = Some(protection);
                return Ok(true);
            }
        }
        if !protection.lift() {
            return Err(SlotError::Map(Errno::NOMEM));
        }
        self.backoff.protection_ended();
        Ok(false)
    }

    /// Protects the memory if enough resets have found the same pages.
    fn consider_write_protection(&mut self, same_pages: bool) -> Result<(), SlotError> {
        if !self.protectable || !self.backoff.count_reset(same_pages) {
            return Ok(());
        }
        let base = self.base.addr().get();
        let pages = self.kept.iter().map(|page| base + page.start);
        let pages = pages.map(|start| start..start + page_size());
        let memory = base..base + self.image.initial();
        // SAFETY: the memory is mapped and exclusively ours. The kept pages lie in it, because
        // `restore` says `same_pages` only then.
        let protection = unsafe { WriteProtection::new(memory, pages) }.map_err(SlotError::Map)?;
        self.protection = protection.map(Box::new);
        Ok(())
    }

    /// Restores the initial content of every private page, or drops the page.
    fn restore(&mut self, pagemap: &Pagemap) -> Result<(), SlotError> {
        let base = self.base.addr().get();
        let mut own = std::mem::take(&mut self.own);
        own.clear();
        let mut looked = 0;
        while looked < self.touched {
            let pages: usize = own.iter().map(|own| own.range.len()).sum();
            let left = MAX_KEPT.saturating_sub(pages / page_size());
            if left == 0 {
                break;
            }
            match pagemap.own_pages(base + looked..base + self.touched, left, &mut own) {
                Some(end) => looked = end - base,
                None => break,
            }
        }
        let before = std::mem::take(&mut self.kept);
        let mut kept = std::mem::take(&mut self.before);
        kept.clear();
        let mut older = before.iter().peekable();
        let mut unused = Discarded::default();
        for OwnPages { range, swapped } in &own {
            let range = range.start - base..range.end - base;
            for start in range.step_by(page_size()) {
                let mut idle = 0;
                while let Some(page) = older.next_if(|page| page.start <= start) {
                    idle = if page.start == start { page.idle } else { 0 };
                }
                let skipped = kept.is_empty() && fault_injection::is(Fault::HotPage);
                let changed =
                    !*swapped && start < self.current && !skipped && self.restore_page(start);
                idle = if changed { 0 } else { idle + 1 };
                if *swapped || idle > IDLE_RESETS {
                    self.discard(unused.extend(start..start + page_size()))?;
                } else {
                    kept.push(Kept { start, idle });
                }
            }
        }
        self.discard(unused.last())?;
        // Drop the pages that the kernel was not asked about or did not answer for.
        self.discard(looked..self.touched)?;
        let touched = kept.last().map_or(0, |page| page.start + page_size());
        // A dropped page would be missing from `kept`, so this implies that none was dropped.
        let same_pages = looked >= self.touched
            && self.image.initial() > 0
            && touched <= self.image.initial()
            && kept.len() == before.len()
            && (kept.iter().zip(&before)).all(|(kept, before)| kept.start == before.start);
        self.touched = touched;
        (self.kept, self.before, self.own) = (kept, before, own);
        self.consider_write_protection(same_pages)
    }

    /// Restores the initial content of an accessible page. Returns `false` if the page had it already.
    fn restore_page(&mut self, start: usize) -> bool {
        // SAFETY: the page lies in the accessible part of the slot (`start` is page-aligned and below
        // `current`), which is exclusively ours: the instance that used it is gone.
        let page =
            unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(start), page_size()) };
        match self.image.page(start, page.len()) {
            Some(initial) if *page == *initial => false,
            Some(initial) => {
                page.copy_from_slice(initial);
                true
            }
            None if is_zero(page) => false,
            None => {
                page.fill(0);
                true
            }
        }
    }

    /// Drops the private pages of a range, so that the image or zeros show through again.
    fn discard(&self, range: Range<usize>) -> Result<(), SlotError> {
        if range.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is ours, and no reference into it is alive, because the instance that
        // used it is gone.
        unsafe {
            let start = self.base.as_ptr().add(range.start).cast();
            mm::madvise(start, range.len(), Advice::LinuxDontNeed)
        }
        .map_err(SlotError::Map)
    }
}

/// Joins adjacent ranges that are added one after another.
#[derive(Debug, Default)]
struct Discarded(Range<usize>);

impl Discarded {
    /// Adds a range. Returns the range that is complete without it.
    fn extend(&mut self, range: Range<usize>) -> Range<usize> {
        if self.0.end == range.start {
            self.0.end = range.end;
            0..0
        } else {
            std::mem::replace(&mut self.0, range)
        }
    }

    fn last(self) -> Range<usize> {
        self.0
    }
}

fn page_size() -> usize {
    rustix::param::page_size()
}

fn is_zero(bytes: &[u8]) -> bool {
    // Each byte equals the one before it.
    bytes
        .split_first()
        .is_none_or(|(first, rest)| *first == 0 && *rest == bytes[..rest.len()])
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the reservation is ours and nothing refers to it any more. Unmapping a whole
        // mapping cannot fail.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), RESERVATION) };
    }
}

#[cfg(test)]
mod tests {
    use faas_wasm_artifact::{ImageRun, Range};
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::map::FileMapping;

    /// An image of `initial` bytes whose second page of WebAssembly memory is full of `byte`, and
    /// the file that it comes from.
    fn image(initial: usize, byte: u8) -> (Arc<MemoryImage>, std::fs::File) {
        use std::io::Write as _;
        let mut file: std::fs::File = memfd_create("image", MemfdFlags::CLOEXEC).unwrap().into();
        file.write_all(&[byte; WASM_PAGE]).unwrap();
        let run = ImageRun {
            memory: 0,
            address: WASM_PAGE as u64,
            bytes: Range {
                offset: 0,
                length: WASM_PAGE as u64,
            },
        };
        // SAFETY: nothing changes the file.
        let mapping = unsafe { FileMapping::new(file.try_clone().unwrap(), WASM_PAGE) };
        let runs = if initial > WASM_PAGE {
            vec![run]
        } else {
            vec![]
        };
        let image = MemoryImage::new(initial, runs.iter(), &Arc::new(mapping.unwrap()));
        (Arc::new(image), file)
    }

    fn byte(slot: &mut Slot, at: usize) -> &mut u8 {
        assert!(at < slot.size());
        // SAFETY: the byte is in the accessible part, and the borrow is that of the slot.
        unsafe { &mut *slot.base().add(at) }
    }

    #[test]
    fn reset_restores_the_initial_state() {
        let (image, file) = image(3 * WASM_PAGE, 7);
        let mut slot = Slot::new(&image).unwrap();
        for round in 0..3 {
            let expected = [
                (0, 0),
                (WASM_PAGE, 7),
                (2 * WASM_PAGE - 1, 7),
                (2 * WASM_PAGE, 0),
            ];
            for (at, value) in expected {
                assert_eq!(*byte(&mut slot, at), value, "round {round}, {at:#x}");
                *byte(&mut slot, at) = 42;
            }
            assert!(slot.grow(2 * WASM_PAGE, LARGEST));
            let last = slot.size() - 1;
            assert_eq!(*byte(&mut slot, last), 0);
            *byte(&mut slot, last) = 42;
            slot.reset().unwrap();
            assert_eq!(slot.size(), 3 * WASM_PAGE);
        }
        drop(slot);
        // The writes stayed in the slot and did not reach the file.
        let mut content = vec![0; WASM_PAGE];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut content, 0).unwrap();
        assert!(content.iter().all(|byte| *byte == 7));
    }

    /// Runs write different pages each time, more than are kept, and grow the memory. Whatever happens
    /// to the pages, the next run sees the image.
    #[test]
    fn reset_undoes_every_write() {
        let initial = 40 * WASM_PAGE;
        let (image, _file) = image(initial, 7);
        let mut slot = Slot::new(&image).unwrap();
        let mut seed = 1u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for round in 0..90 {
            // Read everything only now and then, because reading changes the kernel's state.
            if round % 7 == 0 {
                for at in (0..initial).step_by(512) {
                    let expected = if at / WASM_PAGE == 1 { 7 } else { 0 };
                    assert_eq!(*byte(&mut slot, at), expected, "round {round}, {at:#x}");
                }
            }
            if round % 3 == 0 {
                assert!(slot.grow((1 + random(8)) * WASM_PAGE, LARGEST));
                for at in (initial..slot.size()).step_by(512) {
                    assert_eq!(*byte(&mut slot, at), 0, "round {round}, {at:#x}");
                }
            }
            let pages = if round % 10 == 0 { 2 * MAX_KEPT } else { 30 };
            for _ in 0..pages {
                let at = random(slot.size());
                *byte(&mut slot, at) = 42;
            }
            slot.reset().unwrap();
            assert!(slot.kept.len() <= MAX_KEPT);
            assert!(slot.kept.iter().all(|page| page.idle <= IDLE_RESETS));
        }
    }

    /// A page that is written once is dropped later; a page that each run writes is kept.
    #[test]
    fn pages_are_kept_as_long_as_they_are_written() {
        let (image, _file) = image(2 * WASM_PAGE, 7);
        let mut slot = Slot::new(&image).unwrap();
        *byte(&mut slot, page_size()) = 1;
        slot.reset().unwrap();
        if Pagemap::get().is_none() {
            assert!(slot.kept.is_empty(), "nothing is kept without a pagemap");
            return;
        }
        assert_eq!(slot.kept.len(), 1);
        for _ in 0..=IDLE_RESETS {
            *byte(&mut slot, WASM_PAGE) = 1;
            slot.reset().unwrap();
        }
        let kept: Vec<_> = slot.kept.iter().map(|page| page.start).collect();
        assert_eq!(kept, [WASM_PAGE]);
        assert_eq!(*byte(&mut slot, WASM_PAGE), 7);
    }

    /// A slot whose runs have written the same page until the other pages were protected.
    fn protected_slot(image: &Arc<MemoryImage>) -> Slot {
        let mut slot = Slot::new(image).unwrap();
        slot.allow_write_protection();
        for _ in 0..1000 {
            *byte(&mut slot, WASM_PAGE + page_size()) = 42;
            slot.reset().unwrap();
        }
        assert_eq!(slot.protection().is_some(), Pagemap::get().is_some());
        slot
    }

    #[test]
    fn unwritten_pages_become_protected() {
        let (image, _file) = image(3 * WASM_PAGE, 7);
        let mut slot = protected_slot(&image);
        let Some(protection) = slot.protection() else {
            return;
        };
        let first = slot.base.addr().get();
        let writable = first + WASM_PAGE + page_size();
        assert!(protection.allow(writable + 1..writable + page_size()));
        assert!(protection.allow(first + image.initial()..first + RESERVATION));
        assert!(
            !protection.is_lifted(),
            "these are writable, or outside the memory"
        );
        for elsewhere in [0, first - 1, first + image.initial()] {
            assert!(!protection.lift_for_fault(elsewhere), "{elsewhere:#x}");
        }
        assert!(protection.lift_for_fault(first) && protection.is_lifted());
        assert!(
            !protection.lift_for_fault(first),
            "a second fault has another cause"
        );
        // Everything is written, and the next run sees the image.
        for at in (0..3 * WASM_PAGE).step_by(page_size()) {
            *byte(&mut slot, at) = 42;
        }
        slot.reset().unwrap();
        assert!(slot.protection().is_none());
        for at in 0..3 * WASM_PAGE {
            let expected = if at / WASM_PAGE == 1 { 7 } else { 0 };
            assert_eq!(*byte(&mut slot, at), expected, "{at:#x}");
        }
    }

    #[test]
    fn growth_lifts_protection() {
        let (image, _file) = image(3 * WASM_PAGE, 7);
        let mut slot = protected_slot(&image);
        assert!(slot.grow(WASM_PAGE, LARGEST));
        assert!(slot.protection().is_none_or(WriteProtection::is_lifted));
        for at in [0, 3 * WASM_PAGE] {
            *byte(&mut slot, at) = 42;
        }
        slot.reset().unwrap();
        assert!(slot.protection().is_none());
        assert!(slot.grow(WASM_PAGE, LARGEST));
        for at in [0, 3 * WASM_PAGE] {
            assert_eq!(*byte(&mut slot, at), 0);
        }
    }

    /// A page that runs no longer write is dropped, protected or not.
    #[test]
    fn protection_ends_when_its_pages_are_no_longer_written() {
        let (image, _file) = image(3 * WASM_PAGE, 7);
        let mut slot = protected_slot(&image);
        for _ in 0..=IDLE_RESETS {
            slot.reset().unwrap();
        }
        assert!(slot.protection().is_none() && slot.kept.is_empty());
        *byte(&mut slot, 0) = 42;
    }

    #[test]
    fn idle_slot_has_two_mappings() {
        let (image, _file) = image(3 * WASM_PAGE, 7);
        let mut slots: Vec<_> = (0..20).map(|_| Slot::new(&image).unwrap()).collect();
        let addresses =
            |slots: &[Slot]| -> Vec<_> { slots.iter().map(|slot| slot.base().addr()).collect() };
        let bases = addresses(&slots);
        let count = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let start = |line: &str| usize::from_str_radix(line.split('-').next()?, 16).ok();
            let in_slot = |address: &usize| {
                bases
                    .iter()
                    .any(|base| (*base..*base + RESERVATION).contains(address))
            };
            maps.lines().filter_map(start).filter(in_slot).count()
        };
        assert!(count() <= 2 * slots.len(), "{}", count());
        for slot in &mut slots {
            assert!(slot.grow(WASM_PAGE, LARGEST));
            for at in (0..slot.size()).step_by(page_size()) {
                *byte(slot, at) = 1;
            }
            slot.reset().unwrap();
        }
        assert!(count() <= 2 * slots.len(), "{}", count());
    }

    #[test]
    fn growth_respects_the_limits() {
        let (image, _) = image(0, 0);
        let mut slot = Slot::new(&image).unwrap();
        assert_eq!(slot.size(), 0);
        assert!(!slot.grow(2 * WASM_PAGE, WASM_PAGE));
        assert!(slot.grow(WASM_PAGE, WASM_PAGE));
        assert!(!slot.grow(WASM_PAGE, WASM_PAGE));
        assert!(!slot.grow(usize::MAX, usize::MAX));
        assert!(slot.grow(LARGEST - WASM_PAGE, usize::MAX));
        assert!(!slot.grow(WASM_PAGE, usize::MAX));
        let last = slot.size() - 1;
        *byte(&mut slot, last) = 1;
        assert!(slot.contains(slot.base().addr() + LARGEST));
        assert!(!slot.contains(slot.base().addr() + RESERVATION));
        slot.reset().unwrap();
        assert_eq!(slot.size(), 0);
    }
}
