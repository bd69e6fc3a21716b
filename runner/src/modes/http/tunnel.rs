//! Event streams, newline-delimited JSON and WebSockets: a proxy's rules and no time limit of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, TRAILER, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::upstream::{self, Failure, Upstream};
use crate::log::Logger;
use crate::modes::access::{self, Answer};
use crate::request::{Request, RequestHead};
use crate::response::{self, Response, ResponseBody, ResponseError};
use crate::server::{ConnectionState, Ticket};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxy for streams.
#[derive(Debug)]
pub(super) struct Tunnel {
    upstream: Upstream,
    logger: Logger,
}

/// What the end of a stream is logged with, when this is dropped.
struct EndLog {
    tunnel: &'static Tunnel,
    head: Arc<RequestHead>,
    began: Instant,
    status: u16,
    bytes: u64,
}

impl Drop for EndLog {
    fn drop(&mut self) {
        let answer = Answer {
            status: self.status,
            status_text: None,
            bytes: Some(self.bytes),
            seconds: self.began.elapsed().as_secs_f64(),
            suffix: "",
        };
        access::log_always(&self.tunnel.logger, &self.head, "Bytes", &answer);
    }
}

impl Tunnel {
    pub(super) fn new(upstream: Upstream, logger: Logger) -> Self {
        Self { upstream, logger }
    }

    pub(super) async fn respond(&'static self, request: Request) -> Response {
        let Request {
            head,
            body,
            upgrade,
            ticket,
            connection,
        } = request;
        let mut log = EndLog {
            tunnel: self,
            head: Arc::clone(&head),
            began: Instant::now(),
            status: StatusCode::OK.as_u16(),
            bytes: 0,
        };
        let wants_websocket =
            head.header(UPGRADE) == Some("websocket") && upstream::wants_upgrade(&head.headers);
        let answer = match self.send(&head, body, wants_websocket).await {
            Ok(answer) => answer,
            Err(failure) => {
                let (status, cause) = match failure {
                    Failure::Body(error) => (StatusCode::BAD_REQUEST, error.to_string()),
                    Failure::Upstream(cause) => (StatusCode::BAD_GATEWAY, cause),
                };
                self.logger.error(&format!(
                    "Upstream HTTP request error: {}: {cause}",
                    head.target
                ));
                log.status = status.as_u16();
                return response::empty(status);
            }
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switch_protocols(answer, upgrade, connection, ticket, log);
        }
        log.status = answer.status().as_u16();
        let (mut parts, incoming) = answer.into_parts();
        upstream::remove_all_hop_by_hop(&mut parts.headers);
        let mut response = response::with_body(
            parts.status,
            ResponseBody::stream(Streamed { incoming, log }),
        );
        *response.headers_mut() = parts.headers;
        response
    }

    async fn send(
        &self,
        head: &RequestHead,
        body: crate::request::RequestBody,
        wants_websocket: bool,
    ) -> Result<http::Response<Incoming>, Failure> {
        let path_and_query = match &head.query {
            Some(query) => format!("{}?{query}", head.path),
            None => head.path.clone(),
        };
        let uri = self
            .upstream
            .stream_uri(&path_and_query)
            .map_err(|cause| Failure::Upstream(cause.to_string()))?;
        let mut outgoing = http::Request::new(body);
        *outgoing.method_mut() = head.method.clone();
        *outgoing.uri_mut() = uri;
        *outgoing.headers_mut() = outgoing_headers(head, wants_websocket);
        self.upstream
            .set_host(outgoing.headers_mut(), head.host.as_ref());
        self.upstream
            .send(outgoing)
            .await
            .map_err(|error| upstream::classify(&error, self.upstream.authority()))
    }
}

fn outgoing_headers(head: &RequestHead, wants_websocket: bool) -> HeaderMap {
    let mut headers = head.headers.clone();
    upstream::remove_all_hop_by_hop(&mut headers);
    headers.remove(TRAILER);
    headers.remove(EXPECT);
    if wants_websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    let mut forwarded: Vec<u8> = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        forwarded.extend_from_slice(value.as_bytes());
        forwarded.extend_from_slice(b", ");
    }
    forwarded.extend_from_slice(head.peer.ip().to_string().as_bytes());
    // Made of header values and an address.
    if let Ok(forwarded) = HeaderValue::from_bytes(&forwarded) {
        headers.insert(FORWARDED_FOR, forwarded);
    }
    headers
}

/// Passes the 101 on and joins both connections once it has been sent.
fn switch_protocols(
    mut answer: http::Response<Incoming>,
    upgrade: Option<OnUpgrade>,
    connection: Option<Arc<ConnectionState>>,
    ticket: Arc<Ticket>,
    mut log: EndLog,
) -> Response {
    let (Some(client), Some(connection)) = (upgrade, connection) else {
        log.status = StatusCode::BAD_GATEWAY.as_u16();
        log.tunnel
            .logger
            .error("upstream switched protocols without being asked");
        return response::empty(StatusCode::BAD_GATEWAY);
    };
    let server = hyper::upgrade::on(&mut answer);
    connection.become_raw();
    tokio::spawn(async move {
        if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            // An error of either side ends both.
            if let Ok((_, to_client)) =
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            {
                log.bytes = to_client;
            }
        }
        drop(log);
        drop(ticket);
    });
    let mut response = response::empty(StatusCode::SWITCHING_PROTOCOLS);
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    response
}

/// A stream on its way to the client, each piece as it comes.
struct Streamed {
    incoming: Incoming,
    log: EndLog,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(data) = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref())
        {
            self.log.bytes += data.len() as u64;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::head;

    #[test]
    fn appends_the_client_to_forwarded_for() {
        for (sent, expected) in [
            (&[][..], "127.0.0.1"),
            (
                &[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "b")],
                "10.0.0.1, b, 127.0.0.1",
            ),
        ] {
            let headers = outgoing_headers(&head("/", sent), false);
            assert_eq!(
                headers.get_all(FORWARDED_FOR).iter().collect::<Vec<_>>(),
                [expected]
            );
        }
    }

    #[test]
    fn only_websockets_keep_the_upgrade() {
        let sent = head("/", &[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(
            outgoing_headers(&sent, true).get(UPGRADE),
            Some(&HeaderValue::from_static("websocket"))
        );
        assert_eq!(outgoing_headers(&sent, false).get(UPGRADE), None);
    }
}
