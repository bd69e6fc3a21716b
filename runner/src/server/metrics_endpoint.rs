//! The metrics server: `/metrics` and nothing else, with short time-outs.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
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
        tokio::spawn(async move {
            let state = &Arc::new(ConnectionState::new(Some(TIMEOUT)));
            let transport = Transport::new(stream, permit, Arc::clone(state), Some(TIMEOUT), None);
            let _ = hyper::server::conn::http1::Builder::new()
                // An answer is written at once, whether or not the scraper has closed its sending side.
                .half_close(true)
                .header_read_timeout(None)
                .title_case_headers(true)
                .serve_connection(
                    TokioIo::new(transport),
                    hyper::service::service_fn(|request| {
                        state.begin_request(std::time::Instant::now());
                        let response = respond(&request, metrics);
                        state.end_request(std::time::Instant::now());
                        async move { Ok::<_, Infallible>(response) }
                    }),
                )
                .await;
        });
    })
    .await;
}

fn respond(request: &http::Request<Incoming>, metrics: Metrics) -> Response {
    if request.uri().path() != "/metrics" {
        return response::error(StatusCode::NOT_FOUND, "404 page not found".to_owned());
    }
    match metrics.encode() {
        Ok(text) => {
            let compressed = takes_gzip(request.headers()).then(|| gzip(&text));
            let encoding = compressed.is_some();
            let body = bytes::Bytes::from(compressed.unwrap_or(text));
            let mut response = response::with_body(StatusCode::OK, body.into());
            let headers = response.headers_mut();
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static(metrics::CONTENT_TYPE),
            );
            if encoding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Err(cause) => response::error(StatusCode::INTERNAL_SERVER_ERROR, cause.to_string()),
    }
}

/// Whether a scraper asks for gzip: it is named without a weight of zero.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            named && weight.is_none_or(|weight| weight.parse() != Ok(0.0))
        })
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compresses_on_demand() {
        for (value, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip; q=0", false),
            ("gzip;q=0.000, deflate", false),
            ("identity", false),
            ("xgzip", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(takes_gzip(&headers), expected, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
        let text = b"metric 1\n".repeat(100);
        let compressed = gzip(&text);
        assert!(compressed.len() < text.len());
        let mut back = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(compressed.as_slice());
        std::io::Read::read_to_end(&mut decoder, &mut back).expect("it is gzip");
        assert_eq!(back, text);
    }
}
