//! Tokens of clients and keys of issuers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faas_wasm_runner::fuzzing::token(bytes));
