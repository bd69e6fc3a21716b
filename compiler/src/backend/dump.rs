//! What the LLVM backend writes to files where a user wants to look at its work (`--emit`).
//!
//! It writes objects, intermediate code and assembly of each function; of these all but one kind are
//! removed as soon as they appear: together they take many times the place.

use std::collections::HashSet;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::emit::Emit;
use crate::temporary::TemporaryDirectory;

/// Time between two sweeps for files that nobody wants.
const SWEEP: Duration = Duration::from_millis(100);

/// A directory that the backend writes to.
#[derive(Debug)]
pub(super) struct Dump {
    directory: TemporaryDirectory,
    wanted: Emit,
    sweeper: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Dump {
    /// Creates it, for files of one kind.
    pub(super) fn new(wanted: Emit) -> io::Result<Self> {
        let directory = TemporaryDirectory::new()?;
        let (end, ended) = channel::<()>();
        let path = directory.path().to_owned();
        let thread = std::thread::Builder::new().spawn(move || {
            while ended.recv_timeout(SWEEP) == Err(RecvTimeoutError::Timeout) {
                // A file that is being written can be removed: its writer does not notice.
                for path in files(&path).unwrap_or_default() {
                    if !is_kind(&path, wanted) {
                        let _ = std::fs::remove_file(path);
                    }
                }
            }
        })?;
        Ok(Self {
            directory,
            wanted,
            sweeper: Some((end, thread)),
        })
    }

    #[cfg_attr(
        not(feature = "llvm"),
        allow(dead_code, reason = "only LLVM writes to it")
    )]
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Copies the files that are wanted to a directory.
    pub(super) fn save(&self, to: &Path) -> io::Result<()> {
        std::fs::create_dir_all(to)?;
        for path in files(self.directory.path())? {
            if let Some(name) = path.file_name().filter(|_| is_kind(&path, self.wanted)) {
                std::fs::copy(&path, to.join(name))?;
            }
        }
        Ok(())
    }
}

/// The threads to compile a module with that is dumped.
///
/// One where several types are equal, which compilers never do: their trampolines are one file, and
/// threads must not write it at the same time.
pub(super) fn jobs(wasm: &[u8], jobs: NonZero<usize>) -> NonZero<usize> {
    let payloads = wasmparser::Parser::new(0).parse_all(wasm);
    let mut types = payloads.filter_map(|payload| match payload {
        Ok(wasmparser::Payload::TypeSection(types)) => Some(types),
        _ => None,
    });
    let mut seen = HashSet::new();
    let distinct = types.next().is_none_or(|types| {
        let mut groups = types.into_iter().flatten();
        groups.all(|group| group.types().all(|ty| seen.insert(format!("{ty}"))))
    });
    if distinct {
        jobs
    } else {
        NonZero::<usize>::MIN
    }
}

fn is_kind(path: &Path, kind: Emit) -> bool {
    path.to_string_lossy().ends_with(kind.suffix())
}

/// All files in a directory and those below it, in no order.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let list = if kind.is_dir() {
                &mut directories
            } else {
                &mut found
            };
            list.push(entry.path());
        }
    }
    Ok(found)
}

impl Drop for Dump {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.sweeper.take() {
            drop(end);
            // It cannot panic; and if it did, there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}
