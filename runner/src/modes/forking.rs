//! One process per request: how streaming and serializing mode start it, feed it, read it and wait for it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http_body::Body as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::StartError;
use crate::config::Config;
use crate::log::{self, FunctionStream, Logger};
use crate::process::{self, Child, Children, CommandLine, failure_text};
use crate::request::{BodyError, RequestBody, RequestHead, request_environment};

/// How long the output of a process that was killed is still read: what is in the pipes, not what its own children
/// may yet write.
const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// How much is read from a pipe that is read no longer: what it can hold, not what is written to it then.
const PIPE_SIZE: usize = 64 * 1024;

/// How much output is discarded for a client that has left before the process is told by a closed pipe.
const DISCARD_LIMIT: u64 = 64 * 1024;

const READ_SIZE: usize = 32 * 1024;

/// The settings that both modes share.
#[derive(Debug)]
pub(super) struct Forking {
    command: CommandLine,
    exec_timeout: Option<Duration>,
    log_buffer_size: i64,
    children: Children,
    pub(super) content_type: HeaderValue,
    pub(super) logger: Logger,
}

/// What came of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Bytes of standard output.
    pub written: u64,
    /// What went wrong, in Go's words.
    pub failure: Option<String>,
}

impl Forking {
    pub(super) fn new(
        config: &Config,
        logger: &Logger,
        children: Children,
    ) -> Result<Self, StartError> {
        let content_type = HeaderValue::from_str(&config.content_type).map_err(|_| {
            StartError::new(format!(
                "content_type={:?} is not a header value",
                config.content_type
            ))
        })?;
        Ok(Self {
            command: CommandLine::split(&config.fprocess),
            exec_timeout: config.exec_timeout.limit(),
            log_buffer_size: config.log_buffer_size,
            children,
            content_type,
            logger: *logger,
        })
    }

    /// Runs the function once. The future is not to be dropped before its end.
    pub(super) async fn run(
        &self,
        head: &RequestHead,
        body: RequestBody,
        output: OutputSink,
    ) -> Outcome {
        self.logger.info("Started logging: stderr from function.");
        let deadline = self.exec_timeout.map(|limit| Instant::now() + limit);
        let child = match self.spawn(head, !body.is_end_stream()) {
            Ok(child) => child,
            Err(error) => {
                return Outcome {
                    written: 0,
                    failure: Some(error.to_string()),
                };
            }
        };
        self.supervise(child, body, output, deadline).await
    }

    fn spawn(&self, head: &RequestHead, has_input: bool) -> Result<Child, process::StartError> {
        let program = self.command.locate()?;
        let mut command = Command::new(&program);
        command
            .arg0(&self.command.command)
            .args(&self.command.arguments)
            .stdin(if has_input {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in request_environment(head) {
            if value.contains(&0) {
                return Err(process::StartError::NulInEnvironment);
            }
            command.env(name, OsString::from_vec(value));
        }
        self.children
            .spawn(&mut command)
            .map_err(|cause| process::StartError::fork(&program, &cause))
    }

    /// Feeds the child and reads its output until it has ended and its output too.
    async fn supervise(
        &self,
        mut child: Child,
        body: RequestBody,
        output: OutputSink,
        deadline: Option<Instant>,
    ) -> Outcome {
        let written = AtomicU64::new(0);
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = feed(body, stdin);
        // Turns true when no more is to be read than what has been written.
        let (last_call, called) = watch::channel(false);
        let outputs = async {
            let forward = async {
                if let Some(stdout) = stdout {
                    forward(stdout, output, &written, called.clone()).await;
                }
            };
            let errors = async {
                if let Some(stderr) = stderr {
                    let logged = log::pump(
                        stderr,
                        FunctionStream::Stderr,
                        self.log_buffer_size,
                        &self.logger,
                    );
                    tokio::select! {
                        biased;
                        () = logged => {}
                        () = last_call_of(called.clone()) => {}
                    }
                }
            };
            tokio::join!(forward, errors);
        };
        let ended = wait_until(&mut child, deadline);
        tokio::pin!(feed, outputs, ended);

        let mut status = None;
        let (mut fed, mut read) = (false, false);
        let mut input_error = None;
        // Set once the process has ended: until when to read what is left.
        let mut last_read = None;
        while status.is_none() || !read {
            tokio::select! {
                error = &mut feed, if !fed => {
                    fed = true;
                    input_error = error;
                }
                () = &mut outputs, if !read => read = true,
                (end, killed) = &mut ended, if status.is_none() => {
                    status = Some(end);
                    last_read = if killed { Some(Instant::now() + OUTPUT_GRACE) } else { deadline };
                }
                () = sleep_until(last_read), if last_read.is_some() => {
                    last_read = None;
                    last_call.send_replace(true);
                }
            }
        }
        let process_failure = match status {
            Some(Ok(status)) => failure_text(status),
            Some(Err(cause)) => Some(format!("wait: {cause}")),
            None => None,
        };
        Outcome {
            written: written.load(Ordering::Relaxed),
            failure: process_failure.or_else(|| input_error.map(|error| error.to_string())),
        }
    }
}

/// Where standard output goes.
#[derive(Debug)]
pub(super) struct OutputSink {
    pub(super) sender: mpsc::Sender<Bytes>,
    /// Whether to read on for ever when nobody takes it, as for HEAD.
    pub(super) discard_all: bool,
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Waits for the child's end, or kills it at the deadline and waits then; tells whether it was killed.
async fn wait_until(
    child: &mut Child,
    deadline: Option<Instant>,
) -> (std::io::Result<ExitStatus>, bool) {
    tokio::select! {
        status = child.wait() => return (status, false),
        () = sleep_until(deadline) => {}
    }
    // If it has just ended by itself there is nothing to kill.
    let _ = child.start_kill();
    (child.wait().await, true)
}

/// Copies the request's body to the child; a child that does not want it is no error.
async fn feed(mut body: RequestBody, stdin: Option<ChildStdin>) -> Option<BodyError> {
    let mut stdin = stdin?;
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                if stdin.write_all(&data).await.is_err() {
                    return None;
                }
            }
            Err(error) => return Some(error),
        }
    }
    None
}

/// Resolves at the last call.
async fn last_call_of(mut called: watch::Receiver<bool>) {
    // The sender lives as long as what is read.
    drop(called.wait_for(|called| *called).await);
}

/// Copies output to where it goes, to its end or, once it is `called` for the last time, to where there is none at the
/// moment. However slowly it is taken, nothing is left out.
async fn forward(
    mut stdout: ChildStdout,
    output: OutputSink,
    written: &AtomicU64,
    called: watch::Receiver<bool>,
) {
    let mut buffer = BytesMut::new();
    let mut discarded = 0;
    let mut left = PIPE_SIZE;
    loop {
        buffer.reserve(READ_SIZE);
        let read = tokio::select! {
            biased;
            // That the task has done much must not look like an empty pipe.
            read = tokio::task::unconstrained(stdout.read_buf(&mut buffer)) => read,
            () = last_call_of(called.clone()) => return,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if *called.borrow() {
                    left = left.saturating_sub(count);
                }
                written.fetch_add(count as u64, Ordering::Relaxed);
                if output.sender.send(buffer.split().freeze()).await.is_err() {
                    discarded += count as u64;
                    if !output.discard_all && discarded > DISCARD_LIMIT {
                        return;
                    }
                }
                if left == 0 {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use crate::descriptors::InheritedLimit;
    use crate::request::tests::head;

    /// What a function has written before its end is not lost because its client is slow.
    #[tokio::test]
    async fn slow_readers_get_all_of_a_function_that_has_ended() {
        let forking = Forking {
            command: CommandLine::split("head -c 60000 /dev/zero"),
            exec_timeout: Some(Duration::from_millis(300)),
            log_buffer_size: 65536,
            children: Children::new(InheritedLimit::default()),
            content_type: HeaderValue::from_static("a/b"),
            logger: Logger::new(LogFormat::Text, true),
        };
        let (sender, mut receiver) = mpsc::channel(1);
        let output = OutputSink {
            sender,
            discard_all: false,
        };
        let head = head("/", &[]);
        let run = forking.run(&head, RequestBody::none(), output);
        let read = async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            let mut length = 0;
            while let Some(piece) = receiver.recv().await {
                length += piece.len();
            }
            length
        };
        let (outcome, length) = tokio::join!(run, read);
        assert_eq!((outcome.failure, outcome.written), (None, 60000));
        assert_eq!(length, 60000);
    }
}
