//! DWARF to source lines: an ELF file, or four sections.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"\x7fELF") {
        faas_wasm::fuzzing::dwarf(bytes);
    } else {
        faas_wasm::fuzzing::debug_sections(bytes);
    }
});
