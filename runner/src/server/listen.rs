//! Listening sockets and the accept loop.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gotext::GoDuration;
use crate::log::Logger;

/// Connections that the kernel completes ahead of us; it cuts the number to its own maximum.
const BACKLOG: i32 = 4096;

/// How long a connection is silent before its client is asked whether it is still there, and how long each answer is
/// waited for, as Go's server does.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often it is asked.
const KEEP_ALIVE_PROBES: u32 = 9;

/// A port that cannot be listened on; the text is Go's.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not a port number.
    #[error("listen tcp: address {0}: invalid port")]
    Port(i64),
    /// The kernel refused.
    #[error("listen tcp :{port}: bind: {}", crate::process::errno_text(*.cause))]
    Bind {
        /// The port.
        port: u16,
        /// Why.
        cause: Errno,
    },
    /// The socket cannot be watched for connections.
    #[error("listen tcp :{port}: {cause}")]
    Register {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Listens on all addresses of a port: one socket for IPv4 and IPv6, or IPv4 alone where there is no IPv6.
///
/// # Errors
/// See [`ListenError`].
pub fn bind(port: i64) -> Result<TcpListener, ListenError> {
    let port = u16::try_from(port).map_err(|_| ListenError::Port(port))?;
    let listener = bind_family(AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, port).into())
        .or_else(|cause| match cause {
            Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL => {
                bind_family(AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, port).into())
            }
            cause => Err(cause),
        })
        .map_err(|cause| ListenError::Bind { port, cause })?;
    TcpListener::from_std(listener).map_err(|cause| ListenError::Register { port, cause })
}

fn bind_family(family: AddressFamily, address: SocketAddr) -> Result<std::net::TcpListener, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Connections have it from their listener.
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEP_ALIVE)?;
    sockopt::set_tcp_keepcnt(&socket, KEEP_ALIVE_PROBES)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections for ever, each with its permit; when none is left, new ones wait in the backlog.
///
/// An error of accept, such as descriptors running out, is logged and waited out: 5 ms, doubled up to a second.
pub(super) async fn accept_loop(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    logger: &Logger,
    mut serve: impl FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    const FIRST_DELAY: Duration = Duration::from_millis(5);
    const LONGEST_DELAY: Duration = Duration::from_secs(1);
    let mut delay = FIRST_DELAY;
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                delay = FIRST_DELAY;
                serve(stream, peer, permit);
            }
            Err(cause) if is_of_one_connection(&cause) => {}
            Err(cause) => {
                drop(permit);
                let waited = GoDuration::from(delay);
                logger.error(&format!(
                    "http: Accept error: {cause}; retrying in {waited}"
                ));
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
        }
    }
}

/// Whether an accept failed because the connection in question is gone.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
