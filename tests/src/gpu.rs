//! Guests over the stand-in for the driver: variables of the runner beside those of the stand-in, and single runs.

use std::ffi::OsString;
use std::path::Path;

use crate::surroundings::fake_cuda;
use crate::{Census, FakeCuda, Outcome, RunnerCommand, runner_program, tool};

/// The stand-in, with what the runner is told besides.
#[derive(Debug)]
pub struct Gpu {
    driver: FakeCuda,
    environment: Vec<(String, OsString)>,
}

impl Gpu {
    /// One device that does what it is asked, and `use_cuda=true`.
    pub fn new() -> Self {
        Self::of(FakeCuda::new())
    }

    /// The same over a driver that was told something.
    pub fn of(driver: FakeCuda) -> Self {
        let environment = vec![
            ("cuda_driver_library".into(), fake_cuda().into()),
            ("use_cuda".into(), "true".into()),
        ];
        Self {
            driver,
            environment,
        }
    }

    /// Sets a variable of the runner.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn variables(&self) -> impl Iterator<Item = &(String, OsString)> {
        self.driver.variables().iter().chain(&self.environment)
    }

    /// A runner that serves a guest with it.
    #[must_use]
    pub fn runner(&self, command: RunnerCommand) -> RunnerCommand {
        self.variables()
            .fold(command, |command, (name, value)| command.env(name, value))
    }

    /// Runs an artifact once, with this directory as its root.
    pub fn run(&self, artifact: &Path, root: Option<&Path>, arguments: &[&str]) -> Outcome {
        let mut command = tool();
        command.arg("run").env("FAAS_WASM_RUNNER", runner_program());
        if let Some(root) = root {
            command
                .arg("--dir")
                .arg(format!("{}::/:ro", root.display()));
        }
        command.arg(artifact).args(arguments);
        for (name, value) in self.variables() {
            command.env(name, value);
        }
        Outcome::of(&mut command)
    }

    /// What the stand-in has counted so far.
    pub fn census(&self) -> Census {
        self.driver.census()
    }

    /// How often a function of the driver was called.
    pub fn calls(&self, function: &str) -> u64 {
        self.census().calls(function)
    }

    /// Waits until nothing of guests is left but what this many contexts that the host keeps are made with, and
    /// requires that the host has done nothing that it must not.
    #[track_caller]
    pub fn is_empty_but_for(&self, warm: u64) {
        self.driver.assert_empty(warm);
    }

    /// Waits until there are as many contexts as the host is to keep.
    #[track_caller]
    pub fn wait_for_contexts(&self, count: u64) {
        self.driver
            .wait_for("contexts", |census| census.live("contexts") == count);
    }

    /// Requires that the host has asked the driver for nothing that it must not.
    #[track_caller]
    pub fn has_no_violations(&self) {
        assert_eq!(self.census().violations(), [""; 0]);
    }
}

impl Default for Gpu {
    fn default() -> Self {
        Self::new()
    }
}
