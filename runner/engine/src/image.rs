//! The initial content of a linear memory, and how it is mapped into slots.
//!
//! ```text
//! memory     | zeros   | run            | zeros | run    | zeros      |
//! artifact             ^ private mapping        ^ private mapping
//! whole      | a sparse file in memory with the same content          |
//! ```
//!
//! The runs of the image are in the artifact and can be mapped from there, with anonymous memory
//! between them. Nothing is copied, and all processes that serve the artifact share clean pages.
//! But the kernel limits the mappings of a process (65,530 by default), and each piece takes one. So
//! a memory that is small or has many instances is mapped from a **whole image**: a sealed file in
//! memory, made once per module. A slot then has two mappings: its memory and the inaccessible rest.
//!
//! Unsafe code here assumes what [`crate::Module::load`] requires: the artifact does not change.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use faas_wasm_artifact::ImageRun;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};

use crate::map::FileMapping;

/// Images up to this size in bytes get a whole image with their first slot.
const SMALL: usize = 1 << 20;
/// Larger images get a whole image from this number of slots on.
const MANY: usize = 64;
/// Memories beyond this size never get a whole image: pages that guests write would be held twice.
const LARGEST_WHOLE: usize = 64 << 20;

/// A run of the image.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// First byte in the memory.
    start: usize,
    length: usize,
    /// First byte in the artifact.
    offset: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct MemoryImage {
    initial: usize,
    runs: Box<[Run]>,
    artifact: Arc<FileMapping>,
    whole: OnceLock<Option<File>>,
    slots: AtomicUsize,
}

impl MemoryImage {
    /// Creates the image of a memory of `initial` bytes. `Artifact::parse` has checked that the runs are
    /// inside the memory and the artifact and page-aligned.
    pub(crate) fn new<'a>(
        initial: usize,
        runs: impl Iterator<Item = &'a ImageRun>,
        artifact: &Arc<FileMapping>,
    ) -> Self {
        let runs = runs.map(|run| Run {
            start: run.address as usize,
            length: run.bytes.length as usize,
            offset: run.bytes.offset as usize,
        });
        Self {
            initial,
            runs: runs.collect(),
            artifact: Arc::clone(artifact),
            whole: OnceLock::new(),
            slots: AtomicUsize::new(0),
        }
    }

    /// Initial size of the memory in bytes.
    pub(crate) fn initial(&self) -> usize {
        self.initial
    }

    /// The initial content of a page, or `None` if it is zero.
    pub(crate) fn page(&self, start: usize, length: usize) -> Option<&[u8]> {
        let holds = |run: &&Run| start >= run.start && start + length <= run.start + run.length;
        // Where runs overlap, the last one was mapped over the others.
        let run = self.runs.iter().rfind(holds)?;
        let offset = run.offset + (start - run.start);
        self.artifact.bytes().get(offset..offset + length)
    }

    /// Maps the initial memory, writable and private.
    ///
    /// # Errors
    ///
    /// The error of `mmap` or `mprotect`. Part of the image may be mapped then.
    ///
    /// # Safety
    ///
    /// `base` must point to a mapping of at least the initial size that is exclusively the caller's.
    pub(crate) unsafe fn map(&self, base: NonNull<u8>) -> Result<(), Errno> {
        if self.initial == 0 {
            return Ok(());
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        if let Some(whole) = self.whole() {
            // SAFETY: replaces only pages that the caller owns. The file has this length, and its seals
            // preserve it.
            unsafe {
                mm::mmap(
                    base.as_ptr().cast(),
                    self.initial,
                    access,
                    flags,
                    whole.as_fd(),
                    0,
                )?
            };
            return Ok(());
        }
        // SAFETY: as above.
        unsafe {
            let access = MprotectFlags::READ | MprotectFlags::WRITE;
            mm::mprotect(base.as_ptr().cast(), self.initial, access)?;
        }
        for run in &self.runs {
            // SAFETY: the run is inside the initial memory, so only pages that the caller owns are
            // replaced, and inside the artifact, which does not change.
            unsafe {
                let start = base.as_ptr().add(run.start).cast();
                let artifact = self.artifact.fd();
                mm::mmap(
                    start,
                    run.length,
                    access,
                    flags,
                    artifact,
                    run.offset as u64,
                )?;
            }
        }
        Ok(())
    }

    /// The whole image, if it is worth its memory.
    fn whole(&self) -> Option<&File> {
        let slots = self.slots.fetch_add(1, Relaxed);
        let bytes: usize = self.runs.iter().map(|run| run.length).sum();
        let in_pieces = match &*self.runs {
            [] => false,
            [run] => run.length != self.initial,
            _ => true,
        };
        let wanted = in_pieces
            && self.initial <= LARGEST_WHOLE
            && (bytes <= SMALL && self.initial <= SMALL * 16 || slots >= MANY);
        if !wanted {
            return None;
        }
        // If the system refuses such a file, the image is mapped in pieces.
        let whole = self.whole.get_or_init(|| self.make_whole().ok());
        whole.as_ref()
    }

    fn make_whole(&self) -> std::io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("faas-wasm-image", flags)?);
        file.set_len(self.initial as u64)?;
        for run in &self.runs {
            let bytes = self
                .artifact
                .bytes()
                .get(run.offset..run.offset + run.length);
            let bytes = bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            file.write_all_at(bytes, run.start as u64)?;
        }
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, seals)?;
        Ok(file)
    }
}
