//! The health state: whether the runner accepts requests, and the lock file that must exist while it does.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Health of the runner. Healthy means accepting *and* the lock file exists at the moment of the question.
#[derive(Debug)]
pub struct Health {
    accepting: AtomicBool,
    lock_file: PathBuf,
}

impl Health {
    /// Not accepting yet.
    #[must_use]
    pub fn new(lock_file: PathBuf) -> Self {
        Self {
            accepting: AtomicBool::new(false),
            lock_file,
        }
    }

    /// Where the lock file is.
    #[must_use]
    pub fn lock_file(&self) -> &Path {
        &self.lock_file
    }

    /// Creates or empties the lock file, and its directory if it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_lock_file(&self) -> io::Result<()> {
        if let Some(directory) = self.lock_file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o660)
            .open(&self.lock_file)
            .map(drop)
    }

    /// From now on requests are accepted.
    pub fn accept(&self) {
        self.accepting.store(true, Ordering::Relaxed);
    }

    /// From now on the probes fail; removes the lock file.
    ///
    /// # Errors
    /// If the file could not be removed, as when it never was there.
    pub fn retire(&self) -> io::Result<()> {
        self.accepting.store(false, Ordering::Relaxed);
        std::fs::remove_file(&self.lock_file)
    }

    /// Whether the probes may succeed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.accepting.load(Ordering::Relaxed) && self.lock_file.exists()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn follows_the_lock_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let health = Health::new(directory.path().join("a/b/.lock"));
        health.write_lock_file().expect("directories are made");
        assert!(!health.is_healthy(), "not accepting");
        health.accept();
        assert!(health.is_healthy());
        let mode = std::fs::metadata(health.lock_file())
            .expect("exists")
            .permissions()
            .mode();
        assert_eq!(mode & 0o607, 0o600 & mode, "no rights for others");

        std::fs::remove_file(health.lock_file()).expect("removed");
        assert!(!health.is_healthy());
        std::fs::write(health.lock_file(), "").expect("written");
        assert!(health.is_healthy());

        health.retire().expect("removes the file");
        assert!(!health.lock_file().exists());
        assert!(
            health.retire().is_err(),
            "a second time there is nothing to remove"
        );
    }
}
