//! Guests that do everything they should not. Each must end as specified, the log must name the place, and the next
//! request must find a fresh instance in the same replica.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use faas_wasm_tests::http::{Request, connect};
use faas_wasm_tests::{Backend, Guest, Outcome, Runner, Work, runner_program};
use rustix::process::Signal;

/// Stops guests that do not end by themselves.
const LIMIT: &str = "100ms";

/// The way a request ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Ok,
    /// A trap with this name, in this function.
    Trap(&'static str, &'static str),
    Deadline,
}
use End::{Deadline, Ok as Fine, Trap};

const MEMORY: &str = "out of bounds memory access";
const TABLE: &str = "out of bounds table access";
const STACK: &str = "call stack exhausted";

/// Indexed by the number that `guest.wat` gives each action.
const ENDS: [End; 41] = [
    Fine,
    Trap("unreachable instruction executed", "act"),
    Trap(MEMORY, "act"),
    Trap(MEMORY, "act"),
    Trap(MEMORY, "act"),
    Trap("integer divide by zero", "act"),
    Trap("integer divide by zero", "act"),
    Trap("integer overflow", "act"),
    Trap("invalid conversion to integer", "act"),
    Trap("uninitialized element called", "act"),
    Trap("indirect call type mismatch", "act"),
    Trap(TABLE, "act"),
    Trap("indirect call type mismatch", "act"),
    Trap(TABLE, "act"),
    Trap(TABLE, "act"),
    Trap(TABLE, "act"),
    Trap(TABLE, "act"),
    Trap(TABLE, "act"),
    Trap(TABLE, "act"),
    Trap(MEMORY, "act"),
    Trap(MEMORY, "act"),
    Trap(MEMORY, "act"),
    Trap(MEMORY, "act"),
    Trap(MEMORY, "act"),
    Trap(STACK, "descend"),
    Trap(STACK, "again"),
    Trap(STACK, "calling"),
    Trap(STACK, "throwing"),
    Trap("uncaught exception", "throw"),
    Trap("null exception reference", "act"),
    Fine,
    Fine,
    Deadline,
    Deadline,
    Deadline,
    Deadline,
    Deadline,
    Deadline,
    Deadline,
    Deadline,
    Fine,
];
/// The actions that use tail calls, which Cranelift does not support here.
const TAIL_CALLS: [usize; 2] = [32, 33];

/// Compiles a module from text.
fn compiled(text: &str, backend: Backend) -> Guest {
    let module = wat::parse_str(text).expect("it is WebAssembly text");
    Guest::compiled(&Work::new().write("guest.wasm", module), backend)
}

fn guest(backend: Backend) -> Guest {
    let text = include_str!("guest.wat");
    match backend {
        Backend::Llvm => compiled(text, backend),
        // Replaces tail calls with plain calls; the tests skip those actions.
        Backend::Cranelift => compiled(&text.replace("return_call", "call"), backend),
    }
}

fn serve(guest: &Guest) -> Runner {
    let command = guest
        .serve()
        .env("max_scale", "1")
        .env("wasm_memory_limit", "260Mi");
    command.start()
}

/// Runs the guest once without a server, so that the report is complete.
fn run(guest: &Guest, what: usize) -> Outcome {
    let mut command = Command::new(runner_program());
    command.args(["--one-shot", "--"]).arg(guest.artifact());
    Outcome::with_input(&mut command, format!("{what:02}").as_bytes())
}

fn ask(runner: &Runner, what: usize) -> (u16, String) {
    let request = Request::post("/", format!("{what:02}"));
    let ends = ENDS.get(what).copied();
    let response = runner.send(&match ends {
        Some(Deadline) => request.header("X-Timeout", LIMIT),
        _ => request,
    });
    (response.status, response.text())
}

#[test]
fn hostile_actions_end_only_their_own_run() {
    for backend in Backend::all() {
        let guest = guest(backend);
        let runner = serve(&guest);
        for (what, end) in ENDS.iter().enumerate() {
            if backend == Backend::Cranelift && TAIL_CALLS.contains(&what) {
                continue;
            }
            let (status, text) = match end {
                Fine => (200, "ok\n"),
                Trap(..) => (500, "the function failed\n"),
                Deadline => (504, "the function timed out\n"),
            };
            let found = ask(&runner, what);
            let where_ = format!("{backend:?}, {what}");
            assert_eq!(found, (status, text.into()), "{where_}\n{}", runner.log());
            // The guest reports any trace of an earlier request.
            let found = ask(&runner, 0);
            assert_eq!(
                found,
                (200, "ok\n".into()),
                "after {where_}\n{}",
                runner.log()
            );
        }
        assert_eq!(
            runner.metric("wasm_replicas"),
            Some(1.0),
            "the same replica"
        );
        runner.stop();
    }
}

/// Each trap is named and has a backtrace, wherever it happened: in guest code, in a library call, or in a host call
/// at the end of the stack.
#[test]
fn every_trap_has_a_name_and_a_backtrace() {
    for backend in Backend::all() {
        let guest = guest(backend);
        for (what, end) in ENDS.iter().enumerate() {
            let Trap(name, function) = end else { continue };
            let report = run(&guest, what);
            let where_ = format!("{backend:?}, {what}: {}", report.stderr);
            assert_eq!(report.code(), 134, "{where_}");
            let mut lines = report.stderr.lines();
            let title = format!("wasm trap: {name}");
            assert_eq!(lines.next(), Some(title.as_str()), "{where_}");
            let frames: Vec<_> = lines.take(4).collect();
            assert!(
                frames
                    .iter()
                    .any(|frame| frame.contains(&format!(": {function}+0x"))),
                "{where_}"
            );
        }
    }
}

/// A stopped guest has a backtrace too, in guest code and in host calls.
#[test]
fn stopped_guests_have_a_backtrace() {
    for backend in Backend::all() {
        let guest = guest(backend);
        for what in [34, 36, 37, 38, 39] {
            let mut runner = serve(&guest);
            assert_eq!(ask(&runner, what).0, 504, "{}", runner.log());
            runner.wait_for_log("stopped at its time limit");
            runner.wait_for_log("act+0x");
        }
    }
}

/// The runner symbolizes at most one report per second, however many replicas fail.
#[test]
fn full_reports_are_rate_limited() {
    let guest = guest(Backend::Cranelift);
    let runner = guest.serve().env("min_scale", "4").env("max_scale", "4");
    let runner = runner.start();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(ask(&runner, 1).0, 500);
                }
            });
        }
    });
    let most = start.elapsed().as_secs() as usize + 2;
    let log = runner.stop();
    let titles = log.matches("wasm trap: unreachable").count();
    assert_eq!(titles, 100, "{log}");
    let reports = log.matches("   0: act+0x").count();
    assert!((1..=most).contains(&reports), "{reports}\n{log}");
}

/// A guest that traps, throws or overflows its stack after its client has left harms nothing else.
#[test]
fn guests_may_trap_after_their_client_has_left() {
    let runner = serve(&guest(Backend::Cranelift));
    for what in [4, 24, 26, 28].repeat(25) {
        let mut stream = connect(runner.address()).expect("it listens");
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n";
        write!(stream, "{head}{what:02}").expect("it reads");
    }
    runner.wait_for_metric("http_requests_in_flight", 0.0);
    assert_eq!(ask(&runner, 0), (200, "ok\n".into()));
    assert_eq!(
        runner.metric("wasm_replicas"),
        Some(1.0),
        "the same replica"
    );
    runner.stop();
}

/// Frames larger than the red zone and the guard page together must not skip over them.
#[test]
fn frames_larger_than_the_guard_area_stay_on_the_stack() {
    for backend in Backend::all() {
        // Each call has 16 KB of results on the stack, and there are six calls.
        let vectors = |what: &str| what.repeat(1000);
        let (types, values, drops) = (
            vectors("v128 "),
            vectors("(v128.load (i32.const 0))"),
            vectors("drop "),
        );
        let calls = format!("(call $g) {drops}").repeat(3);
        let text = format!(
            "(module (memory (export \"memory\") 1)
               (type $t (func (result {types})))
               (func $g (type $t) {values})
               (func $f (param $n i32) {calls} (call $f (i32.add (local.get $n) (i32.const 1))) {calls})
               (func (export \"_start\") (call $f (i32.const 0))))"
        );
        let guest = compiled(&text, backend);
        let report = run(&guest, 0);
        assert_eq!(report.code(), 134, "{backend:?}: {}", report.stderr);
        assert!(
            report.stderr.contains(STACK),
            "{backend:?}: {}",
            report.stderr
        );
    }
}

#[test]
fn start_functions_can_trap_and_be_stopped() {
    for backend in Backend::all() {
        for (body, status) in [("unreachable", 500), ("(loop $l (br $l))", 504)] {
            let text = format!(
                "(module (func $s {body}) (start $s) (func (export \"_start\")) (memory (export \"memory\") 1))"
            );
            let guest = compiled(&text, backend);
            let runner = serve(&guest);
            let request = Request::get("/").header("X-Timeout", LIMIT);
            for _ in 0..3 {
                assert_eq!(runner.send(&request).status, status, "{}", runner.log());
            }
        }
    }
}

/// `wasm_memory_limit` applies to all memories of an instance together.
#[test]
fn several_memories_share_their_limit() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory $a (export "memory") 1) (memory $b 1)
        (func (export "_start")
          (loop $more (br_if $more (i32.ne (memory.grow $a (i32.const 1)) (i32.const -1))))
          (loop $more (br_if $more (i32.ne (memory.grow $b (i32.const 1)) (i32.const -1))))
          (call $exit (i32.add (memory.size $a) (memory.size $b)))))"#;
    let guest = compiled(text, Backend::Cranelift);
    let mut runner = guest.serve().env("wasm_memory_limit", "2Mi").start();
    for _ in 0..2 {
        assert_eq!(runner.get("/").status, 500);
    }
    runner.wait_for_log("exit status 32");
    runner.wait_for_metric("wasm_limit_reached_total{limit=\"memory_limit\"}", 2.0);
    let outcome = guest.serve().env("wasm_memory_limit", "64Ki").run_to_end();
    outcome.fails(1, &["131072 bytes", "wasm_memory_limit"]);
}

/// `wasm_table_limit` applies to all tables together.
#[test]
fn several_tables_share_their_limit() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (table $a 1 funcref) (table $b 2 externref)
        (func (export "_start")
          (loop $more (br_if $more (i32.ne (table.grow $a (ref.null func) (i32.const 1)) (i32.const -1))))
          (loop $more (br_if $more (i32.ne (table.grow $b (ref.null extern) (i32.const 1)) (i32.const -1))))
          (call $exit (i32.add (table.size $a) (table.size $b)))))"#;
    let guest = compiled(text, Backend::Cranelift);
    let mut runner = guest.serve().env("wasm_table_limit", "40").start();
    for _ in 0..2 {
        assert_eq!(runner.get("/").status, 500);
    }
    runner.wait_for_log("exit status 40");
    runner.wait_for_metric("wasm_limit_reached_total{limit=\"table_limit\"}", 2.0);
    let outcome = guest.serve().env("wasm_table_limit", "2").run_to_end();
    outcome.fails(1, &["3 elements", "wasm_table_limit"]);
}

/// No other thread can end a wait, so only its timeout or the run's deadline can.
#[test]
fn waits_on_memory_end_at_their_timeout() {
    let module = |shared: &str, value: u32, timeout: i64| {
        let memory = if shared.is_empty() { "1" } else { "1 4 shared" };
        format!(
            r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") {memory})
            (func (export "_start")
              (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 3)))
              (drop (memory.atomic.notify (i32.const 0) (i32.const 1)))
              (call $exit (i32.add (i32.const 10)
                (memory.atomic.wait32 (i32.const 0) (i32.const {value}) (i64.const {timeout}))))))"#
        )
    };
    for backend in Backend::all() {
        for (shared, value, timeout, status, line) in [
            ("shared", 3, 1_000_000, 500, "exit status 12"),
            ("shared", 5, -1, 500, "exit status 11"),
            ("shared", 3, -1, 504, "stopped at its time limit"),
            (
                "",
                3,
                -1,
                500,
                "wasm trap: atomic wait on memory that is not shared",
            ),
        ] {
            let guest = compiled(&module(shared, value, timeout), backend);
            let mut runner = serve(&guest);
            let request = Request::get("/").header("X-Timeout", "1s");
            assert_eq!(runner.send(&request).status, status, "{backend:?} {line}");
            runner.wait_for_log(line);
            runner.stop();
        }
    }
}

/// Exceptions stay allocated until the run ends, so they must be limited.
#[test]
fn exceptions_count_toward_the_memory_limit() {
    let guest = guest(Backend::Cranelift);
    let command = guest.serve().env("wasm_memory_limit", "1Mi");
    let mut runner = command.start();
    assert_eq!(runner.post("/", "37").status, 500, "{}", runner.log());
    runner.wait_for_log("the host is out of memory");
    assert_eq!(ask(&runner, 0), (200, "ok\n".into()));
}

/// A fault signal from outside is not attributed to the guest, whether a guest runs or not.
#[test]
fn external_fault_signals_end_the_runner() {
    let guest = Guest::fixture("spin");
    for is_running in [false, true] {
        for signal in [Signal::SEGV, Signal::BUS, Signal::FPE, Signal::ILL] {
            let runner = guest.serve().env("exec_timeout", "60s").start();
            std::thread::scope(|scope| {
                if is_running {
                    let address = runner.address();
                    scope.spawn(move || Request::get("/").send(address));
                    runner.wait_for_metric("wasm_instances_running", 1.0);
                }
                runner.signal(signal);
            });
            let (status, log) = runner.wait();
            assert_eq!(
                status.signal(),
                Some(signal.as_raw()),
                "{is_running}\n{log}"
            );
        }
    }
}

/// The runner ignores the signal that stops guests if another process sends it, even in large numbers.
#[test]
fn external_stop_signals_are_ignored() {
    let guest = guest(Backend::Cranelift);
    let runner = serve(&guest);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let mut sent = 0;
            while !over.load(Relaxed) {
                runner.signal(Signal::USR2);
                sent += 1;
                std::thread::sleep(Duration::from_micros(50));
            }
            sent
        });
        for number in 0..400 {
            let (what, status) = [(0, 200), (31, 200), (2, 500), (24, 500)][number % 4];
            assert_eq!(ask(&runner, what).0, status, "{}", runner.log());
        }
        for _ in 0..3 {
            assert_eq!(ask(&runner, 34).0, 504, "{}", runner.log());
        }
        over.store(true, Relaxed);
        assert!(storm.join().expect("it does not panic") > 100);
    });
    runner.stop();
}
