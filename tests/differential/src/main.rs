//! Differential tests: random modules, single instructions and stored cases, with both backends and wasmtime.
//!
//! ```text
//! faas-wasm-differential [--count N] [--seed SEED] [--found DIRECTORY] [--levels LEVEL,...]
//! ```
//!
//! `make fuzz-diff` runs it. The programs under test are those that `FAAS_WASM` and `FAAS_WASM_RUNNER` name.

mod cases;
mod compare;
mod determinize;
mod driver;
mod generate;
mod instructions;
mod known;
mod oracle;
mod random;
mod reduce;
mod run;
mod sections;
mod seeds;
mod subject;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::known::Known;
use crate::seeds::Campaign;
use crate::subject::Programs;

/// Number of seeds in a complete run. A run with fewer may not encounter all entries in the list of known
/// differences.
const COMPLETE: u64 = 300;
const FIRST_SEED: u64 = 1;

struct Arguments {
    count: u64,
    seed: u64,
    found: PathBuf,
    levels: Vec<String>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            count: COMPLETE,
            seed: FIRST_SEED,
            found: "build/fuzz-diff".into(),
            levels: vec!["native".into()],
        };
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--count" => parsed.count = value.parse().with_context(|| format!("N={value}"))?,
                "--seed" => parsed.seed = value.parse().with_context(|| format!("SEED={value}"))?,
                "--found" => parsed.found = value.into(),
                "--levels" => parsed.levels = value.split(',').map(String::from).collect(),
                _ => bail!("unknown option {name}"),
            }
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(findings) => {
            println!("{findings} findings that are not known");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything, and returns the number of findings.
fn run(arguments: &Arguments) -> Result<usize> {
    let programs = Programs::of_environment()?;
    programs.require_backends()?;
    let known = Known::load()?;
    let threads = std::thread::available_parallelism()?.get();
    let mut findings = Vec::new();

    let start = Instant::now();
    cases::self_test(&programs)?;
    let counts = cases::run(&programs, &known)?;
    println!(
        "cases: {} stored modules, each by both backends; {:.1} s",
        counts.modules,
        start.elapsed().as_secs_f64()
    );
    findings.extend(counts.findings);

    let start = Instant::now();
    let levels: Vec<_> = arguments.levels.iter().map(String::as_str).collect();
    let counts = instructions::run(&programs, &known, threads, &levels)?;
    println!(
        "instructions: {} ({} with immediates) at {}: {} results and {} traps are those of wasmtime; {:.1} s",
        counts.instructions,
        counts.cases,
        levels.join(" and "),
        counts.results,
        counts.traps,
        start.elapsed().as_secs_f64()
    );
    findings.extend(counts.findings);

    let start = Instant::now();
    let campaign = Campaign {
        programs: &programs,
        known: &known,
        found: &arguments.found,
        threads,
    };
    let counts = campaign.run(arguments.seed, arguments.count)?;
    println!(
        "seeds: {} modules from seed {}: {} calls returned and {} trapped; cranelift agrees on {}, llvm on {}; \
         {} comparisons left out for the end of a stack; {:.1} s",
        counts.modules,
        arguments.seed,
        counts.calls,
        counts.traps,
        counts.same[0],
        counts.same[1],
        counts.stack_overflows,
        start.elapsed().as_secs_f64()
    );
    findings.extend(counts.findings);

    for line in known.lines() {
        println!("{line}");
    }
    if arguments.seed == FIRST_SEED && arguments.count >= COMPLETE {
        let stale = known.stale().into_iter();
        findings.extend(stale.map(|pattern| {
            format!("known.tsv: nothing matches `{pattern}` any more\nhint: remove the line")
        }));
    }
    for finding in &findings {
        println!("FINDING {finding}");
    }
    Ok(findings.len())
}
