//! Guesses a content type from the first bytes of a body, by the WHATWG algorithm as Go implements it.

/// How many bytes count.
pub const SNIFF_LENGTH: usize = 512;

/// The content type of a body that begins with `data`.
#[must_use]
pub fn content_type(data: &[u8]) -> &'static str {
    let data = &data[..data.len().min(SNIFF_LENGTH)];
    let text = data
        .iter()
        .position(|b| !is_space(*b))
        .map_or(&[][..], |first| &data[first..]);
    MARKUP
        .iter()
        .find(|tag| is_tag(text, tag))
        .map(|_| HTML)
        .or_else(|| {
            text.starts_with(b"<?xml")
                .then_some("text/xml; charset=utf-8")
        })
        .or_else(|| {
            EXACT
                .iter()
                .find(|(prefix, _)| data.starts_with(prefix))
                .map(|(_, kind)| *kind)
        })
        .or_else(|| {
            MASKED
                .iter()
                .find(|masked| masked.matches(data))
                .map(|masked| masked.kind)
        })
        .or_else(|| is_mp4(data).then_some("video/mp4"))
        .unwrap_or_else(|| {
            if data.iter().any(|b| is_binary(*b)) {
                OCTET_STREAM
            } else {
                TEXT
            }
        })
}

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const OCTET_STREAM: &str = "application/octet-stream";

/// Beginnings of HTML, in upper case; a space or `>` must follow.
const MARKUP: [&[u8]; 17] = [
    b"<!DOCTYPE HTML",
    b"<HTML",
    b"<HEAD",
    b"<SCRIPT",
    b"<IFRAME",
    b"<H1",
    b"<DIV",
    b"<FONT",
    b"<TABLE",
    b"<A",
    b"<STYLE",
    b"<TITLE",
    b"<B",
    b"<BODY",
    b"<BR",
    b"<P",
    b"<!--",
];

const EXACT: [(&[u8], &str); 22] = [
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xfe\xff", "text/plain; charset=utf-16be"),
    (b"\xff\xfe", "text/plain; charset=utf-16le"),
    (b"\xef\xbb\xbf", TEXT),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"ID3", "audio/mpeg"),
    (b"OggS\0", "application/ogg"),
    (b"MThd\0\0\0\x06", "audio/midi"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"\0\x01\0\0", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
];

/// A signature with bytes that may be anything, which are zero in the mask.
struct Masked {
    pattern: &'static [u8],
    mask: &'static [u8],
    kind: &'static str,
}

impl Masked {
    fn matches(&self, data: &[u8]) -> bool {
        data.len() >= self.pattern.len()
            && self
                .pattern
                .iter()
                .zip(self.mask)
                .zip(data)
                .all(|((pattern, mask), byte)| byte & mask == *pattern)
    }
}

const SKIP_FOUR: &[u8] = b"\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff";

const MASKED: [Masked; 8] = [
    Masked {
        pattern: b"RIFF\0\0\0\0WEBPVP",
        mask: b"\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\xff\xff",
        kind: "image/webp",
    },
    Masked {
        pattern: b"FORM\0\0\0\0AIFF",
        mask: SKIP_FOUR,
        kind: "audio/aiff",
    },
    Masked {
        pattern: b"RIFF\0\0\0\0AVI ",
        mask: SKIP_FOUR,
        kind: "video/avi",
    },
    Masked {
        pattern: b"RIFF\0\0\0\0WAVE",
        mask: SKIP_FOUR,
        kind: "audio/wave",
    },
    Masked {
        pattern: b"PK\x03\x04",
        mask: b"\xff\xff\xff\xff",
        kind: "application/zip",
    },
    Masked {
        pattern: b"Rar!\x1a\x07\0",
        mask: b"\xff\xff\xff\xff\xff\xff\xff",
        kind: "application/x-rar-compressed",
    },
    Masked {
        pattern: b"Rar!\x1a\x07\x01\0",
        mask: b"\xff\xff\xff\xff\xff\xff\xff\xff",
        kind: "application/x-rar-compressed",
    },
    Masked {
        pattern: b"\0asm",
        mask: b"\xff\xff\xff\xff",
        kind: "application/wasm",
    },
];

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ')
}

fn is_tag(text: &[u8], tag: &[u8]) -> bool {
    text.len() > tag.len()
        && text[..tag.len()].eq_ignore_ascii_case(tag)
        && matches!(text[tag.len()], b' ' | b'>')
}

/// A box of type `ftyp` with an `mp4` brand.
fn is_mp4(data: &[u8]) -> bool {
    let Some(size) = data
        .first_chunk::<4>()
        .map(|size| u32::from_be_bytes(*size) as usize)
    else {
        return false;
    };
    if data.len() < 12 || size > data.len() || size % 4 != 0 || &data[4..8] != b"ftyp" {
        return false;
    }
    // The fourth word is the minor version, not a brand.
    (8..size)
        .step_by(4)
        .filter(|at| *at != 12)
        .any(|at| data[at..].starts_with(b"mp4"))
}

fn is_binary(byte: u8) -> bool {
    matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_like_go() {
        for (data, kind) in [
            (&b""[..], TEXT),
            (b"hello\n", TEXT),
            (b"  \n<!doctype html>", HTML),
            (b"<HTML>", HTML),
            (b"<html", TEXT),
            (b"<p class=x>", HTML),
            (b"<pre>", TEXT),
            (b"<?xml version='1.0'?>", "text/xml; charset=utf-8"),
            (b"{\"a\":1}", TEXT),
            (b"\x00\x01\x02", OCTET_STREAM),
            (b"\x89PNG\r\n\x1a\n....", "image/png"),
            (b"RIFF\x01\x02\x03\x04WEBPVP8 ", "image/webp"),
            (b"RIFF\x01\x02\x03\x04WAVEfmt ", "audio/wave"),
            (b"\0\0\0\x18ftypisom\0\0\x02\0mp41avc1", "video/mp4"),
            (b"\x1f\x8b\x08\x00", "application/x-gzip"),
            (b"\0asm\x01\0\0\0", "application/wasm"),
            ("caf\u{e9}".as_bytes(), TEXT),
        ] {
            assert_eq!(content_type(data), kind, "{data:?}");
        }
    }

    #[test]
    fn only_the_beginning_counts() {
        let mut data = vec![b'a'; SNIFF_LENGTH];
        data.push(0);
        assert_eq!(content_type(&data), TEXT);
    }
}
