//! Ranges, conditions and encodings of requests for files, and types by content.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faas_wasm_runner::fuzzing::file_request(bytes));
