//! The table of a run, and its errors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::judge::{Variant, Verdict, Verdicts};
use crate::known::{self, Known};

/// A file's directives and their outcomes.
pub(crate) type FileVerdicts = (String, Verdicts);

/// The counts in a row.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    passed: usize,
    known: usize,
    failed: usize,
    refused: usize,
    skipped: usize,
}

impl Counts {
    fn row(&self, name: &str) -> String {
        let run = self.passed + self.known + self.failed;
        format!(
            "{name:<52} {run:>7} {:>7} {:>7} {:>7} {:>8} {:>8}\n",
            self.passed, self.failed, self.known, self.refused, self.skipped
        )
    }
}

/// The text of a run's report, and whether the run agrees with the list of known failures.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) is_good: bool,
}

/// Summarizes a run of the whole suite or a part of it.
pub(crate) fn report(
    variant: &Variant,
    results: &[FileVerdicts],
    known: &Known,
    is_whole: bool,
) -> Report {
    let backend = variant.backend.name();
    let target = variant.target();
    let known = known.of(backend, &target);
    let mut text = format!(
        "\n{:<52} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8}\n",
        format!("{backend}, {target}"),
        "run",
        "passed",
        "failed",
        "known",
        "refused",
        "skipped"
    );
    let mut total = Counts::default();
    let mut problems = String::new();
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, verdicts) in results {
        let mut counts = Counts::default();
        let mut failed = BTreeSet::new();
        for (line, verdict) in verdicts {
            let is_known = known.fails(file, *line);
            match verdict {
                Verdict::Passed => counts.passed += 1,
                Verdict::Failed(_) if is_known => counts.known += 1,
                Verdict::Failed(reason) => {
                    counts.failed += 1;
                    failed.insert(*line);
                    let _ = writeln!(problems, "{backend} {file}:{line}: {reason}");
                }
                Verdict::Refused(feature) => {
                    counts.refused += 1;
                    *refused.entry(feature).or_default() += 1;
                    if !known.refuses(feature) {
                        let _ = writeln!(problems, "{backend} {file}:{line}: {feature} is refused");
                    }
                }
                Verdict::Skipped(reason) => {
                    counts.skipped += 1;
                    *skipped.entry(reason).or_default() += 1;
                }
            }
        }
        if !failed.is_empty() {
            let lines: Vec<_> = verdicts.iter().map(|(line, _)| *line).collect();
            let lines = known::ranges(&lines, &failed);
            let _ = writeln!(problems, "fails {backend} {file}:{lines}");
        }
        text += &counts.row(file);
        total.add(counts);
    }
    text += &total.row("total");
    for (heading, counts) in [("refused", &refused), ("skipped", &skipped)] {
        for (reason, count) in counts {
            let _ = writeln!(text, "{heading} {count:>6}: {reason}");
        }
    }
    let results = results
        .iter()
        .map(|(file, verdicts)| (&**file, &**verdicts));
    for wrong in known.stale(results, is_whole) {
        let _ = writeln!(problems, "{backend}, {target}: {wrong}");
    }
    Report {
        is_good: problems.is_empty(),
        text: problems + &text,
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.known += other.known;
        self.failed += other.failed;
        self.refused += other.refused;
        self.skipped += other.skipped;
    }
}
