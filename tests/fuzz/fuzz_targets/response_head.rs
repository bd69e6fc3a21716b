//! What guests say of their responses: CGI heads, lines for `/dev/faas/response`; and updates of the scale.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faas_wasm_runner::fuzzing::response_head(bytes));
