//! A load outside memory traps even if its value is not used.
//!
//! LLVM removes, moves, or narrows a load whose value is unused, is used only on some paths, or is used only in part.
//! The tool finds these loads and keeps each access. The module here has one function for each kind of such loads,
//! and the program's argument selects the one to run.

use std::fmt::Write as _;

use faas_wasm_tests::{Backend, Outcome, Work, tool};

/// An address outside memory. It replaces `FAR` in a case, unless the test uses an address inside memory.
const FAR: &str = "(i32.const 0x7fffff00)";
const NEAR: &str = "(i32.const 0x100)";

/// Names and function bodies, each with a load at `FAR`, or with one across the end of memory at `EDGE`. The compiler
/// cannot know the results of the functions `$zero` and `$one`; `$far` returns `FAR`.
const CASES: &[(&str, &str)] = &[
    ("dropped", "(drop (i32.load FAR))"),
    ("a dropped byte", "(drop (i64.load8_s FAR))"),
    ("a dropped float", "(drop (f64.load FAR))"),
    ("a dropped vector", "(drop (v128.load FAR))"),
    ("a dropped splat", "(drop (v128.load32_splat FAR))"),
    (
        "a dropped lane",
        "(drop (v128.load8_lane 3 FAR (v128.const i64x2 0 0)))",
    ),
    ("of another memory", "(drop (i32.load $other FAR))"),
    (
        "with the largest offset",
        "(drop (i32.load offset=0xffffffff FAR))",
    ),
    ("in a local that is not read", "(local.set $x (i32.load FAR))"),
    (
        "in a local by way of another",
        "(local.set $x (i32.load FAR)) (local.set $y (local.get $x))",
    ),
    (
        "an operand of what is dropped",
        "(drop (i32.add (i32.mul (i32.load FAR) (i32.const 3)) (i32.const 4)))",
    ),
    (
        "a dividend of what is dropped",
        "(drop (i32.div_u (i32.load FAR) (i32.const 3)))",
    ),
    (
        "summed up for nothing",
        "(loop (local.set $x (i32.add (local.get $x) (i32.load FAR)))
            (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 9))))",
    ),
    ("before an endless loop", "(drop (i32.load FAR)) (loop (br 0))"),
    (
        "in a local before an endless loop",
        "(local.set $x (i32.load FAR)) (loop (br 0))",
    ),
    ("before unreachable", "(drop (i32.load FAR)) unreachable"),
    ("before a return", "(drop (i32.load FAR)) return"),
    (
        "not chosen first",
        "(call $sink (select (i32.load (call $far)) (i32.load (i32.const 16)) (call $zero)))",
    ),
    (
        "not chosen second",
        "(call $sink (select (i32.load (i32.const 16)) (i32.load (call $far)) (call $one)))",
    ),
    (
        "not chosen by a constant",
        "(call $sink (select (i32.load FAR) (i32.const 16) (i32.const 0)))",
    ),
    (
        "needed by a branch that is not taken",
        "(local.set $x (i32.load (call $far)))
         (if (call $zero) (then (call $sink (local.get $x))))",
    ),
    (
        "needed by a branch that was decided before",
        "(local.set $i (call $zero)) (local.set $x (i32.load FAR))
         (if (local.get $i) (then (call $sink (i32.mul (local.get $x) (i32.const 7)))))",
    ),
    (
        "needed by the way that is left",
        "(local.set $i (call $one)) (local.set $x (i32.load FAR))
         (block (br_if 0 (local.get $i)) (call $sink (local.get $x)) return)",
    ),
    (
        "on the stack over a branch",
        "(i32.load FAR) (if (call $zero) (then (call $sink (i32.const 1)))) drop",
    ),
    ("a block's dropped result", "(drop (block (result i32) (i32.load FAR)))"),
    ("a loop's dropped result", "(drop (loop (result i32) (i32.load FAR)))"),
    ("times 0", "(call $sink (i32.mul (i32.load FAR) (i32.const 0)))"),
    (
        "times a local with 0",
        "(local.set $i (i32.const 0)) (call $sink (i32.mul (i32.load FAR) (local.get $i)))",
    ),
    ("and 0", "(call $sink (i32.and (i32.load FAR) (i32.const 0)))"),
    (
        "or all bits",
        "(call $sink (i32.or (i32.load FAR) (i32.const -1)))",
    ),
    (
        "minus itself",
        "(call $sink (i32.sub (local.tee $x (i32.load FAR)) (local.get $x)))",
    ),
    (
        "equal to itself",
        "(local.set $x (i32.load FAR)) (call $sink (i32.eq (local.get $x) (local.get $x)))",
    ),
    (
        "a byte less than 256",
        "(call $sink (i32.lt_u (i32.load8_u FAR) (i32.const 256)))",
    ),
    (
        "a byte shifted away",
        "(call $sink (i32.shr_u (i32.load8_u FAR) (i32.const 8)))",
    ),
    ("a condition of nothing", "(block (br_if 0 (i32.load FAR)))"),
    ("a condition of empty arms", "(if (i32.load FAR) (then) (else))"),
    ("an index into one label", "(block (br_table 0 0 0 (i32.load FAR)))"),
    (
        "a condition of what is not read",
        "(if (i32.load FAR) (then (local.set $x (i32.const 1))))",
    ),
    ("stored back", "(i32.store FAR (i32.load FAR))"),
    (
        "stored back by a local",
        "(local.set $i (call $far)) (local.set $x (i32.load (local.get $i)))
         (i32.store (local.get $i) (local.get $x))",
    ),
    (
        "stored and overwritten",
        "(i32.store (i32.const 8) (i32.load FAR)) (i32.store (i32.const 8) (i32.const 5))",
    ),
    ("stored", "(i32.store FAR (i32.const 1))"),
    ("needed as its low half", "(call $sink (i32.wrap_i64 (i64.load EDGE)))"),
    (
        "needed as its lowest byte",
        "(call $sink (i32.and (i32.load EDGE) (i32.const 255)))",
    ),
    ("stored as a byte", "(i32.store8 (i32.const 8) (i32.load EDGE))"),
    (
        "needed as its first lane",
        "(call $sink (i32x4.extract_lane 0 (v128.load EDGE)))",
    ),
    (
        "needed as the first lane of a sum",
        "(call $sink (i32x4.extract_lane 0 (f32x4.add (v128.load EDGE) (f32x4.splat (f32.const 1)))))",
    ),
    (
        "needed as its low half, wider",
        "(v128.store (i32.const 16) (i16x8.extend_low_i8x16_u (v128.load EDGE)))",
    ),
    (
        "caught by nothing",
        "(block (try_table (catch_all 0) (drop (i32.load FAR)) (call $sink (i32.const 0))))",
    ),
];

/// A module that runs the function whose number is in its argument.
fn module(cases: &[(&str, &str)], far: &str, edge: &str) -> String {
    let mut text = String::from(
        r#"(module
        (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
        (tag)
        (memory (export "memory") 1) (memory $other 1)
        (func $zero (export "zero") (result i32) (i32.load (i32.const 32)))
        (func $one (export "one") (result i32) (i32.eqz (call $zero)))
        (func $sink (export "sink") (param i32) (i32.store (i32.const 4) (local.get 0)))
        (func $digit (param i32) (result i32)
            (i32.sub (i32.load8_u (i32.add (i32.load (i32.const 68)) (local.get 0))) (i32.const 48)))
        (func (export "_start")
            (drop (call $args (i32.const 64) (i32.const 256)))
            (call_indirect (i32.add
                (i32.mul (call $digit (i32.const 0)) (i32.const 10))
                (call $digit (i32.const 1)))))
        "#,
    );
    let _ = writeln!(text, "(func $far (export \"far\") (result i32) {far})");
    let mut elements = String::new();
    for (number, (_, body)) in cases.iter().enumerate() {
        let body = body.replace("FAR", far).replace("EDGE", edge);
        let _ = writeln!(
            text,
            "(func $case{number} (local $x i32) (local $y i32) (local $i i32) {body})"
        );
        let _ = write!(elements, " $case{number}");
    }
    text + &format!("(table funcref (elem {elements})))")
}

/// Builds the cases, and returns the outcome of each run.
fn outcomes(cases: &[(&str, &str)], far: &str, edge: &str, arguments: &[&str]) -> Vec<Outcome> {
    let work = Work::new();
    work.write("loads.wat", module(cases, far, edge));
    let mut build = tool();
    build.args(["build", "--quiet", "--no-cache"]);
    build.args(arguments).arg("loads.wat");
    Outcome::of(build.current_dir(work.path())).success();
    let runs = (0..cases.len()).map(|number| {
        let number = format!("{number:02}");
        let mut run = tool();
        run.args(["run", "loads.so", &number]);
        Outcome::of(run.current_dir(work.path()))
    });
    runs.collect()
}

/// Options for builds with each backend. The default backend also builds without optimization and for the oldest CPU.
fn builds() -> Vec<Vec<&'static str>> {
    let mut builds = Vec::new();
    for backend in Backend::all() {
        let name = ["--backend", backend.name()];
        builds.push(name.to_vec());
        if backend == Backend::Llvm {
            builds.push([&name[..], &["-O", "0"]].concat());
            builds.push([&name[..], &["-O", "1"]].concat());
        }
    }
    builds
}

#[test]
fn loads_outside_memory_trap_even_if_unused() {
    for arguments in builds() {
        // The first bytes are inside memory.
        let outcomes = outcomes(CASES, FAR, "(i32.const 0xffff)", &arguments);
        for ((name, _), outcome) in CASES.iter().zip(outcomes) {
            let trapped = outcome.code() == 134 && outcome.stderr.contains("out of bounds memory");
            assert!(trapped, "{name}, {arguments:?}: {outcome:?}");
        }
    }
}

#[test]
fn the_same_loads_inside_memory_do_not_trap() {
    let ends = |body: &str| !body.contains("(br 0)") && !body.contains("unreachable");
    let reaches = |body: &str| !body.contains("offset=");
    let cases: Vec<_> = CASES
        .iter()
        .copied()
        .filter(|(_, body)| ends(body) && reaches(body))
        .collect();
    assert!(cases.len() > 40, "{}", cases.len());
    for arguments in builds() {
        let outcomes = outcomes(&cases, NEAR, NEAR, &arguments);
        for ((name, _), outcome) in cases.iter().zip(outcomes) {
            assert_eq!(outcome.code(), 0, "{name}, {arguments:?}: {outcome:?}");
        }
    }
}

/// Loads that LLVM removes and the tool does not detect, as documented in docs/guide/correctness.md. If one of them traps after a
/// change, move it to the cases above.
#[test]
fn llvm_removes_loads_that_only_it_can_prove_unused() {
    const LOST: &[(&str, &str)] = &[
        (
            "its own successor minus itself",
            "(local.set $x (i32.load FAR))
             (call $sink (i32.sub (i32.add (local.get $x) (i32.const 1)) (local.get $x)))",
        ),
        (
            "overwritten behind a branch",
            "(local.set $x (call $one)) (i32.store (i32.const 8) (i32.load FAR))
             (if (local.get $x) (then (local.set $x (i32.const 9))))
             (i32.store (i32.const 8) (local.get $x))",
        ),
        (
            "stored back by another way to compute its address",
            "(local.set $i (call $far))
             (i32.store (i32.add (local.get $i) (i32.const 0)) (i32.load (local.get $i)))",
        ),
        (
            "times what is 0 on all ways",
            "(if (call $zero) (then (local.set $i (i32.const 0))))
             (call $sink (i32.mul (i32.load FAR) (local.get $i)))",
        ),
    ];
    for backend in Backend::all() {
        let arguments = ["--backend", backend.name()];
        for ((name, _), outcome) in LOST.iter().zip(outcomes(LOST, FAR, NEAR, &arguments)) {
            let expected = if backend == Backend::Llvm { 0 } else { 134 };
            assert_eq!(outcome.code(), expected, "{name}, {backend:?}: {outcome:?}");
        }
    }
}

/// If two traps have no effect between them, LLVM's code may reach the second one first.
#[test]
fn either_of_two_traps_may_be_reported() {
    const CASES: &[(&str, &str)] = &[(
        "before a division by 0",
        "(local.set $y (call $zero)) (local.set $x (i32.load FAR))
         (call $sink (i32.add (local.get $x) (i32.div_u (i32.const 4) (local.get $y))))",
    )];
    for arguments in builds() {
        for outcome in outcomes(CASES, FAR, NEAR, &arguments) {
            assert_eq!(outcome.code(), 134, "{arguments:?}: {outcome:?}");
            let is_llvm = arguments.contains(&"llvm");
            let either = is_llvm && outcome.stderr.contains("integer divide by zero");
            let exact = outcome.stderr.contains("out of bounds memory");
            assert!(exact || either, "{arguments:?}: {outcome:?}");
        }
    }
}

/// A trap is reported at the offset of the load, not of the code around it.
#[test]
fn a_kept_load_keeps_its_offset_in_the_report() {
    // The same function, with a load that LLVM keeps anyway.
    let text = |rest: &str| {
        format!(
            r#"(module (memory 1) (func $sink (export "sink") (param i32) (i32.store (i32.const 4) (local.get 0)))
            (func (export "_start") (local $x i32) nop nop (i32.load {FAR}) {rest}))"#
        )
    };
    for backend in Backend::all() {
        let reported = ["drop nop", "call $sink"].map(|rest| {
            let work = Work::new();
            work.write("load.wat", text(rest));
            let mut build = tool();
            build.args([
                "build",
                "--quiet",
                "--no-cache",
                "--backend",
                backend.name(),
            ]);
            Outcome::of(build.arg("load.wat").current_dir(work.path())).success();
            let run = Outcome::of(tool().args(["run", "load.so"]).current_dir(work.path()));
            assert_eq!(run.code(), 134, "{run:?}");
            let line = run.stderr.lines().find(|line| line.contains("wasm offset"));
            let (_, offset) = line
                .and_then(|line| line.split_once("wasm offset"))
                .unwrap_or_else(|| panic!("{}", run.stderr));
            offset.to_owned()
        });
        assert_eq!(reported[0], reported[1], "{backend:?}");
    }
}
