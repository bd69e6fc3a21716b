//! The rival: wasmtime, in a process that runs one module.

use std::path::Path;

use wasmtime::{Config, Engine, Linker, Module, OptLevel, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_sync};

/// Whether the rival is compiled in.
pub(crate) const IS_THERE: bool = true;

/// The argument that makes a child process run a module.
pub(crate) const FLAG: &str = "--wasmtime";

/// Description of the settings for the report.
pub(crate) const SETTINGS: &str = "wasmtime 48: Cranelift with `opt_level` speed, memories with guard pages, no epochs \
    and no fuel, for all features of this CPU";

/// Runs a command module with this argument. Its output goes to this process's standard output.
pub(crate) fn run(module: &Path, argument: &str) {
    let mut config = Config::new();
    config.cranelift_opt_level(OptLevel::Speed);
    let engine = Engine::new(&config).expect("the settings fit together");
    let module = Module::from_file(&engine, module).expect("it compiles");
    let mut linker = Linker::<WasiP1Ctx>::new(&engine);
    add_to_linker_sync(&mut linker, |context| context).expect("no name is there twice");
    let context = WasiCtxBuilder::new()
        .args(&["kernel", argument])
        .inherit_stdio()
        .build_p1();
    let mut store = Store::new(&engine, context);
    let instance = linker.instantiate(&mut store, &module);
    let instance = instance.expect("WASI is all it needs");
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start");
    let ended = start.expect("it has one").call(&mut store, ());
    ended.expect("it returns");
}
