//! Measurements without a rival: threads, many instances, deadlines. Each runs in a separate process that is not
//! pinned to one core.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use faas_wasm_engine::{Interruption, RunOutcome};
use rustix::time::{ClockId, clock_gettime};

use crate::ours::{Loop, link};
use crate::{EXPERIMENT_FLAG, Inputs, measure};

/// Names of the experiments.
pub(crate) const NAMES: [&str; 3] = ["threads", "many", "deadlines"];

/// Number of instances that live at once.
const MANY: usize = 10_000;
/// Number of runs that are stopped at their deadline.
const STOPPED: usize = 10_000;
/// Time limit of these runs.
const SOON: Duration = Duration::from_millis(1);
/// Duration of one measurement, and number of measurements. The best one counts, because it was disturbed least.
const SPELL: Duration = Duration::from_millis(400);
const SPELLS: usize = 5;

/// A measured value.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) name: String,
    pub(crate) value: f64,
}

fn finding(name: &str, value: f64) -> Finding {
    Finding {
        name: name.to_owned(),
        value,
    }
}

/// Runs an experiment in a child process.
pub(crate) fn in_child(name: &str, inputs: &Path) -> Vec<Finding> {
    let lines = measure::child(EXPERIMENT_FLAG, name, inputs);
    let found = |line: &String| {
        let (name, value) = line.split_once('\t').expect("a tab is between them");
        finding(name, value.parse().expect("it is a number"))
    };
    lines.iter().map(found).collect()
}

/// Runs an experiment and prints its findings.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
pub(crate) fn make(name: &str, inputs: &Inputs) {
    let found = match name {
        "threads" => threads(inputs),
        "many" => many(inputs),
        _ => deadlines(inputs),
    };
    for Finding { name, value } in found {
        println!("{name}\t{value}");
    }
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The rate of instances made, called and dropped per second by this many threads, and the CPU time of one in
/// nanoseconds.
fn rate(threads: usize, artifact: &Path) -> (f64, f64) {
    let linked = link(artifact);
    let (begin, over) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let work = || {
        // A separate input per thread, because each run changes the input's reference count.
        let nothing: Arc<[u8]> = Arc::from([]);
        let mut runs = Loop::new(&linked);
        runs.run(&nothing);
        begin.wait();
        let (start, before) = (Instant::now(), cpu_time());
        let mut count = 0u32;
        while !over.load(Relaxed) {
            let (_, _, ending) = runs.run(&nothing);
            assert_eq!(ending, RunOutcome::Returned);
            count += 1;
        }
        let (count, cpu) = (f64::from(count), cpu_time() - before);
        (
            count / start.elapsed().as_secs_f64(),
            cpu.as_nanos() as f64 / count,
        )
    };
    let rates: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        begin.wait();
        std::thread::sleep(SPELL);
        over.store(true, Relaxed);
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|rates| rates.expect("it does not panic"))
            .collect()
    });
    let all = rates.iter().map(|(rate, _)| rate).sum();
    let cost = rates.iter().map(|(_, cost)| cost).sum::<f64>() / threads as f64;
    (all, cost)
}

fn threads(inputs: &Inputs) -> Vec<Finding> {
    let artifact = inputs.file("hello.so");
    // Alternate, so that a disturbance affects both.
    let mut best = [(0.0f64, f64::INFINITY); 2];
    for _ in 0..SPELLS {
        for (index, best) in best.iter_mut().enumerate() {
            let (rate, cost) = rate(index + 1, &artifact);
            *best = (best.0.max(rate), best.1.min(cost));
        }
    }
    let [(one, cost_of_one), (two, cost_of_two)] = best;
    vec![
        finding("hello on one thread, a second", one),
        finding("hello on two threads, a second", two),
        finding("CPU time of hello on one thread, ns", cost_of_one),
        finding("CPU time of hello on two threads, ns", cost_of_two),
    ]
}

/// Private memory that this process has written, in KiB: in total, and in linear memories.
fn private_dirty() -> (f64, f64) {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("there is /proc");
    let (mut all, mut memories) = (0.0, 0.0);
    let mut in_memory = false;
    for line in maps.lines() {
        if let Some(rest) = line.strip_prefix("Private_Dirty:") {
            let size = rest.trim().trim_end_matches(" kB").parse::<f64>();
            let size = size.expect("it is a number");
            all += size;
            memories += if in_memory { size } else { 0.0 };
        } else if line.contains('-') && line.contains(' ') && !line.contains(" kB") {
            in_memory = line.contains("faas-wasm-image");
        }
    }
    (all, memories)
}

/// Number of mappings of linear memories: their accessible part, and the inaccessible rest, which is larger than any
/// other mapping.
fn mappings() -> f64 {
    const REST: u64 = 1 << 30;
    let maps = std::fs::read_to_string("/proc/self/maps").expect("there is /proc");
    let of_memory = |line: &&str| {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let (start, end) = range.expect("each line begins with a range");
        let number = |hex| u64::from_str_radix(hex, 16).expect("it is a number");
        line.contains("faas-wasm-image") || number(end) - number(start) >= REST
    };
    maps.lines().filter(of_memory).count() as f64
}

fn many(inputs: &Inputs) -> Vec<Finding> {
    let linked = link(&inputs.file("hello.so"));
    let nothing: Arc<[u8]> = Arc::default();
    let limit = Duration::from_secs(30);
    let answers = |runs: &mut Loop| {
        let (_, ending) = runs.answer(&nothing, limit);
        assert_eq!(ending, RunOutcome::Returned);
        assert!(runs.has_written(b"hello, world\n"), "it does its work");
    };
    let mut all = Vec::with_capacity(MANY);
    let first = Loop::new(&linked);
    let (before, before_memories) = private_dirty();
    let mappings_before = mappings();
    let start = Instant::now();
    for _ in 0..MANY {
        let mut runs = Loop::new(&linked);
        answers(&mut runs);
        all.push(runs);
    }
    let made = start.elapsed();
    // First all have run and hold their written pages, then all are ready again, and then each serves one more run.
    let (used, used_memories) = private_dirty();
    let used_mappings = mappings();
    all.iter_mut().for_each(Loop::prepare);
    let idle_mappings = mappings();
    all.iter_mut().for_each(answers);
    let each = MANY as f64;
    drop(all);
    drop(first);
    let (dirty, in_memories) = (used - before, used_memories - before_memories);
    assert!(in_memories >= 4.0 * each, "each wrote a page at least");
    vec![
        finding("live instances", each),
        finding(
            "mappings of one that has run",
            (used_mappings - mappings_before) / each,
        ),
        finding(
            "mappings of one that waits",
            (idle_mappings - mappings_before) / each,
        ),
        finding(
            "private KiB of one in its linear memory",
            in_memories / each,
        ),
        finding(
            "private KiB of one beyond that",
            (dirty - in_memories) / each,
        ),
        finding("us to make and call one", made.as_secs_f64() * 1e6 / each),
    ]
}

fn deadlines(inputs: &Inputs) -> Vec<Finding> {
    let mut runs = Loop::new(&link(&inputs.file("spin.so")));
    let nothing: Arc<[u8]> = Arc::default();
    runs.prepare();
    let mut late: Vec<_> = (0..STOPPED)
        .map(|_| {
            let (start, ending) = runs.answer(&nothing, SOON);
            let late = start.elapsed().saturating_sub(SOON);
            let stopped = matches!(ending, RunOutcome::Interrupted(Interruption::Deadline, _));
            assert!(stopped, "{ending:?}");
            runs.prepare();
            late
        })
        .collect();
    late.sort_unstable();
    let at = |part: usize| late[(STOPPED - 1) * part / 1000].as_secs_f64() * 1e3;
    vec![
        finding("ms behind its deadline, median", at(500)),
        finding("ms behind its deadline, 99 of 100", at(990)),
        finding("ms behind its deadline, worst of 10,000", at(1000)),
    ]
}
