//! Metrics of wasm mode.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// From a microsecond to ten seconds.
const BUCKETS: [f64; 15] = [
    1e-6, 5e-6, 2e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2e-2, 0.1, 0.5, 1.0, 5.0, 10.0,
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
    pub limits: IntCounterVec,
}

impl WasmMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// Only if a name were invalid or registered twice.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))
        };
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
        registry.register(Box::new(metrics.limits.clone()))?;
        Ok(metrics)
    }
}
