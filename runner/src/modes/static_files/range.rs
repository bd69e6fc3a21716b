//! The `Range` header, as Go reads it.

use ::http::header::CONTENT_RANGE;
use ::http::{HeaderValue, StatusCode};

use crate::gotext;
use crate::response::{self, Response};

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteRange {
    pub(super) start: u64,
    pub(super) length: u64,
}

impl ByteRange {
    /// The value of `Content-Range`.
    pub(super) fn content_range(&self, size: u64) -> String {
        // A range of length zero does not pass the parser, except the suffix of an empty file.
        format!(
            "bytes {}-{}/{size}",
            self.start,
            (self.start + self.length).saturating_sub(1)
        )
    }
}

/// A range that cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RangeError {
    /// Not of the form `bytes=a-b,...`.
    #[error("invalid range")]
    Invalid,
    /// All of it is behind the end.
    #[error("invalid range: failed to overlap")]
    NoOverlap,
}

/// The ranges asked for; none means the whole file.
///
/// # Errors
/// If the header is malformed or no range lies within the file.
pub(super) fn parse(header: &str, size: u64) -> Result<Vec<ByteRange>, RangeError> {
    if header.is_empty() {
        return Ok(Vec::new());
    }
    let list = header.strip_prefix("bytes=").ok_or(RangeError::Invalid)?;
    let mut ranges = Vec::new();
    let mut beyond = false;
    for part in list.split(',').map(trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').ok_or(RangeError::Invalid)?;
        match parse_one(trim(first), trim(last), size)? {
            Some(range) => ranges.push(range),
            None => beyond = true,
        }
    }
    if beyond && ranges.is_empty() && size > 0 {
        return Err(RangeError::NoOverlap);
    }
    // More than the file has must be an attack or a mistake.
    let total = ranges
        .iter()
        .try_fold(0_u64, |total, range| total.checked_add(range.length));
    Ok(if total.is_none_or(|total| total > size) {
        Vec::new()
    } else {
        ranges
    })
}

/// One range, or `None` if it begins behind the end.
fn parse_one(first: &str, last: &str, size: u64) -> Result<Option<ByteRange>, RangeError> {
    if first.is_empty() {
        let suffix = number(last)?.min(size);
        return Ok(Some(ByteRange {
            start: size - suffix,
            length: suffix,
        }));
    }
    let start = number(first)?;
    if start >= size {
        return Ok(None);
    }
    if last.is_empty() {
        return Ok(Some(ByteRange {
            start,
            length: size - start,
        }));
    }
    let end = number(last)?;
    if start > end {
        return Err(RangeError::Invalid);
    }
    Ok(Some(ByteRange {
        start,
        length: end.min(size - 1) - start + 1,
    }))
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn number(text: &str) -> Result<u64, RangeError> {
    let number = gotext::atoi(text).map_err(|_| RangeError::Invalid)?;
    u64::try_from(number).map_err(|_| RangeError::Invalid)
}

/// The answer to ranges that cannot be served.
pub(super) fn refuse(error: &RangeError, size: u64) -> Response {
    let mut response = response::error(StatusCode::RANGE_NOT_SATISFIABLE, error.to_string());
    if *error == RangeError::NoOverlap
        && let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}"))
    {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_ranges() {
        let range = |start, length| ByteRange { start, length };
        for (header, expected) in [
            ("", Ok(vec![])),
            ("bytes=0-4", Ok(vec![range(0, 5)])),
            ("bytes=2-", Ok(vec![range(2, 8)])),
            ("bytes=-3", Ok(vec![range(7, 3)])),
            ("bytes=-30", Ok(vec![range(0, 10)])),
            ("bytes=5-50", Ok(vec![range(5, 5)])),
            ("bytes= 0 - 1 ,, 4-5 ", Ok(vec![range(0, 2), range(4, 2)])),
            ("bytes=0-1,20-30", Ok(vec![range(0, 2)])),
            ("bytes=0-,0-,0-", Ok(vec![])),
            ("bytes=10-", Err(RangeError::NoOverlap)),
            ("bytes=20-30", Err(RangeError::NoOverlap)),
            ("bytes=5-2", Err(RangeError::Invalid)),
            ("bytes=-", Err(RangeError::Invalid)),
            ("bytes=--1", Err(RangeError::Invalid)),
            ("bytes=x-1", Err(RangeError::Invalid)),
            ("bytes=1", Err(RangeError::Invalid)),
            ("lines=0-1", Err(RangeError::Invalid)),
        ] {
            assert_eq!(parse(header, 10), expected, "{header}");
        }
        assert_eq!(
            parse("bytes=0-1", 0),
            Ok(vec![]),
            "an empty file is served whole"
        );
    }

    #[test]
    fn names_ranges() {
        assert_eq!(
            ByteRange {
                start: 2,
                length: 3
            }
            .content_range(10),
            "bytes 2-4/10"
        );
    }
}
