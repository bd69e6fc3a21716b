//! The program: what it does before it serves, in of-watchdog's order, and how it stops.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::{self, Invocation};
use crate::config::{self, Config, ConfigError, LogFormat};
use crate::descriptors;
use crate::gotext;
use crate::jwt::Authenticator;
use crate::log::Logger;
use crate::metrics::Metrics;
use crate::modes::{self, Mode, StartError};
use crate::one_shot;
use crate::process::{Children, io_error_text};
use crate::server::{self, Health, Server, Service, ServiceOptions};

/// The exit codes of the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Asked to stop, or nothing to complain about.
    Success = 0,
    /// Cannot start or go on.
    Failure = 1,
    /// A command line or configuration that makes no sense, a metrics port that is taken, or an interrupt of PID 1.
    Usage = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == one_shot::FLAG).is_some() {
        return one_shot::main(arguments).into();
    }
    watchdog().into()
}

/// The program as a watchdog.
fn watchdog() -> Exit {
    let logger = Logger::new(early_format(), true);
    match cli::parse(
        std::env::args_os()
            .skip(1)
            .map(|argument| argument.to_string_lossy().into_owned()),
    ) {
        Err(error) => {
            write_stderr(&format!("{error}\n{}", cli::USAGE));
            Exit::Usage
        }
        Ok(Invocation::Help) => {
            write_stderr(cli::USAGE);
            Exit::Success
        }
        Ok(Invocation::Version) => {
            log_version(&logger);
            Exit::Success
        }
        Ok(Invocation::HealthCheck) => {
            log_version(&logger);
            match load_config(&logger) {
                Err(exit) => exit,
                Ok((config, _)) if config.lock_file.exists() => Exit::Success,
                Ok(_) => {
                    complain(&logger, "unable to find lock file.", "\n");
                    Exit::Failure
                }
            }
        }
        Ok(Invocation::Serve) => {
            log_version(&logger);
            match load_config(&logger) {
                Err(exit) => exit,
                Ok((config, warnings)) => start(config, &warnings),
            }
        }
    }
}

/// The format of what is logged before there is a configuration; whether the variable is valid is told later.
fn early_format() -> LogFormat {
    if std::env::var_os(config::table::LOG_FORMAT.name).is_some_and(|value| value == "json") {
        LogFormat::Json
    } else {
        LogFormat::Text
    }
}

fn log_version(logger: &Logger) {
    let version = option_env!("FAAS_WASM_VERSION").unwrap_or("dev");
    let sha = option_env!("FAAS_WASM_SHA").unwrap_or("unknown");
    logger.info(&format!("Version: {version}\tSHA: {sha}"));
}

fn write_stderr(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell if this fails.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Says why there is no start: in the original's form, which has no time before it, or as JSON.
fn complain(logger: &Logger, text: &str, end: &str) {
    match early_format() {
        LogFormat::Json => logger.error(text),
        LogFormat::Text => write_stderr(&format!("{text}{end}")),
    }
}

/// Reads the configuration, and reports in the original's form why there is none.
fn load_config(logger: &Logger) -> Result<(Config, Vec<String>), Exit> {
    for entry in bad_environment_entries() {
        logger.warn(&format!("Bad environment: {entry}"));
    }
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    match config::load(&environment) {
        Ok(loaded) => match loaded.config.rejected_mode.clone() {
            None => Ok((loaded.config, loaded.warnings)),
            Some(rejected) => {
                complain(logger, &rejected.to_string(), "\n");
                Err(Exit::Usage)
            }
        },
        Err(error @ ConfigError::Invalid(_)) => {
            let text = format!(
                "Error loading config:\n{error}\nhint: see CONFIGURATION.md for what each variable takes"
            );
            complain(logger, &text, "\n");
            Err(Exit::Usage)
        }
        Err(error) => {
            complain(logger, &format!("Error loading config: {error}"), "");
            Err(Exit::Failure)
        }
    }
}

/// Entries of the environment that are no variables; the standard library leaves them out.
fn bad_environment_entries() -> Vec<String> {
    let environment = fs::read("/proc/self/environ").unwrap_or_default();
    environment
        .split(|b| *b == 0)
        .filter(|entry| !entry.is_empty() && (entry[0] == b'=' || !entry.contains(&b'=')))
        .map(|entry| String::from_utf8_lossy(entry).into_owned())
        .collect()
}

fn start(config: Config, warnings: &[String]) -> Exit {
    let logger = Logger::new(config.log_format, config.prefix_logs);
    for warning in warnings {
        logger.warn(warning);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = modes::io_threads(&config) {
        builder.worker_threads(threads);
    }
    builder.on_thread_park(move || {
        modes::before_waiting();
        logger.flush();
    });
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            logger.error(&format!("cannot start threads: {cause}"));
            return Exit::Failure;
        }
    };
    let exit = runtime.block_on(serve(config, &logger));
    logger.finish();
    // Functions that are still running keep running; nothing of ours waits for them.
    runtime.shutdown_background();
    exit
}

/// Serves until SIGTERM or a failure of the mode.
async fn serve(config: Config, logger: &Logger) -> Exit {
    let Ok(metrics) = Metrics::new() else {
        logger.error("cannot register metrics");
        return Exit::Failure;
    };
    // Listening for the signal begins before anything that it must stop.
    let mut sigterm = match signal(SignalKind::terminate()) {
        Ok(sigterm) => sigterm,
        Err(cause) => {
            logger.error(&format!("cannot handle SIGTERM: {cause}"));
            return Exit::Failure;
        }
    };
    let (failures, mut failed) = mpsc::unbounded_channel();
    let wasm = modes::is_wasm(&config).then_some(&config.wasm);
    let children = Children::new(descriptors::make_room(&config, wasm, logger));
    tokio::spawn(children.clone().reap_orphans());
    let mode = match modes::start(&config, logger, metrics, children, failures) {
        Ok(mode) => mode,
        Err(StartError { message }) => {
            logger.error(&message);
            return Exit::Failure;
        }
    };
    tokio::select! {
        exit = authenticate_and_run(config, logger, metrics, mode, &mut sigterm) => exit,
        Some(message) = failed.recv() => {
            logger.error(&message);
            Exit::Failure
        }
        () = first_process_interrupted() => Exit::Usage,
    }
}

/// Resolves at a signal that would end any other process than PID 1, to which the kernel sends none that is not handled.
/// Go's programs end there too.
async fn first_process_interrupted() {
    if std::process::id() == 1 {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        if let [Ok(mut interrupt), Ok(mut hangup), Ok(mut quit)] = kinds.map(signal) {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
                _ = quit.recv() => {}
            }
            return;
        }
    }
    std::future::pending().await
}

async fn authenticate_and_run(
    config: Config,
    logger: &Logger,
    metrics: Metrics,
    mode: &'static dyn Mode,
    sigterm: &mut Signal,
) -> Exit {
    let authenticator = match &config.jwt {
        None => None,
        Some(settings) => tokio::select! {
            discovered = Authenticator::discover(settings, logger) => match discovered {
                Ok(authenticator) => Some(authenticator),
                Err(error) => {
                    logger.error(&format!("Error: error creating JWTAuthMiddleware: {error}"));
                    return Exit::Failure;
                }
            },
            _ = sigterm.recv() => return Exit::Success,
        },
    };
    Serving {
        config,
        logger: *logger,
        metrics,
        mode,
    }
    .run(authenticator, sigterm)
    .await
}

/// Everything that the server needs, with the mode set up.
struct Serving {
    config: Config,
    logger: Logger,
    metrics: Metrics,
    mode: &'static dyn Mode,
}

impl Serving {
    async fn run(self, authenticator: Option<Authenticator>, sigterm: &mut Signal) -> Exit {
        let Self { config, logger, .. } = &self;
        let mode_name = self.mode.name();
        logger.info(&format!(
            "Watchdog mode: {}\tfprocess: {}",
            mode_name.as_str(),
            gotext::quote(&config.fprocess)
        ));
        let metrics_listener = match server::bind(config.metrics_port.into()) {
            Ok(listener) => listener,
            Err(cause) => {
                logger.error(&format!("panic: metrics error ListenAndServe: {cause}"));
                return Exit::Usage;
            }
        };
        logger.info(&format!(
            "Metrics listening on port: {}",
            config.metrics_port
        ));
        if config.metrics_port == 0 {
            log_address(logger, "Metrics listening on address", &metrics_listener);
        }
        tokio::spawn(server::serve_metrics(
            metrics_listener,
            self.metrics,
            *logger,
        ));

        let timeouts = [
            config.read_timeout,
            config.write_timeout,
            config.exec_timeout,
            config.healthcheck_interval,
        ];
        let [read, write, exec, health] = timeouts;
        logger.info(&format!(
            "Timeouts: read: {read} write: {write} hard: {exec} health: {health}"
        ));
        if authenticator.is_some() {
            logger.info("JWT Auth: true");
        }
        logger.info(&format!("Listening on port: {}", config.port));
        let listener = match server::bind(config.port) {
            Ok(listener) => listener,
            Err(cause) => {
                logger.error(&format!("Error ListenAndServe: {cause}"));
                return Exit::Failure;
            }
        };
        if config.port == 0 {
            log_address(logger, "Listening on address", &listener);
        }
        let health = Arc::new(Health::new(config.lock_file.clone()));
        if let Err(exit) = accept(&health, config.suppress_lock, logger) {
            return exit;
        }
        let options = ServiceOptions {
            max_inflight: config.max_inflight,
            ready_path: Some(config.ready_path.clone()).filter(|path| !path.is_empty()),
            write_timeout: config.write_timeout.limit(),
            authenticator,
        };
        let service = Service::new(self.mode, self.metrics, Arc::clone(&health), options);
        let server = Server::new(
            listener,
            Box::leak(Box::new(service)),
            config.read_timeout.limit(),
            config.max_connections,
            *logger,
        );
        let drained = server
            .run(
                self.wait_for_stop(sigterm, &health),
                config.write_timeout.limit(),
            )
            .await;
        if !drained {
            logger.error("Error in Shutdown: context deadline exceeded");
        }
        self.mode.drain().await;
        logger.info(&format!(
            "Exiting. Active connections: {}",
            self.metrics.in_flight()
        ));
        Exit::Success
    }

    /// Waits for SIGTERM, then through the interval in which requests are still served.
    async fn wait_for_stop(&self, sigterm: &mut Signal, health: &Health) {
        sigterm.recv().await;
        let (logger, interval) = (&self.logger, self.config.healthcheck_interval);
        self.mode.terminate();
        logger.info(&format!("SIGTERM: no new connections in {interval}"));
        logger.info(&format!(
            "Removing lock-file : {}",
            health.lock_file().display()
        ));
        if let Err(cause) = health.retire() {
            let path = health.lock_file().display();
            logger.error(&format!(
                "Unable to mark server as unhealthy: remove {path}: {}",
                io_error_text(&cause)
            ));
        }
        if let Some(interval) = interval.limit() {
            tokio::time::sleep(interval).await;
        }
        logger.info(&format!(
            "No new connections allowed, draining: {} requests",
            self.metrics.in_flight()
        ));
    }
}

/// Turns the runner healthy.
fn accept(health: &Health, suppress_lock: bool, logger: &Logger) -> Result<(), Exit> {
    if suppress_lock {
        logger.warn("Warning: \"suppress_lock\" is enabled. No automated health-checks will be in place for your function.");
    } else {
        let path = health.lock_file().display();
        logger.info(&format!("Writing lock-file to: {path}"));
        if let Err(cause) = health.write_lock_file() {
            logger.error(&format!(
                "cannot write the lock file {path}: {}",
                io_error_text(&cause)
            ));
            return Err(Exit::Failure);
        }
    }
    health.accept();
    Ok(())
}

/// Tells which port the kernel picked.
fn log_address(logger: &Logger, what: &str, listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        logger.info(&format!("{what}: {address}"));
    }
}
