//! Writes a file so that it appears complete or not at all: beside its name, synced, renamed.
//!
//! The temporary file is removed on every failure and on SIGINT, SIGTERM and SIGHUP.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::error::Error;

/// Mode of the file before the umask.
const MODE: u32 = 0o644;
/// Names to try; each is random, so that more than one is hardly ever needed.
const ATTEMPTS: u32 = 16;

/// The temporary file that exists now, for the signal thread.
static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A place to write to, checked.
#[derive(Debug)]
pub(crate) struct Output {
    /// As the user wrote it.
    path: PathBuf,
    /// With symbolic links followed, so that the rename replaces the file and not the link.
    target: PathBuf,
}

impl Output {
    /// Checks that `path` can be written, before any time is spent on its content.
    ///
    /// # Errors
    ///
    /// What stands in the way.
    pub(crate) fn prepare(path: &Path, input: &Path) -> Result<Self, Error> {
        let write_error = |source| Error::Write {
            path: path.into(),
            source,
        };
        let target = match path.metadata() {
            Ok(found) if found.is_dir() => {
                return Err(Error::OutputIsDirectory { path: path.into() });
            }
            Ok(found) if !found.is_file() => {
                return Err(Error::OutputNotFile { path: path.into() });
            }
            Ok(found) => {
                let same = |input: std::fs::Metadata| {
                    (input.dev(), input.ino()) == (found.dev(), found.ino())
                };
                if input.metadata().is_ok_and(same) {
                    return Err(Error::OutputIsInput { path: path.into() });
                }
                path.canonicalize().map_err(write_error)?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(write_error(error)),
        };
        if target.file_name().is_none() {
            return Err(Error::OutputIsDirectory { path: path.into() });
        }
        let output = Self {
            path: path.into(),
            target,
        };
        // Only a try tells whether a file can be made there.
        Temporary::create(&output.target).map_err(write_error)?;
        Ok(output)
    }

    /// The path as the user wrote it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file with `write` and gives it its name.
    ///
    /// # Errors
    ///
    /// What the file system says. The file, or what was there before, is untouched then.
    pub(crate) fn save(&self, write: impl FnOnce(&File) -> io::Result<()>) -> Result<(), Error> {
        self.try_save(write).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn try_save(&self, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let temporary = Temporary::create(&self.target)?;
        write(&temporary.file)?;
        temporary.file.sync_all()?;
        temporary.rename(&self.target)?;
        // Without this the name may be lost when the machine stops; the content would not be.
        File::open(directory(&self.target))?.sync_all()
    }
}

/// A file beside the target that removes itself.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(target: &Path) -> io::Result<Self> {
        remove_on_signals();
        let mut name = target.file_name().unwrap_or_default().to_owned();
        // Names have at most 255 bytes on Linux; a long one would fail with its suffix.
        if name.len() > 200 {
            name = "faas-wasm".into();
        }
        for _ in 0..ATTEMPTS {
            // The hasher's keys are random.
            let random = RandomState::new().build_hasher().finish();
            let mut file_name = std::ffi::OsString::from(".");
            file_name.push(&name);
            file_name.push(format!(".{random:016x}.tmp"));
            let path = directory(target).join(file_name);
            let mut temporary = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(MODE)
                .open(&path);
            match file {
                Ok(file) => {
                    *temporary = Some(path.clone());
                    return Ok(Self { path, file });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Gives the file its name; from then on it is not temporary.
    fn rename(mut self, target: &Path) -> io::Result<()> {
        let mut temporary = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::rename(&self.path, target)?;
        *temporary = None;
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        let mut temporary = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing more can be done about a file that cannot be removed; the error that led here
        // is told.
        let _ = std::fs::remove_file(&self.path);
        if temporary.as_ref() == Some(&self.path) {
            *temporary = None;
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Starts, once, the thread that waits for signals. A process that cannot start one still works:
/// it only leaves a file behind when it is stopped in the middle of writing.
fn remove_on_signals() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        std::thread::spawn(move || {
            for signal in signals.forever() {
                // The lock is held until the process ends, so that no new file appears.
                let mut temporary = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(path) = temporary.take() {
                    let _ = std::fs::remove_file(path);
                }
                let _ = emulate_default_handler(signal);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    // One test at a time: they share TEMPORARY, as calls of the program never do.
    static ALONE: Mutex<()> = Mutex::new(());

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(directory)
            .expect("the directory is there")
            .map(|entry| {
                entry
                    .expect("it can be read")
                    .file_name()
                    .to_string_lossy()
                    .into()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn failure_leaves_the_old_file_and_nothing_else() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.so");
        std::fs::write(&path, "old").expect("it can be written");
        let output = Output::prepare(&path, Path::new("a.wasm")).expect("it can be written");
        assert_eq!(names(directory.path()), ["a.so"]);
        let result = output.save(|mut file| {
            file.write_all(b"half")?;
            assert_eq!(names(directory.path()).len(), 2);
            Err(ErrorKind::StorageFull.into())
        });
        assert!(matches!(result, Err(Error::Write { .. })), "{result:?}");
        assert_eq!(names(directory.path()), ["a.so"]);
        assert_eq!(std::fs::read(&path).expect("it is there"), b"old");
        output
            .save(|mut file| file.write_all(b"new"))
            .expect("it can be written");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"new");
        assert_eq!(names(directory.path()), ["a.so"]);
    }

    #[test]
    fn links_are_followed() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("f"), directory.path().join("l"));
        std::fs::write(&file, "old").expect("it can be written");
        std::os::unix::fs::symlink("f", &link).expect("a link");
        let output = Output::prepare(&link, Path::new("a.wasm")).expect("it can be written");
        output
            .save(|mut file| file.write_all(b"new"))
            .expect("it can be written");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).expect("it is there"), b"new");
    }

    #[test]
    fn rejects_places_that_cannot_be_written() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("a directory");
        let input = directory.path().join("a.wasm");
        std::fs::write(&input, "wasm").expect("it can be written");
        let prepare =
            |path: &Path| Output::prepare(path, &input).expect_err("it cannot be written");
        assert!(matches!(
            prepare(directory.path()),
            Error::OutputIsDirectory { .. }
        ));
        assert!(matches!(
            prepare(Path::new("..")),
            Error::OutputIsDirectory { .. }
        ));
        assert!(matches!(
            prepare(Path::new("/dev/null")),
            Error::OutputNotFile { .. }
        ));
        assert!(matches!(prepare(&input), Error::OutputIsInput { .. }));
        assert!(matches!(
            prepare(&directory.path().join("missing/a.so")),
            Error::Write { .. }
        ));
        assert!(matches!(prepare(&input.join("a.so")), Error::Write { .. }));
        assert_eq!(names(directory.path()), ["a.wasm"]);
    }
}
