//! A guest's standard streams in wasm mode.

use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_wasm_wasi::{InputStream, OutputStream, StreamError};

use super::exchange::Exchange;
use super::head;
use crate::log::{self, FunctionStream, LineAssembler, LineSink, Logger};

/// The request's body.
pub(super) struct Stdin(pub(super) Arc<Exchange>);

impl InputStream for Stdin {
    fn read(&mut self, buffer: &mut [u8], deadline: Option<Instant>) -> Result<usize, StreamError> {
        self.0.read(buffer, deadline)
    }

    fn wait_readable(&mut self, until: Option<Instant>) -> Result<bool, StreamError> {
        self.0.wait_readable(until)
    }

    fn is_canceled(&mut self) -> bool {
        // Who sleeps waits as well.
        self.0.is_abandoned() || self.0.is_trial()
    }
}

/// The response's body.
pub(super) struct Stdout(pub(super) Arc<Exchange>);

impl OutputStream for Stdout {
    fn write(&mut self, bytes: &[u8], deadline: Option<Instant>) -> Result<usize, StreamError> {
        self.0.write(bytes, deadline)
    }

    fn wait_writable(&mut self, until: Option<Instant>) -> Result<bool, StreamError> {
        self.0.wait_writable(until)
    }
}

/// Most bytes of stderr that are taken at once: a guest can make each of them a line.
const PIECE: usize = 4096;
/// How long a guest waits for the log between two looks at whether somebody still wants its answer.
const NAP: Duration = Duration::from_millis(20);

/// Longest line where `log_buffer_size` sets no limit: it is kept until its end, and a guest need not end it.
const LONGEST_LINE: i64 = 1 << 20;

/// Lines for the log. Dropping it logs a last line that has no end.
pub(super) struct Stderr {
    exchange: Arc<Exchange>,
    logger: Logger,
    lines: LineAssembler,
    /// Of the run, once something was written.
    deadline: Option<Instant>,
}

impl Stderr {
    pub(super) fn new(exchange: &Arc<Exchange>, logger: Logger, limit: i64) -> Self {
        Self {
            exchange: Arc::clone(exchange),
            logger,
            lines: LineAssembler::new(if limit < 0 { LONGEST_LINE } else { limit }),
            deadline: None,
        }
    }
}

impl OutputStream for Stderr {
    fn write(&mut self, bytes: &[u8], deadline: Option<Instant>) -> Result<usize, StreamError> {
        if self.exchange.is_trial() || self.exchange.is_abandoned() {
            return Err(StreamError::Canceled);
        }
        self.deadline = deadline;
        let bytes = &bytes[..bytes.len().min(PIECE)];
        let mut lines = GuestLines {
            exchange: &self.exchange,
            logger: self.logger,
            deadline,
            is_over: false,
        };
        self.lines.push(bytes, &mut lines);
        match lines.is_over {
            false => Ok(bytes.len()),
            true if self.exchange.is_abandoned() => Err(StreamError::Canceled),
            true => Err(StreamError::TimedOut),
        }
    }

    fn wait_writable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        let mut lines = GuestLines {
            exchange: &self.exchange,
            logger: self.logger,
            deadline: self.deadline,
            is_over: false,
        };
        self.lines.finish(&mut lines);
    }
}

/// Logs a guest's lines, and waits for the log as long as the guest may.
struct GuestLines<'a> {
    exchange: &'a Exchange,
    logger: Logger,
    deadline: Option<Instant>,
    /// The run must end, and its further lines are not wanted.
    is_over: bool,
}

impl GuestLines<'_> {
    fn left(&self) -> Option<Duration> {
        self.deadline.map_or(Some(NAP), |deadline| {
            let left = deadline.checked_duration_since(Instant::now());
            left.filter(|left| !left.is_zero())
                .map(|left| left.min(NAP))
        })
    }

    /// How long to wait for the log.
    fn patience(&self) -> Option<Duration> {
        self.left().filter(|_| !self.exchange.is_abandoned())
    }
}

impl LineSink for GuestLines<'_> {
    fn line(&mut self, line: &[u8]) {
        if !self.is_over {
            let was_logged = self.logger.guest_line(line, &|| self.patience());
            self.is_over = !was_logged || self.left().is_none();
        }
    }

    fn too_long(&mut self) {
        if !self.is_over {
            let text = log::too_long_text(FunctionStream::Stderr);
            self.is_over = !self.logger.guest_error(&text, &|| self.patience());
        }
    }
}

/// Lines for the head of the response: what the guest writes to `/dev/faas/response`.
pub(super) struct ResponseHead {
    exchange: Arc<Exchange>,
    logger: Logger,
    /// The line that has no end yet.
    line: Vec<u8>,
}

impl ResponseHead {
    pub(super) fn new(exchange: &Arc<Exchange>, logger: Logger) -> Self {
        Self {
            exchange: Arc::clone(exchange),
            logger,
            line: Vec::new(),
        }
    }

    fn end_line(&mut self) -> Result<(), StreamError> {
        let line = std::mem::take(&mut self.line);
        match self.exchange.add_head_line(&line) {
            Ok(true) => Ok(()),
            // Too late: to the guest like a reader that has gone.
            Ok(false) => Err(StreamError::Closed),
            Err(_) if self.exchange.is_trial() => Err(StreamError::Canceled),
            Err(error) => {
                self.logger.error(&format!(
                    "the function's line for /dev/faas/response was refused: {error}"
                ));
                Err(rustix::io::Errno::INVAL.into())
            }
        }
    }
}

impl OutputStream for ResponseHead {
    /// Takes all of it, or fails with the first line that is refused; the lines before it count.
    fn write(&mut self, bytes: &[u8], _: Option<Instant>) -> Result<usize, StreamError> {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line()?,
                // What is longer than the whole head may be is refused at its end, and not kept until then.
                _ if self.line.len() > head::MAX_BYTES => {}
                byte => self.line.push(*byte),
            }
        }
        Ok(bytes.len())
    }

    fn wait_writable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }
}

impl Drop for ResponseHead {
    /// A last line needs no end.
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // The log has it, and there is no guest to tell any more.
            let _ = self.end_line();
        }
    }
}
