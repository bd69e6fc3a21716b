//! The layers of the workspace: which package may know which, what must never be in the runner, and
//! under which licences its parts are. `make check-layers` runs these.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use faas_wasm_tests::Outcome;

/// What each package of ours may depend on. Dependencies point one way: format, engine, hosts, runner.
const LAYERS: [(&str, &[&str]); 8] = [
    ("faas-wasm-artifact", &[]),
    ("faas-wasm", &["faas-wasm-artifact"]),
    ("faas-wasm-engine", &["faas-wasm-artifact"]),
    ("faas-wasm-wasi", &["faas-wasm-engine"]),
    (
        "faas-wasm-cuda",
        &["faas-wasm-artifact", "faas-wasm-engine"],
    ),
    (
        "faas-wasm-runner",
        &[
            "faas-wasm-artifact",
            "faas-wasm-engine",
            "faas-wasm-wasi",
            "faas-wasm-cuda",
        ],
    ),
    ("faas-wasm-tests", &[]),
    ("faas-wasm-fake-cuda", &[]),
];

/// Code generation and what comes with it. The runner loads; it never compiles or links.
const FORBIDDEN: [&str; 8] = [
    "wasmer-compiler",
    "cranelift-",
    "inkwell",
    "llvm-sys",
    "libwild",
    "wasmparser",
    "wasmer-wasix",
    "wasmtime",
];

/// Licences that let anybody use a program that holds such code, also in production.
const PERMITTED: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    // Asks for the source of its own files alone.
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// A package of a dependency tree: name and licence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    licence: String,
}

/// What `cargo tree` prints, one package a line: `NAME vVERSION (REMARK)|LICENCE`.
fn parse_tree(text: &str) -> BTreeSet<Package> {
    text.lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, licence)| Package {
            name: package.split(' ').next().unwrap_or_default().to_owned(),
            licence: licence.trim_end_matches(" (*)").trim().to_owned(),
        })
        .collect()
}

fn tree(package: &str, more: &[&str]) -> BTreeSet<Package> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let outcome = Outcome::of(
        Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "-e", "normal"])
            .args(["--prefix", "none", "--format", "{p}|{l}", "-p", package])
            .args(more)
            .current_dir(root),
    );
    parse_tree(&outcome.success())
}

fn forbidden(packages: &BTreeSet<Package>) -> Vec<&str> {
    let names = packages.iter().map(|package| package.name.as_str());
    names
        .filter(|name| {
            FORBIDDEN
                .iter()
                .any(|forbidden| name.starts_with(forbidden))
        })
        .collect()
}

fn forbidding_licences(packages: &BTreeSet<Package>) -> Vec<String> {
    packages
        .iter()
        .filter(|package| !is_permitted(&package.licence))
        .map(|package| format!("{}: `{}`", package.name, package.licence))
        .collect()
}

/// Whether an SPDX expression allows one to choose permitted licences alone. `/` is an old spelling
/// of OR. An empty one names no licence: all rights reserved.
fn is_permitted(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    permitted_any(&mut rest) && rest.is_empty()
}

fn permitted_any(words: &mut &[&str]) -> bool {
    let mut permitted = permitted_all(words);
    while let Some(("OR", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        permitted |= permitted_all(words);
    }
    permitted
}

fn permitted_all(words: &mut &[&str]) -> bool {
    let mut permitted = permitted_one(words);
    while let Some(("AND", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        permitted &= permitted_one(words);
    }
    permitted
}

fn permitted_one(words: &mut &[&str]) -> bool {
    match **words {
        ["(", ref rest @ ..] => {
            *words = rest;
            let permitted = permitted_any(words);
            match **words {
                [")", ref rest @ ..] => *words = rest,
                _ => return false,
            }
            permitted
        }
        [licence, "WITH", exception, ref rest @ ..] => {
            *words = rest;
            PERMITTED.contains(&format!("{licence} WITH {exception}").as_str())
        }
        [licence, ref rest @ ..] => {
            *words = rest;
            PERMITTED.contains(&licence)
        }
        [] => false,
    }
}

fn wrong_direction(package: &str, packages: &BTreeSet<Package>) -> Vec<String> {
    let layer = LAYERS.iter().find(|(name, _)| *name == package);
    let (_, allowed) = layer.unwrap_or_else(|| panic!("{package} has no place in the layers"));
    packages
        .iter()
        .map(|found| found.name.as_str())
        .filter(|name| *name != package && name.starts_with("faas-wasm"))
        .filter(|name| !allowed.contains(name))
        .map(|name| format!("{package} depends on {name}"))
        .collect()
}

#[test]
fn runner_holds_no_code_generation() {
    assert_eq!(forbidden(&tree("faas-wasm-runner", &[])), [""; 0]);
}

/// Packages of a tree that are compiled with ways to break a reset.
fn broken_resets(more: &[&str]) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let outcome = Outcome::of(
        Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "-e", "normal"])
            .args(["--prefix", "none", "--format", "{p}|{f}"])
            .args(more)
            .current_dir(root),
    );
    let text = outcome.success();
    assert!(text.contains("faas-wasm-engine"), "{text}");
    text.matches("broken-reset").count()
}

#[test]
fn the_runner_cannot_be_told_to_break_its_resets() {
    assert_eq!(broken_resets(&["-p", "faas-wasm-runner"]), 0);
    assert_eq!(
        broken_resets(&["-p", "faas-wasm-runner", "--all-features"]),
        0
    );
    // The test of isolation has what was looked for.
    let isolation = ["-p", "faas-wasm-tests", "--features", "isolation"];
    assert!(broken_resets(&isolation) > 0);
}

#[test]
fn licences_of_the_runner_permit_use() {
    let packages = tree("faas-wasm-runner", &[]);
    assert!(packages.len() > 20, "{packages:?}");
    assert_eq!(forbidding_licences(&packages), [""; 0]);
}

#[test]
fn licences_of_the_tool_without_llvm_permit_use() {
    let quick = ["--no-default-features", "--features", "cranelift"];
    assert_eq!(forbidding_licences(&tree("faas-wasm", &quick)), [""; 0]);
}

#[test]
fn dependencies_point_one_way() {
    for (package, _) in LAYERS {
        // Direct ones: each package's own are looked at in its own turn.
        let packages = tree(package, &["--depth", "1"]);
        assert_eq!(wrong_direction(package, &packages), [""; 0]);
    }
}

/// The checks find what they are for: the tool has all that the runner must not have.
#[test]
fn the_tools_own_tree_fails_the_checks() {
    let packages = tree("faas-wasm", &[]);
    let found = forbidden(&packages);
    for name in [
        "wasmer-compiler",
        "wasmer-compiler-llvm",
        "wasmparser",
        "libwild",
        "llvm-sys",
    ] {
        assert!(found.contains(&name), "{name} is not in {found:?}");
    }
    let licences = forbidding_licences(&packages);
    assert!(
        licences
            .iter()
            .any(|line| line.starts_with("wasmer-compiler-llvm: ")),
        "{licences:?}"
    );
}

#[test]
fn a_wrong_direction_is_found() {
    let line = |name: &str| format!("{name} v0.1.0 (/tmp/{name})|Apache-2.0\n");
    let packages = parse_tree(&(line("faas-wasm-engine") + &line("faas-wasm-wasi")));
    assert_eq!(
        wrong_direction("faas-wasm-engine", &packages),
        ["faas-wasm-engine depends on faas-wasm-wasi"]
    );
    assert_eq!(wrong_direction("faas-wasm-wasi", &packages), [""; 0]);
}

#[test]
fn licence_expressions_are_understood() {
    for (expression, permitted) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND OpenSSL", false),
        ("MIT OR Apache-2.0 WITH LLVM-exception", true),
        ("GPL-2.0 WITH LLVM-exception", false),
        ("BUSL-1.1", false),
        ("", false),
        ("(MIT", false),
        ("MIT Apache-2.0", false),
    ] {
        assert_eq!(is_permitted(expression), permitted, "{expression}");
    }
}
