//! Writes a file so that it appears complete or not at all: beside its name, synced, renamed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::temporary::{TemporaryFile, directory};

/// What others take for standard output.
const STDOUT: &str = "-";

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
        if path == Path::new(STDOUT) {
            return Err(Error::OutputIsStdout);
        }
        let target = match path.metadata() {
            Ok(found) if found.is_dir() => {
                return Err(Error::OutputIsDirectory { path: path.into() });
            }
            Ok(found) if !found.is_file() => {
                return Err(Error::NotFile { path: path.into() });
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
            Err(error) if error.kind() == ErrorKind::NotFound => match path.read_link() {
                // It leads nowhere yet.
                Ok(link) => directory(path).join(link),
                Err(_) => path.to_owned(),
            },
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
        TemporaryFile::beside(&output.target).map_err(write_error)?;
        Ok(output)
    }

    /// Requires that another output is another file.
    ///
    /// # Errors
    ///
    /// [`Error::OutputTwice`].
    pub(crate) fn differs_from(&self, other: &Self) -> Result<(), Error> {
        let place = |output: &Self| {
            let directory = directory(&output.target).canonicalize().ok();
            (directory, output.target.file_name().map(ToOwned::to_owned))
        };
        if place(self) == place(other) {
            return Err(Error::OutputTwice {
                path: self.path.clone(),
            });
        }
        Ok(())
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
        let temporary = TemporaryFile::beside(&self.target)?;
        write(&temporary.file)?;
        temporary.file.sync_all()?;
        temporary.rename(&self.target)?;
        // Without this the name may be lost when the machine stops; the content would not be.
        File::open(directory(&self.target))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

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
        std::fs::remove_file(&file).expect("it is there");
        let output = Output::prepare(&link, Path::new("a.wasm")).expect("it can be written");
        output
            .save(|mut file| file.write_all(b"newer"))
            .expect("it can be written");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).expect("it is there"), b"newer");
        let same = Output::prepare(&file, Path::new("a.wasm")).expect("it can be written");
        let twice = same.differs_from(&output);
        assert!(matches!(twice, Err(Error::OutputTwice { .. })), "{twice:?}");
    }

    #[test]
    fn rejects_places_that_cannot_be_written() {
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
            Error::NotFile { .. }
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
