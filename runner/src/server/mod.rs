//! The function server: listens, keeps connections within their limits, and routes requests.
//!
//! ```text
//! listen -> transport (time-outs, framing) -> HTTP parser -> service (routing, probes)
//!                                                              -> ticket (metrics, limit) -> tokens -> mode
//! ```
//! It knows nothing of what a mode does with a request.

mod connection;
mod disguise;
mod framing;
mod health;
mod input;
mod listen;
mod metrics_endpoint;
mod path;
mod service;
mod ticket;
mod timer;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use connection::ConnectionState;
#[cfg(feature = "fuzzing")]
pub(crate) use framing::fuzzing;
pub use health::Health;
pub use listen::{ListenError, bind};
pub use metrics_endpoint::serve_metrics;
#[cfg(feature = "fuzzing")]
pub(crate) use metrics_endpoint::takes_gzip;
pub(crate) use service::escape_html;
pub use service::{Service, ServiceOptions};
pub use ticket::Ticket;
pub use timer::LazyTimer;

use crate::log::Logger;
use transport::Transport;

/// Largest head of a request, with the slack that Go's server grants.
const MAX_HEAD_BYTES: usize = (1 << 20) + 4096;

/// Most header lines of a request.
const MAX_HEADER_LINES: usize = 2048;

/// Header lines that hyper takes if nothing else is said, without allocating room for them.
const USUAL_HEADER_LINES: u32 = 100;

/// The function server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    service: &'static Service,
    read_timeout: Option<Duration>,
    logger: Logger,
    /// One permit for each connection that may be open.
    connections: Arc<Semaphore>,
    /// Turns true when the server stops; each connection that speaks HTTP has a receiver.
    stopping: watch::Sender<bool>,
}

impl Server {
    /// A server on a listening socket, which does nothing before [`run`](Server::run).
    #[must_use]
    pub fn new(
        listener: TcpListener,
        service: &'static Service,
        read_timeout: Option<Duration>,
        max_connections: usize,
        logger: Logger,
    ) -> Self {
        let max_connections = max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            service,
            read_timeout,
            logger,
            connections: Arc::new(Semaphore::new(max_connections)),
            stopping: watch::Sender::new(false),
        }
    }

    /// Serves until `stop` resolves; then closes the listener and idle connections and waits at most `drain` for the
    /// active ones. Connections that became raw are not waited for.
    ///
    /// Returns whether all of them ended in time.
    pub async fn run(self, stop: impl Future<Output = ()>, drain: Option<Duration>) -> bool {
        let accept = listen::accept_loop(
            &self.listener,
            &self.connections,
            &self.logger,
            |stream, peer, permit| {
                tokio::spawn(serve_connection(
                    stream,
                    peer,
                    self.service,
                    self.read_timeout,
                    self.stopping.subscribe(),
                    permit,
                ));
            },
        );
        tokio::select! {
            () = accept => {}
            () = stop => {}
        }
        drop(self.listener);
        self.stopping.send_replace(true);
        let all_ended = self.stopping.closed();
        match drain {
            Some(limit) => tokio::time::timeout(limit, all_ended).await.is_ok(),
            None => {
                all_ended.await;
                true
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    service: &'static Service,
    read_timeout: Option<Duration>,
    mut stopping: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    // On the dual-stack socket IPv4 addresses come in IPv6 clothes.
    let (peer, local) = (canonical(peer), canonical(local));
    // Small answers must not wait for an acknowledgment; a socket that refuses is slower, not wrong.
    let _ = stream.set_nodelay(true);
    // Until the first byte a connection is a socket and a timer; parser and buffers come with the first byte.
    tokio::select! {
        readable = first_byte(&stream, read_timeout) => if !readable {
            return;
        },
        () = stopped(&mut stopping) => return,
    }
    let state = Arc::new(ConnectionState::new(service.write_timeout()));
    let usual = Some(USUAL_HEADER_LINES);
    let mut transport = Transport::new(stream, permit, Arc::clone(&state), read_timeout, usual);
    let mut parser = parser(service);
    loop {
        let state = Arc::clone(&state);
        let respond = service_fn(move |request| service.respond(request, &state, peer, local));
        let connection = parser.serve_connection(TokioIo::new(transport), respond);
        // Boxed, so that connections that wait for their first byte do not have room for it.
        let mut connection = Box::new(connection.with_upgrades());
        // How a connection ends is the client's business: resets, cut bodies and time-outs are not logged.
        tokio::select! {
            _ = &mut connection => {}
            () = stopped(&mut stopping) => {
                std::pin::Pin::new(&mut *connection).graceful_shutdown();
                let _ = connection.await;
                return;
            }
        }
        match connection.into_parts().map(|parts| parts.io.into_inner()) {
            Some(ended) if ended.wants_larger_parser() => transport = ended.accept_all_heads(),
            _ => return,
        }
        parser.max_headers(MAX_HEADER_LINES);
    }
}

/// The HTTP parser of a connection.
fn parser(service: &Service) -> http1::Builder {
    let mut parser = http1::Builder::new();
    parser
        .half_close(service.survives_disconnect())
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_header_size(MAX_HEAD_BYTES)
        .title_case_headers(true);
    parser
}

/// Waits for the first byte of a connection; false if none comes in time.
async fn first_byte(stream: &TcpStream, read_timeout: Option<Duration>) -> bool {
    // Asking for readiness alone may say yes for nothing.
    let mut byte = [0];
    let peek = stream.peek(&mut byte);
    match read_timeout {
        Some(limit) => matches!(tokio::time::timeout(limit, peek).await, Ok(Ok(1))),
        None => matches!(peek.await, Ok(1)),
    }
}

/// Resolves when the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender lives as long as the server; without it there is nobody left to serve for.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
