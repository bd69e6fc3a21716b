//! Metadata of files.

use rustix::fs::{FileType, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

/// Nanoseconds since 1970. Earlier times are 0, because preview1 has no negative times.
pub(crate) type Nanoseconds = u64;

/// The file types of preview1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Unknown = 0,
    BlockDevice = 1,
    CharacterDevice = 2,
    Directory = 3,
    RegularFile = 4,
    SocketStream = 6,
    SymbolicLink = 7,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::RegularFile,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::SymbolicLink,
            FileType::CharacterDevice => Self::CharacterDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Socket => Self::SocketStream,
            FileType::Fifo | FileType::Unknown => Self::Unknown,
        }
    }
}

/// The result of a filestat call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
    pub(crate) links: u64,
    pub(crate) size: u64,
    pub(crate) times: Times,
}

/// The times of the last read, the last write, and the last change of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Times {
    pub(crate) accessed: Nanoseconds,
    pub(crate) modified: Nanoseconds,
    pub(crate) changed: Nanoseconds,
}

impl Times {
    pub(crate) fn all(now: Nanoseconds) -> Self {
        Self {
            accessed: now,
            modified: now,
            changed: now,
        }
    }
}

/// A change of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewTime {
    Keep,
    Now,
    At(Nanoseconds),
}

/// The current time of the realtime clock.
pub(crate) fn now() -> Nanoseconds {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    nanoseconds(now.tv_sec, now.tv_nsec)
}

// The types of the fields of the host's structures differ between architectures.
#[allow(clippy::unnecessary_cast)]
impl From<&Stat> for Metadata {
    fn from(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            kind: FileType::from_raw_mode(stat.st_mode).into(),
            links: stat.st_nlink as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            times: Times {
                accessed: nanoseconds(stat.st_atime as i64, stat.st_atime_nsec as i64),
                modified: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
                changed: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            },
        }
    }
}

pub(crate) fn nanoseconds(seconds: i64, nanoseconds: i64) -> Nanoseconds {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    u64::try_from(total.max(0)).unwrap_or(u64::MAX)
}

/// The changes of times in the form of `utimensat(2)`.
pub(super) fn timestamps(accessed: NewTime, modified: NewTime) -> Timestamps {
    let time = |new| {
        let (tv_sec, tv_nsec) = match new {
            NewTime::Keep => (0, UTIME_OMIT as _),
            NewTime::Now => (0, UTIME_NOW as _),
            NewTime::At(at) => ((at / 1_000_000_000) as i64, (at % 1_000_000_000) as _),
        };
        Timespec { tv_sec, tv_nsec }
    };
    Timestamps {
        last_access: time(accessed),
        last_modification: time(modified),
    }
}
