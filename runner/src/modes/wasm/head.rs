//! The head of a response as the guest describes it: lines `Status: 404` and `Name: value`, from
//! `/dev/faas/response` or from a CGI head on its standard output.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;

/// Most bytes of all lines together.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Most fields, the status included.
const MAX_FIELDS: usize = 100;

/// Headers of the connection and of the framing, which are the server's.
const DROPPED: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Another of them, which has no constant.
const KEEP_ALIVE: &str = "keep-alive";

/// What is wrong with a head. The guest's bytes are not repeated: they may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("line {0} is no `Name: value`")]
    Line(usize),
    #[error("line {0} has a value with a character that no header may have")]
    Value(usize),
    #[error("the status in line {0} is no number from 200 to 599")]
    Status(usize),
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("it has more than {MAX_FIELDS} fields")]
    TooMany,
    #[error("the output ends before an empty line")]
    NoEnd,
    #[error("there is neither Content-Type nor Location")]
    NoType,
}

/// Status and headers, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub status: Option<StatusCode>,
    pub headers: HeaderMap,
    bytes: usize,
    lines: usize,
    fields: usize,
}

impl Head {
    /// Takes a line without its end. An empty one says nothing.
    ///
    /// # Errors
    /// [`HeadError`]; the head is as before then.
    pub(super) fn add_line(&mut self, line: &[u8]) -> Result<(), HeadError> {
        self.lines += 1;
        self.bytes += line.len() + 1;
        if self.bytes > MAX_BYTES {
            return Err(HeadError::TooLong);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Ok(());
        }
        let malformed = HeadError::Line(self.lines);
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .ok_or(malformed)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| malformed)?;
        let value = line[colon + 1..].trim_ascii();
        if self.fields == MAX_FIELDS {
            return Err(HeadError::TooMany);
        }
        if name.as_str() == "status" {
            self.status = Some(status(value).ok_or(HeadError::Status(self.lines))?);
        } else if !DROPPED.contains(&name) && name.as_str() != KEEP_ALIVE {
            let value = HeaderValue::from_bytes(value).map_err(|_| HeadError::Value(self.lines))?;
            // There is one type and one place; whoever says it last is right.
            if name == CONTENT_TYPE || name == LOCATION {
                self.headers.insert(name, value);
            } else {
                self.headers.append(name, value);
            }
        }
        self.fields += 1;
        Ok(())
    }

    /// Adds what a CGI program has written before the empty line.
    ///
    /// # Errors
    /// [`HeadError`].
    pub(super) fn add_cgi(&mut self, text: &[u8]) -> Result<(), HeadError> {
        let mut head = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            head.add_line(line)?;
        }
        head.status = match head.status {
            Some(status) => Some(status),
            None if head.headers.contains_key(LOCATION) => Some(StatusCode::FOUND),
            None if head.headers.contains_key(CONTENT_TYPE) => self.status,
            None => return Err(HeadError::NoType),
        };
        self.status = head.status;
        for (name, value) in &head.headers {
            if name == CONTENT_TYPE || name == LOCATION {
                self.headers.insert(name, value.clone());
            } else {
                self.headers.append(name, value.clone());
            }
        }
        Ok(())
    }
}

/// A final status with or without its words.
fn status(value: &[u8]) -> Option<StatusCode> {
    let code = value.split(|byte| *byte == b' ').next()?;
    let status = StatusCode::from_bytes(code).ok()?;
    (200..600).contains(&status.as_u16()).then_some(status)
}

/// Where a CGI body begins: behind the empty line.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        if matches!(&bytes[line..end], b"" | b"\r") {
            return Some(end + 1);
        }
        line = end + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_end_at_an_empty_line() {
        for (bytes, end) in [
            (&b""[..], None),
            (b"a: b\n", None),
            (b"a: b\n\nrest", Some(6)),
            (b"a: b\r\n\r\nrest", Some(8)),
            (b"\nrest", Some(1)),
        ] {
            assert_eq!(end_of_head(bytes), end, "{bytes:?}");
        }
    }

    #[test]
    fn understands_cgi() {
        let code = |text: &str| {
            let mut head = Head::default();
            head.add_cgi(text.as_bytes())
                .map(|()| head.status.map_or(200, |status| status.as_u16()))
        };
        for (text, expected) in [
            ("Content-Type: text/plain\n\n", Ok(200)),
            ("Status: 404 Not Found\r\n\r\n", Ok(404)),
            ("Location: /x\n\n", Ok(302)),
            ("Status: 201\nLocation: /x\n\n", Ok(201)),
            ("X: y\n\n", Err(HeadError::NoType)),
            ("\n", Err(HeadError::NoType)),
            ("Status: 99\n\n", Err(HeadError::Status(1))),
            ("Status: 101 x\n\n", Err(HeadError::Status(1))),
            ("Status: 600\n\n", Err(HeadError::Status(1))),
            ("what\n\n", Err(HeadError::Line(1))),
            ("Content-Type: a\nb c: d\n\n", Err(HeadError::Line(2))),
            ("Content-Type: a\nb: c\rd\n\n", Err(HeadError::Value(2))),
        ] {
            assert_eq!(code(text), expected, "{text:?}");
        }
    }

    #[test]
    fn takes_lines() {
        let mut head = Head::default();
        for line in [
            "Status: 418 short and stout",
            "Set-Cookie: 1",
            "set-cookie: 2\r",
            "",
            "Content-Type: a/b",
            "Content-Type: c/d",
            "Content-Length: 7",
            "Transfer-Encoding: chunked",
            "Keep-Alive: 3",
            "Connection: close",
            "X-Umlaut: ä",
        ] {
            assert_eq!(head.add_line(line.as_bytes()), Ok(()), "{line}");
        }
        assert_eq!(head.status, Some(StatusCode::IM_A_TEAPOT));
        assert_eq!(head.headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(head.headers["content-type"], "c/d");
        assert_eq!(head.headers.len(), 4);
        for (line, error) in [
            (&b"no colon"[..], HeadError::Line(12)),
            (b": nameless", HeadError::Line(13)),
            (b"a b: c", HeadError::Line(14)),
            (b"X: a\0b", HeadError::Value(15)),
            (b"X: a\rb", HeadError::Value(16)),
            (b"Status: ", HeadError::Status(17)),
        ] {
            assert_eq!(head.add_line(line), Err(error), "{line:?}");
        }
        assert_eq!(head.headers.len(), 4, "nothing came of them");
    }

    #[test]
    fn has_its_limits() {
        let mut head = Head::default();
        for number in 0..MAX_FIELDS {
            assert_eq!(head.add_line(format!("X-{number}: y").as_bytes()), Ok(()));
        }
        assert_eq!(head.add_line(b"One: more"), Err(HeadError::TooMany));
        let mut head = Head::default();
        let line = format!("X: {}", "y".repeat(MAX_BYTES));
        assert_eq!(head.add_line(line.as_bytes()), Err(HeadError::TooLong));
    }
}
