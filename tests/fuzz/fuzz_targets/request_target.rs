//! Request targets: escapes, bytes that no URI has, path cleaning.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faas_wasm_runner::fuzzing::request_target(bytes));
