//! The connection pool to the child, and the URL that requests go to.

use std::error::Error as _;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::StartError;
use super::connector::{self, Connector};
use crate::gotext;
use crate::process::io_error_text;
use crate::request::target::{has_valid_escapes, within_uri};
use crate::request::{BodyError, RequestBody};

/// How long an unused connection to the child is kept.
const IDLE_TIMEOUT: Duration = Duration::from_millis(500);

/// Most unused connections that are kept.
const MAX_IDLE: usize = 100;

const TCP_KEEPALIVE: Duration = Duration::from_secs(10);

/// Largest head of a response.
const MAX_HEAD_BYTES: usize = 1 << 20;

const MAX_HEADER_LINES: usize = 1024;

const NOT_A_URL: &str = "For \"mode=http\" you must specify a valid URL for \"http_upstream_url\"";

/// The child's address and the connections to it.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    /// The URL as configured; request targets are appended to it.
    url: String,
    authority: Authority,
    client: Client<Connector, RequestBody>,
}

impl Upstream {
    pub(super) fn new(url: &str, connect_timeout: Option<Duration>) -> Result<Self, StartError> {
        if url.is_empty() {
            return Err(StartError::new(NOT_A_URL));
        }
        let authority = parse_url(url)
            .map_err(|cause| StartError::new(format!("{NOT_A_URL}, error: {cause}")))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_keepalive(Some(TCP_KEEPALIVE));
        connector.set_connect_timeout(connect_timeout);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_title_case_headers(true)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .http1_max_headers(MAX_HEADER_LINES)
            .set_host(false)
            .build(Connector::new(connector));
        Ok(Self {
            url: url.to_owned(),
            authority,
            client,
        })
    }

    /// The URL of a request: the configured text and the request's target, as they are. One that is to be asked needs
    /// a target that [`is_path`].
    pub(super) fn url_of(&self, target: &str) -> String {
        format!("{}{target}", self.url)
    }

    /// The URL without the configured path, for streams.
    pub(super) fn stream_uri(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(&*within_uri(path_and_query))
            .build()
    }

    /// Asks for the host that the client has asked for; without one for the child's own.
    pub(super) fn set_host(&self, headers: &mut HeaderMap, asked: Option<&HeaderValue>) {
        let own = || HeaderValue::from_str(self.authority.as_str()).ok();
        // An authority is made of bytes that a header value may hold.
        if let Some(host) = asked.cloned().or_else(own) {
            headers.insert(HOST, host);
        }
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Sends a request. One that may be repeated and has no body is sent a second time if it fails on a connection
    /// that had been kept from an earlier request: the child may have closed it at that moment.
    ///
    /// An answer has no length beside a `Transfer-Encoding`: that one wins, and a client that is told of both could
    /// take the rest of the body for another answer.
    pub(super) async fn send(
        &self,
        mut request: http::Request<RequestBody>,
    ) -> Result<http::Response<Incoming>, ClientError> {
        if request.body().is_end_stream() && announces_body(request.headers()) {
            // The runner's own question for the readiness has the headers of a probe and none of its body.
            request.headers_mut().remove(CONTENT_LENGTH);
        }
        let second = repeated(&request);
        let capture = capture_connection(&mut request);
        let mut answer = match (self.client.request(request).await, second) {
            (Ok(answer), _) => {
                connector::note_answer(&capture);
                answer
            }
            (Err(error), Some(second)) if !error.is_connect() && connector::was_used(&capture) => {
                self.client.request(second).await?
            }
            (Err(error), _) => return Err(error),
        };
        if answer.headers().contains_key(TRANSFER_ENCODING) {
            answer.headers_mut().remove(CONTENT_LENGTH);
        }
        Ok(answer)
    }
}

/// Whether a request's target can be appended to a URL. Anything else, as that of a request to a proxy, would become
/// a part of its host.
pub(super) fn is_path(target: &str) -> bool {
    target.starts_with('/')
}

fn announces_body(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_LENGTH)
        .is_some_and(|length| length != "0")
}

/// The same request once more, if it is idempotent and has no body.
fn repeated(request: &http::Request<RequestBody>) -> Option<http::Request<RequestBody>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    );
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut repeated = http::Request::new(RequestBody::none());
    *repeated.method_mut() = request.method().clone();
    *repeated.uri_mut() = request.uri().clone();
    *repeated.headers_mut() = request.headers().clone();
    Some(repeated)
}

pub(super) fn parse_url(url: &str) -> Result<Authority, String> {
    let quoted = gotext::quote(url);
    let uri: Uri = url
        .parse()
        .map_err(|cause| format!("parse {quoted}: {cause}"))?;
    match uri.scheme_str() {
        None => {
            return Err(format!(
                "parse {quoted}: missing protocol scheme; write http://HOST:PORT"
            ));
        }
        Some("http") => {}
        Some(scheme) => {
            return Err(format!(
                "parse {quoted}: the scheme {scheme} is not supported; write http://HOST:PORT"
            ));
        }
    }
    if !has_valid_escapes(url) {
        return Err(format!("parse {quoted}: invalid URL escape"));
    }
    let authority = uri
        .authority()
        .filter(|authority| !authority.host().is_empty())
        .ok_or_else(|| format!("parse {quoted}: no host"))?;
    let port = authority.as_str().rsplit_once(':').map(|(_, port)| port);
    match port.filter(|port| !port.ends_with(']')) {
        Some(port) if !port.bytes().all(|byte| byte.is_ascii_digit()) => Err(format!(
            "parse {quoted}: invalid port {} after host",
            gotext::quote(&format!(":{port}"))
        )),
        _ => Ok(authority.clone()),
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client's body could not be read.
    Body(BodyError),
    /// The child is not there or does not speak HTTP; the text is for the log.
    Upstream(String),
}

/// Finds out whose fault a failed request is.
pub(super) fn classify(error: &ClientError, authority: &Authority) -> Failure {
    let mut io_cause = None;
    let mut deepest = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(body) = cause.downcast_ref::<BodyError>() {
            return Failure::Body(body.clone());
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            io_cause = Some(io_error_text(io));
        }
        deepest = match cause.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_incomplete_message() => "EOF".to_owned(),
            _ => cause.to_string(),
        };
        source = cause.source();
    }
    let cause = io_cause.unwrap_or(deepest);
    Failure::Upstream(if error.is_connect() {
        format!("dial tcp {authority}: connect: {cause}")
    } else {
        cause
    })
}

/// The headers that `Connection` names.
fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
}

/// Whether `Upgrade` is meant for the next hop, as it is only if `Connection` says so.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    named_by_connection(headers).any(|name| name == UPGRADE)
}

/// Removes what concerns one connection only, and what `Connection` names.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    const ALWAYS: [HeaderName; 4] = [
        CONNECTION,
        HeaderName::from_static("proxy-connection"),
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    let named: Vec<HeaderName> = named_by_connection(headers).collect();
    for name in ALWAYS.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Removes all hop-by-hop headers, as Go's reverse proxy does; `Te: trailers` stays, and so does the announcement of
/// trailers, which are passed on.
pub(super) fn remove_all_hop_by_hop(headers: &mut HeaderMap) {
    let wants_trailers = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split(',')
                .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        });
    remove_hop_by_hop(headers);
    for name in [
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
    ] {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requires_an_http_url() {
        for (url, part) in [
            ("127.0.0.1:3000", ""),
            ("localhost", "missing protocol scheme"),
            ("https://localhost", "https is not supported"),
            (":bad", ""),
            ("http://", ""),
            ("http://[::1", ""),
            ("http://localhost:port", "invalid port \":port\" after host"),
            ("http://localhost/%zz", "invalid URL escape"),
        ] {
            let error = parse_url(url).expect_err(url);
            assert!(
                error.contains(part) && error.contains(url),
                "{url}: {error}"
            );
        }
        assert_eq!(
            parse_url("http://127.0.0.1:3000/base")
                .expect("a URL")
                .as_str(),
            "127.0.0.1:3000"
        );
    }

    #[test]
    fn removes_what_connection_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "trailers, deflate"),
            ("keep-alive", "5"),
            ("x-other", "2"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        remove_all_hop_by_hop(&mut headers);
        let left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        assert_eq!(left, [("x-other", "2"), ("te", "trailers")]);
    }
}
