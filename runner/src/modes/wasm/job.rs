//! One request on a replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_wasm_engine::{Backtrace, Ending, Interruption, Replica, RunLimits};
use faas_wasm_wasi::WasiContext;

use super::WasmMetrics;
use super::exchange::{Exchange, Outcome};
use crate::log::Logger;
use crate::modes::access::{self, Answer};
use crate::request::RequestHead;
use crate::server::Ticket;

/// Reports with backtraces read the artifact's names; more often than this they are left out.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A request that waits for a replica or has one.
#[derive(Debug)]
pub(super) struct Job {
    pub head: Arc<RequestHead>,
    pub exchange: Arc<Exchange>,
    pub context: WasiContext,
    /// Longest run.
    pub limit: Option<Duration>,
    /// Most CPU time.
    pub cpu_time: Option<Duration>,
    /// Keeps the request counted until the guest has ended.
    pub ticket: Arc<Ticket>,
}

impl Job {
    /// Ends the job without a run.
    pub(super) fn fail(self) {
        self.exchange.finish(Outcome::Failure);
    }
}

/// A replica with what its jobs need.
#[derive(Debug)]
pub(super) struct Worker {
    replica: Replica<WasiContext>,
    metrics: WasmMetrics,
    logger: Logger,
    last_report: Option<Instant>,
}

impl Worker {
    pub(super) fn new(replica: Replica<WasiContext>, metrics: WasmMetrics, logger: Logger) -> Self {
        Self {
            replica,
            metrics,
            logger,
            last_report: None,
        }
    }

    /// Makes the spare instance.
    pub(super) fn prepare(&mut self) -> Result<(), String> {
        let began = Instant::now();
        self.replica.prepare().map_err(|error| error.to_string())?;
        self.metrics
            .instantiate_seconds
            .observe(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Runs a job to its end.
    pub(super) fn run(&mut self, job: Job) {
        let Job {
            head,
            exchange,
            mut context,
            limit,
            cpu_time,
            ticket,
        } = job;
        if !exchange.begin(self.replica.canceler()) {
            exchange.finish(Outcome::Failure);
            return;
        }
        self.metrics.started.inc();
        self.metrics.running.inc();
        let began = Instant::now();
        let limits = RunLimits {
            deadline: limit.map(|limit| began + limit),
            cpu_time,
        };
        let ending = self.replica.run(&mut context, limits);
        // Logs a last line of stderr before what became of the run.
        drop(context);
        let elapsed = began.elapsed().as_secs_f64();
        self.metrics.running.dec();
        self.metrics.run_seconds.observe(elapsed);
        let (outcome, cause) = match &ending {
            Ok(Ending::Returned | Ending::Exited(0)) => (Outcome::Success, "returned"),
            Ok(Ending::Exited(_)) => (Outcome::Failure, "exit"),
            Ok(Ending::Trapped(_)) => (Outcome::Failure, "trap"),
            Ok(Ending::HostPanicked(_)) | Err(_) => (Outcome::Failure, "internal"),
            Ok(Ending::Interrupted(reason, _)) => match reason {
                Interruption::Deadline => (Outcome::Timeout, "deadline"),
                Interruption::CpuTime => (Outcome::Timeout, "cpu_time"),
                Interruption::OutputLimit => (Outcome::Failure, "output_limit"),
                Interruption::Canceled if exchange.is_input_broken() => (Outcome::Timeout, "input"),
                Interruption::Canceled => (Outcome::Failure, "canceled"),
            },
        };
        self.metrics.ended.with_label_values(&[cause]).inc();
        if matches!(cause, "deadline" | "cpu_time" | "output_limit") {
            self.metrics.limits.with_label_values(&[cause]).inc();
        }
        let failure = match ending {
            Ok(ending) => self.describe(ending, limit),
            Err(error) => Some(format!("cannot make an instance: {error}")),
        };
        if let Some(failure) = failure {
            self.logger.error(&failure);
        }
        let (written, released) = exchange.finish(outcome);
        let status = match outcome {
            _ if released => 200,
            Outcome::Success => 200,
            Outcome::Failure => 500,
            Outcome::Timeout => 504,
        };
        let answer = Answer {
            status,
            status_text: None,
            bytes: Some(if status == 200 { written } else { 0 }),
            seconds: elapsed,
            suffix: "",
        };
        access::log(&self.logger, &head, &answer);
        drop(ticket);
    }

    /// What the log says of a run that did not end well.
    fn describe(&mut self, ending: Ending, limit: Option<Duration>) -> Option<String> {
        match ending {
            Ending::Returned | Ending::Exited(0) => None,
            Ending::Exited(status) => Some(format!("exit status {status}")),
            Ending::HostPanicked(message) => Some(format!("the runner failed: {message}")),
            Ending::Trapped(trap) => {
                let title = format!("wasm trap: {}", trap.kind);
                Some(self.with_backtrace(title, &trap.backtrace))
            }
            Ending::Interrupted(Interruption::Deadline, backtrace) => {
                let limit = limit.unwrap_or_default();
                let title = format!("function stopped at its time limit of {limit:?}");
                Some(self.with_backtrace(title, &backtrace))
            }
            Ending::Interrupted(reason, _) => Some(format!("function stopped: {reason}")),
        }
    }

    fn with_backtrace(&mut self, title: String, backtrace: &Backtrace) -> String {
        if self
            .last_report
            .is_some_and(|last| last.elapsed() < REPORT_INTERVAL)
        {
            return title;
        }
        self.last_report = Some(Instant::now());
        let report = backtrace.report(self.replica.linked().module());
        format!("{title}\n{report}").trim_end().to_owned()
    }
}
