//! Short runs, on the thread that has read the request.
//!
//! To give a request to a replica and take its answer back costs more than a small function's run. So while a function's
//! runs are short ([`Habit`]), its guests are tried on the I/O thread itself. Where there are so many requests at once
//! that replicas need not be woken for them ([`Crowd`]), they may do better, and both ways compete ([`Contest`]).
//!
//! No run is short for certain, and a thread that runs a guest serves nobody. So a trial ends after [`LONGEST`], and as
//! soon as the guest would have to wait or something of it would be seen outside: a line for the log, output that is
//! held no more. If it has not ended well by then, it never was: a replica runs the request from its beginning. That
//! can be done because guests change nothing outside but what is mounted read-write; files are copied else.
//!
//! A trial takes the place of a replica, so that there are never more guests at once than `max_scale`.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::contest::{Contest, Way};
use super::habit::{Crowd, Habit};
use super::job::{Job, Worker};
use super::pool::Pool;
use crate::config::{MountAccess, UseCuda, WasmSettings};
use crate::log::Logger;

/// A trial keeps its thread for no longer. It is rare that one comes to that, and the thread that watches deadlines
/// sleeps for as long while there are trials.
const LONGEST: Duration = Duration::from_millis(20);
/// Trials that must end earlier would often fail for nothing.
const SHORTEST: Duration = Duration::from_millis(1);
/// Longest request target of a trial in bytes.
const LONGEST_TARGET: usize = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Trials {
    pool: &'static Pool,
    longest: Duration,
    logger: Logger,
}

/// What an I/O thread has for its trials.
#[derive(Debug, Default)]
struct Here {
    habit: Habit,
    crowd: Crowd,
    contest: Contest,
    /// Made at the first trial.
    worker: Option<Worker>,
    /// There will be none.
    is_refused: bool,
}

thread_local! {
    static HERE: RefCell<Here> = RefCell::default();
}

/// To be called by threads that read requests whenever they are about to wait for the next ones.
pub(crate) fn before_waiting() {
    HERE.with_borrow_mut(|here| here.crowd.end_turn());
}

impl Trials {
    /// `None` where a run cannot be repeated, or is to run in a thread of a replica.
    pub(super) fn new(
        settings: &WasmSettings,
        pool: &'static Pool,
        logger: Logger,
    ) -> Option<Self> {
        let mounts = &settings.mounts;
        let can_be_repeated = settings.use_cuda == UseCuda::Off
            && mounts
                .iter()
                .all(|mount| mount.access != MountAccess::ReadWrite);
        // Nor is output held for longer than it may be.
        let longest = LONGEST.min(settings.output_hold_time);
        let is_worth_it = settings.cpu_share.is_none() && longest >= SHORTEST;
        (can_be_repeated && is_worth_it).then_some(Self {
            pool,
            longest,
            logger,
        })
    }

    /// Runs a job of which all input is here, or gives it back for a replica.
    pub(super) fn attempt(&self, job: Job) -> Result<(), Job> {
        HERE.with_borrow_mut(|here| {
            here.crowd.add();
            let may_last = (job.time).is_none_or(|time| time.length > self.longest);
            // Its access line must find room in the log without waiting.
            let may_be_logged = job.head.target.len() <= LONGEST_TARGET && !self.logger.is_full();
            let is_crowded = here.crowd.is_crowded();
            if !is_crowded {
                here.contest.interrupt();
            }
            let may_be_ours =
                here.habit.is_short() && !here.is_refused && may_last && may_be_logged;
            let is_ours =
                may_be_ours && (!is_crowded || here.contest.next(Instant::now) == Way::Here);
            if !is_ours {
                return Err(job);
            }
            let Some(place) = self.pool.take_place() else {
                return Err(job);
            };
            let worker = match &mut here.worker {
                Some(worker) => worker,
                none => match self.pool.worker() {
                    Ok(worker) => none.insert(worker),
                    Err(problem) => {
                        self.refuse(here, &problem);
                        return Err(job);
                    }
                },
            };
            let outcome = worker.attempt(job, self.longest);
            drop(place);
            let ended = match &outcome {
                Ok(ran) => ran.end,
                Err(_) => {
                    here.habit.fail();
                    Instant::now()
                }
            };
            if let Err(problem) = worker.prepare(ended) {
                self.refuse(here, &problem);
            }
            outcome.map(|_| ())
        })
    }

    /// Takes note of how long a run has taken, here or in a replica; `None` if its output did not wait for its end.
    pub(super) fn note(&self, run: Option<Duration>) {
        HERE.with_borrow_mut(|here| here.habit.note(run));
    }

    /// Leaves it to the replicas, which try again.
    fn refuse(&self, here: &mut Here, problem: &str) {
        here.is_refused = true;
        here.worker = None;
        self.logger.warn(&format!(
            "cannot make an instance on an I/O thread, so that replicas run all requests: {problem}"
        ));
    }
}
