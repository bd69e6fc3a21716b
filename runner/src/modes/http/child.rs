//! The child of http mode: started once, logged for ever, never restarted.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use super::StartError;
use crate::config::Config;
use crate::log::{self, FunctionStream, Logger};
use crate::process::{self, Child, Children, CommandLine, failure_text};

/// How long the output of a child that has failed is still read, if others hold it open.
const OUTPUT_GRACE: Duration = Duration::from_millis(250);

/// The running child.
#[derive(Debug)]
pub(super) struct Forked {
    /// `None` once it has ended, so that no signal reaches a stranger of the same number.
    pid: Arc<Mutex<Option<Pid>>>,
}

impl Forked {
    pub(super) fn start(
        config: &Config,
        logger: &Logger,
        children: &Children,
        failures: UnboundedSender<String>,
    ) -> Result<Self, StartError> {
        let line = CommandLine::split(&config.fprocess);
        logger.info(&format!(
            "Forking: {}, arguments: [{}]",
            line.command,
            line.arguments.join(" ")
        ));
        let child = spawn(&line, children).map_err(|error| {
            logger.error(&error.to_string());
            StartError::new("Forked function has terminated: exec: not started")
        })?;
        let pid = child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = Arc::new(Mutex::new(pid));
        tokio::spawn(supervise(
            child,
            Arc::clone(&pid),
            config.log_buffer_size,
            *logger,
            failures,
        ));
        Ok(Self { pid })
    }

    /// Passes SIGTERM on.
    pub(super) fn terminate(&self) {
        let pid = self.pid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *pid {
            // It has not been waited for, so the number is still its own; that it has ended meanwhile is fine.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

fn spawn(line: &CommandLine, children: &Children) -> Result<Child, process::StartError> {
    let program = line.locate()?;
    let mut command = Command::new(&program);
    command
        .arg0(&line.command)
        .args(&line.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    children
        .spawn(&mut command)
        .map_err(|cause| process::StartError::fork(&program, &cause))
}

/// Logs the child's output and reports how it ended, unless it ended well: what it started may serve on.
async fn supervise(
    mut child: Child,
    pid: Arc<Mutex<Option<Pid>>>,
    log_buffer_size: i64,
    logger: Logger,
    failures: UnboundedSender<String>,
) {
    // Kept open and empty for as long as the child lives.
    let stdin = child.stdin.take();
    let mut output = JoinSet::new();
    if let Some(stdout) = child.stdout.take() {
        logger.info("Started logging: stdout from function.");
        output.spawn(async move {
            log::pump(stdout, FunctionStream::Stdout, log_buffer_size, &logger).await;
        });
    }
    if let Some(stderr) = child.stderr.take() {
        logger.info("Started logging: stderr from function.");
        output.spawn(async move {
            log::pump(stderr, FunctionStream::Stderr, log_buffer_size, &logger).await;
        });
    }
    let ended = child.wait().await;
    *pid.lock().unwrap_or_else(PoisonError::into_inner) = None;
    drop(stdin);
    let failure = match ended {
        Ok(status) => failure_text(status),
        Err(cause) => Some(format!("wait: {cause}")),
    };
    if let Some(failure) = failure {
        // Its last words say why.
        let read = async { while output.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(OUTPUT_GRACE, read).await;
        // The receiver lives as long as the program.
        let _ = failures.send(format!("Forked function has terminated: {failure}"));
    } else {
        output.detach_all();
    }
}
