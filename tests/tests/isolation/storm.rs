//! A storm: short runs, each stopped by a deadline or by its end, in guest code, in library calls and in host calls,
//! while another thread sends signals as fast as it can. Afterwards the process must work as before.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use faas_wasm_engine::{
    Caller, Interruption, Limits, Linked, Linker, Replica, RunLimits, RunOutcome, Stop,
};
use faas_wasm_tests::{Backend, Guest, Work};
use rustix::process::{Signal, getpid, kill_process};

use crate::trusted;

const WASI: &str = "wasi_snapshot_preview1";
const RUNS: u32 = 100_000;

/// Runs as many rounds as the host returns (through imports that the tool knows). Each round exercises every
/// mechanism. The guest stores the remaining count in a global, which must be 0 at the start, in a memory, and in a
/// table that grows.
const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $rounds (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $wrong (param i32)))
  (memory (export "memory") 1 100)
  (table $table 2 1000 funcref)
  (global $left (mut i32) (i32.const 0))
  (func $count (param $n i32) (result i32)
    (if (result i32) (i32.eqz (local.get $n))
      (then (i32.const 0))
      (else (i32.add (i32.const 1) (call $count (i32.sub (local.get $n) (i32.const 1)))))))
  (elem declare func $count)
  (func (export "_start")
    (if (global.get $left) (then (call $wrong (i32.const 1))))
    (if (i32.load (i32.const 0x8000)) (then (call $wrong (i32.const 1))))
    (if (i32.ne (table.size $table) (i32.const 2)) (then (call $wrong (i32.const 1))))
    (global.set $left (call $rounds))
    (loop $more
      (i32.store (i32.const 0x8000) (global.get $left))
      (memory.fill (i32.const 0x1000) (global.get $left) (i32.const 0x2000))
      (if (i32.ne (call $count (i32.const 50)) (i32.const 50)) (then (call $wrong (i32.const 1))))
      (drop (call $rounds))
      (drop (table.grow $table (ref.func $count) (i32.const 1)))
      (global.set $left (i32.sub (global.get $left) (i32.const 1)))
      (br_if $more (global.get $left)))
    (global.set $left (i32.const -1))))"#;

/// The host's data for a run.
#[derive(Default)]
struct Run {
    rounds: u32,
    found_wrong: bool,
    /// Number of calls until one panics, if one is to.
    until_panic: Option<u32>,
}

fn rounds(caller: &mut Caller<'_, Run>) -> Result<u32, Stop> {
    let left = caller.data.until_panic.map(|calls| calls.checked_sub(1));
    caller.data.until_panic = left.map(|left| left.expect("a call that goes wrong"));
    Ok(caller.data.rounds)
}

fn wrong(caller: &mut Caller<'_, Run>, _: u32) -> Result<(), Stop> {
    caller.data.found_wrong = true;
    Ok(())
}

fn linked() -> Arc<Linked<Run>> {
    let module = wat::parse_str(GUEST).expect("it is WebAssembly text");
    let guest = Guest::compiled(&Work::new().write("guest.wasm", module), Backend::Cranelift);
    let mut linker = Linker::new();
    linker.function(WASI, "sched_yield", rounds);
    linker.function(WASI, "proc_exit", wrong);
    let linked = linker.link(trusted::load(guest.artifact()), Limits::default());
    linked.expect("it imports nothing else")
}

fn run(replica: &mut Replica<Run>, rounds: u32, time: Duration) -> RunOutcome {
    let run = Run {
        rounds,
        ..Run::default()
    };
    end_of(replica, run, time)
}

fn end_of(replica: &mut Replica<Run>, mut run: Run, time: Duration) -> RunOutcome {
    let limits = RunLimits {
        deadline: Some(Instant::now() + time),
        ..RunLimits::default()
    };
    let ending = replica.run(&mut run, limits);
    assert!(!run.found_wrong, "as for the first run");
    ending.expect("there is memory for an instance")
}

#[test]
fn a_storm_of_deadlines_and_signals_does_no_harm() {
    let mut replica = Replica::new(&linked()).expect("it can be made");
    let over = AtomicBool::new(false);
    let (mut returned, mut stopped) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                kill_process(getpid(), Signal::USR2).expect("it is this one");
                std::thread::sleep(Duration::from_micros(10));
            }
        });
        for number in 0..RUNS {
            // Every sixteenth run would take forever; the others end by themselves unless they are stopped.
            let rounds = if number % 16 == 0 {
                u32::MAX
            } else {
                number % 16
            };
            let time = Duration::from_micros(u64::from(number % 61));
            match run(&mut replica, rounds, time) {
                RunOutcome::Returned => returned += 1,
                RunOutcome::Interrupted(Interruption::Deadline, _) => stopped += 1,
                ending => panic!("run {number}: {ending:?}"),
            }
        }
        over.store(true, Relaxed);
    });
    assert!(stopped >= RUNS / 16, "{stopped} of {RUNS}");
    assert!(
        returned > 0,
        "some end by themselves, however slow the machine"
    );
    for _ in 0..10_000 {
        let ending = run(&mut replica, 1, Duration::from_secs(60));
        assert_eq!(ending, RunOutcome::Returned);
    }
}

/// A host call's panic is caught at the guest's call, wherever in its work the guest is.
#[test]
fn a_panicking_host_call_ends_only_its_run() {
    let mut replica = Replica::new(&linked()).expect("it can be made");
    for calls in (0..6).cycle().take(120) {
        let run = Run {
            rounds: 10,
            until_panic: Some(calls),
            ..Run::default()
        };
        let ending = end_of(&mut replica, run, Duration::from_secs(60));
        let RunOutcome::HostPanicked(message) = ending else {
            panic!("after {calls} calls: {ending:?}");
        };
        assert_eq!(message, "a call that goes wrong");
        let ending = self::run(&mut replica, 3, Duration::from_secs(60));
        assert_eq!(ending, RunOutcome::Returned, "after {calls} calls");
    }
}
