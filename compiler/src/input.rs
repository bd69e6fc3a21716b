//! Reads the input and rejects what cannot become an artifact, before the backend sees it.
//!
//! The backend does not validate: whatever passes here must be valid, use only what the backend
//! supports, have something to run, and import only what hosts provide.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use wasmer_types::Features;
use wasmparser::{Validator, WasmFeatures};

use crate::error::{Error, InvalidModule};

const WASM_MAGIC: &[u8] = b"\0asm";
/// Version 1, then layer 0 for a core module and 1 for a component.
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];

/// The path that means standard input.
pub(crate) const STDIN: &str = "-";
/// Bytes that tell what a file is.
const START: u64 = 4096;

/// Reads a file that should be a core WebAssembly module, and assembles it if it is text.
///
/// # Errors
///
/// What the file system says, or what the file is instead.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let read_error = |source| Error::Read {
        path: path.into(),
        source,
    };
    let bytes = if path == Path::new(STDIN) {
        read_module(path, std::io::stdin().lock())
    } else {
        File::open(path).and_then(|file| read_module(path, file))
    }
    .map_err(read_error)?;
    module(path, bytes)
}

/// The core module that a file's bytes are, assembled if they are text.
///
/// # Errors
///
/// What the bytes are instead.
pub(crate) fn module(path: &Path, mut bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    if is_text(path, &bytes) {
        bytes = wat::Parser::new()
            .parse_bytes(Some(path), &bytes)
            .map(|wasm| wasm.into_owned())
            .map_err(|source| Error::WasmText {
                path: path.into(),
                source,
            })?;
    }
    recognize(path, &bytes)?;
    Ok(bytes)
}

/// All of a file that looks like a module, and the start of any other: that can be of any length.
fn read_module(path: &Path, mut file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.by_ref().take(START).read_to_end(&mut bytes)?;
    let is_elf = faas_wasm_artifact::is_elf(&bytes);
    if is_elf || bytes.starts_with(WASM_MAGIC) || is_text(path, &bytes) {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn recognize(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let path = || path.into();
    if bytes.is_empty() {
        return Err(Error::Empty { path: path() });
    }
    if !bytes.starts_with(WASM_MAGIC) {
        return Err(if faas_wasm_artifact::is_artifact(bytes, bytes) {
            Error::AlreadyCompiled { path: path() }
        } else {
            Error::NotWasm {
                path: path(),
                found: describe(bytes),
            }
        });
    }
    match bytes.get(4..8) {
        Some(version) if version == CORE_MODULE => Ok(()),
        Some([_, _, layer, _]) if *layer != 0 => Err(Error::Component { path: path() }),
        Some([low, high, ..]) => Err(Error::WasmVersion {
            path: path(),
            version: u16::from_le_bytes([*low, *high]),
        }),
        _ => Err(Error::Invalid {
            path: path(),
            source: InvalidModule {
                offset: bytes.len() as u64,
                message: "unexpected end-of-file in the header".into(),
                truncated: true,
            },
        }),
    }
}

/// Whether a file is in the text format, by its name or its start.
fn is_text(path: &Path, bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    let named = path.extension().is_some_and(|extension| extension == "wat");
    // Some tools leave binary files with such names.
    if named && !bytes.is_empty() && !bytes.starts_with(b"\0") {
        return true;
    }
    let starts: [&[u8]; 4] = [b"(module", b"(component", b";;", b"(;"];
    starts.iter().any(|text| start.starts_with(text))
}

/// The first bytes of a file, named where they are well known.
fn describe(bytes: &[u8]) -> String {
    let name = match bytes {
        [0x7f, b'E', b'L', b'F', ..] => "an ELF header",
        [b'B', b'C', 0xc0, 0xde, ..] => "an LLVM bitcode header",
        [0x1f, 0x8b, ..] => "a gzip header",
        [b'P', b'K', ..] => "a zip header",
        [b'#', b'!', ..] => "`#!`, so it is a script",
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "an archive header",
        _ => {
            let start: Vec<_> = bytes
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            return format!("bytes {}, not 00 61 73 6d", start.join(" "));
        }
    };
    name.into()
}

/// Validates a module with the features that the backend supports.
///
/// # Errors
///
/// [`Error::UnsupportedFeature`] or [`Error::Invalid`].
pub(crate) fn validate(
    path: &Path,
    wasm: &[u8],
    supported: &Features,
    backend: &'static str,
    other_backend: Option<(&'static str, Features)>,
) -> Result<(), Error> {
    let features = wasm_features(supported);
    let Err(error) = Validator::new_with_features(features).validate_all(wasm) else {
        return Ok(());
    };
    let missing = match error.missing_wasm_feature() {
        Some(missing) => feature_name(missing),
        None => missing_feature(wasm, features, &error),
    };
    let path = path.into();
    let source = InvalidModule::from(error);
    Err(match missing {
        Some((feature, flag)) => Error::UnsupportedFeature {
            path,
            feature,
            backend,
            other_backend: other_backend
                .filter(|(_, features)| wasm_features(features).contains(flag))
                .map(|(name, _)| name),
            source,
        },
        None => Error::Invalid { path, source },
    })
}

/// The same for the validator. Every field is named, so that a feature which a later backend adds
/// does not compile until someone decides about it.
fn wasm_features(supported: &Features) -> WasmFeatures {
    let Features {
        threads,
        reference_types,
        simd,
        bulk_memory,
        multi_value,
        tail_call,
        // Part of the component model, which a core module cannot use.
        module_linking: _,
        multi_memory,
        // Supported by none: the backends do not translate it, whatever they say.
        memory64: _,
        exceptions,
        relaxed_simd,
        extended_const,
        wide_arithmetic,
    } = supported;
    let always = WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::FLOATS
        // `externref` is behind it; the garbage collection proposal is not.
        | WasmFeatures::GC_TYPES;
    [
        (threads, WasmFeatures::THREADS),
        (reference_types, WasmFeatures::REFERENCE_TYPES),
        (simd, WasmFeatures::SIMD),
        (bulk_memory, WasmFeatures::BULK_MEMORY),
        (multi_value, WasmFeatures::MULTI_VALUE),
        (tail_call, WasmFeatures::TAIL_CALL),
        (multi_memory, WasmFeatures::MULTI_MEMORY),
        (exceptions, WasmFeatures::EXCEPTIONS),
        (relaxed_simd, WasmFeatures::RELAXED_SIMD),
        (extended_const, WasmFeatures::EXTENDED_CONST),
        (wide_arithmetic, WasmFeatures::WIDE_ARITHMETIC),
    ]
    .into_iter()
    .filter(|(supported, _)| **supported)
    .fold(always, |features, (_, flag)| features | flag)
}

/// Features that no backend or only some support, with what they are called where people write about them.
const FEATURE_NAMES: [(WasmFeatures, &str); 19] = [
    (WasmFeatures::MEMORY64, "64-bit memory (memory64)"),
    (WasmFeatures::GC, "garbage collection (gc)"),
    (
        WasmFeatures::FUNCTION_REFERENCES,
        "typed function references",
    ),
    (WasmFeatures::TAIL_CALL, "tail calls"),
    (WasmFeatures::LEGACY_EXCEPTIONS, "legacy exception handling"),
    (WasmFeatures::EXCEPTIONS, "exception handling"),
    (WasmFeatures::THREADS, "threads"),
    (
        WasmFeatures::SHARED_EVERYTHING_THREADS,
        "shared-everything threads",
    ),
    (WasmFeatures::SIMD, "SIMD"),
    (WasmFeatures::RELAXED_SIMD, "relaxed SIMD"),
    (
        WasmFeatures::MULTI_MEMORY,
        "several memories (multi-memory)",
    ),
    (WasmFeatures::MEMORY_CONTROL, "memory control"),
    (WasmFeatures::CUSTOM_PAGE_SIZES, "custom page sizes"),
    (WasmFeatures::STACK_SWITCHING, "stack switching"),
    (WasmFeatures::WIDE_ARITHMETIC, "wide arithmetic"),
    (
        WasmFeatures::EXTENDED_CONST,
        "extended constant expressions",
    ),
    (WasmFeatures::REFERENCE_TYPES, "reference types"),
    (WasmFeatures::BULK_MEMORY, "bulk memory operations"),
    (WasmFeatures::MULTI_VALUE, "multiple values"),
];

fn feature_name(missing: WasmFeatures) -> Option<(&'static str, WasmFeatures)> {
    let mut names = FEATURE_NAMES.into_iter();
    let (flag, name) = names.find(|(flag, _)| missing.intersects(*flag))?;
    Some((name, flag))
}

/// The feature without which a module is not valid, where the validator does not tell: it finds encodings and limits
/// wrong that the feature allows.
fn missing_feature(
    wasm: &[u8],
    features: WasmFeatures,
    error: &wasmparser::Error,
) -> Option<(&'static str, WasmFeatures)> {
    let helps = |flags| {
        let validated = Validator::new_with_features(features | flags).validate_all(wasm);
        // It can be that another one is missing behind it.
        validated.map_or_else(
            |next| next.offset() >= error.offset() && next.missing_wasm_feature().is_some(),
            |_| true,
        )
    };
    let names = FEATURE_NAMES.into_iter();
    let mut missing = names.filter(|(flag, _)| !features.contains(*flag));
    // Most modules that are not valid are so whatever is allowed.
    let all = missing
        .clone()
        .fold(WasmFeatures::empty(), |all, (flag, _)| all | flag);
    if !helps(all) {
        return None;
    }
    let (flag, name) = missing.find(|(flag, _)| helps(*flag))?;
    Some((name, flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(result: Result<(), Error>) -> String {
        result.map_or_else(|error| error.report(), |()| "accepted".into())
    }

    #[test]
    fn recognizes_what_is_no_core_module() {
        for (bytes, expected) in [
            (&b""[..], "a.wasm is empty"),
            (b"\x7fELF\x02\x01", "starts with an ELF header"),
            (b"\x1f\x8b\x08", "starts with a gzip header"),
            (b"hello", "bytes 68 65 6c 6c, not 00 61 73 6d"),
            (
                b"\0asm",
                "at offset 0x4: unexpected end-of-file in the header",
            ),
            (
                b"\0asm\x0d\0\x01\0",
                "is a WebAssembly component, not a core module",
            ),
            (b"\0asm\x02\0\0\0", "has WebAssembly binary version 2"),
            (b"\0asm\x01\0\0\0", "accepted"),
        ] {
            let report = report(recognize(Path::new("a.wasm"), bytes));
            assert!(report.contains(expected), "{bytes:?}: {report}");
        }
    }

    #[test]
    fn text_is_assembled() {
        let directory = tempfile::tempdir().expect("a directory");
        let read_text = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("it can be written");
            read(&path).map_err(|error| error.report())
        };
        let module = wat::parse_str("(module (func))").expect("it is correct");
        for (name, text) in [
            ("a.wat", "(module (func))"),
            ("b.wasm", "  (module (func))"),
            ("c", ";; what this is\n(module (func))"),
            ("d.wat", "(func)"),
        ] {
            assert_eq!(read_text(name, text).as_ref(), Ok(&module), "{text}");
        }
        let report = read_text("e.wat", "(module (func (nop2)))").expect_err("it is wrong");
        assert!(report.contains("e.wat cannot be assembled\n"), "{report}");
        assert!(report.contains("nop2"), "{report}");
        let report = read_text("f.wat", "hello").expect_err("it is wrong");
        assert!(report.contains("f.wat:1:1"), "{report}");
    }

    fn validate_text(text: &str, supported: &Features, other: Option<Features>) -> String {
        let wasm = wat::parse_str(text).expect("the text is correct");
        let other = other.map(|features| ("other", features));
        report(validate(
            Path::new("a.wasm"),
            &wasm,
            supported,
            "some",
            other,
        ))
    }

    #[test]
    fn names_unsupported_features() {
        // What is told to be supported is not decisive for what nothing translates.
        let supported = Features::all();
        for (text, expected) in [
            (
                "(module (memory i64 1))",
                "uses 64-bit memory (memory64), which the some backend",
            ),
            (
                "(module (memory i64 0x1_0000_0000))",
                "uses 64-bit memory (memory64)",
            ),
            (
                "(module (memory i64 1 0x1_0000_0000))",
                "uses 64-bit memory (memory64)",
            ),
            (
                "(module (table i64 1 0x1_0000_0000 funcref))",
                "uses 64-bit memory (memory64)",
            ),
            (
                "(module (memory i64 1) (func (drop (i32.load offset=0x1_0000_0000 (i64.const 0)))))",
                "uses 64-bit memory (memory64)",
            ),
            (
                r#"(module (import "m" "m" (memory i64 0 0x1_0000_0000)))"#,
                "uses 64-bit memory (memory64)",
            ),
            (
                "(module (type (struct (field i32))))",
                "uses garbage collection (gc)",
            ),
            (
                "(module (func (param (ref func))))",
                "uses typed function references",
            ),
            ("(module (memory 1 (pagesize 1)))", "uses custom page sizes"),
            (
                "(module (func try catch_all end))",
                "uses legacy exception handling",
            ),
            ("(module (func (param externref v128)))", "accepted"),
        ] {
            let report = validate_text(text, &supported, None);
            assert!(report.contains(expected), "{text}: {report}");
        }
    }

    #[test]
    fn suggests_the_backend_that_supports_a_feature() {
        let text = "(module (func $f return_call $f))";
        let report = validate_text(text, &Features::new(), Some(Features::all()));
        assert!(report.contains("uses tail calls"), "{report}");
        assert!(
            report.contains("hint: run `faas-wasm build --backend other a.wasm`"),
            "{report}"
        );
        let report = validate_text(text, &Features::new(), Some(Features::new()));
        assert!(
            report.contains("hint: build the module without tail calls"),
            "{report}"
        );
    }

    #[test]
    fn every_truncation_is_an_error_with_its_offset() {
        let text = r#"(module (memory 1) (data (i32.const 8) "abc")
            (func (export "_start") (drop (i32.load (i32.const 8)))))"#;
        let wasm = wat::parse_str(text).expect("the text is correct");
        let mut accepted = 0;
        for length in 8..wasm.len() {
            let path = Path::new("a.wasm");
            match validate(path, &wasm[..length], &Features::new(), "some", None) {
                // The end of a section can be the end of a module, unless bodies are missing.
                Ok(()) => accepted += 1,
                Err(error) => {
                    let report = error.report();
                    assert!(report.contains("at offset 0x"), "{report}");
                }
            }
        }
        assert!(accepted < 4, "{accepted} of {} were accepted", wasm.len());
    }
}
