//! The tested programs: `faas-wasm` and `faas-wasm-runner`, started as a user does.

use std::fmt;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::run::{Ending, Run, TrapKind};

/// Time after which a build or a run counts as hung. All of them take well below a second.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same during a reduction, in which loops may become endless.
const HURRY: Duration = Duration::from_secs(10);
/// Exit codes of the programs.
const REJECTED: i32 = 1;
const TRAPPED: i32 = 134;

/// A backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Backend {
    Cranelift,
    Llvm,
}

impl Backend {
    pub(crate) const ALL: [Self; 2] = [Self::Cranelift, Self::Llvm];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cranelift => "cranelift",
            Self::Llvm => "llvm",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The two programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    tool: PathBuf,
    runner: PathBuf,
    /// Value of `--cpu`.
    level: String,
    patience: Duration,
}

/// The outcome of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Built {
    Artifact,
    /// The tool reported that it does not support the module, and why.
    Refused(String),
    /// The tool failed for another reason.
    Failed(String),
}

impl Programs {
    /// The programs that `FAAS_WASM` and `FAAS_WASM_RUNNER` name.
    ///
    /// # Errors
    ///
    /// A variable is missing, or there is no such file.
    pub(crate) fn of_environment() -> Result<Self> {
        let program = |variable: &str| -> Result<PathBuf> {
            let path = std::env::var_os(variable).with_context(|| {
                format!("{variable} is not set\nhint: run `make fuzz-diff`, which sets it")
            })?;
            std::path::absolute(&path)?
                .canonicalize()
                .with_context(|| format!("{variable}: {}", path.display()))
        };
        Ok(Self {
            tool: program("FAAS_WASM")?,
            runner: program("FAAS_WASM_RUNNER")?,
            level: "native".into(),
            patience: PATIENCE,
        })
    }

    /// The same programs with another CPU level.
    pub(crate) fn with_level(&self, level: &str) -> Self {
        Self {
            level: level.into(),
            ..self.clone()
        }
    }

    /// The same programs with a shorter time limit.
    pub(crate) fn hurried(&self) -> Self {
        Self {
            patience: HURRY,
            ..self.clone()
        }
    }

    /// Builds a module.
    ///
    /// # Errors
    ///
    /// The tool cannot be started.
    pub(crate) fn build(&self, backend: Backend, module: &Path, artifact: &Path) -> Result<Built> {
        let mut command = Command::new(&self.tool);
        command
            .args(["build", "--quiet", "--no-cache", "--jobs", "1"])
            .args(["--backend", backend.name(), "--cpu", &self.level])
            .arg("--output")
            .arg(artifact)
            .arg(module);
        let Some(ended) = ended(&mut command, &[], self.patience)? else {
            return Ok(Built::Failed(HUNG.into()));
        };
        if ended.status.success() {
            return Ok(Built::Artifact);
        }
        let text = String::from_utf8_lossy(&ended.stderr);
        let text = text.replace(&module.display().to_string(), "MODULE");
        Ok(match ended.status.code() {
            Some(REJECTED) => Built::Refused(summary(&text)),
            _ => Built::Failed(format!("{}: {}", ended.status, summary(&text))),
        })
    }

    /// Runs an artifact once with standard input, as `faas-wasm run` does.
    ///
    /// # Errors
    ///
    /// The runner cannot be started.
    pub(crate) fn run(&self, artifact: &Path, input: &[u8]) -> Result<Run> {
        let mut command = Command::new(&self.runner);
        command.args(["--one-shot", "--"]).arg(artifact);
        let Some(ended) = ended(&mut command, input, self.patience)? else {
            return Ok(Run {
                output: Vec::new(),
                ending: Ending::Failed(HUNG.into()),
            });
        };
        let text = String::from_utf8_lossy(&ended.stderr);
        let named = || {
            let message = text.lines().next()?.strip_prefix("wasm trap: ")?;
            TrapKind::named(message)
        };
        let failure = || Ending::Failed(format!("{}: {}", ended.status, summary(&text)));
        let ending = match ended.status.code() {
            Some(0) => Ending::Returned,
            Some(TRAPPED) => named().map_or_else(failure, Ending::Trapped),
            _ => failure(),
        };
        Ok(Run {
            output: ended.stdout,
            ending,
        })
    }

    /// Fails unless the tool has both backends.
    ///
    /// # Errors
    ///
    /// A backend is missing, or the tool cannot be started.
    pub(crate) fn require_backends(&self) -> Result<()> {
        let mut command = Command::new(&self.tool);
        let ended = ended(command.args(["--version", "--verbose"]), &[], self.patience)?;
        let text = ended.map(|ended| ended.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        for backend in Backend::ALL {
            if !text.contains(backend.name()) {
                bail!(
                    "{} has no backend {backend}\nhint: run `make build`",
                    self.tool.display()
                );
            }
        }
        Ok(())
    }
}

const HUNG: &str = "it did not end";

/// A program that has ended.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Runs a program to its end. Returns `None` if it took too long and was killed.
fn ended(command: &mut Command, input: &[u8], patience: Duration) -> Result<Option<Ended>> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let program = command.get_program().display().to_string();
    let mut child = command
        .spawn()
        .with_context(|| format!("{program} cannot be started"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A guest that traps early does not read it.
        let _ = stdin.write_all(input);
    }
    let (sender, receiver) = mpsc::channel();
    let mut streams: [Option<Box<dyn Read + Send>>; 2] = [None, None];
    streams[0] = child.stdout.take().map(|stream| Box::new(stream) as _);
    streams[1] = child.stderr.take().map(|stream| Box::new(stream) as _);
    for (index, stream) in streams.into_iter().enumerate() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.map(|mut stream| stream.read_to_end(&mut bytes));
            let _ = sender.send((index, bytes));
        });
    }
    let deadline = Instant::now() + patience;
    let mut outputs = [Vec::new(), Vec::new()];
    for _ in 0..outputs.len() {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((index, bytes)) => outputs[index] = bytes,
            Err(_) => {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
        }
    }
    let status = child.wait()?;
    let [stdout, stderr] = outputs;
    Ok(Some(Ended {
        status,
        stdout,
        stderr,
    }))
}

/// The first lines of a program's output, joined into one.
fn summary(text: &str) -> String {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("hint:"));
    lines
        .take(4)
        .collect::<Vec<_>>()
        .join(": ")
        .replace("::", ":")
}
