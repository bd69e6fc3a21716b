//! Modules, binary or text, through all passes before the backend.
#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| faas_wasm::fuzzing::module(file));
