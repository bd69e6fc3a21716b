//! This project's side: the engine and WASI, used as the runner uses them.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use faas_wasm_engine::{Caller, Limits, Linked, Linker, Replica, RunLimits, RunOutcome, Stop};
use faas_wasm_tests::{Outcome, esbuild, fixture, tool};
use faas_wasm_wasi::{
    Access, InputStream, Namespace, OutputStream, Root, StreamError, WasiContext, add_to_linker,
};

use crate::measure::{Measurement, median, of_times, time};
use crate::trusted::load;
use crate::{FIXTURES, Inputs, WORKLOADS, Workload};

/// The runner gives every request a deadline.
const TIME_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn make_inputs(inputs: &Inputs) {
    for name in FIXTURES {
        build(&fixture(name), &inputs.file(&format!("{name}.so")));
    }
    let module = esbuild().expect("the Makefile gets esbuild's module");
    build(&module, &inputs.file("esbuild.so"));
}

/// Builds with Cranelift, which the rival uses too, so that code quality does not affect the comparison.
fn build(module: &Path, artifact: &Path) {
    Outcome::of(
        tool()
            .args(["build", "--quiet", "--backend", "cranelift", "-o"])
            .args([artifact, module]),
    )
    .success();
}

pub(crate) fn measure(inputs: &Inputs) -> Vec<Measurement> {
    let mut measurements = vec![
        median("load nop", 2000, || time(|| load(&inputs.file("nop.so")))),
        median("load esbuild", 2000, || {
            time(|| load(&inputs.file("esbuild.so")))
        }),
    ];
    for guest in &WORKLOADS {
        let artifact = inputs.file(&format!("{}.so", guest.fixture));
        measurements.extend(instances(guest, &artifact));
    }
    measurements.push(before_start_up(&inputs.file("esbuild.so")));
    measurements
}

/// A replica of an artifact, with the input and output of its runs.
pub(crate) struct Loop {
    replica: Replica<WasiContext>,
    namespace: Arc<Namespace>,
    arguments: Arc<[Vec<u8>]>,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Loop {
    pub(crate) fn new(linked: &Arc<Linked<WasiContext>>) -> Self {
        let root = Root::open("/").expect("there is a root");
        Self {
            replica: Replica::new(linked).expect("it can be made"),
            namespace: Arc::new(Namespace::new(root, Access::CopyOnWrite)),
            arguments: Arc::new([b"guest".to_vec()]),
            output: Arc::default(),
        }
    }

    /// Runs once. Returns the time until the response, the time until the next instance is ready, and how the run
    /// ended.
    pub(crate) fn run(&mut self, input: &Arc<[u8]>) -> (Duration, Duration, RunOutcome) {
        let (start, ending) = self.answer(input, TIME_LIMIT);
        let answered = start.elapsed();
        self.prepare();
        (answered, start.elapsed(), ending)
    }

    /// Runs once, without preparing the next instance.
    pub(crate) fn answer(&mut self, input: &Arc<[u8]>, limit: Duration) -> (Instant, RunOutcome) {
        self.output.lock().expect("one thread has it").clear();
        let start = Instant::now();
        let mut context = WasiContext::builder(Arc::clone(&self.namespace))
            .arguments(Arc::clone(&self.arguments))
            .own_environment(|| vec![b"PWD=/".to_vec()])
            .stdin(Box::new(Input {
                bytes: Arc::clone(input),
                read: 0,
            }))
            .stdout(Box::new(Output(Arc::clone(&self.output))))
            .build();
        let limits = RunLimits {
            deadline: Some(start + limit),
            ..RunLimits::default()
        };
        let ending = self.replica.run(&mut context, limits);
        drop(context);
        (start, ending.expect("there is an instance"))
    }

    pub(crate) fn prepare(&mut self) {
        let prepared = self.replica.prepare();
        prepared.expect("the next instance can be made");
    }

    pub(crate) fn has_written(&self, expected: &[u8]) -> bool {
        *self.output.lock().expect("one thread has it") == expected
    }
}

pub(crate) fn link(artifact: &Path) -> Arc<Linked<WasiContext>> {
    let mut linker = Linker::<WasiContext>::new();
    add_to_linker(&mut linker);
    let linked = linker.link(load(artifact), Limits::default());
    linked.expect("WASI is all it needs")
}

/// Measures a whole run, and the part that a request waits for. The rest happens between requests.
fn instances(guest: &Workload, artifact: &Path) -> [Measurement; 2] {
    let mut runs = Loop::new(&link(artifact));
    let inputs: Vec<Arc<[u8]>> = guest.inputs().collect();
    for input in &inputs {
        let (_, _, ending) = runs.run(input);
        assert_eq!(ending, RunOutcome::Returned);
        assert!(runs.has_written(guest.output(input)), "it does its work");
    }
    let (mut answered, mut all) = (Vec::new(), Vec::new());
    for number in 0..11_000 {
        let (waited, took, ending) = runs.run(&inputs[number % inputs.len()]);
        assert_eq!(ending, RunOutcome::Returned);
        // The first runs only warm up.
        if number >= 1000 {
            answered.push(waited);
            all.push(took);
        }
    }
    [
        of_times(&guest.row(), &mut all),
        of_times(
            &format!("what a request waits for, {}", guest.name),
            &mut answered,
        ),
    ]
}

/// Whether runs of esbuild end at their first host call or continue to the second.
static ENDS_AT_FIRST: AtomicBool = AtomicBool::new(false);

/// Measures how long a request to an esbuild-sized module waits before its own code does anything, that is, until its
/// first host call. Every other run continues with its start-up to the second host call and writes pages that the
/// others do not.
fn before_start_up(artifact: &Path) -> Measurement {
    const WASI: &str = "wasi_snapshot_preview1";
    fn clock(_: &mut Caller<'_, WasiContext>, _: u32, _: u64, _: u32) -> Result<u32, Stop> {
        match ENDS_AT_FIRST.load(Relaxed) {
            true => Err(Stop::Exit(1)),
            false => Ok(0),
        }
    }
    fn random(_: &mut Caller<'_, WasiContext>, _: u32, _: u32) -> Result<u32, Stop> {
        Err(Stop::Exit(2))
    }
    let mut linker = Linker::<WasiContext>::new();
    add_to_linker(&mut linker);
    linker
        .function(WASI, "clock_time_get", clock)
        .function(WASI, "random_get", random);
    let linked = linker.link(load(artifact), Limits::default());
    let mut runs = Loop::new(&linked.expect("WASI is all it needs"));
    let nothing: Arc<[u8]> = Arc::default();
    let mut times = Vec::new();
    for _ in 0..2000 {
        for first in [false, true] {
            ENDS_AT_FIRST.store(first, Relaxed);
            let (waited, _, ending) = runs.run(&nothing);
            assert_eq!(ending, RunOutcome::Exited(if first { 1 } else { 2 }));
            if first {
                times.push(waited);
            }
        }
    }
    of_times(
        "what a request waits for, esbuild before its start-up",
        &mut times,
    )
}

struct Input {
    bytes: Arc<[u8]>,
    read: usize,
}

impl InputStream for Input {
    fn read(&mut self, buffer: &mut [u8], _: Option<Instant>) -> Result<usize, StreamError> {
        let rest = &self.bytes[self.read..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }

    fn wait_readable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }
}

struct Output(Arc<Mutex<Vec<u8>>>);

impl OutputStream for Output {
    fn write(&mut self, bytes: &[u8], _: Option<Instant>) -> Result<usize, StreamError> {
        self.0
            .lock()
            .expect("one thread has it")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn wait_writable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }
}
