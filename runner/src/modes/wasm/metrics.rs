//! Metrics of wasm mode.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::limits::Limit;

/// From a microsecond to ten seconds.
const BUCKETS: [f64; 15] = [
    1e-6, 5e-6, 2e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2e-2, 0.1, 0.5, 1.0, 5.0, 10.0,
];

/// From a page of WebAssembly memory to the most that there can be.
const MEMORY_BUCKETS: [f64; 9] = [
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
];

/// From nothing to four times the default quota.
const OVERLAY_BUCKETS: [f64; 8] = [
    0.0,
    4_096.0,
    65_536.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
];

/// See the help texts.
#[derive(Clone, Debug)]
pub(super) struct WasmMetrics {
    pub started: IntCounter,
    pub running: IntGauge,
    pub ended: IntCounterVec,
    pub instantiate_seconds: Histogram,
    pub run_seconds: Histogram,
    pub load_seconds: Gauge,
    pub replicas: IntGauge,
    pub queued: IntGauge,
    pub linear_memory_bytes: Histogram,
    pub overlay_bytes: Histogram,
    limits: IntCounterVec,
}

impl WasmMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Only if a name were invalid or registered twice.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of_sizes = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        let histogram = |name: &str, help: &str| of_sizes(name, help, &BUCKETS);
        let metrics = Self {
            started: IntCounter::new("wasm_instances_started_total", "Guest runs started.")?,
            running: IntGauge::new("wasm_instances_running", "Guests running now.")?,
            ended: IntCounterVec::new(
                Opts::new("wasm_instances_ended_total", "Guest runs ended, by cause."),
                &["cause"],
            )?,
            instantiate_seconds: histogram(
                "wasm_instantiate_seconds",
                "Seconds to end the last instance of a replica and make the next.",
            )?,
            run_seconds: histogram("wasm_run_seconds", "Seconds that guests ran.")?,
            load_seconds: Gauge::new(
                "wasm_artifact_load_seconds",
                "Seconds to check and map the artifact.",
            )?,
            replicas: IntGauge::new("wasm_replicas", "Replicas that exist.")?,
            queued: IntGauge::new("wasm_queue_length", "Requests that wait for a replica.")?,
            linear_memory_bytes: of_sizes(
                "wasm_linear_memory_bytes",
                "Linear memory of guest runs at its largest.",
                &MEMORY_BUCKETS,
            )?,
            overlay_bytes: of_sizes(
                "wasm_overlay_bytes",
                "What guest runs kept in their layer of changed files at its largest.",
                &OVERLAY_BUCKETS,
            )?,
            limits: IntCounterVec::new(
                Opts::new(
                    "wasm_limit_reached_total",
                    "Requests that met a limit, by limit.",
                ),
                &["limit"],
            )?,
        };
        registry.register(Box::new(metrics.started.clone()))?;
        registry.register(Box::new(metrics.running.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        registry.register(Box::new(metrics.instantiate_seconds.clone()))?;
        registry.register(Box::new(metrics.run_seconds.clone()))?;
        registry.register(Box::new(metrics.load_seconds.clone()))?;
        registry.register(Box::new(metrics.replicas.clone()))?;
        registry.register(Box::new(metrics.queued.clone()))?;
        registry.register(Box::new(metrics.linear_memory_bytes.clone()))?;
        registry.register(Box::new(metrics.overlay_bytes.clone()))?;
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
}
