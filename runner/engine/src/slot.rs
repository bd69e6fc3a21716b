//! Slots: reserved address space for linear memories, reused from run to run.
//!
//! Compiled code adds a 32-bit index and a 32-bit constant offset without a check, so a memory
//! must be followed by inaccessible space up to 8 GiB (plus the largest access), whatever its own
//! size. A slot reserves that once:
//!
//! ```text
//! base                     initial size              current size              8 GiB + 64 KiB
//! | image (image.rs)         | grown, zeros ...        | inaccessible ...              |
//! ```
//!
//! The initial memory is a private mapping of the image: it shares clean pages with everybody and
//! copies a page when it is written. A slot that was used is reset by asking the kernel which pages
//! it has of its own (`pagemap.rs`) and giving each the content that it had at the beginning:
//!
//! ```text
//!                 written by a run                 same content for IDLE_RESETS resets,
//! (not there) ----------------------> kept page -- or more than MOST_KEPT ------------> (not there)
//!                                       |    ^
//!                                       +----+ reset: compared with the image, copied back
//! ```
//!
//! A kept page costs no fault when the next run writes it, which is most of what a short run would
//! pay. Keeping is a matter of cost only: every page that a run has written is among those that the
//! kernel names, and is either made equal to the image or dropped, which lets the image show again.
//! What was grown becomes inaccessible; its kept pages hold zeros and wait for the next growth.
//!
//! Where the runs write the same pages each time, a guard keeps the others from being written, and
//! the kernel need not be asked (`guard.rs`).
//!
//! Unsafe here assumes that the artifact's file keeps its size and content while it is mapped.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};

use crate::broken::{self, Broken};
use crate::guard::{Guard, Patience};
use crate::image::MemoryImage;
use crate::pagemap::{OwnPages, Pagemap};

/// Size of a page of WebAssembly memory in bytes.
pub(crate) const WASM_PAGE: usize = 65536;
/// Reserved address space of one memory: see the module's documentation.
const RESERVATION: usize = (8 << 30) + WASM_PAGE;
/// Largest linear memory in bytes.
const LARGEST: usize = 4 << 30;
/// Most pages that a slot keeps from one run to the next.
const MOST_KEPT: usize = 512;
/// Resets after which a page that no run has changed meanwhile is given back: about as many as cost
/// what a page fault does.
const IDLE_RESETS: u8 = 16;

/// Why a slot could not be made or reset.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// No address space for another memory.
    #[error(
        "the system refused 8 GiB of address space for a linear memory: {0} (limits: `ulimit -v`, \
         /proc/sys/vm/max_map_count)"
    )]
    Reserve(Errno),
    /// A part of it could not be mapped or made accessible.
    #[error("the system refused to map a linear memory: {0}")]
    Map(Errno),
}

/// Maps so many writable bytes and unmaps them again.
///
/// # Errors
///
/// What the system says.
pub(crate) fn try_reserve(size: usize) -> Result<(), Errno> {
    // SAFETY: a new mapping that nobody else knows of, and that is gone at the end.
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
    /// Bytes from the base that may hold pages of our own: beyond lies nothing.
    touched: usize,
    /// Ascending.
    kept: Vec<Kept>,
    /// Room for what a reset finds out, so that it need not be allocated.
    before: Vec<Kept>,
    own: Vec<OwnPages>,
    /// There may be a guard.
    guardable: bool,
    patience: Patience,
    /// Boxed, as the thread that runs the guest refers to it.
    guard: Option<Box<Guard>>,
}

/// A page that stays when the slot is reset.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// Its first byte, as an offset.
    start: usize,
    /// Resets since a run has changed it.
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
        // SAFETY: a new private reservation, no existing mapping is touched.
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
        // From here on the reservation is unmapped when `slot` is dropped.
        let slot = Self {
            base,
            image: Arc::clone(image),
            current: image.initial(),
            limited: false,
            touched: 0,
            kept: Vec::new(),
            before: Vec::new(),
            own: Vec::new(),
            guardable: false,
            patience: Patience::default(),
            guard: None,
        };
        // SAFETY: the reservation is larger than any initial memory, and ours alone.
        unsafe { image.map(base) }.map_err(SlotError::Map)?;
        Ok(slot)
    }

    /// Lets the slot have a guard from time to time. Its [`guard`](Slot::guard) must then be in force while
    /// a guest runs.
    pub(crate) fn permit_guard(&mut self) {
        self.guardable = true;
    }

    /// The guard for the next run, if there is one.
    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.guard.as_deref()
    }

    fn protect(&self, start: usize, length: usize, flags: MprotectFlags) -> Result<(), SlotError> {
        // SAFETY: callers pass ranges inside of the reservation, which is ours alone.
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

    /// Whether the embedder's limit has kept the memory from growing since the last reset.
    pub(crate) fn was_limited(&self) -> bool {
        self.limited
    }

    /// Notes that it was the embedder's limit that kept the memory from growing.
    pub(crate) fn note_limited(&mut self) {
        self.limited = true;
    }

    /// Whether an address lies in the slot, accessible or not.
    pub(crate) fn contains(&self, address: usize) -> bool {
        (self.base.addr().get()..self.base.addr().get() + RESERVATION).contains(&address)
    }

    /// Makes `additional` bytes more accessible; `false` if the system or the limit says no.
    pub(crate) fn grow(&mut self, additional: usize, limit: usize) -> bool {
        let Some(size) = self.current.checked_add(additional) else {
            return false;
        };
        if size > limit.min(LARGEST) {
            return false;
        }
        let lifted = self
            .guard()
            .is_none_or(|guard| additional == 0 || guard.lift());
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

    /// Makes the slot what it was when it was new.
    ///
    /// # Errors
    ///
    /// [`SlotError`]; the slot must then be dropped.
    pub(crate) fn reset(&mut self) -> Result<(), SlotError> {
        self.limited = false;
        if self.restore_guarded()? {
            return Ok(());
        }
        let initial = self.image.initial();
        if broken::is(Broken::GrownTail) {
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

    /// Gives the pages that can be written their first content, if a guard has kept the others; `false` if
    /// there is none, or not any more.
    fn restore_guarded(&mut self) -> Result<bool, SlotError> {
        let Some(guard) = self.guard.take() else {
            return Ok(false);
        };
        if !guard.is_lifted() || broken::is(Broken::LiftedGuard) {
            let mut kept = std::mem::take(&mut self.kept);
            for (number, page) in kept.iter_mut().enumerate() {
                let skipped = number == 0 && broken::is(Broken::HotPage);
                let changed = !skipped && self.put_back(page.start);
                page.idle = if changed { 0 } else { page.idle + 1 };
            }
            let all_in_use = kept.iter().all(|page| page.idle <= IDLE_RESETS);
            self.kept = kept;
            if all_in_use {
                self.patience.stands();
                self.guard = Some(guard);
                return Ok(true);
            }
        }
        if !guard.lift() {
            return Err(SlotError::Map(Errno::NOMEM));
        }
        self.patience.lost();
        Ok(false)
    }

    /// Puts up a guard if the last resets have found the same pages.
    fn consider_guard(&mut self, same: bool) -> Result<(), SlotError> {
        if !self.guardable || !self.patience.found(same) {
            return Ok(());
        }
        let base = self.base.addr().get();
        let pages = self.kept.iter().map(|page| base + page.start);
        let pages = pages.map(|start| start..start + page_size());
        let memory = base..base + self.image.initial();
        // SAFETY: the memory is mapped and ours, and the pages that are kept lie in it: `same` says so.
        let guard = unsafe { Guard::new(memory, pages) }.map_err(SlotError::Map)?;
        self.guard = guard.map(Box::new);
        Ok(())
    }

    /// Gives every page of our own its first content, or drops it.
    fn restore(&mut self, pagemap: &Pagemap) -> Result<(), SlotError> {
        let base = self.base.addr().get();
        let mut own = std::mem::take(&mut self.own);
        own.clear();
        let mut looked = 0;
        while looked < self.touched {
            let pages: usize = own.iter().map(|own| own.range.len()).sum();
            let left = MOST_KEPT.saturating_sub(pages / page_size());
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
                let skipped = kept.is_empty() && broken::is(Broken::HotPage);
                let changed = !*swapped && start < self.current && !skipped && self.put_back(start);
                idle = if changed { 0 } else { idle + 1 };
                if *swapped || idle > IDLE_RESETS {
                    self.discard(unused.extend(start..start + page_size()))?;
                } else {
                    kept.push(Kept { start, idle });
                }
            }
        }
        self.discard(unused.last())?;
        // Whatever the kernel was not asked about, or had no answer to.
        self.discard(looked..self.touched)?;
        let touched = kept.last().map_or(0, |page| page.start + page_size());
        // Nothing was dropped either: a page that is would be missing.
        let same = looked >= self.touched
            && self.image.initial() > 0
            && touched <= self.image.initial()
            && kept.len() == before.len()
            && (kept.iter().zip(&before)).all(|(kept, before)| kept.start == before.start);
        self.touched = touched;
        (self.kept, self.before, self.own) = (kept, before, own);
        self.consider_guard(same)
    }

    /// Gives an accessible page its first content; `false` if it has it already.
    fn put_back(&mut self, start: usize) -> bool {
        // SAFETY: the page lies in the accessible part of the slot (`start` is a page of it that is
        // below `current`), which is ours alone: the instance that used it is gone.
        let page =
            unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(start), page_size()) };
        match self.image.page(start, page.len()) {
            Some(first) if *page == *first => false,
            Some(first) => {
                page.copy_from_slice(first);
                true
            }
            None if is_zero(page) => false,
            None => {
                page.fill(0);
                true
            }
        }
    }

    /// Drops our own pages of a range, so that the image or zeros show again.
    fn discard(&self, range: Range<usize>) -> Result<(), SlotError> {
        if range.is_empty() {
            return Ok(());
        }
        // SAFETY: pages of our own range; no reference into it is alive, as the instance that used
        // it is gone.
        unsafe {
            let start = self.base.as_ptr().add(range.start).cast();
            mm::madvise(start, range.len(), Advice::LinuxDontNeed)
        }
        .map_err(SlotError::Map)
    }
}

/// Joins ranges that are given one after the other to longer ones.
#[derive(Debug, Default)]
struct Discarded(Range<usize>);

impl Discarded {
    /// Takes a further range; returns what is complete without it.
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
    // Each byte is like the one before it.
    bytes
        .split_first()
        .is_none_or(|(first, rest)| *first == 0 && *rest == bytes[..rest.len()])
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the reservation is ours and nothing refers to it any more. Unmapping a whole
        // mapping of our own cannot fail.
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
        // SAFETY: nobody changes the file.
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
        // SAFETY: inside of the accessible part, and the borrow is the slot's.
        unsafe { &mut *slot.base().add(at) }
    }

    #[test]
    fn a_reset_slot_is_as_new() {
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
        // What was written stayed in the slot.
        let mut content = vec![0; WASM_PAGE];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut content, 0).unwrap();
        assert!(content.iter().all(|byte| *byte == 7));
    }

    /// Runs that write ever different pages, more of them than are kept, and grow: whatever happens
    /// to the pages, the next run sees the image.
    #[test]
    fn whatever_was_written_is_gone() {
        let initial = 40 * WASM_PAGE;
        let (image, _file) = image(initial, 7);
        let mut slot = Slot::new(&image).unwrap();
        let mut seed = 1u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for round in 0..90 {
            // Read everything now and then only, as reading changes what the kernel has.
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
            let pages = if round % 10 == 0 { 2 * MOST_KEPT } else { 30 };
            for _ in 0..pages {
                let at = random(slot.size());
                *byte(&mut slot, at) = 42;
            }
            slot.reset().unwrap();
            assert!(slot.kept.len() <= MOST_KEPT);
            assert!(slot.kept.iter().all(|page| page.idle <= IDLE_RESETS));
        }
    }

    /// A page that is written once and never again is given back, one that each run writes stays.
    #[test]
    fn pages_are_kept_as_long_as_they_are_written() {
        let (image, _file) = image(2 * WASM_PAGE, 7);
        let mut slot = Slot::new(&image).unwrap();
        *byte(&mut slot, page_size()) = 1;
        slot.reset().unwrap();
        if Pagemap::get().is_none() {
            assert!(slot.kept.is_empty(), "without knowledge nothing is kept");
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

    /// Runs that write the same page until there is a guard, which they leave standing.
    fn guarded(image: &Arc<MemoryImage>) -> Slot {
        let mut slot = Slot::new(image).unwrap();
        slot.permit_guard();
        for _ in 0..1000 {
            *byte(&mut slot, WASM_PAGE + page_size()) = 42;
            slot.reset().unwrap();
        }
        assert_eq!(slot.guard().is_some(), Pagemap::get().is_some());
        slot
    }

    #[test]
    fn where_the_same_pages_are_written_a_guard_keeps_the_others() {
        let (image, _file) = image(3 * WASM_PAGE, 7);
        let mut slot = guarded(&image);
        let Some(guard) = slot.guard() else { return };
        let first = slot.base.addr().get();
        let open = first + WASM_PAGE + page_size();
        assert!(guard.allow(open + 1..open + page_size()));
        assert!(guard.allow(first + image.initial()..first + RESERVATION));
        assert!(!guard.is_lifted(), "these are open, or not of the memory");
        for elsewhere in [0, first - 1, first + image.initial()] {
            assert!(!guard.let_pass(elsewhere), "{elsewhere:#x}");
        }
        assert!(guard.let_pass(first) && guard.is_lifted());
        assert!(!guard.let_pass(first), "a second fault has another cause");
        // It is written, and the next run sees the image.
        for at in (0..3 * WASM_PAGE).step_by(page_size()) {
            *byte(&mut slot, at) = 42;
        }
        slot.reset().unwrap();
        assert!(slot.guard().is_none());
        for at in 0..3 * WASM_PAGE {
            let expected = if at / WASM_PAGE == 1 { 7 } else { 0 };
            assert_eq!(*byte(&mut slot, at), expected, "{at:#x}");
        }
    }

    #[test]
    fn growth_lifts_a_guard() {
        let (image, _file) = image(3 * WASM_PAGE, 7);
        let mut slot = guarded(&image);
        assert!(slot.grow(WASM_PAGE, LARGEST));
        assert!(slot.guard().is_none_or(Guard::is_lifted));
        for at in [0, 3 * WASM_PAGE] {
            *byte(&mut slot, at) = 42;
        }
        slot.reset().unwrap();
        assert!(slot.guard().is_none());
        assert!(slot.grow(WASM_PAGE, LARGEST));
        for at in [0, 3 * WASM_PAGE] {
            assert_eq!(*byte(&mut slot, at), 0);
        }
    }

    /// A page that the runs do not write any more is given back, guard or not.
    #[test]
    fn a_guard_goes_with_the_pages_that_it_was_for() {
        let (image, _file) = image(3 * WASM_PAGE, 7);
        let mut slot = guarded(&image);
        for _ in 0..=IDLE_RESETS {
            slot.reset().unwrap();
        }
        assert!(slot.guard().is_none() && slot.kept.is_empty());
        *byte(&mut slot, 0) = 42;
    }

    #[test]
    fn a_slot_at_rest_has_two_mappings() {
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
    fn growth_keeps_to_the_limits() {
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
