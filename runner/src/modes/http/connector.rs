//! Connections to the child that know whether they have carried a request, so that a failure on one that was kept,
//! and that the child may just have closed, is told from a failure on a new one.

use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{
    CaptureConnection, Connected, Connection, HttpConnector,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::modes::BoxFuture;

/// Whether a connection has carried a request to its answer.
#[derive(Clone, Debug, Default)]
struct Used(Arc<AtomicBool>);

/// Notes an answer on the connection of a request.
pub(super) fn note_answer(capture: &CaptureConnection) {
    if let Some(Used(used)) = used(capture) {
        used.store(true, Ordering::Relaxed);
    }
}

/// Whether the connection of a request had carried another one before.
pub(super) fn was_used(capture: &CaptureConnection) -> bool {
    used(capture).is_some_and(|Used(used)| used.load(Ordering::Relaxed))
}

fn used(capture: &CaptureConnection) -> Option<Used> {
    let mut extras = Extensions::new();
    capture
        .connection_metadata()
        .as_ref()?
        .get_extras(&mut extras);
    extras.remove()
}

/// Connects to the child.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    inner: HttpConnector,
}

impl Connector {
    pub(super) fn new(inner: HttpConnector) -> Self {
        Self { inner }
    }
}

impl Service<Uri> for Connector {
    type Response = UpstreamConnection;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = BoxFuture<Result<UpstreamConnection, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        Box::pin(async move {
            Ok(UpstreamConnection {
                stream: connecting.await?,
                used: Used::default(),
            })
        })
    }
}

/// A connection to the child.
#[derive(Debug)]
pub(super) struct UpstreamConnection {
    stream: TokioIo<TcpStream>,
    used: Used,
}

impl Connection for UpstreamConnection {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.used.clone())
    }
}

impl Read for UpstreamConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for UpstreamConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
