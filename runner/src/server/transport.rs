//! The byte stream under the HTTP parser: it applies the read and write time-outs of Go's server, lets the framing
//! tracker see every byte first, and closes so that a client that is still sending can read the answer.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::connection::ConnectionState;
use super::framing::{FramingTracker, Phase};

/// How long a connection with unread request bytes is kept half-open after the response, as in Go's server.
const LINGER: Duration = Duration::from_millis(500);

/// A client connection.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    state: Arc<ConnectionState>,
    framing: FramingTracker,
    read_timeout: Option<Duration>,
    /// When the request that is being read began.
    request_began: Instant,
    /// The request for which an end of the client's side has been held back.
    end_held_for: u64,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Transport {
    pub(super) fn new(
        stream: TcpStream,
        state: Arc<ConnectionState>,
        read_timeout: Option<Duration>,
    ) -> Self {
        Self {
            stream,
            state,
            framing: FramingTracker::new(),
            read_timeout,
            request_began: Instant::now(),
            end_held_for: 0,
            read_timer: None,
            write_timer: None,
            linger: None,
        }
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

    /// Ready when the read deadline has passed. The timer is left alone while it is due earlier than the deadline,
    /// so that a busy connection does not arm one for each request.
    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.read_deadline() else {
            return Poll::Pending;
        };
        poll_deadline(&mut self.read_timer, deadline, cx)
    }

    fn poll_write_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.state.write_deadline() else {
            return Poll::Pending;
        };
        poll_deadline(&mut self.write_timer, deadline, cx)
    }

    fn check_write_deadline(&self) -> io::Result<()> {
        match self.state.write_deadline() {
            Some(deadline) if deadline <= Instant::now() => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

/// Ready when `deadline` has passed; otherwise the task is woken at the latest then.
fn poll_deadline(
    timer: &mut Option<Pin<Box<Sleep>>>,
    deadline: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
    if timer.deadline() > deadline.into() {
        timer.as_mut().reset(deadline.into());
    }
    loop {
        ready!(timer.as_mut().poll(cx));
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        timer.as_mut().reset(deadline.into());
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let phase = this.framing.phase();
        // A slow sender must not outrun the limit byte by byte, so it is checked even when there is data.
        let expired = matches!(phase, Phase::Head | Phase::Body)
            && this
                .read_deadline()
                .is_some_and(|deadline| deadline <= Instant::now());
        let before = buf.filled().len();
        if expired || Pin::new(&mut this.stream).poll_read(cx, buf)?.is_pending() {
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
        let heads = this.framing.complete_heads();
        if data.is_empty() && heads > this.state.begun() && heads != this.end_held_for {
            // The parser would take a client that only closes its sending side for one that has left, even before it
            // has handed the request on. What can be answered at once is answered first.
            this.end_held_for = heads;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if phase == Phase::Idle && !data.is_empty() {
            this.request_began = Instant::now();
        }
        this.framing.inspect(data);
        if phase == Phase::Body && this.framing.phase() == Phase::Head {
            // Bytes of the next request came along with the end of this one.
            this.request_began = Instant::now();
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
        match Pin::new(&mut self.stream).poll_write(cx, data) {
            Poll::Pending => self
                .poll_write_deadline(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready => ready,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_write_deadline()?;
        match Pin::new(&mut self.stream).poll_write_vectored(cx, data) {
            Poll::Pending => self
                .poll_write_deadline(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready => ready,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closes our side; where the client is in the middle of a request, reads on for a while, since closing with
    /// unread bytes would reset the connection and could take the answer with it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
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
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
