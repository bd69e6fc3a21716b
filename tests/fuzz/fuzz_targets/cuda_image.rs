//! Module images that guests hand to the CUDA driver: PTX, cubin, fatbin.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    faas_wasm_cuda::fuzzing::image(bytes);
    if let Some(long) = faas_wasm_fuzz::repeated(bytes) {
        faas_wasm_cuda::fuzzing::image(&long);
    }
});
