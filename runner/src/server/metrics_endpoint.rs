//! The metrics server: `/metrics` and nothing else, with short time-outs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::connection::ConnectionState;
use super::listen;
use super::transport::Transport;
use crate::log::Logger;
use crate::metrics::{self, Metrics};
use crate::response::{self, Response};

/// Limit of reading a request and of writing an answer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Most open connections; scrapers need few.
const MAX_CONNECTIONS: usize = 100;

/// Serves the metrics for ever.
pub async fn serve_metrics(listener: TcpListener, metrics: Metrics, logger: Logger) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    listen::accept_loop(&listener, &permits, &logger, |stream, _peer, permit| {
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let state = Arc::new(ConnectionState::new());
            let transport = Transport::new(stream, Arc::clone(&state), Some(TIMEOUT));
            let _ = hyper::server::conn::http1::Builder::new()
                .header_read_timeout(None)
                .title_case_headers(true)
                .serve_connection(
                    TokioIo::new(transport),
                    hyper::service::service_fn(|request| {
                        state.begin_request(std::time::Instant::now(), Some(TIMEOUT));
                        let response = respond(&request, &metrics);
                        state.end_request();
                        async { Ok::<_, Infallible>(response) }
                    }),
                )
                .await;
            drop(permit);
        });
    })
    .await;
}

fn respond(request: &http::Request<Incoming>, metrics: &Metrics) -> Response {
    if request.uri().path() != "/metrics" {
        return response::error(StatusCode::NOT_FOUND, "404 page not found".to_owned());
    }
    match metrics.encode() {
        Ok(text) => {
            let mut response = response::with_body(StatusCode::OK, bytes::Bytes::from(text).into());
            response.headers_mut().insert(
                CONTENT_TYPE,
                HeaderValue::from_static(metrics::CONTENT_TYPE),
            );
            response
        }
        Err(cause) => response::error(StatusCode::INTERNAL_SERVER_ERROR, cause.to_string()),
    }
}
