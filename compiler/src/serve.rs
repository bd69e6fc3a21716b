//! `faas-wasm serve`: builds a module and lets the runner serve it; with `--watch` again and again.
//!
//! ```text
//! change -> build (a process of its own) --ok--> the old runner drains -> a new one
//!                                        \-bad-> the old one goes on
//! ```
//!
//! Builds are processes of their own, so that they can be stopped when the file changes once more,
//! and so that nothing that happens in a backend ends what is served. Each build writes an artifact
//! of its own: one that a runner has mapped must not change.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::error::Error;
use crate::message::{self, Format};
use crate::run::{find_runner, is_elf};
use crate::temporary::TemporaryDirectory;
use crate::watch::Watch;

/// So long the runner waits for a load balancer to notice that it ends; here there is none.
const DRAIN_VARIABLE: &str = "healthcheck_interval";

/// Who the runner's log is for.
const LOG_VARIABLE: &str = "log_format";

/// What is to be served, and how.
#[derive(Debug)]
pub(crate) struct Service {
    /// A module or an artifact.
    pub(crate) file: PathBuf,
    /// The guest's arguments.
    pub(crate) arguments: Vec<OsString>,
    /// The runner's settings, beside those in the environment.
    pub(crate) settings: Vec<(String, String)>,
    /// Options of `build`.
    pub(crate) build: Vec<OsString>,
    pub(crate) watch: bool,
    /// Whom messages are for.
    pub(crate) format: Format,
}

/// Serves until a signal comes, or until the runner ends and nothing is watched. Gives the exit
/// code.
///
/// # Errors
///
/// It cannot be started, or the system refuses something.
pub(crate) fn serve(service: &Service) -> Result<u8, Error> {
    let supervise = |source| Error::Supervise { source };
    let mut state = State {
        runner_program: find_runner()?,
        is_module: !is_elf(&service.file)?,
        service,
        directory: TemporaryDirectory::new().map_err(supervise)?,
        signals: signals().map_err(supervise)?,
        watch: match service.watch {
            true => Some(Watch::new(&service.file).map_err(|source| Error::Read {
                path: service.file.clone(),
                source,
            })?),
            false => None,
        },
        builds: 0,
        build: None,
        runner: None,
        next: None,
        ending: false,
    };
    state.check_words()?;
    state.rebuild().map_err(supervise)?;
    loop {
        if let Some(code) = state.step().map_err(supervise)? {
            return Ok(code);
        }
    }
}

/// A process and how to wait for it beside other things.
#[derive(Debug)]
struct Process {
    child: Child,
    end: OwnedFd,
}

impl Process {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        // A group of its own: Ctrl-C comes to us, and we decide who hears of it.
        let child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        let end = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Self { child, end })
    }

    fn signal(&self, signal: Signal) {
        // It may have ended already.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only on the way out of an error; what has ended was waited for.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

struct State<'a> {
    service: &'a Service,
    runner_program: PathBuf,
    is_module: bool,
    directory: TemporaryDirectory,
    signals: UnixStream,
    watch: Option<Watch>,
    builds: u32,
    build: Option<Process>,
    /// The runner and its artifact.
    runner: Option<(Process, PathBuf)>,
    /// What to serve when the runner before has ended.
    next: Option<PathBuf>,
    ending: bool,
}

impl State<'_> {
    /// The runner takes its command apart at spaces.
    fn check_words(&self) -> Result<(), Error> {
        let has_space = |word: &OsStr| word.as_encoded_bytes().contains(&b' ');
        let words = self.service.arguments.iter().map(OsString::as_os_str);
        for word in words.chain([self.directory.path().as_os_str()]) {
            if has_space(word) || word.is_empty() {
                return Err(Error::ServeWord { word: word.into() });
            }
        }
        Ok(())
    }

    /// Where the next artifact goes.
    fn artifact(&self) -> PathBuf {
        let stem = self.service.file.file_stem().unwrap_or_default();
        let name: String = stem
            .to_string_lossy()
            .chars()
            .map(|c| if c == ' ' { '_' } else { c })
            .collect();
        self.directory
            .path()
            .join(format!("{name}-{}.so", self.builds))
    }

    /// Begins to build the file's content of now.
    fn rebuild(&mut self) -> io::Result<()> {
        if let Some(mut build) = self.build.take() {
            // It removes its temporary file and ends.
            build.signal(Signal::TERM);
            build.child.wait()?;
        }
        self.builds += 1;
        let artifact = self.artifact();
        if !self.is_module {
            fs::copy(&self.service.file, &artifact)?;
            return self.replace(artifact);
        }
        let mut command = Command::new(std::env::current_exe()?);
        if self.service.format == Format::Json {
            command.arg("--message-format=json");
        }
        command
            .arg("build")
            .args(&self.service.build)
            .arg("-o")
            .arg(&artifact)
            .arg(&self.service.file)
            .stdout(Stdio::null());
        self.build = Some(Process::spawn(&mut command)?);
        Ok(())
    }

    /// Lets the runner end, and serves `artifact` then.
    fn replace(&mut self, artifact: PathBuf) -> io::Result<()> {
        self.next = Some(artifact);
        match &self.runner {
            Some((runner, _)) => {
                runner.signal(Signal::TERM);
                Ok(())
            }
            None => self.start(),
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let Some(artifact) = self.next.take() else {
            return Ok(());
        };
        let mut words = artifact.clone().into_os_string();
        for argument in &self.service.arguments {
            words.push(" ");
            words.push(argument);
        }
        let mut command = Command::new(&self.runner_program);
        if std::env::var_os(DRAIN_VARIABLE).is_none() {
            command.env(DRAIN_VARIABLE, "1ms");
        }
        if self.service.format == Format::Json && std::env::var_os(LOG_VARIABLE).is_none() {
            command.env(LOG_VARIABLE, "json");
        }
        command
            .env_remove("function_process")
            .env("fprocess", words)
            .env("mode", "wasm")
            .envs(
                self.service
                    .settings
                    .iter()
                    .map(|(name, value)| (name, value)),
            );
        let runner = Process::spawn(&mut command)?;
        self.runner = Some((runner, artifact));
        Ok(())
    }

    /// Waits for something to happen and does what it asks for; gives the exit code at the end.
    fn step(&mut self) -> io::Result<Option<u8>> {
        let ready = self.wait()?;
        if ready.signal {
            self.end()?;
        }
        if ready.change
            && self
                .watch
                .as_ref()
                .is_some_and(|watch| watch.take().unwrap_or(true))
        {
            self.tell("changed, building");
            if let Err(error) = self.rebuild() {
                // The file can vanish for a moment.
                self.tell(&format!("cannot build: {error}"));
            }
        }
        if ready.build
            && let Some(mut build) = self.build.take()
        {
            let status = build.child.wait()?;
            if let Some(code) = self.built(status)? {
                return Ok(Some(code));
            }
        }
        if ready.runner
            && let Some((mut runner, artifact)) = self.runner.take()
        {
            let status = runner.child.wait()?;
            // Another build may have failed to remove it; the directory goes at the end.
            let _ = fs::remove_file(artifact);
            if self.ending {
                return Ok(Some(0));
            }
            if self.next.is_some() {
                self.start()?;
            } else if self.watch.is_some() {
                self.tell(&format!(
                    "the runner has ended ({status}); waiting for a change"
                ));
            } else {
                return Ok(Some(exit_code(status)));
            }
        }
        let nothing_left = self.build.is_none() && self.runner.is_none();
        Ok((self.ending && nothing_left).then_some(0))
    }

    fn built(&mut self, status: ExitStatus) -> io::Result<Option<u8>> {
        if self.ending {
            return Ok(None);
        }
        if status.success() {
            let artifact = self.artifact();
            self.replace(artifact)?;
            return Ok(None);
        }
        match (&self.watch, &self.runner) {
            (None, _) => return Ok(Some(exit_code(status))),
            (Some(_), None) => self.tell("the build failed; waiting for a change"),
            (Some(_), Some(_)) => self.tell("the build failed; the version before is still served"),
        }
        Ok(None)
    }

    /// Asks everything to end; the second time without patience.
    fn end(&mut self) -> io::Result<()> {
        use std::io::Read as _;
        let mut byte = [0; 16];
        match self.signals.read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            result => result?,
        };
        let signal = if self.ending {
            Signal::KILL
        } else {
            Signal::TERM
        };
        self.ending = true;
        self.next = None;
        let processes = self
            .build
            .iter()
            .chain(self.runner.as_ref().map(|(runner, _)| runner));
        processes.for_each(|process| process.signal(signal));
        Ok(())
    }

    fn tell(&self, text: &str) {
        let line = match self.service.format {
            Format::Human => format!("serve: {text}\n"),
            Format::Json => message::object("serve", serde_json::json!({ "message": text })),
        };
        // If standard error is gone there is nobody to tell.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn wait(&self) -> io::Result<Ready> {
        let build = self.build.as_ref().map(|build| build.end.as_fd());
        let runner = self.runner.as_ref().map(|(runner, _)| runner.end.as_fd());
        // While it ends, changes do not matter any more.
        let watch = self
            .watch
            .as_ref()
            .filter(|_| !self.ending)
            .map(Watch::as_fd);
        let sources = [Some(self.signals.as_fd()), watch, build, runner];
        let present = sources.iter().flatten();
        let mut polled: Vec<_> = present.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut results = polled.iter().map(|fd| !fd.revents().is_empty());
        let mut ready = sources
            .iter()
            .map(|source| source.is_some() && results.next() == Some(true));
        let mut next = || ready.next().unwrap_or(false);
        Ok(Ready {
            signal: next(),
            change: next(),
            build: next(),
            runner: next(),
        })
    }
}

/// What can be read or waited for without waiting.
struct Ready {
    signal: bool,
    change: bool,
    build: bool,
    runner: bool,
}

/// A stream with a byte for each signal that asks us to end.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

/// As a shell tells it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(1)).unwrap_or(u8::MAX)
}

/// Parses `NAME=VALUE`.
pub(crate) fn setting(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        None => Err("expected NAME=VALUE"),
        Some(("", _)) => Err("the name before `=` is empty"),
        Some((name, _)) if ["fprocess", "function_process", "mode"].contains(&name) => {
            Err("that is what `serve` sets itself")
        }
        Some((name, value)) => Ok((name.into(), value.into())),
    }
}
