//! Files, directories and processes that must not outlive this process.
//!
//! Each removes itself when it is dropped, and SIGINT, SIGTERM and SIGHUP remove all of them. Only
//! a process that is killed outright leaves something behind.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Mode of a file before the umask.
const FILE_MODE: u32 = 0o644;
/// Names to try; each is random, so that more than one is hardly ever needed.
const ATTEMPTS: u32 = 16;

/// All that exist now, for the signal thread.
static PATHS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Processes that are waited for, by number.
static PROCESSES: Mutex<Vec<(u32, OwnedFd)>> = Mutex::new(Vec::new());

fn processes() -> MutexGuard<'static, Vec<(u32, OwnedFd)>> {
    PROCESSES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn paths() -> MutexGuard<'static, Vec<PathBuf>> {
    PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file beside another one, to take its name later.
pub(crate) struct TemporaryFile {
    path: PathBuf,
    pub(crate) file: File,
}

impl TemporaryFile {
    /// Creates an empty file in the directory of `target`, with a name like its name.
    pub(crate) fn beside(target: &Path) -> io::Result<Self> {
        remove_on_signals();
        let mut name = target.file_name().unwrap_or_default().to_owned();
        // Names have at most 255 bytes on Linux; a long one would fail with its suffix.
        if name.len() > 200 {
            name = "faas-wasm".into();
        }
        let (path, file) = create(directory(target), &name, |path| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(FILE_MODE)
                .open(path)
        })?;
        Ok(Self { path, file })
    }

    /// Gives the file its name; from then on it is not temporary.
    pub(crate) fn rename(mut self, target: &Path) -> io::Result<()> {
        let mut paths = paths();
        std::fs::rename(&self.path, target)?;
        paths.retain(|path| *path != self.path);
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            remove(&self.path);
        }
    }
}

/// An empty directory that nobody else can read, in the system's place for such. Its owner sees to
/// signals, unless there is a [`TemporaryFile`] too.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    pub(crate) fn new() -> io::Result<Self> {
        let name = directory_name(std::process::id());
        let (path, ()) = create(&std::env::temp_dir(), name.as_ref(), |path| {
            std::fs::DirBuilder::new().mode(0o700).create(path)
        })?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Runs a program to its end and gives what it wrote to pipes. A signal that ends this process ends
/// it too.
///
/// # Errors
///
/// It cannot be started, or what it writes not be read.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    remove_on_signals();
    let (id, child) = {
        // The lock is held meanwhile, so that no signal comes in between.
        let mut processes = processes();
        let child = command.spawn()?;
        // Without it only Ctrl-C, which goes to both, ends it early.
        if let Ok(handle) = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            processes.push((child.id(), handle));
        }
        (child.id(), child)
    };
    let output = child.wait_with_output();
    processes().retain(|(other, _)| *other != id);
    output
}

/// Start of the names of a process's directories.
fn directory_name(pid: u32) -> String {
    format!("faas-wasm-{pid}")
}

/// Removes the directories of a process that could not do so itself.
pub(crate) fn remove_directories_of(pid: u32) {
    let start = format!(".{}.", directory_name(pid));
    let entries = std::fs::read_dir(std::env::temp_dir());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with(&start);
        // Those of somebody else with the same name cannot be removed, or do not matter to them.
        if ours && entry.path().is_dir() {
            delete(&entry.path());
        }
    }
}

/// Creates something with a random name and remembers it.
fn create<T>(
    directory: &Path,
    name: &std::ffi::OsStr,
    create: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<(PathBuf, T)> {
    for _ in 0..ATTEMPTS {
        // The hasher's keys are random.
        let random = RandomState::new().build_hasher().finish();
        let mut file_name = std::ffi::OsString::from(".");
        file_name.push(name);
        file_name.push(format!(".{random:016x}.tmp"));
        let path = directory.join(file_name);
        let mut paths = paths();
        match create(&path) {
            Ok(created) => {
                paths.push(path.clone());
                return Ok((path, created));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn remove(path: &Path) {
    let mut paths = paths();
    delete(path);
    paths.retain(|other| other != path);
}

/// Nothing more can be done about what cannot be removed; an error that led here is told.
fn delete(path: &Path) {
    let _ = if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
}

/// The directory that holds a file.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Starts, once, the thread that waits for signals. A process that cannot start one still works:
/// it only leaves files behind when it is stopped in the middle.
fn remove_on_signals() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        std::thread::spawn(move || {
            signals.forever().for_each(end_by);
        });
    });
}

/// Removes everything and ends the process as this signal does.
fn end_by(signal: i32) {
    // The locks are held until the process ends, so that nothing new appears.
    let processes = processes();
    for (_, process) in processes.iter() {
        // It may have ended already.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    let mut paths = paths();
    paths.drain(..).for_each(|path| delete(&path));
    let _ = emulate_default_handler(signal);
}
