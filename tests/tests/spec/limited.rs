//! Commands of the tool with a time limit, so that a guest that does not end fails only one assertion.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use faas_wasm_tests::{Outcome, Work, tool};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// Time limit of a command. The slowest one, a build with LLVM, takes a few seconds.
const LIMIT: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

/// Runs a command of the tool to its end or to its time limit. Files collect its output, because pipes would need a
/// reader.
pub(crate) fn limited(work: &Work, arguments: impl FnOnce(&mut Command)) -> Outcome {
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| work.join(name));
    let create = |path| File::create(path).expect("a file can be made");
    let mut command = tool();
    arguments(&mut command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(create(&stdout))
        .stderr(create(&stderr))
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let handle = handle.expect("a child that nothing has waited for has a handle");
    let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&LIMIT));
    if ended.expect("a child's end can be waited for") == 0 {
        child.kill().expect("a child can be killed");
    }
    let status = child.wait().expect("a child can be waited for");
    let read = |path| fs::read(path).expect("a file can be read");
    Outcome {
        status,
        stdout: read(&stdout),
        stderr: String::from_utf8_lossy(&read(&stderr)).into_owned(),
    }
}

/// A readable description of how a run ended.
pub(crate) fn describe(outcome: &Outcome) -> String {
    let report = outcome.stderr.lines().next().unwrap_or_default();
    match (outcome.status.code(), outcome.status.signal()) {
        (Some(0), _) => "returned".into(),
        (Some(code), _) => format!("ended with {code}: {report}"),
        (None, Some(signal)) if signal == Signal::KILL.as_raw() => {
            format!("did not end within {} s", LIMIT.tv_sec)
        }
        (None, _) => format!("ended with {}: {report}", outcome.status),
    }
}
