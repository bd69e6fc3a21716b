//! CUDA for guests: what the runner's configuration and state mean to the crate that provides it.

use std::sync::Arc;

use faas_wasm_cuda::{
    Cuda, CudaHost, FileProblem, Imports, Instance, Isolation, Level, Log, Settings,
};
use faas_wasm_wasi::{Errno, WasiContext, WasiHost};

use crate::config::{CudaIsolation, CudaSettings};
use crate::log::Logger;

/// What one run of a guest has of the world.
#[derive(Debug)]
pub struct Host {
    /// Streams, files, clocks and the like.
    pub wasi: WasiContext,
    /// Devices, if it imports CUDA.
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
    /// Opens the driver in the background. `on_loss` is called with the cause if there is none, or with `true` when the
    /// device is lost for the process.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(
        settings: &CudaSettings,
        imports: Arc<Imports>,
        log: Log,
        on_loss: impl Fn(&str, bool) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let cuda = Cuda::start(translate(settings), log, on_loss)?;
        Ok(Self { cuda, imports })
    }

    /// CUDA for one run.
    #[must_use]
    pub fn instance(&self) -> Instance {
        Instance::new(&self.cuda, &self.imports)
    }
}

fn translate(settings: &CudaSettings) -> Settings {
    Settings {
        devices: settings.devices.clone(),
        mem_limit: settings.mem_limit,
        max_allocations: settings.max_allocations,
        max_streams: settings.max_streams,
        max_events: settings.max_events,
        max_modules: settings.max_modules,
        max_graphs: settings.max_graphs,
        max_contexts: settings.max_contexts,
        max_module_size: settings.max_module_size,
        kernel_timeout: settings.kernel_timeout,
        isolation: match settings.isolation {
            CudaIsolation::Context => Isolation::Context,
            CudaIsolation::Shared => Isolation::Shared,
        },
        warm_contexts: settings.warm_contexts,
        module_cache: settings.module_cache.clone(),
        strict_params: settings.strict_params,
        driver_library: settings.driver_library.clone(),
    }
}

/// Messages about CUDA go to the runner's log.
#[must_use]
pub fn log_to(logger: &Logger) -> Log {
    let logger = *logger;
    Log::new(move |level, message| match level {
        Level::Info => logger.info(message),
        Level::Warning => logger.warn(&format!("Warning: {message}")),
        Level::Error => logger.error(message),
    })
}
