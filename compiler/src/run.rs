//! `faas-wasm run`: one run of a module or artifact.
//!
//! A module is built into a cache first. What runs is the runner's one-shot mode, in place of this
//! process, so that the guest has its standard streams, its signals and its exit status:
//!
//! ```text
//! faas-wasm-runner --one-shot [--dir HOST::GUEST:MODE]... [--env K=V]... [--argv0 NAME]
//!                  -- ARTIFACT [ARGS...]
//! ```

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use faas_wasm_artifact::{Artifact, FORMAT_VERSION};

use crate::build::{self, Extras, Options};
use crate::cache::{Key, KeyBuilder};
use crate::error::Error;
use crate::input;

/// Name of the runner's program.
const RUNNER: &str = "faas-wasm-runner";
/// Names the runner if there is none beside this program.
const RUNNER_VARIABLE: &str = "FAAS_WASM_RUNNER";

/// A directory for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    host: String,
    guest: String,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    ReadOnly,
    CopyOnWrite,
    ReadWrite,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::CopyOnWrite => "cow",
            Self::ReadWrite => "rw",
        }
    }
}

/// Why a directory is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DirectoryError {
    #[error("expected HOST or HOST::GUEST, for example `--dir .` or `--dir data::/data:rw`")]
    Grammar,
    #[error(
        "the guest's path `{0}` does not start with `/`, and no other preopened directory is kept"
    )]
    Relative(String),
    #[error("unknown mode `{0}`; known are ro, cow and rw")]
    Mode(String),
}

impl Mode {
    fn of(name: &str) -> Option<Self> {
        match name {
            "ro" => Some(Self::ReadOnly),
            "cow" => Some(Self::CopyOnWrite),
            "rw" => Some(Self::ReadWrite),
            _ => None,
        }
    }
}

impl FromStr for Directory {
    type Err = DirectoryError;

    fn from_str(text: &str) -> Result<Self, DirectoryError> {
        let (host, guest, mode) = match text.split_once("::") {
            Some((host, guest)) => match guest.split_once(':') {
                None => (host, guest, Mode::ReadOnly),
                Some((guest, mode)) => {
                    let known = Mode::of(mode);
                    let mode = known.ok_or_else(|| DirectoryError::Mode(mode.into()))?;
                    (host, guest, mode)
                }
            },
            None => {
                let with_mode = text.rsplit_once(':');
                let with_mode = with_mode.and_then(|(host, mode)| Some((host, Mode::of(mode)?)));
                // A colon may also be part of the name.
                let (host, mode) = with_mode.unwrap_or((text, Mode::ReadOnly));
                (host, host, mode)
            }
        };
        if host.is_empty() || guest.is_empty() {
            return Err(DirectoryError::Grammar);
        }
        Ok(Self {
            host: host.into(),
            guest: guest.into(),
            mode,
        })
    }
}

/// A directory that has an absolute path for the guest.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn absolute_directory(text: &str) -> Result<Directory, DirectoryError> {
    let directory: Directory = text.parse()?;
    match directory.guest.starts_with('/') {
        true => Ok(directory),
        false => Err(DirectoryError::Relative(directory.guest)),
    }
}

/// What the guest gets.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) directories: Vec<Directory>,
    pub(crate) environment: Vec<String>,
    pub(crate) argv0: Option<OsString>,
    pub(crate) arguments: Vec<OsString>,
}

/// Runs a module or artifact in place of this process.
///
/// # Errors
///
/// Whatever kept it from running; otherwise it does not return.
pub(crate) fn run(
    file: &Path,
    guest: &Guest,
    options: impl FnOnce() -> Result<Options, Error>,
    quiet: bool,
) -> Result<Infallible, Error> {
    let runner = find_runner()?;
    let artifact = if is_elf(file)? {
        file.to_owned()
    } else {
        cached(file, &options()?, quiet)?
    };
    let mut command = Command::new(&runner);
    command
        .arg0(RUNNER)
        .args(one_shot_arguments(file, &artifact, guest));
    Err(Error::Exec {
        path: runner,
        source: command.exec(),
    })
}

pub(crate) fn one_shot_arguments(file: &Path, artifact: &Path, guest: &Guest) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--one-shot".into()];
    for Directory { host, guest, mode } in &guest.directories {
        arguments.push("--dir".into());
        arguments.push(format!("{host}::{guest}:{}", mode.name()).into());
    }
    for variable in &guest.environment {
        arguments.push("--env".into());
        arguments.push(variable.into());
    }
    // The artifact's own name would be one of the cache.
    let argv0 = guest.argv0.as_deref().or(file.file_name());
    if let Some(name) = argv0 {
        arguments.push("--argv0".into());
        arguments.push(name.into());
    }
    arguments.push("--".into());
    arguments.push(artifact.into());
    arguments.extend(guest.arguments.iter().cloned());
    arguments
}

/// Whether to hand the file to the runner as it is: it says more about a damaged artifact than we
/// could.
///
/// # Errors
///
/// The file cannot be read.
pub(crate) fn is_elf(path: &Path) -> Result<bool, Error> {
    use std::io::Read as _;
    let read = || {
        let mut start = Vec::new();
        std::fs::File::open(path)?.take(4).read_to_end(&mut start)?;
        Ok(faas_wasm_artifact::is_elf(&start))
    };
    read().map_err(|source| Error::Read {
        path: path.into(),
        source,
    })
}

/// Finds the runner's program: beside this one, then where a variable says, then on PATH.
///
/// # Errors
///
/// It is nowhere.
pub(crate) fn find_runner() -> Result<PathBuf, Error> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| path.canonicalize().ok())
        .map(|path| path.with_file_name(RUNNER));
    if let Some(path) = beside.filter(|path| is_executable(path)) {
        return Ok(path);
    }
    if let Some(path) = variable(RUNNER_VARIABLE).map(PathBuf::from) {
        if is_executable(&path) {
            return Ok(path);
        }
        return Err(Error::BadRunner { path });
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(RUNNER))
        .find(|path| is_executable(path))
        .ok_or(Error::NoRunner)
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

/// A variable of the environment, unless it is empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The artifact of a module, from the cache or built into it. Two that run at once both build it;
/// the file appears complete either way, with the same bytes.
fn cached(module: &Path, options: &Options, quiet: bool) -> Result<PathBuf, Error> {
    let wasm = input::read(module)?;
    let write_error = |path: PathBuf, source| Error::CacheWrite { path, source };
    let artifact = options.cache.artifact_path(&key(&wasm, options));
    let artifact = artifact.ok_or(Error::NoCacheDir)?;
    if !is_intact(&artifact) {
        build::build_from(module, &wasm, &artifact, options, &Extras::default(), quiet).map_err(
            |error| match error {
                Error::Write { path, source } => write_error(path, source),
                other => other,
            },
        )?;
        options.cache.added_artifact(&artifact);
    }
    options.cache.used_artifact(&artifact);
    Ok(artifact)
}

/// Name of a cached artifact: everything that its bytes depend on.
fn key(wasm: &[u8], options: &Options) -> Key {
    let Options {
        backend,
        opt_level,
        jobs: _,
        targets,
        debug,
        // `run` takes no such option.
        emit: _,
        allow_unknown_imports,
        entry,
        cuda_abi,
        cache: _,
    } = options;
    let mut key = KeyBuilder::new();
    key.add(wasm);
    key.add(&FORMAT_VERSION.to_le_bytes());
    key.add(backend.name().as_bytes());
    key.add(&[
        opt_level.digit(),
        u8::from(*debug),
        u8::from(*allow_unknown_imports),
    ]);
    key.add(
        cuda_abi
            .map_or(String::new(), |abi| abi.to_string())
            .as_bytes(),
    );
    key.add(entry.as_deref().unwrap_or_default().as_bytes());
    for target in targets {
        key.add(target.triple.to_string().as_bytes());
        for feature in &target.features {
            key.add(feature.name().as_bytes());
        }
    }
    key.finish()
}

/// Whether a cached artifact is there and can be loaded. A damaged one is built again.
fn is_intact(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|file| Artifact::parse(&file).is_ok())
}

/// Splits the positional arguments of the command line.
pub(crate) fn split_command(command: &[OsString]) -> (&Path, Vec<OsString>) {
    match command.split_first() {
        Some((file, arguments)) => (Path::new(file), arguments.to_vec()),
        // clap asks for one at least; an empty name is reported as a file that is not there.
        None => (Path::new(OsStr::from_bytes(b"")), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_parse() {
        for (text, expected) in [
            ("/a::/b", Ok(("/a", "/b", "ro"))),
            (".::/", Ok((".", "/", "ro"))),
            ("a:b::/c:cow", Ok(("a:b", "/c", "cow"))),
            ("a::/c:rw", Ok(("a", "/c", "rw"))),
            ("/a", Ok(("/a", "/a", "ro"))),
            (".", Ok((".", ".", "ro"))),
            ("../a:rw", Ok(("../a", "../a", "rw"))),
            ("a:b", Ok(("a:b", "a:b", "ro"))),
            ("a:rw::/b", Ok(("a:rw", "/b", "ro"))),
            ("/a::b", Ok(("/a", "b", "ro"))),
            ("", Err(DirectoryError::Grammar)),
            (":rw", Err(DirectoryError::Grammar)),
            ("::/b", Err(DirectoryError::Grammar)),
            ("/a::", Err(DirectoryError::Grammar)),
            ("/a::/b:wo", Err(DirectoryError::Mode("wo".into()))),
        ] {
            let parsed = text.parse::<Directory>();
            let parsed = parsed
                .as_ref()
                .map(|d| (d.host.as_str(), d.guest.as_str(), d.mode.name()));
            assert_eq!(parsed, expected.as_ref().copied(), "{text}");
        }
        assert!(absolute_directory("/a").is_ok() && absolute_directory("a::/b:cow").is_ok());
        let relative = absolute_directory("a:rw");
        assert_eq!(relative, Err(DirectoryError::Relative("a".into())));
    }

    #[test]
    fn arguments_follow_the_protocol() {
        let guest = Guest {
            directories: vec!["/a::/b".parse().expect("it is correct")],
            environment: vec!["K=V".into()],
            argv0: None,
            arguments: vec!["--x".into()],
        };
        assert_eq!(
            one_shot_arguments(Path::new("dir/m.wasm"), Path::new("/cache/1.so"), &guest),
            [
                "--one-shot",
                "--dir",
                "/a::/b:ro",
                "--env",
                "K=V",
                "--argv0",
                "m.wasm",
                "--",
                "/cache/1.so",
                "--x"
            ]
        );
    }
}
