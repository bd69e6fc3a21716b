//! Fuzzing of the headers that static mode reads, and of content sniffing.
#![allow(clippy::expect_used, reason = "a panic is how a fuzz target fails")]

use std::time::Instant;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::conditions::{self, Modified, Verdict};
use super::range;
use crate::request::RequestHead;
use crate::sniff;

/// Takes bytes as the headers of a request for a file, and as the file.
///
/// # Panics
///
/// If a range does not lie within the file, or a content type depends on bytes beyond the sniffed prefix.
pub fn file_request(bytes: &[u8]) {
    let Some((size, text)) = bytes.split_first_chunk() else {
        return;
    };
    // Sizes of every magnitude.
    let size = u64::from_le_bytes(*size) >> (size[7] % 64);
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.append(name, value);
        }
    }
    let head = RequestHead {
        method: Method::GET,
        target: "/".to_owned(),
        path: "/".to_owned(),
        query: None,
        host: None,
        headers,
        version: Version::HTTP_11,
        peer: ([0, 0, 0, 0], 0).into(),
        local: ([0, 0, 0, 0], 0).into(),
        received: Instant::now(),
    };
    let modified = Modified::new(Some(size));
    assert!(modified.header_value().is_none_or(|date| date.len() == 29));
    if let Verdict::Proceed { range } = conditions::check(&head, modified) {
        ranges(range, size);
    }
    if let Ok(text) = std::str::from_utf8(text) {
        ranges(text, size);
    }
    let _ = crate::server::takes_gzip(&head.headers);

    let kind = sniff::content_type(text);
    assert!(HeaderValue::from_str(kind).is_ok() && kind.contains('/'));
    let beginning = &text[..text.len().min(sniff::SNIFF_LENGTH)];
    assert_eq!(sniff::content_type(beginning), kind);
}

fn ranges(header: &str, size: u64) {
    let ranges = match range::parse(header, size) {
        Ok(ranges) => ranges,
        Err(error) => {
            assert!(range::refuse(&error, size).status() == 416);
            return;
        }
    };
    let mut total = 0_u64;
    for range in &ranges {
        let end = range.start.checked_add(range.length);
        assert!(end.is_some_and(|end| end <= size), "{range:?} of {size}");
        assert!(
            range.length > 0 || range.start == size,
            "{range:?} of {size}"
        );
        total = total.checked_add(range.length).expect("more than there is");
        assert!(HeaderValue::from_str(&range.content_range(size)).is_ok());
    }
    assert!(total <= size, "{ranges:?} of {size}");
}
