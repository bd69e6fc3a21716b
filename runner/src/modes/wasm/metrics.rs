//! Metrics of wasm mode.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounterVec, IntGauge, Opts, Registry};

use super::limits::Limit;
use crate::metrics::{Family, Histogram, Reading, Scale, nanoseconds};
use crate::threads::PerThread;

/// From a microsecond to ten seconds, in nanoseconds.
const SECONDS: Scale<15> = Scale {
    bounds: [
        1_000,
        5_000,
        20_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        5_000_000,
        20_000_000,
        100_000_000,
        500_000_000,
        1_000_000_000,
        5_000_000_000,
        10_000_000_000,
    ],
    per_unit: 1e9,
};

/// From a page of WebAssembly memory to the most that there can be.
const MEMORY: Scale<9> = Scale {
    bounds: [
        65_536,
        262_144,
        1_048_576,
        4_194_304,
        16_777_216,
        67_108_864,
        268_435_456,
        1_073_741_824,
        4_294_967_296,
    ],
    per_unit: 1.0,
};

/// From nothing to four times the default quota.
const OVERLAY: Scale<8> = Scale {
    bounds: [
        0,
        4_096,
        65_536,
        1_048_576,
        4_194_304,
        16_777_216,
        67_108_864,
        268_435_456,
    ],
    per_unit: 1.0,
};

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Returned,
    Exit,
    Trap,
    Internal,
    Deadline,
    CpuTime,
    OutputLimit,
    Input,
    Canceled,
}

impl Cause {
    const ALL: [(Self, &str); 9] = [
        (Self::Returned, "returned"),
        (Self::Exit, "exit"),
        (Self::Trap, "trap"),
        (Self::Internal, "internal"),
        (Self::Deadline, "deadline"),
        (Self::CpuTime, "cpu_time"),
        (Self::OutputLimit, "output_limit"),
        (Self::Input, "input"),
        (Self::Canceled, "canceled"),
    ];
}

/// Outcomes of trials (`trials.rs`): it was the run, or a replica had to run the request.
const TRIALS: [&str; 2] = ["ended", "repeated"];

/// What one thread has counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By outcome.
    trials: [AtomicU64; TRIALS.len()],
    started: AtomicU64,
    /// By cause.
    ended: [AtomicU64; Cause::ALL.len()],
    instantiate_seconds: Histogram<15>,
    run_seconds: Histogram<15>,
    linear_memory_bytes: Histogram<9>,
    overlay_bytes: Histogram<8>,
}

impl Counts {
    /// A run begins.
    pub(super) fn start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended.
    pub(super) fn end(&self, cause: Cause, run: Duration) {
        self.ended[cause as usize].fetch_add(1, Ordering::Relaxed);
        self.run_seconds.observe(&SECONDS, nanoseconds(run));
    }

    /// A trial is over.
    pub(super) fn tried(&self, has_ended: bool) {
        self.trials[usize::from(!has_ended)].fetch_add(1, Ordering::Relaxed);
    }

    /// An instance was made.
    pub(super) fn instantiated(&self, took: Duration) {
        self.instantiate_seconds
            .observe(&SECONDS, nanoseconds(took));
    }

    /// What a run has used at its largest, in bytes.
    pub(super) fn used(&self, linear_memory: u64, overlay: u64) {
        self.linear_memory_bytes.observe(&MEMORY, linear_memory);
        self.overlay_bytes.observe(&OVERLAY, overlay);
    }
}

/// See the help texts.
#[derive(Clone, Debug)]
pub(super) struct WasmMetrics {
    runs: Runs,
    pub load_seconds: Gauge,
    pub replicas: IntGauge,
    pub queued: IntGauge,
    limits: IntCounterVec,
}

impl WasmMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Only if a name were invalid or registered twice.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            runs: Runs::new()?,
            load_seconds: Gauge::new(
                "wasm_artifact_load_seconds",
                "Seconds to check and map the artifact.",
            )?,
            replicas: IntGauge::new("wasm_replicas", "Replicas that exist.")?,
            queued: IntGauge::new("wasm_queue_length", "Requests that wait for a replica.")?,
            limits: IntCounterVec::new(
                Opts::new(
                    "wasm_limit_reached_total",
                    "Requests that met a limit, by limit.",
                ),
                &["limit"],
            )?,
        };
        registry.register(Box::new(metrics.runs.clone()))?;
        registry.register(Box::new(metrics.load_seconds.clone()))?;
        registry.register(Box::new(metrics.replicas.clone()))?;
        registry.register(Box::new(metrics.queued.clone()))?;
        registry.register(Box::new(metrics.limits.clone()))?;
        for limit in Limit::ALL {
            metrics.limits.with_label_values(&[limit.label()]);
        }
        Ok(metrics)
    }

    /// Counts a request that met a limit.
    pub(super) fn limit_reached(&self, limit: Limit) {
        self.limits.with_label_values(&[limit.label()]).inc();
    }

    /// Where this thread counts runs.
    pub(super) fn counts(&self) -> &Counts {
        self.runs.0.counts.own()
    }

    /// Guests that run now.
    pub(super) fn running(&self) -> u64 {
        self.runs.running()
    }
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// The metrics of runs, which change with each.
#[derive(Clone, Debug)]
struct Runs(Arc<RunsInner>);

#[derive(Debug)]
struct RunsInner {
    counts: PerThread<Counts>,
    trials: Family,
    started: Family,
    running: Family,
    ended: Family,
    instantiate_seconds: Family,
    run_seconds: Family,
    linear_memory_bytes: Family,
    overlay_bytes: Family,
}

impl Runs {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self(Arc::new(RunsInner {
            counts: PerThread::new(Counts::default),
            trials: Family::new(
                "wasm_trials_total",
                "Guest runs begun on I/O threads, by whether they ended there or a replica repeated them.",
                &["outcome"],
            )?,
            started: Family::new("wasm_instances_started_total", "Guest runs started.", &[])?,
            running: Family::new("wasm_instances_running", "Guests running now.", &[])?,
            ended: Family::new(
                "wasm_instances_ended_total",
                "Guest runs ended, by cause.",
                &["cause"],
            )?,
            instantiate_seconds: Family::new(
                "wasm_instantiate_seconds",
                "Seconds to end the last instance of a replica and make the next.",
                &[],
            )?,
            run_seconds: Family::new("wasm_run_seconds", "Seconds that guests ran.", &[])?,
            linear_memory_bytes: Family::new(
                "wasm_linear_memory_bytes",
                "Linear memory of guest runs at its largest.",
                &[],
            )?,
            overlay_bytes: Family::new(
                "wasm_overlay_bytes",
                "What guest runs kept in their layer of changed files at its largest.",
                &[],
            )?,
        })))
    }

    fn total(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.0.counts.all().map(of).sum()
    }

    fn running(&self) -> u64 {
        let ended = self.total(|counts| counts.ended.iter().map(read).sum());
        // Read later, so that it is not less.
        let started = self.total(|counts| read(&counts.started));
        started.saturating_sub(ended)
    }
}

impl Collector for Runs {
    fn desc(&self) -> Vec<&Desc> {
        let inner = &*self.0;
        [
            &inner.trials,
            &inner.started,
            &inner.running,
            &inner.ended,
            &inner.instantiate_seconds,
            &inner.run_seconds,
            &inner.linear_memory_bytes,
            &inner.overlay_bytes,
        ]
        .map(Family::description)
        .into()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let inner = &*self.0;
        let one = |reading| [(Vec::new(), reading)];
        let started = self.total(|counts| read(&counts.started));
        let running = i64::try_from(self.running()).unwrap_or(i64::MAX);
        let causes = Cause::ALL.into_iter().filter_map(|(cause, label)| {
            let count = self.total(|counts| read(&counts.ended[cause as usize]));
            (count > 0).then(|| (vec![label.to_owned()], Reading::Counter(count)))
        });
        let parts = inner.counts.all();
        let instantiate = SECONDS.expose(parts.clone().map(|counts| &counts.instantiate_seconds));
        let run = SECONDS.expose(parts.clone().map(|counts| &counts.run_seconds));
        let memory = MEMORY.expose(parts.clone().map(|counts| &counts.linear_memory_bytes));
        let overlay = OVERLAY.expose(parts.map(|counts| &counts.overlay_bytes));
        let trials = TRIALS.iter().enumerate().map(|(outcome, label)| {
            let count = self.total(|counts| read(&counts.trials[outcome]));
            (vec![(*label).to_owned()], Reading::Counter(count))
        });
        vec![
            inner.trials.collect(trials),
            inner.started.collect(one(Reading::Counter(started))),
            inner.running.collect(one(Reading::Gauge(running))),
            inner.ended.collect(causes),
            inner
                .instantiate_seconds
                .collect(one(Reading::Histogram(instantiate))),
            inner.run_seconds.collect(one(Reading::Histogram(run))),
            inner
                .linear_memory_bytes
                .collect(one(Reading::Histogram(memory))),
            inner
                .overlay_bytes
                .collect(one(Reading::Histogram(overlay))),
        ]
    }
}
