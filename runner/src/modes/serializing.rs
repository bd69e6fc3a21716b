//! Serializing mode: the request's body is read to its end before the function starts, its output is collected, and
//! the response says whether it failed.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use tokio::sync::mpsc;

use super::access::{self, Answer};
use super::forking::{Forking, Input, OutputSink};
use super::{BoxFuture, Mode};
use crate::config::ModeName;
use crate::request::{BodyError, Request};
use crate::response::{self, Response, X_DURATION_SECONDS};

/// Serializing mode.
#[derive(Debug)]
pub(super) struct Serializing {
    forking: Forking,
}

impl Serializing {
    pub(super) fn new(forking: Forking) -> Self {
        Self { forking }
    }

    async fn run(self: Arc<Self>, mut request: Request) -> Response {
        let began = Instant::now();
        request.ticket.set_code(StatusCode::INTERNAL_SERVER_ERROR);
        let (status, body) = match request.body.read_to_end().await {
            Err(error @ BodyError::Malformed) => (StatusCode::BAD_REQUEST, Err(error.to_string())),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, Err(error.to_string())),
            Ok(input) => match self.collect(&request, input).await {
                Ok(output) => (StatusCode::OK, Ok(output)),
                Err(failure) => (StatusCode::INTERNAL_SERVER_ERROR, Err(failure)),
            },
        };
        let failure = body.as_ref().err().cloned();
        let body = body.unwrap_or_else(Bytes::from);
        let seconds = began.elapsed().as_secs_f64();
        let answer = Answer {
            status: status.as_u16(),
            status_text: None,
            bytes: Some(body.len() as u64),
            seconds,
            suffix: "",
        };
        access::log(&self.forking.logger, &request.head, &answer);
        if let Some(failure) = failure {
            self.forking.logger.error(&failure);
        }
        request.ticket.set_code(status);
        let mut response = response::with_body(status, body.into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.forking.content_type.clone());
        headers.insert(X_DURATION_SECONDS, duration_value(seconds));
        response
    }

    /// Runs the function on `input`; its output, or what went wrong.
    async fn collect(&self, request: &Request, input: Bytes) -> Result<Bytes, String> {
        let (sender, mut receiver) = mpsc::channel(4);
        let output = OutputSink { sender, discard_all: true };
        let run = self.forking.run(&request.head, Input::Collected(input), output);
        let collect = async {
            let mut collected = BytesMut::new();
            while let Some(piece) = receiver.recv().await {
                collected.extend_from_slice(&piece);
            }
            collected.freeze()
        };
        let (outcome, collected) = tokio::join!(run, collect);
        outcome.failure.map_or(Ok(collected), Err)
    }
}

/// Seconds with six decimals as a header value.
pub(super) fn duration_value(seconds: f64) -> HeaderValue {
    // Digits and a point are a header value.
    HeaderValue::from_str(&format!("{seconds:.6}")).unwrap_or(HeaderValue::from_static("0.000000"))
}

impl Mode for Serializing {
    fn name(&self) -> ModeName {
        ModeName::Serializing
    }

    fn survives_disconnect(&self) -> bool {
        true
    }

    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            // In a task of its own, since a client that leaves does not stop the function.
            tokio::spawn(self.run(request))
                .await
                .unwrap_or_else(|_| response::empty(StatusCode::INTERNAL_SERVER_ERROR))
        })
    }
}
