//! A fault that has to be found: `.ci/fuzz` runs this first, and fails if it does not.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert!(!bytes.starts_with(b"planted"), "the planted fault");
});
