//! Serializing mode: the request's body is read to its end before the function starts, its output is collected, and
//! the response says whether it failed.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use super::access::{self, Answer};
use super::forking::{Forking, OutputSink};
use super::{BoxFuture, Mode, duration_value};
use crate::config::ModeName;
use crate::request::{BodyError, Request, RequestBody, RequestHead};
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

    async fn run(&'static self, request: Request) -> Response {
        let began = Instant::now();
        let Request {
            head, body, ticket, ..
        } = request;
        ticket.set_code(StatusCode::INTERNAL_SERVER_ERROR);
        let (status, body) = match body.collect().await {
            Err(error @ BodyError::Malformed) => (StatusCode::BAD_REQUEST, Err(error.to_string())),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, Err(error.to_string())),
            Ok(input) => match self.output_of(&head, input).await {
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
        access::log(&self.forking.logger, &head, &answer);
        if let Some(failure) = failure {
            self.forking.logger.error(&failure);
        }
        ticket.set_code(status);
        let mut response = response::with_body(status, body.into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.forking.content_type.clone());
        headers.insert(X_DURATION_SECONDS, duration_value(seconds));
        response
    }

    /// Runs the function on a body; its output, or what went wrong.
    async fn output_of(&self, head: &RequestHead, body: RequestBody) -> Result<Bytes, String> {
        let (sender, mut receiver) = mpsc::channel(4);
        let output = OutputSink {
            sender,
            discard_all: true,
        };
        let run = self.forking.run(head, body, output);
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

impl Mode for Serializing {
    fn name(&self) -> ModeName {
        ModeName::Serializing
    }

    fn survives_disconnect(&self) -> bool {
        true
    }

    fn handle(&'static self, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            // In a task of its own, since a client that leaves does not stop the function.
            tokio::spawn(self.run(request))
                .await
                .unwrap_or_else(|_| response::empty(StatusCode::INTERNAL_SERVER_ERROR))
        })
    }
}
