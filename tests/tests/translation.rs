//! Valid code that a backend would translate wrongly or not at all without the tool's rewriting: vectors, rounding,
//! and exception references.

use std::fmt::Write as _;

use faas_wasm_tests::{Backend, Outcome, Work, builds_for_this_machine, skip, tool};

fn build(work: &Work, text: &str, arguments: &[&str]) -> Outcome {
    work.write("module.wat", text);
    let mut build = tool();
    build.args(["build", "--quiet", "--no-cache"]);
    build.args(arguments).arg("module.wat");
    Outcome::of(build.current_dir(work.path()))
}

/// A program whose exit code is the number of the first check, starting with 1, whose result is not 1. The checks are
/// functions that call `$i32` and `$i64` for constants that the compiler must not know.
fn checks(checks: &[String]) -> String {
    let mut text = String::from(
        r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func $i32 (export "i32") (param i32) (result i32) (local.get 0))
        (func $i64 (export "i64") (param i64) (result i64) (local.get 0))
        "#,
    );
    let mut start = String::new();
    for (number, check) in checks.iter().enumerate() {
        let _ = writeln!(
            text,
            "(func $c{number} (export \"c{number}\") (result i32) {check})"
        );
        let _ = write!(
            start,
            "(if (i32.ne (call $c{number}) (i32.const 1)) (then (call $exit (i32.const {}))))",
            number + 1
        );
    }
    text + &format!("(func (export \"_start\") {start}))")
}

/// Builds with each backend for each level that this machine supports, and asserts that all checks pass.
fn pass(list: &[String]) {
    assert!(list.len() < 255, "an exit code tells them apart");
    let text = checks(list);
    for backend in Backend::all() {
        for level in levels() {
            let mut arguments = vec!["--backend", backend.name()];
            arguments.extend(level.iter().flat_map(|level| ["--cpu", *level]));
            let work = Work::new();
            build(&work, &text, &arguments).success();
            let run = Outcome::of(tool().args(["run", "module.so"]).current_dir(work.path()));
            let failed = usize::try_from(run.code() - 1)
                .ok()
                .map(|number| &list[number]);
            assert_eq!(failed, None, "{arguments:?}: {run:?}");
        }
    }
}

/// The x86-64 levels up to this machine's. `None` means the machine's own features.
fn levels() -> Vec<Option<&'static str>> {
    let mut levels = vec![None];
    #[cfg(target_arch = "x86_64")]
    if builds_for_this_machine() {
        let has = [
            ("x86-64-v1", true),
            ("x86-64-v2", is_x86_feature_detected!("sse4.2")),
            ("x86-64-v3", is_x86_feature_detected!("avx2")),
            ("x86-64-v4", is_x86_feature_detected!("avx512vl")),
        ];
        levels.extend(
            has.into_iter()
                .filter(|(_, has)| *has)
                .map(|(level, _)| Some(level)),
        );
    }
    levels
}

const ROUNDINGS: [&str; 5] = ["ceil", "floor", "trunc", "nearest", "sqrt"];

/// For each width, a signaling NaN and the quiet bit.
const SIGNALING: [(u32, &str, &str); 2] = [
    (32, "0x7fa12345", "0x7fc00000"),
    (64, "0x7ff4123456789abc", "0x7ff8000000000000"),
];

/// An expression for whether a float is quiet.
fn quiet_scalar(width: u32, quiet: &str, value: &str) -> String {
    format!(
        "(i{width}.eq (i{width}.and (i{width}.reinterpret_f{width} {value}) (i{width}.const {quiet})) \
         (i{width}.const {quiet}))"
    )
}

/// An expression for whether a lane is quiet.
fn quiet_lane(width: u32, lane: u32, quiet: &str, value: &str) -> String {
    let shape = shape(width);
    format!(
        "(i{width}.eq (i{width}.and (i{shape}.extract_lane {lane} {value}) (i{width}.const {quiet})) \
         (i{width}.const {quiet}))"
    )
}

fn shape(width: u32) -> String {
    format!("{width}x{}", 128 / width)
}

#[test]
fn rounding_and_arithmetic_quiet_signaling_nans() {
    let mut list = Vec::new();
    for (width, signaling, quiet) in SIGNALING {
        let shape = shape(width);
        let nan = format!(
            "(f{width}.reinterpret_i{width} (call $i{width} (i{width}.const {signaling})))"
        );
        let vector = format!("(i{shape}.splat (call $i{width} (i{width}.const {signaling})))");
        let one = format!("(f{width}.const 1)");
        let ones = format!("(f{shape}.splat {one})");
        for operator in ROUNDINGS {
            list.push(quiet_scalar(
                width,
                quiet,
                &format!("(f{width}.{operator} {nan})"),
            ));
            let value = format!("(f{shape}.{operator} {vector})");
            list.push(quiet_lane(width, 0, quiet, &value));
            list.push(quiet_lane(width, 1, quiet, &value));
        }
        for operator in ["add", "sub", "mul", "div", "min", "max"] {
            for (left, right) in [(&nan, &one), (&one, &nan), (&nan, &nan)] {
                let value = format!("(f{width}.{operator} {left} {right})");
                list.push(quiet_scalar(width, quiet, &value));
            }
            for (left, right) in [(&vector, &ones), (&ones, &vector), (&vector, &vector)] {
                let value = format!("(f{shape}.{operator} {left} {right})");
                list.push(quiet_lane(width, 1, quiet, &value));
            }
        }
    }
    let (wide, narrow) = (SIGNALING[1], SIGNALING[0]);
    let nan32 = format!("(f32.reinterpret_i32 (call $i32 (i32.const {})))", narrow.1);
    let nan64 = format!("(f64.reinterpret_i64 (call $i64 (i64.const {})))", wide.1);
    let vector32 = format!("(i32x4.splat (call $i32 (i32.const {})))", narrow.1);
    let vector64 = format!("(i64x2.splat (call $i64 (i64.const {})))", wide.1);
    let promoted = format!("(f64x2.promote_low_f32x4 {vector32})");
    list.extend([
        quiet_scalar(64, wide.2, &format!("(f64.promote_f32 {nan32})")),
        quiet_scalar(32, narrow.2, &format!("(f32.demote_f64 {nan64})")),
        quiet_scalar(
            32,
            narrow.2,
            &format!("(f32.demote_f64 (f64.promote_f32 {nan32}))"),
        ),
        quiet_lane(64, 1, wide.2, &promoted),
        quiet_lane(
            32,
            1,
            narrow.2,
            &format!("(f32x4.demote_f64x2_zero {vector64})"),
        ),
        quiet_lane(
            32,
            1,
            narrow.2,
            &format!("(f32x4.demote_f64x2_zero {promoted})"),
        ),
    ]);
    pass(&list);
}

#[test]
fn rounding_keeps_every_other_value() {
    let mut list = Vec::new();
    for (value, results) in [
        ("-0.0", ["-0.0", "-0.0", "-0.0", "-0.0"]),
        ("0.3", ["1", "0", "0", "0"]),
        ("-0.3", ["-0.0", "-1", "-0.0", "-0.0"]),
        ("2.5", ["3", "2", "2", "2"]),
        ("-3.5", ["-3", "-4", "-3", "-4"]),
        ("0x1p-126", ["1", "0", "0", "0"]),
        ("-inf", ["-inf", "-inf", "-inf", "-inf"]),
        (
            "0x1.fffffep22",
            ["0x1p23", "0x1.fffffcp22", "0x1.fffffcp22", "0x1p23"],
        ),
    ] {
        for (operator, result) in ROUNDINGS.iter().zip(results) {
            for width in [32, 64] {
                let shape = shape(width);
                let bits = |value: &str| {
                    format!("(i{width}.reinterpret_f{width} (f{width}.const {value}))")
                };
                let input = format!("(call $i{width} {})", bits(value));
                let scalar =
                    format!("(f{width}.{operator} (f{width}.reinterpret_i{width} {input}))");
                let vector = format!("(f{shape}.{operator} (i{shape}.splat {input}))");
                list.push(format!(
                    "(i{width}.eq (i{width}.reinterpret_f{width} {scalar}) {})",
                    bits(result)
                ));
                list.push(format!(
                    "(i{width}.eq (i{shape}.extract_lane 1 {vector}) {})",
                    bits(result)
                ));
            }
        }
    }
    pass(&list);
}

/// A vector of these bytes, computed from values that the compiler does not know.
fn vector(bytes: &[u8]) -> String {
    let half = |bytes: &[u8]| {
        let bytes: Vec<_> = bytes
            .iter()
            .rev()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("(call $i64 (i64.const 0x{}))", bytes.concat())
    };
    format!(
        "(i64x2.replace_lane 1 (i64x2.splat {}) {})",
        half(&bytes[..8]),
        half(&bytes[8..])
    )
}

/// A check that a vector has these bytes.
fn equal(value: &str, bytes: &[u8]) -> String {
    format!("(i8x16.all_true (i8x16.eq {value} {}))", vector(bytes))
}

#[test]
fn bytes_can_be_shuffled_at_every_level() {
    let left: Vec<u8> = (100..116).collect();
    let right: Vec<u8> = (200..216).collect();
    let mut list = Vec::new();
    for lanes in [
        [0, 17, 2, 19, 4, 21, 6, 23, 8, 25, 10, 27, 12, 29, 14, 31],
        [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
        [31, 0, 31, 0, 16, 16, 1, 2, 3, 30, 29, 28, 5, 6, 7, 8],
        [4, 5, 6, 7, 0, 1, 2, 3, 20, 21, 22, 23, 16, 17, 18, 19],
        [0; 16],
    ] {
        let names: Vec<_> = lanes.iter().map(usize::to_string).collect();
        let shuffled = format!(
            "(i8x16.shuffle {} {} {})",
            names.join(" "),
            vector(&left),
            vector(&right)
        );
        let both = [&left[..], &right].concat();
        let expected: Vec<u8> = lanes.iter().map(|lane| both[*lane]).collect();
        list.push(equal(&shuffled, &expected));
    }
    for places in [
        [0, 15, 16, 255, 7, 8, 128, 3, 14, 13, 17, 1, 127, 9, 32, 64],
        [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
        [16; 16],
    ] {
        let swizzled = format!("(i8x16.swizzle {} {})", vector(&left), vector(&places));
        let place = |place: &u8| left.get(usize::from(*place)).copied().unwrap_or(0);
        let expected: Vec<u8> = places.iter().map(place).collect();
        list.push(equal(&swizzled, &expected));
    }
    let places = [3; 16];
    let relaxed = format!(
        "(i8x16.relaxed_swizzle {} {})",
        vector(&left),
        vector(&places)
    );
    list.push(equal(&relaxed, &[103; 16]));
    pass(&list);
}

/// LLVM's translator rounded to nearest in these conversions.
#[test]
fn relaxed_conversions_truncate() {
    let doubles = [1.75_f64, 2.75].map(f64::to_le_bytes).concat();
    let singles = [1.75_f32, 2.5, 3.5, 0.75].map(f32::to_le_bytes).concat();
    let integers = |lanes: [u32; 4]| lanes.map(u32::to_le_bytes).concat();
    let mut list = Vec::new();
    for sign in ["s", "u"] {
        let of_doubles = format!(
            "(i32x4.relaxed_trunc_f64x2_{sign}_zero {})",
            vector(&doubles)
        );
        list.push(equal(&of_doubles, &integers([1, 2, 0, 0])));
        let of_singles = format!("(i32x4.relaxed_trunc_f32x4_{sign} {})", vector(&singles));
        list.push(equal(&of_singles, &integers([1, 2, 3, 0])));
    }
    pass(&list);
}

/// LLVM's translator failed if floats of one shape were computed from those of another.
#[test]
fn floats_computed_as_one_shape_can_be_rounded_as_another() {
    let produced = |shape: &str| {
        let mut list = Vec::new();
        for operator in ["abs", "neg"].iter().chain(&ROUNDINGS) {
            list.push(format!("({shape}.{operator} (local.get 0))"));
        }
        for operator in [
            "add",
            "sub",
            "mul",
            "div",
            "min",
            "max",
            "pmin",
            "relaxed_max",
            "eq",
        ] {
            list.push(format!("({shape}.{operator} (local.get 0) (local.get 1))"));
        }
        list.push(format!(
            "({shape}.relaxed_madd (local.get 0) (local.get 1) (local.get 0))"
        ));
        list
    };
    let mut functions = String::new();
    let mut number = 0;
    for (from, to) in [("f32x4", "f64x2"), ("f64x2", "f32x4")] {
        for value in produced(from) {
            for result in produced(to) {
                let result = result.replacen("(local.get 0)", &value, 1);
                let _ = writeln!(
                    functions,
                    "(func (export \"f{number}\") (param v128 v128) (result v128) {result})"
                );
                number += 1;
            }
        }
    }
    for backend in Backend::all() {
        let work = Work::new();
        let text = format!("(module (func (export \"_start\")) {functions})");
        build(&work, &text, &["--backend", backend.name()]).success();
    }
}

#[test]
fn unsupported_exception_references_are_refused() {
    let tables = "module.wat uses tables of exception references, which the";
    let segments = "module.wat uses element segments of exception references, which the";
    let globals = "module.wat uses globals of exception references, which the cranelift backend";
    for (fields, expected) in [
        ("(table 1 exnref)", tables),
        ("(elem exnref (ref.null exn))", segments),
        ("(elem declare exnref (ref.null exn))", segments),
        ("(global $g (mut exnref) (ref.null exn))", globals),
    ] {
        let text = format!("(module {fields} (func (export \"_start\") (local exnref)))");
        for backend in Backend::all() {
            let work = Work::new();
            let outcome = build(&work, &text, &["--backend", backend.name()]);
            let mut check = tool();
            check.args(["check", "--backend", backend.name(), "module.wat"]);
            let checked = Outcome::of(check.current_dir(work.path()));
            if expected == globals && backend == Backend::Llvm {
                outcome.success();
                checked.success();
                let run = Outcome::of(tool().args(["run", "module.so"]).current_dir(work.path()));
                run.success();
                continue;
            }
            outcome.fails(
                1,
                &[expected, "at offset 0x", "its type is exnref", "hint: "],
            );
            checked.fails(1, &[expected]);
        }
    }
}

/// A backend that supports such globals keeps an exception reference in a global.
#[test]
fn an_exception_reference_is_thrown_from_a_global() {
    if !Backend::llvm_or_skip("an_exception_reference_is_thrown_from_a_global") {
        return;
    }
    let text = r#"(module (tag $t (param i32)) (global $g (mut exnref) (ref.null exn))
        (func (export "_start") (local $e exnref)
            (block $caught (result i32 exnref)
                (try_table (catch_ref $t $caught) (throw $t (i32.const 7)))
                unreachable)
            (local.set $e) drop
            (global.set $g (local.get $e))
            (block $again (result i32)
                (try_table (catch $t $again) (throw_ref (global.get $g)))
                unreachable)
            (if (i32.ne (i32.const 7)) (then unreachable))))"#;
    let work = Work::new();
    build(&work, text, &["--backend", "llvm"]).success();
    Outcome::of(tool().args(["run", "module.so"]).current_dir(work.path())).success();
}

#[test]
fn cranelift_refuses_vectors_for_riscv64() {
    let work = Work::new();
    let text = "(module (func (export \"_start\") (drop (v128.not (v128.const i64x2 0 0)))))";
    let arguments = ["--backend", "cranelift", "--target", "riscv64"];
    build(&work, text, &arguments).fails(
        1,
        &["module.wat uses SIMD, which the cranelift backend does not support"],
    );
    if !Backend::all().contains(&Backend::Llvm) {
        return skip(
            "cranelift_refuses_vectors_for_riscv64",
            "the tool was built without LLVM",
        );
    }
    build(&work, text, &["--backend", "llvm", "--target", "riscv64"]).success();
}
