//! Changes in trees that write through: changes of the host's files, under the same confinement.
//!
//! Every call names a directory by its canonical path and one component in it, which is never `.` or
//! `..` and is never followed if it is a symlink. Descriptors of directories hold paths in these trees:
//! after another instance or the host has moved a directory, they return ENOENT.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::change::Moved;
use super::entry::{At, Dir, LowerFile};
use super::lower::Probe;
use super::metadata::{Kind, NewTime, timestamps};
use super::open::{OpenOptions, direct_flags};
use super::path::{push_component, truncate_to_parent};
use super::tree::FileSystem;
use crate::errno::Errno;

/// A component of a path, and its directory.
type Place<'a> = (&'a Dir, &'a [u8]);

impl FileSystem {
    fn direct_parent(&self, dir: &Dir) -> Result<Probe, Errno> {
        let At::Lower(path) = &dir.at else {
            return Err(Errno::Io);
        };
        let probe = self.tree(dir.tree).root.probe(path)?;
        match probe.metadata.kind {
            Kind::Directory => Ok(probe),
            _ => Err(Errno::Notdir),
        }
    }

    pub(super) fn create_direct(
        &self,
        parent: &Dir,
        name: &[u8],
        options: OpenOptions,
    ) -> Result<OwnedFd, Errno> {
        let parent = self.direct_parent(parent)?;
        // EXCL: another program may create a device or a symlink there meanwhile.
        let flags = direct_flags(options) | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(
            parent.fd(),
            name,
            flags,
            Mode::from_raw_mode(0o666),
        )?)
    }

    pub(super) fn create_directory_direct(&self, parent: &Dir, name: &[u8]) -> Result<(), Errno> {
        let parent = self.direct_parent(parent)?;
        Ok(rustix::fs::mkdirat(
            parent.fd(),
            name,
            Mode::from_raw_mode(0o777),
        )?)
    }

    pub(super) fn symlink_direct(
        &self,
        content: &[u8],
        parent: &Dir,
        name: &[u8],
    ) -> Result<(), Errno> {
        let parent = self.direct_parent(parent)?;
        Ok(rustix::fs::symlinkat(content, parent.fd(), name)?)
    }

    pub(super) fn hard_link_direct(&self, from: Place<'_>, to: Place<'_>) -> Result<(), Errno> {
        let (old, new) = (self.direct_parent(from.0)?, self.direct_parent(to.0)?);
        let flags = AtFlags::empty();
        Ok(rustix::fs::linkat(old.fd(), from.1, new.fd(), to.1, flags)?)
    }

    pub(super) fn unlink_direct(&self, parent: &Dir, name: &[u8]) -> Result<(), Errno> {
        let parent = self.direct_parent(parent)?;
        Ok(rustix::fs::unlinkat(parent.fd(), name, AtFlags::empty())?)
    }

    pub(super) fn remove_directory_direct(&self, parent: &Dir, name: &[u8]) -> Result<(), Errno> {
        let parent = self.direct_parent(parent)?;
        Ok(rustix::fs::unlinkat(parent.fd(), name, AtFlags::REMOVEDIR)?)
    }

    pub(super) fn rename_direct(&self, from: Place<'_>, to: Place<'_>) -> Result<Moved, Errno> {
        let (old, new) = (self.direct_parent(from.0)?, self.direct_parent(to.0)?);
        rustix::fs::renameat(old.fd(), from.1, new.fd(), to.1)?;
        let path = |(dir, name): Place<'_>| {
            let mut path = match &dir.at {
                At::Lower(path) => path.clone(),
                At::Upper(_) => Vec::new(),
            };
            push_component(&mut path, name);
            path
        };
        Ok(Moved {
            tree: from.0.tree,
            from: path(from),
            to: path(to),
        })
    }

    /// Sets the times of a file, directory or symlink, without following a symlink.
    pub(super) fn set_direct_times(
        &self,
        file: &LowerFile,
        accessed: NewTime,
        modified: NewTime,
    ) -> Result<(), Errno> {
        let times = timestamps(accessed, modified);
        let mut path = file.path.clone();
        let name = truncate_to_parent(&mut path);
        let parent = self.direct_parent(&Dir {
            tree: file.tree,
            at: At::Lower(path),
        })?;
        let name: &[u8] = if name.is_empty() { b"." } else { &name };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(parent.fd(), name, &times, flags)?)
    }
}
