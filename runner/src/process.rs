//! Child processes in the words of Go's `os/exec`: command splitting, look-up in PATH, exit texts, error texts.

mod children;

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::io::Errno;

pub use children::{Child, Children};

/// A command that could not be started; the text is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The command is empty.
    #[error("exec: no command")]
    NoCommand,
    /// Not found in PATH.
    #[error("exec: {quoted}: executable file not found in $PATH", quoted = crate::gotext::quote(.0))]
    NotInPath(String),
    /// A value that no environment can hold.
    #[error("exec: environment variable contains NUL")]
    NulInEnvironment,
    /// The kernel refused.
    #[error("fork/exec {path}: {}", errno_text(*.cause))]
    Fork {
        /// What was to be run.
        path: String,
        /// Why not.
        cause: Errno,
    },
}

impl StartError {
    /// The kernel's refusal to run `path`.
    #[must_use]
    pub fn fork(path: &Path, cause: &io::Error) -> Self {
        let cause = cause
            .raw_os_error()
            .map_or(Errno::INVAL, Errno::from_raw_os_error);
        Self::Fork {
            path: path.display().to_string(),
            cause,
        }
    }
}

/// A command line, split at every single space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The command as written.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl CommandLine {
    /// Splits the text; two spaces give an empty argument, a leading one an empty command.
    #[must_use]
    pub fn split(text: &str) -> Self {
        let mut words = text.split(' ').map(str::to_owned);
        Self {
            command: words.next().unwrap_or_default(),
            arguments: words.collect(),
        }
    }

    /// The program to run: as written if there is a slash in it, else the first executable file of that name in PATH.
    ///
    /// # Errors
    /// If there is no command or no such file.
    pub fn locate(&self) -> Result<PathBuf, StartError> {
        if self.command.is_empty() {
            return Err(StartError::NoCommand);
        }
        if self.command.contains('/') {
            return Ok(PathBuf::from(&self.command));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        find_in_path(&self.command, &path)
            .ok_or_else(|| StartError::NotInPath(self.command.clone()))
    }
}

fn find_in_path(command: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        // An empty entry would mean the working directory; Go refuses to run what it finds there.
        .filter(|directory| !directory.as_os_str().is_empty())
        .map(|directory| directory.join(command))
        .find(|file| {
            file.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

/// How a process ended, in Go's words; `None` for success.
#[must_use]
pub fn failure_text(status: ExitStatus) -> Option<String> {
    if let Some(signal) = status.signal() {
        let dumped = if status.core_dumped() {
            " (core dumped)"
        } else {
            ""
        };
        return Some(format!("signal: {}{dumped}", signal_text(signal)));
    }
    status
        .code()
        .filter(|code| *code != 0)
        .map(|code| format!("exit status {code}"))
}

/// A signal in Go's words.
fn signal_text(signal: i32) -> String {
    let text = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        16 => "stack fault",
        17 => "child exited",
        18 => "continued",
        19 => "stopped (signal)",
        20 => "stopped",
        21 => "stopped (tty input)",
        22 => "stopped (tty output)",
        23 => "urgent I/O condition",
        24 => "CPU time limit exceeded",
        25 => "file size limit exceeded",
        26 => "virtual timer expired",
        27 => "profiling timer expired",
        28 => "window changed",
        29 => "I/O possible",
        30 => "power failure",
        31 => "bad system call",
        other => return format!("signal {other}"),
    };
    text.to_owned()
}

/// An error number in Go's words.
#[must_use]
pub fn errno_text(errno: Errno) -> String {
    let text = match errno {
        Errno::PERM => "operation not permitted",
        Errno::NOENT => "no such file or directory",
        Errno::IO => "input/output error",
        Errno::TOOBIG => "argument list too long",
        Errno::NOEXEC => "exec format error",
        Errno::AGAIN => "resource temporarily unavailable",
        Errno::NOMEM => "cannot allocate memory",
        Errno::ACCESS => "permission denied",
        Errno::EXIST => "file exists",
        Errno::NOTDIR => "not a directory",
        Errno::ISDIR => "is a directory",
        Errno::INVAL => "invalid argument",
        Errno::NFILE => "too many open files in system",
        Errno::MFILE => "too many open files",
        Errno::TXTBSY => "text file busy",
        Errno::NOSPC => "no space left on device",
        Errno::ROFS => "read-only file system",
        Errno::PIPE => "broken pipe",
        Errno::LOOP => "too many levels of symbolic links",
        Errno::NAMETOOLONG => "file name too long",
        Errno::ADDRINUSE => "address already in use",
        Errno::ADDRNOTAVAIL => "cannot assign requested address",
        Errno::CONNREFUSED => "connection refused",
        Errno::CONNRESET => "connection reset by peer",
        Errno::HOSTUNREACH => "no route to host",
        Errno::NETUNREACH => "network is unreachable",
        Errno::TIMEDOUT => "connection timed out",
        other => return format!("errno {}", other.raw_os_error()),
    };
    text.to_owned()
}

/// An I/O error in Go's words where it is the kernel's.
#[must_use]
pub fn io_error_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => errno_text(Errno::from_raw_os_error(errno)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_every_space() {
        for (text, command, arguments) in [
            ("cat", "cat", &[][..]),
            ("sh -c 'a b'", "sh", &["-c", "'a", "b'"]),
            ("a  b ", "a", &["", "b", ""]),
            (" a", "", &["a"]),
        ] {
            let split = CommandLine::split(text);
            assert_eq!(
                (split.command.as_str(), split.arguments.as_slice()),
                (
                    command,
                    arguments
                        .iter()
                        .map(|a| (*a).to_owned())
                        .collect::<Vec<_>>()
                        .as_slice()
                )
            );
        }
        assert_eq!(
            CommandLine::split(" a").locate(),
            Err(StartError::NoCommand)
        );
    }

    #[test]
    fn finds_executables_only() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("plain"), "").expect("written");
        let program = directory.path().join("program");
        std::fs::write(&program, "").expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
            .expect("changed");
        let path = directory.path().as_os_str();
        assert_eq!(find_in_path("program", path), Some(program));
        assert_eq!(find_in_path("plain", path), None);
        assert_eq!(find_in_path("missing", path), None);
    }

    #[test]
    fn tells_how_processes_end() {
        for (raw, text) in [
            (0, None),
            (3 << 8, Some("exit status 3")),
            (9, Some("signal: killed")),
            (15, Some("signal: terminated")),
            (11 | 0x80, Some("signal: segmentation fault (core dumped)")),
        ] {
            assert_eq!(failure_text(ExitStatus::from_raw(raw)).as_deref(), text);
        }
    }

    #[test]
    fn start_errors_read_like_go() {
        let missing = StartError::fork(Path::new("/x"), &io::Error::from_raw_os_error(2));
        assert_eq!(
            missing.to_string(),
            "fork/exec /x: no such file or directory"
        );
        assert_eq!(
            StartError::NotInPath("x".into()).to_string(),
            "exec: \"x\": executable file not found in $PATH"
        );
    }
}
