//! Runs a script with the two programs, and compares the outcome with what the script expects.

use std::collections::BTreeMap;
use std::process::Command;

use faas_wasm_tests::{Backend, Outcome, Work};
use serde_json::Value;

use crate::guest::{self, DO, Guest, OMIT, PARTLY};
use crate::limited::{describe, limited};
use crate::script::{Act, Bundle, Ending, Item, Source, Step};
use crate::value::{self, Expected};

/// Exit code of a command that refuses its input.
const REFUSED: i32 = 1;
/// Exit code of a run that ends with a trap.
const TRAPPED: i32 = 134;
/// Number of steps in a bundle that may trap unexpectedly before the rest is abandoned.
const PATIENCE: usize = 100;

/// Error codes that mean that the input is not a valid module.
const INVALID: [&str; 6] = [
    "invalid",
    "wasm-text",
    "not-wasm",
    "wasm-version",
    "component",
    "empty",
];
/// Error codes that mean that instantiating a module would always trap: the start of the code, and the name of the
/// trap.
const ALWAYS_TRAPS: [(&str, &str); 2] = [
    ("data-outside", "out of bounds memory access"),
    ("element-outside", "out of bounds table access"),
];

/// The target that the suite is compiled for.
#[derive(Debug, Clone)]
pub(crate) struct Variant {
    pub(crate) backend: Backend,
    /// The CPU level, unless it is this machine's.
    pub(crate) cpu: Option<String>,
}

impl Variant {
    /// The target's name in the list of known failures.
    pub(crate) fn target(&self) -> String {
        let target = || std::env::var("FAAS_WASM_TARGET").ok();
        self.cpu
            .clone()
            .or_else(target)
            .unwrap_or_else(|| "native".into())
    }
}

/// The outcome of a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    /// The module uses a feature that the backend reports as unsupported.
    Refused(String),
    Skipped(&'static str),
}

/// The outcome of each directive, by line.
pub(crate) type Verdicts = Vec<(usize, Verdict)>;

/// Executes one unit of work.
pub(crate) fn judge(variant: &Variant, item: &Item) -> Verdicts {
    match item {
        Item::Bundle(bundle) => Trial::new(variant, bundle).run(),
        Item::Accept(line, source) => vec![(*line, accept(variant, source))],
        Item::Reject(line, source) => vec![(*line, reject(variant, source))],
        Item::Skip(line, reason) => vec![(*line, Verdict::Skipped(reason))],
        Item::Broken(line, reason) => vec![(*line, Verdict::Failed(reason.clone()))],
    }
}

/// An error that the tool has reported as JSON.
#[derive(Debug)]
struct ToolError {
    code: String,
    text: String,
}

impl ToolError {
    fn of(outcome: &Outcome) -> Option<Self> {
        let lines = outcome.stderr.lines().rev();
        let mut objects = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let error = objects.find(|object| object["reason"] == "error")?;
        let mut text = error["message"].as_str().unwrap_or_default().to_owned();
        for cause in error["causes"].as_array().into_iter().flatten() {
            text += &format!(": {}", cause.as_str().unwrap_or_default());
        }
        Some(Self {
            code: error["code"].as_str()?.to_owned(),
            text,
        })
    }

    /// The unsupported feature, if that is the error.
    fn feature(&self) -> Option<String> {
        if self.code != "unsupported-feature" {
            return None;
        }
        let (_, rest) = self.text.split_once(" uses ")?;
        Some(rest.split_once(", which the ")?.0.to_owned())
    }
}

fn compile(variant: &Variant, command: &str) -> impl Fn(&mut Command) {
    let mut words = vec![command.to_owned(), "--message-format=json".into()];
    words.extend([
        "--backend".into(),
        variant.backend.name().into(),
        "--no-cache".into(),
    ]);
    if let Some(cpu) = &variant.cpu {
        words.extend(["--cpu".into(), cpu.clone()]);
    }
    move |command| {
        command.args(&words);
    }
}

/// The outcome of `check` for a module.
fn check(variant: &Variant, source: &Source) -> Outcome {
    let work = Work::new();
    let path = match source {
        Source::Binary(bytes) => work.write("module.wasm", bytes),
        Source::Text(text) => work.write("module.wat", text),
    };
    limited(&work, |command| {
        compile(variant, "check")(command);
        command.arg(path);
    })
}

fn accept(variant: &Variant, source: &Source) -> Verdict {
    let outcome = check(variant, source);
    if let Some(error) = ToolError::of(&outcome) {
        return match error.feature() {
            Some(feature) => Verdict::Refused(feature),
            None => Verdict::Failed(format!("a valid module is refused: {}", error.text)),
        };
    }
    // Most modules of the suite have no `_start`, so they are valid but not guests.
    if matches!(outcome.status.code(), Some(0 | REFUSED)) && outcome.stdout.starts_with(b"{") {
        return Verdict::Passed;
    }
    Verdict::Failed(format!("check: {outcome:?}"))
}

fn reject(variant: &Variant, source: &Source) -> Verdict {
    let outcome = check(variant, source);
    let Some(error) = ToolError::of(&outcome) else {
        return Verdict::Failed(format!(
            "is accepted: exit code {:?}",
            outcome.status.code()
        ));
    };
    if outcome.status.code() != Some(REFUSED) || !outcome.stdout.is_empty() {
        return Verdict::Failed(format!("is refused with {outcome:?}"));
    }
    match error.feature() {
        Some(feature) => Verdict::Refused(feature),
        None if INVALID.contains(&error.code.as_str()) => Verdict::Passed,
        None => Verdict::Failed(format!("is refused for another reason: {}", error.text)),
    }
}

/// A bundle in progress.
struct Trial<'a> {
    variant: &'a Variant,
    bundle: &'a Bundle,
    work: Work,
    verdicts: BTreeMap<usize, Verdict>,
}

impl<'a> Trial<'a> {
    fn new(variant: &'a Variant, bundle: &'a Bundle) -> Self {
        Self {
            variant,
            bundle,
            work: Work::new(),
            verdicts: BTreeMap::new(),
        }
    }

    fn run(mut self) -> Verdicts {
        let steps = (0..).zip(&self.bundle.steps);
        let skipped = steps.filter_map(|(at, step)| Some((at, Verdict::Skipped(step.skipped?))));
        self.verdicts = skipped.collect();
        if let Some(guest) = self.build() {
            self.run_what_returns(&guest);
            for (number, step) in self.bundle.steps.iter().enumerate() {
                if !self.verdicts.contains_key(&number) {
                    let verdict = self.run_trap(&guest, number, step);
                    self.verdicts.insert(number, verdict);
                }
            }
        }
        let lines = self.bundle.steps.iter().map(|step| step.line);
        lines.zip(self.verdicts.into_values()).collect()
    }

    /// Gives this verdict to all steps without one.
    fn settle(&mut self, verdict: &Verdict) {
        for number in 0..self.bundle.steps.len() {
            self.verdicts
                .entry(number)
                .or_insert_with(|| verdict.clone());
        }
    }

    /// Checks the modules, and builds the command. Returns `None` if that decides all verdicts.
    fn build(&mut self) -> Option<Guest> {
        for (number, step) in self.bundle.steps.iter().enumerate() {
            if step.act != Act::Instantiate {
                continue;
            }
            match accept(self.variant, &self.bundle.instances[step.instance].source) {
                Verdict::Failed(reason) => {
                    self.verdicts.insert(number, Verdict::Failed(reason));
                    self.settle(&Verdict::Failed("its module is refused".into()));
                    return None;
                }
                refused @ Verdict::Refused(_) => {
                    self.settle(&refused);
                    return None;
                }
                Verdict::Passed | Verdict::Skipped(_) => {}
            }
        }
        let guest = match guest::command(self.bundle) {
            Ok(guest) => guest,
            Err(reason) => {
                self.settle(&Verdict::Failed(format!("the harness: {reason}")));
                return None;
            }
        };
        let module = self.work.write("guest.wasm", &guest.wasm);
        let artifact = self.work.join("guest.so");
        let outcome = limited(&self.work, |command| {
            compile(self.variant, "build")(command);
            command
                .args(["--quiet", "--jobs", "1", "-o"])
                .arg(artifact)
                .arg(module);
        });
        if outcome.status.success() {
            return Some(guest);
        }
        let Some(error) = ToolError::of(&outcome) else {
            self.settle(&Verdict::Failed(format!("build: {outcome:?}")));
            return None;
        };
        if let [
            Step {
                act: Act::Instantiate,
                ending: Ending::Trap(trap),
                ..
            },
        ] = &*self.bundle.steps
            && outcome.status.code() == Some(REFUSED)
            && ALWAYS_TRAPS
                .iter()
                .any(|(code, name)| error.code.starts_with(code) && trap.is_named(name))
        {
            self.settle(&Verdict::Passed);
            return None;
        }
        self.settle(&match error.feature() {
            Some(feature) => Verdict::Refused(feature),
            None => Verdict::Failed(format!("build: {}", error.text)),
        });
        None
    }

    fn execute(&self, selection: &[u8]) -> Outcome {
        let selection = String::from_utf8_lossy(selection).into_owned();
        limited(&self.work, |command| {
            command
                .arg("run")
                .arg(self.work.join("guest.so"))
                .arg(selection);
        })
    }

    /// Selects all steps before `end`, and none after.
    fn selection(&self, end: usize) -> Vec<u8> {
        let steps = self.bundle.steps.iter().enumerate();
        let how = steps.map(|(number, step)| match (&step.ending, &step.act) {
            _ if number >= end || step.skipped.is_some() => OMIT,
            // This step has turned out to trap.
            _ if matches!(self.verdicts.get(&number), Some(Verdict::Failed(reason)) if reason.starts_with(ENDED)) => {
                OMIT
            }
            (Ending::Trap(_), Act::Instantiate) => PARTLY,
            (Ending::Trap(_), _) => OMIT,
            _ => DO,
        });
        how.collect()
    }

    fn run_what_returns(&mut self, guest: &Guest) {
        let all = self.bundle.steps.len();
        for _ in 0..PATIENCE {
            let selection = self.selection(all);
            let mut expected = (0..all).filter(|at| selection[*at] == DO);
            if expected.clone().next().is_none() {
                return;
            }
            let outcome = self.execute(&selection);
            let records = match guest::records(guest, &outcome.stdout) {
                Ok(records) => records,
                Err(reason) => return self.settle(&Verdict::Failed(reason)),
            };
            for (number, results) in records {
                if expected.next() != Some(number) {
                    let reason = format!("the harness: step {number} is out of turn");
                    return self.settle(&Verdict::Failed(reason));
                }
                let verdict = compare(&self.bundle.steps[number].ending, &results);
                self.verdicts.insert(number, verdict);
            }
            let ending = describe(&outcome);
            match (outcome.status.code(), expected.next()) {
                (Some(0), None) => return,
                (Some(TRAPPED) | None, Some(culprit)) => {
                    let reason = format!("{ENDED}{ending}");
                    self.verdicts.insert(culprit, Verdict::Failed(reason));
                }
                _ => return self.settle(&Verdict::Failed(format!("the run {ending}"))),
            }
        }
        self.settle(&Verdict::Failed("too many steps before it trap".into()));
    }

    fn run_trap(&self, guest: &Guest, number: usize, step: &Step) -> Verdict {
        let Ending::Trap(trap) = &step.ending else {
            return Verdict::Failed("did not run".into());
        };
        let mut selection = self.selection(number);
        selection[number] = DO;
        let outcome = self.execute(&selection);
        let before = (0..number).filter(|at| selection[*at] == DO);
        let done = guest::records(guest, &outcome.stdout);
        let done = done.map(|records| records.into_iter().map(|(number, _)| number));
        let is_reached = done.is_ok_and(|done| done.eq(before));
        if outcome.status.code() == Some(TRAPPED) && is_reached && trap.is_reported(&outcome.stderr)
        {
            return Verdict::Passed;
        }
        Verdict::Failed(format!("expected {trap:?}, but {}", describe(&outcome)))
    }
}

/// Start of the reason for a step that has ended its run.
const ENDED: &str = "it ";

/// Compares the results of a step.
fn compare(ending: &Ending, results: &[[u8; value::SIZE]]) -> Verdict {
    let matches = match ending {
        Ending::Returned => true,
        Ending::Values(expected) => {
            let pairs = || expected.iter().zip(results);
            let match_all = pairs().all(|(expected, result)| Expected::matches(expected, result));
            expected.len() == results.len() && match_all
        }
        Ending::Trap(_) => false,
    };
    if matches {
        return Verdict::Passed;
    }
    let results = results.iter().map(|result| {
        let bytes = result.iter().rev().map(|byte| format!("{byte:02x}"));
        format!("0x{}", bytes.collect::<String>())
    });
    let results: Vec<_> = results.collect();
    Verdict::Failed(format!("expected {ending:?}, got {}", results.join(", ")))
}
