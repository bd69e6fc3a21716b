//! What a connection's transport and the requests on it know of each other: which request is being served, until when
//! its response may be written, and whether the connection has become a raw one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::disguise::Disguise;
use super::timer::LazyTimer;

/// The shared state of one client connection.
#[derive(Debug)]
pub struct ConnectionState {
    accepted: Instant,
    /// From the end of a request's head to the end of its response.
    write_timeout: Option<Duration>,
    /// Nanoseconds after `accepted`; 0 for none.
    write_deadline: AtomicU64,
    idle_since: AtomicU64,
    serving: AtomicBool,
    begun: AtomicU64,
    raw: AtomicBool,
    /// Of requests that have not begun, each with its number.
    disguises: Mutex<Vec<(u64, Disguise)>>,
    /// There are some.
    disguised: AtomicBool,
    timer: Mutex<LazyTimer>,
}

impl ConnectionState {
    pub(crate) fn new(write_timeout: Option<Duration>) -> Self {
        Self {
            accepted: Instant::now(),
            write_timeout,
            write_deadline: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            raw: AtomicBool::new(false),
            disguises: Mutex::default(),
            disguised: AtomicBool::new(false),
            timer: Mutex::default(),
        }
    }

    /// Lifts every time limit, for a connection that is a tunnel from now on.
    pub fn become_raw(&self) {
        self.raw.store(true, Ordering::Relaxed);
        self.write_deadline.store(0, Ordering::Relaxed);
    }

    /// Ready when `deadline` has passed; for the mode that serves the current request.
    pub fn poll_timer(&self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        // Whatever a panic has left behind is a timer.
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        timer.poll(deadline, cx)
    }

    /// Takes note of targets that are not as they were sent.
    pub(super) fn add_disguises(&self, disguises: Vec<(u64, Disguise)>) {
        self.lock_disguises().extend(disguises);
        self.disguised.store(true, Ordering::Relaxed);
    }

    /// Begins the next request; gives what its target was disguised with.
    pub(super) fn begin_request(&self, received: Instant) -> Option<Disguise> {
        self.serving.store(true, Ordering::Relaxed);
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        self.renew_write_deadline(received);
        if !self.disguised.load(Ordering::Relaxed) {
            return None;
        }
        let mut disguises = self.lock_disguises();
        let place = disguises.iter().position(|(of, _)| *of == number)?;
        Some(disguises.swap_remove(place).1)
    }

    /// What is answered to bytes that came now may be written for as long as any answer.
    pub(super) fn renew_write_deadline(&self, now: Instant) {
        let deadline = |timeout| self.nanos(now + timeout).max(1);
        let deadline = self.write_timeout.map_or(0, deadline);
        self.write_deadline.store(deadline, Ordering::Relaxed);
    }

    fn lock_disguises(&self) -> MutexGuard<'_, Vec<(u64, Disguise)>> {
        // Nothing panics while it is held.
        self.disguises
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end_request(&self, now: Instant) {
        self.idle_since.store(self.nanos(now), Ordering::Relaxed);
        self.serving.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// How many requests have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn is_raw(&self) -> bool {
        self.raw.load(Ordering::Relaxed)
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.accepted + Duration::from_nanos(self.idle_since.load(Ordering::Relaxed))
    }

    pub(super) fn write_deadline(&self) -> Option<Instant> {
        match self.write_deadline.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(self.accepted + Duration::from_nanos(nanos)),
        }
    }

    fn nanos(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.accepted).as_nanos())
            .unwrap_or(u64::MAX)
    }
}
