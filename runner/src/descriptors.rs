//! The limit of open files: raised at start to what the configuration needs, as far as the hard limit allows.
//!
//! A connection is a descriptor, and so is what a request needs besides it: the connection to the child of http mode, a
//! process with its pipes, and each file of the host that a guest has open or has changed. Processes that
//! the runner starts get the limit that it was started with, as those of of-watchdog do: programs that know no more
//! than 1024 descriptors still find them.
//!
//! Unsafe here assumes that what runs between fork and exec makes system calls only.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::process::Command;

use crate::config::{Config, ModeName, WasmSettings};
use crate::log::Logger;

/// Listeners, the log, event queues, the artifact, scrapers of metrics.
const OWN: u64 = 128;
/// Files of the host that the changes of one guest keep open at most, besides its own descriptors.
const HELD_BY_CHANGES: u64 = 1024;

/// The soft limit that child processes get back; nothing if it was not raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InheritedLimit(Option<u64>);

impl InheritedLimit {
    /// Makes a command start its process with this limit.
    pub fn apply_to(self, command: &mut Command) {
        let Some(soft) = self.0 else { return };
        let limit = Rlimit {
            current: Some(soft),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        // SAFETY: the closure runs in the new process, where only what is safe in a signal handler may be called: it
        // makes one system call with a value that was made before, allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || setrlimit(Resource::Nofile, limit).map_err(Into::into));
        }
    }
}

/// Makes room for the descriptors that the configuration can need, and warns if there is not enough.
///
/// `wasm` are the settings of wasm mode, if that is the mode.
#[must_use]
pub fn make_room(config: &Config, wasm: Option<&WasmSettings>, logger: &Logger) -> InheritedLimit {
    let needed = needed(config, wasm);
    let before = getrlimit(Resource::Nofile);
    // No number is no limit.
    let (Some(soft), hard) = (before.current, before.maximum.unwrap_or(u64::MAX)) else {
        return InheritedLimit(None);
    };
    if soft >= needed {
        return InheritedLimit(None);
    }
    let raised = needed.min(hard);
    let limit = Rlimit {
        current: Some(raised),
        maximum: before.maximum,
    };
    let reached = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => raised,
        Err(_) => soft,
    };
    if reached < needed {
        let guests = if wasm.is_some() {
            ", and max_scale guests with wasm_fd_limit descriptors each"
        } else {
            ""
        };
        logger.warn(&format!(
            "Warning: the limit of open files is {reached}, but max_connections={}{guests} can need {needed}. \
             Raise it (ulimit -n {needed}, docker run --ulimit nofile={needed}) or lower these settings.",
            config.max_connections
        ));
    }
    InheritedLimit((reached > soft).then_some(soft))
}

/// Descriptors that one request needs besides its connection.
fn of_request(mode: Option<ModeName>) -> u64 {
    match mode {
        // Those of guests are counted by replica.
        Some(ModeName::Wasm) => 0,
        // The connection to the child, or a file.
        Some(ModeName::Http | ModeName::Static) => 1,
        // Three pipes and the process.
        Some(ModeName::Streaming | ModeName::Serializing) | None => 4,
    }
}

/// Descriptors that the settings can need.
fn needed(config: &Config, wasm: Option<&WasmSettings>) -> u64 {
    let connections = config.max_connections;
    let requests = config.max_inflight.unwrap_or(connections).min(connections);
    let mode = wasm.map_or(config.mode, |_| Some(ModeName::Wasm));
    let requests = (requests as u64).saturating_mul(of_request(mode));
    let guests = wasm.map_or(0, |wasm| {
        let each = u64::from(wasm.fd_limit).saturating_add(HELD_BY_CHANGES);
        u64::from(wasm.replicas()).saturating_mul(each)
    });
    (connections as u64)
        .saturating_add(requests)
        .saturating_add(guests)
        .saturating_add(OWN)
}
