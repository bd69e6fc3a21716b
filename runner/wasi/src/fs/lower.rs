//! A host directory, opened once, and the only access to it.
//!
//! Every path in this file is canonical: relative to the root, without `.`, `..` and empty components, and
//! without symlinks to follow. The kernel refuses anything else (openat2 with RESOLVE_BENEATH,
//! RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS), so a directory that is replaced by a symlink meanwhile
//! causes an error and is never a way out. `walk.rs` handles symlinks: it reads them and starts again
//! at the root. Where openat2 does not exist or is filtered, the path is opened component by component
//! with O_NOFOLLOW.
//!
//! A file is opened for data only after it is known to be a regular file or a directory: first with
//! O_PATH, which does not touch a device, then for data, and the two are compared. Files on pseudo file
//! systems are refused in between.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno as HostErrno;

use super::metadata::{Kind, Metadata};
use crate::errno::Errno;

/// A host directory that guests may see.
#[derive(Debug, Clone)]
pub struct Root {
    fd: Arc<OwnedFd>,
    /// Whether openat2 is unavailable.
    stepwise: bool,
}

/// A host directory that cannot become a [`Root`].
#[derive(Debug, thiserror::Error)]
#[error("cannot open the directory {}: {source}", path.display())]
pub struct RootError {
    /// The configured path.
    pub path: PathBuf,
    /// The error of the host.
    #[source]
    pub source: std::io::Error,
}

/// A host file that was inspected but not opened for data.
#[derive(Debug)]
pub(crate) struct Probe {
    fd: OwnedFd,
    pub(crate) metadata: Metadata,
}

/// A name in a host directory.
#[derive(Debug)]
pub(crate) struct LowerName {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
}

/// Magic numbers, from statfs(2) and linux/magic.h, of file systems that show kernel data instead of
/// files.
const PSEUDO_FILE_SYSTEMS: [u32; 22] = [
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x0000_1cd1, // devpts
    0x6265_6570, // configfs
    0xcafe_4a11, // bpf
    0x4249_4e4d, // binfmt_misc
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0xf97c_ff8c, // selinux
    0x4341_5d53, // smack
    0x5a3c_69f0, // apparmorfs
    0x6e73_6673, // nsfs
    0x1980_0202, // mqueue
    0x6573_5543, // fusectl
    0x6759_6969, // rpc_pipefs
    0x6e66_7364, // nfsd
    0x0765_5821, // resctrl
];

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Flags of every open for data: no terminal may become the controlling one, and opening must not block.
const DATA: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOCTTY)
    .union(OFlags::NONBLOCK);

impl Root {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    ///
    /// If it does not exist, is not a directory, or may not be searched.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RootError> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|errno| RootError {
                path: path.to_owned(),
                source: errno.into(),
            })?;
        let stepwise = matches!(
            rustix::fs::openat2(&fd, ".", LOOK, Mode::empty(), RESOLVE),
            Err(HostErrno::NOSYS | HostErrno::PERM)
        );
        Ok(Self {
            fd: Arc::new(fd),
            stepwise,
        })
    }

    /// As `open`, as if openat2 did not exist.
    #[cfg(test)]
    pub(crate) fn open_stepwise(path: impl AsRef<Path>) -> Result<Self, RootError> {
        Ok(Self {
            stepwise: true,
            ..Self::open(path)?
        })
    }

    /// Inspects the entry at `path` without following a symlink.
    ///
    /// ELOOP or ENOTDIR may mean that a component on the way is a symlink.
    pub(crate) fn probe(&self, path: &[u8]) -> Result<Probe, Errno> {
        let fd = self.open_at(path, LOOK, Mode::empty())?;
        let metadata = Metadata::from(&rustix::fs::fstat(&fd)?);
        if is_pseudo(&fd)? {
            return Err(Errno::Acces);
        }
        Ok(Probe { fd, metadata })
    }

    /// Opens the file inspected as `probe` for data. It must be a regular file or a directory.
    pub(crate) fn open_data(
        &self,
        path: &[u8],
        probe: &Probe,
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        if !matches!(probe.metadata.kind, Kind::RegularFile | Kind::Directory) {
            return Err(Errno::Acces);
        }
        let fd = self.open_at(path, DATA | flags, Mode::empty())?;
        let found = Metadata::from(&rustix::fs::fstat(&fd)?);
        if (found.device, found.inode) != (probe.metadata.device, probe.metadata.inode) {
            return Err(Errno::Stale);
        }
        Ok(fd)
    }

    /// The names in the directory at `path`, without `.` and `..`, in no particular order.
    pub(crate) fn list(&self, path: &[u8]) -> Result<Vec<LowerName>, Errno> {
        let probe = self.probe(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = rustix::fs::Dir::new(self.open_data(path, &probe, flags)?)?;
        let mut names = Vec::new();
        for entry in directory {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                rustix::fs::FileType::Unknown => kind_of(&probe.fd, name),
                kind => kind.into(),
            };
            names.push(LowerName {
                name: name.to_vec(),
                inode: entry.ino(),
                kind,
            });
        }
        Ok(names)
    }

    fn open_at(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, HostErrno> {
        let path = if path.is_empty() { b"." } else { path };
        if self.stepwise {
            return self.open_by_steps(path, flags, mode);
        }
        // EAGAIN means that a rename on the host raced with the walk. A few retries suffice, and a storm
        // of renames must not hold a guest forever.
        let mut attempts = 0..8;
        loop {
            match rustix::fs::openat2(&*self.fd, path, flags, mode, RESOLVE) {
                Err(HostErrno::AGAIN | HostErrno::INTR) if attempts.next().is_some() => {}
                result => return result,
            }
        }
    }

    fn open_by_steps(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, HostErrno> {
        let step = LOOK | OFlags::DIRECTORY;
        let mut above: Option<OwnedFd> = None;
        let mut rest = path;
        while let Some(slash) = rest.iter().position(|&byte| byte == b'/') {
            let at = above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            above = Some(rustix::fs::openat(at, &rest[..slash], step, Mode::empty())?);
            rest = &rest[slash + 1..];
        }
        let at = above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        rustix::fs::openat(at, rest, flags | OFlags::NOFOLLOW, mode)
    }
}

impl Probe {
    /// The target of a symlink.
    pub(crate) fn read_link(&self) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(&self.fd, "", Vec::new())?.into_bytes())
    }

    /// Returns the descriptor. Holding it keeps the inode from being reused.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The O_PATH descriptor.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

fn kind_of(directory: &OwnedFd, name: &[u8]) -> Kind {
    rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .map_or(Kind::Unknown, |stat| Metadata::from(&stat).kind)
}

fn is_pseudo(fd: &OwnedFd) -> Result<bool, HostErrno> {
    // Magic numbers have 32 bits; the field's width and sign differ between architectures.
    let magic = rustix::fs::fstatfs(fd)?.f_type as u32;
    Ok(PSEUDO_FILE_SYSTEMS.contains(&magic))
}
