//! Waits until a file has new content.
//!
//! Its directory is watched, not the file: compilers write a new file and rename it. What counts is
//! that somebody has closed a file of this name after writing it, or given one this name: by a
//! rename, or by a second link, as cargo does.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;

/// Bytes of events that are read at once.
const BUFFER: usize = 4096;

/// A file that is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    events: OwnedFd,
    /// Without links in it.
    path: PathBuf,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        // Of a link the directory that it leads to.
        let path = path.canonicalize()?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let events = inotify::init(flags)?;
        let wanted = inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CREATE;
        inotify::add_watch(&events, directory, wanted)?;
        Ok(Self { events, path })
    }

    /// Readable when something has happened.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes all events; tells whether one was about the file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn take(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.events, &mut buffer);
        let mut changed = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event
                        .file_name()
                        .map(|name| OsStr::from_bytes(name.to_bytes()));
                    let events = event.events();
                    // Lost events may have been about the file.
                    let lost = events.contains(inotify::ReadFlags::QUEUE_OVERFLOW);
                    let is_whole =
                        !events.contains(inotify::ReadFlags::CREATE) || is_link(&self.path);
                    changed |= lost || (is_whole && name == self.path.file_name());
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(changed),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether a file that has just appeared is another name for one that was there.
fn is_link(path: &Path) -> bool {
    let metadata = path.symlink_metadata();
    metadata.is_ok_and(|found| found.is_symlink() || found.nlink() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_writers_that_are_done_and_new_names() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.wasm");
        std::fs::write(&path, "one").expect("it can be written");
        let watch = Watch::new(&path).expect("it can be watched");
        assert!(!watch.take().expect("it can be read"));
        let file = std::fs::File::create(&path).expect("it can be opened");
        assert!(!watch.take().expect("it can be read"), "it is still open");
        drop(file);
        assert!(watch.take().expect("it can be read"));
        let other = directory.path().join("b.wasm");
        std::fs::write(&other, "two").expect("it can be written");
        assert!(!watch.take().expect("it can be read"), "another file");
        std::fs::rename(&other, &path).expect("it can be renamed");
        assert!(watch.take().expect("it can be read"));
        std::fs::write(&other, "three").expect("it can be written");
        std::fs::remove_file(&path).expect("it is there");
        assert!(!watch.take().expect("it can be read"), "it is gone");
        std::fs::hard_link(&other, &path).expect("it can be linked");
        assert!(watch.take().expect("it can be read"));
        std::fs::remove_file(&path).expect("it is there");
        let file = std::fs::File::create(&path).expect("it can be made");
        assert!(!watch.take().expect("it can be read"), "it is empty yet");
        drop(file);
        assert!(watch.take().expect("it can be read"));
    }
}
