//! Tests of the harness itself: it must detect wrong expectations.

use faas_wasm_tests::Backend;

use crate::judge::{self, Variant, Verdict};
use crate::script;

/// The outcomes of a script's directives, by line.
fn verdicts(script: &str) -> Vec<(usize, Verdict)> {
    let variant = Variant {
        backend: Backend::Cranelift,
        cpu: None,
    };
    let items = script::parse(script).expect("it is a script");
    let mut verdicts: Vec<_> = items
        .iter()
        .flat_map(|item| judge::judge(&variant, item))
        .collect();
    verdicts.sort_by_key(|(line, _)| *line);
    verdicts
}

/// Asserts that exactly the directives with the comment `;; wrong` fail.
#[track_caller]
fn check(script: &str) {
    for (line, verdict) in verdicts(script) {
        let text = script
            .lines()
            .nth(line - 1)
            .expect("the script has this line");
        let is_wrong = text.trim_end().ends_with(";; wrong");
        match verdict {
            Verdict::Passed => assert!(!is_wrong, "passes: {text}"),
            Verdict::Failed(reason) => assert!(is_wrong, "fails with {reason}: {text}"),
            other => panic!("{other:?}: {text}"),
        }
    }
}

#[test]
fn wrong_results_are_detected() {
    check(
        r#"(module
  (global $count (mut i32) (i32.const 0))
  (func (export "next") (result i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (global.get $count))
  (func (export "pair") (result i32 i64) (i32.const 1) (i64.const 2))
  (func (export "nan32") (param i32) (result f32) (f32.reinterpret_i32 (local.get 0)))
  (func (export "nan64") (param i64) (result f64) (f64.reinterpret_i64 (local.get 0)))
  (func (export "vector") (result v128) (v128.const i32x4 1 2 0x7fc00001 4))
  (func (export "null") (param funcref) (result i32) (ref.is_null (local.get 0)))
  (func $self (export "self") (result funcref) (ref.func $self))
  (func (export "stops") (param i32) (if (local.get 0) (then unreachable)))
  (global (export "constant") i64 (i64.const -3))
)
(assert_return (invoke "next") (i32.const 1))
(invoke "next")
(assert_return (invoke "next") (i32.const 3))
(assert_return (invoke "next") (i32.const 3)) ;; wrong
(assert_return (invoke "next") (i32.const 5))
(assert_return (invoke "pair") (i32.const 1) (i64.const 2))
(assert_return (invoke "pair") (i32.const 1) (i64.const 3)) ;; wrong
(assert_return (invoke "pair") (i32.const 1)) ;; wrong
(assert_return (invoke "nan32" (i32.const 0x7fc00000)) (f32.const nan:canonical))
(assert_return (invoke "nan32" (i32.const 0x7fc00001)) (f32.const nan:canonical)) ;; wrong
(assert_return (invoke "nan32" (i32.const 0x7fc00001)) (f32.const nan:arithmetic))
(assert_return (invoke "nan32" (i32.const 0x7fa00001)) (f32.const nan:arithmetic)) ;; wrong
(assert_return (invoke "nan32" (i32.const 0x7fa00001)) (f32.const nan:0x200001))
(assert_return (invoke "nan32" (i32.const 0x80000000)) (f32.const 0)) ;; wrong
(assert_return (invoke "nan64" (i64.const 0xfff8000000000000)) (f64.const nan:canonical))
(assert_return (invoke "nan64" (i64.const 0x7ff4000000000000)) (f64.const nan:arithmetic)) ;; wrong
(assert_return (invoke "vector") (v128.const i8x16 1 0 0 0 2 0 0 0 1 0 0xc0 0x7f 4 0 0 0))
(assert_return (invoke "vector") (v128.const i64x2 0x0000000200000001 0x000000047fc00000)) ;; wrong
(assert_return (invoke "vector") (v128.const f32x4 0x1p-149 0x2p-149 nan:arithmetic 0x4p-149))
(assert_return (invoke "vector") (v128.const f32x4 0x1p-149 0x2p-149 nan:canonical 0x4p-149)) ;; wrong
(assert_return (invoke "vector") (either (v128.const i32x4 0 0 0 0) (v128.const i32x4 1 2 0x7fc00001 4)))
(assert_return (invoke "vector") (either (v128.const i32x4 0 0 0 0) (v128.const i32x4 1 2 3 4))) ;; wrong
(assert_return (invoke "null" (ref.null func)) (i32.const 1))
(assert_return (invoke "self") (ref.func))
(assert_return (invoke "self") (ref.null func)) ;; wrong
(assert_return (invoke "stops" (i32.const 0)))
(assert_return (invoke "stops" (i32.const 1))) ;; wrong
(assert_return (get "constant") (i64.const -3))
(assert_return (get "constant") (i64.const 3)) ;; wrong
(assert_return (invoke "next") (i32.const 6))
"#,
    );
}

#[test]
fn wrong_and_missing_traps_are_detected() {
    check(
        r#"(module
  (memory 1)
  (table 2 funcref)
  (tag $thrown)
  (global $count (mut i32) (i32.const 0))
  (func (export "add") (global.set $count (i32.add (global.get $count) (i32.const 1))))
  (func (export "stop-at") (param i32) (if (i32.eq (local.get 0) (global.get $count)) (then unreachable)))
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func (export "call") (param i32) (call_indirect (local.get 0)))
  (func $deep (export "deep") (param i64) (result i64) (i64.add (i64.const 1) (call $deep (local.get 0))))
  (func (export "throw") (param i32) (if (local.get 0) (then (throw $thrown))))
)
(assert_trap (invoke "load" (i32.const 65533)) "out of bounds memory access")
(assert_trap (invoke "load" (i32.const 65532)) "out of bounds memory access") ;; wrong
(assert_trap (invoke "load" (i32.const 65533)) "out of bounds table access") ;; wrong
(assert_trap (invoke "divide" (i32.const 1) (i32.const 0)) "integer divide by zero")
(assert_trap (invoke "divide" (i32.const 1) (i32.const 0)) "integer overflow") ;; wrong
(assert_trap (invoke "divide" (i32.const 0x80000000) (i32.const -1)) "integer overflow")
(assert_trap (invoke "call" (i32.const 1)) "uninitialized element")
(assert_trap (invoke "call" (i32.const 2)) "undefined element")
(assert_trap (invoke "call" (i32.const 2)) "a trap that does not exist") ;; wrong
(invoke "add")
(assert_trap (invoke "stop-at" (i32.const 1)) "unreachable")
(invoke "add")
(assert_trap (invoke "stop-at" (i32.const 1)) "unreachable") ;; wrong
(assert_trap (invoke "stop-at" (i32.const 2)) "unreachable")
(assert_return (invoke "load" (i32.const 65533)) (i32.const 0)) ;; wrong
(assert_trap (invoke "stop-at" (i32.const 2)) "unreachable")
(assert_exhaustion (invoke "deep" (i64.const 1)) "call stack exhausted")
(assert_exhaustion (invoke "load" (i32.const 0)) "call stack exhausted") ;; wrong
(assert_exhaustion (invoke "load" (i32.const -1)) "call stack exhausted") ;; wrong
(assert_exception (invoke "throw" (i32.const 1)))
(assert_exception (invoke "throw" (i32.const 0))) ;; wrong
(assert_trap (module (func $start unreachable) (start $start)) "unreachable")
(assert_trap (module (func $start) (start $start)) "unreachable") ;; wrong
(assert_trap (module (memory 1) (data (i32.const 65536) "a")) "out of bounds memory access")
(assert_trap (module (memory 1) (data (i32.const 65535) "a")) "out of bounds memory access") ;; wrong
"#,
    );
}

#[test]
fn valid_modules_are_not_counted_as_rejected() {
    check(
        r#"(module (func (result i32) (i32.const 1)))
(module binary "\00asm" "\01\00\00\00")
(module quote "(func)")
(assert_invalid (module (func (result i32))) "type mismatch")
(assert_invalid (module (func (result i32) (i32.const 1))) "type mismatch") ;; wrong
(assert_malformed (module binary "\00asm\02\00\00\00") "unknown binary version")
(assert_malformed (module binary "\00asm\01\00\00\00") "unknown binary version") ;; wrong
(assert_malformed (module quote "(func (i32.const))") "unexpected token")
(assert_malformed (module quote "(func (drop (i32.const 0)))") "unexpected token") ;; wrong
"#,
    );
}

#[test]
fn importing_modules_share_state() {
    check(
        r#"(module $owner
  (memory (export "memory") 1 5)
  (table (export "table") 2 funcref)
  (global $count (export "count") (mut i32) (i32.const 7))
  (global (export "base") i32 (i32.const 16))
  (func (export "count-now") (result i32) (global.get $count))
  (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "call") (param i32) (result i32) (call_indirect (result i32) (local.get 0)))
)
(register "owner" $owner)
(assert_return (invoke "load" (i32.const 17)) (i32.const 0))
(assert_trap (invoke "call" (i32.const 1)) "uninitialized element")
(module $user
  (import "owner" "memory" (memory 1))
  (import "owner" "table" (table 2 funcref))
  (import "owner" "count" (global $count (mut i32)))
  (import "owner" "base" (global $base i32))
  (import "spectest" "global_i32" (global $other i32))
  (import "spectest" "print_i32" (func $print (param i32)))
  (global $copy i32 (global.get $other))
  (data (i32.add (global.get $base) (i32.const 1)) "a")
  (elem (i32.const 1) $five)
  (func $five (result i32) (i32.const 5))
  (func $start (global.set $count (i32.const 8)))
  (func (export "copy") (result i32) (call $print (i32.const 1)) (global.get $copy))
  (start $start)
)
(assert_return (invoke "copy") (i32.const 666))
(assert_return (invoke $owner "load" (i32.const 17)) (i32.const 97))
(assert_return (invoke $owner "load" (i32.const 16)) (i32.const 97)) ;; wrong
(assert_return (invoke $owner "call" (i32.const 1)) (i32.const 5))
(assert_return (invoke $owner "count-now") (i32.const 8))
(assert_return (get $owner "count") (i32.const 7)) ;; wrong
(assert_trap (module (import "owner" "memory" (memory 1)) (data (i32.const 1) "b") (data (i32.const -1) "c") (data (i32.const 2) "d")) "out of bounds memory access")
(assert_return (invoke $owner "load" (i32.const 1)) (i32.const 98))
(assert_return (invoke $owner "load" (i32.const 2)) (i32.const 0))
"#,
    );
}

#[test]
fn directives_that_cannot_be_judged_are_skipped() {
    let verdicts = verdicts(
        r#"(module
  (table $table 1 externref)
  (func (export "set") (param externref) (table.set $table (i32.const 0) (local.get 0)))
  (func (export "is-null") (result i32) (ref.is_null (table.get $table (i32.const 0))))
)
(assert_return (invoke "is-null") (i32.const 1))
(assert_return (invoke "set" (ref.extern 1)))
(assert_return (invoke "is-null") (i32.const 0))
(module (memory i64 1))
"#,
    );
    let is_skipped = |verdict: &Verdict| matches!(verdict, Verdict::Skipped(_));
    assert_eq!(verdicts[0], (1, Verdict::Passed));
    assert_eq!(verdicts[1], (6, Verdict::Passed));
    assert!(
        is_skipped(&verdicts[2].1) && is_skipped(&verdicts[3].1),
        "{verdicts:?}"
    );
    assert_eq!(
        verdicts[4].1,
        Verdict::Refused("64-bit memory (memory64)".into())
    );
}
