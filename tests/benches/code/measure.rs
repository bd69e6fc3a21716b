//! Rounds of runs, and the best time of each program.

use std::io::Write as _;
use std::process::Command;

use faas_wasm_tests::Outcome;

use crate::contestant::{Contestant, Kernel};

/// The best time of each contestant, by kernel.
#[derive(Debug)]
pub(crate) struct Times(Vec<KernelTimes>);

#[derive(Debug)]
pub(crate) struct KernelTimes {
    pub(crate) kernel: String,
    /// In milliseconds.
    times: Vec<(Contestant, f64)>,
}

/// Runs every program of every kernel once per round.
///
/// # Errors
///
/// If the checksums of a kernel's programs differ.
pub(crate) fn by_turns(kernels: &mut [Kernel], rounds: usize) -> Result<Times, String> {
    let mut best: Vec<_> = kernels
        .iter()
        .map(|kernel| vec![f64::INFINITY; kernel.programs.len()])
        .collect();
    for round in 0..rounds {
        tell(&format!("round {} of {rounds}", round + 1));
        for (kernel, best) in kernels.iter_mut().zip(&mut best) {
            let count = kernel.programs.len();
            let mut sums = Vec::new();
            for turn in 0..count {
                // A different contestant starts in each round.
                let place = (turn + round) % count;
                let (contestant, command) = &mut kernel.programs[place];
                let (sum, time) = run(command);
                best[place] = best[place].min(time);
                sums.push((*contestant, sum));
            }
            require_one_sum(&kernel.name, &sums)?;
        }
    }
    let times = kernels.iter().zip(best).map(|(kernel, best)| KernelTimes {
        kernel: kernel.name.clone(),
        times: kernel
            .programs
            .iter()
            .map(|(contestant, _)| *contestant)
            .zip(best)
            .collect(),
    });
    Ok(Times(times.collect()))
}

fn require_one_sum(kernel: &str, sums: &[(Contestant, String)]) -> Result<(), String> {
    if sums.iter().all(|(_, sum)| *sum == sums[0].1) {
        return Ok(());
    }
    let lines = sums
        .iter()
        .map(|(contestant, sum)| format!("\n  {sum} {contestant:?}"));
    Err(format!(
        "{kernel}: the contestants compute different results{}",
        lines.collect::<String>()
    ))
}

/// Returns the checksum, and the time in milliseconds.
fn run(command: &mut Command) -> (String, f64) {
    let output = Outcome::of(command).success();
    let (sum, nanoseconds) = output
        .trim()
        .split_once(' ')
        .unwrap_or_else(|| panic!("{command:?} printed `{output}`"));
    let nanoseconds: f64 = nanoseconds.parse().expect("it prints a number");
    (sum.to_owned(), nanoseconds / 1e6)
}

fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

impl Times {
    /// The kernels.
    pub(crate) fn kernels(&self) -> &[KernelTimes] {
        &self.0
    }

    /// The geometric mean over the kernels, if all of them have the ratio.
    pub(crate) fn mean(&self, ratio: impl Fn(&KernelTimes) -> Option<f64>) -> Option<f64> {
        let logarithms: Option<Vec<_>> = self
            .0
            .iter()
            .map(|kernel| Some(ratio(kernel)?.ln()))
            .collect();
        let logarithms = logarithms.filter(|logarithms| !logarithms.is_empty())?;
        Some((logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
    }
}

impl KernelTimes {
    /// A contestant's time in milliseconds, if it took part.
    pub(crate) fn of(&self, contestant: Contestant) -> Option<f64> {
        let found = self.times.iter().find(|(other, _)| *other == contestant);
        found.map(|(_, time)| *time)
    }

    /// The ratio of one contestant's time to another's.
    pub(crate) fn ratio(&self, one: Contestant, other: Contestant) -> Option<f64> {
        Some(self.of(one)? / self.of(other)?)
    }
}
