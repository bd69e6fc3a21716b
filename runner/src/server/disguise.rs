//! Request targets with bytes that no URI has. Clients send them and Go's server takes them, but the HTTP parser answers
//! with 400. So the transport puts other bytes in their places before the parser sees them, and the service puts them
//! back.

use crate::request::target;

/// What the parser sees instead.
const STAND_IN: u8 = b'_';

/// Bytes of a target, by their place in it, in whose stead the parser has seen others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disguise(Vec<(usize, u8)>);

impl Disguise {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The target as it was sent.
    pub(super) fn undo(&self, target: &str) -> String {
        let mut bytes = target.as_bytes().to_vec();
        for (place, byte) in &self.0 {
            if let Some(stand_in) = bytes.get_mut(*place) {
                *stand_in = *byte;
            }
        }
        target::text(bytes)
    }
}

/// Follows a request line, which may come in pieces.
#[derive(Debug, Default)]
pub(super) struct RequestLine {
    length: usize,
    /// Where the target begins: behind the first space.
    target: Option<usize>,
    is_path: bool,
    disguise: Disguise,
}

impl RequestLine {
    /// Disguises the next bytes of the line.
    pub(super) fn disguise(&mut self, piece: &mut [u8]) {
        for byte in piece {
            match self.target {
                None if *byte == b' ' => self.target = Some(self.length + 1),
                None => {}
                Some(begin) if begin == self.length => self.is_path = *byte == b'/',
                Some(begin) if self.is_path && target::is_outside_uri(*byte) => {
                    self.disguise.0.push((self.length - begin, *byte));
                    *byte = STAND_IN;
                }
                Some(_) => {}
            }
            self.length += 1;
        }
    }

    /// Undoes it in the line, which is whole.
    pub(super) fn reveal(&self, line: &mut [u8]) {
        let begin = self.target.unwrap_or_default();
        for (place, byte) in &self.disguise.0 {
            line[begin + place] = *byte;
        }
    }

    /// The end of the line's request.
    pub(super) fn take(&mut self) -> Disguise {
        std::mem::take(self).disguise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_come_back_as_they_were() {
        for (line, seen, target) in [
            ("GET /a?b HTTP/1.1\r", "GET /a?b HTTP/1.1\r", "/a?b"),
            (
                "GET /<ä>?\"`#x HTTP/1.1\r",
                "GET /____?___x HTTP/1.1\r",
                "/<ä>?\"`#x",
            ),
            // These are not for a function; the parser decides.
            ("GET <a>/< HTTP/1.1", "GET <a>/< HTTP/1.1", "<a>/<"),
            ("G<T /a HTTP/1.1", "G<T /a HTTP/1.1", "/a"),
        ] {
            let mut bytes = line.as_bytes().to_vec();
            let mut whole = RequestLine::default();
            whole.disguise(&mut bytes);
            assert_eq!(bytes, seen.as_bytes(), "{line}");
            let mut revealed = bytes.clone();
            whole.reveal(&mut revealed);
            assert_eq!(revealed, line.as_bytes());
            let seen_target = seen.split(' ').nth(1).expect("a target");
            let disguise = whole.take();
            assert_eq!(disguise.undo(seen_target), target);

            let mut cut = RequestLine::default();
            for byte in line.as_bytes() {
                cut.disguise(&mut [*byte]);
            }
            assert_eq!(cut.take(), disguise, "{line}");
        }
    }
}
