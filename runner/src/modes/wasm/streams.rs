//! A guest's standard streams in wasm mode.

use std::sync::Arc;
use std::time::Instant;

use faas_wasm_wasi::{InputStream, OutputStream, StreamError};

use super::exchange::Exchange;
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
        self.0.is_abandoned()
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
    logger: Logger,
    lines: LineAssembler,
}

impl Stderr {
    pub(super) fn new(logger: &Logger, limit: i64) -> Self {
        Self {
            logger: logger.clone(),
            lines: LineAssembler::new(limit),
        }
    }
}

impl OutputStream for Stderr {
    fn write(&mut self, bytes: &[u8], _: Option<Instant>) -> Result<usize, StreamError> {
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
