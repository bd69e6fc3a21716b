//! A chain of tail calls takes no stack, or the build refuses it.

use faas_wasm_tests::{Backend, Outcome, Work, tool};

/// More calls than any stack has room for.
const CALLS: u32 = 3_000_000;

/// Number of 64-bit parameters that fit into registers on x86-64, besides the engine's two.
const IN_REGISTERS: usize = 4;

/// Two functions with these numbers of parameters that call each other. `call` builds the call.
fn module(first: usize, second: usize, results: &str, call: fn(usize) -> String) -> String {
    let parameters = |count: usize| "i64 ".repeat(count);
    let result = results
        .split(' ')
        .map(|ty| format!("({ty}.const 7)"))
        .collect::<String>();
    let function = |number: usize, count: usize, other: usize| {
        let arguments = "(i64.const 1) ".repeat(other - 1);
        let next = 1 - number;
        // A return in the middle, so that the tail call is not the only exit.
        format!(
            "(type $t{number} (func (param {}) (result {results})))
             (func $f{number} (type $t{number})
                (if (i64.eqz (local.get 0)) (then (return {result})))
                (i64.sub (local.get 0) (i64.const 1)) {arguments} {})",
            parameters(count),
            call(next)
        )
    };
    let drops = "(drop)".repeat(results.split(' ').count());
    format!(
        "(module (memory 1) (table funcref (elem $f0 $f1)) {} {}
            (func (export \"_start\") (i64.const {CALLS}) {} (call $f0) {drops}))",
        function(0, first, second),
        function(1, second, first),
        "(i64.const 1) ".repeat(first - 1),
    )
}

fn direct(function: usize) -> String {
    format!("(return_call $f{function})")
}

fn indirect(function: usize) -> String {
    format!("(i32.const {function}) (return_call_indirect (type $t{function}))")
}

fn build(work: &Work, text: &str, arguments: &[&str]) -> Outcome {
    work.write("calls.wat", text);
    let mut build = tool();
    build.args(["build", "--quiet", "--no-cache", "--backend", "llvm"]);
    build.args(arguments).arg("calls.wat");
    Outcome::of(build.current_dir(work.path()))
}

fn run(work: &Work) -> Outcome {
    Outcome::of(tool().args(["run", "calls.so"]).current_dir(work.path()))
}

#[test]
fn tail_calls_take_no_stack_or_are_refused() {
    if !Backend::llvm_or_skip("tail_calls_take_no_stack_or_are_refused") {
        return;
    }
    let pairs = [
        (1, 1),
        (1, 4),
        (4, 1),
        (2, 3),
        (1, 5),
        (6, 1),
        (6, 6),
        (9, 9),
    ];
    for (first, second) in pairs {
        for results in ["i64", "f32 i64 i32"] {
            expect(first, second, results, direct, &[]);
        }
        expect(first, second, "i64", indirect, &[]);
    }
    for level in ["0", "1"] {
        for (first, second) in [(1, 4), (1, 5), (9, 9)] {
            expect(first, second, "i64 i64", direct, &["-O", level]);
        }
    }
}

#[track_caller]
fn expect(
    first: usize,
    second: usize,
    results: &str,
    call: fn(usize) -> String,
    arguments: &[&str],
) {
    // Three results of these types are returned in memory.
    let in_memory = results.split(' ').count() > 2;
    let fits = first == second || first.max(second) <= IN_REGISTERS && !in_memory;
    let work = Work::new();
    let built = build(&work, &module(first, second, results, call), arguments);
    let case = format!("{first} and {second}, {results}, {arguments:?}");
    // On aarch64, more parameters fit into registers.
    let is_x86 = cfg!(target_arch = "x86_64") && faas_wasm_tests::builds_for_this_machine();
    if fits || !is_x86 && built.code() == 0 {
        assert_eq!(built.code(), 0, "{case}: {}", built.stderr);
        let outcome = run(&work);
        assert_eq!(outcome.code(), 0, "{case}: {outcome:?}");
        return;
    }
    built.fails(
        1,
        &[
            "error: a tail call in function ",
            " of calls.wat would take stack on ",
            "  at offset 0x",
            ": func (param i64",
            " calls func (param i64",
            "hint: give both functions one type, or give the called one results that fit",
        ],
    );
    assert_eq!(work.names(), ["calls.wat"], "{case}");
}

#[test]
fn check_refuses_the_same_tail_calls() {
    if !Backend::llvm_or_skip("check_refuses_the_same_tail_calls") {
        return;
    }
    let work = Work::new();
    work.write("calls.wat", module(1, 9, "i64", direct));
    let mut check = tool();
    check.args(["check", "--backend", "llvm", "calls.wat"]);
    let outcome = Outcome::of(check.current_dir(work.path()));
    assert_eq!(outcome.code(), 1, "{outcome:?}");
    let refusal = "a tail call in function 0 (f0) of calls.wat would take stack on ";
    assert!(outcome.text().contains(refusal), "{}", outcome.text());
}

/// riscv64 has no jump that passes arguments on the stack, even between equal types. LLVM used to abort.
#[test]
fn riscv64_refuses_arguments_on_the_stack() {
    if !Backend::llvm_or_skip("riscv64_refuses_arguments_on_the_stack") {
        return;
    }
    let work = Work::new();
    let riscv64 = ["--target", "riscv64"];
    build(&work, &module(9, 9, "i64", direct), &riscv64).fails(
        1,
        &[
            "would take stack on riscv64",
            "hint: give the called one results that fit into registers and at most 6 parameters",
        ],
    );
    build(&work, &module(6, 2, "i64", direct), &riscv64).success();
}

/// Code after a tail call of an imported function is not reached.
#[test]
fn a_tail_call_of_an_imported_function_returns() {
    if !Backend::llvm_or_skip("a_tail_call_of_an_imported_function_returns") {
        return;
    }
    for memory in ["(memory (export \"memory\") 1)", ""] {
        let text = format!(
            r#"(module
                (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
                {memory}
                (func $f (result i32) (block (result i32) (return_call $yield)) drop unreachable)
                (func (export "_start") (if (call $f) (then unreachable))))"#
        );
        let work = Work::new();
        build(&work, &text, &[]).success();
        let outcome = run(&work);
        assert_eq!(outcome.code(), 0, "{memory}: {outcome:?}");
    }
}

#[test]
fn the_error_says_which_backend_builds_tail_calls() {
    if !Backend::llvm_or_skip("the_error_says_which_backend_builds_tail_calls") {
        return;
    }
    let work = Work::new();
    work.write("calls.wat", module(1, 1, "i64", direct));
    let mut build = tool();
    build.args(["build", "--quiet", "--backend", "cranelift", "calls.wat"]);
    Outcome::of(build.current_dir(work.path())).fails(
        1,
        &[
            "calls.wat uses tail calls, which the cranelift backend does not support",
            "hint: run `faas-wasm build --backend llvm calls.wat`",
        ],
    );
}
