//! The settings of CUDA.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Whether instances share a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each instance has a separate driver context, and its kernels a separate address space.
    Context,
    /// All instances share one context, so their kernels can access each other's memory.
    Shared,
}

/// The settings. The runner's CONFIGURATION.md describes the variables `cuda_*` that set them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Devices that guests see, by the driver's ordinals and in the order of the guest's numbering; `None` for all.
    pub devices: Option<Vec<u32>>,
    /// Device memory of one instance in bytes.
    pub mem_limit: u64,
    /// Live allocations of one instance.
    pub max_allocations: u32,
    /// Live streams of one instance.
    pub max_streams: u32,
    /// Live events of one instance.
    pub max_events: u32,
    /// Loaded modules of one instance.
    pub max_modules: u32,
    /// Live graphs of one instance; also the limit of live executable graphs.
    pub max_graphs: u32,
    /// Live contexts of one instance, as the guest counts them.
    pub max_contexts: u32,
    /// Largest image of a module in bytes.
    pub max_module_size: u64,
    /// Longest wait for the device. The deadline of the run ends a wait as well.
    pub kernel_timeout: Option<Duration>,
    /// Whether instances share a context.
    pub isolation: Isolation,
    /// Contexts that are created in advance, per device.
    pub warm_contexts: u32,
    /// Directory for device code that was compiled from PTX.
    pub module_cache: Option<PathBuf>,
    /// Refuse launches where only the value of a parameter could tell whether it is a pointer.
    pub strict_params: bool,
    /// The driver's library.
    pub driver_library: PathBuf,
}

/// For tests; the runner's defaults are in its table of variables.
#[cfg(test)]
impl Default for Settings {
    fn default() -> Self {
        Self {
            devices: None,
            mem_limit: 1 << 30,
            max_allocations: 65_536,
            max_streams: 64,
            max_events: 4096,
            max_modules: 64,
            max_graphs: 64,
            max_contexts: 4,
            max_module_size: 64 << 20,
            kernel_timeout: None,
            isolation: Isolation::Context,
            warm_contexts: 1,
            module_cache: None,
            strict_params: false,
            driver_library: PathBuf::from("libcuda.so.1"),
        }
    }
}

/// The severity of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Information.
    Info,
    /// A problem that the operator can fix or ignore.
    Warning,
    /// A failure.
    Error,
}

/// The destination of messages.
#[derive(Clone)]
pub struct Log(Arc<Write>);

type Write = dyn Fn(Level, &str) + Send + Sync;

impl Log {
    /// A log that calls `write` for each message.
    pub fn new(write: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    pub(crate) fn write(&self, level: Level, message: &str) {
        (self.0)(level, message);
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}
