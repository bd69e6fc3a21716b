//! Runs a module with all engines and finds differences.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::driver::{Driven, Record};
use crate::oracle::Oracle;
use crate::run::{Ending, Run, TrapKind};
use crate::subject::{Backend, Built, Programs};

/// The outcome of a module with one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All runs agree.
    Same,
    /// The backend reports that it does not support such modules.
    Refused(String),
    /// A run reached the end of a stack, which differs between engines.
    StackOverflow,
    /// The runs differ.
    Different(Difference),
}

/// A difference between the oracle and a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) backend: Backend,
    /// The call that the run began with.
    pub(crate) first_call: u32,
    /// The call in which the difference shows.
    pub(crate) call: u32,
    pub(crate) kind: DifferenceKind,
}

/// The kind of difference from the oracle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DifferenceKind {
    /// The build failed although the module is valid.
    Build(String),
    /// A different value.
    Value { expected: Record, found: Record },
    /// A different end of the run.
    Ending { expected: Ending, found: Ending },
    /// A different number or kind of records, although the runs end the same way.
    Shape,
}

impl DifferenceKind {
    /// Whether a smaller module shows the same difference: the same kind, apart from numbers.
    pub(crate) fn resembles(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Build(a), Self::Build(b)) => a == b,
            (
                Self::Ending {
                    expected: a,
                    found: b,
                },
                Self::Ending {
                    expected: c,
                    found: d,
                },
            ) => a == c && b == d,
            (Self::Value { .. }, Self::Value { .. }) | (Self::Shape, Self::Shape) => true,
            _ => false,
        }
    }
}

impl fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(how) => write!(f, "the build failed: {how}"),
            Self::Value { expected, found } => {
                write!(f, "{expected} expected, {:#018x} found", found.value)
            }
            Self::Ending { expected, found } => write!(f, "{expected} expected, {found} found"),
            Self::Shape => f.write_str("other records than expected"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: call {}: {}", self.backend, self.call, self.kind)
    }
}

/// The oracle's results for a module: one run from the first call, and another one after each trap.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    runs: Vec<(u32, Run)>,
    /// Number of runs that end in a trap.
    pub(crate) traps: usize,
    /// Number of calls that return.
    pub(crate) returned: usize,
}

/// Runs a module with the oracle.
///
/// # Errors
///
/// wasmtime refuses the module.
pub(crate) fn expected(oracle: &Oracle, driven: &Driven) -> Result<Expected> {
    let compiled = oracle.compile(&driven.wasm)?;
    let mut expected = Expected {
        runs: Vec::new(),
        traps: 0,
        returned: 0,
    };
    let mut first = 0;
    while first < driven.end() {
        let run = compiled.run(&first.to_le_bytes())?;
        let done = calls(&run.output).context("the driver wrote no records")?;
        expected.returned += done;
        let trapped = run.ending != Ending::Returned;
        expected.traps += usize::from(trapped);
        // A start function that traps does so in every run.
        let hopeless = trapped
            && done == 0
            && first == 0
            && run.output.is_empty()
            && traps_at_start(&compiled, driven)?;
        expected.runs.push((first, run));
        if hopeless || !trapped {
            break;
        }
        first += done as u32 + 1;
    }
    Ok(expected)
}

/// Whether the module traps before its driver makes any call.
fn traps_at_start(compiled: &crate::oracle::Compiled<'_>, driven: &Driven) -> Result<bool> {
    Ok(compiled.run(&driven.end().to_le_bytes())?.ending != Ending::Returned)
}

/// Number of calls that the output has records of.
fn calls(output: &[u8]) -> Option<usize> {
    let records = Record::parse(output)?;
    let mut calls: Vec<_> = records.iter().map(|record| record.call).collect();
    calls.dedup();
    Some(calls.len())
}

/// Builds and runs a module with a backend, and compares the results with the expected ones.
///
/// # Errors
///
/// Files cannot be written or programs not started.
pub(crate) fn verdict(
    programs: &Programs,
    backend: Backend,
    driven: &Driven,
    expected: &Expected,
    directory: &Path,
) -> Result<Verdict> {
    let module = directory.join("module.wasm");
    let artifact = directory.join(format!("{backend}.so"));
    std::fs::write(&module, &driven.wasm)
        .with_context(|| format!("{} cannot be written", module.display()))?;
    match programs.build(backend, &module, &artifact)? {
        Built::Artifact => {}
        Built::Refused(why) => return Ok(Verdict::Refused(why)),
        Built::Failed(how) => {
            return Ok(Verdict::Different(Difference {
                backend,
                first_call: 0,
                call: 0,
                kind: DifferenceKind::Build(how),
            }));
        }
    }
    let overflow = Ending::Trapped(TrapKind::StackOverflow);
    for (first, wanted) in &expected.runs {
        let found = programs.run(&artifact, &first.to_le_bytes())?;
        if wanted.ending == overflow || found.ending == overflow {
            return Ok(Verdict::StackOverflow);
        }
        if let Some((call, kind)) = difference(*first, wanted, &found) {
            return Ok(Verdict::Different(Difference {
                backend,
                first_call: *first,
                call,
                kind,
            }));
        }
    }
    Ok(Verdict::Same)
}

/// The first difference between two runs, and the call in which it shows.
pub(crate) fn difference(first: u32, wanted: &Run, found: &Run) -> Option<(u32, DifferenceKind)> {
    let ending = || DifferenceKind::Ending {
        expected: wanted.ending.clone(),
        found: found.ending.clone(),
    };
    let (Some(a), Some(b)) = (Record::parse(&wanted.output), Record::parse(&found.output)) else {
        return Some((
            first,
            if wanted.ending == found.ending {
                DifferenceKind::Shape
            } else {
                ending()
            },
        ));
    };
    for (expected, found) in a.iter().zip(&b) {
        if expected != found {
            let same_subject = Record {
                value: 0,
                ..*expected
            } == Record { value: 0, ..*found };
            let kind = if same_subject {
                DifferenceKind::Value {
                    expected: *expected,
                    found: *found,
                }
            } else {
                DifferenceKind::Shape
            };
            return Some((expected.call, kind));
        }
    }
    let shared = a.len().min(b.len());
    let call = a.get(shared).or(b.get(shared)).map(|record| record.call);
    let next = || a.last().map_or(first, |record| record.call + 1);
    if wanted.ending != found.ending {
        return Some((call.unwrap_or_else(next), ending()));
    }
    // The same end at a different place: a call returned that should have ended the run, or the reverse.
    (a.len() != b.len()).then(|| {
        let (expected, found) = if a.len() < b.len() {
            (wanted.ending.clone(), Ending::Returned)
        } else {
            (Ending::Returned, found.ending.clone())
        };
        let kind = if expected == found {
            DifferenceKind::Shape
        } else {
            DifferenceKind::Ending { expected, found }
        };
        (call.unwrap_or(first), kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[(u64, u64)], ending: Ending) -> Run {
        let words = words
            .iter()
            .flat_map(|(id, value)| [id.to_le_bytes(), value.to_le_bytes()]);
        Run {
            output: words.flatten().collect(),
            ending,
        }
    }

    #[test]
    fn every_kind_of_difference_is_detected() {
        let trap = Ending::Trapped(TrapKind::Unreachable);
        let good = run(
            &[(1 << 32 | 1 << 16, 7), (1 << 32 | 2 << 16, 8)],
            Ending::Returned,
        );
        assert_eq!(difference(0, &good, &good), None);
        for (other, call, expected) in [
            (
                run(
                    &[(1 << 32 | 1 << 16, 6), (1 << 32 | 2 << 16, 8)],
                    Ending::Returned,
                ),
                1,
                "result word 0 after call 1",
            ),
            (
                run(&[(1 << 32 | 1 << 16, 7)], trap.clone()),
                1,
                "return expected, trap: unreachable",
            ),
            // All records of call 1 exist, so the next call trapped.
            (
                run(&[(1 << 32 | 1 << 16, 7), (1 << 32 | 2 << 16, 8)], trap),
                2,
                "return expected, trap: unreachable",
            ),
            (
                run(&[(1 << 32 | 1 << 16, 7)], Ending::Returned),
                1,
                "other records",
            ),
            (
                run(
                    &[(1 << 32 | 1 << 16, 7), (1 << 32 | 3 << 16, 8)],
                    Ending::Returned,
                ),
                1,
                "other records",
            ),
        ] {
            let (found, kind) = difference(0, &good, &other).expect("they differ");
            assert_eq!(found, call);
            assert!(kind.to_string().contains(expected), "{kind}");
        }
    }
}
