//! Accounting of one request: in flight, counted and timed at its end, and its place under the concurrency limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Instant;

use http::{Method, StatusCode};

use crate::metrics::Metrics;

/// At most so many requests in the function at a time; there is no queue.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: usize,
    taken: AtomicUsize,
}

impl Limiter {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: AtomicUsize::new(0),
        })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn is_met(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.limit
    }

    /// A place, given back when it is dropped.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        self.taken
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < self.limit).then_some(taken + 1)
            })
            .is_ok()
            .then(|| Place(Arc::clone(self)))
    }
}

/// A place under the limit.
#[derive(Debug)]
pub(super) struct Place(Arc<Limiter>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps a request counted as in flight for as long as someone holds it; the last holder's drop records the request.
#[derive(Debug)]
pub struct Ticket {
    metrics: Option<Metrics>,
    method: Method,
    began: Instant,
    code: AtomicU16,
    /// Now, if somebody has looked.
    ended: Option<Instant>,
    _place: Option<Place>,
}

impl Ticket {
    pub(super) fn counted(
        metrics: Metrics,
        method: Method,
        began: Instant,
        place: Option<Place>,
    ) -> Arc<Self> {
        metrics.begin();
        Arc::new(Self {
            metrics: Some(metrics),
            method,
            began,
            // What is recorded if the client leaves before there is a response.
            code: AtomicU16::new(StatusCode::GATEWAY_TIMEOUT.as_u16()),
            ended: None,
            _place: place,
        })
    }

    /// For the runner's own requests, which neither the metrics nor the limit know of.
    pub(super) fn uncounted() -> Arc<Self> {
        Arc::new(Self {
            metrics: None,
            method: Method::GET,
            began: Instant::now(),
            code: AtomicU16::new(0),
            ended: None,
            _place: None,
        })
    }

    /// Gives up a part in the ticket; it is `now`.
    pub(super) fn release(self: Arc<Self>, now: Instant) {
        if let Some(mut last) = Arc::into_inner(self) {
            last.ended = Some(now);
        }
    }

    /// What the metrics will say; the status of the response replaces it when there is one.
    pub fn set_code(&self, status: StatusCode) {
        self.code.store(status.as_u16(), Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(metrics) = self.metrics {
            metrics.end(
                &self.method,
                self.code.load(Ordering::Relaxed),
                self.ended.unwrap_or_else(Instant::now) - self.began,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let limiter = Limiter::new(2);
        let first = limiter.take();
        let second = limiter.take();
        assert!(first.is_some() && second.is_some() && limiter.is_met());
        assert!(limiter.take().is_none());
        drop(first);
        assert!(!limiter.is_met());
        assert!(limiter.take().is_some());
    }

    #[test]
    fn the_last_holder_records() {
        let metrics = Metrics::new().expect("names are valid");
        let ticket = Ticket::counted(metrics, Method::GET, Instant::now(), None);
        let other = Arc::clone(&ticket);
        ticket.set_code(StatusCode::OK);
        drop(ticket);
        assert_eq!(metrics.in_flight(), 1);
        drop(other);
        assert_eq!(metrics.in_flight(), 0);
        let text = String::from_utf8(metrics.encode().expect("encodes")).expect("UTF-8");
        assert!(
            text.contains("http_requests_total{code=\"200\",method=\"get\"} 1"),
            "{text}"
        );
    }
}
