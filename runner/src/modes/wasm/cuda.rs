//! CUDA in wasm mode: when the runner is ready, and what happens when the device is lost.
//!
//! A process that has lost its device cannot recover it. From then on the probes fail, new requests get 503, and
//! requests in progress end with their own errors. Once they have ended and the platform has had time to notice the
//! failing probes, the runner exits with a failure, so that the platform restarts it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use faas_wasm_cuda::{Health, Imports};
use http::StatusCode;
use tokio::sync::mpsc::UnboundedSender;

use super::WasmMetrics;
use crate::config::{Config, UseCuda};
use crate::cuda::{Provider, log_to};
use crate::log::Logger;
use crate::modes::StartError;
use crate::response::{self, Response};

/// Interval between checks for running guests.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for running guests if there is no `exec_timeout`.
const LONGEST_DRAIN: Duration = Duration::from_secs(60);

/// CUDA for the requests of this process, if it is enabled.
#[derive(Debug)]
pub(super) struct GuestCuda {
    pub(super) provider: Option<Provider>,
    required: bool,
}

impl GuestCuda {
    /// Starts opening the driver, if CUDA is enabled and the artifact imports it.
    pub(super) fn start(
        config: &Config,
        artifact: &Path,
        imports: Option<Arc<Imports>>,
        logger: &Logger,
        metrics: &WasmMetrics,
        failures: UnboundedSender<String>,
    ) -> Result<Self, StartError> {
        let settings = &config.wasm;
        let required = settings.use_cuda == UseCuda::Required;
        let none = Self {
            provider: None,
            required,
        };
        if settings.use_cuda == UseCuda::Off {
            return Ok(none);
        }
        let Some(imports) = imports else {
            let path = artifact.display();
            logger.warn(&format!(
                "Warning: use_cuda is set, but {path} does not import CUDA"
            ));
            return Ok(none);
        };
        let on_loss = {
            let metrics = metrics.clone();
            let drain = config
                .exec_timeout
                .limit()
                .unwrap_or(LONGEST_DRAIN)
                .min(LONGEST_DRAIN);
            let notice = config.healthcheck_interval.limit().unwrap_or_default();
            let began = AtomicBool::new(false);
            move |cause: &str, is_dead: bool| {
                if !is_dead {
                    if required {
                        let _ = failures
                            .send(format!("use_cuda=required, but there is no CUDA: {cause}"));
                    }
                    return;
                }
                if began.swap(true, Ordering::SeqCst) {
                    return;
                }
                let since = Instant::now();
                while metrics.running() > 0 && since.elapsed() < drain {
                    std::thread::sleep(LOOK);
                }
                std::thread::sleep(notice.saturating_sub(since.elapsed()));
                // Sending fails only if the runner is already exiting.
                let _ = failures.send(format!(
                    "the CUDA device is lost, so this process ends: {cause}"
                ));
            }
        };
        let provider = Provider::start(settings.cuda.clone(), imports, log_to(logger), on_loss)
            .map_err(|cause| StartError::new(format!("cannot start a thread for CUDA: {cause}")))?;
        Ok(Self {
            provider: Some(provider),
            required,
        })
    }

    /// Whether the device is usable, so that the probes may succeed.
    pub(super) fn is_healthy(&self) -> bool {
        let provider = self.provider.as_ref();
        !provider.is_some_and(|provider| provider.cuda.is_lost())
    }

    /// Whether the runner is ready for requests.
    pub(super) fn is_ready(&self) -> bool {
        match &self.provider {
            Some(provider) if self.required => provider.cuda.health() == Health::Ready,
            Some(_) => self.is_healthy(),
            None => true,
        }
    }

    /// The response to new requests once the device is lost.
    pub(super) fn refusal(&self) -> Option<Response> {
        (!self.is_healthy()).then(|| {
            response::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the function cannot run here any more\n",
            )
        })
    }

    /// Releases everything on the devices. Blocks.
    pub(super) fn stop(&self) {
        if let Some(provider) = &self.provider {
            provider.cuda.stop();
        }
    }
}
