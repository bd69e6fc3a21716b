//! Control of the stand-in CUDA driver: how a test configures it and reads what it recorded. Its README documents
//! each setting and each field of the census.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Work;
use crate::runner::RunnerCommand;
use crate::surroundings::fake_cuda;

/// Far longer than any step of a test takes on a working machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A driver for one test: its settings and the files that it writes its records to.
#[derive(Debug)]
pub struct FakeCuda {
    work: Work,
    settings: Vec<(String, OsString)>,
}

/// A snapshot of what the driver has recorded so far.
#[derive(Debug)]
pub struct Census(Value);

impl FakeCuda {
    /// A driver with one device and no injected failures.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let work = Work::new();
        let files = ["control", "census", "trace"].map(|name| {
            let variable = format!("FAKE_CUDA_{}", name.to_uppercase());
            (variable, work.join(name).into())
        });
        Self {
            settings: files.into(),
            work,
        }
    }

    /// Sets a key permanently, as the variable `FAKE_CUDA_` plus the key in capitals.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        let variable = format!("FAKE_CUDA_{}", key.to_uppercase());
        self.settings.push((variable, value.into()));
        self
    }

    /// Sets keys while a program runs, one `key = value` per line. Replaces all keys that an earlier call set.
    pub fn control(&self, lines: &str) {
        let new = self.work.write("control.new", lines);
        std::fs::rename(new, self.work.join("control")).expect("the file can be renamed");
    }

    /// Environment variables for the program that loads the driver.
    pub fn variables(&self) -> &[(String, OsString)] {
        &self.settings
    }

    /// A runner whose guests use this driver.
    #[must_use]
    pub fn give_to(&self, runner: RunnerCommand) -> RunnerCommand {
        let runner = runner
            .env("use_cuda", "true")
            .env("cuda_driver_library", fake_cuda());
        self.settings
            .iter()
            .fold(runner, |runner, (name, value)| runner.env(name, value))
    }

    /// Reads the current census. Fails unless the driver has been called at least once.
    pub fn census(&self) -> Census {
        let text = std::fs::read(self.work.join("census"));
        let text = text.expect("the driver has been called, and has written its census");
        Census(serde_json::from_slice(&text).expect("the census is JSON"))
    }

    /// Polls until the census satisfies a condition that must hold soon.
    #[track_caller]
    pub fn wait_for(&self, what: &str, reached: impl Fn(&Census) -> bool) -> Census {
        let begin = Instant::now();
        loop {
            if self.work.join("census").exists() {
                let census = self.census();
                if reached(&census) {
                    return census;
                }
                assert!(begin.elapsed() < PATIENCE, "no {what}: {census:#?}");
            }
            assert!(begin.elapsed() < PATIENCE, "no {what}, and no call");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until no guest has any object left, and asserts that the driver saw no forbidden call. The host may keep
    /// up to this many contexts ready.
    #[track_caller]
    pub fn assert_empty(&self, contexts: u64) {
        let census = self.wait_for("empty driver", |census| census.is_empty(contexts));
        assert_eq!(census.violations(), [""; 0]);
    }

    /// The trace of calls, one per line.
    pub fn trace(&self) -> String {
        std::fs::read_to_string(self.work.join("trace")).unwrap_or_default()
    }

    /// Makes a copy of the driver without these functions, as in older drivers.
    pub fn lacking(&self, functions: &[&str]) -> PathBuf {
        let mut bytes = std::fs::read(fake_cuda()).expect("the driver can be read");
        for function in functions {
            let name = format!("\0{function}\0").into_bytes();
            let starts: Vec<_> = bytes
                .windows(name.len())
                .enumerate()
                .filter(|(_, part)| *part == name)
                .map(|(start, _)| start)
                .collect();
            assert!(!starts.is_empty(), "the driver has no {function}");
            for start in starts {
                bytes[start + 1] = b'x';
            }
        }
        self.work.write("libcuda.so.1", bytes)
    }
}

impl Census {
    /// Number of live objects of a kind.
    #[track_caller]
    pub fn live(&self, kind: &str) -> u64 {
        let count = self.0["live"][kind].as_u64();
        count.unwrap_or_else(|| panic!("no kind {kind} in {:#}", self.0))
    }

    /// Whether the only live objects are up to this many contexts, each with its own stream and staging buffer.
    pub fn is_empty(&self, contexts: u64) -> bool {
        let live = self.0["live"].as_object().expect("an object");
        live.iter().all(|(kind, count)| {
            let kept = matches!(kind.as_str(), "contexts" | "streams" | "pinned");
            let most = if kept { contexts } else { 0 };
            count.as_u64().is_some_and(|count| count <= most)
        })
    }

    /// Number of calls to a function.
    pub fn calls(&self, function: &str) -> u64 {
        self.0["calls"][function].as_u64().unwrap_or(0)
    }

    /// Names of the functions that have been called.
    pub fn called(&self) -> Vec<String> {
        let calls = self.0["calls"].as_object().expect("an object");
        calls.keys().cloned().collect()
    }

    /// A kernel counter: `launched`, `finished`, `faulted`, `cancelled`, or `instructions`.
    pub fn kernels(&self, what: &str) -> u64 {
        self.0["kernels"][what].as_u64().expect("a count")
    }

    /// Number of objects that `cuCtxDestroy` had to free.
    pub fn left_to_context(&self) -> u64 {
        self.0["left_to_context"].as_u64().expect("a count")
    }

    /// Descriptions of the forbidden calls that the driver saw.
    pub fn violations(&self) -> Vec<String> {
        let violations = self.0["violations"].as_array().expect("a list");
        let texts = violations
            .iter()
            .map(|text| text.as_str().unwrap_or_default());
        texts.map(str::to_owned).collect()
    }
}
