//! The rival: wasmtime with its pooling allocator.

use std::path::Path;

use faas_wasm_tests::{esbuild, fixture};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module,
    PoolingAllocationConfig, Store,
};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_sync};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

use crate::measure::{Measurement, median, time};
use crate::trusted::load_rival;
use crate::{FIXTURES, Inputs, WORKLOADS, Workload};

/// How a slot is reset for the next instance.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reset {
    /// With madvise only, the default.
    Remap,
    /// Up to a limit, memory is cleared with memset and stays resident.
    KeepResident,
}

/// Description of the settings for the report.
pub(crate) const SETTINGS: &str = "wasmtime 48: pooling allocator with warm slots, copy-on-write \
    memory images, no epochs and no fuel, precompiled by Cranelift, preview1 context per instance, \
    streams in memory";

const KEPT: usize = 1 << 20;

fn engine(reset: Reset) -> Engine {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(16)
        .total_memories(16)
        .total_tables(16)
        .max_unused_warm_slots(16);
    if let Reset::KeepResident = reset {
        pool.linear_memory_keep_resident(KEPT)
            .table_keep_resident(KEPT);
    }
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_init_cow(true);
    Engine::new(&config).expect("the settings fit together")
}

pub(crate) fn make_inputs(inputs: &Inputs) {
    let engine = engine(Reset::Remap);
    let compile = |module: &Path, name: &str| {
        let wasm = std::fs::read(module).expect("the module can be read");
        let compiled = engine.precompile_module(&wasm).expect("it compiles");
        std::fs::write(inputs.file(name), compiled).expect("it can be written");
    };
    for name in FIXTURES {
        compile(&fixture(name), &format!("{name}.cwasm"));
    }
    let module = esbuild().expect("the Makefile gets esbuild's module");
    compile(&module, "esbuild.cwasm");
}

pub(crate) fn measure(inputs: &Inputs, reset: Reset) -> Vec<Measurement> {
    let engine = engine(reset);
    let load = |name: &str| load_rival(&engine, &inputs.file(&format!("{name}.cwasm")));
    let mut measurements = vec![
        median("load nop", 2000, || time(|| load("nop"))),
        median("load esbuild", 2000, || time(|| load("esbuild"))),
    ];
    for guest in &WORKLOADS {
        measurements.push(instances(&engine, load(guest.fixture), guest));
    }
    measurements
}

fn instances(engine: &Engine, module: Module, guest: &Workload) -> Measurement {
    let mut linker = Linker::<WasiP1Ctx>::new(engine);
    add_to_linker_sync(&mut linker, |context| context).expect("no name is there twice");
    let instance: InstancePre<_> = linker
        .instantiate_pre(&module)
        .expect("WASI is all it needs");
    let run = |stdin: MemoryInputPipe| {
        let stdout = MemoryOutputPipe::new(1 << 20);
        let took = time(|| {
            let context = WasiCtxBuilder::new()
                .arg("guest")
                .env("PWD", "/")
                .stdin(stdin)
                .stdout(stdout.clone())
                .build_p1();
            let mut store = Store::new(engine, context);
            let instance = instance.instantiate(&mut store).expect("there is a slot");
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start");
            start
                .expect("it has one")
                .call(&mut store, ())
                .expect("it returns");
            drop(store);
        });
        (took, stdout)
    };
    let inputs: Vec<_> = guest.inputs().collect();
    let pipe = |input: &[u8]| MemoryInputPipe::new(input.to_vec());
    for input in &inputs {
        let (_, stdout) = run(pipe(input));
        assert_eq!(stdout.contents(), guest.output(input), "it does its work");
    }
    let mut number = 0;
    median(&guest.row(), 10_000, || {
        number += 1;
        run(pipe(&inputs[number % inputs.len()])).0
    })
}
