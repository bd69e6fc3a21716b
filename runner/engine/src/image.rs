//! The content with which a linear memory begins, and how it is mapped into slots.
//!
//! ```text
//! memory     | zeros   | run            | zeros | run    | zeros      |
//! artifact             ^ private mapping        ^ private mapping
//! whole      | a sparse file in memory with the same content          |
//! ```
//!
//! The runs of the image lie in the artifact and can be mapped from there, with anonymous memory
//! between them: nothing is copied, and all processes that serve the artifact share clean pages.
//! But a process may have only so many mappings (65 530 by default), and that takes one for each
//! piece. So a memory that is small, or of which there are many instances, is mapped as a whole
//! from a **whole image**: a sealed file in memory that is made once a module. A slot then has two
//! mappings: its memory and the inaccessible rest.
//!
//! Unsafe here assumes what [`crate::Module::load`] asks for: the artifact stays as it is.

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

/// Image bytes up to which the whole image is made for the first slot.
const SMALL: usize = 1 << 20;
/// Slots from which on it is made for a larger one.
const MANY: usize = 64;
/// Memory beyond which it is never made: pages that guests write would be held twice.
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
    /// The image of a memory of `initial` bytes. The runs lie in the memory and in the artifact
    /// (`Artifact::parse`), and are aligned to pages there.
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

    /// Bytes of the memory when an instance begins.
    pub(crate) fn initial(&self) -> usize {
        self.initial
    }

    /// What stands at this place of the initial memory; `None` for zeros. The answer holds for the
    /// whole page.
    pub(crate) fn page(&self, start: usize, length: usize) -> Option<&[u8]> {
        let holds = |run: &&Run| start >= run.start && start + length <= run.start + run.length;
        // Where runs overlap the last one was mapped over the others.
        let run = self.runs.iter().rfind(holds)?;
        let offset = run.offset + (start - run.start);
        self.artifact.bytes().get(offset..offset + length)
    }

    /// Maps the initial memory, writable and private.
    ///
    /// # Errors
    ///
    /// What the system says; a part may be mapped by then.
    ///
    /// # Safety
    ///
    /// At `base` there must be a mapping of at least the initial size that is the caller's alone.
    pub(crate) unsafe fn map(&self, base: NonNull<u8>) -> Result<(), Errno> {
        if self.initial == 0 {
            return Ok(());
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        if let Some(whole) = self.whole() {
            // SAFETY: replaces only pages that the caller gives us; the file has this length, and
            // its seals keep it so.
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
            // SAFETY: the run lies in the initial memory, so that only pages which the caller gives
            // us are replaced, and in the artifact, which stays as it is.
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

    /// The whole image, if it is worth having.
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
        // Where the system has no such files, pieces it is.
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
