//! Cuts a function's output into log lines, with a limit on their length, and never stops reading.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{FunctionStream, Logger};

/// Where cut lines go.
pub trait LineSink {
    /// Takes one line without its line end.
    fn line(&mut self, line: &[u8]);
    /// Notes that a line was longer than the limit and is left out.
    fn too_long(&mut self);
}

/// Assembles lines from pieces of output.
///
/// A line fits if it and its newline are at most `limit` bytes; a negative limit admits every line. Of a line that
/// does not fit the sink only hears that there was one, and memory stays below the limit.
#[derive(Debug)]
pub struct LineAssembler {
    limit: Option<usize>,
    partial: Vec<u8>,
    skipping: bool,
}

impl LineAssembler {
    /// An assembler with the limit of `log_buffer_size`.
    #[must_use]
    pub fn new(limit: i64) -> Self {
        Self {
            limit: usize::try_from(limit).ok(),
            partial: Vec::new(),
            skipping: false,
        }
    }

    /// Takes the next piece and emits the lines that it completes.
    pub fn push(&mut self, mut piece: &[u8], sink: &mut impl LineSink) {
        while let Some(end) = piece.iter().position(|b| *b == b'\n') {
            self.extend(&piece[..end], sink);
            self.end_line(sink);
            piece = &piece[end + 1..];
        }
        self.extend(piece, sink);
    }

    /// Emits a last line that had no newline.
    pub fn finish(&mut self, sink: &mut impl LineSink) {
        if !self.partial.is_empty() || self.skipping {
            self.end_line(sink);
        }
    }

    fn extend(&mut self, bytes: &[u8], sink: &mut impl LineSink) {
        if self.skipping {
            return;
        }
        if self
            .limit
            .is_some_and(|limit| self.partial.len() + bytes.len() >= limit)
            && !(bytes.is_empty() && self.partial.is_empty())
        {
            self.skipping = true;
            self.partial = Vec::new();
            sink.too_long();
            return;
        }
        self.partial.extend_from_slice(bytes);
    }

    fn end_line(&mut self, sink: &mut impl LineSink) {
        if !std::mem::take(&mut self.skipping) {
            sink.line(self.partial.strip_suffix(b"\r").unwrap_or(&self.partial));
        }
        self.partial.clear();
    }
}

/// Logs the lines of one stream of a function.
#[derive(Debug)]
struct FunctionLines<'a> {
    logger: &'a Logger,
    stream: FunctionStream,
}

impl<'a> FunctionLines<'a> {
    /// A sink for the lines of one stream.
    fn new(logger: &'a Logger, stream: FunctionStream) -> Self {
        Self { logger, stream }
    }
}

impl LineSink for FunctionLines<'_> {
    fn line(&mut self, line: &[u8]) {
        self.logger.function_line(self.stream, line);
    }

    fn too_long(&mut self) {
        self.logger.error(&too_long_text(self.stream));
    }
}

/// What the log says instead of a line that is too long; the words are Go's.
pub fn too_long_text(stream: FunctionStream) -> String {
    format!(
        "Error reading {}: bufio.Scanner: token too long",
        stream.as_str()
    )
}

/// Logs a stream of a child line by line until its end.
pub async fn pump(
    mut reader: impl AsyncRead + Unpin,
    stream: FunctionStream,
    limit: i64,
    logger: &Logger,
) {
    let mut sink = FunctionLines::new(logger, stream);
    let mut assembler = LineAssembler::new(limit);
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => assembler.push(&buffer[..count], &mut sink),
            Err(cause) => {
                assembler.finish(&mut sink);
                logger.error(&format!("Error reading {}: {cause}", stream.as_str()));
                return;
            }
        }
    }
    assembler.finish(&mut sink);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Collected(Vec<String>);

    impl LineSink for Collected {
        fn line(&mut self, line: &[u8]) {
            self.0.push(String::from_utf8_lossy(line).into_owned());
        }

        fn too_long(&mut self) {
            self.0.push("<too long>".to_owned());
        }
    }

    fn lines(limit: i64, text: &str) -> Vec<String> {
        let mut whole = Collected::default();
        let mut assembler = LineAssembler::new(limit);
        assembler.push(text.as_bytes(), &mut whole);
        assembler.finish(&mut whole);

        let mut bytewise = Collected::default();
        let mut assembler = LineAssembler::new(limit);
        for byte in text.bytes() {
            assembler.push(&[byte], &mut bytewise);
        }
        assembler.finish(&mut bytewise);
        assert_eq!(whole.0, bytewise.0, "{text:?} depends on how it is cut");
        whole.0
    }

    #[test]
    fn cuts_lines() {
        for (limit, text, expected) in [
            (100, "", &[][..]),
            (100, "a\nb", &["a", "b"]),
            (100, "a\r\n\r\nb\r", &["a", "", "b"]),
            (4, "abc\nabcd\nef\n", &["abc", "<too long>", "ef"]),
            (4, "abc", &["abc"]),
            (4, "abcd", &["<too long>"]),
            (
                -1,
                "a long line without an end",
                &["a long line without an end"],
            ),
            (0, "a\nb\n", &["<too long>", "<too long>"]),
        ] {
            assert_eq!(lines(limit, text), expected, "{limit} {text:?}");
        }
    }
}
