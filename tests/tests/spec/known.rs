//! The list of known failures: `known.txt`.
//!
//! It is exact in both directions. An unlisted failure fails the run, and so does a listed entry that passes; remove
//! such an entry.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::judge::Verdict;

/// A failure or a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// A feature that a backend refuses, as named in the error.
    Refused(String),
    /// Directives of a file. A range means all directives that start on these lines.
    Fails(String, Vec<RangeInclusive<usize>>),
}

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its line in the list.
    line: usize,
    /// The runs that the entry applies to: a backend or `any`, optionally followed by a slash and a target.
    place: String,
    what: What,
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Known(Vec<Entry>);

impl Known {
    /// Parses the list. Its header documents the format.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let entries = lines.map(|(number, line)| {
            entry(number, line).ok_or_else(|| format!("line {number} is not understood: {line}"))
        });
        Ok(Self(entries.collect::<Result<_, _>>()?))
    }

    /// The entries for a backend and a target (`native` if none was requested).
    pub(crate) fn of(&self, backend: &str, target: &str) -> Self {
        let entries = self.0.iter().filter(|entry| {
            let (on, what_for) = match entry.place.split_once('/') {
                Some((on, what_for)) => (on, Some(what_for)),
                None => (&*entry.place, None),
            };
            (on == "any" || on == backend) && what_for.is_none_or(|what_for| what_for == target)
        });
        Self(entries.cloned().collect())
    }

    /// Whether the list contains this failure.
    pub(crate) fn fails(&self, file: &str, line: usize) -> bool {
        self.0.iter().any(|entry| match &entry.what {
            What::Fails(of, lines) => of == file && lines.iter().any(|range| range.contains(&line)),
            What::Refused(_) => false,
        })
    }

    /// Whether the list contains this refusal.
    pub(crate) fn refuses(&self, feature: &str) -> bool {
        self.0
            .iter()
            .any(|entry| matches!(&entry.what, What::Refused(name) if name == feature))
    }

    /// The errors in the list after a run. `results` has the files of the run with the outcomes of their directives.
    pub(crate) fn stale<'a>(
        &self,
        results: impl Iterator<Item = (&'a str, &'a [(usize, Verdict)])> + Clone,
        is_whole: bool,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let refused: BTreeSet<&str> = results
            .clone()
            .flat_map(|(_, verdicts)| verdicts)
            .filter_map(|(_, verdict)| match verdict {
                Verdict::Refused(feature) => Some(&**feature),
                _ => None,
            })
            .collect();
        for entry in &self.0 {
            let mut complain =
                |what: String| wrong.push(format!("known.txt:{}: {what}", entry.line));
            match &entry.what {
                What::Refused(feature) if is_whole && !refused.contains(&**feature) => {
                    complain(format!(
                        "nothing is refused for {feature}: remove the entry"
                    ));
                }
                What::Refused(_) => {}
                What::Fails(file, ranges) => {
                    let Some((_, verdicts)) = results.clone().find(|(name, _)| name == file) else {
                        if is_whole {
                            complain(format!("there is no file {file}"));
                        }
                        continue;
                    };
                    for range in ranges {
                        let here = || verdicts.iter().filter(|(line, _)| range.contains(line));
                        let is_failed = |(_, verdict): &&(usize, Verdict)| {
                            matches!(verdict, Verdict::Failed(_))
                        };
                        let [start, end] = [range.start(), range.end()];
                        if here().next().is_none() {
                            complain(format!("{file} has nothing on lines {start} to {end}"));
                        }
                        // Several directives can start on one line.
                        for (line, _) in here() {
                            let mut of_line = verdicts.iter().filter(|(other, _)| other == line);
                            if !of_line.any(|one| is_failed(&one)) {
                                complain(format!("{file}:{line} passes: remove it from the entry"));
                            }
                        }
                    }
                }
            }
        }
        wrong.dedup();
        wrong
    }
}

/// Parses an entry. Returns `None` if the line is not an entry. A failure needs a reason.
fn entry(number: usize, line: &str) -> Option<Entry> {
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    let (place, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let rest = rest.trim();
    let what = match kind {
        "refused" => What::Refused(rest.to_owned()),
        "fails" => {
            let (lines, _reason) = rest.split_once(char::is_whitespace)?;
            let (file, lines) = lines.split_once(':')?;
            let ranges = lines.split(',').map(|range| {
                let (start, end) = range.split_once('-').unwrap_or((range, range));
                Some(start.parse().ok()?..=end.parse().ok()?)
            });
            What::Fails(file.to_owned(), ranges.collect::<Option<_>>()?)
        }
        _ => return None,
    };
    Some(Entry {
        line: number,
        place: place.to_owned(),
        what,
    })
}

/// The lines of failures in the form of an entry, in which adjacent directives of a file form a range.
pub(crate) fn ranges(all: &[usize], failed: &BTreeSet<usize>) -> String {
    let mut all: Vec<usize> = all.to_vec();
    all.sort_unstable();
    all.dedup();
    let mut ranges: Vec<String> = Vec::new();
    for run in all.chunk_by(|one, next| failed.contains(one) == failed.contains(next)) {
        match run {
            [first, ..] if !failed.contains(first) => {}
            [one] => ranges.push(one.to_string()),
            [first, .., last] => ranges.push(format!("{first}-{last}")),
            [] => {}
        }
    }
    ranges.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> Known {
        Known::parse(text).expect("the list is correct")
    }

    #[test]
    fn entries_apply_to_their_runs() {
        let list = known(
            "# a remark\n\nfails llvm a.wast:3,5-7 reason\nrefused cranelift tail calls\n\
             fails any/arm64 b.wast:1 another reason\n",
        );
        let llvm = list.of("llvm", "native");
        assert!(llvm.fails("a.wast", 3) && llvm.fails("a.wast", 6) && !llvm.fails("a.wast", 4));
        assert!(!llvm.fails("b.wast", 3) && !llvm.fails("b.wast", 1));
        assert!(!llvm.refuses("tail calls"));
        let arm = list.of("cranelift", "arm64");
        assert!(arm.fails("b.wast", 1) && !arm.fails("a.wast", 3) && arm.refuses("tail calls"));
        for wrong in [
            "fails llvm a.wast:3",
            "fails llvm a.wast:x reason",
            "passes llvm a:3 reason",
        ] {
            assert!(Known::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn listed_failures_that_pass_are_errors() {
        let failed = || Verdict::Failed(String::new());
        let verdicts = [
            (1, Verdict::Passed),
            (2, failed()),
            (3, failed()),
            (3, Verdict::Passed),
        ];
        let results = [("a.wast", &verdicts[..])];
        let stale = |text: &str, is_whole| known(text).stale(results.iter().copied(), is_whole);
        assert_eq!(stale("fails llvm a.wast:2-3 reason", true), [""; 0]);
        assert_eq!(stale("fails llvm a.wast:1-2 reason", true).len(), 1);
        assert_eq!(stale("fails llvm a.wast:9 reason", true).len(), 1);
        assert_eq!(stale("fails llvm b.wast:9 reason", true).len(), 1);
        assert_eq!(stale("fails llvm b.wast:9 reason", false), [""; 0]);
        assert_eq!(stale("refused llvm something", true).len(), 1);
        assert_eq!(stale("refused llvm something", false), [""; 0]);
    }

    #[test]
    fn adjacent_failures_become_ranges() {
        let failed = BTreeSet::from([2, 4, 9, 12]);
        assert_eq!(ranges(&[1, 2, 4, 7, 9, 12, 12], &failed), "2-4,9-12");
        assert_eq!(ranges(&[1, 2, 3], &failed), "2");
        assert_eq!(ranges(&[1], &failed), "");
    }
}
