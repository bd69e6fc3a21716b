//! One request on a replica.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use faas_wasm_engine::{Backtrace, Interruption, Replica, RunLimits, RunOutcome, TrapKind};

use super::cpu_share::CpuShare;
use super::exchange::{Exchange, Finished, Outcome, Ran};
use super::limits::{Limit, TimeLimit};
use super::metrics::{Cause, WasmMetrics};
use super::world::World;
use crate::cuda::Host;
use crate::log::Logger;
use crate::modes::access::{self, Answer};
use crate::request::RequestHead;
use crate::server::Ticket;

/// Reports with backtraces read the artifact's names; more often than this they are left out.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// When the last report with a backtrace was made, whichever replica it was.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<Option<Instant>>);

impl Reports {
    /// Whether there may be another one, which counts as made then.
    fn take(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

/// A request that waits for a replica or has one.
#[derive(Debug)]
pub(super) struct Job {
    pub head: Arc<RequestHead>,
    pub exchange: Arc<Exchange>,
    /// Longest run.
    pub time: Option<TimeLimit>,
    /// Keeps the request counted until the guest has ended.
    pub ticket: Arc<Ticket>,
}

impl Job {
    /// Ends the job without a run.
    pub(super) fn fail(self) {
        self.exchange.finish(Outcome::Failure).tell();
    }
}

/// A replica with what its jobs need.
#[derive(Debug)]
pub(super) struct Worker {
    /// The thread's share of the CPU, if it has one. Given up first, so that the end of the rest is not held up by it.
    #[expect(dead_code, reason = "kept until the thread ends")]
    share: Option<CpuShare>,
    replica: Replica<Host>,
    world: World,
    metrics: WasmMetrics,
    logger: Logger,
    reports: Arc<Reports>,
}

impl Worker {
    pub(super) fn new(
        replica: Replica<Host>,
        share: Option<CpuShare>,
        world: World,
        metrics: WasmMetrics,
        logger: Logger,
        reports: Arc<Reports>,
    ) -> Self {
        Self {
            replica,
            share,
            world,
            metrics,
            logger,
            reports,
        }
    }

    /// Makes the spare instance. It is `began` now, or a moment later.
    pub(super) fn prepare(&mut self, began: Instant) -> Result<(), String> {
        self.replica.prepare().map_err(|error| error.to_string())?;
        self.metrics.counts().instantiated(began.elapsed());
        Ok(())
    }

    /// Runs a job, if that ends well within this time and the guest neither has to wait nor logs anything. If not,
    /// nothing of it has been seen outside, and the job is given back as it was.
    pub(super) fn attempt(&mut self, job: Job, limit: Duration) -> Result<Ran, Job> {
        job.exchange.begin_trial();
        let mut context = self.world.host(&job.head, &job.exchange);
        let began = Instant::now();
        let limits = RunLimits {
            deadline: Some(began + limit),
            cpu_time: self.world.settings.cpu_timeout,
        };
        let ending = self.replica.run(&mut context, limits);
        let ran = Ran::since(began);
        let usage = self.usage(&context);
        drop(context);
        let is_plain = matches!(ending, Ok(RunOutcome::Returned | RunOutcome::Exited(0)))
            && usage.refused().next().is_none();
        let ended_well = job.exchange.end_trial(is_plain);
        self.metrics.counts().tried(ended_well);
        if !ended_well {
            return Err(job);
        }
        let counts = self.metrics.counts();
        counts.start();
        counts.used(usage.memory, usage.overlay);
        counts.end(Cause::Returned, ran.length);
        job.exchange.conclude(Outcome::Success, ran);
        drop(job.ticket);
        let finished = job.exchange.finish(Outcome::Success);
        access::log_before_waiting(&self.logger, &job.head, &answer(&finished, ran));
        Ok(ran)
    }

    /// Runs a job to its end.
    pub(super) fn run(&mut self, job: Job) {
        let Job {
            head,
            exchange,
            time,
            ticket,
        } = job;
        if !exchange.begin(self.replica.canceler()) {
            exchange.finish(Outcome::Failure).tell();
            return;
        }
        let mut context = self.world.host(&head, &exchange);
        self.metrics.counts().start();
        let began = Instant::now();
        let limits = RunLimits {
            deadline: time.map(|time| began + time.length),
            cpu_time: self.world.settings.cpu_timeout,
        };
        let ending = self.replica.run(&mut context, limits);
        let ran = Ran::since(began);
        let usage = self.usage(&context);
        self.metrics.counts().used(usage.memory, usage.overlay);
        // Logs a last line of stderr before what became of the run.
        drop(context);
        let (outcome, cause) = match &ending {
            Ok(RunOutcome::Returned | RunOutcome::Exited(0)) => (Outcome::Success, Cause::Returned),
            Ok(RunOutcome::Exited(_)) => (Outcome::Failure, Cause::Exit),
            Ok(RunOutcome::Trapped(_)) => (Outcome::Failure, Cause::Trap),
            Ok(RunOutcome::HostPanicked(_)) | Err(_) => (Outcome::Failure, Cause::Internal),
            Ok(RunOutcome::Interrupted(reason, _)) => match reason {
                Interruption::Deadline => (Outcome::Timeout, Cause::Deadline),
                Interruption::CpuTime => (Outcome::Timeout, Cause::CpuTime),
                Interruption::OutputLimit => (Outcome::Failure, Cause::OutputLimit),
                Interruption::Canceled if exchange.is_input_broken() => {
                    (Outcome::Timeout, Cause::Input)
                }
                Interruption::Canceled => (Outcome::Failure, Cause::Canceled),
            },
        };
        self.metrics.counts().end(cause, ran.length);
        let ended_by = match &ending {
            Ok(ending) => limit_of(ending, time),
            Err(_) => None,
        };
        for limit in usage.refused().chain(ended_by) {
            self.metrics.limit_reached(limit);
        }
        let (outcome, bad_head) = exchange.conclude(outcome, ran);
        // The request is counted before the end of its answer can be seen.
        drop(ticket);
        let finished = exchange.finish(outcome);
        let answer = answer(&finished, ran);
        let is_plain = matches!(ending, Ok(RunOutcome::Returned | RunOutcome::Exited(0)))
            && bad_head.is_none()
            && usage.refused().next().is_none();
        if is_plain {
            // Who sends the answer takes the line along.
            access::log_soon(&self.logger, &head, &answer);
            // The other thread has made them, and gives their memory back at less expense.
            drop((head, exchange));
            if !finished.tell() {
                self.logger.flush();
            }
            return;
        }
        // A report reads the artifact's names, and no client shall wait for that.
        finished.tell();
        for limit in usage.refused() {
            self.logger
                .warn(&limit.describe(&self.world.settings, time));
        }
        let failure = match ending {
            Ok(ending) => {
                let limit = ended_by.map(|limit| limit.describe(&self.world.settings, time));
                self.describe(ending, limit)
            }
            Err(error) => Some(format!("cannot make an instance: {error}")),
        };
        let failure = failure.or_else(|| {
            let error = bad_head?;
            Some(format!("the function's CGI response is not valid: {error}"))
        });
        if let Some(failure) = failure {
            self.logger.error(&failure);
        }
        access::log(&self.logger, &head, &answer);
    }

    fn usage(&self, context: &Host) -> Usage {
        let engine = self.replica.usage();
        let wasi = context.wasi.usage();
        Usage {
            memory: engine.memory,
            overlay: wasi.overlay,
            refused: [
                engine.memory_limited.then_some(Limit::Memory),
                engine.table_limited.then_some(Limit::Table),
                wasi.descriptors_limited.then_some(Limit::Descriptors),
                wasi.overlay_limited.then_some(Limit::Overlay),
            ],
        }
    }

    /// What the log says of a run that did not end well; `limit` is that text where a limit ended it.
    fn describe(&self, ending: RunOutcome, limit: Option<String>) -> Option<String> {
        match ending {
            RunOutcome::Returned | RunOutcome::Exited(0) => None,
            RunOutcome::Exited(status) => Some(format!("exit status {status}")),
            RunOutcome::HostPanicked(message) => Some(format!("the runner failed: {message}")),
            RunOutcome::Trapped(trap) => {
                let title = limit.unwrap_or_else(|| format!("wasm trap: {}", trap.kind));
                Some(self.with_backtrace(title, &trap.backtrace))
            }
            RunOutcome::Interrupted(Interruption::Deadline | Interruption::CpuTime, backtrace) => {
                let title = limit.unwrap_or_else(|| "function stopped".to_owned());
                Some(self.with_backtrace(title, &backtrace))
            }
            RunOutcome::Interrupted(reason, _) => {
                Some(limit.unwrap_or_else(|| format!("function stopped: {reason}")))
            }
        }
    }

    fn with_backtrace(&self, title: String, backtrace: &Backtrace) -> String {
        if !self.reports.take() {
            return title;
        }
        let report = backtrace.report(self.replica.linked().module());
        format!("{title}\n{report}").trim_end().to_owned()
    }
}

/// What a run has used.
struct Usage {
    /// Bytes of linear memory.
    memory: u64,
    /// Bytes of changed files.
    overlay: u64,
    /// Limits that it met without being ended by them.
    refused: [Option<Limit>; 4],
}

impl Usage {
    fn refused(&self) -> impl Iterator<Item = Limit> {
        self.refused.iter().flatten().copied()
    }
}

/// What the access line tells of a run.
fn answer(finished: &Finished, ran: Ran) -> Answer<'static> {
    Answer {
        status: finished.status.as_u16(),
        status_text: None,
        bytes: Some(finished.written),
        seconds: ran.length.as_secs_f64(),
        suffix: "",
    }
}

/// The limit that ended a run, if one did.
fn limit_of(ending: &RunOutcome, time: Option<TimeLimit>) -> Option<Limit> {
    match ending {
        RunOutcome::Trapped(trap) => (trap.kind == TrapKind::StackOverflow).then_some(Limit::Stack),
        RunOutcome::Interrupted(Interruption::Deadline, _) => {
            Some(time.map_or(Limit::ExecTimeout, |time| time.limit))
        }
        RunOutcome::Interrupted(Interruption::CpuTime, _) => Some(Limit::CpuTimeout),
        RunOutcome::Interrupted(Interruption::OutputLimit, _) => Some(Limit::Output),
        _ => None,
    }
}
