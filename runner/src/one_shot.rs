//! One-shot mode: one run of an artifact on this process's own standard streams, for `faas-wasm run`.
//!
//! ```text
//! faas-wasm-runner --one-shot [--dir HOST::GUEST:ro|cow|rw]... [--env K=V]... [--argv0 NAME] -- ARTIFACT [ARGS...]
//! ```
//! A directory is in the guest's tree at GUEST. If that is relative, the guest also has a preopened descriptor of that
//! name, as programs expect which look for their working directory among their preopens; one that leads above `/`, by
//! `..`, is there by this descriptor alone.
//!
//! The exit status is the guest's; 134 for a trap, with the report on stderr; 125 for failures of our own.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faas_wasm_cuda::{Level, Log, Settings};
use faas_wasm_engine::{InstanceError, Limits, Replica, RunLimits, RunOutcome};
use faas_wasm_wasi::{
    Access, Discard, Empty, HostStream, InputStream, Mount, MountError, MountProblem, Namespace,
    OutputStream, Root, RootError, WasiContext,
};

use crate::config::{self, ConfigError, UseCuda};
use crate::cuda::{Host, Provider};
use crate::guest::{self, GuestError, Loaded};

/// The flag that asks for this mode; it comes first.
pub const FLAG: &str = "--one-shot";

/// Exit status of a trap: that of a process that aborts, 128 + SIGABRT.
const TRAPPED: u8 = 134;
/// Exit status of failures of our own.
const FAILED: u8 = 125;

#[derive(Debug, thiserror::Error)]
enum OneShotError {
    #[error(
        "one-shot mode: {0}\nhint: {FLAG} is for `faas-wasm run`, which gives the right arguments"
    )]
    Usage(String),
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("--dir: both {} and {} are the guest's `/`", .0.display(), .1.display())]
    TwoRoots(PathBuf, PathBuf),
    #[error("--dir: no preopened directory {name:?}: {problem}")]
    Preopen { name: String, problem: MountProblem },
    #[error("no empty directory for the guest's root: {0}")]
    EmptyRoot(std::io::Error),
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot start a thread for CUDA: {0}")]
    CudaThread(std::io::Error),
    #[error("use_cuda=required, but there is no CUDA: {0}")]
    NoCuda(String),
}

#[derive(Debug, Default, PartialEq)]
struct Invocation {
    mounts: Vec<Mount>,
    environment: Vec<Vec<u8>>,
    argv0: Option<Vec<u8>>,
    artifact: PathBuf,
    arguments: Vec<Vec<u8>>,
}

/// Runs an artifact once; `arguments` are those behind [`FLAG`]. Returns the exit status.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> u8 {
    match parse(arguments).and_then(run) {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            match error {
                // Instantiation traps.
                OneShotError::Instance(InstanceError::Elements) => TRAPPED,
                _ => FAILED,
            }
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Invocation, OneShotError> {
    let usage = |message: &str| OneShotError::Usage(message.to_owned());
    let mut invocation = Invocation::default();
    loop {
        let flag = arguments.next().ok_or_else(|| usage("no artifact"))?;
        if flag == "--" {
            break;
        }
        let value = arguments
            .next()
            .ok_or_else(|| usage(&format!("no value for {}", flag.display())))?;
        match flag.to_str() {
            Some("--dir") => invocation.mounts.push(
                directory(&value)
                    .ok_or_else(|| usage(&format!("bad directory {}", value.display())))?,
            ),
            Some("--env") => invocation.environment.push(value.into_vec()),
            Some("--argv0") => invocation.argv0 = Some(value.into_vec()),
            _ => return Err(usage(&format!("unknown flag {}", flag.display()))),
        }
    }
    invocation.artifact = arguments.next().ok_or_else(|| usage("no artifact"))?.into();
    invocation.arguments = arguments.map(OsString::into_vec).collect();
    Ok(invocation)
}

/// `HOST::GUEST:MODE`.
fn directory(text: &OsStr) -> Option<Mount> {
    let text = text.as_bytes();
    let at = text.windows(2).position(|pair| pair == b"::")?;
    let (guest, access) = std::str::from_utf8(&text[at + 2..])
        .ok()?
        .rsplit_once(':')?;
    let access = match access {
        "ro" => Access::ReadOnly,
        "cow" => Access::CopyOnWrite,
        "rw" => Access::ReadWrite,
        _ => return None,
    };
    let host = OsStr::from_bytes(&text[..at]);
    (!guest.is_empty()).then(|| Mount {
        guest: guest.to_owned(),
        host: host.into(),
        access,
    })
}

fn run(invocation: Invocation) -> Result<u8, OneShotError> {
    let (use_cuda, settings) = cuda_settings()?;
    let Loaded { guest, cuda } = guest::load(
        &invocation.artifact,
        Limits::default(),
        use_cuda != UseCuda::Off,
    )?;
    let provider = cuda
        .map(|imports| Provider::start(settings, imports, cuda_log(), |_, _| {}))
        .transpose()
        .map_err(OneShotError::CudaThread)?;
    if let Some(provider) = provider.as_ref().filter(|_| use_cuda == UseCuda::Required)
        && let Err(cause) = provider.cuda.wait_until_open()
    {
        return Err(OneShotError::NoCuda(cause));
    }
    let namespace = namespace(invocation.mounts)?;
    let argv0 = invocation.argv0.unwrap_or_else(|| {
        let name = invocation.artifact.file_name().unwrap_or_default();
        name.as_bytes().to_vec()
    });
    let arguments: Vec<_> = [argv0].into_iter().chain(invocation.arguments).collect();
    let wasi = WasiContext::builder(Arc::new(namespace))
        .arguments(arguments)
        .own_environment(|| invocation.environment)
        .stdin(input())
        .stdout(output(HostStream::stdout()))
        .stderr(output(HostStream::stderr()))
        .build();
    let cuda = provider.as_ref().map(Provider::instance);
    let mut host = Host { wasi, cuda };
    let mut replica = Replica::new(&guest)?;
    let ending = replica.run(&mut host, RunLimits::default())?;
    drop(host);
    if let Some(provider) = provider {
        provider.cuda.stop();
    }
    let report = match ending {
        RunOutcome::Returned => return Ok(0),
        // As a shell shows it: the low byte.
        RunOutcome::Exited(status) => return Ok((status & 0xff) as u8),
        RunOutcome::Trapped(trap) => trap.report(guest.module()),
        RunOutcome::Interrupted(reason, _) => {
            let _ = writeln!(std::io::stderr(), "error: the run was ended: {reason}");
            return Ok(FAILED);
        }
        RunOutcome::HostPanicked(message) => format!("error: the runner failed: {message}\n"),
    };
    let _ = std::io::stderr().write_all(report.as_bytes());
    Ok(TRAPPED)
}

/// `use_cuda` and `cuda_*` of this process's environment, as for a server.
fn cuda_settings() -> Result<(UseCuda, Settings), OneShotError> {
    let environment = std::env::vars_os().map(|(name, value)| {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        (text(name), text(value))
    });
    Ok(config::load_cuda(&environment.collect())?)
}

/// Warnings and errors go to the terminal.
fn cuda_log() -> Log {
    Log::new(|level, message| {
        if level != Level::Info {
            let _ = writeln!(std::io::stderr(), "cuda: {message}");
        }
    })
}

/// The guest's tree: an empty read-only root with the directories in it, or the one for `/` itself.
fn namespace(directories: Vec<Mount>) -> Result<Namespace, OneShotError> {
    let mut root: Option<&Mount> = None;
    let mut mounts = Vec::new();
    let mut preopens = Vec::new();
    for directory in &directories {
        let place = Place::of(&directory.guest);
        match &place {
            Place::Root => {
                if let Some(other) = root.replace(directory) {
                    let (one, other) = (other.host.clone(), directory.host.clone());
                    return Err(OneShotError::TwoRoots(one, other));
                }
            }
            Place::Below(guest) => mounts.push(Mount {
                guest: guest.clone(),
                ..directory.clone()
            }),
            Place::Outside => {}
        }
        if !directory.guest.starts_with('/') {
            preopens.push((directory, place));
        }
    }
    let namespace = match root {
        Some(Mount { host, access, .. }) => Namespace::new(Root::open(host)?, *access),
        None => Namespace::new(empty_root()?, Access::ReadOnly),
    };
    let mut namespace = namespace.with_mounts(&mounts)?;
    for (directory, place) in preopens {
        let Mount {
            guest,
            host,
            access,
        } = directory;
        namespace = match place {
            Place::Root => namespace.with_preopen(guest, "/"),
            Place::Below(point) => namespace.with_preopen(guest, &point),
            Place::Outside => namespace.with_detached_preopen(guest, host, *access),
        }
        .map_err(|problem| OneShotError::Preopen {
            name: guest.clone(),
            problem,
        })?;
    }
    Ok(namespace)
}

/// Where in the guest's tree a directory is.
#[derive(Debug, PartialEq)]
enum Place {
    Root,
    Below(String),
    /// Nowhere: the name leads above `/`, which is the working directory of a guest.
    Outside,
}

impl Place {
    fn of(guest: &str) -> Self {
        let components = || guest.split('/').filter(|name| !matches!(*name, "" | "."));
        if guest.starts_with('/') {
            return match Path::new(guest).components().count() == 1 {
                true => Self::Root,
                // As it was written, so that an error tells it so.
                false => Self::Below(guest.to_owned()),
            };
        }
        if components().any(|name| name == "..") {
            return Self::Outside;
        }
        match components().collect::<Vec<_>>().join("/") {
            path if path.is_empty() => Self::Root,
            path => Self::Below(format!("/{path}")),
        }
    }
}

/// A directory that is gone as soon as it is open, and therefore stays empty.
fn empty_root() -> Result<Root, OneShotError> {
    let name = format!("faas-wasm-root-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    match std::fs::create_dir(&path) {
        Ok(()) => {}
        // Left behind by a process of the same number.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(OneShotError::EmptyRoot(error)),
    }
    let root = Root::open(&path);
    std::fs::remove_dir(&path).map_err(OneShotError::EmptyRoot)?;
    Ok(root?)
}

fn input() -> Box<dyn InputStream> {
    match HostStream::stdin() {
        Ok(stream) => Box::new(stream),
        Err(_) => Box::new(Empty),
    }
}

fn output(stream: std::io::Result<HostStream>) -> Box<dyn OutputStream> {
    match stream {
        Ok(stream) => Box::new(stream),
        Err(_) => Box::new(Discard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Invocation, String> {
        parse(arguments.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn relative_names_are_below_the_working_directory() {
        let below = |path: &str| Place::Below(path.to_owned());
        for (guest, place) in [
            ("/", Place::Root),
            ("//", Place::Root),
            (".", Place::Root),
            ("././", Place::Root),
            ("a", below("/a")),
            ("./a//b/.", below("/a/b")),
            ("..", Place::Outside),
            ("../a", Place::Outside),
            ("a/../b", Place::Outside),
            ("/a/", below("/a/")),
        ] {
            assert_eq!(Place::of(guest), place, "{guest}");
        }
    }

    #[test]
    fn understands_what_the_tool_sends() {
        let invocation = parsed(&[
            "--dir",
            "a:b::/c:rw",
            "--env",
            "A=B",
            "--argv0",
            "n",
            "--",
            "x.so",
            "--",
            "--env",
        ])
        .expect("parses");
        assert_eq!(
            invocation,
            Invocation {
                mounts: vec![Mount {
                    host: "a:b".into(),
                    guest: "/c".into(),
                    access: Access::ReadWrite,
                }],
                environment: vec![b"A=B".to_vec()],
                argv0: Some(b"n".to_vec()),
                artifact: "x.so".into(),
                arguments: vec![b"--".to_vec(), b"--env".to_vec()],
            }
        );
        for bad in [
            &[][..],
            &["x.so"],
            &["--dir"],
            &["--dir", "x", "--", "y"],
            &["--dir", "a:::rw", "--", "y"],
            &["--dir", "a::/c", "--", "y"],
            &["--"],
        ] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }
}
