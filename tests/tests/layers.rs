//! The layers of the workspace: which package may depend on which, and the rules of `deny.toml` for third-party
//! packages: no code generation in the runner, permissive licenses, and no source except the registry. `make
//! check-layers` runs these tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use faas_wasm_tests::{Outcome, cargo_deny, skip};
use serde_json::Value;

/// The workspace packages that each package may depend on. Dependencies point one way: format, engine, hosts, runner.
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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The output of `cargo tree`, with each package printed in this format.
fn tree(format: &str, arguments: &[&str]) -> String {
    let outcome = Outcome::of(
        Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "-e", "normal"])
            .args(["--prefix", "none", "--format", format])
            .args(arguments)
            .current_dir(root()),
    );
    outcome.success()
}

/// The names of a package's direct dependencies.
fn dependencies(package: &str) -> BTreeSet<String> {
    let text = tree("{p}", &["-p", package, "--depth", "1"]);
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// The violations of `deny.toml` in the package in `folder` and all of its dependencies, as pairs of the rule's code
/// and the package's name. `None` if cargo-deny is not installed.
fn denied(folder: &str, features: &[&str], rules: &[&str]) -> Option<BTreeSet<(String, String)>> {
    let Some(program) = cargo_deny() else {
        skip("denied", "there is no cargo-deny: run `make check-layers`");
        return None;
    };
    let mut command = Command::new(program);
    command
        .args(["--locked", "--format", "json", "--config", "deny.toml"])
        .args(["--manifest-path", &format!("{folder}/Cargo.toml")])
        .args(features)
        .arg("check")
        .args(rules)
        .current_dir(root());
    let outcome = Outcome::of(&mut command);
    let lines = outcome.stderr.lines();
    let messages: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let summary = messages.iter().find(|message| message["type"] == "summary");
    let summary = &summary.unwrap_or_else(|| panic!("{outcome:#?}"))["fields"];
    for rule in rules {
        assert!(
            summary[rule].is_object(),
            "{rule} was not checked: {summary}"
        );
    }
    let errors = messages.iter().map(|message| &message["fields"]);
    let errors = errors.filter(|fields| fields["severity"] == "error");
    let errors: BTreeSet<_> = errors
        .map(|fields| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let package = &fields["graphs"][0]["Krate"]["name"];
            (text(&fields["code"]), text(package))
        })
        .collect();
    assert_eq!(outcome.code() == 0, errors.is_empty(), "{outcome:#?}");
    Some(errors)
}

/// Asserts that there are no violations.
#[track_caller]
fn passes(folder: &str, features: &[&str], rules: &[&str]) {
    if let Some(errors) = denied(folder, features, rules) {
        assert_eq!(errors, BTreeSet::new(), "see deny.toml");
    }
}

fn wrong_direction(package: &str, dependencies: &BTreeSet<String>) -> Vec<String> {
    let layer = LAYERS.iter().find(|(name, _)| *name == package);
    let (_, allowed) = layer.unwrap_or_else(|| panic!("{package} is missing in the layers"));
    dependencies
        .iter()
        .map(String::as_str)
        .filter(|name| *name != package && name.starts_with("faas-wasm"))
        .filter(|name| !allowed.contains(name))
        .map(|name| format!("{package} depends on {name}"))
        .collect()
}

#[test]
fn runner_depends_on_no_code_generator() {
    passes("runner", &[], &["bans"]);
}

#[test]
fn the_runner_has_permissive_licenses() {
    passes("runner", &[], &["licenses"]);
}

#[test]
fn the_tool_without_llvm_has_permissive_licenses() {
    let quick = ["--no-default-features", "--features", "cranelift"];
    passes("compiler", &quick, &["licenses"]);
}

#[test]
fn third_party_packages_come_from_the_registry() {
    passes("runner", &[], &["sources"]);
    passes("compiler", &[], &["sources"]);
    passes("tests", &["--all-features"], &["sources"]);
}

/// Shows that the rules work: the tool contains everything that the runner must not. Only the LLVM backend has a
/// license that restricts use.
#[test]
fn the_tools_dependencies_violate_the_runners_rules() {
    let Some(errors) = denied("compiler", &[], &["bans", "licenses"]) else {
        return;
    };
    let expected = [
        ("banned", "cranelift-codegen"),
        ("banned", "inkwell"),
        ("banned", "libwild"),
        ("banned", "llvm-sys"),
        ("banned", "wasmer-compiler"),
        ("banned", "wasmparser"),
        ("unlicensed", "wasmer-compiler-llvm"),
    ];
    let expected = expected.map(|(code, name)| (code.to_owned(), name.to_owned()));
    assert_eq!(errors, BTreeSet::from(expected));
}

/// Number of packages in a dependency tree that are compiled with support for breaking a reset.
fn broken_resets(arguments: &[&str]) -> usize {
    let text = tree("{p}|{f}", arguments);
    assert!(text.contains("faas-wasm-engine"), "{text}");
    text.matches("fault-injection").count()
}

#[test]
fn the_runner_has_no_fault_injection() {
    assert_eq!(broken_resets(&["-p", "faas-wasm-runner"]), 0);
    assert_eq!(
        broken_resets(&["-p", "faas-wasm-runner", "--all-features"]),
        0
    );
    // The isolation test's tree does contain it, so the search works.
    let isolation = ["-p", "faas-wasm-tests", "--features", "isolation"];
    assert!(broken_resets(&isolation) > 0);
}

#[test]
fn package_dependencies_follow_the_layers() {
    for (package, _) in LAYERS {
        assert_eq!(wrong_direction(package, &dependencies(package)), [""; 0]);
    }
}

#[test]
fn a_wrong_direction_is_found() {
    let packages = ["faas-wasm-engine", "faas-wasm-wasi"].map(str::to_owned);
    let packages = BTreeSet::from(packages);
    assert_eq!(
        wrong_direction("faas-wasm-engine", &packages),
        ["faas-wasm-engine depends on faas-wasm-wasi"]
    );
    assert_eq!(wrong_direction("faas-wasm-wasi", &packages), [""; 0]);
}
