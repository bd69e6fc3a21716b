//! Single instructions with edge operands, on all engines: `instructions`.

mod module;
mod operands;
mod operators;
mod permitted;
mod units;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};

use self::module::{SLOT, output_size, result_size};
use self::operators::Case;
use self::units::Unit;
use crate::known::{About, Known};
use crate::oracle::Oracle;
use crate::run::{Ending, Run};
use crate::seeds::Directory;
use crate::subject::{Backend, Built, Programs};

/// Approximate number of units in an artifact.
const UNITS_OF_A_MODULE: usize = 1500;

/// Results of the instructions.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) instructions: usize,
    pub(crate) cases: usize,
    pub(crate) results: u64,
    pub(crate) traps: u64,
    pub(crate) findings: Vec<String>,
}

/// Runs all instructions with both backends, at the given CPU levels.
///
/// # Errors
///
/// A program cannot be started, or wasmtime fails.
pub(crate) fn run(
    programs: &Programs,
    known: &Known,
    threads: usize,
    levels: &[&str],
) -> Result<Counts> {
    let oracle = Oracle::new()?;
    let cases = operators::cases()?;
    let units = units::all(&oracle, &cases)?;
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    let counts = Counts {
        instructions: names.len(),
        cases: cases.len(),
        ..Counts::default()
    };
    let counts = Mutex::new(counts);
    let mut jobs = Vec::new();
    for group in groups(&units) {
        for level in levels {
            for backend in Backend::ALL {
                jobs.push((group, *level, backend));
            }
        }
    }
    // Start the slow backend's jobs last.
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            let directory = Directory::new()?;
            loop {
                let job = jobs
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .pop();
                let Some((group, level, backend)) = job else {
                    return Ok(());
                };
                let group: Vec<_> = group.iter().collect();
                let mut check = Check {
                    programs: &programs.with_level(level),
                    oracle: &oracle,
                    cases: &cases,
                    backend,
                    directory: &directory.0,
                    found: BTreeMap::new(),
                    results: 0,
                    traps: 0,
                };
                check.units(&group)?;
                let mut counts = counts
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                counts.results += check.results;
                counts.traps += check.traps;
                for (instruction, found) in check.found {
                    let message = format!("instruction {instruction} (--cpu {level}): {found}");
                    if known.reason(found.about, backend, &message).is_none() {
                        counts.findings.push(format!("{backend}: {message}"));
                    }
                }
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })?;
    let mut counts = counts
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    counts.findings.sort();
    Ok(counts)
}

/// Groups units into modules of about the same size.
fn groups(units: &[Unit]) -> impl Iterator<Item = &[Unit]> {
    units.chunks(UNITS_OF_A_MODULE)
}

/// Findings for an instruction.
#[derive(Debug)]
struct Found {
    about: About,
    count: u64,
    first: String,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (and {} more)", self.first, self.count - 1)
    }
}

/// Checks the units of a module with one backend at one level.
struct Check<'a> {
    programs: &'a Programs,
    oracle: &'a Oracle,
    cases: &'a [Case],
    backend: Backend,
    directory: &'a Path,
    /// Findings by the instruction's name.
    found: BTreeMap<&'static str, Found>,
    results: u64,
    traps: u64,
}

impl Check<'_> {
    fn report(&mut self, unit: &Unit, about: About, how: impl FnOnce() -> String) {
        let name = self.cases[unit.case].name;
        let found = self.found.entry(name).or_insert_with(|| Found {
            about,
            count: 0,
            first: how(),
        });
        found.count += 1;
    }

    /// Builds and runs units. If a build fails, bisects the units to find those that cause it.
    fn units(&mut self, units: &[&Unit]) -> Result<()> {
        let wasm = module::module(self.cases, units)?;
        let path = self.directory.join("instructions.wasm");
        let artifact = self.directory.join("instructions.so");
        std::fs::write(&path, &wasm)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        let (about, why) = match self.programs.build(self.backend, &path, &artifact)? {
            Built::Artifact => return self.run(units, &wasm, &artifact),
            Built::Refused(why) => (About::Refusal, format!("refused: {why}")),
            Built::Failed(how) => (About::Difference, format!("the build failed: {how}")),
        };
        if let [unit] = units {
            let case = self.cases[unit.case].label();
            self.report(unit, about, || format!("{case}: {why}"));
            return Ok(());
        }
        let (left, right) = units.split_at(units.len() / 2);
        self.units(left)?;
        self.units(right)
    }

    fn run(&mut self, units: &[&Unit], wasm: &[u8], artifact: &Path) -> Result<()> {
        let compiled = self.oracle.compile(wasm)?;
        let mut at = 0;
        while at < units.len() {
            // A unit that traps needs a separate run; all units up to the next such one share a run.
            let trap = units[at].trap;
            let quiet = units[at..]
                .iter()
                .take_while(|unit| unit.trap.is_none())
                .count();
            let end = at + if trap.is_some() { 1 } else { quiet };
            let input: Vec<_> = [at as u32, end as u32]
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
            let expected = compiled.run(&input)?;
            let ending = trap.map_or(Ending::Returned, Ending::Trapped);
            ensure!(
                expected.ending == ending,
                "the oracle contradicts itself: {} and {ending}",
                expected.ending
            );
            let found = self.programs.run(artifact, &input)?;
            at += self.compare(&units[at..end], &expected, &found);
        }
        Ok(())
    }

    /// Compares the output of units, and returns the number of units that are done.
    fn compare(&mut self, units: &[&Unit], expected: &Run, found: &Run) -> usize {
        let mut position = 0;
        for (index, unit) in units.iter().enumerate() {
            let size = output_size(&self.cases[unit.case], unit);
            let range = position..position + if unit.trap.is_some() { 0 } else { size };
            position = range.end;
            let (Some(expected), Some(found)) =
                (expected.output.get(range.clone()), found.output.get(range))
            else {
                let how = || {
                    let case = &self.cases[unit.case];
                    format!(
                        "{} of {}: {} expected, {} found",
                        case.label(),
                        operands(unit, 0, 0),
                        expected.ending,
                        found.ending
                    )
                };
                let how = how();
                self.report(unit, About::Difference, || how);
                return index + 1;
            };
            self.unit(unit, expected, found);
        }
        if expected.ending != found.ending {
            let unit = units[units.len() - 1];
            let case = self.cases[unit.case].label();
            self.report(unit, About::Difference, || {
                format!(
                    "{case} of {}: {} expected, {} found",
                    operands(unit, 0, 0),
                    expected.ending,
                    found.ending
                )
            });
        } else if units.iter().any(|unit| unit.trap.is_some()) {
            self.traps += 1;
        }
        units.len()
    }

    fn unit(&mut self, unit: &Unit, expected: &[u8], found: &[u8]) {
        let case = &self.cases[unit.case];
        let size = result_size(case);
        let count = unit.evaluations.len();
        self.results += (unit.tuples.len() * count) as u64;
        if expected == found {
            return;
        }
        for (index, (expected, found)) in expected.chunks(size).zip(found.chunks(size)).enumerate()
        {
            let (tuple, evaluation) = (index / count, index % count);
            let values = unit.operands(evaluation, tuple);
            let (slots, memory) = expected.split_at(case.results.len() * SLOT);
            let (found_slots, found_memory) = found.split_at(case.results.len() * SLOT);
            let permitted = slots
                .as_chunks::<SLOT>()
                .0
                .iter()
                .zip(found_slots.as_chunks::<SLOT>().0)
                .zip(&case.results)
                .all(|((a, b), ty)| {
                    permitted::is_permitted(
                        case,
                        &values,
                        *ty,
                        u128::from_le_bytes(*a),
                        u128::from_le_bytes(*b),
                    )
                });
            if !permitted || memory != found_memory {
                let label = case.label();
                self.report(unit, About::Difference, || {
                    format!(
                        "{label} of {}: {} expected, {} found",
                        operands(unit, evaluation, tuple),
                        hex(expected),
                        hex(found)
                    )
                });
            }
        }
    }
}

/// Operands, for messages.
fn operands(unit: &Unit, evaluation: usize, tuple: usize) -> String {
    let from = |operand: &units::Operand| match operand {
        units::Operand::Constant(_) => "constant",
        units::Operand::Parameter(_) => "parameter",
    };
    let values = unit.operands(evaluation, tuple);
    let words = unit.evaluations[evaluation].operands.iter().zip(values);
    words
        .map(|(operand, value)| format!("{} {value:#x}", from(operand)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The results of an evaluation, for messages; memory is shortened.
fn hex(bytes: &[u8]) -> String {
    let words = bytes
        .as_chunks::<SLOT>()
        .0
        .iter()
        .map(|slot| format!("{:#x}", u128::from_le_bytes(*slot)));
    let words: Vec<_> = words.take(4).collect();
    if words.is_empty() {
        "nothing".into()
    } else {
        words.join(" ")
    }
}
