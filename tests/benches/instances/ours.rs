//! Our side: the engine and WASI as the runner uses them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use faas_wasm_engine::{Ending, Limits, Linker, Replica, RunLimits};
use faas_wasm_tests::{Outcome, esbuild, fixture, tool};
use faas_wasm_wasi::{
    Access, InputStream, Namespace, OutputStream, Root, StreamError, WasiContext, add_to_linker,
};

use crate::measure::{Measurement, median, time};
use crate::trusted::load;
use crate::{GUESTS, Inputs};

/// Every request of the runner has a deadline.
const TIME_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn make_inputs(inputs: &Inputs) {
    for (name, _) in GUESTS {
        build(&fixture(name), &inputs.file(&format!("{name}.so")));
    }
    let module = esbuild().expect("the Makefile gets esbuild's module");
    build(&module, &inputs.file("esbuild.so"));
}

/// With the code generator that the rival uses too: what is compared is not the code.
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
    for (name, input) in GUESTS {
        measurements.extend(instances(name, input, &inputs.file(&format!("{name}.so"))));
    }
    measurements
}

fn limits(start: Instant) -> RunLimits {
    RunLimits {
        deadline: Some(start + TIME_LIMIT),
        ..RunLimits::default()
    }
}

/// The whole of a run, and the part that a request waits for: the rest happens between requests.
fn instances(name: &str, input: usize, artifact: &Path) -> [Measurement; 2] {
    let root = Root::open("/").expect("there is a root");
    let namespace = Arc::new(Namespace::new(root, Access::CopyOnWrite));
    let mut linker = Linker::<WasiContext>::new();
    add_to_linker(&mut linker);
    let linked = linker.link(load(artifact), Limits::default());
    let mut replica = Replica::new(&linked.expect("WASI is all it needs")).expect("it can be made");
    let arguments: Arc<[Vec<u8>]> = Arc::new([name.into()]);
    let input: Arc<[u8]> = vec![b'x'; input].into();
    let output: Arc<Mutex<Vec<u8>>> = Arc::default();
    let run = |replica: &mut Replica<WasiContext>| {
        output.lock().expect("one thread has it").clear();
        let start = Instant::now();
        let mut context = WasiContext::builder(Arc::clone(&namespace))
            .arguments(Arc::clone(&arguments))
            .own_environment(vec![b"PWD=/".to_vec()])
            .stdin(Box::new(Input {
                bytes: Arc::clone(&input),
                read: 0,
            }))
            .stdout(Box::new(Output(Arc::clone(&output))))
            .build();
        let ending = replica.run(&mut context, limits(start));
        drop(context);
        let answered = start.elapsed();
        replica.prepare().expect("the next instance can be made");
        let all = start.elapsed();
        assert!(matches!(ending, Ok(Ending::Returned)), "{ending:?}");
        (answered, all)
    };
    run(&mut replica);
    let expected = match name {
        "hello" => b"hello, world\n".as_slice(),
        _ => &input,
    };
    assert_eq!(
        *output.lock().expect("one thread has it"),
        expected,
        "it does its work"
    );
    [
        median(&format!("instance, call and drop of {name}"), 5000, || {
            run(&mut replica).1
        }),
        median(&format!("what a request waits for, {name}"), 5000, || {
            run(&mut replica).0
        }),
    ]
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
