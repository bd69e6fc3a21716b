//! `known.tsv`: known refusals and differences, each with its reason. The list must shrink: an entry that a complete
//! run does not encounter is an error.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};

use crate::subject::Backend;

const LIST: &str = include_str!("../known.tsv");

/// The subject of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// A module that the backend reports as unsupported.
    Refusal,
    /// A fault.
    Difference,
}

/// An entry of the list.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    about: About,
    backend: &'static str,
    /// A part of the message.
    pattern: &'static str,
    /// Whether the seeds in CI encounter it.
    often: bool,
    reason: &'static str,
}

/// The list, with the number of encounters of each entry.
#[derive(Debug)]
pub(crate) struct Known {
    entries: Vec<Entry>,
    met: Mutex<BTreeMap<usize, usize>>,
}

impl Known {
    /// Reads the list.
    ///
    /// # Errors
    ///
    /// A line is malformed.
    pub(crate) fn load() -> Result<Self> {
        Self::parse(LIST)
    }

    fn parse(text: &'static str) -> Result<Self> {
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            entries.push(entry(line).with_context(|| format!("known.tsv, line {}", number + 1))?);
        }
        Ok(Self {
            entries,
            met: Mutex::default(),
        })
    }

    /// The reason why this is known, if it is. Counts as an encounter.
    pub(crate) fn reason(
        &self,
        about: About,
        backend: Backend,
        message: &str,
    ) -> Option<&'static str> {
        let found = self.entries.iter().position(|entry| {
            entry.about == about
                && entry.backend == backend.name()
                && message.contains(entry.pattern)
        })?;
        let mut met = self
            .met
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *met.entry(found).or_default() += 1;
        Some(self.entries[found].reason)
    }

    /// A line for each entry that was encountered, with its count.
    pub(crate) fn lines(&self) -> Vec<String> {
        let met = self
            .met
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let line = |(index, count): (&usize, &usize)| {
            let Entry {
                about,
                backend,
                reason,
                ..
            } = &self.entries[*index];
            let about = match about {
                About::Refusal => "refused",
                About::Difference => "KNOWN FAULT",
            };
            format!("{count:>8}  {about} by {backend}: {reason}")
        };
        met.iter().map(line).collect()
    }

    /// Patterns of the entries that a complete run must encounter but this one did not.
    pub(crate) fn stale(&self) -> Vec<&'static str> {
        let met = self
            .met
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let stale = self
            .entries
            .iter()
            .enumerate()
            .filter(|(index, entry)| entry.often && !met.contains_key(index));
        stale.map(|(_, entry)| entry.pattern).collect()
    }
}

fn entry(line: &'static str) -> Result<Entry> {
    let columns: Vec<_> = line.split('\t').collect();
    let [about, backend, often, pattern, reason] = columns[..] else {
        bail!("{} columns instead of 5", columns.len());
    };
    let about = match about {
        "refusal" => About::Refusal,
        "difference" => About::Difference,
        _ => bail!("`{about}` is neither `refusal` nor `difference`"),
    };
    if !Backend::ALL.iter().any(|known| known.name() == backend) {
        bail!("`{backend}` is no backend");
    }
    let often = match often {
        "often" => true,
        "rare" => false,
        _ => bail!("`{often}` is neither `often` nor `rare`"),
    };
    if pattern.is_empty() || reason.is_empty() {
        bail!("a column is empty");
    }
    Ok(Entry {
        about,
        backend,
        pattern,
        often,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_well_formed() {
        Known::load().expect("each line has five columns");
    }

    #[test]
    fn entries_that_are_not_encountered_are_stale() {
        let text = "refusal\tllvm\toften\tuses x\tno x\ndifference\tcranelift\trare\ty\tbecause\n";
        let known = Known::parse(text).expect("it is well formed");
        assert_eq!(known.stale(), ["uses x"]);
        assert_eq!(
            known.reason(About::Refusal, Backend::Cranelift, "uses x"),
            None
        );
        assert_eq!(
            known.reason(About::Difference, Backend::Llvm, "uses x"),
            None
        );
        assert_eq!(
            known.reason(About::Refusal, Backend::Llvm, "MODULE uses x, which"),
            Some("no x")
        );
        assert!(known.stale().is_empty());
        assert_eq!(known.lines(), ["       1  refused by llvm: no x"]);
    }
}
