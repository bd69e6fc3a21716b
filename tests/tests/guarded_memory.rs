//! The guard around the few pages that a function always writes (`runner/engine/src/guard.rs`): a run that
//! writes elsewhere, by whatever means, works, and leaves nothing to the next one.

use std::fs;
use std::time::{Duration, Instant};

use faas_wasm_tests::{Backend, Guest, Runner, Work};

/// Writes, by the means that the first input byte selects, to a page that it writes for no other reason. First checks
/// that the page is in its initial state.
const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 32)
  (data (i32.const 0x80000) "the pattern")
  (data (i32.const 0xc0000) "first")
  (data (i32.const 0x200) "file")
  (data $passive "of a segment")

  (func $require (param $condition i32)
    (if (i32.eqz (local.get $condition)) (then (unreachable))))
  (func $succeeds (param $errno i32)
    (call $require (i32.eqz (local.get $errno))))
  ;; Reads into 32 bytes there.
  (func $read (param $fd i32) (param $at i32)
    (i32.store (i32.const 0x100) (local.get $at))
    (i32.store (i32.const 0x104) (i32.const 32))
    (call $succeeds
      (call $fd_read (local.get $fd) (i32.const 0x100) (i32.const 1) (i32.const 0x108))))
  (func $act (param $what i32)
    (if (i32.eq (local.get $what) (i32.const 0x61)) (then ;; a
      (i64.store (i32.const 0xc0000) (i64.const -1))))
    (if (i32.eq (local.get $what) (i32.const 0x62)) (then ;; b
      (memory.fill (i32.const 0xc0000) (i32.const 1) (i32.const 8192))))
    (if (i32.eq (local.get $what) (i32.const 0x63)) (then ;; c
      (memory.copy (i32.const 0xc0000) (i32.const 0x80000) (i32.const 11))))
    (if (i32.eq (local.get $what) (i32.const 0x64)) (then ;; d
      (memory.init $passive (i32.const 0xc0000) (i32.const 0) (i32.const 12))))
    (if (i32.eq (local.get $what) (i32.const 0x65)) (then ;; e: the rest of the input
      (call $read (i32.const 0) (i32.const 0xc0000))))
    (if (i32.eq (local.get $what) (i32.const 0x66)) (then ;; f
      (call $succeeds (call $random_get (i32.const 0xc0000) (i32.const 16)))))
    (if (i32.eq (local.get $what) (i32.const 0x67)) (then ;; g: a file
      (call $succeeds (call $path_open (i32.const 3) (i32.const 0) (i32.const 0x200) (i32.const 4)
        (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0x110)))
      (call $read (i32.load (i32.const 0x110)) (i32.const 0xc0000))))
    (if (i32.eq (local.get $what) (i32.const 0x68)) (then ;; h
      (call $require (i32.eq (memory.grow (i32.const 1)) (i32.const 32)))
      (call $require (i64.eqz (i64.load (i32.const 0x200000))))
      (i64.store (i32.const 0x200000) (i64.const -1))
      (i64.store (i32.const 0xc0000) (i64.const -1))))
    (if (i32.eq (local.get $what) (i32.const 0x69)) (then ;; i
      (drop (i32.atomic.rmw.add (i32.const 0xc0000) (i32.const 1)))))
    (if (i32.eq (local.get $what) (i32.const 0x6a)) (then ;; j: across the end of what it always writes
      (i64.store (i32.const 0xffc) (i64.const -1))
      (i64.store (i32.const 0xc0000) (i64.const -1)))))
  (func $is_as_at_first (result i32)
    (i32.and
      (i64.eq (i64.load (i32.const 0xc0000)) (i64.const 0x7473726966)) ;; "first"
      (i64.eqz (i64.or (i64.load (i32.const 0xc0008)) (i64.load (i32.const 0x1000))))))
  (func (export "_start")
    (call $require (i32.eq (memory.size) (i32.const 32)))
    (call $require (call $is_as_at_first))
    (i32.store (i32.const 0x100) (i32.const 0x300))
    (i32.store (i32.const 0x104) (i32.const 1))
    (call $succeeds
      (call $fd_read (i32.const 0) (i32.const 0x100) (i32.const 1) (i32.const 0x108)))
    (call $act (i32.load8_u (i32.const 0x300)))
    (if (i32.ne (i32.load8_u (i32.const 0x300)) (i32.const 0x2d))
      (then (call $require (i32.eqz (call $is_as_at_first)))))
    (i32.store (i32.const 0x100) (i32.const 0x300))
    (i32.store (i32.const 0x104) (i32.const 1))
    (call $succeeds
      (call $fd_write (i32.const 1) (i32.const 0x100) (i32.const 1) (i32.const 0x108)))))"#;

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether part of the memory image is mapped read-only.
fn is_guarded(runner: &Runner) -> bool {
    let maps = fs::read_to_string(format!("/proc/{}/maps", runner.pid())).expect("it runs");
    let mut images = (maps.lines()).filter(|line| line.contains("faas-wasm-image"));
    images.any(|line| line.contains(" r--p "))
}

#[track_caller]
fn answers(runner: &Runner, input: &str) {
    let response = runner.post("/", input);
    assert_eq!(response.status, 200, "{}", runner.log());
    assert_eq!(response.text(), input[..1]);
}

fn writes_elsewhere(guest: &Guest, settings: &[(&str, &str)], what: &str) {
    let root = Work::new();
    root.write("file", "content of a file");
    let command = guest.serve().envs(settings).env("wasm_root", root.path());
    let runner = command.start();
    let start = Instant::now();
    while !is_guarded(&runner) {
        assert!(start.elapsed() < PATIENCE, "no guard");
        (0..10).for_each(|_| answers(&runner, "-"));
    }
    let input = format!("{what} and more");
    for _ in 0..3 {
        answers(&runner, &input);
        answers(&runner, "-");
    }
    runner.stop();
}

#[test]
fn runs_can_write_pages_that_no_run_wrote_before() {
    let work = Work::new();
    let module = wat::parse_str(GUEST).expect("it is WebAssembly text");
    let module = work.write("guest.wasm", module);
    for backend in Backend::all() {
        let guest = Guest::compiled(&module, backend);
        for what in 'a'..='j' {
            let what = what.to_string();
            // Test both places where a run can happen: a replica, and the I/O thread that read the request.
            writes_elsewhere(&guest, &[("wasm_output_hold_time", "0")], &what);
            writes_elsewhere(&guest, &[], &what);
        }
    }
}
