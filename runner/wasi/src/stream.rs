//! Standard streams: the embedder's side of a guest's stdin, stdout and stderr.
//!
//! A stream does its own waiting, never beyond the given deadline, and reports why it gave up. It also
//! implements back-pressure: `write` returns only after it has accepted bytes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Why a stream failed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The deadline passed while the stream waited. The run ends.
    #[error("the deadline has passed")]
    TimedOut,
    /// The client is gone and nothing needs the rest of the output. The run ends.
    #[error("the request was canceled")]
    Canceled,
    /// The guest wrote more output than the embedder allows. The run ends.
    #[error("the output limit is reached")]
    LimitReached,
    /// The reader closed its end. The guest sees EPIPE.
    #[error("the stream is closed")]
    Closed,
    /// The guest sees this error number.
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

/// The source of a guest's stdin.
pub trait InputStream: Send {
    /// Waits for at least one byte or the end of input (0), and reads the available bytes that fit.
    ///
    /// # Errors
    ///
    /// [`StreamError::TimedOut`] if no byte arrived before `deadline`.
    fn read(&mut self, buffer: &mut [u8], deadline: Option<Instant>) -> Result<usize, StreamError>;

    /// Waits until `read` would not block or `until` has passed. Returns whether `read` would not block.
    ///
    /// # Errors
    ///
    /// Any [`StreamError`] except [`StreamError::TimedOut`].
    fn wait_readable(&mut self, until: Option<Instant>) -> Result<bool, StreamError>;

    /// Whether the run must end while the guest waits for something else. A sleeping guest's call asks
    /// periodically.
    fn is_canceled(&mut self) -> bool {
        false
    }

    /// Whether the stream is a terminal.
    fn is_terminal(&self) -> bool {
        false
    }
}

/// The destination of a guest's stdout or stderr.
pub trait OutputStream: Send {
    /// Waits until at least one byte is accepted, and returns the number of accepted bytes.
    ///
    /// # Errors
    ///
    /// [`StreamError::TimedOut`] if no byte was accepted before `deadline`.
    fn write(&mut self, bytes: &[u8], deadline: Option<Instant>) -> Result<usize, StreamError>;

    /// Waits until `write` would not block or `until` has passed. Returns whether `write` would not block.
    ///
    /// # Errors
    ///
    /// Any [`StreamError`] except [`StreamError::TimedOut`].
    fn wait_writable(&mut self, until: Option<Instant>) -> Result<bool, StreamError>;

    /// Sends the bytes that are held back.
    ///
    /// # Errors
    ///
    /// As `write`.
    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    /// Whether the stream is a terminal.
    fn is_terminal(&self) -> bool {
        false
    }
}

/// An empty input.
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

/// An output that discards everything.
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
/// The descriptor's mode (blocking or not) stays as it is, because other processes share it. Each
/// transfer first waits with poll(2) and moves at most what a pipe accepts without blocking.
#[derive(Debug)]
pub struct HostStream {
    fd: OwnedFd,
    terminal: bool,
    /// Maximum number of bytes that a write accepts without blocking after poll(2) reported readiness.
    piece: usize,
}

/// PIPE_BUF of Linux: poll(2) reports a pipe as writable when this much fits.
const PIPE_BUF: usize = 4096;
/// Writes to regular files do not block. This size bounds the time between two checks of the clock.
const REGULAR: usize = 1 << 20;

impl HostStream {
    /// Creates a stream over a descriptor.
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

    /// Creates a stream over a duplicate of this process's stdin.
    ///
    /// # Errors
    ///
    /// If it is closed or the process has no descriptor left.
    pub fn stdin() -> io::Result<Self> {
        Ok(Self::new(io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// Creates a stream over a duplicate of this process's stdout.
    ///
    /// # Errors
    ///
    /// As [`HostStream::stdin`].
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::new(io::stdout().as_fd().try_clone_to_owned()?))
    }

    /// Creates a stream over a duplicate of this process's stderr.
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

/// The time until an instant in poll(2)'s form. It saturates at 68 years.
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
