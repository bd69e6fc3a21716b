//! A response as the modes make it: a body that is complete or streamed, and the framing rule of Go's server.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::ext::ReasonPhrase;

/// The error of a response body; it aborts the connection, so that the client sees the body cut off.
pub type ResponseError = Box<dyn std::error::Error + Send + Sync>;

/// A response.
pub type Response = http::Response<ResponseBody>;

/// Answers up to this size get a Content-Length by themselves; longer ones are chunked unless the header is set.
pub const MAX_AUTOMATIC_LENGTH: usize = 2048;

/// The header by which answers of the watchdog itself are told from the function's.
pub const X_OPENFAAS_INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

/// How long the function took, in seconds.
pub const X_DURATION_SECONDS: HeaderName = HeaderName::from_static("x-duration-seconds");

/// A response's body.
pub enum ResponseBody {
    /// All of it; `None` once it has been sent.
    Complete(Option<Bytes>),
    /// A body that comes piece by piece.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = ResponseError> + Send>>),
}

impl ResponseBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::Complete(None)
    }

    /// A streamed body. An error of it aborts the connection.
    pub fn stream(body: impl Body<Data = Bytes, Error = ResponseError> + Send + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }
}

impl ResponseBody {
    /// A body that breaks off after `data`.
    #[must_use]
    pub fn aborted(data: Bytes, cause: impl Into<ResponseError>) -> Self {
        Self::stream(Aborted {
            data: Some(data).filter(|data| !data.is_empty()),
            cause: Some(cause.into()),
        })
    }
}

/// A body of some data and an error.
struct Aborted {
    data: Option<Bytes>,
    cause: Option<ResponseError>,
}

impl Body for Aborted {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(self.cause.take().map(Err))
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Complete(bytes) => f
                .debug_tuple("Complete")
                .field(&bytes.as_ref().map(Bytes::len))
                .finish(),
            Self::Stream(_) => f.write_str("Stream(..)"),
        }
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self::Complete(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl From<&'static str> for ResponseBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        match self.get_mut() {
            Self::Complete(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Complete(bytes) => bytes.is_none(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Complete(None) => SizeHint::with_exact(0),
            Self::Complete(Some(bytes)) if bytes.len() <= MAX_AUTOMATIC_LENGTH => {
                SizeHint::with_exact(bytes.len() as u64)
            }
            // No hint: the connection layer chunks, unless the response has a Content-Length.
            Self::Complete(Some(_)) | Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A response without body or headers.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    with_body(status, ResponseBody::empty())
}

/// A response without headers.
#[must_use]
pub fn with_body(status: StatusCode, body: ResponseBody) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A response in plain text.
#[must_use]
pub fn text(status: StatusCode, body: impl Into<ResponseBody>) -> Response {
    let mut response = with_body(status, body.into());
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// A response of Go's `http.Error`: plain text that browsers must not guess about.
#[must_use]
pub fn error(status: StatusCode, message: String) -> Response {
    let mut response = text(status, message + "\n");
    response.headers_mut().insert(
        http::header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Says the status in Go's words where the HTTP library has others or none.
pub fn set_reason(response: &mut Response) {
    let status = response.status();
    let reason = match status.as_u16() {
        203 => ReasonPhrase::from_static(b"Non-Authoritative Information"),
        413 => ReasonPhrase::from_static(b"Request Entity Too Large"),
        414 => ReasonPhrase::from_static(b"Request URI Too Long"),
        416 => ReasonPhrase::from_static(b"Requested Range Not Satisfiable"),
        _ if status.canonical_reason().is_some() => return,
        // Letters and digits are a reason phrase.
        code => match ReasonPhrase::try_from(format!("status code {code}")) {
            Ok(reason) => reason,
            Err(_) => return,
        },
    };
    response.extensions_mut().insert(reason);
}

/// Announces the length of a body.
pub fn set_content_length(response: &mut Response, length: u64) {
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
}
