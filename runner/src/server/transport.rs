//! The byte stream under the HTTP parser: it applies the read and write time-outs of Go's server, lets the framing
//! tracker see every byte first, and closes so that a client that is still sending can read the answer.
//!
//! The parser makes room for the most header lines that it takes at each request, used or not. So a connection begins
//! with a parser for as many as are usual. When a head comes that has more, or does not come in one piece, the
//! transport keeps it back and ends that parser, between two requests; the next parser takes as many as are allowed. The
//! same is done before a request for another protocol: a parser that has had one can only be ended for that.
//!
//! A client may close its sending side behind a complete request and wait for the answer. To the parser the end of the
//! input is the end of the client, so the transport withholds it until every complete request is answered. Until then
//! only a failure of the connection, such as a reset, shows that the client is gone.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::connection::ConnectionState;
use super::framing::{FramingTracker, Phase};
use super::input::Input;
use super::timer::LazyTimer;

/// How long a connection with unread request bytes is kept half-open after the response, as in Go's server.
const LINGER: Duration = Duration::from_millis(500);
/// Pieces of so many bytes in all are written as one: the system's call for several takes longer than to copy them.
const SMALL: usize = 1024;

/// A client connection.
#[derive(Debug)]
pub(super) struct Transport {
    input: Input,
    output: OwnedWriteHalf,
    /// To be open, also as a raw one.
    _permit: OwnedSemaphorePermit,
    state: Arc<ConnectionState>,
    framing: FramingTracker,
    /// Most header lines of the heads that are handed on; without it all are, also in pieces.
    most_lines: Option<u32>,
    /// What was read and is kept back: a head that is not for this parser, or what follows a request for another
    /// protocol; and all that came with it.
    kept: Vec<u8>,
    /// The parser was told of an end, so that there can be another one for what is kept.
    parser_ended: bool,
    /// The last write has to wait for the client.
    write_waits: bool,
    read_timeout: Option<Duration>,
    /// When the request that is being read began.
    request_began: Instant,
    read_timer: LazyTimer,
    write_timer: LazyTimer,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Transport {
    pub(super) fn new(
        stream: TcpStream,
        permit: OwnedSemaphorePermit,
        state: Arc<ConnectionState>,
        read_timeout: Option<Duration>,
        most_lines: Option<u32>,
    ) -> Self {
        let (input, output) = stream.into_split();
        Self {
            input: Input::new(input),
            output,
            _permit: permit,
            state,
            framing: FramingTracker::new(),
            most_lines,
            kept: Vec::new(),
            parser_ended: false,
            write_waits: false,
            read_timeout,
            request_began: Instant::now(),
            read_timer: LazyTimer::default(),
            write_timer: LazyTimer::default(),
            linger: None,
        }
    }

    /// Whether the parser ended for no other reason than a head that was not for it.
    pub(super) fn wants_larger_parser(&self) -> bool {
        self.parser_ended
    }

    /// Hands on every head from now on.
    pub(super) fn accept_all_heads(mut self) -> Self {
        self.most_lines = None;
        self.parser_ended = false;
        self
    }

    /// Whether every request that was handed on has been answered, and that is written.
    fn is_answered(&self) -> bool {
        self.framing.complete_heads() == self.state.begun()
            && !self.state.is_serving()
            && !self.write_waits
    }

    /// A request's first bytes are here.
    fn begin_request(&mut self) {
        self.request_began = Instant::now();
        self.expect_error(self.request_began);
    }

    /// Bytes of a head came `now`. If they are none of HTTP, that is answered before there is a request.
    fn expect_error(&self, now: Instant) {
        if self.is_answered() {
            self.state.renew_write_deadline(now);
        }
    }

    /// Gives what was kept back to the parser that takes it, and lets another one end.
    fn poll_read_kept(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let waits = self.most_lines.is_some() || self.framing.phase() == Phase::Opaque;
        if waits && !self.is_answered() {
            // The parser looks again when it has answered, and `written` makes it look when it has written that.
            return Poll::Pending;
        }
        self.begin_request();
        let length = self.kept.len().min(buf.remaining());
        let before = buf.filled().len();
        buf.put_slice(&self.kept[..length]);
        let handed_on = self.inspect(&mut buf.filled_mut()[before..]);
        buf.set_filled(before + handed_on);
        self.kept.drain(..handed_on);
        self.parser_ended = handed_on == 0;
        Poll::Ready(Ok(()))
    }

    /// Reads what is not HTTP any more.
    fn poll_read_raw(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.kept.is_empty() {
            return self.input.poll_read(cx, buf);
        }
        let length = self.kept.len().min(buf.remaining());
        buf.put_slice(&self.kept[..length]);
        self.kept.drain(..length);
        Poll::Ready(Ok(()))
    }

    /// Reads what the client sends; nothing is its end, which is withheld from a client that waits for an answer.
    fn poll_input(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.input.poll_read(cx, buf))?;
        let has_ended = buf.filled().len() == before;
        if has_ended && self.framing.phase() != Phase::Body && !self.is_answered() {
            // Once that is answered, `written` makes the parser look again.
            ready!(self.input.poll_failure(cx));
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }

    /// Follows what was read; says how much of it to hand on.
    fn inspect(&mut self, data: &mut [u8]) -> usize {
        let handed_on = self.framing.inspect(data, self.most_lines);
        let disguises = self.framing.take_disguises();
        if !disguises.is_empty() {
            self.state.add_disguises(disguises);
        }
        handed_on
    }

    /// Takes note of how a write went.
    fn written(
        &mut self,
        result: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.write_waits = result.is_pending();
        if self.write_waits {
            return self
                .poll_write_deadline(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        if !self.kept.is_empty() || self.input.is_watched() {
            // The parser waits for more input, of which the socket has nothing to tell.
            cx.waker().wake_by_ref();
        }
        result
    }

    /// Until when the read that is pending may wait.
    fn read_deadline(&self) -> Option<Instant> {
        let timeout = self.read_timeout?;
        if self.state.is_raw() {
            return None;
        }
        match self.framing.phase() {
            Phase::Idle | Phase::Opaque if self.state.is_serving() => None,
            Phase::Idle | Phase::Opaque => Some(self.state.idle_since() + timeout),
            Phase::Head | Phase::Body => Some(self.request_began + timeout),
        }
    }

    /// Ready when the read deadline has passed.
    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.read_deadline() else {
            return Poll::Pending;
        };
        self.read_timer.poll(deadline, cx)
    }

    fn poll_write_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.state.write_deadline() else {
            return Poll::Pending;
        };
        self.write_timer.poll(deadline, cx)
    }

    fn check_write_deadline(&self) -> io::Result<()> {
        match self.state.write_deadline() {
            Some(deadline) if deadline <= Instant::now() => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.state.is_raw() {
            return this.poll_read_raw(cx, buf);
        }
        if this.framing.phase() == Phase::Opaque && this.is_answered() {
            this.framing.resume();
        }
        if !this.kept.is_empty() {
            return this.poll_read_kept(buf);
        }
        let phase = this.framing.phase();
        // A slow sender must not outrun the limit byte by byte, so it is checked even when there is data.
        let expired = matches!(phase, Phase::Head | Phase::Body)
            && this
                .read_deadline()
                .is_some_and(|deadline| deadline <= Instant::now());
        let before = buf.filled().len();
        if expired || this.poll_input(cx, buf)?.is_pending() {
            if !expired {
                ready!(this.poll_read_deadline(cx));
            }
            return Poll::Ready(match phase {
                Phase::Body => Err(io::ErrorKind::TimedOut.into()),
                // To the parser this is a client that has gone: it closes without an answer.
                Phase::Idle | Phase::Head | Phase::Opaque => Ok(()),
            });
        }
        let data = &mut buf.filled_mut()[before..];
        match phase {
            Phase::Idle if !data.is_empty() => this.begin_request(),
            Phase::Head => this.expect_error(Instant::now()),
            _ => {}
        }
        let handed_on = this.inspect(data);
        if phase == Phase::Body && this.framing.phase() == Phase::Head {
            // Bytes of the next request came along with the end of this one.
            this.begin_request();
        }
        if handed_on < data.len() {
            this.kept.extend_from_slice(&data[handed_on..]);
            buf.set_filled(before + handed_on);
            if handed_on == 0 {
                return this.poll_read_kept(buf);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_write_deadline()?;
        let result = Pin::new(&mut self.output).poll_write(cx, data);
        self.written(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_write_deadline()?;
        let output = Pin::new(&mut self.output);
        let result = if data.iter().map(|piece| piece.len()).sum::<usize>() <= SMALL {
            let mut whole = [0; SMALL];
            let mut length = 0;
            for piece in data {
                whole[length..length + piece.len()].copy_from_slice(piece);
                length += piece.len();
            }
            output.poll_write(cx, &whole[..length])
        } else {
            output.poll_write_vectored(cx, data)
        };
        self.written(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.output.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    /// Closes our side; where the client is in the middle of a request, reads on for a while, since closing with
    /// unread bytes would reset the connection and could take the answer with it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.parser_ended {
            // The connection goes on.
            return Poll::Ready(Ok(()));
        }
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.output).poll_shutdown(cx))?;
            if matches!(this.framing.phase(), Phase::Idle | Phase::Opaque) {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut scratch = [0; 4096];
        loop {
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(this.input.poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
