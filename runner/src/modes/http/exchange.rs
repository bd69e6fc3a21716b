//! A request and its answer by of-watchdog's own proxy rules: headers are copied, nothing is added, redirects are not
//! followed, and `exec_timeout` or a shorter `X-Timeout` bounds it all.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderValue, Method, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use super::hold::{self, Beginning};
use super::upstream::{self, Failure, Upstream};
use crate::config::Config;
use crate::gotext::GoDuration;
use crate::log::Logger;
use crate::modes::access::{self, Answer};
use crate::modes::duration_value;
use crate::process::io_error_text;
use crate::request::{BodyError, Request, RequestHead, target};
use crate::response::{
    self, Response, ResponseBody, ResponseError, X_DURATION_SECONDS, X_OPENFAAS_INTERNAL,
};
use crate::sniff;

const DEADLINE_EXCEEDED: &str = "context deadline exceeded";

/// The proxy for ordinary requests.
#[derive(Debug)]
pub(super) struct Exchange {
    upstream: Upstream,
    exec_timeout: GoDuration,
    buffer_body: bool,
    log_call_id: bool,
    logger: Logger,
}

/// What the end of an exchange is logged with.
struct Account {
    exchange: &'static Exchange,
    head: Arc<RequestHead>,
    began: Instant,
}

impl Exchange {
    pub(super) fn new(config: &Config, upstream: Upstream, logger: Logger) -> Self {
        Self {
            upstream,
            exec_timeout: config.exec_timeout,
            buffer_body: config.buffer_request_body,
            log_call_id: config.log_call_id,
            logger,
        }
    }

    pub(super) async fn respond(&'static self, request: Request) -> Response {
        let head = Arc::clone(&request.head);
        let account = Account {
            exchange: self,
            head: Arc::clone(&head),
            began: Instant::now(),
        };
        let limit = head.execution_limit(account.exchange.exec_timeout);
        let deadline = limit.map(|limit| account.began + limit);
        let mut abandoned = Abandoned {
            account: Some(&account),
        };
        let answered = within(deadline, account.send(request)).await;
        abandoned.account = None;
        drop(abandoned);
        match answered {
            Some(Ok(answer)) => account.pass_on(answer, deadline).await,
            Some(Err(Failure::Upstream(cause))) => {
                account.log_failure(&cause);
                account.failed(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Some(Err(Failure::Body(error @ BodyError::Malformed))) => {
                account.log_failure(&error.to_string());
                account.failed(StatusCode::BAD_REQUEST)
            }
            Some(Err(Failure::Body(error))) => {
                account.log_failure(&error.to_string());
                account.failed(StatusCode::GATEWAY_TIMEOUT)
            }
            None => {
                account.log_failure(DEADLINE_EXCEEDED);
                let limit = limit.map(GoDuration::from).unwrap_or_default();
                account.exchange.logger.error(&format!(
                    "Upstream HTTP killed due to exec_timeout: {limit}"
                ));
                account.failed(StatusCode::GATEWAY_TIMEOUT)
            }
        }
    }
}

/// The result of a future, or `None` when the deadline passes first.
async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

impl Account {
    async fn send(&self, request: Request) -> Result<http::Response<Incoming>, Failure> {
        let exchange = &self.exchange;
        if !upstream::is_path(&self.head.target) {
            return Err(Failure::Upstream("the target is no path".to_owned()));
        }
        let body = if exchange.buffer_body {
            request.body.collect().await.map_err(Failure::Body)?
        } else {
            request.body
        };
        let url = exchange.upstream.url_of(&self.head.target);
        let mut outgoing = http::Request::builder()
            .method(self.head.method.clone())
            .uri(&*target::within_uri(&url))
            .body(body)
            .map_err(|cause| Failure::Upstream(cause.to_string()))?;
        let headers = outgoing.headers_mut();
        *headers = self.head.headers.clone();
        upstream::remove_hop_by_hop(headers);
        // The client is told to continue when its body is first read, which is now.
        headers.remove(EXPECT);
        exchange.upstream.set_host(headers, self.head.host.as_ref());
        exchange
            .upstream
            .send(outgoing)
            .await
            .map_err(|error| upstream::classify(&error, exchange.upstream.authority()))
    }

    /// The answer with its body, which is logged when it has ended.
    async fn pass_on(
        self,
        answer: http::Response<Incoming>,
        deadline: Option<Instant>,
    ) -> Response {
        let seconds = self.began.elapsed().as_secs_f64();
        let (parts, mut incoming) = answer.into_parts();
        let mut response = response::empty(parts.status);
        *response.headers_mut() = parts.headers;
        let headers = response.headers_mut();
        upstream::remove_hop_by_hop(headers);
        headers.insert(X_DURATION_SECONDS, duration_value(seconds));

        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        let has_body = self.head.method != Method::HEAD && !incoming.is_end_stream();
        let untyped =
            !headers.contains_key(CONTENT_TYPE) && !headers.contains_key(CONTENT_ENCODING);
        let mut log = EndLog {
            account: self,
            status: parts.status,
            status_text: status_text(parts.status, parts.extensions.get::<ReasonPhrase>()),
            length,
            seconds,
            logged: false,
        };
        let mut first = Bytes::new();
        if has_body && (length.is_none() || untyped) {
            let beginning = within(deadline, hold::beginning(&mut incoming)).await;
            let Some(Beginning { data, end }) = beginning else {
                log.write(Some(DEADLINE_EXCEEDED));
                *response.body_mut() = ResponseBody::aborted(Bytes::new(), DEADLINE_EXCEEDED);
                return response;
            };
            if untyped && !data.is_empty() {
                response.headers_mut().insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static(sniff::content_type(&data)),
                );
            }
            match end {
                Some(Ok(())) => {
                    log.write(None);
                    *response.body_mut() = data.into();
                    return response;
                }
                Some(Err(cause)) => {
                    let cause = body_error_text(&cause);
                    log.write(Some(&cause));
                    *response.body_mut() = ResponseBody::aborted(data, cause);
                    return response;
                }
                None => first = data,
            }
        }
        if !has_body {
            log.write(None);
            return response;
        }
        let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        *response.body_mut() = ResponseBody::stream(PassedOn {
            first,
            rest: Arc::new(Mutex::new(Some(Rest { incoming, log }))),
            passed: 0,
            deadline,
            watch: None,
        });
        response
    }

    fn failed(&self, status: StatusCode) -> Response {
        let mut response = response::empty(status);
        let headers = response.headers_mut();
        headers.insert(
            X_DURATION_SECONDS,
            duration_value(self.began.elapsed().as_secs_f64()),
        );
        headers.insert(X_OPENFAAS_INTERNAL, HeaderValue::from_static("of-watchdog"));
        response
    }

    fn log_failure(&self, cause: &str) {
        let url = crate::gotext::quote(&self.exchange.upstream.url_of(&self.head.target));
        let method = title_case(self.head.method.as_str());
        self.exchange.logger.error(&format!(
            "Upstream HTTP request error: {method} {url}: {cause}"
        ));
    }
}

/// Logs that the client left before there was an answer, when it is dropped with the request's future.
struct Abandoned<'a> {
    account: Option<&'a Account>,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(account) = self.account {
            account.log_failure("context canceled");
        }
    }
}

/// The status and the words that the upstream sent with it.
fn status_text(status: StatusCode, reason: Option<&ReasonPhrase>) -> String {
    match reason {
        Some(reason) => {
            let reason = String::from_utf8_lossy(reason.as_bytes());
            format!("{} {reason}", status.as_u16())
        }
        None => status.to_string(),
    }
}

fn title_case(method: &str) -> String {
    let mut letters = method.chars();
    letters.next().map_or_else(String::new, |first| {
        format!("{first}{}", letters.as_str().to_ascii_lowercase())
    })
}

fn body_error_text(error: &hyper::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() != std::io::ErrorKind::UnexpectedEof
        {
            return io_error_text(io);
        }
        source = cause.source();
    }
    "unexpected EOF".to_owned()
}

/// Writes the access line, once: when it is dropped, the client has left.
struct EndLog {
    account: Account,
    status: StatusCode,
    /// As the upstream wrote it.
    status_text: String,
    length: Option<u64>,
    seconds: f64,
    logged: bool,
}

impl EndLog {
    fn write(&mut self, failure: Option<&str>) {
        if std::mem::replace(&mut self.logged, true) {
            return;
        }
        let Account { exchange, head, .. } = &self.account;
        if let Some(cause) = failure {
            exchange
                .logger
                .error(&format!("Error copying response body: {cause}"));
        }
        let call_id = head
            .header("x-call-id")
            .filter(|id| !id.is_empty())
            .unwrap_or("none");
        let suffix = if exchange.log_call_id {
            format!(" [{call_id}]")
        } else {
            String::new()
        };
        let answer = Answer {
            status: self.status.as_u16(),
            status_text: Some(&self.status_text),
            bytes: self.length,
            seconds: self.seconds,
            suffix: &suffix,
        };
        access::log(&exchange.logger, head, &answer);
    }
}

impl Drop for EndLog {
    fn drop(&mut self) {
        self.write(Some("client closed the connection"));
    }
}

/// How much of an answer is passed on before its deadline is watched apart: the connection to a client that does not
/// read takes so much, and asks for no more.
const UNWATCHED: u64 = 64 * 1024;

/// The child's answer on its way to the client.
struct PassedOn {
    first: Bytes,
    rest: Arc<Mutex<Option<Rest>>>,
    passed: u64,
    deadline: Option<Pin<Box<Sleep>>>,
    watch: Option<AbortHandle>,
}

/// What of an answer is still to come.
struct Rest {
    incoming: Incoming,
    log: EndLog,
}

impl PassedOn {
    fn rest(&self) -> MutexGuard<'_, Option<Rest>> {
        // Whatever a panic has left behind is dropped.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the answer, with what the log says of that.
    fn end(&self, failure: Option<&str>) {
        if let Some(mut rest) = self.rest().take() {
            rest.log.write(failure);
        }
    }

    /// Lets go of the child at the deadline, also if nobody asks for more.
    fn watch_deadline(&mut self) {
        if let (None, Some(deadline)) = (&self.watch, &self.deadline) {
            let (rest, deadline) = (Arc::clone(&self.rest), deadline.deadline());
            let watch = tokio::spawn(async move {
                tokio::time::sleep_until(deadline).await;
                let late = rest.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(mut late) = late {
                    late.log.write(Some(DEADLINE_EXCEEDED));
                }
            });
            self.watch = Some(watch.abort_handle());
        }
    }
}

impl Body for PassedOn {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.first)))));
        }
        loop {
            let polled = match &mut *this.rest() {
                Some(rest) => Pin::new(&mut rest.incoming).poll_frame(cx),
                None => return Poll::Ready(Some(Err(DEADLINE_EXCEEDED.into()))),
            };
            match polled {
                Poll::Pending => {
                    let Some(deadline) = &mut this.deadline else {
                        return Poll::Pending;
                    };
                    std::task::ready!(deadline.as_mut().poll(cx));
                    this.end(Some(DEADLINE_EXCEEDED));
                    return Poll::Ready(Some(Err(DEADLINE_EXCEEDED.into())));
                }
                Poll::Ready(None) => {
                    this.end(None);
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(cause))) => {
                    let cause = body_error_text(&cause);
                    this.end(Some(&cause));
                    return Poll::Ready(Some(Err(cause.into())));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are dropped.
                    if let Ok(data) = frame.into_data() {
                        this.passed += data.len() as u64;
                        if this.passed > UNWATCHED {
                            this.watch_deadline();
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
            }
        }
    }
}

impl Drop for PassedOn {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
        let is_complete = self.first.is_empty();
        if let Some(mut rest) = self.rest().take()
            && is_complete
            && rest.incoming.is_end_stream()
        {
            rest.log.write(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_in_title_case() {
        for (method, text) in [("GET", "Get"), ("POST", "Post"), ("FROB", "Frob")] {
            assert_eq!(title_case(method), text);
        }
    }
}
