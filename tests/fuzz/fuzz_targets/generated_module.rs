//! Valid modules, generated from the input, through all passes before the backend.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::Corpus;
use wasm_smith::{Config, Module};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| -> Corpus {
    let mut input = Unstructured::new(bytes);
    match generate(&mut input) {
        Ok(module) => {
            faas_wasm::fuzzing::module(&module.to_bytes());
            Corpus::Keep
        }
        Err(_) => Corpus::Reject,
    }
});

fn generate(input: &mut Unstructured<'_>) -> arbitrary::Result<Module> {
    // What the build refuses is left out; all else is up to the input.
    let mut config = Config {
        allow_start_export: true,
        bulk_memory_enabled: true,
        exceptions_enabled: input.arbitrary()?,
        available_imports: imports(input.arbitrary()?),
        gc_enabled: false,
        generate_custom_sections: input.arbitrary()?,
        max_memories: 3,
        max_memory32_bytes: 8 << 16,
        max_tables: 3,
        memory64_enabled: false,
        min_funcs: 1,
        multi_value_enabled: true,
        reference_types_enabled: true,
        relaxed_simd_enabled: input.arbitrary()?,
        simd_enabled: input.arbitrary()?,
        shared_everything_threads_enabled: false,
        tail_call_enabled: input.arbitrary()?,
        threads_enabled: input.arbitrary()?,
        wide_arithmetic_enabled: input.arbitrary()?,
        custom_page_sizes_enabled: false,
        custom_descriptors_enabled: false,
        ..Config::default()
    };
    config.extended_const_enabled = true;
    Module::new(config, input)
}

/// Imports that a host has, and some that none has.
fn imports(some: bool) -> Option<Vec<u8>> {
    some.then(|| {
        wat::parse_str(
            r#"(module
                (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
                (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
                (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
                (import "env" "cuInit" (func (param i32) (result i32)))
                (import "env" "nowhere" (func (param f64) (result externref)))
                (import "env" "nothing" (func)))"#,
        )
        .expect("the text is correct")
    })
}
