//! A guest's standard streams in wasm mode.

use std::sync::Arc;
use std::time::Instant;

use faas_wasm_wasi::{InputStream, OutputStream, StreamError};

use super::exchange::Exchange;
use super::head;
use crate::log::{FunctionLines, FunctionStream, LineAssembler, Logger};

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

/// Lines for the log. Dropping it logs a last line that has no end.
pub(super) struct Stderr {
    exchange: Arc<Exchange>,
    logger: Logger,
    lines: LineAssembler,
}

impl Stderr {
    pub(super) fn new(exchange: &Arc<Exchange>, logger: Logger, limit: i64) -> Self {
        Self {
            exchange: Arc::clone(exchange),
            logger,
            lines: LineAssembler::new(limit),
        }
    }
}

impl OutputStream for Stderr {
    fn write(&mut self, bytes: &[u8], _: Option<Instant>) -> Result<usize, StreamError> {
        if self.exchange.is_trial() {
            return Err(StreamError::Canceled);
        }
        let mut sink = FunctionLines::new(&self.logger, FunctionStream::Stderr);
        self.lines.push(bytes, &mut sink);
        Ok(bytes.len())
    }

    fn wait_writable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        let mut sink = FunctionLines::new(&self.logger, FunctionStream::Stderr);
        self.lines.finish(&mut sink);
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
