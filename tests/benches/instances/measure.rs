//! Timing: medians of many runs, in processes pinned to one core.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::SIDE_FLAG;

/// A side of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// This project's engine and WASI.
    Ours,
    /// wasmtime with the settings that the targets refer to.
    Rival,
    /// wasmtime with the setting that keeps touched memory resident, for information only.
    RivalResident,
}

impl Side {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Rival, Self::RivalResident];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Rival => "wasmtime",
            Self::RivalResident => "wasmtime-resident",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|side| side.name() == name)
    }
}

/// The duration of an operation.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    pub(crate) name: String,
    pub(crate) median: Duration,
    /// Mean of consecutive operations: the closed loop.
    pub(crate) mean: Duration,
}

/// Runs `step` as a warm-up and then measures `runs` runs. `step` returns the time that counts.
pub(crate) fn median(name: &str, runs: usize, mut step: impl FnMut() -> Duration) -> Measurement {
    for _ in 0..runs / 10 {
        step();
    }
    let mut times: Vec<_> = (0..runs).map(|_| step()).collect();
    of_times(name, &mut times)
}

/// Summarizes these times.
pub(crate) fn of_times(name: &str, times: &mut [Duration]) -> Measurement {
    times.sort_unstable();
    Measurement {
        name: name.to_owned(),
        median: times[times.len() / 2],
        mean: times.iter().sum::<Duration>() / times.len() as u32,
    }
}

/// The duration of `work`, without dropping its result.
pub(crate) fn time<R>(work: impl FnOnce() -> R) -> Duration {
    let start = Instant::now();
    let result = work();
    let elapsed = start.elapsed();
    drop(result);
    elapsed
}

/// Pins this process to the last core that it may use, which usually has the fewest interrupts.
pub(crate) fn pin_to_one_core() {
    let allowed = sched_getaffinity(None).expect("a process knows its cores");
    let last = (0..CpuSet::MAX_CPU)
        .rev()
        .find(|core| allowed.is_set(*core));
    let mut one = CpuSet::new();
    one.set(last.expect("it runs on one of them"));
    sched_setaffinity(None, &one).expect("it may use that core");
}

/// Passes measurements to the parent.
pub(crate) fn print(measurements: &[Measurement]) {
    let mut text = String::new();
    for Measurement { name, median, mean } in measurements {
        writeln!(text, "{name}\t{}\t{}", median.as_nanos(), mean.as_nanos())
            .expect("a string takes everything");
    }
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).expect("the parent reads");
}

/// Runs this program in a child process and returns the lines that it prints.
pub(crate) fn child(flag: &str, name: &str, inputs: &Path) -> Vec<String> {
    let program = std::env::current_exe().expect("a program has a file");
    let output = Command::new(program)
        .args([flag, name])
        .arg(inputs)
        .output()
        .expect("it can be started again");
    assert!(
        output.status.success(),
        "{name}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("it prints names and numbers");
    text.lines().map(str::to_owned).collect()
}

/// Measures one side in a child process.
pub(crate) fn in_child(side: Side, inputs: &Path) -> Vec<Measurement> {
    let lines = child(SIDE_FLAG, side.name(), inputs);
    let measurement = |line: &String| {
        let mut fields = line.split('\t');
        let name = fields.next().unwrap_or_default().to_owned();
        let mut time = || {
            let nanoseconds = fields.next().expect("a tab is between them");
            Duration::from_nanos(nanoseconds.parse().expect("it is a number"))
        };
        Measurement {
            name,
            median: time(),
            mean: time(),
        }
    };
    lines.iter().map(measurement).collect()
}
