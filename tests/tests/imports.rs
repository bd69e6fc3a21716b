//! Lists of functions that must agree across the tree: the WASI functions in the tool, the runner, and the test with
//! hostile arguments; the CUDA driver's functions in the runner and the stand-in driver.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use faas_wasm_tests::{Backend, Guest, Outcome, Work, fake_cuda, tool};

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names and parameters (`i` for i32, `I` for i64) of the functions that the tool lets a module import.
fn tool_functions() -> Vec<(String, String)> {
    let source = source("compiler/src/imports.rs");
    let (_, list) = source.split_once("const WASI_FUNCTIONS").expect("a list");
    let (list, _) = list.split_once("];").expect("its end");
    let rows = list.lines().filter_map(|line| {
        let row = line.trim().strip_prefix("(\"")?.strip_suffix("\"),")?;
        let (name, parameters) = row.split_once("\", \"")?;
        Some((name.to_owned(), parameters.to_owned()))
    });
    let functions: Vec<_> = rows.collect();
    assert!(functions.len() >= 46, "{functions:?}");
    functions
}

fn names(functions: &[(String, String)]) -> BTreeSet<&str> {
    functions.iter().map(|(name, _)| name.as_str()).collect()
}

/// A module that imports these functions from a WASI module and calls none.
fn importing(module: &str, functions: &[(String, String)]) -> String {
    let mut text = String::from("(module\n");
    for (name, parameters) in functions {
        let parameters: Vec<_> = parameters
            .chars()
            .map(|letter| if letter == 'I' { "i64" } else { "i32" })
            .collect();
        let result = if name == "proc_exit" {
            ""
        } else {
            "(result i32)"
        };
        let parameters = parameters.join(" ");
        writeln!(
            text,
            "(import \"{module}\" \"{name}\" (func (param {parameters}) {result}))"
        )
        .expect("text has room");
    }
    text + "(memory (export \"memory\") 1) (func (export \"_start\")))"
}

#[test]
fn tool_and_runner_have_the_same_wasi_functions() {
    let all = tool_functions();
    let linker = source("runner/wasi/src/linker.rs");
    // Matches `NAME(ARGUMENTS) => PATH::NAME;`, and the one function that stands alone.
    let provided: BTreeSet<_> = linker
        .split("=> ")
        .skip(1)
        .filter_map(|rest| rest.split_once(';'))
        .filter_map(|(path, _)| path.split_once("::"))
        .map(|(_, name)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .chain(["proc_exit"])
        .collect();
    assert_eq!(provided, names(&all));

    // The runner starts a module only if it provides each import with the same type.
    let mut older = all.clone();
    older.retain(|(name, _)| name != "sock_accept");
    for (module, functions) in [("wasi_snapshot_preview1", &all), ("wasi_unstable", &older)] {
        let work = Work::new();
        let module = work.write("imports.wat", importing(module, functions));
        let guest = Guest::compiled(&module, Backend::Cranelift);
        let outcome = Outcome::of(tool().arg("run").arg(guest.artifact()));
        assert_eq!(outcome.success(), "");
    }
}

#[test]
fn hostile_arguments_reach_every_wasi_function() {
    let test = source("runner/wasi/src/calls/tests/hostile.rs");
    let (_, calls) = test.split_once("fn any_call").expect("the calls");
    let (calls, _) = calls.split_once("\n}\n").expect("their end");
    let called: BTreeSet<_> = calls
        .split("::")
        .skip(1)
        .filter_map(|rest| rest.split_once("(call"))
        .map(|(name, _)| name)
        // `proc_exit` has no pointer arguments and never returns.
        .chain(["proc_exit"])
        .collect();
    assert_eq!(called, names(&tool_functions()));
}

#[test]
fn the_stand_in_driver_has_every_entry_point_of_the_runner() {
    let table = source("runner/cuda/src/driver/table.rs");
    let wanted: BTreeSet<_> = table
        .split("= \"cu")
        .skip(1)
        .filter_map(|rest| rest.split_once("\\0\""))
        .map(|(name, _)| format!("cu{name}"))
        .collect();
    assert!(wanted.len() > 90, "{wanted:?}");
    let driver = fs::read(fake_cuda()).expect("the driver can be read");
    let strings = driver.split(|byte| *byte == 0);
    let symbols: BTreeSet<_> = strings.filter(|text| text.starts_with(b"cu")).collect();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| !symbols.contains(name.as_bytes()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
