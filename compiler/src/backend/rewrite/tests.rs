use wasmparser::{Parser, Payload};

use super::flow::{Flow, Types};
use super::loads::unobserved;

const NONE: [u32; 0] = [];

/// A module's only types: functions without parameters and results, but for the one that is tested.
struct NoTypes;

impl Types for NoTypes {
    fn arity(&self, _: u32) -> (u32, u32) {
        (0, 0)
    }

    fn function(&self, _: u32) -> u32 {
        0
    }

    fn tag(&self, _: u32) -> u32 {
        0
    }
}

/// The loads of a body that could be lost, by their places among its operators. It has parameters `$p`, `$q` and `$n`,
/// locals `$x`, `$y` and `$f`, and a function `$call` to call.
fn lost(body: &str) -> Vec<u32> {
    let text = format!(
        "(module (memory 1) (global $g (mut i32) (i32.const 0)) (tag $tag) (func $call)
            (func (param $p i32) (param $q i32) (param $n i32) (local $x i32) (local $y i32) (local $f f64) {body}))"
    );
    let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
    wasmparser::Validator::new()
        .validate_all(&wasm)
        .unwrap_or_else(|error| panic!("{error}: {body}"));
    let bodies: Vec<_> = Parser::new(0)
        .parse_all(&wasm)
        .filter_map(|payload| match payload.expect("it is valid") {
            Payload::CodeSectionEntry(body) => Some(body.range()),
            _ => None,
        })
        .collect();
    let body = &wasm[bodies[1].start as usize..bodies[1].end as usize];
    let flow = Flow::read(body, (3, 0), &NoTypes).expect("it is valid");
    unobserved(&flow)
}

#[test]
fn loads_with_an_effect_are_let_be() {
    for body in [
        // What uses a value at once.
        "(i32.store (local.get $p) (i32.load (local.get $q)))",
        "(i32.store8 (local.get $p) (i32.load8_u (local.get $q)))",
        "(global.set $g (i32.load (local.get $q)))",
        "(drop (memory.grow (i32.load (local.get $q))))",
        "(i32.store (i32.load (local.get $p)) (i32.const 0))",
        // By way of locals, a copy over another and an address.
        "(local.set $x (i32.load (local.get $p))) (call $call) (global.set $g (local.get $x))",
        "(local.set $x (i32.load (local.get $p)))
         (block (br_if 0 (i32.lt_s (local.get $x) (i32.const 0))) (global.set $g (i32.const 1)))",
        // Needed on both ways.
        "(local.set $x (i32.load (local.get $p)))
         (if (local.get $n) (then (global.set $g (local.get $x)))
            (else (i32.store (local.get $q) (local.get $x))))",
        // Needed on one way, behind a store that it cannot move over.
        "(local.set $x (i32.load (local.get $p))) (i32.store (local.get $q) (i32.const 1))
         (if (local.get $n) (then (global.set $g (local.get $x))))",
        // A sum over a loop that is needed behind it.
        "(loop (local.set $f (f64.add (local.get $f) (f64.mul (f64.load (local.get $p)) (f64.load (local.get $q)))))
            (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
         (f64.store (local.get $p) (local.get $f))",
        // A list's next element.
        "(loop (global.set $g (i32.load offset=4 (local.get $p)))
            (br_if 0 (local.tee $p (i32.load (local.get $p)))))",
        // The larger of two.
        "(local.set $x (i32.load (local.get $p)))
         (global.set $g (select (local.get $x) (local.get $n) (i32.gt_s (local.get $x) (local.get $n))))",
        // Copies.
        "(loop (i32.store (local.get $q) (i32.load (local.get $p)))
            (local.set $p (i32.add (local.get $p) (i32.const 4)))
            (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))",
        "(i32.store (local.get $p) (i32.add (i32.load (local.get $p)) (i32.const 1)))",
        // All of a value, in pieces.
        "(i32.store8 (local.get $p) (local.tee $x (i32.load (local.get $q))))
         (i32.store8 offset=1 (local.get $p) (i32.shr_u (local.get $x) (i32.const 24)))",
        // More than half of a value, for which there is no shorter load.
        "(i64.store (local.get $p) (i64.shl (i64.load (local.get $q)) (i64.const 13)))
         (i32.store (local.get $p) (i32.shl (i32.load (local.get $q)) (i32.const 13)))",
        // What may throw ends in a handler that needs it.
        "(local.set $x (i32.load (local.get $p)))
         (block (try_table (catch_all 0) (call $call)) return) (global.set $g (local.get $x))",
        // Operators that cannot be reached.
        "return (drop (i32.load (i32.const 0)))",
    ] {
        assert_eq!(lost(body), NONE, "{body}");
    }
}

#[test]
fn loads_without_are_found() {
    for (body, expected) in [
        ("(drop (i32.load (local.get $p)))", &[1][..]),
        // The load of an address is kept by the load at it.
        ("(drop (i32.load (i32.load (local.get $p))))", &[2]),
        ("(local.set $x (i32.load (local.get $p)))", &[1]),
        // A later value is needed, not this one.
        (
            "(local.set $x (i32.load (local.get $p))) (local.set $x (i32.const 1)) (global.set $g (local.get $x))",
            &[1],
        ),
        (
            "(loop (local.set $x (i32.add (local.get $x) (i32.load (local.get $p))))
                (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))",
            &[3],
        ),
        (
            "(local.set $x (i32.load (local.get $p))) (loop (br 0))",
            &[1],
        ),
        (
            "(local.set $x (i32.load (local.get $p))) (if (local.get $n) (then (global.set $g (local.get $x))))",
            &[1],
        ),
        // What is behind the branch does not keep it.
        (
            "(local.set $x (i32.load (local.get $p))) (br_if 0 (local.get $n)) (global.set $g (local.get $x))",
            &[1],
        ),
        (
            "(global.set $g (select (i32.load (local.get $p)) (i32.load (local.get $q)) (local.get $n)))",
            // The access that is put before the second one keeps the first one where it is.
            &[3],
        ),
        ("(br_if 0 (i32.load (local.get $p)))", &[1]),
        (
            "(if (i32.load (local.get $p)) (then) (else (drop (i32.const 1))))",
            &[1],
        ),
        (
            "(i32.store8 (local.get $p) (i32.load (local.get $q)))",
            &[2],
        ),
        (
            "(global.set $g (i32.wrap_i64 (i64.load (local.get $p))))",
            &[1],
        ),
        ("(i32.store (local.get $p) (i32.load (local.get $p)))", &[2]),
        // The first of three loads: the others' values differ from what is there.
        (
            "(i32.store (local.get $p) (i32.load (local.get $p)))
             (i32.store (local.get $p) (i32.load offset=4 (local.get $p)))
             (i32.store offset=8 (local.get $p) (i32.load16_u offset=8 (local.get $p)))",
            &[2],
        ),
        // A value over a block.
        (
            "(i32.load (local.get $p)) (block (br_if 0 (local.get $n)) (call $call)) (global.set $g)",
            &[],
        ),
        (
            "(i32.load (local.get $p)) (block (br_if 1 (local.get $n)) (call $call)) (global.set $g)",
            &[1],
        ),
    ] {
        assert_eq!(lost(body), expected, "{body}");
    }
}

/// However deep labels are nested and however many locals there are, it ends soon, and finds rather more.
#[test]
fn large_functions_take_no_more_room_than_there_is() {
    let blocks =
        "(block (br_if 0 (local.get $n)) (global.set $g (i32.load (local.get $p))))".repeat(30_000);
    let locals = "(local i64) ".repeat(20_000);
    assert_eq!(lost(&format!("{locals} {blocks}")), NONE);
    let used = format!("{locals} {blocks} (global.set $g (local.get $x))");
    let before = "(local.set $x (i32.load (local.get $p)))";
    let count = lost(&format!(
        "{locals} {before} {blocks} (global.set $g (local.get $x))"
    ))
    .len();
    assert_eq!(count, 1, "without room, nothing is known of what follows");
    assert_eq!(lost(&used).len(), 0);
    let loops = format!(
        "{} (global.set $g (i32.load (local.get $p))) {}",
        "(loop ".repeat(500),
        ")".repeat(500)
    );
    assert_eq!(lost(&loops), NONE);
}
