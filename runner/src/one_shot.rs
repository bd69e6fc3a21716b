//! One-shot mode: one run of an artifact on this process's own standard streams, for `faas-wasm run`.
//!
//! ```text
//! faas-wasm-runner --one-shot [--dir HOST::GUEST:ro|cow|rw]... [--env K=V]... [--argv0 NAME] -- ARTIFACT [ARGS...]
//! ```
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
    Access, Discard, Empty, HostStream, InputStream, Mount, MountError, Namespace, OutputStream,
    Root, RootError, WasiContext,
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
    mounts: Vec<(PathBuf, String, Access)>,
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
            FAILED
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
fn directory(text: &OsStr) -> Option<(PathBuf, String, Access)> {
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
    if !guest.starts_with('/') {
        return None;
    }
    let host = PathBuf::from(OsStr::from_bytes(&text[..at]));
    Some((host, guest.to_owned(), access))
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
fn namespace(mounts: Vec<(PathBuf, String, Access)>) -> Result<Namespace, OneShotError> {
    let (roots, mounts): (Vec<_>, Vec<_>) =
        mounts.into_iter().partition(|(_, guest, _)| is_root(guest));
    let namespace = match roots.into_iter().next_back() {
        Some((host, _, access)) => Namespace::new(Root::open(host)?, access),
        None => Namespace::new(empty_root()?, Access::ReadOnly),
    };
    let mounts: Vec<_> = mounts
        .into_iter()
        .map(|(host, guest, access)| Mount {
            guest,
            host,
            access,
        })
        .collect();
    Ok(namespace.with_mounts(&mounts)?)
}

fn is_root(guest: &str) -> bool {
    Path::new(guest).components().count() == 1
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
                mounts: vec![("a:b".into(), "/c".into(), Access::ReadWrite)],
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
            &["--dir", "a::b::/c:rw", "--", "y"],
            &["--"],
        ] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }
}
