//! `faas-wasm build --preinit`: every request starts from the state that the initializer left.

use std::path::{Path, PathBuf};

use faas_wasm_tests::{Backend, Outcome, RunnerCommand, Work, fixture, tool};

/// Builds the fixture with these options.
fn build(work: &Work, options: &[&str]) -> (Outcome, PathBuf) {
    build_module(work, &fixture("preinit"), Backend::Cranelift, options)
}

fn build_module(
    work: &Work,
    module: &Path,
    backend: Backend,
    options: &[&str],
) -> (Outcome, PathBuf) {
    let artifact = work.join("guest.so");
    let outcome = Outcome::of(
        tool()
            .args(["build", "--quiet", "--backend", backend.name(), "-o"])
            .args([artifact.as_path(), module])
            .args(options),
    );
    (outcome, artifact)
}

/// The output of one run of the artifact.
fn prints(artifact: &Path) -> String {
    Outcome::of(tool().arg("run").arg(artifact)).success()
}

#[test]
fn requests_start_from_the_initialized_state() {
    for backend in Backend::all() {
        let work = Work::new();
        let stdin = work.write("input", "hello");
        let stdin = stdin.display().to_string();
        let options = [
            "--preinit",
            "--preinit-stdin",
            &stdin,
            "--preinit-env",
            "MOOD=fine",
        ];
        let (outcome, artifact) = build_module(&work, &fixture("preinit"), backend, &options);
        outcome.success();
        let runner = RunnerCommand::new(&artifact.display().to_string()).start();
        for _ in 0..3 {
            let response = runner.get("/");
            assert_eq!(
                response.text(),
                "1 fine, hello the end 0.125\n",
                "{}",
                runner.log()
            );
        }
    }
}

#[test]
fn without_preinit_nothing_is_initialized() {
    let work = Work::new();
    let (outcome, artifact) = build(&work, &[]);
    outcome.success();
    assert_eq!(prints(&artifact), "0 not initialized 0.5\n");
}

#[test]
fn an_initializer_sees_nothing_of_the_host() {
    let work = Work::new();
    let artifact = work.join("guest.so");
    let mut command = tool();
    command
        .env("MOOD", "the host's")
        .args([
            "build",
            "--quiet",
            "--backend",
            "cranelift",
            "--preinit",
            "-o",
        ])
        .args([&artifact, &fixture("preinit")]);
    Outcome::with_input(&mut command, b"the host's").success();
    assert_eq!(prints(&artifact), "1 no mood,  the end 0.125\n");
}

#[test]
fn the_export_can_be_named() {
    let work = Work::new();
    let (outcome, artifact) = build(&work, &["--preinit=other"]);
    outcome.success();
    assert_eq!(prints(&artifact), "10 not initialized 0.5\n");
}

#[test]
fn same_input_gives_the_same_bytes() {
    let bytes = || {
        let work = Work::new();
        let (outcome, artifact) = build(&work, &["--preinit", "--preinit-env", "MOOD=fine"]);
        outcome.success();
        std::fs::read(artifact).expect("it can be read")
    };
    assert!(bytes() == bytes());
}

#[test]
fn initializer_effects_that_cannot_be_kept_are_rejected() {
    let work = Work::new();
    let host = work.path().display().to_string();
    work.write("kept", "");
    let root = format!("{host}::/");
    for (options, parts) in [
        (
            &["--preinit=missing"][..],
            &["no function `missing`", "hint: "][..],
        ),
        (
            &["--preinit=with-result"],
            &["`with-result` takes arguments or gives results"],
        ),
        (
            &["--preinit", "--preinit-env", "MOOD=trap"],
            &["the initializer failed"],
        ),
        (
            &["--preinit", "--preinit-env", "MOOD=exit"],
            &["ended the program instead of returning", "hint: "],
        ),
        (
            &[
                "--preinit",
                "--preinit-env",
                "MOOD=file",
                "--preinit-dir",
                &root,
            ],
            &["left descriptor 4 open", "hint: close"],
        ),
        (
            &["--preinit", "--preinit-stdin", "/no/such/file"],
            &["cannot use /no/such/file as standard input", "No such file"],
        ),
    ] {
        let (outcome, artifact) = build(&work, options);
        outcome.fails(1, parts);
        assert!(!artifact.exists(), "{options:?}");
    }
    build(&work, &["--preinit-env", "A=B"])
        .0
        .fails(2, &["--preinit"]);
}

/// Modules with state outside memory and globals, or with imported memory or globals.
#[test]
fn modules_with_unsupported_state_are_rejected() {
    for (text, part) in [
        (r#"(func (export "wizer.initialize"))"#, "0 memories"),
        (
            r#"(memory 1) (table 2 funcref)
               (func (export "wizer.initialize") (table.set (i32.const 0) (ref.null func)))"#,
            "function 0 changes a table",
        ),
        (
            r#"(memory 1) (global (mut externref) (ref.null extern)) (func (export "wizer.initialize"))"#,
            "global 0 is mutable and holds references",
        ),
        (
            r#"(memory 0) (func (export "wizer.initialize"))"#,
            "memory is empty",
        ),
        (
            r#"(import "env" "cuInit" (func (param i32) (result i32))) (memory 1)
               (func (export "wizer.initialize"))"#,
            "uses CUDA",
        ),
    ] {
        let work = Work::new();
        let wasm = wat::parse_str(format!(r#"(module {text} (func (export "_start")))"#));
        let module = work.write("module.wasm", wasm.expect("the text is correct"));
        let (outcome, _) = build_module(&work, &module, Backend::Cranelift, &["--preinit"]);
        outcome.fails(1, &["cannot be initialized ahead", part]);
    }
}

/// Cranelift compiles the initializer if it supports the module.
#[test]
fn features_without_cranelift_support_use_llvm() {
    if !Backend::llvm_or_skip("features_without_cranelift_support_use_llvm") {
        return;
    }
    let wasm = wat::parse_str(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\04\00\00\00") (data (i32.const 16) "cold")
            (func $warm (i32.store (i32.const 16) (i32.const 0x6d726177)))
            (func (export "wizer.initialize") return_call $warm)
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#,
    );
    let work = Work::new();
    let module = work.write("module.wasm", wasm.expect("the text is correct"));
    let (outcome, artifact) = build_module(&work, &module, Backend::Llvm, &["--preinit"]);
    outcome.success();
    assert_eq!(prints(&artifact), "warm");
    let (outcome, _) = build_module(&work, &module, Backend::Cranelift, &["--preinit"]);
    outcome.fails(1, &["uses tail calls", "hint: ", "--backend llvm"]);
}

/// Covers globals of every kind, segments of every kind, a start function, memory growth, and an entry that replaces
/// the default one.
#[test]
fn all_state_is_kept() {
    let wasm = wat::parse_str(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1 20)
            (table 1 funcref)
            (elem (i32.const 0) $check)
            (data (i32.const 1000) "active")
            (data $passive "passive")
            (global $a (mut i32) (i32.const 1))
            (global $b (mut i64) (i64.const 2))
            (global $c (mut f32) (f32.const 3))
            (global $d (mut f64) (f64.const 4))
            (global $e (mut v128) (v128.const i64x2 5 6))
            (global $constant i32 (i32.const 7))
            (func $begin (i32.store (i32.const 0) (i32.const 77)))
            (start $begin)
            (func $require (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
            (func (export "wizer.initialize")
                ;; The start function has run, once.
                (call $require (i32.eq (i32.load (i32.const 0)) (i32.const 77)))
                (i32.store (i32.const 0) (i32.const 78))
                (i64.store (i32.const 24) (i64.const -1))
                (global.set $a (i32.const -11))
                (global.set $b (i64.const -12))
                (global.set $c (f32.const -0.0))
                (global.set $d (f64.const nan:0x8000000000001))
                (global.set $e (v128.const i64x2 -15 16))
                (call $require (i32.eq (memory.grow (i32.const 3)) (i32.const 1)))
                (memory.init $passive (i32.const 262137) (i32.const 0) (i32.const 7)))
            (func $check
                (call $require (i32.eq (i32.load (i32.const 0)) (i32.const 78)))
                (call $require (i64.eq (i64.load (i32.const 24)) (i64.const -1)))
                (call $require (i32.eq (i32.load8_u (i32.const 1000)) (i32.const 97)))
                (call $require (i32.eq (i32.load8_u (i32.const 262143)) (i32.const 101)))
                (call $require (i32.eq (memory.size) (i32.const 4)))
                (call $require (i32.eq (global.get $a) (i32.const -11)))
                (call $require (i64.eq (global.get $b) (i64.const -12)))
                (call $require (i32.eq (i32.reinterpret_f32 (global.get $c)) (i32.const 0x80000000)))
                (call $require (i64.eq (i64.reinterpret_f64 (global.get $d)) (i64.const 0x7ff8000000000001)))
                (call $require (i64.eq (i64x2.extract_lane 0 (global.get $e)) (i64.const -15)))
                (call $require (i64.eq (i64x2.extract_lane 1 (global.get $e)) (i64.const 16)))
                (call $require (i32.eq (global.get $constant) (i32.const 7)))
                ;; Passive segments keep their numbers.
                (memory.init $passive (i32.const 500) (i32.const 0) (i32.const 7))
                (call $require (i32.eq (i32.load8_u (i32.const 500)) (i32.const 112)))
                (i32.store (i32.const 600) (i32.const 500))
                (i32.store (i32.const 604) (i32.const 7))
                (drop (call $write (i32.const 1) (i32.const 600) (i32.const 1) (i32.const 608))))
            (func (export "_start") unreachable)
            (func (export "wizer.resume") (call_indirect (i32.const 0))))"#,
    );
    for backend in Backend::all() {
        let work = Work::new();
        let module = work.write("module.wasm", wasm.as_ref().expect("the text is correct"));
        let (outcome, artifact) = build_module(&work, &module, backend, &["--preinit"]);
        outcome.success();
        assert_eq!(prints(&artifact), "passive", "{backend:?}");
    }
}
