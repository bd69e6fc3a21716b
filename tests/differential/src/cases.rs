//! Stored modules, `cases/*.wat`, which have shown differences before. Also the self-test of these tests.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::compare::{self, DifferenceKind, Verdict};
use crate::driver;
use crate::known::{About, Known};
use crate::oracle::Oracle;
use crate::seeds::Directory;
use crate::subject::{Backend, Programs};

/// Results of the stored modules.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) modules: usize,
    pub(crate) findings: Vec<String>,
}

/// Runs all stored modules.
///
/// # Errors
///
/// A module is malformed, or a program cannot be started.
pub(crate) fn run(programs: &Programs, known: &Known) -> Result<Counts> {
    let oracle = Oracle::new()?;
    let work = Directory::new()?;
    let mut counts = Counts::default();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut paths: Vec<_> = std::fs::read_dir(&directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wat"));
    paths.sort();
    for path in paths {
        counts.modules += 1;
        let name = path.file_stem().unwrap_or_default().display().to_string();
        let wasm = wat::parse_file(&path)?;
        let driven = driver::add(&wasm, None, 0).with_context(|| name.clone())?;
        let expected = compare::expected(&oracle, &driven).with_context(|| name.clone())?;
        for backend in Backend::ALL {
            let verdict = compare::verdict(programs, backend, &driven, &expected, &work.0)?;
            let (about, message) = match verdict {
                Verdict::Same => continue,
                Verdict::Refused(why) => (About::Refusal, format!("case {name}: refused: {why}")),
                Verdict::StackOverflow => (
                    About::Difference,
                    format!("case {name}: the stack is too small for it"),
                ),
                Verdict::Different(difference) => (
                    About::Difference,
                    format!("case {name}: {}", difference.kind),
                ),
            };
            if known.reason(about, backend, &message).is_none() {
                counts.findings.push(format!("{backend}: {message}"));
            }
        }
    }
    Ok(counts)
}

/// Fails unless differences are detected: the expected results come from one module, and the build uses another.
///
/// # Errors
///
/// A difference was not found, or a program cannot be started.
pub(crate) fn self_test(programs: &Programs) -> Result<()> {
    const TEXT: &str = "(module
        (memory 1) (global $g (mut i64) (i64.const 5)) (table 4 funcref) (elem declare func 0)
        (func (export \"value\") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export \"state\") (param i32)
            (i32.store8 offset=77 (i32.const 0) (i32.const 9))
            (global.set $g (i64.mul (global.get $g) (i64.const 3)))
            (table.set (i32.const 2) (ref.func 0)))
        (func (export \"trap\") (param i32) (drop (i32.div_u (i32.const 7) (i32.eqz (i32.const 1))))))";
    let mutants = [
        ("another result", "i32.add", "i32.sub"),
        ("another byte of a memory", "offset=77", "offset=78"),
        ("another global", "i64.const 3", "i64.const 7"),
        (
            "another element of a table",
            "(table.set (i32.const 2) (ref.func 0))",
            "",
        ),
        (
            "another trap",
            "(drop (i32.div_u (i32.const 7) (i32.eqz (i32.const 1))))",
            "unreachable",
        ),
        ("no trap", "i32.eqz (i32.const 1)", "i32.const 1"),
    ];
    let oracle = Oracle::new()?;
    let work = Directory::new()?;
    let original = driver::add(&wat::parse_str(TEXT)?, None, 0)?;
    let expected = compare::expected(&oracle, &original)?;
    for backend in Backend::ALL {
        let verdict = compare::verdict(programs, backend, &original, &expected, &work.0)?;
        ensure!(
            verdict == Verdict::Same,
            "self-test: {backend} differs without a mutation: {verdict:?}"
        );
        for (what, from, to) in mutants {
            let text = TEXT.replace(from, to);
            ensure!(text != TEXT, "self-test: `{from}` is not in the module");
            let mutant = driver::add(&wat::parse_str(&text)?, None, 0)?;
            let verdict = compare::verdict(programs, backend, &mutant, &expected, &work.0)?;
            let found = matches!(&verdict, Verdict::Different(difference) if !matches!(difference.kind, DifferenceKind::Build(_)));
            ensure!(
                found,
                "self-test: {backend}: {what} was not found: {verdict:?}"
            );
        }
    }
    Ok(())
}
