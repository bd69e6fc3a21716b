//! Error numbers of preview1, and the ways in which a call can fail.

use faas_wasm_engine::{Interruption, MemoryFault, Stop};

use crate::stream::StreamError;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal $(<- $host:ident $(| $more:ident)*)?;)*) => {
        /// An error number as preview1 defines it; `wasi_unstable` has the same numbers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Errno {
            $($(#[$doc])* $name = $number,)*
        }

        impl From<rustix::io::Errno> for Errno {
            fn from(errno: rustix::io::Errno) -> Self {
                use rustix::io::Errno as Host;
                match errno {
                    $($(Host::$host $(| Host::$more)* => Self::$name,)?)*
                    _ => Self::Io,
                }
            }
        }
    };
}

errnos! {
    /// Argument list too long.
    TooBig = 1 <- TOOBIG;
    /// Permission denied.
    Acces = 2 <- ACCESS;
    /// Resource unavailable, or the operation would block.
    Again = 6 <- AGAIN;
    /// Bad file descriptor.
    Badf = 8 <- BADF;
    /// Device or resource busy.
    Busy = 10 <- BUSY;
    /// Disk quota exceeded.
    Dquot = 19 <- DQUOT;
    /// File exists.
    Exist = 20 <- EXIST;
    /// Bad address.
    Fault = 21 <- FAULT;
    /// File too large.
    Fbig = 22 <- FBIG;
    /// Illegal byte sequence.
    Ilseq = 25 <- ILSEQ;
    /// Interrupted function.
    Intr = 27 <- INTR;
    /// Invalid argument.
    Inval = 28 <- INVAL;
    /// I/O error.
    Io = 29 <- IO;
    /// Is a directory.
    Isdir = 31 <- ISDIR;
    /// Too many levels of symbolic links.
    Loop = 32 <- LOOP;
    /// File descriptor value too large.
    Mfile = 33 <- MFILE;
    /// Too many links.
    Mlink = 34 <- MLINK;
    /// Filename too long.
    Nametoolong = 37 <- NAMETOOLONG;
    /// Too many files open in the system.
    Nfile = 41 <- NFILE;
    /// No such device.
    Nodev = 43 <- NODEV;
    /// No such file or directory.
    Noent = 44 <- NOENT;
    /// Not enough space.
    Nomem = 48 <- NOMEM;
    /// No space left on device.
    Nospc = 51 <- NOSPC;
    /// Function not supported.
    Nosys = 52 <- NOSYS;
    /// Not a directory.
    Notdir = 54 <- NOTDIR;
    /// Directory not empty.
    Notempty = 55 <- NOTEMPTY;
    /// Not a socket.
    Notsock = 57 <- NOTSOCK;
    /// Not supported.
    Notsup = 58 <- NOTSUP;
    /// No such device or address.
    Nxio = 60 <- NXIO;
    /// Value too large to be stored in data type.
    Overflow = 61 <- OVERFLOW;
    /// Operation not permitted.
    Perm = 63 <- PERM;
    /// Broken pipe.
    Pipe = 64 <- PIPE;
    /// Result too large.
    Range = 68 <- RANGE;
    /// Read-only file system.
    Rofs = 69 <- ROFS;
    /// Invalid seek.
    Spipe = 70 <- SPIPE;
    /// Stale file handle.
    Stale = 72 <- STALE;
    /// Text file busy.
    Txtbsy = 74 <- TXTBSY;
    /// Cross-device link.
    Xdev = 75 <- XDEV;
    /// Capabilities insufficient.
    Notcapable = 76;
}

/// The failure of a call: an error number for the guest, or the end of the run.
#[derive(Debug)]
pub(crate) enum Failure {
    Errno(Errno),
    Stop(Stop),
}

/// The result of a call.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Errno(errno.into())
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<MemoryFault> for Failure {
    fn from(_: MemoryFault) -> Self {
        Self::Errno(Errno::Fault)
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::TimedOut => Self::Stop(Stop::DEADLINE),
            StreamError::Canceled => Self::Stop(Stop::Interrupted(Interruption::Canceled)),
            StreamError::LimitReached => Self::Stop(Stop::Interrupted(Interruption::OutputLimit)),
            StreamError::Closed => Self::Errno(Errno::Pipe),
            StreamError::Io(error) => {
                Self::Errno(rustix::io::Errno::from_io_error(&error).map_or(Errno::Io, Errno::from))
            }
        }
    }
}
