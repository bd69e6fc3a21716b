//! Slots: reserved address space for linear memories, reused from run to run.
//!
//! Compiled code adds a 32-bit index and a 32-bit constant offset without a check, so a memory
//! must be followed by inaccessible space up to 8 GiB (plus the largest access), whatever its own
//! size. A slot reserves that once:
//!
//! ```text
//! base                     initial size              current size              8 GiB + 64 KiB
//! | image runs | zeros ...    | grown, zeros ...        | inaccessible ...              |
//! ```
//!
//! The runs of the memory image are private mappings of the artifact: they share clean pages with
//! everybody and copy a page when it is written. Resetting a slot drops all its private pages, so
//! that it shows the image and zeros again, and takes away what was grown.
//!
//! Unsafe here assumes that the artifact's file keeps its size and content while it is mapped.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use faas_wasm_artifact::ImageRun;
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};

/// Size of a page of WebAssembly memory in bytes.
pub(crate) const WASM_PAGE: usize = 65536;
/// Reserved address space of one memory: see the module's documentation.
const RESERVATION: usize = (8 << 30) + WASM_PAGE;
/// Largest linear memory in bytes.
const LARGEST: usize = 4 << 30;

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

/// One reserved linear memory.
#[derive(Debug)]
pub(crate) struct Slot {
    base: NonNull<u8>,
    initial: usize,
    current: usize,
    /// Whether the embedder's limit kept it from growing.
    limited: bool,
}

// SAFETY: a slot is the only owner of its address range.
unsafe impl Send for Slot {}

impl Slot {
    /// Reserves a slot for a memory of `initial` bytes and maps its image.
    ///
    /// # Errors
    ///
    /// [`SlotError`] if the system refuses.
    pub(crate) fn new(
        initial: usize,
        image: &[ImageRun],
        artifact: BorrowedFd<'_>,
    ) -> Result<Self, SlotError> {
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
            initial,
            current: initial,
            limited: false,
        };
        if initial > 0 {
            slot.protect(0, initial, MprotectFlags::READ | MprotectFlags::WRITE)?;
        }
        for run in image {
            // SAFETY: the run lies inside the initial memory (`Artifact::parse`), so the fixed
            // mapping replaces only pages of our own reservation.
            unsafe {
                mm::mmap(
                    base.as_ptr().add(run.address as usize).cast(),
                    run.bytes.length as usize,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::FIXED,
                    artifact,
                    run.bytes.offset,
                )
            }
            .map_err(SlotError::Map)?;
        }
        Ok(slot)
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
        if self.current > 0 {
            // SAFETY: drops private pages of our own range; no reference into it is alive, as the
            // instance that used it is gone.
            unsafe {
                mm::madvise(
                    self.base.as_ptr().cast(),
                    self.current,
                    Advice::LinuxDontNeed,
                )
            }
            .map_err(SlotError::Map)?;
        }
        if self.current > self.initial {
            let grown = self.current - self.initial;
            self.protect(self.initial, grown, MprotectFlags::empty())?;
            self.current = self.initial;
        }
        Ok(())
    }
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
    use std::os::fd::AsFd as _;

    use faas_wasm_artifact::Range;
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// A file of one page of WebAssembly memory full of `byte`, as an artifact's image.
    fn image(byte: u8) -> (std::fs::File, Vec<ImageRun>) {
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
        (file, vec![run])
    }

    fn byte(slot: &mut Slot, at: usize) -> &mut u8 {
        assert!(at < slot.size());
        // SAFETY: inside of the accessible part, and the borrow is the slot's.
        unsafe { &mut *slot.base().add(at) }
    }

    #[test]
    fn a_reset_slot_is_as_new() {
        let (file, runs) = image(7);
        let mut slot = Slot::new(3 * WASM_PAGE, &runs, file.as_fd()).unwrap();
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

    #[test]
    fn growth_keeps_to_the_limits() {
        let (file, _) = image(0);
        let mut slot = Slot::new(0, &[], file.as_fd()).unwrap();
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
