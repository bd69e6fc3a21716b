//! The outcome of a program that has ended.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Output, Stdio};

/// Exit status and output of a program.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Outcome {
    /// Runs a program to its end with empty standard input.
    pub fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output();
        output
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
            .into()
    }

    /// Runs a program to its end with `input` on standard input.
    pub fn with_input(command: &mut Command, input: &[u8]) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let output = std::thread::scope(|scope| {
            // The program may end before it has read all of the input.
            scope.spawn(move || stdin.write_all(input).ok());
            child.wait_with_output()
        });
        output.expect("the program can be waited for").into()
    }

    /// The exit code. Fails the test if a signal ended the program.
    #[track_caller]
    pub fn code(&self) -> i32 {
        assert_eq!(self.status.signal(), None, "killed by a signal: {self:#?}");
        self.status.code().expect("it ended by itself")
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts success and returns standard output.
    #[track_caller]
    pub fn success(&self) -> String {
        assert_eq!(self.code(), 0, "{}", self.stderr);
        self.text()
    }

    /// Asserts this exit code, an empty standard output, and these substrings on standard error in this order.
    #[track_caller]
    pub fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code(), code, "{}", self.stderr);
        assert_eq!(self.text(), "", "results go to standard output, errors not");
        let mut rest = self.stderr.as_str();
        for part in parts {
            let Some(place) = rest.find(part) else {
                panic!(
                    "`{part}` is not (or not in this place) in:\n{}",
                    self.stderr
                );
            };
            rest = &rest[place + part.len()..];
        }
    }
}
