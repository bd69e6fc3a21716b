//! of-watchdog's three metrics of requests.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::{Family, Histogram, Reading, Scale, nanoseconds};
use crate::threads::PerThread;

/// Go's usual buckets, in nanoseconds.
const DURATIONS: Scale<11> = Scale {
    bounds: [
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        10_000_000_000,
    ],
    per_unit: 1e9,
};

/// Values of the label `method`; the last one is for all others.
const METHODS: [&str; 11] = [
    "get", "put", "head", "post", "delete", "connect", "options", "notify", "trace", "patch",
    "unknown",
];

/// Status codes that are told by number. All others are told as unknown.
const CODES: std::ops::Range<u16> = 100..600;

/// One for each value of the label `code`, made with its first request.
type ByCode = Box<[OnceLock<Box<Histogram<11>>>]>;

/// What one thread has counted.
#[derive(Debug, Default)]
struct Counts {
    /// Begun less ended; below zero where requests end that others have begun.
    in_flight: AtomicI64,
    /// By method.
    durations: [OnceLock<ByCode>; METHODS.len()],
}

/// The metrics of requests.
#[derive(Clone, Debug)]
pub(super) struct Requests(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    counts: PerThread<Counts>,
    in_flight: Family,
    total: Family,
    durations: Family,
}

impl Requests {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let labels = &["code", "method"];
        let durations = "Seconds spent serving HTTP requests.";
        Ok(Self(Arc::new(Inner {
            counts: PerThread::new(Counts::default),
            in_flight: Family::new(
                "http_requests_in_flight",
                "total HTTP requests in-flight",
                &[],
            )?,
            total: Family::new(
                "http_requests_total",
                "total HTTP requests processed",
                labels,
            )?,
            durations: Family::new("http_request_duration_seconds", durations, labels)?,
        })))
    }

    pub(super) fn begin(&self) {
        self.0
            .counts
            .own()
            .in_flight
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, method: &Method, code: u16, elapsed: Duration) {
        let counts = self.0.counts.own();
        counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        let by_code = counts.durations[method_index(method)]
            .get_or_init(|| (0..=CODES.len()).map(|_| OnceLock::new()).collect());
        by_code[code_index(code)]
            .get_or_init(Box::default)
            .observe(&DURATIONS, nanoseconds(elapsed));
    }

    pub(super) fn in_flight(&self) -> i64 {
        let counts = self.0.counts.all();
        counts
            .map(|counts| counts.in_flight.load(Ordering::Relaxed))
            .sum()
    }

    /// The threads' parts of the durations with these labels.
    fn parts(&self, method: usize, code: usize) -> impl Iterator<Item = &Histogram<11>> + Clone {
        self.0.counts.all().filter_map(move |counts| {
            let by_code = counts.durations[method].get()?;
            by_code[code].get().map(|histogram| &**histogram)
        })
    }
}

impl Collector for Requests {
    fn desc(&self) -> Vec<&Desc> {
        let Inner {
            in_flight,
            total,
            durations,
            ..
        } = &*self.0;
        [in_flight, total, durations]
            .map(Family::description)
            .into()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut totals = Vec::new();
        let mut durations = Vec::new();
        for (method, name) in METHODS.into_iter().enumerate() {
            for code in 0..=CODES.len() {
                let parts = self.parts(method, code);
                if parts.clone().next().is_none() {
                    continue;
                }
                let histogram = DURATIONS.expose(parts);
                let labels = vec![code_label(code), name.to_owned()];
                totals.push((
                    labels.clone(),
                    Reading::Counter(histogram.get_sample_count()),
                ));
                durations.push((labels, Reading::Histogram(histogram)));
            }
        }
        let in_flight = [(Vec::new(), Reading::Gauge(self.in_flight()))];
        vec![
            self.0.in_flight.collect(in_flight),
            self.0.total.collect(totals),
            self.0.durations.collect(durations),
        ]
    }
}

fn method_index(method: &Method) -> usize {
    let name = method.as_str();
    let unknown = METHODS.len() - 1;
    // Go knows them in upper or in lower case.
    let known = METHODS[..unknown].iter().position(|known| {
        *known == name
            || (known.eq_ignore_ascii_case(name)
                && !name.contains(|c: char| c.is_ascii_lowercase()))
    });
    known.unwrap_or(unknown)
}

fn code_index(code: u16) -> usize {
    match CODES.contains(&code) {
        true => usize::from(code - CODES.start),
        false => CODES.len(),
    }
}

fn code_label(index: usize) -> String {
    match index < CODES.len() {
        true => (usize::from(CODES.start) + index).to_string(),
        false => "unknown".to_owned(),
    }
}
