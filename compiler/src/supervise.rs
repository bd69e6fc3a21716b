//! Runs a build in a child process, so that a crash of the code generator is an error and no crash
//! of the tool.
//!
//! LLVM calls `abort` where it meets what it did not expect, and an out-of-memory killer asks
//! nobody; neither can be caught in the process itself. The child is this program again with the
//! same arguments, streams and working directory. It ends with this process, however that ends:
//! signals are passed on, and the kernel sends one where nobody could.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::thread::JoinHandle;

use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, signal_name};

use crate::error::Error;
use crate::temporary;

/// Set for the child: the number of the process that it is a child of.
const MARK: &str = "FAAS_WASM_SUPERVISED";

/// Whether this process is the child. Others may have inherited the variable.
pub(crate) fn is_child() -> bool {
    let parent = std::env::var(MARK).ok();
    let parent = parent.and_then(|number| Pid::from_raw(number.parse().ok()?));
    parent.is_some() && parent == getppid()
}

/// In the child: ends it when the parent ends.
pub(crate) fn end_with_parent() {
    // It is not refused; and if it were, only a parent that is killed would leave its child behind.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
}

/// Runs this program again as a child; gives its exit code. `None` if no child can be started, as
/// where processes are limited: then the build must do without.
///
/// Does not return if a signal ended the build: then it ends this process too.
pub(crate) fn run() -> Option<Result<u8, Error>> {
    let program = std::env::current_exe().ok()?;
    // Before the child starts, so that no signal is lost.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).ok()?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(MARK, std::process::id().to_string())
        .spawn()
        .ok()?;
    let handle = signals.handle();
    let watch = pass_on_signals(
        signals,
        pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok(),
    );
    let status = wait(&mut child);
    handle.close();
    // It ends now that its signals are closed, and cannot panic.
    let signal = watch.join().ok().flatten();
    if status.is_none_or(|status| status.code().is_none()) {
        temporary::remove_directories_of(child.id());
    }
    if let Some(signal) = signal {
        // Does not return for these signals.
        let _ = emulate_default_handler(signal);
    }
    let code = status.and_then(|status| status.code());
    Some(code.map(|code| code as u8).ok_or(Error::Crashed {
        signal: status.and_then(|status| status.signal()),
    }))
}

/// Asks the child to end at each signal, as Ctrl-C does by itself; gives the first one.
fn pass_on_signals(mut signals: Signals, child: Option<OwnedFd>) -> JoinHandle<Option<i32>> {
    std::thread::spawn(move || {
        let mut first = None;
        for signal in signals.forever() {
            first.get_or_insert(signal);
            if let Some(child) = &child {
                // It may have ended already.
                let _ = pidfd_send_signal(child, Signal::TERM);
            }
        }
        first
    })
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    loop {
        match child.wait() {
            Ok(status) => return Some(status),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// A signal for people: `SIGABRT`, or its number.
pub(crate) fn describe(signal: Option<i32>) -> String {
    match signal {
        Some(signal) => signal_name(signal).map_or(format!("signal {signal}"), str::to_owned),
        None => "an unknown cause".into(),
    }
}
