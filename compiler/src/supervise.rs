//! Runs a build in a child process, so that a crash of the code generator is an error and no crash
//! of the tool.
//!
//! LLVM calls `abort` where it meets what it did not expect, and an out-of-memory killer asks
//! nobody; neither can be caught in the process itself. The child is this program again with the
//! same arguments, output streams and working directory. Its standard input, which a build does not
//! need, is a pipe from this process: when that is closed, because a signal has ended us or will,
//! the child removes its temporary files and ends.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, signal_name};

use crate::error::Error;
use crate::temporary;

/// Set for the child.
const MARK: &str = "FAAS_WASM_SUPERVISED";

/// Whether this process is the child.
pub(crate) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// In the child: ends it when the parent does or wants it to.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        // Nothing is ever written: reading returns at the pipe's end.
        let _ = std::io::stdin().lock().read(&mut [0]);
        temporary::end_by(SIGTERM);
    });
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
        .env(MARK, "1")
        .stdin(Stdio::piped())
        .spawn()
        .ok()?;
    let handle = signals.handle();
    let watch = close_on_signal(signals, child.stdin.take());
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

/// Closes the pipe at the first signal; gives it.
fn close_on_signal(mut signals: Signals, pipe: Option<ChildStdin>) -> JoinHandle<Option<i32>> {
    std::thread::spawn(move || {
        let signal = signals.forever().next();
        drop(pipe);
        signal
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
