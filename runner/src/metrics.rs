//! The metrics registry, of-watchdog's three metrics of requests, and `process_*` read from `/proc` at each scrape.
//!
//! The registry is passed by value to whoever registers more; nothing is global.

mod process;

use std::time::Duration;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// The Content-Type of an exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

const DURATION_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The registry and the metrics of requests.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Where modes register their own metrics.
    pub registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGauge,
}

impl Metrics {
    /// A registry with the metrics of requests and of the process.
    ///
    /// # Errors
    /// Only if a name were invalid or registered twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let labels = ["code", "method"];
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "total HTTP requests processed"),
            &labels,
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "http_request_duration_seconds",
                "Seconds spent serving HTTP requests.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &labels,
        )?;
        let in_flight = IntGauge::new("http_requests_in_flight", "total HTTP requests in-flight")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(process::ProcessCollector::new()?))?;
        Ok(Self {
            registry,
            requests,
            durations,
            in_flight,
        })
    }

    /// Notes that a request has begun.
    pub fn begin(&self) {
        self.in_flight.inc();
    }

    /// Notes that a request has ended.
    pub fn end(&self, method: &http::Method, code: u16, elapsed: Duration) {
        self.in_flight.dec();
        let code = code_label(code);
        let labels = [code.as_str(), method_label(method)];
        self.requests.with_label_values(&labels).inc();
        self.durations
            .with_label_values(&labels)
            .observe(elapsed.as_secs_f64());
    }

    /// Requests in the function now.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// All metrics in the text format.
    ///
    /// # Errors
    /// If a collector gave an inconsistent family.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn code_label(code: u16) -> String {
    match code {
        100..=599 => code.to_string(),
        _ => "unknown".to_owned(),
    }
}

fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" | "get" => "get",
        "PUT" | "put" => "put",
        "HEAD" | "head" => "head",
        "POST" | "post" => "post",
        "DELETE" | "delete" => "delete",
        "CONNECT" | "connect" => "connect",
        "OPTIONS" | "options" => "options",
        "NOTIFY" | "notify" => "notify",
        "TRACE" | "trace" => "trace",
        "PATCH" | "patch" => "patch",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.encode().expect("encodes")).expect("UTF-8")
    }

    #[test]
    fn series_appear_with_their_first_request() {
        let metrics = Metrics::new().expect("names are valid");
        let before = text(&metrics);
        assert!(before.contains("# HELP http_requests_in_flight total HTTP requests in-flight\n"));
        assert!(before.contains("http_requests_in_flight 0\n"));
        assert!(!before.contains("http_requests_total{"));

        metrics.begin();
        assert!(text(&metrics).contains("http_requests_in_flight 1\n"));
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
        let after = text(&metrics);
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
        let text = text(&Metrics::new().expect("names are valid"));
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
