//! What a benchmark found: printed for who runs it, and kept as a file for `BENCHMARKS.md`.
//!
//! Each benchmark makes one [`Results`] and [`conclude`](Results::conclude)s it. If the Makefile names
//! a directory (variable `FAAS_WASM_RESULTS`), they are written there as `NAME.json`; the benchmark
//! `report` puts all such files into the document and its chart. Ratios decide whether a benchmark
//! passes, absolute numbers are for reading: they depend on the machine.

pub mod chart;
pub mod document;
mod machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

/// Environment variable with the directory in which results are kept.
const DIRECTORY: &str = "FAAS_WASM_RESULTS";

/// What one benchmark found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// Name of the benchmark, which is also the file's: `instances`.
    pub name: String,
    /// Heading in the document.
    pub title: String,
    /// How it was measured, against what, with which settings: one sentence or two each.
    pub about: Vec<String>,
    /// What was measured.
    pub tables: Vec<Table>,
    /// What is promised of it.
    pub rules: Vec<Rule>,
}

/// Results as they are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// Where and when they were found, as one line.
    pub machine: String,
    /// What was found.
    #[serde(flatten)]
    pub results: Results,
}

impl Kept {
    /// All results that are kept, in the order of their names.
    ///
    /// # Errors
    ///
    /// If there are none, or a file is not one of ours.
    pub fn all() -> io::Result<Vec<Self>> {
        let directory = env::var_os(DIRECTORY)
            .ok_or_else(|| io::Error::other(format!("{DIRECTORY} is not set: run `make bench`")))?;
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                paths.push(path);
            }
        }
        paths.sort();
        let read = |path: &PathBuf| {
            serde_json::from_slice(&fs::read(path)?).map_err(|error| {
                let path = path.display();
                io::Error::other(format!("{path} has no results, delete it: {error}"))
            })
        };
        paths.iter().map(read).collect()
    }
}

/// Numbers of one unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// What the numbers are: `median time of a run`.
    pub title: String,
    /// Their unit: `us`.
    pub unit: String,
    /// Which is better.
    pub better: Better,
    /// Who is measured. The first one is ours.
    pub columns: Vec<String>,
    /// What is measured.
    pub rows: Vec<Row>,
    /// Whether it is in the chart too.
    pub chart: bool,
}

/// Which numbers are good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Times and sizes.
    Lower,
    /// Throughput.
    Higher,
}

/// One line of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// One for each column; nothing where it does not apply.
    pub values: Vec<Option<f64>>,
}

/// A number that is promised.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rule {
    /// What the number is.
    pub what: String,
    /// What it was.
    pub measured: Option<f64>,
    /// What it shall be on a machine that does nothing else.
    pub target: Bound,
    /// What fails the benchmark, on any machine. Nothing: the target is only shown, since the number
    /// is an absolute one.
    pub gate: Option<Bound>,
}

/// A bound of a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
    AtLeast(f64),
}

impl Bound {
    /// Whether a number keeps to it. What was not measured does not.
    pub fn holds(self, measured: Option<f64>) -> bool {
        measured.is_some_and(|measured| match self {
            Self::AtMost(bound) => measured <= bound,
            Self::AtLeast(bound) => measured >= bound,
        })
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "<= {bound}"),
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
        }
    }
}

impl Rule {
    /// `missed` is not `FAILED`: a busy machine misses targets.
    pub fn verdict(&self) -> &'static str {
        if self.gate.is_some_and(|gate| !gate.holds(self.measured)) {
            "FAILED"
        } else if self.target.holds(self.measured) {
            "ok"
        } else {
            "missed"
        }
    }
}

/// A number with as many digits as one reads.
pub fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), digits)
}

impl Results {
    /// Prints the results, keeps them, and says whether the benchmark has passed.
    pub fn conclude(&self) -> ExitCode {
        self.print();
        if let Some(directory) = env::var_os(DIRECTORY) {
            self.keep(Path::new(&directory))
                .expect("the directory of results can be written");
        }
        if self.rules.iter().any(|rule| rule.verdict() == "FAILED") {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }

    fn keep(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let kept = Kept {
            machine: machine::describe()?,
            results: self.clone(),
        };
        let text = serde_json::to_string_pretty(&kept)?;
        fs::write(directory.join(format!("{}.json", self.name)), text + "\n")
    }

    #[expect(clippy::print_stdout, reason = "the result of a benchmark")]
    fn print(&self) {
        println!("{}", self.title);
        for line in &self.about {
            println!("  {line}");
        }
        for table in &self.tables {
            let names = table.rows.iter().map(|row| row.name.len());
            let first = format!("{}, {}", table.title, table.unit);
            let width = names.chain([first.len()]).max().unwrap_or_default();
            print!("\n{first:<width$}");
            for column in &table.columns {
                print!("  {column:>12}");
            }
            println!();
            for row in &table.rows {
                print!("{:<width$}", row.name);
                for (value, column) in row.values.iter().zip(&table.columns) {
                    print!("  {:>width$}", cell(*value), width = column.len().max(12));
                }
                println!();
            }
        }
        println!();
        for rule in &self.rules {
            let gate = rule.gate.map(|gate| format!(" (fails unless {gate})"));
            println!(
                "{:<6} {}: {}, target {}{}",
                rule.verdict(),
                rule.what,
                cell(rule.measured),
                rule.target,
                gate.unwrap_or_default()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_fails() {
        for bound in [Bound::AtMost(1.0), Bound::AtLeast(1.0)] {
            assert!(bound.holds(Some(1.0)));
            assert!(!bound.holds(None));
            assert!(!bound.holds(Some(f64::NAN)));
        }
    }

    #[test]
    fn a_gate_is_wider_than_the_target() {
        let rule = |measured| Rule {
            what: String::new(),
            measured: Some(measured),
            target: Bound::AtMost(1.0),
            gate: Some(Bound::AtMost(2.0)),
        };
        let verdicts = [1.0, 1.5, 2.5].map(|measured| rule(measured).verdict());
        assert_eq!(verdicts, ["ok", "missed", "FAILED"]);
    }
}
