//! What happens to a request before the function: Go's protocol checks and path cleaning, the probes, the
//! concurrency limit and the token check.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, Entry, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connection::ConnectionState;
use super::health::Health;
use super::path;
use super::ticket::{Limiter, Ticket};
use crate::jwt::Authenticator;
use crate::metrics::Metrics;
use crate::modes::{BoxFuture, Mode};
use crate::request::{Request, RequestBody, RequestHead, target};
use crate::response::{self, Response, ResponseBody, ResponseError, X_OPENFAAS_INTERNAL};

const HEALTH_PATH: &str = "/_/health";
const READY_PATH: &str = "/_/ready";

/// What stands between the connections and the mode.
pub struct Service {
    mode: &'static dyn Mode,
    metrics: Metrics,
    health: Arc<Health>,
    limiter: Option<Arc<Limiter>>,
    authenticator: Option<Authenticator>,
    ready_path: Option<String>,
    write_timeout: Option<Duration>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("mode", &self.mode.name())
            .finish_non_exhaustive()
    }
}

/// The limits of a service.
#[derive(Debug, Default)]
pub struct ServiceOptions {
    /// Most requests in the function.
    pub max_inflight: Option<usize>,
    /// The function's own readiness path.
    pub ready_path: Option<String>,
    /// From the end of a request's head to the end of its response.
    pub write_timeout: Option<Duration>,
    /// The token check.
    pub authenticator: Option<Authenticator>,
}

impl Service {
    /// A service in front of a mode.
    #[must_use]
    pub fn new(
        mode: &'static dyn Mode,
        metrics: Metrics,
        health: Arc<Health>,
        options: ServiceOptions,
    ) -> Self {
        Self {
            mode,
            metrics,
            health,
            limiter: options.max_inflight.map(Limiter::new),
            authenticator: options.authenticator,
            ready_path: options.ready_path,
            write_timeout: options.write_timeout,
        }
    }

    pub(super) fn write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    pub(super) fn survives_disconnect(&self) -> bool {
        self.mode.survives_disconnect()
    }

    /// Answers a request of a connection. What the future holds is small, as it is moved to where it is polled.
    pub(super) fn respond(
        &'static self,
        request: http::Request<Incoming>,
        connection: &Arc<ConnectionState>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> impl Future<Output = Result<http::Response<TrackedBody>, Infallible>> + use<> {
        let connection = Arc::clone(connection);
        let version = request.version();
        let (answer, ticket) = self.route(request, &connection, peer, local);
        async move {
            let response = match answer {
                Answer::Now(response) => *response,
                Answer::Later(response) => response.await,
            };
            Ok(tracked(response, version, ticket, connection))
        }
    }

    fn route(
        &'static self,
        mut request: http::Request<Incoming>,
        connection: &Arc<ConnectionState>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> (Answer, Option<Arc<Ticket>>) {
        let received = Instant::now();
        let disguise = connection.begin_request(received);
        let upgrade = request
            .headers()
            .contains_key(http::header::UPGRADE)
            .then(|| hyper::upgrade::on(&mut request));
        let (parts, incoming) = request.into_parts();
        let mut head = match check_head(parts, received, peer, local) {
            Ok(head) => head,
            Err(response) => return (Answer::Now(response), None),
        };
        if let Some(disguise) = disguise {
            head.set_target(disguise.undo(&head.target));
        }
        if let Some(location) = path::cleaned(&head.path) {
            return (redirect(&head, location).into(), None);
        }
        if path::is(&head.path, HEALTH_PATH) {
            return (self.health(&head).into(), None);
        }
        let body = RequestBody::new(incoming, peer, local);
        if path::is(&head.path, READY_PATH) {
            return (Answer::Later(Box::pin(self.ready(head))), None);
        }
        if self.mode.owns_path(&head.path) {
            let ticket = Ticket::uncounted();
            let request = Request {
                head: Arc::new(head),
                body,
                upgrade,
                ticket,
                connection: Some(Arc::clone(connection)),
            };
            return (Answer::Later(self.mode.handle_own(request)), None);
        }
        let place = self.limiter.as_ref().map(Limiter::take);
        let refused = place.as_ref().is_some_and(Option::is_none);
        let ticket = Ticket::counted(self.metrics, head.method.clone(), received, place.flatten());
        if refused {
            self.mode.refused();
            return (self.too_many_requests().into(), Some(ticket));
        }
        let request = Request {
            head: Arc::new(head),
            body,
            upgrade,
            ticket: Arc::clone(&ticket),
            connection: Some(Arc::clone(connection)),
        };
        (self.authorized(request), Some(ticket))
    }

    /// Calls the function if the token allows it.
    fn authorized(&self, mut request: Request) -> Answer {
        if let Some(authenticator) = &self.authenticator {
            match authenticator.check(&request.head) {
                Ok(seconds) => {
                    // The head was made for this call and is not shared yet.
                    if let Some(head) = Arc::get_mut(&mut request.head) {
                        head.headers.insert("x-auth-seconds", seconds);
                    }
                }
                Err(response) => return Answer::Now(response),
            }
        }
        Answer::Later(self.mode.handle(request))
    }

    fn too_many_requests(&self) -> Response {
        let limit = self.limiter.as_ref().map_or(0, |limiter| limiter.limit());
        let message =
            format!("Concurrent request limit exceeded. Max concurrent requests: {limit}\n");
        let mut response = response::with_body(StatusCode::TOO_MANY_REQUESTS, message.into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(
            X_OPENFAAS_INTERNAL,
            HeaderValue::from_static("faas-middleware"),
        );
        response
    }

    fn health(&self, head: &RequestHead) -> Response {
        if head.method != Method::GET {
            response::empty(StatusCode::METHOD_NOT_ALLOWED)
        } else if self.health.is_healthy() && self.mode.is_healthy() {
            response::text(StatusCode::OK, "OK")
        } else {
            response::empty(StatusCode::SERVICE_UNAVAILABLE)
        }
    }

    async fn ready(&self, head: RequestHead) -> Response {
        if head.method != Method::GET {
            return response::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !self.health.is_healthy() || !self.mode.is_healthy() || !self.mode.is_ready() {
            return response::empty(StatusCode::SERVICE_UNAVAILABLE);
        }
        if self
            .limiter
            .as_ref()
            .is_some_and(|limiter| limiter.is_met())
        {
            return response::empty(StatusCode::TOO_MANY_REQUESTS);
        }
        let Some(ready_path) = &self.ready_path else {
            return response::empty(StatusCode::OK);
        };
        let body = RequestBody::empty(head.peer, head.local);
        let head = RequestHead {
            target: ready_path.clone(),
            path: ready_path.clone(),
            query: None,
            // It is the runner that asks, and not for the host of the probe.
            host: None,
            ..head
        };
        let request = Request {
            head: Arc::new(head),
            body,
            upgrade: None,
            ticket: Ticket::uncounted(),
            connection: None,
        };
        self.mode.handle(request).await
    }
}

/// Who answers a request.
enum Answer {
    /// The server itself.
    Now(Box<Response>),
    /// The function, or who must wait for it.
    Later(BoxFuture<Response>),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Now(Box::new(response))
    }
}

/// A response as it is sent.
fn tracked(
    mut response: Response,
    version: Version,
    ticket: Option<Arc<Ticket>>,
    connection: Arc<ConnectionState>,
) -> http::Response<TrackedBody> {
    if version == Version::HTTP_10 && !has_known_length(&response) {
        // The end of the connection is the end of the body, also for a client that asked to keep it. The version keeps
        // the connection layer from promising to.
        response = closing(response);
        *response.version_mut() = Version::HTTP_10;
    }
    response::set_reason(&mut response);
    if let Some(ticket) = &ticket {
        ticket.set_code(response.status());
    }
    let missing = match response.headers().get(CONTENT_LENGTH) {
        Some(announced) => announced.to_str().ok().and_then(|text| text.parse().ok()),
        // The connection layer announces it.
        None => response.body().size_hint().exact(),
    };
    response.map(|body| TrackedBody {
        body,
        missing,
        held_error: None,
        ticket,
        connection,
    })
}

/// Go's checks of a request head, or the answer to one that fails them.
pub(super) fn check_head(
    parts: http::request::Parts,
    received: Instant,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<RequestHead, Box<Response>> {
    let http::request::Parts {
        method,
        uri,
        version,
        mut headers,
        ..
    } = parts;
    // Without a path; with one it is a method as any other.
    if method == Method::CONNECT && uri.path_and_query().is_none() {
        return Err(Box::new(response::error(
            StatusCode::NOT_FOUND,
            "404 page not found".to_owned(),
        )));
    }
    let host =
        check_host(&uri, version, &mut headers).map_err(|detail| Box::new(bad_request(detail)))?;
    if let Some(expectation) = headers.get(EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Box::new(closing(response::empty(
            StatusCode::EXPECTATION_FAILED,
        ))));
    }
    if uri.path() == "*" {
        return Err(Box::new(if method == Method::OPTIONS {
            response::empty(StatusCode::OK)
        } else {
            closing(response::empty(StatusCode::BAD_REQUEST))
        }));
    }
    if !target::has_valid_escapes(uri.path()) || !uri.path().starts_with('/') {
        return Err(Box::new(bad_request("")));
    }
    let target = match (uri.scheme(), uri.path_and_query()) {
        (None, Some(path_and_query)) => path_and_query.as_str().to_owned(),
        _ => uri.to_string(),
    };
    Ok(RequestHead {
        method,
        target,
        path: uri.path().to_owned(),
        query: uri.query().map(str::to_owned),
        host,
        headers,
        version,
        peer,
        local,
        received,
    })
}

/// Takes the host out of the headers; what an absolute request URI says wins.
fn check_host(
    uri: &http::Uri,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<Option<HeaderValue>, &'static str> {
    let header = match headers.entry(HOST) {
        Entry::Occupied(hosts) if hosts.iter().nth(1).is_some() => return Err(""),
        Entry::Occupied(host) => Some(host.remove()),
        Entry::Vacant(_) => None,
    };
    if header.is_none() && version == Version::HTTP_11 {
        return Err("missing required Host header");
    }
    if header
        .as_ref()
        .is_some_and(|host| !host.as_bytes().iter().all(|b| is_host_byte(*b)))
    {
        return Err("malformed Host header");
    }
    // An authority is made of bytes that a header value may hold.
    let of_target = uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    Ok(of_target.or(header))
}

/// The bytes that Go's server admits in a Host header.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'$'..=b'.' | b':' | b';' | b'=' | b'[' | b']' | b'_' | b'~'
        )
}

fn bad_request(detail: &str) -> Response {
    let separator = if detail.is_empty() { "" } else { ": " };
    closing(response::text(
        StatusCode::BAD_REQUEST,
        format!("400 Bad Request{separator}{detail}"),
    ))
}

fn has_known_length(response: &Response) -> bool {
    response.headers().contains_key(CONTENT_LENGTH) || response.body().size_hint().exact().is_some()
}

fn closing(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn redirect(head: &RequestHead, location: String) -> Response {
    let mut location = target::within_uri(&location).into_owned();
    if let Some(query) = &head.query {
        location.push('?');
        location.push_str(&target::within_uri(query));
    }
    let mut response = response::empty(StatusCode::TEMPORARY_REDIRECT);
    if matches!(head.method, Method::GET | Method::HEAD) {
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
    }
    if head.method == Method::GET {
        let place = escape_html(&location);
        *response.body_mut() = format!("<a href=\"{place}\">Temporary Redirect</a>.\n\n").into();
    }
    // A request target holds no control characters.
    if let Ok(location) = HeaderValue::from_bytes(location.as_bytes()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Escapes text for HTML the way Go does.
pub(crate) fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A response's body that keeps its request counted until it has been sent or given up.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: ResponseBody,
    /// Bytes that are still to come, if their number was announced.
    missing: Option<u64>,
    /// An error that waits until what came before it has been sent.
    held_error: Option<ResponseError>,
    ticket: Option<Arc<Ticket>>,
    connection: Arc<ConnectionState>,
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        let now = Instant::now();
        self.connection.end_request(now);
        if let Some(ticket) = self.ticket.take() {
            ticket.release(now);
        }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        if let Some(error) = self.held_error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                // The connection sends what it has only when it has to wait; an error at once would take that along.
                self.held_error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => {
                if let Poll::Ready(Some(Ok(frame))) = &frame
                    && let (Some(missing), Some(data)) = (&mut self.missing, frame.data_ref())
                {
                    *missing = missing.saturating_sub(data.len() as u64);
                }
                frame
            }
        }
    }

    /// Also the announced last byte is the end: the connection then lets go of the body, and with it of the request's
    /// ticket, before it sends that byte, so that a client which has its answer finds the request counted.
    fn is_end_stream(&self) -> bool {
        self.held_error.is_none() && (self.missing == Some(0) || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
