//! A request as the modes see it: its head with the forms that the contract names, its body, and what is derived
//! from the head alone (environment of the function, time limit).

mod body;
pub(crate) mod target;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use hyper::upgrade::OnUpgrade;

pub use body::{BodyError, RequestBody};

use crate::gotext::{GoDuration, canonical_header_name};
use crate::server::{ConnectionState, Ticket};

/// A shorter time limit for one request.
const X_TIMEOUT: HeaderName = HeaderName::from_static("x-timeout");

/// Headers among which a name is found by comparing.
const FEW_HEADERS: usize = 32;

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    /// The method as sent.
    pub method: Method,
    /// The request URI as sent.
    pub target: String,
    /// The path, still percent-encoded; begins with a slash, except for `*` of `OPTIONS *`.
    pub path: String,
    /// The text after the question mark, undecoded; `None` without one.
    pub query: Option<String>,
    /// The host that was asked for: of an absolute request URI, else the `Host` header.
    pub host: Option<HeaderValue>,
    /// All headers but `Host`, in order.
    pub headers: HeaderMap,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The client's address.
    pub peer: SocketAddr,
    /// Our address on that connection.
    pub local: SocketAddr,
    /// When the head was complete.
    pub received: Instant,
}

impl RequestHead {
    /// Another target that begins with a slash, with its path and query.
    pub(crate) fn set_target(&mut self, target: String) {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (target.clone(), None),
        };
        (self.target, self.path, self.query) = (target, path, query);
    }

    /// The path with its percent escapes decoded; escapes that are not valid stay as they are.
    #[must_use]
    pub fn decoded_path(&self) -> Vec<u8> {
        target::percent_decode(self.path.as_bytes())
    }

    /// Whether the body has no announced length.
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        self.headers.contains_key(TRANSFER_ENCODING)
    }

    /// The announced length of the body.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.headers
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    /// A header's first value as text, if it is text.
    #[must_use]
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the client is a probe of Kubernetes, which access logs leave out.
    #[must_use]
    pub fn is_kube_probe(&self) -> bool {
        self.headers
            .get(USER_AGENT)
            .is_some_and(|agent| agent.as_bytes().starts_with(b"kube-probe"))
    }

    /// The time that the function may take in http and wasm mode: `exec_timeout`, or a shorter `X-Timeout`.
    ///
    /// `X-Timeout` must be a Go duration above zero; it cannot lift or lengthen the limit, and does nothing where
    /// there is none.
    #[must_use]
    pub fn execution_limit(&self, exec_timeout: GoDuration) -> Option<Duration> {
        let configured = exec_timeout.limit()?;
        let asked = self
            .header(X_TIMEOUT)
            .and_then(GoDuration::parse)
            .and_then(GoDuration::limit);
        Some(asked.map_or(configured, |asked| asked.min(configured)))
    }
}

/// A request with its body.
#[derive(Debug)]
pub struct Request {
    /// The head, shared with what outlives the call.
    pub head: Arc<RequestHead>,
    /// The body as it arrives.
    pub body: RequestBody,
    /// Turns the connection into a raw one after a 101 response; `None` where the client did not ask.
    pub upgrade: Option<OnUpgrade>,
    /// Keeps the request counted as in flight; clone it into tasks that outlive the response.
    pub ticket: Arc<Ticket>,
    /// The connection it came on; `None` for the runner's own requests to `ready_path`.
    pub connection: Option<Arc<ConnectionState>>,
}

/// Calls `take` with the name and value of each variable that tells a function about its request, in the order in which
/// later ones win.
///
/// For every header `Http_<Name>` with its first value, the name in Go's canonical form with underscores for hyphens;
/// then `Http_Method`, `Http_Query` if there is one, `Http_Path` percent-decoded, and
/// `Http_Transfer_Encoding=chunked` for a chunked body. Values are bytes: neither headers nor decoded paths need be
/// text, and a path can have a NUL in it.
fn each_variable(head: &RequestHead, mut take: impl FnMut(&str, &[u8])) {
    let mut variable = String::new();
    for name in head.headers.keys() {
        if is_outside_header_set(name) {
            continue;
        }
        if let Some(value) = head.headers.get(name) {
            variable.clear();
            variable.push_str("Http_");
            let name = canonical_header_name(name.as_str());
            variable.extend(name.map(|c| if c == '-' { '_' } else { c }));
            take(&variable, value.as_bytes());
        }
    }
    take("Http_Method", head.method.as_str().as_bytes());
    if let Some(query) = head.query.as_deref().filter(|query| !query.is_empty()) {
        take("Http_Query", query.as_bytes());
    }
    take("Http_Path", &head.decoded_path());
    if head.is_chunked() {
        take("Http_Transfer_Encoding", b"chunked");
    }
}

/// The variables that tell a function about its request, for a process: of several with one name the last wins.
#[must_use]
pub fn request_environment(head: &RequestHead) -> Vec<(String, Vec<u8>)> {
    let mut variables = Vec::with_capacity(head.headers.keys_len() + 4);
    each_variable(head, |name, value| {
        variables.push((name.to_owned(), value.to_vec()));
    });
    variables
}

/// The same for a guest, as `NAME=VALUE`: of several with one name only the last, as guests take the first that they
/// find.
#[must_use]
pub fn guest_environment(head: &RequestHead) -> Vec<Vec<u8>> {
    let mut variables: Vec<Vec<u8>> = Vec::with_capacity(head.headers.keys_len() + 4);
    // By name, where there are too many to look through.
    let mut places = HashMap::new();
    each_variable(head, |name, value| {
        let mut variable = Vec::with_capacity(name.len() + 1 + value.len());
        variable.extend_from_slice(name.as_bytes());
        variable.push(b'=');
        let length = variable.len();
        // In a guest's environment, too, a NUL is the end of a value.
        let shown = memchr::memchr(0, value).unwrap_or(value.len());
        variable.extend_from_slice(&value[..shown]);
        let prefix = &variable[..length];
        let end = variables.len();
        let place = match head.headers.keys_len() {
            ..=FEW_HEADERS => variables.iter().position(|other| other.starts_with(prefix)),
            _ => Some(*places.entry(prefix.to_vec()).or_insert(end)),
        };
        // The order of different variables means nothing.
        match place.and_then(|place| variables.get_mut(place)) {
            Some(other) => *other = variable,
            None => variables.push(variable),
        }
    });
    variables
}

/// Headers that Go's server takes out of the header set.
fn is_outside_header_set(name: &HeaderName) -> bool {
    *name == HOST || *name == TRANSFER_ENCODING || *name == TRAILER
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A head for tests of what is derived from one.
    pub(crate) fn head(target: &str, headers: &[(&str, &str)]) -> RequestHead {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        RequestHead {
            method: Method::GET,
            target: target.to_owned(),
            path: path.to_owned(),
            query,
            host: Some(HeaderValue::from_static("localhost")),
            headers: map,
            version: Version::HTTP_11,
            peer: ([127, 0, 0, 1], 4711).into(),
            local: ([127, 0, 0, 1], 8080).into(),
            received: Instant::now(),
        }
    }

    fn variables(head: &RequestHead) -> Vec<(String, String)> {
        request_environment(head)
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
            .collect()
    }

    #[test]
    fn names_variables_after_canonical_headers() {
        let head = head(
            "/a%2fb?x=%20",
            &[
                ("x-call-id", "7"),
                ("foo_bar", ""),
                ("X-a.b", "é"),
                ("accept", "a"),
                ("accept", "b"),
                ("trailer", "t"),
            ],
        );
        let found = variables(&head);
        for (name, value) in [
            ("Http_X_Call_Id", "7"),
            ("Http_Foo_bar", ""),
            ("Http_X_A.b", "é"),
            ("Http_Accept", "a"),
            ("Http_Method", "GET"),
            ("Http_Query", "x=%20"),
            ("Http_Path", "/a/b"),
        ] {
            assert!(
                found.contains(&(name.to_owned(), value.to_owned())),
                "{name} in {found:?}"
            );
        }
        assert_eq!(found.len(), 7, "{found:?}");
    }

    #[test]
    fn real_values_come_after_headers_of_the_same_name() {
        let head = head(
            "/real?",
            &[
                ("Path", "fake"),
                ("Method", "fake"),
                ("transfer-encoding", "chunked"),
            ],
        );
        let found = variables(&head);
        let last = |name: &str| {
            found
                .iter()
                .rfind(|(found, _)| found == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(last("Http_Path"), Some("/real"));
        assert_eq!(last("Http_Method"), Some("GET"));
        assert_eq!(last("Http_Transfer_Encoding"), Some("chunked"));
        assert_eq!(last("Http_Query"), None);
    }

    #[test]
    fn guests_see_the_last_of_a_name() {
        let expected: [&[u8]; 3] = [b"Http_A_1=second", b"Http_Method=GET", b"Http_Path=/p"];
        for more in [0, 2 * FEW_HEADERS] {
            let names: Vec<_> = (0..more).map(|number| format!("x{number}")).collect();
            let mut headers = vec![("a-1", "first"), ("a_1", "second"), ("path", "fake")];
            headers.extend(names.iter().map(|name| (name.as_str(), "")));
            let found = guest_environment(&head("/p%00hidden", &headers));
            assert_eq!(found.len(), 3 + more);
            for variable in expected {
                assert!(
                    found.iter().any(|other| other == variable),
                    "{more}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn x_timeout_only_shortens() {
        let limit = |header: &str, exec: &str| {
            let exec = GoDuration::parse(exec).expect("a duration");
            head("/", &[("x-timeout", header)])
                .execution_limit(exec)
                .map(|limit| limit.as_millis())
        };
        for (header, exec, expected) in [
            ("500ms", "2s", Some(500)),
            ("5s", "2s", Some(2000)),
            ("1", "2s", Some(2000)),
            ("junk", "2s", Some(2000)),
            ("0s", "2s", Some(2000)),
            ("-1s", "2s", Some(2000)),
            ("1s", "0s", None),
        ] {
            assert_eq!(limit(header, exec), expected, "{header} {exec}");
        }
    }
}
