//! HTTP connections: the framing tracker in step with the parser behind it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faas_wasm_runner::fuzzing::framing(bytes));
