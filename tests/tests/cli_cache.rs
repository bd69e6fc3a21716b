//! The cache of compiled functions: an edit recompiles only what it changes, and the artifact does not reveal whether
//! the build used the cache.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use faas_wasm_tests::{Backend, Outcome, Work, tool};

/// Number of functions in the edited module.
const FUNCTIONS: usize = 120;

/// The edit since the first build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    None,
    Body,
    FunctionAdded,
    Data,
}

/// The text of a module whose functions each call the two functions before it, and which also uses a table and types.
/// Functions are numbered in the order of the text.
fn module(edit: Edit) -> String {
    let mut text = String::from(
        r#"(module (type $binary (func (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory 1) (table 3 3 funcref) (elem (i32.const 1) $f1 $f2)
        "#,
    );
    let letter = if edit == Edit::Data { 'b' } else { 'a' };
    let _ = writeln!(text, "(data (i32.const 64) \"some d{letter}ta\")");
    for number in 0..FUNCTIONS {
        if number == FUNCTIONS / 2 && edit == Edit::FunctionAdded {
            text += "(func $added (param f64 f64 i32) (result f64)
                (f64.add (local.get 0) (f64.mul (local.get 1) (f64.const 3))))\n";
        }
        let constant = if number == FUNCTIONS - 1 && edit == Edit::Body {
            1_000_001
        } else {
            number
        };
        let (first, second) = (number.saturating_sub(1), number / 2);
        let calls = match number {
            0 => "(i32.const 5)".to_owned(),
            _ => format!(
                "(i32.xor (call $f{first} (local.get 1) (local.get 0)) (call $f{second} (local.get 0) (i32.const 1)))"
            ),
        };
        let through_table = match number % 10 {
            0 => "(call_indirect (type $binary) (i32.const 5) (i32.const 1) (i32.const 1))",
            _ => "(local.get 0)",
        };
        let _ = writeln!(
            text,
            "(func $f{number} (type $binary) (if (result i32) (i32.gt_u (local.get 1) (i32.const 3))
                (then (i32.add (i32.const {constant}) (i32.sub {calls} {through_table})))
                (else (i32.add (local.get 0) (local.get 1)))))"
        );
    }
    let last = FUNCTIONS - 1;
    let _ = write!(
        text,
        "(func (export \"_start\") (call $exit (i32.and (i32.const 63)
            (call $f{last} (i32.const 3) (i32.const 9))))))"
    );
    text
}

fn build(work: &Work, module: &Path, output: &str, backend: Backend) -> Command {
    let mut command = tool();
    command
        .arg("build")
        .args([
            "--cpu",
            "x86-64-v2",
            "--backend",
            backend.name(),
            "-o",
            output,
        ])
        .arg(module)
        .current_dir(work.path());
    command
}

/// Builds with the cache. Returns the artifact and the number of reused functions.
fn cached(work: &Work, module: &Path, backend: Backend) -> (Vec<u8>, usize) {
    let mut command = build(work, module, "cached.so", backend);
    let outcome = Outcome::of(command.args(["--cache-dir", "cache"]));
    let text = outcome.success();
    let line = text.lines().find_map(|line| line.strip_prefix("cache"));
    let words = line.unwrap_or_else(|| panic!("no line about the cache: {text}"));
    let count = words.trim().strip_suffix(" functions reused");
    let count = count.and_then(|count| count.parse().ok());
    let artifact = fs::read(work.join("cached.so")).expect("it was written");
    (artifact, count.expect("a number of functions"))
}

fn clean(work: &Work, module: &Path, backend: Backend) -> Vec<u8> {
    let mut command = build(work, module, "clean.so", backend);
    Outcome::of(command.arg("--no-cache")).success();
    fs::read(work.join("clean.so")).expect("it was written")
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_rebuild_compiles_only_the_edit_and_equals_a_clean_build() {
    for backend in Backend::all() {
        let work = Work::new();
        let all = FUNCTIONS + 1;
        for (edit, reused) in [
            (Edit::None, 0),
            (Edit::None, all),
            (Edit::Body, all - 1),
            // The indices of all later functions shift. The new type comes after all types in use.
            (Edit::FunctionAdded, all),
            (Edit::Data, all),
        ] {
            let module = work.write("a.wat", module(edit));
            let (artifact, found) = cached(&work, &module, backend);
            assert_eq!(found, reused, "{backend:?}: {edit:?}");
            assert!(
                artifact == clean(&work, &module, backend),
                "{backend:?}: {edit:?}"
            );
        }
    }
}

#[test]
fn edited_modules_still_run() {
    let work = Work::new();
    let mut codes = Vec::new();
    for edit in [Edit::None, Edit::Body, Edit::FunctionAdded, Edit::Data] {
        let module = work.write("a.wat", module(edit));
        let _ = cached(&work, &module, Backend::Cranelift);
        let mut command = tool();
        command.args(["run", "cached.so"]).current_dir(work.path());
        codes.push(Outcome::of(&mut command).code());
    }
    assert!(codes.iter().all(|code| *code < 64), "no traps: {codes:?}");
    assert_ne!(codes[0], codes[1], "the constant is part of the result");
    assert_eq!(codes[2..], [codes[0]; 2]);
}

#[test]
fn options_do_not_share_code() {
    let work = Work::new();
    let module = work.write("a.wat", module(Edit::None));
    let reused = |options: &[&str]| {
        let mut command = build(&work, &module, "a.so", Backend::Cranelift);
        command.args(["--cache-dir", "cache"]).args(options);
        let text = Outcome::of(&mut command).success();
        text.contains("cache      0 functions reused")
    };
    assert!(reused(&[]), "the first build");
    assert!(reused(&["-O0"]));
    assert!(reused(&["--cpu-features", "bmi2"]));
    assert!(!reused(&["--jobs", "1"]), "that changes no code");
}

#[test]
fn damaged_cache_entries_are_rebuilt() {
    let work = Work::new();
    let module = work.write("a.wat", module(Edit::None));
    let (first, _) = cached(&work, &module, Backend::Cranelift);
    let entries = files(&work.join("cache"));
    assert!(entries.len() > FUNCTIONS, "{} entries", entries.len());
    for (number, path) in entries.iter().enumerate() {
        let mut bytes = fs::read(path).expect("it can be read");
        match number % 4 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.clear(),
            2 => bytes.push(0),
            _ => {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
            }
        }
        fs::write(path, bytes).expect("it can be written");
    }
    let (again, reused) = cached(&work, &module, Backend::Cranelift);
    assert_eq!(reused, 0);
    assert!(first == again);
    assert_eq!(cached(&work, &module, Backend::Cranelift).1, FUNCTIONS + 1);
}

#[test]
fn concurrent_builds_share_a_cache() {
    let work = Work::new();
    let module = work.write("a.wat", module(Edit::None));
    let expected = clean(&work, &module, Backend::Cranelift);
    let builds: Vec<_> = (0..4)
        .map(|number| {
            let name = format!("{number}.so");
            let mut command = build(&work, &module, &name, Backend::Cranelift);
            // The limit is so small that each build prunes the entries of the others.
            command.args(["--cache-dir", "cache", "--cache-limit", "20Ki", "--quiet"]);
            (name, command.spawn().expect("it can be started"))
        })
        .collect();
    for (name, mut child) in builds {
        assert!(
            child.wait().expect("it can be waited for").success(),
            "{name}"
        );
        let artifact = fs::read(work.join(&name)).expect("it was written");
        assert!(artifact == expected, "{name}");
    }
}

#[test]
fn the_cache_stays_within_its_limit() {
    let work = Work::new();
    let module = work.write("a.wat", module(Edit::None));
    let size = || -> u64 {
        let sizes = files(&work.join("cache")).into_iter();
        sizes
            .map(|path| path.metadata().expect("it is there").len())
            .sum()
    };
    let _ = cached(&work, &module, Backend::Cranelift);
    assert!(size() > 20 << 10, "{} bytes", size());
    let other = work.write("b.wat", "(module (func (export \"_start\")))");
    let mut command = build(&work, &other, "b.so", Backend::Cranelift);
    command.args(["--cache-dir", "cache", "--cache-limit", "20Ki"]);
    Outcome::of(&mut command).success();
    assert!(size() <= 20 << 10, "{} bytes", size());
}

#[test]
fn an_explicit_cache_directory_must_be_usable() {
    let work = Work::new();
    let module = work.write("a.wat", "(module (func (export \"_start\")))");
    work.write("file", "");
    let mut command = build(&work, &module, "a.so", Backend::Cranelift);
    command.args(["--cache-dir", "file/cache"]);
    let parts = [
        "error: cannot create the cache directory file/cache",
        "hint: ",
    ];
    Outcome::of(&mut command).fails(1, &parts);
    // The build does without a default cache directory that is unusable.
    let mut command = build(&work, &module, "a.so", Backend::Cranelift);
    command.env("HOME", "/dev/null");
    assert!(!Outcome::of(&mut command).success().contains("cache "));
}
