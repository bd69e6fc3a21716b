//! Follows where one request ends and the next begins in a connection's bytes, and finds framing that two readers
//! could understand differently: Content-Length beside Transfer-Encoding, a Transfer-Encoding other than `chunked`,
//! repeated lengths, malformed chunks. It changes nothing that is well-formed and parses nothing else.
//!
//! ```text
//!            first byte          empty line, no body
//!   Idle ----------------> Head --------------------> Idle
//!                           | Content-Length n          ^
//!                           +--------> Fixed(n) --------+
//!                           | chunked                   | last trailer line
//!                           +--------> Chunk... --------+
//!                                                                    Idle
//! end of a request with Upgrade ----> Opaque --------------------------^
//!                                        it was answered as any other
//! ```
//! What follows a request for another protocol is of that protocol if it is switched to, and of HTTP if not. So it is
//! left out until that is known.
//!
//! The HTTP parser behind it drops a Content-Length that it finds beside chunked, as RFC 9112 allows; that is why
//! the check has to see the bytes first.

use super::disguise::{Disguise, RequestLine};

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

/// Longest prefix of a line that is kept across reads; no line that matters is longer.
const LINE_PREFIX: usize = 128;

/// Where in a request a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Idle,
    /// Within a head.
    Head,
    /// Within a body.
    Body,
    /// Behind a request for another protocol: what follows is not to be understood as requests, unless the tracker is
    /// told to [`resume`](FramingTracker::resume).
    Opaque,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Head,
    Fixed(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Opaque,
    Rejected,
}

/// The framing of the request whose head is being read.
#[derive(Clone, Copy, Debug, Default)]
struct HeadFraming {
    lengths: u32,
    length: u64,
    encodings: u32,
    upgrade: bool,
    lines: u32,
    ambiguous: bool,
}

/// The tracker of one connection.
#[derive(Debug)]
pub(super) struct FramingTracker {
    state: State,
    head: HeadFraming,
    /// The beginning of a line that has not ended yet.
    line: Vec<u8>,
    line_overflowed: bool,
    complete_heads: u64,
    request_line: RequestLine,
    /// Disguised targets that nobody has been told of, each with the number of its head.
    disguises: Vec<(u64, Disguise)>,
}

impl FramingTracker {
    pub(super) fn new() -> Self {
        Self {
            state: State::Idle,
            head: HeadFraming::default(),
            line: Vec::new(),
            line_overflowed: false,
            complete_heads: 0,
            request_line: RequestLine::default(),
            disguises: Vec::new(),
        }
    }

    /// How many request heads have come to their end.
    pub(super) fn complete_heads(&self) -> u64 {
        self.complete_heads
    }

    /// Tells once of targets in complete heads that are not as they were sent.
    pub(super) fn take_disguises(&mut self) -> Vec<(u64, Disguise)> {
        std::mem::take(&mut self.disguises)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.state {
            State::Idle => Phase::Idle,
            State::Head | State::Rejected => Phase::Head,
            State::Fixed(_)
            | State::ChunkSize
            | State::ChunkData(_)
            | State::ChunkEnd
            | State::Trailers => Phase::Body,
            State::Opaque => Phase::Opaque,
        }
    }

    /// Follows the next bytes of the connection, and says how many of them to hand on.
    ///
    /// What follows a request for another protocol is left out. With `most_lines` a head that is not complete in
    /// `data`, has more header lines, or asks for another protocol, is left out with all that follows it, as if it had
    /// not been seen.
    ///
    /// Where their framing is ambiguous and the request's head has not been handed on completely, the rest of `data`
    /// is [spoiled](spoil): the client gets 400 and the connection ends.
    pub(super) fn inspect(&mut self, data: &mut [u8], most_lines: Option<u32>) -> usize {
        let seen = self.follow(data, most_lines);
        if seen < data.len() && self.state != State::Opaque {
            // The bytes that are left out begin with a request, perhaps after empty lines.
            let empty = empty_lines(&data[seen..]);
            self.request_line.reveal(&mut data[seen + empty..]);
            self.request_line.take();
            self.state = State::Idle;
            self.line.clear();
            self.line_overflowed = false;
        }
        seen
    }

    /// Behind a request for another protocol there is another request.
    pub(super) fn resume(&mut self) {
        self.state = State::Idle;
    }

    /// Does the work of [`inspect`](Self::inspect), but for forgetting what is left out.
    fn follow(&mut self, data: &mut [u8], most_lines: Option<u32>) -> usize {
        let whole = data.len();
        let mut position = 0;
        // Where the current request begins in `data`; 0 if it began before.
        let mut request_start = 0;
        let mut head_is_here = matches!(self.state, State::Idle | State::Head);
        while position < data.len() {
            let rest = &data[position..];
            match self.state {
                State::Opaque => return position,
                State::Rejected => {
                    spoil(&mut data[position..]);
                    return whole;
                }
                State::Idle => {
                    request_start = position;
                    head_is_here = true;
                    self.head = HeadFraming::default();
                    self.state = State::Head;
                }
                State::Fixed(left) => {
                    let step = left.min(rest.len() as u64);
                    self.state = if step == left {
                        after_request(self.head)
                    } else {
                        State::Fixed(left - step)
                    };
                    // `step` is at most the length of a slice.
                    position += step as usize;
                }
                State::ChunkData(left) => {
                    let step = left.min(rest.len() as u64);
                    self.state = if step == left {
                        State::ChunkEnd
                    } else {
                        State::ChunkData(left - step)
                    };
                    position += step as usize;
                }
                State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    let end = memchr::memchr(b'\n', rest);
                    if self.state == State::Head && self.head.lines == 0 {
                        let line_end = end.map_or(whole, |end| position + end);
                        self.request_line.disguise(&mut data[position..line_end]);
                    }
                    let rest = &data[position..];
                    let Some(end) = end else {
                        self.keep(rest);
                        break;
                    };
                    let next = if self.line.is_empty() && !self.line_overflowed {
                        line_end(self.state, &mut self.head, &rest[..end], false)
                    } else {
                        self.keep(&data[position..position + end]);
                        let next =
                            line_end(self.state, &mut self.head, &self.line, self.line_overflowed);
                        self.line.clear();
                        self.line_overflowed = false;
                        next
                    };
                    if self.state == State::Head && self.head.lines == 0 {
                        // The line was empty, and the request's own is still to come.
                        self.request_line.take();
                    }
                    position += end + 1;
                    if self.state == State::Head && !matches!(next, State::Head | State::Rejected) {
                        // The first line is the request's.
                        let is_long = |most: u32| self.head.lines > most.saturating_add(1);
                        if most_lines.is_some_and(|most| is_long(most) || self.head.upgrade) {
                            return request_start;
                        }
                        self.complete_heads += 1;
                        let disguise = self.request_line.take();
                        if !disguise.is_empty() {
                            self.disguises.push((self.complete_heads, disguise));
                        }
                    }
                    self.state = next;
                    if next == State::Rejected {
                        if head_is_here {
                            spoil(&mut data[request_start..]);
                        }
                        return whole;
                    }
                }
            }
        }
        if self.state == State::Head && most_lines.is_some() {
            return request_start;
        }
        whole
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = LINE_PREFIX.saturating_sub(self.line.len());
        self.line_overflowed |= piece.len() > room;
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

/// Overwrites bytes with NUL, which no HTTP parser accepts. One that has a part of the head looks only when it has an
/// end of it too, so there is one, where it has room.
fn spoil(data: &mut [u8]) {
    data.fill(0);
    if let [_, .., before, last] = data {
        (*before, *last) = (b'\n', b'\n');
    }
}

/// Length of the empty lines at the beginning. A carriage return alone is part of a line.
fn empty_lines(data: &[u8]) -> usize {
    let mut rest = data;
    while let Some(next) = rest
        .strip_prefix(b"\n")
        .or_else(|| rest.strip_prefix(b"\r\n"))
    {
        rest = next;
    }
    data.len() - rest.len()
}

/// The state after a line, which is given without its newline.
fn line_end(state: State, head: &mut HeadFraming, line: &[u8], truncated: bool) -> State {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match state {
        State::ChunkSize => match chunk_size(line) {
            Some(0) => State::Trailers,
            Some(size) => State::ChunkData(size),
            None => State::Rejected,
        },
        State::ChunkEnd if line.is_empty() => State::ChunkSize,
        State::ChunkEnd => State::Rejected,
        State::Trailers if line.is_empty() => after_request(*head),
        State::Head if line.is_empty() && !truncated => {
            if head.lines == 0 {
                // Empty lines before a request line are skipped.
                return State::Head;
            }
            after_head(*head)
        }
        State::Head => {
            if head.lines > 0 {
                header_line(head, line, truncated);
            }
            head.lines = head.lines.saturating_add(1);
            State::Head
        }
        other => other,
    }
}

fn after_head(head: HeadFraming) -> State {
    if head.ambiguous || head.encodings > 1 || (head.encodings > 0 && head.lengths > 0) {
        return State::Rejected;
    }
    match (head.encodings, head.length) {
        (1.., _) => State::ChunkSize,
        (0, 0) => after_request(head),
        (0, length) => State::Fixed(length),
    }
}

fn after_request(head: HeadFraming) -> State {
    if head.upgrade {
        State::Opaque
    } else {
        State::Idle
    }
}

fn header_line(head: &mut HeadFraming, line: &[u8], truncated: bool) {
    let Some(colon) = line.iter().take(20).position(|b| *b == b':') else {
        return;
    };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.eq_ignore_ascii_case(b"content-length") {
        let length = decimal(value).filter(|_| !truncated);
        head.ambiguous |= length.is_none() || (head.lengths > 0 && length != Some(head.length));
        head.length = length.unwrap_or(0);
        head.lengths = head.lengths.saturating_add(1);
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        head.ambiguous |= truncated || !value.eq_ignore_ascii_case(b"chunked");
        head.encodings = head.encodings.saturating_add(1);
    } else if name.eq_ignore_ascii_case(b"upgrade") {
        head.upgrade = true;
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, b| {
        if !b.is_ascii_digit() {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })
}

/// The size in a chunk's first line; extensions are skipped.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let after = line[digits..].trim_ascii_start();
    if digits == 0 || digits > 16 || !(after.is_empty() || after.starts_with(b";")) {
        return None;
    }
    line[..digits].iter().try_fold(0_u64, |value, digit| {
        Some(value << 4 | u64::from(char::from(*digit).to_digit(16)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The phase after `text` and whether it was overwritten, the same however the text is cut.
    fn check(text: &str) -> (Phase, bool) {
        let mut whole = FramingTracker::new();
        let mut data = text.as_bytes().to_vec();
        assert_eq!(whole.inspect(&mut data, None), text.len());
        let rejected = data != text.as_bytes();

        let mut cut = FramingTracker::new();
        for byte in text.bytes() {
            cut.inspect(&mut [byte], None);
        }
        assert_eq!(whole.state, cut.state, "{text:?} depends on how it is cut");
        (whole.phase(), rejected)
    }

    #[test]
    fn finds_the_end_of_requests() {
        for (text, phase) in [
            ("", Phase::Idle),
            ("GET / HTTP/1.1\r\nHost: a\r\n", Phase::Head),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Phase::Idle),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Phase::Idle),
            ("GET / HTTP/1.1\nHost: a\n\n", Phase::Idle),
            (
                "POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\nabc",
                Phase::Body,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length:5 \r\n\r\nabcde",
                Phase::Idle,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
                Phase::Idle,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET",
                Phase::Head,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Phase::Body,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n",
                Phase::Idle,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: v\r\n",
                Phase::Body,
            ),
        ] {
            assert_eq!(check(text), (phase, false), "{text:?}");
        }
        let long = format!(
            "GET / HTTP/1.1\r\nCookie: {}\r\nContent-Length: 3\r\n\r\nabc",
            "x".repeat(5000)
        );
        assert_eq!(check(&long), (Phase::Idle, false));
    }

    #[test]
    fn rejects_ambiguous_framing() {
        for text in [
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        ] {
            assert_eq!(check(text), (Phase::Head, true), "{text:?}");
        }
    }

    #[test]
    fn disguises_what_no_uri_has() {
        let odd = "\r\nGET /<a> HTTP/1.1\r\nHost: <a>\r\n\r\n";
        let seen = odd.replacen("<a>", "_a_", 1);
        let mut tracker = FramingTracker::new();
        let mut data = format!("{odd}{odd}").into_bytes();
        assert_eq!(tracker.inspect(&mut data, None), 2 * odd.len());
        assert_eq!(data, format!("{seen}{seen}").as_bytes());
        let told = tracker.take_disguises();
        let told: Vec<_> = told
            .iter()
            .map(|(head, disguise)| (*head, disguise.undo("/_a_")))
            .collect();
        assert_eq!(told, [(1, "/<a>".to_owned()), (2, "/<a>".to_owned())]);
        assert_eq!(tracker.take_disguises(), []);

        // What is left out is seen again later.
        for (text, most) in [
            (odd, 0),
            (&odd[..30], 9),
            (&odd[..14], 9),
            // A carriage return alone is no empty line.
            ("\rGET /<", 9),
            ("\n\r\n\rGET /<a> HTTP/1.1", 9),
        ] {
            let mut data = text.as_bytes().to_vec();
            assert_eq!(tracker.inspect(&mut data, Some(most)), 0, "{text:?}");
            assert_eq!(data, text.as_bytes());
        }
        let mut data = odd.as_bytes().to_vec();
        assert_eq!(tracker.inspect(&mut data, None), odd.len());
        assert_eq!(data, seen.as_bytes());
        assert_eq!(tracker.take_disguises().len(), 1);
    }

    #[test]
    fn leaves_out_what_follows_an_upgrade() {
        let next = "GET /<a> HTTP/1.1\r\nContent-Length: x\r\n\r\n";
        for request in [
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "POST / HTTP/1.1\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n\r\n0\r\n\r\n",
        ] {
            let text = format!("{request}{next}");
            let mut tracker = FramingTracker::new();
            let mut data = text.clone().into_bytes();
            assert_eq!(tracker.inspect(&mut data, Some(9)), 0, "{request:?}");
            assert_eq!(tracker.inspect(&mut data, None), request.len());
            assert_eq!(data, text.as_bytes(), "nothing is overwritten");
            assert_eq!(tracker.phase(), Phase::Opaque, "{request:?}");
            assert_eq!(tracker.inspect(&mut data, None), 0);

            tracker.resume();
            let mut data = next.as_bytes().to_vec();
            assert_eq!(tracker.inspect(&mut data, None), next.len());
            assert!(data.starts_with(&[0; 9]), "{next:?} is ambiguous");
        }
    }

    #[test]
    fn leaves_out_heads_that_are_long_or_not_complete() {
        let short = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let long = "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nY: 2\r\n\r\n";
        for (text, handed_on) in [
            (short.to_owned(), short.len()),
            (long.to_owned(), 0),
            (format!("{short}{short}"), 2 * short.len()),
            (format!("{short}{long}{short}"), short.len()),
            (format!("{short}GET / HT"), short.len()),
            (format!("{short}\r\n"), short.len()),
            ("GET / HTTP/1.1\r\nHost: a\r\n".to_owned(), 0),
        ] {
            let mut tracker = FramingTracker::new();
            let mut data = text.clone().into_bytes();
            assert_eq!(tracker.inspect(&mut data, Some(2)), handed_on, "{text:?}");
            assert_eq!(tracker.phase(), Phase::Idle, "{text:?}");
            assert_eq!(data, text.as_bytes(), "nothing is overwritten");
            // What was left out is followed as if it were new.
            let mut cut = FramingTracker::new();
            cut.inspect(&mut data.clone(), None);
            tracker.inspect(&mut data[handed_on..], None);
            assert_eq!(tracker.state, cut.state, "{text:?}");
            assert_eq!(tracker.complete_heads(), cut.complete_heads(), "{text:?}");
        }
    }

    #[test]
    fn overwrites_only_the_rejected_request() {
        let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = "GET /bad HTTP/1.1\r\nContent-Length: x\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n";
        let mut data = format!("{good}{bad}").into_bytes();
        FramingTracker::new().inspect(&mut data, None);
        assert_eq!(&data[..good.len()], good.as_bytes());
        let left = data[good.len()..]
            .iter()
            .filter(|b| !matches!(b, 0 | b'\n'));
        assert_eq!(left.count(), 0);
    }
}
