//! Connects the runner's guests and log to the CUDA crate.

use std::sync::Arc;

use faas_wasm_cuda::{Cuda, CudaHost, FileProblem, Imports, Instance, Level, Log, Settings};
use faas_wasm_wasi::{Errno, WasiContext, WasiHost};

use crate::log::Logger;

/// The host state of one run of a guest.
#[derive(Debug)]
pub struct Host {
    /// Streams, files, clocks, and environment.
    pub wasi: WasiContext,
    /// CUDA, if the guest imports it.
    pub cuda: Option<Instance>,
}

impl WasiHost for Host {
    fn wasi(&mut self) -> &mut WasiContext {
        &mut self.wasi
    }
}

impl CudaHost for Host {
    fn cuda(&mut self) -> Option<&mut Instance> {
        self.cuda.as_mut()
    }

    fn read_file(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, FileProblem> {
        self.wasi
            .read_file(path.as_bytes(), limit)
            .map_err(|errno| match errno {
                Errno::Fbig => FileProblem::TooLarge,
                _ => FileProblem::NotFound,
            })
    }
}

/// CUDA for the guests of this process.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The driver.
    pub cuda: Arc<Cuda>,
    imports: Arc<Imports>,
}

impl Provider {
    /// Opens the driver in the background. `on_loss` receives the cause, and whether the process has lost the device
    /// (`true`) or the driver cannot be opened (`false`).
    ///
    /// # Errors
    /// Fails if the system cannot create a thread.
    pub fn start(
        settings: Settings,
        imports: Arc<Imports>,
        log: Log,
        on_loss: impl Fn(&str, bool) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let cuda = Cuda::start(settings, log, on_loss)?;
        Ok(Self { cuda, imports })
    }

    /// CUDA for one run.
    #[must_use]
    pub fn instance(&self) -> Instance {
        Instance::new(&self.cuda, &self.imports)
    }
}

/// A log that writes messages about CUDA to the runner's log.
#[must_use]
pub fn log_to(logger: &Logger) -> Log {
    let logger = *logger;
    Log::new(move |level, message| match level {
        Level::Info => logger.info(message),
        Level::Warning => logger.warn(&format!("Warning: {message}")),
        Level::Error => logger.error(message),
    })
}
