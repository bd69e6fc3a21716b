//! What the runner does with a request that reaches the function: one file a mode behind one trait.

mod access;
mod forking;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod http;
mod serializing;
mod static_files;
mod streaming;
mod wasm;

use std::future::Future;
use std::pin::Pin;

use ::http::HeaderValue;
use tokio::sync::mpsc::UnboundedSender;

use self::http::Http;
use crate::artifact::{self, Found};
use crate::config::{Config, ModeName};
use crate::gotext;
use crate::log::Logger;
use crate::metrics::Metrics;
use crate::process::Children;
use crate::request::Request;
use crate::response::Response;
use forking::Forking;
use serializing::Serializing;
use static_files::StaticFiles;
use streaming::Streaming;
use wasm::Wasm;
pub(crate) use wasm::before_waiting;

/// Why a mode cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// What to tell, in of-watchdog's words where it has some.
    pub message: String,
}

impl StartError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

/// Whether the configuration asks for wasm mode, and there is something to run in it.
#[must_use]
pub fn is_wasm(config: &Config) -> bool {
    matches!(config.mode, None | Some(ModeName::Wasm))
        && matches!(artifact::find(&config.fprocess), Found::Artifact(_))
}

/// Threads that do I/O, if not as many as tokio would start.
#[must_use]
pub fn io_threads(config: &Config) -> Option<usize> {
    is_wasm(config).then(wasm::io_threads)
}

/// Sets up the mode of the configuration.
///
/// `failures` takes a message when the mode cannot go on; the runner then ends at once with exit code 1.
///
/// # Errors
/// If the mode cannot start.
pub fn start(
    config: &Config,
    logger: &Logger,
    metrics: Metrics,
    children: Children,
    failures: UnboundedSender<String>,
) -> Result<&'static dyn Mode, StartError> {
    let found = match config.mode {
        None | Some(ModeName::Wasm) => artifact::find(&config.fprocess),
        Some(_) => Found::Nothing,
    };
    if (config.mode, &found) == (None, &Found::Nothing) {
        // A streaming watchdog would start, be healthy, and fail each request.
        let search_path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(complaint) = artifact::complaint(&config.fprocess, &search_path) {
            return Err(StartError::new(complaint));
        }
    }
    match (config.mode, found) {
        (None | Some(ModeName::Wasm), Found::ModuleOnly(module)) => {
            Err(StartError::new(artifact::build_hint(&module)))
        }
        (None | Some(ModeName::Wasm), Found::Artifact(path)) => {
            Ok(keep(Wasm::start(config, &path, logger, metrics, failures)?))
        }
        (Some(ModeName::Wasm), Found::Nothing) => Err(StartError::new(format!(
            "no artifact for \"{}\": looked for it as given, with .so added, and with .wasm replaced by .so\nhint: run `faas-wasm build MODULE.wasm`",
            config.fprocess.split(' ').next().unwrap_or_default()
        ))),
        (None | Some(ModeName::Streaming), _) => Ok(keep(Streaming::new(Forking::new(
            config, logger, children,
        )?))),
        (Some(ModeName::Serializing), _) => Ok(keep(Serializing::new(Forking::new(
            config, logger, children,
        )?))),
        (Some(ModeName::Http), _) => Ok(keep(Http::start(config, logger, &children, failures)?)),
        (Some(ModeName::Static), _) => Ok(keep(StaticFiles::new(config, logger)?)),
    }
}

/// A mode is there for as long as the process, so that no request has to count its users.
fn keep<M: Mode>(mode: M) -> &'static dyn Mode {
    Box::leak(Box::new(mode))
}

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A way of serving requests.
///
/// The server calls a mode only for requests that are the function's: probes, redirects of unclean paths, the
/// concurrency limit and token checks happen before. It counts and times each request; a mode writes its own access
/// line, as their forms differ.
///
/// # Cancellation
/// The end of a connection drops the future of [`handle`](Mode::handle), or after it the response's body. A connection
/// ends when it fails, as by a reset, or when it is closed within a request; a client that closes only its sending
/// side behind a complete request is still answered. With [`survives_disconnect`](Mode::survives_disconnect) the
/// connection is not watched while the function runs, so that it ends only when a write fails. Work that must outlive the client belongs into a task of its own that keeps
/// a clone of the request's `ticket`, which keeps the request counted and its place under the limit taken. The
/// request's body gives an error when the client breaks off or `read_timeout` runs out.
pub trait Mode: Send + Sync + 'static {
    /// Which mode it is.
    fn name(&self) -> ModeName;

    /// Answers a request.
    ///
    /// The future resolves when the response's head is known. An error of the response's body aborts the connection,
    /// so that the client sees a cut stream; the error itself is not logged, that is the mode's part.
    fn handle(&'static self, request: Request) -> BoxFuture<Response>;

    /// Whether the function goes on when its client's connection fails.
    fn survives_disconnect(&self) -> bool {
        false
    }

    /// Whether a path is one of the mode's own, outside limit, token checks, metrics and logs.
    fn owns_path(&self, path: &str) -> bool {
        let _ = path;
        false
    }

    /// Answers a request to one of the mode's own paths.
    fn handle_own(&'static self, request: Request) -> BoxFuture<Response> {
        self.handle(request)
    }

    /// Called when the concurrency limit has refused a request.
    fn refused(&self) {}

    /// Whether `/_/ready` may say yes.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether `/_/health` may say yes: the process is not to be started anew.
    fn is_healthy(&self) -> bool {
        true
    }

    /// Called at once on SIGTERM, while requests are still served.
    fn terminate(&self) {}

    /// Called after the connections are drained, before the process ends.
    fn drain(&'static self) -> BoxFuture<()> {
        Box::pin(async {})
    }
}

/// Seconds with six decimals, for the header that tells how long the function took.
fn duration_value(seconds: f64) -> HeaderValue {
    // Digits and a point are a header value. What fits exactly is not allocated again: anything below ten seconds.
    let mut text = Vec::with_capacity("0.000000".len());
    gotext::push_decimals::<6>(&mut text, seconds);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0.000000"))
}
