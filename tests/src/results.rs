//! Results of a benchmark, printed to the terminal and stored in a file for `BENCHMARKS.md`.
//!
//! Each benchmark builds one [`Results`] and calls [`conclude`](Results::conclude) on it. If the variable
//! `FAAS_WASM_RESULTS` names a directory, `conclude` writes the results there as `NAME.json`. The benchmark `report`
//! collects these files into the document and its chart. Ratios decide whether a benchmark passes. Absolute numbers
//! are only reported, because they depend on the machine.

pub mod chart;
pub mod document;
mod machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

/// Environment variable that names the directory for stored results.
const DIRECTORY: &str = "FAAS_WASM_RESULTS";

/// The results of one benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// Name of the benchmark and of its file, such as `instances`.
    pub name: String,
    /// Heading in the document.
    pub title: String,
    /// How the benchmark measured, against which rivals, and with which settings; one or two sentences each.
    pub about: Vec<String>,
    /// The measurements.
    pub tables: Vec<Table>,
    /// The promises that the benchmark checks.
    pub rules: Vec<Rule>,
}

/// Results as stored in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// The machine and the date, in one line.
    pub machine: String,
    /// The results themselves.
    #[serde(flatten)]
    pub results: Results,
}

impl Kept {
    /// All stored results, sorted by name.
    ///
    /// # Errors
    ///
    /// If there are no results, or a file is not valid.
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

/// A table of measurements in one unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// The measured quantity, such as `median time of a run`.
    pub title: String,
    /// The unit, such as `us`.
    pub unit: String,
    /// Whether lower or higher numbers are better.
    pub better: Better,
    /// The contestants. The first one is this project.
    pub columns: Vec<String>,
    /// The workloads.
    pub rows: Vec<Row>,
    /// Whether the chart shows the table too.
    pub chart: bool,
}

/// The direction in which numbers are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Times and sizes.
    Lower,
    /// Throughput.
    Higher,
}

/// A row of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The workload.
    pub name: String,
    /// One value per column, or `None` where the column does not apply.
    pub values: Vec<Option<f64>>,
}

/// A promised number and its measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rule {
    /// What the number measures.
    pub what: String,
    /// The measured value.
    pub measured: Option<f64>,
    /// The bound that an otherwise idle machine must meet.
    pub target: Bound,
    /// The bound that fails the benchmark on any machine. `None` for absolute numbers, whose target is only reported.
    pub gate: Option<Bound>,
}

/// A bound on a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl Bound {
    /// Whether a value meets the bound. A missing value does not.
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
    /// `missed` differs from `FAILED`, because a busy machine misses targets.
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

/// Formats a number with a readable count of digits.
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
    /// Prints and stores the results, and returns whether the benchmark passed.
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
    fn missing_measurements_fail() {
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
