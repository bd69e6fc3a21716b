//! `wasm_response=cgi`: the guest's output begins with a head in the grammar of RFC 3875, section 6.
//!
//! ```text
//! Status: 404 Not Found        optional, 200 without it (302 with Location alone)
//! Content-Type: text/plain     or Location; other fields are passed on
//!                              an empty line, then the body
//! ```

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;

use crate::log::Logger;
use crate::response::{self, Response, ResponseBody, ResponseError};

/// Longest head.
const MAX_HEAD: usize = 64 * 1024;

#[derive(Debug, PartialEq, thiserror::Error)]
enum CgiError {
    #[error("the output ends before an empty line")]
    NoEnd,
    #[error("the head is longer than {MAX_HEAD} bytes")]
    TooLong,
    #[error("line {0} is no `Name: value`")]
    Line(usize),
    #[error("the status is none")]
    Status,
    #[error("there is neither Content-Type nor Location")]
    NoType,
}

/// Replaces a raw response by the one that its body describes.
pub(super) async fn apply(raw: Response, logger: &Logger) -> Response {
    if raw.status() != StatusCode::OK {
        return raw;
    }
    let (parts, mut body) = raw.into_parts();
    let mut begin = BytesMut::new();
    let end = loop {
        if let Some(end) = head_end(&begin) {
            break Ok(end);
        }
        if begin.len() > MAX_HEAD {
            break Err(CgiError::TooLong);
        }
        match body.frame().await {
            Some(Ok(frame)) => begin.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            // The cause is in the log already.
            Some(Err(_)) => return failed(),
            None => break Err(CgiError::NoEnd),
        }
    };
    let parsed = end.and_then(|end| {
        let (status, headers) = parse(&begin[..end])?;
        Ok((status, headers, end))
    });
    let (status, headers, end) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            logger.error(&format!(
                "the function's CGI response is not valid: {error}"
            ));
            return failed();
        }
    };
    let rest = begin.split_off(end).freeze();
    let mut response = if body.is_end_stream() {
        let mut response = response::with_body(status, rest.clone().into());
        response::set_content_length(&mut response, rest.len() as u64);
        response
    } else {
        response::with_body(
            status,
            ResponseBody::stream(Rest {
                first: Some(rest),
                body,
            }),
        )
    };
    for (name, value) in &parts.headers {
        if *name != CONTENT_TYPE && *name != CONTENT_LENGTH {
            response.headers_mut().append(name, value.clone());
        }
    }
    for (name, value) in &headers {
        response.headers_mut().append(name, value.clone());
    }
    response
}

fn failed() -> Response {
    response::text(StatusCode::INTERNAL_SERVER_ERROR, super::FAILED)
}

/// Where the body begins.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' {
            if matches!(&bytes[line..at], b"" | b"\r") {
                return Some(at + 1);
            }
            line = at + 1;
        }
    }
    None
}

fn parse(head: &[u8]) -> Result<(StatusCode, HeaderMap), CgiError> {
    let mut status = None;
    let mut headers = HeaderMap::new();
    for (number, line) in (1..).zip(head.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .ok_or(CgiError::Line(number))?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| CgiError::Line(number))?;
        let value = line[colon + 1..].trim_ascii();
        if name.as_str() == "status" {
            let code = value.split(|byte| *byte == b' ').next().unwrap_or_default();
            let code = StatusCode::from_bytes(code).map_err(|_| CgiError::Status)?;
            if code.is_informational() {
                return Err(CgiError::Status);
            }
            status = Some(code);
            continue;
        }
        // Framing is the server's.
        if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&name) {
            continue;
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| CgiError::Line(number))?;
        headers.append(name, value);
    }
    let status = match status {
        Some(status) => status,
        None if headers.contains_key(LOCATION) => StatusCode::FOUND,
        None if headers.contains_key(CONTENT_TYPE) => StatusCode::OK,
        None => return Err(CgiError::NoType),
    };
    Ok((status, headers))
}

/// What came with the head, then the rest.
struct Rest {
    first: Option<Bytes>,
    body: ResponseBody,
}

impl Body for Rest {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        match self.first.take().filter(|first| !first.is_empty()) {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.body).poll_frame(context),
        }
    }
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
            assert_eq!(head_end(bytes), end, "{bytes:?}");
        }
    }

    #[test]
    fn understands_heads() {
        let code = |head: &str| parse(head.as_bytes()).map(|(status, _)| status.as_u16());
        for (head, expected) in [
            ("Content-Type: text/plain\n\n", Ok(200)),
            ("Status: 404 Not Found\r\n\r\n", Ok(404)),
            ("Location: /x\n\n", Ok(302)),
            ("Status: 201\nLocation: /x\n\n", Ok(201)),
            ("X: y\n\n", Err(CgiError::NoType)),
            ("Status: 99\n\n", Err(CgiError::Status)),
            ("Status: 101 x\n\n", Err(CgiError::Status)),
            ("what\n\n", Err(CgiError::Line(1))),
            ("Content-Type: a\nb c: d\n\n", Err(CgiError::Line(2))),
        ] {
            assert_eq!(code(head), expected, "{head:?}");
        }
        let (_, headers) =
            parse(b"Content-Type: a\nSet-Cookie: 1\nSet-Cookie: 2\nContent-Length: 7\n\n")
                .expect("parses");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert!(!headers.contains_key(CONTENT_LENGTH));
    }
}
