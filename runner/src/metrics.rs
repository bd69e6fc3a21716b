//! The metrics registry, of-watchdog's three metrics of requests, and `process_*` read from `/proc` at each scrape.
//!
//! The registry is passed by value to whoever registers more; nothing is global. What changes with every request is
//! kept apart by thread ([`PerThread`](crate::threads::PerThread)) and put together at a scrape.

mod family;
mod histogram;
mod process;
mod requests;

use std::time::Duration;

use prometheus::{Encoder as _, Registry, TextEncoder};

pub use family::{Family, Reading};
pub use histogram::{Histogram, Scale, nanoseconds};

use requests::Requests;

/// The Content-Type of an exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// The registry and the metrics of requests.
#[derive(Clone, Copy, Debug)]
pub struct Metrics(&'static Inner);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Requests,
}

impl Metrics {
    /// A registry with the metrics of requests and of the process. It is there for as long as the process.
    ///
    /// # Errors
    /// Only if a name were invalid or registered twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = Requests::new()?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(process::ProcessCollector::new()?))?;
        Ok(Self(Box::leak(Box::new(Inner { registry, requests }))))
    }

    /// Where modes register their own metrics.
    #[must_use]
    pub fn registry(self) -> &'static Registry {
        &self.0.registry
    }

    /// Notes that a request has begun.
    pub fn begin(self) {
        self.0.requests.begin();
    }

    /// Notes that a request has ended.
    pub fn end(self, method: &http::Method, code: u16, elapsed: Duration) {
        self.0.requests.end(method, code, elapsed);
    }

    /// Requests in the function now.
    #[must_use]
    pub fn in_flight(self) -> i64 {
        self.0.requests.in_flight()
    }

    /// All metrics in the text format.
    ///
    /// # Errors
    /// If a collector gave an inconsistent family.
    pub fn encode(self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: Metrics) -> String {
        String::from_utf8(metrics.encode().expect("encodes")).expect("UTF-8")
    }

    #[test]
    fn series_appear_with_their_first_request() {
        let metrics = Metrics::new().expect("names are valid");
        let before = text(metrics);
        assert!(before.contains("# HELP http_requests_in_flight total HTTP requests in-flight\n"));
        assert!(before.contains("http_requests_in_flight 0\n"));
        assert!(!before.contains("http_requests_total{"));

        metrics.begin();
        assert!(text(metrics).contains("http_requests_in_flight 1\n"));
        metrics.end(&http::Method::POST, 200, Duration::from_millis(30));
        metrics.begin();
        metrics.end(
            &http::Method::from_bytes(b"FROB").expect("a token"),
            404,
            Duration::from_secs(20),
        );
        for (method, code) in [("get", 599), ("GET", 600)] {
            metrics.begin();
            let method = http::Method::from_bytes(method.as_bytes()).expect("a token");
            metrics.end(&method, code, Duration::ZERO);
        }
        let after = text(metrics);
        for line in [
            "http_requests_total{code=\"599\",method=\"get\"} 1",
            "http_requests_total{code=\"unknown\",method=\"get\"} 1",
            "# TYPE http_requests_total counter",
            "http_requests_total{code=\"200\",method=\"post\"} 1",
            "http_requests_total{code=\"404\",method=\"unknown\"} 1",
            "# HELP http_request_duration_seconds Seconds spent serving HTTP requests.",
            "http_request_duration_seconds_bucket{code=\"200\",method=\"post\",le=\"0.025\"} 0",
            "http_request_duration_seconds_bucket{code=\"200\",method=\"post\",le=\"0.05\"} 1",
            "http_request_duration_seconds_bucket{code=\"404\",method=\"unknown\",le=\"+Inf\"} 1",
            "http_requests_in_flight 0",
        ] {
            assert!(
                after.lines().any(|found| found == line),
                "{line} not in\n{after}"
            );
        }
    }

    #[test]
    fn process_metrics_are_live() {
        let text = text(Metrics::new().expect("names are valid"));
        for name in [
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_max_fds",
            "process_virtual_memory_bytes",
            "process_virtual_memory_max_bytes",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
        ] {
            assert!(
                text.lines()
                    .any(|line| line.starts_with(&format!("{name} "))),
                "{name} not in\n{text}"
            );
        }
    }
}
