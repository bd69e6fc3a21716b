//! Guests that run over the stand-in CUDA driver, either in a runner or as a single run.

use std::ffi::OsString;
use std::path::Path;

use crate::surroundings::fake_cuda;
use crate::{Census, FakeCuda, Outcome, RunnerCommand, runner_program, tool};

/// The stand-in driver, together with variables for the runner.
#[derive(Debug)]
pub struct Gpu {
    driver: FakeCuda,
    environment: Vec<(String, OsString)>,
}

impl Gpu {
    /// A driver with one device and no injected failures, and `use_cuda=true`.
    pub fn new() -> Self {
        Self::of(FakeCuda::new())
    }

    /// The same with a driver that the test configured.
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

    /// A runner that serves a guest with this driver.
    #[must_use]
    pub fn runner(&self, command: RunnerCommand) -> RunnerCommand {
        self.variables()
            .fold(command, |command, (name, value)| command.env(name, value))
    }

    /// Runs an artifact once, with `root` as the guest's root directory.
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

    /// The driver's current census.
    pub fn census(&self) -> Census {
        self.driver.census()
    }

    /// Number of calls to a function of the driver.
    pub fn calls(&self, function: &str) -> u64 {
        self.census().calls(function)
    }

    /// Waits until only the objects of this many ready contexts are left, and asserts that the driver saw no
    /// forbidden call.
    #[track_caller]
    pub fn is_empty_but_for(&self, warm: u64) {
        self.driver.assert_empty(warm);
    }

    /// Waits until the driver has exactly this many contexts.
    #[track_caller]
    pub fn wait_for_contexts(&self, count: u64) {
        self.driver
            .wait_for("contexts", |census| census.live("contexts") == count);
    }

    /// Asserts that the driver saw no forbidden call.
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
