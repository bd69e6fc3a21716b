//! The text of request targets: percent escapes, and bytes that no URI has but that clients send.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether clients send this byte in targets, and Go's server takes it, although the HTTP library's URIs cannot have it.
pub(crate) fn is_outside_uri(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`' | 0x80..)
}

/// The target as a URI can have it: with escapes for the bytes that it cannot.
pub(crate) fn within_uri(target: &str) -> Cow<'_, str> {
    if target.bytes().any(is_outside_uri) {
        escaped(target.as_bytes(), is_outside_uri).into()
    } else {
        target.into()
    }
}

/// The bytes of a target as text. Bytes that are no text get escapes, so that they are the same when decoded.
pub(crate) fn text(target: Vec<u8>) -> String {
    String::from_utf8(target)
        .unwrap_or_else(|error| escaped(error.as_bytes(), |byte| !byte.is_ascii()))
}

fn escaped(target: &[u8], is_escaped: fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(target.len() + 8);
    for byte in target {
        if is_escaped(*byte) {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        } else {
            text.push(char::from(*byte));
        }
    }
    text
}

/// Whether every percent escape is a well-formed one.
pub(crate) fn has_valid_escapes(path: &str) -> bool {
    path.split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

/// Decodes percent escapes; text after a lone `%` stays as it is.
pub(crate) fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                decoded.push(hex_value(*high) << 4 | hex_value(*low));
                rest = tail;
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

/// The value of a hexadecimal digit; other bytes count as zero.
fn hex_value(digit: u8) -> u8 {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_escapes() {
        for (text, decoded) in [
            ("/a%20b", "/a b"),
            ("%zz%4", "%zz%4"),
            ("%2E%2e", ".."),
            ("", ""),
        ] {
            assert_eq!(
                percent_decode(text.as_bytes()),
                decoded.as_bytes(),
                "{text}"
            );
        }
    }

    #[test]
    fn knows_valid_escapes() {
        for (path, valid) in [
            ("/a", true),
            ("/%2f%41", true),
            ("/%", false),
            ("/%4", false),
            ("/%zz", false),
            ("/%%20", false),
        ] {
            assert_eq!(has_valid_escapes(path), valid, "{path}");
        }
    }

    #[test]
    fn escapes_what_a_uri_cannot_have() {
        assert_eq!(within_uri("/a?b={c}|^\\"), "/a?b={c}|^\\");
        assert_eq!(within_uri("/<ä>\"`#"), "/%3C%C3%A4%3E%22%60%23");
        assert_eq!(text("/ä<".into()), "/ä<");
        assert_eq!(text(b"/\xe4<".to_vec()), "/%E4<");
    }
}
