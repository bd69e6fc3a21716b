//! Standard streams: what the embedder gives a guest as stdin, stdout and stderr.
//!
//! A stream waits by itself, never beyond the deadline it is given, and says why it gave up.
//! Back-pressure is the stream's: `write` returns once the bytes are taken, not before.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Why a stream gave up.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The deadline passed while it waited; the run ends.
    #[error("the deadline has passed")]
    TimedOut,
    /// The other side is gone for good and nobody wants the rest; the run ends.
    #[error("the request was canceled")]
    Canceled,
    /// More output than the embedder allows; the run ends.
    #[error("the output limit is reached")]
    LimitReached,
    /// The other side does not read any more; the guest sees EPIPE.
    #[error("the stream is closed")]
    Closed,
    /// The guest sees the error number.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for StreamError {
    fn from(errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::PIPE => Self::Closed,
            errno => Self::Io(errno.into()),
        }
    }
}

/// Where a guest reads its stdin from.
pub trait InputStream: Send {
    /// Waits for at least one byte or the end (0), and reads what is there, as far as it fits.
    ///
    /// # Errors
    ///
    /// [`StreamError::TimedOut`] if nothing came until `deadline`.
    fn read(&mut self, buffer: &mut [u8], deadline: Option<Instant>) -> Result<usize, StreamError>;

    /// Waits until `read` would not wait, and says whether that is so at `until`.
    ///
    /// # Errors
    ///
    /// Any but [`StreamError::TimedOut`].
    fn wait_readable(&mut self, until: Option<Instant>) -> Result<bool, StreamError>;

    /// Whether the run is to end although the guest waits for something else; asked now and then
    /// while it sleeps.
    fn is_canceled(&mut self) -> bool {
        false
    }

    /// Whether a person sits at the other end.
    fn is_terminal(&self) -> bool {
        false
    }
}

/// Where a guest writes its stdout or stderr to.
pub trait OutputStream: Send {
    /// Waits until at least one byte is taken, and says how many were.
    ///
    /// # Errors
    ///
    /// [`StreamError::TimedOut`] if nothing was taken until `deadline`.
    fn write(&mut self, bytes: &[u8], deadline: Option<Instant>) -> Result<usize, StreamError>;

    /// Waits until `write` would not wait, and says whether that is so at `until`.
    ///
    /// # Errors
    ///
    /// Any but [`StreamError::TimedOut`].
    fn wait_writable(&mut self, until: Option<Instant>) -> Result<bool, StreamError>;

    /// Passes on what is held back.
    ///
    /// # Errors
    ///
    /// As `write`.
    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    /// Whether a person sits at the other end.
    fn is_terminal(&self) -> bool {
        false
    }
}

/// A stdin that has ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Empty;

impl InputStream for Empty {
    fn read(&mut self, _: &mut [u8], _: Option<Instant>) -> Result<usize, StreamError> {
        Ok(0)
    }
    fn wait_readable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }
}

/// An output that takes everything and keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl OutputStream for Discard {
    fn write(&mut self, bytes: &[u8], _: Option<Instant>) -> Result<usize, StreamError> {
        Ok(bytes.len())
    }
    fn wait_writable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }
}

/// A file, pipe or terminal of the host as a stream.
///
/// The descriptor's own mode (blocking or not) is left alone, as it is shared with whoever passed
/// it on: each transfer waits with poll(2) first and moves no more than a pipe surely takes.
#[derive(Debug)]
pub struct HostStream {
    fd: OwnedFd,
    terminal: bool,
    /// Most bytes that one write surely does not wait with, once poll(2) says so.
    piece: usize,
}

/// PIPE_BUF of Linux: poll(2) reports a pipe as writable when this much fits.
const PIPE_BUF: usize = 4096;
/// Regular files do not make a writer wait; this bounds the time between two looks at the clock.
const REGULAR: usize = 1 << 20;

impl HostStream {
    /// Takes over a descriptor.
    pub fn new(fd: OwnedFd) -> Self {
        let terminal = io::IsTerminal::is_terminal(&fd);
        let regular = rustix::fs::fstat(&fd).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
        });
        let piece = if regular { REGULAR } else { PIPE_BUF };
        Self {
            fd,
            terminal,
            piece,
        }
    }

    /// A stream over a duplicate of this process's stdin.
    ///
    /// # Errors
    ///
    /// If it is closed or no descriptor is left.
    pub fn stdin() -> io::Result<Self> {
        Ok(Self::new(io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// A stream over a duplicate of this process's stdout.
    ///
    /// # Errors
    ///
    /// As [`HostStream::stdin`].
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::new(io::stdout().as_fd().try_clone_to_owned()?))
    }

    /// A stream over a duplicate of this process's stderr.
    ///
    /// # Errors
    ///
    /// As [`HostStream::stdin`].
    pub fn stderr() -> io::Result<Self> {
        Ok(Self::new(io::stderr().as_fd().try_clone_to_owned()?))
    }

    fn wait(&self, events: PollFlags, until: Option<Instant>) -> Result<bool, StreamError> {
        loop {
            let timeout =
                until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
            let mut fds = [PollFd::new(&self.fd, events)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// As poll(2) wants it; a time too long to be told is as good as 68 years.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs())
            .unwrap_or(i64::MAX)
            .min(i64::from(i32::MAX)),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

impl InputStream for HostStream {
    fn read(&mut self, buffer: &mut [u8], deadline: Option<Instant>) -> Result<usize, StreamError> {
        loop {
            if !self.wait(PollFlags::IN, deadline)? {
                return Err(StreamError::TimedOut);
            }
            match rustix::io::read(&self.fd, &mut *buffer) {
                Ok(count) => return Ok(count),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn wait_readable(&mut self, until: Option<Instant>) -> Result<bool, StreamError> {
        self.wait(PollFlags::IN, until)
    }

    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl OutputStream for HostStream {
    fn write(&mut self, bytes: &[u8], deadline: Option<Instant>) -> Result<usize, StreamError> {
        let bytes = &bytes[..bytes.len().min(self.piece)];
        loop {
            if !self.wait(PollFlags::OUT, deadline)? {
                return Err(StreamError::TimedOut);
            }
            match rustix::io::write(&self.fd, bytes) {
                Ok(count) => return Ok(count),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn wait_writable(&mut self, until: Option<Instant>) -> Result<bool, StreamError> {
        self.wait(PollFlags::OUT, until)
    }

    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_pipe_times_out_and_an_ended_one_ends() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut stream = HostStream::new(reader);
        let soon = || Some(Instant::now() + Duration::from_millis(5));
        assert!(matches!(
            stream.read(&mut [0; 4], soon()),
            Err(StreamError::TimedOut)
        ));
        assert!(!stream.wait_readable(soon()).unwrap());
        drop(writer);
        assert!(stream.wait_readable(None).unwrap());
        assert_eq!(stream.read(&mut [0; 4], None).unwrap(), 0);
    }

    #[test]
    fn a_full_pipe_times_out_and_a_closed_one_says_so() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut stream = HostStream::new(writer);
        let outcome = loop {
            let soon = Instant::now() + Duration::from_millis(5);
            if let Err(error) = stream.write(&[1; 65536], Some(soon)) {
                break error;
            }
        };
        assert!(matches!(outcome, StreamError::TimedOut), "{outcome}");
        drop(reader);
        assert!(matches!(stream.write(b"x", None), Err(StreamError::Closed)));
    }
}
