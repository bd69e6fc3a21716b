//! The receiving side of a connection, and how a client that has nothing more to send is watched.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

/// What a client sends.
pub(super) struct Input {
    /// Gone once the connection is watched for its failure.
    half: Option<OwnedReadHalf>,
    /// Resolves when the connection has failed. A socket whose input has ended reads as ended for ever, also after a
    /// reset, so that reading it tells nothing more.
    failure: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("half", &self.half).finish()
    }
}

impl Input {
    pub(super) fn new(half: OwnedReadHalf) -> Self {
        Self {
            half: Some(half),
            failure: None,
        }
    }

    /// Reads what has come; nothing is the end of the input.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.half {
            Some(half) => Pin::new(half).poll_read(cx, buf),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Whether the input has ended, and the connection is watched for its failure.
    pub(super) fn is_watched(&self) -> bool {
        self.half.is_none()
    }

    /// Ready when the connection has failed, as by a reset. To be asked once the input has ended.
    pub(super) fn poll_failure(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(half) = self.half.take() {
            self.failure = Some(Box::pin(async move {
                // An error means that nothing can be waited for any more: the runtime ends.
                let _ = half.ready(Interest::ERROR).await;
            }));
        }
        let Some(failure) = &mut self.failure else {
            return Poll::Ready(());
        };
        let failed = failure.as_mut().poll(cx);
        if failed.is_ready() {
            self.failure = None;
        }
        failed
    }
}
