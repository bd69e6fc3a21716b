//! Http mode: one long-lived child that speaks HTTP, and a reverse proxy in front of it.
//!
//! Requests for event streams, newline-delimited JSON and WebSockets go through [`tunnel`], without a time limit and
//! by a proxy's rules; all others through [`exchange`], by of-watchdog's own.

mod child;
mod connector;
mod exchange;
mod hold;
mod tunnel;
mod upstream;

use tokio::sync::mpsc::UnboundedSender;

use self::child::Forked;
use self::exchange::Exchange;
use self::tunnel::Tunnel;
use self::upstream::Upstream;
use super::{BoxFuture, Mode, StartError};
use crate::config::{Config, ModeName};
use crate::log::Logger;
use crate::process::Children;
use crate::request::{Request, RequestHead};
use crate::response::Response;

/// Parses bytes as an upstream URL, for the fuzz targets.
///
/// # Panics
///
/// If the accepted authority has no host or is not a header value.
#[cfg(feature = "fuzzing")]
pub fn upstream_url(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(authority) = upstream::parse_url(text)
    {
        assert!(!authority.host().is_empty(), "{text}");
        assert!(
            http::HeaderValue::from_str(authority.as_str()).is_ok(),
            "{text}"
        );
    }
}

/// Http mode.
#[derive(Debug)]
pub(super) struct Http {
    child: Forked,
    exchange: Exchange,
    tunnel: Tunnel,
}

impl Http {
    /// Starts the child.
    pub(super) fn start(
        config: &Config,
        logger: &Logger,
        children: &Children,
        failures: UnboundedSender<String>,
    ) -> Result<Self, StartError> {
        let upstream = Upstream::new(&config.upstream_url, config.exec_timeout.limit())?;
        let child = Forked::start(config, logger, children, failures)?;
        Ok(Self {
            child,
            exchange: Exchange::new(config, upstream.clone(), *logger),
            tunnel: Tunnel::new(upstream, *logger),
        })
    }
}

impl Mode for Http {
    fn name(&self) -> ModeName {
        ModeName::Http
    }

    fn handle(&'static self, request: Request) -> BoxFuture<Response> {
        if is_stream(&request.head) {
            Box::pin(self.tunnel.respond(request))
        } else {
            Box::pin(self.exchange.respond(request))
        }
    }

    /// The child hears of it at once and decides itself when it has answered its last request.
    fn terminate(&self) {
        self.child.terminate();
    }
}

/// Whether the response is expected to be a stream, by the rules of of-watchdog.
fn is_stream(head: &RequestHead) -> bool {
    let accept = head
        .header(http::header::ACCEPT)
        .unwrap_or_default()
        .to_ascii_lowercase();
    accept.contains("text/event-stream")
        || accept.contains("application/x-ndjson")
        || head.header(http::header::UPGRADE) == Some("websocket")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::head;

    #[test]
    fn recognizes_streams() {
        for (name, value, stream) in [
            ("accept", "text/html, Text/Event-Stream;q=1", true),
            ("accept", "application/x-ndjson", true),
            ("accept", "application/json", false),
            ("upgrade", "websocket", true),
            ("upgrade", "WebSocket", false),
            ("upgrade", "h2c", false),
        ] {
            assert_eq!(
                is_stream(&head("/", &[(name, value)])),
                stream,
                "{name}: {value}"
            );
        }
    }
}
