//! Fuzzing of HTTP framing and of request targets. The framing tracker runs in lockstep with hyper, which parses the
//! same bytes.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::{FramingTracker, Phase, State};
use crate::request::{self, RequestHead, target};
use crate::server::disguise::RequestLine;
use crate::server::{path, service};

/// Feeds a connection's bytes to the tracker and to the parser, in step.
///
/// # Panics
///
/// If they disagree about where a request or a body ends, or the tracker depends on how the bytes are cut.
pub fn framing(bytes: &[u8]) {
    cuts(bytes);
    let both = Rc::new(RefCell::new(Both {
        bytes: bytes.to_vec(),
        at: 0,
        tracker: FramingTracker::new(),
        bodies: Vec::new(),
        handed_on: 0,
    }));
    let serve = service_fn(|request: http::Request<Incoming>| {
        let both = Rc::clone(&both);
        async move { Ok::<_, Infallible>(serve(request, &both).await) }
    });
    let connection = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_headers(super::super::MAX_HEADER_LINES)
        .serve_connection(Io(Rc::clone(&both)), serve);
    let mut connection = pin!(connection);
    let mut cx = Context::from_waker(Waker::noop());
    // Everything is there from the start, so that it ends after some turns or never.
    for _ in 0..16 + 4 * bytes.len() {
        if connection.as_mut().poll(&mut cx).is_ready() {
            return;
        }
    }
    panic!("the connection does not end");
}

/// One connection as tracker and parser see it.
struct Both {
    bytes: Vec<u8>,
    at: usize,
    tracker: FramingTracker,
    /// The bodies by the tracker, of all heads so far.
    bodies: Vec<Vec<u8>>,
    /// Requests by the parser.
    handed_on: u64,
}

impl Both {
    /// The next piece for the parser: a line, or a byte of a body, so that both are at one place when either finds
    /// an end.
    fn next(&mut self) -> Vec<u8> {
        if self.tracker.phase() == Phase::Opaque {
            // What follows is of another protocol.
            return Vec::new();
        }
        let rest = &self.bytes[self.at..];
        let body = matches!(self.tracker.state, State::Fixed(_) | State::ChunkData(_));
        let length = match memchr::memchr(b'\n', rest) {
            _ if body => 1,
            Some(end) => end + 1,
            None => rest.len(),
        };
        let mut piece = rest[..length.min(rest.len())].to_vec();
        self.at += piece.len();
        if body && let Some(last) = self.bodies.last_mut() {
            last.extend_from_slice(&piece);
        }
        let heads = self.tracker.complete_heads();
        let handed_on = self.tracker.inspect(&mut piece, None);
        piece.truncate(handed_on);
        if self.tracker.complete_heads() > heads {
            self.bodies.push(Vec::new());
        }
        piece
    }
}

async fn serve(
    request: http::Request<Incoming>,
    both: &RefCell<Both>,
) -> http::Response<Empty<Bytes>> {
    let number = {
        let mut both = both.borrow_mut();
        both.handed_on += 1;
        assert_eq!(
            both.handed_on,
            both.tracker.complete_heads(),
            "the parser has a request that the tracker has not, or has not yet"
        );
        both.handed_on as usize - 1
    };
    let (parts, body) = request.into_parts();
    let unknown = ([0, 0, 0, 0], 0).into();
    if let Ok(head) = service::check_head(parts, Instant::now(), unknown, unknown) {
        requests(head);
    }
    if let Ok(body) = body.collect().await {
        let both = both.borrow();
        assert!(
            matches!(both.tracker.phase(), Phase::Idle | Phase::Opaque),
            "the parser is at a request's end and the tracker at {:?}",
            both.tracker.state
        );
        assert_eq!(
            body.to_bytes(),
            both.bodies[number],
            "they read different bodies"
        );
    }
    let mut response = http::Response::new(Empty::new());
    // A switch of protocols has no place here, and 2xx is one in answer to CONNECT.
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    response
}

/// The connection as hyper wants it.
struct Io(Rc<RefCell<Both>>);

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut both = self.0.borrow_mut();
        let at = both.at;
        let room = buf.remaining();
        // A line that does not fit comes in pieces.
        let whole = std::mem::take(&mut both.bytes);
        both.bytes = whole[..whole.len().min(at + room)].to_vec();
        let piece = both.next();
        both.bytes = whole;
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The tracker is in the same state however the bytes are cut, and whatever it left out in between.
fn cuts(bytes: &[u8]) {
    let mut whole = FramingTracker::new();
    let all = whole.inspect(&mut bytes.to_vec(), None);
    let mut cut = FramingTracker::new();
    let mut seen = 0;
    for byte in bytes {
        seen += cut.inspect(&mut [*byte], None);
    }
    assert_eq!(whole.state, cut.state, "it depends on cuts");
    assert_eq!(whole.complete_heads(), cut.complete_heads());
    assert_eq!(all, seen);
    assert_eq!(whole.take_disguises(), cut.take_disguises());

    if matches!(whole.state, State::Rejected | State::Opaque) {
        return;
    }
    for most in [0, 1, 3] {
        let mut data = bytes.to_vec();
        let mut tracker = FramingTracker::new();
        let handed_on = tracker.inspect(&mut data, Some(most));
        assert_eq!(
            data[handed_on..],
            bytes[handed_on..],
            "what is left out is as it was"
        );
        let again = tracker.inspect(&mut data[handed_on..], None);
        assert_eq!(handed_on + again, bytes.len());
        assert_eq!(tracker.state, whole.state, "it depends on what is left out");
        assert_eq!(tracker.complete_heads(), whole.complete_heads());
    }
}

/// What is derived from a request's head.
fn requests(head: RequestHead) {
    paths(&head.path);
    let _ = head.execution_limit(crate::gotext::GoDuration::from_secs(1));
    let _ = (head.content_length(), head.is_chunked());
    let last: std::collections::BTreeMap<_, _> =
        request::request_environment(&head).into_iter().collect();
    let mut guest = request::guest_environment(&head);
    guest.sort();
    let mut expected: Vec<_> = last
        .iter()
        .map(|(name, value)| {
            let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
            [name.as_bytes(), b"=", value].concat()
        })
        .collect();
    expected.sort();
    assert_eq!(guest, expected, "guests and processes have other variables");
}

/// Request targets: disguise, escapes and path cleaning.
///
/// # Panics
///
/// If a target does not come back as it was, or a clean path is not clean.
pub fn request_target(bytes: &[u8]) {
    let mut line = bytes.to_vec();
    let mut whole = RequestLine::default();
    whole.disguise(&mut line);
    let mut revealed = line.clone();
    whole.reveal(&mut revealed);
    assert_eq!(revealed, bytes);
    let mut cut = RequestLine::default();
    let mut pieces = bytes.to_vec();
    for byte in &mut pieces {
        cut.disguise(std::slice::from_mut(byte));
    }
    assert_eq!(pieces, line);
    let disguise = whole.take();
    assert_eq!(cut.take(), disguise);
    if let Some(begin) = bytes.iter().position(|byte| *byte == b' ')
        && let Ok(seen) = std::str::from_utf8(&line[begin + 1..])
    {
        let sent = bytes[begin + 1..].to_vec();
        assert_eq!(disguise.undo(seen), target::text(sent));
    }

    let text = target::text(bytes.to_vec());
    let decoded = target::percent_decode(bytes);
    assert_eq!(target::percent_decode(text.as_bytes()), decoded);
    let within = target::within_uri(&text);
    assert_eq!(target::percent_decode(within.as_bytes()), decoded);
    assert!(!within.bytes().any(target::is_outside_uri));
    let is_plain = |byte: u8| byte.is_ascii_graphic() || byte >= 0x80;
    if text.starts_with('/') && text.bytes().all(is_plain) && text.len() < 60_000 {
        assert!(within.parse::<http::Uri>().is_ok(), "{within} is no URI");
    }
    paths(&text);
}

fn paths(text: &str) {
    let is_clean = |path: &str| {
        let mut segments = path.split('/');
        let first = segments.next();
        let segments: Vec<_> = segments.collect();
        let inner = &segments[..segments.len().saturating_sub(1)];
        first == Some("")
            && !segments.is_empty()
            && !inner.contains(&"")
            && !segments.iter().any(|segment| [".", ".."].contains(segment))
    };
    match path::cleaned(text) {
        None => assert!(is_clean(text), "{text}"),
        Some(clean) => {
            assert!(is_clean(&clean), "{text} gives {clean}");
            assert_eq!(path::cleaned(&clean), None);
            assert!(!is_clean(text), "{text} was clean");
        }
    }
    if path::is(text, "/_/health") {
        assert_eq!(target::percent_decode(text.as_bytes()), b"/_/health");
    }
    let _ = target::has_valid_escapes(text);
    let escaped = service::escape_html(text);
    assert!(!escaped.contains(['<', '>', '"', '\'']));
}
