//! Streaming mode: the request's body is the function's standard input, its standard output the response, both while
//! they come. The status is 200 whatever happens; failures show in the log.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body::{Body, Frame};
use tokio::sync::mpsc;

use super::access::{self, Answer};
use super::forking::{Forking, OutputSink};
use super::{BoxFuture, Mode};
use crate::config::ModeName;
use crate::request::Request;
use crate::response::{self, MAX_AUTOMATIC_LENGTH, Response, ResponseBody, ResponseError};

/// Pieces of output that wait for a slow client.
const QUEUED_PIECES: usize = 4;

/// Streaming mode.
#[derive(Debug)]
pub(super) struct Streaming {
    forking: Forking,
}

impl Streaming {
    pub(super) fn new(forking: Forking) -> Self {
        Self { forking }
    }

    /// Runs the function to its end, whether or not the client is still there.
    async fn run(&'static self, request: Request, sender: mpsc::Sender<Bytes>) {
        let Request {
            head, body, ticket, ..
        } = request;
        ticket.set_code(StatusCode::OK);
        let began = Instant::now();
        let output = OutputSink {
            sender,
            discard_all: head.method == Method::HEAD,
        };
        let outcome = self.forking.run(&head, body, output).await;
        // The only sign of a failure: the client has got its 200.
        let status = if outcome.failure.is_some() { 500 } else { 200 };
        if let Some(failure) = &outcome.failure {
            self.forking.logger.error(failure);
        }
        let answer = Answer {
            status,
            status_text: None,
            bytes: Some(outcome.written),
            seconds: began.elapsed().as_secs_f64(),
            suffix: "",
        };
        access::log(&self.forking.logger, &head, &answer);
        drop(ticket);
    }
}

impl Mode for Streaming {
    fn name(&self) -> ModeName {
        ModeName::Streaming
    }

    fn survives_disconnect(&self) -> bool {
        true
    }

    fn handle(&'static self, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let content_type = self.forking.content_type.clone();
            let (sender, mut receiver) = mpsc::channel(QUEUED_PIECES);
            // The log comes before the end of the response, so the channel closes when the task has ended.
            let closed = sender.clone();
            tokio::spawn(async move {
                self.run(request, sender).await;
                drop(closed);
            });
            let body = first_output(&mut receiver).await.unwrap_or_else(|first| {
                ResponseBody::stream(Output {
                    first: Some(first),
                    rest: receiver,
                })
            });
            let mut response = response::with_body(StatusCode::OK, body);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        })
    }
}

/// All output if it is short, or else what came until it was known to be long.
async fn first_output(receiver: &mut mpsc::Receiver<Bytes>) -> Result<ResponseBody, Bytes> {
    let Some(first) = receiver.recv().await else {
        return Ok(ResponseBody::empty());
    };
    if first.len() > MAX_AUTOMATIC_LENGTH {
        return Err(first);
    }
    let mut collected = BytesMut::from(first);
    while let Some(piece) = receiver.recv().await {
        collected.extend_from_slice(&piece);
        if collected.len() > MAX_AUTOMATIC_LENGTH {
            return Err(collected.freeze());
        }
    }
    Ok(collected.freeze().into())
}

/// Output that comes piece by piece.
struct Output {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Bytes>,
}

impl Body for Output {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.rest
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
