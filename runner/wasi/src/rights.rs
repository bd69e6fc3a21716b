//! Rights of descriptors, and their flags.
//!
//! A descriptor's rights can only shrink (`fd_fdstat_set_rights`), and a file opened through a directory
//! has at most that directory's inheriting rights. Within these bounds, opening grants all rights that
//! apply to the kind of file, as wasmtime does: of the rights passed to `path_open`, only reading and
//! writing count.

/// A set of rights.
pub(crate) type Rights = u64;

pub(crate) const FD_DATASYNC: Rights = 1 << 0;
pub(crate) const FD_READ: Rights = 1 << 1;
pub(crate) const FD_SEEK: Rights = 1 << 2;
pub(crate) const FD_FDSTAT_SET_FLAGS: Rights = 1 << 3;
pub(crate) const FD_SYNC: Rights = 1 << 4;
pub(crate) const FD_TELL: Rights = 1 << 5;
pub(crate) const FD_WRITE: Rights = 1 << 6;
pub(crate) const FD_ADVISE: Rights = 1 << 7;
pub(crate) const FD_ALLOCATE: Rights = 1 << 8;
pub(crate) const PATH_CREATE_DIRECTORY: Rights = 1 << 9;
pub(crate) const PATH_CREATE_FILE: Rights = 1 << 10;
pub(crate) const PATH_LINK_SOURCE: Rights = 1 << 11;
pub(crate) const PATH_LINK_TARGET: Rights = 1 << 12;
pub(crate) const PATH_OPEN: Rights = 1 << 13;
pub(crate) const FD_READDIR: Rights = 1 << 14;
pub(crate) const PATH_READLINK: Rights = 1 << 15;
pub(crate) const PATH_RENAME_SOURCE: Rights = 1 << 16;
pub(crate) const PATH_RENAME_TARGET: Rights = 1 << 17;
pub(crate) const PATH_FILESTAT_GET: Rights = 1 << 18;
pub(crate) const PATH_FILESTAT_SET_SIZE: Rights = 1 << 19;
pub(crate) const PATH_FILESTAT_SET_TIMES: Rights = 1 << 20;
pub(crate) const FD_FILESTAT_GET: Rights = 1 << 21;
pub(crate) const FD_FILESTAT_SET_SIZE: Rights = 1 << 22;
pub(crate) const FD_FILESTAT_SET_TIMES: Rights = 1 << 23;
pub(crate) const PATH_SYMLINK: Rights = 1 << 24;
pub(crate) const PATH_REMOVE_DIRECTORY: Rights = 1 << 25;
pub(crate) const PATH_UNLINK_FILE: Rights = 1 << 26;
pub(crate) const POLL_FD_READWRITE: Rights = 1 << 27;

/// The rights that apply to a regular file or a device.
pub(crate) const FILE: Rights = FD_DATASYNC
    | FD_READ
    | FD_SEEK
    | FD_FDSTAT_SET_FLAGS
    | FD_SYNC
    | FD_TELL
    | FD_WRITE
    | FD_ADVISE
    | FD_ALLOCATE
    | FD_FILESTAT_GET
    | FD_FILESTAT_SET_SIZE
    | FD_FILESTAT_SET_TIMES
    | POLL_FD_READWRITE;

/// The rights that apply to a directory.
pub(crate) const DIRECTORY: Rights = FD_FDSTAT_SET_FLAGS
    | FD_SYNC
    | FD_DATASYNC
    | FD_READDIR
    | FD_FILESTAT_GET
    | FD_FILESTAT_SET_TIMES
    | PATH_CREATE_DIRECTORY
    | PATH_CREATE_FILE
    | PATH_LINK_SOURCE
    | PATH_LINK_TARGET
    | PATH_OPEN
    | PATH_READLINK
    | PATH_RENAME_SOURCE
    | PATH_RENAME_TARGET
    | PATH_FILESTAT_GET
    | PATH_FILESTAT_SET_SIZE
    | PATH_FILESTAT_SET_TIMES
    | PATH_SYMLINK
    | PATH_REMOVE_DIRECTORY
    | PATH_UNLINK_FILE;

/// The rights of a standard stream besides reading or writing. Seeking is not among them: wasi-libc
/// recognizes a terminal by that.
pub(crate) const STREAM: Rights = FD_FDSTAT_SET_FLAGS | FD_FILESTAT_GET | POLL_FD_READWRITE;

/// Flags of a descriptor.
pub(crate) type FdFlags = u16;

pub(crate) const APPEND: FdFlags = 1 << 0;
pub(crate) const DSYNC: FdFlags = 1 << 1;
pub(crate) const NONBLOCK: FdFlags = 1 << 2;
pub(crate) const RSYNC: FdFlags = 1 << 3;
pub(crate) const SYNC: FdFlags = 1 << 4;
pub(crate) const ALL_FLAGS: FdFlags = APPEND | DSYNC | NONBLOCK | RSYNC | SYNC;
