//! The runner's configuration: a pure function from the environment to a validated [`Config`].
//!
//! [`table`] lists every variable, `values` holds the parsers of our own strict ones, `load` applies both rule sets,
//! and [`document`] writes `CONFIGURATION.md`. Nothing here reads the process environment or the file system, so
//! which artifact `fprocess` names is decided elsewhere.

pub mod document;
mod load;
pub mod table;
mod values;

use std::path::PathBuf;
use std::time::Duration;

pub use load::{Loaded, load, load_cuda};

use crate::gotext::GoDuration;
use crate::threads;

/// What the runner does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeName {
    /// One process per request, body and output streamed.
    Streaming,
    /// One process per request, output collected.
    Serializing,
    /// One long-lived process that speaks HTTP.
    Http,
    /// Files.
    Static,
    /// A compiled WebAssembly module, one instance per request.
    Wasm,
}

impl ModeName {
    /// The value of `mode` that selects it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Serializing => "serializing",
            Self::Http => "http",
            Self::Static => "static",
            Self::Wasm => "wasm",
        }
    }
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Of-watchdog's lines.
    Text,
    /// One JSON object a line.
    Json,
}

/// The validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The command as written; empty only in static mode.
    pub fprocess: String,
    /// The mode asked for; `None` leaves the choice to what `fprocess` names.
    pub mode: Option<ModeName>,
    /// Port of the function server; the kernel picks one for 0.
    pub port: i64,
    /// From a request's first byte to the end of its body.
    pub read_timeout: GoDuration,
    /// From the end of a request's head to the end of its response.
    pub write_timeout: GoDuration,
    /// Longest run of the function.
    pub exec_timeout: GoDuration,
    /// Wait between SIGTERM and the drain.
    pub healthcheck_interval: GoDuration,
    /// Target of http mode.
    pub upstream_url: String,
    /// Content-Type of forking modes and wasm mode.
    pub content_type: String,
    /// Root of static mode.
    pub static_path: String,
    /// Write no lock file.
    pub suppress_lock: bool,
    /// Http mode reads whole request bodies first.
    pub buffer_request_body: bool,
    /// Concurrency limit, if any.
    pub max_inflight: Option<usize>,
    /// Put time and stream before the function's log lines.
    pub prefix_logs: bool,
    /// Longest log line of the function; negative for no limit.
    pub log_buffer_size: i64,
    /// The function's readiness path; empty for none.
    pub ready_path: String,
    /// Http mode logs the call id.
    pub log_call_id: bool,
    /// Token checks, if on.
    pub jwt: Option<JwtSettings>,
    /// The lock file.
    pub lock_file: PathBuf,
    /// The shape of log lines.
    pub log_format: LogFormat,
    /// Port of the metrics server.
    pub metrics_port: u16,
    /// Most open client connections.
    pub max_connections: usize,
    /// Settings of wasm mode.
    pub wasm: WasmSettings,
    /// The first problem with `mode`, which the original reports only after the rest has been read.
    pub rejected_mode: Option<RejectedMode>,
}

/// A value of `mode` that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectedMode {
    /// Not a mode.
    #[error(
        "unknown watchdog mode: 0\n\"{0}\" is not a mode; known are streaming, serializing, http, static and wasm"
    )]
    Unknown(String),
    /// A name that of-watchdog reserved and never implemented.
    #[error(
        "unknown watchdog mode: 3\nafterburn was never implemented; known are streaming, serializing, http, static and wasm"
    )]
    Afterburn,
    /// For Go programs that embed of-watchdog.
    #[error(
        "mode=inproc is for Go programs that embed of-watchdog; this program has no handler of its own; use mode=http or mode=wasm"
    )]
    InProcess,
}

/// Token checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// Log keys and claims.
    pub debug: bool,
    /// Ask the local issuer.
    pub local: bool,
    /// Name of the function; empty if not set.
    pub function_name: String,
    /// Namespace of the function; `None` if it is in the service account's file.
    pub namespace: Option<String>,
}

/// How a guest may use a mounted directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountAccess {
    /// Writes fail.
    ReadOnly,
    /// Writes go to the instance's own upper layer.
    CopyOnWrite,
    /// Writes reach the host.
    ReadWrite,
}

/// One entry of `wasm_mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path in the guest, without a trailing slash.
    pub guest: String,
    /// Directory on the host.
    pub host: PathBuf,
    /// What the guest may do there.
    pub access: MountAccess,
}

/// Which of the runner's variables the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvironmentFilter {
    /// All of them.
    All,
    /// Those named.
    Names(Vec<String>),
}

/// How a guest's output becomes a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFormat {
    /// All of it is the body.
    Raw,
    /// It begins with a CGI head.
    Cgi,
}

/// Settings of wasm mode.
#[derive(Clone, Debug, PartialEq)]
pub struct WasmSettings {
    /// `wasm_root`.
    pub root: PathBuf,
    /// `wasm_root_readonly`.
    pub root_readonly: bool,
    /// `wasm_mounts`.
    pub mounts: Vec<Mount>,
    /// `wasm_fs_quota`, bytes.
    pub fs_quota: u64,
    /// `wasm_env`.
    pub env: EnvironmentFilter,
    /// `min_scale`, at most `max_scale`.
    pub min_scale: u32,
    /// `max_scale`; `None` means the number of CPU cores, or `min_scale` if that is more.
    pub max_scale: Option<u32>,
    /// `wasm_idle_timeout`.
    pub idle_timeout: Duration,
    /// `wasm_queue_limit`.
    pub queue_limit: u32,
    /// `wasm_memory_limit`, bytes.
    pub memory_limit: u64,
    /// `wasm_table_limit`, elements.
    pub table_limit: u32,
    /// `wasm_stack_size`, bytes.
    pub stack_size: u64,
    /// `wasm_fd_limit`.
    pub fd_limit: u32,
    /// `wasm_output_limit`, bytes.
    pub output_limit: Option<u64>,
    /// `wasm_cpu_timeout`.
    pub cpu_timeout: Option<Duration>,
    /// `wasm_cpu_share`, in (0, 1].
    pub cpu_share: Option<f64>,
    /// `wasm_output_hold_bytes`.
    pub output_hold_bytes: u64,
    /// `wasm_perf_map`.
    pub perf_map: bool,
    /// `wasm_output_hold_time`.
    pub output_hold_time: Duration,
    /// `wasm_response`.
    pub response: ResponseFormat,
    /// `use_cuda`.
    pub use_cuda: UseCuda,
    /// `cuda_*`.
    pub cuda: faas_wasm_cuda::Settings,
}

impl WasmSettings {
    /// The most replicas that there may be.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        let cores = u32::try_from(threads::cores()).unwrap_or(u32::MAX);
        self.max_scale.unwrap_or(cores.max(self.min_scale))
    }
}

/// `use_cuda`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseCuda {
    /// No CUDA imports.
    Off,
    /// CUDA imports, which fail without a driver.
    On,
    /// CUDA imports; no start without a driver.
    Required,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// `log_buffer_size` is not a number.
    #[error("invalid log_buffer_size value: {text}, error: strconv.Atoi: parsing {quoted}: {cause}", quoted = crate::gotext::quote(text))]
    LogBufferSize {
        /// What was given.
        text: String,
        /// What is wrong with it.
        #[source]
        cause: crate::gotext::AtoiError,
    },
    /// `write_timeout` is exactly zero.
    #[error("HTTP write timeout must be over 0s")]
    WriteTimeout,
    /// No command in a mode that needs one.
    #[error(
        "provide a \"function_process\" or \"fprocess\" environmental variable for your function"
    )]
    MissingCommand,
    /// Junk in our own variables, all of it.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}
