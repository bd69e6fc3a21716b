//! The monitor: one thread that ends runs at their deadline or when the embedder cancels them.
//!
//! The monitor sleeps until the earliest deadline that it knows and looks again then, even if that run
//! has ended long before. A run whose deadline is later than the monitor's next wake-up does not
//! involve the monitor at all. Only a run that must end sooner wakes it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::sched::wake_promptly;
use crate::signal::Thread;
use crate::stop::Interruption;

/// Time between two attempts to end a run, which may be inside a host function.
const RETRY: Duration = Duration::from_micros(500);
/// An upper bound of the numbers of [`Interruption`]'s variants.
const REASONS: u64 = 8;
/// "Never" in the monitor's clock.
const NEVER: u64 = u64::MAX;

/// When a run must end at the latest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// The instant at which the run is stopped.
    pub deadline: Option<Instant>,
    /// CPU time of its thread after which the run is stopped.
    pub cpu_time: Option<Duration>,
}

/// The monitor's view of a worker thread.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) thread: Thread,
    /// End of the current run in nanoseconds of the monitor's clock.
    deadline: AtomicU64,
    /// CPU time of the thread at which the current run must end, in nanoseconds of its clock.
    cpu_end: AtomicU64,
    /// Number of the canceled run, times [`REASONS`], plus the reason.
    canceled: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    watched: Vec<Arc<Watched>>,
    woken: bool,
}

#[derive(Debug)]
struct Monitor {
    start: Instant,
    state: Mutex<State>,
    changed: Condvar,
    /// When the monitor will look next, in nanoseconds of its clock.
    next_look: AtomicU64,
    /// When the thread that woke the monitor wants it to look.
    wanted_look: AtomicU64,
}

fn monitor() -> &'static Monitor {
    static MONITOR: OnceLock<Monitor> = OnceLock::new();
    MONITOR.get_or_init(|| Monitor {
        start: Instant::now(),
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
        next_look: AtomicU64::new(NEVER),
        wanted_look: AtomicU64::new(NEVER),
    })
}

/// Starts the monitor's thread unless it runs already.
///
/// # Errors
///
/// If the system refuses a thread.
pub(crate) fn start() -> std::io::Result<()> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        std::thread::Builder::new()
            .name("deadlines".into())
            .stack_size(128 * 1024)
            .spawn(|| {
                wake_promptly();
                monitor().watch();
            })?;
        *started = true;
    }
    Ok(())
}

impl Monitor {
    fn clock(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.start).as_nanos()).unwrap_or(NEVER - 1)
    }

    fn wake(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.woken = true;
        self.changed.notify_one();
    }

    fn watch(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Published before the limits are read, because `set_limits` reads it after storing the
            // limits. Either the monitor sees a run's limits here, or the run sees that the monitor
            // would look too late and wakes it.
            self.next_look.store(NEVER, SeqCst);
            let now = self.clock(Instant::now());
            let mut next = self.wanted_look.swap(NEVER, SeqCst);
            if next <= now {
                next = NEVER;
            }
            for watched in &state.watched {
                next = next.min(watched.look(now));
            }
            self.next_look.store(next, SeqCst);
            if !state.woken {
                state = if next == NEVER {
                    self.changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner)
                } else {
                    let wait = Duration::from_nanos(next.saturating_sub(now));
                    let waited = self.changed.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                };
            }
            state.woken = false;
        }
    }
}

impl Watched {
    /// Registers the calling thread's state with the monitor until the registration is dropped.
    pub(crate) fn register() -> Registration {
        let watched = Arc::new(Self {
            thread: Thread::new(),
            deadline: AtomicU64::new(NEVER),
            cpu_end: AtomicU64::new(NEVER),
            canceled: AtomicU64::new(0),
        });
        let monitor = monitor();
        let mut state = monitor.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.watched.push(Arc::clone(&watched));
        Registration(watched)
    }

    /// Sets the limits of the run that has just begun. Must be called on the run's thread after the run's
    /// number was published.
    pub(crate) fn set_limits(&self, limits: RunLimits) {
        let monitor = monitor();
        let deadline = limits
            .deadline
            .map_or(NEVER, |deadline| monitor.clock(deadline));
        let mut first_look = deadline;
        if let Some(cpu_time) = limits.cpu_time {
            let cpu_time = u64::try_from(cpu_time.as_nanos()).unwrap_or(NEVER);
            let end = self.thread.cpu_time().saturating_add(cpu_time);
            self.cpu_end.store(end, SeqCst);
            // CPU time does not pass faster than wall-clock time.
            let now = monitor.clock(Instant::now());
            first_look = first_look.min(now.saturating_add(cpu_time));
        }
        self.deadline.store(deadline, SeqCst);
        // `cancel` stores before the monitor reads the run's number, and the run's number was stored
        // before this read. Either the monitor sees that the run has begun, or this thread sees that
        // the run was canceled.
        if self.canceled.load(SeqCst) / REASONS == self.thread.run() {
            first_look = 0;
        }
        if first_look < monitor.next_look.load(SeqCst) {
            monitor.wanted_look.fetch_min(first_look, SeqCst);
            monitor.wake();
        }
    }

    /// Clears the limits when the run is over.
    pub(crate) fn clear_limits(&self) {
        self.deadline.store(NEVER, Relaxed);
        self.cpu_end.store(NEVER, Relaxed);
    }

    /// Ends a run as soon as possible, unless it is over.
    fn cancel(&self, run: u64, reason: Interruption) {
        // A later run may have been canceled already.
        self.canceled
            .fetch_max(run * REASONS + reason as u64, SeqCst);
        monitor().wake();
    }

    /// Ends the run if it must end. Returns when to look again.
    fn look(&self, now: u64) -> u64 {
        let run = self.thread.run();
        let deadline = self.deadline.load(SeqCst);
        let canceled = self.canceled.load(SeqCst);
        if run == 0 {
            // Between runs, or about to set limits, which wakes the monitor if necessary.
            return NEVER;
        }
        let cpu_end = self.cpu_end.load(SeqCst);
        let cpu_left = match cpu_end {
            NEVER => NEVER,
            end => end.saturating_sub(self.thread.cpu_time()),
        };
        let reason = if canceled / REASONS == run {
            Interruption::from_number((canceled % REASONS) as u8)
        } else if deadline <= now {
            Interruption::Deadline
        } else if cpu_left == 0 {
            Interruption::CpuTime
        } else {
            return deadline.min(now.saturating_add(cpu_left));
        };
        self.thread.interrupt(run, reason);
        now + RETRY.as_nanos() as u64
    }
}

/// Keeps a worker thread registered with the monitor.
#[derive(Debug)]
pub(crate) struct Registration(pub(crate) Arc<Watched>);

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = monitor()
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state
            .watched
            .retain(|watched| !Arc::ptr_eq(watched, &self.0));
    }
}

/// Ends one run of a replica from any thread.
#[derive(Debug, Clone)]
pub struct Canceler {
    watched: Arc<Watched>,
    run: u64,
}

impl Canceler {
    pub(crate) fn new(watched: &Arc<Watched>, run: u64) -> Self {
        Self {
            watched: Arc::clone(watched),
            run,
        }
    }

    /// Ends the run for this reason, even if it has not begun yet.
    pub fn cancel(&self, reason: Interruption) {
        self.watched.cancel(self.run, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::RunGuard;

    #[test]
    fn runs_end_for_the_reason_that_comes_first() {
        let registration = Watched::register();
        let watched = &registration.0;
        // Between runs nothing is due, whatever the limits are.
        watched.deadline.store(5, SeqCst);
        assert_eq!(watched.look(10), NEVER);
        watched.clear_limits();
        assert_eq!(watched.deadline.load(SeqCst), NEVER);
        assert_eq!(watched.cpu_end.load(SeqCst), NEVER);
        // Canceling a run that has not begun has no effect between runs.
        let canceler = Canceler::new(watched, 3);
        canceler.cancel(Interruption::Canceled);
        assert_eq!(watched.look(10), NEVER, "run 3 has not begun");
    }

    #[test]
    fn a_run_that_was_canceled_before_it_began_is_looked_at() {
        let registration = Watched::register();
        let watched = &registration.0;
        let none = || RunLimits {
            deadline: None,
            cpu_time: None,
        };
        let wanted_look = || monitor().wanted_look.load(SeqCst);
        Canceler::new(watched, 3).cancel(Interruption::Canceled);
        // Canceling a run that is over changes nothing.
        Canceler::new(watched, 1).cancel(Interruption::Canceled);
        for (run, look) in [(2, NEVER), (3, 0)] {
            let _guard = RunGuard::new(&watched.thread, run, 0..0, None);
            watched.set_limits(none());
            assert_eq!(wanted_look(), look, "run {run}");
        }
    }
}
