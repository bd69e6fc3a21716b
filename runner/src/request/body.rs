//! The body of a request with errors that say what happened to it.

use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Why a body could not be read to its end.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BodyError {
    /// `read_timeout` ran out.
    #[error("read tcp {local}->{peer}: i/o timeout")]
    Timeout {
        /// Our address.
        local: SocketAddr,
        /// The client's.
        peer: SocketAddr,
    },
    /// The client closed the connection or broke off.
    #[error("unexpected EOF")]
    CutOff,
    /// The chunks are not what HTTP allows.
    #[error("malformed chunked encoding")]
    Malformed,
}

/// A request's body, one frame at a time as it arrives.
///
/// Dropping it tells the connection that the rest is not wanted: what is already here is skipped, and a connection on
/// which more would come is closed after the response.
#[derive(Debug)]
pub struct RequestBody {
    source: Source,
    peer: SocketAddr,
    local: SocketAddr,
}

#[derive(Debug)]
enum Source {
    Arriving(Incoming),
    Collected(Bytes),
    Ended,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            source: Source::Arriving(incoming),
            peer,
            local,
        }
    }

    pub(crate) fn empty(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            source: Source::Ended,
            peer,
            local,
        }
    }

    /// No body, of a request that no client sent.
    pub(crate) fn none() -> Self {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::empty(nobody, nobody)
    }

    /// Reads the next piece of data, skipping trailers.
    pub async fn data(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            match self.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(Ok(data)),
                    Err(_trailers) => {}
                },
                Err(cause) => return Some(Err(cause)),
            }
        }
    }

    /// Reads all of it into memory.
    ///
    /// # Errors
    /// The first error of the body; what came before it is dropped.
    pub async fn read_to_end(&mut self) -> Result<Bytes, BodyError> {
        let Some(first) = self.data().await.transpose()? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.data().await.transpose()? else {
            return Ok(first);
        };
        let mut all = Vec::with_capacity(first.len() + second.len());
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while let Some(data) = self.data().await {
            all.extend_from_slice(&data?);
        }
        Ok(all.into())
    }

    /// Reads all of it, so that it is a body of known length.
    ///
    /// # Errors
    /// The first error of the body.
    pub async fn collect(mut self) -> Result<Self, BodyError> {
        let all = self.read_to_end().await?;
        self.source = if all.is_empty() {
            Source::Ended
        } else {
            Source::Collected(all)
        };
        Ok(self)
    }

    fn classify(&self, error: &hyper::Error) -> BodyError {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(cause) = cause.downcast_ref::<std::io::Error>() {
                return match cause.kind() {
                    std::io::ErrorKind::TimedOut => BodyError::Timeout {
                        local: self.local,
                        peer: self.peer,
                    },
                    std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
                        BodyError::Malformed
                    }
                    _ => BodyError::CutOff,
                };
            }
            source = cause.source();
        }
        BodyError::CutOff
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let incoming = match &mut self.source {
            Source::Arriving(incoming) => incoming,
            Source::Collected(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Ended;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Source::Ended => return Poll::Ready(None),
        };
        match std::task::ready!(Pin::new(incoming).poll_frame(cx)) {
            Some(Err(error)) => {
                let error = self.classify(&error);
                self.source = Source::Ended;
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Arriving(incoming) => incoming.is_end_stream(),
            Source::Collected(_) => false,
            Source::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Arriving(incoming) => incoming.size_hint(),
            Source::Collected(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Ended => SizeHint::with_exact(0),
        }
    }
}
