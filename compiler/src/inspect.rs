//! `faas-wasm inspect` and `faas-wasm verify`.
//!
//! The JSON keys are a contract: new ones may appear, none changes its meaning or goes away.

use std::fmt::Write as _;
use std::path::Path;

use faas_wasm_artifact::{Artifact, CudaAbi, ImageRun, MemorySummary, ReadError};
use serde::Serialize;

use crate::error::Error;
use crate::functions::{self, Function};
use crate::message;
use crate::summary::{backend, bytes, features};
use crate::text;

/// The JSON form, see the module's documentation. Sizes are bytes, memory limits pages of 64 KiB.
#[derive(Debug, Serialize)]
struct Json<'a> {
    format: u32,
    file_size: u64,
    sha256: String,
    producer: &'a str,
    backend: &'a str,
    backend_version: &'a str,
    backend_licence: &'a str,
    engine_version: &'a str,
    opt_level: u8,
    target: &'a str,
    cpu_features: Vec<&'a str>,
    wasm_sha256: String,
    wasm_size: u64,
    entry: &'a str,
    functions: u32,
    code_size: u64,
    image_size: u64,
    image: Vec<JsonRun>,
    memories: Vec<JsonMemory>,
    imports: Vec<JsonImport<'a>>,
    needs_cuda: bool,
    /// Data model of the CUDA imports.
    cuda_abi: Option<CudaAbi>,
    /// All of a fat artifact, the first one included, which the keys above describe.
    variants: Vec<JsonVariant<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonVariant<'a> {
    target: &'a str,
    cpu_features: Vec<&'a str>,
    code_size: u64,
    offset: u64,
    size: u64,
    /// If they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    function_list: Option<Vec<Function>>,
}

#[derive(Debug, Serialize)]
struct JsonRun {
    memory: u32,
    address: u64,
    size: u64,
}

#[derive(Debug, Serialize)]
struct JsonMemory {
    minimum: u32,
    maximum: Option<u32>,
    shared: bool,
    imported: bool,
}

#[derive(Debug, Serialize)]
struct JsonImport<'a> {
    module: &'a str,
    name: &'a str,
    r#type: &'a str,
}

/// What a description looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// For people.
    Text,
    /// JSON on several lines.
    Json,
    /// A message for programs.
    Line,
}

/// Describes an artifact, for people or as JSON, with a list of its functions if that is wanted.
/// Ends with a newline.
///
/// # Errors
///
/// If the file cannot be read or is no intact artifact.
pub(crate) fn inspect(path: &Path, style: Style, functions: bool) -> Result<String, Error> {
    let file = read(path)?;
    let not_usable = |source| Error::Artifact {
        path: path.into(),
        source,
    };
    let artifacts = Artifact::parse_all(&file).map_err(not_usable)?;
    let sha256 = faas_wasm_artifact::recorded_sha256(&file).map_err(not_usable)?;
    let [first, ..] = &artifacts[..] else {
        return Err(not_usable(ReadError::Empty));
    };
    let json = || as_json(first, &artifacts, sha256, functions);
    Ok(match style {
        Style::Text => as_text(first, &artifacts, sha256) + &function_lists(&artifacts, functions),
        Style::Json => crate::json(&json()),
        Style::Line => message::object("inspect", json()),
    })
}

/// Checks every byte of an artifact.
///
/// # Errors
///
/// The first thing that is wrong.
pub(crate) fn verify(path: &Path) -> Result<(), Error> {
    let file = read(path)?;
    faas_wasm_artifact::verify(&file)
        .map(drop)
        .map_err(|source| Error::Verify {
            path: path.into(),
            source,
        })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let read_error = |source| Error::Read {
        path: path.into(),
        source,
    };
    // Of other things there may be no end.
    if !path.metadata().map_err(read_error)?.is_file() {
        return Err(Error::NotFile { path: path.into() });
    }
    std::fs::read(path).map_err(read_error)
}

/// The functions of all variants, if they are wanted.
fn function_lists(variants: &[Artifact<'_>], wanted: bool) -> String {
    let wanted = variants.iter().filter(|_| wanted);
    let lists = wanted.map(|variant| {
        let list = functions::as_text(&functions::functions(variant));
        if variants.len() > 1 {
            format!(
                "\n{}, {}\n{list}",
                variant.manifest.triple,
                features(&variant.manifest)
            )
        } else {
            format!("\n{list}")
        }
    });
    lists.collect()
}

fn as_json<'a>(
    artifact: &'a Artifact<'_>,
    variants: &'a [Artifact<'_>],
    sha256: [u8; 32],
    functions: bool,
) -> Json<'a> {
    let manifest = &artifact.manifest;
    Json {
        format: artifact.header.format,
        file_size: artifact.header.file_size,
        sha256: hexadecimal(&sha256),
        producer: &manifest.producer,
        backend: manifest.backend.name(),
        backend_version: &manifest.backend_version,
        backend_licence: manifest.backend.licence(),
        engine_version: &manifest.engine_version,
        opt_level: manifest.opt_level.digit(),
        target: &manifest.triple,
        cpu_features: feature_names(artifact),
        wasm_sha256: hexadecimal(&manifest.wasm_sha256),
        wasm_size: manifest.wasm_size,
        entry: &manifest.entry,
        functions: manifest.functions,
        code_size: manifest.code_size,
        image_size: manifest.image_size,
        image: artifact
            .module
            .image
            .iter()
            .map(|run| JsonRun {
                memory: run.memory,
                address: run.address,
                size: run.bytes.length,
            })
            .collect(),
        memories: manifest
            .memories
            .iter()
            .map(|memory| JsonMemory {
                minimum: memory.minimum,
                maximum: memory.maximum,
                shared: memory.shared,
                imported: memory.imported,
            })
            .collect(),
        imports: manifest
            .imports
            .iter()
            .map(|import| JsonImport {
                module: &import.module,
                name: &import.name,
                r#type: &import.ty,
            })
            .collect(),
        needs_cuda: manifest.needs_cuda,
        cuda_abi: manifest.cuda.as_ref().map(|cuda| cuda.abi),
        variants: variants
            .iter()
            .map(|variant| json_variant(variant, functions))
            .collect(),
    }
}

fn json_variant<'a>(artifact: &'a Artifact<'_>, functions: bool) -> JsonVariant<'a> {
    JsonVariant {
        target: &artifact.manifest.triple,
        cpu_features: feature_names(artifact),
        code_size: artifact.manifest.code_size,
        offset: artifact.place().offset,
        size: artifact.place().length,
        function_list: functions.then(|| functions::functions(artifact)),
    }
}

fn feature_names(artifact: &Artifact<'_>) -> Vec<&'static str> {
    let features = artifact.manifest.cpu_features.iter();
    features.map(|feature| feature.name()).collect()
}

fn as_text(artifact: &Artifact<'_>, variants: &[Artifact<'_>], sha256: [u8; 32]) -> String {
    let manifest = &artifact.manifest;
    let header = &artifact.header;
    let mut description = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string cannot fail.
        let _ = writeln!(description, "{name:<10} {}", text::line(value));
    };
    line("format", &header.format);
    line("size", &bytes(header.file_size));
    line("sha256", &hexadecimal(&sha256));
    line("producer", &manifest.producer);
    line("backend", &backend(manifest));
    line(
        "engine",
        &format_args!("wasmer-vm {}", manifest.engine_version),
    );
    if variants.len() > 1 {
        line("variants", &variants.len());
    }
    for artifact in variants {
        let manifest = &artifact.manifest;
        line("target", &manifest.triple);
        line("features", &features(manifest));
        if variants.len() > 1 {
            line("code", &bytes(manifest.code_size));
        }
    }
    line("module", &bytes(manifest.wasm_size));
    line(
        "",
        &format_args!("sha256 {}", hexadecimal(&manifest.wasm_sha256)),
    );
    line("entry", &manifest.entry);
    line("functions", &manifest.functions);
    if variants.len() == 1 {
        line("code", &bytes(manifest.code_size));
    }
    line("image", &bytes(manifest.image_size));
    for run in &artifact.module.image {
        line("", &describe_run(run));
    }
    for (index, memory) in manifest.memories.iter().enumerate() {
        line(&format!("memory {index}"), &describe_memory(memory));
    }
    line(
        "cuda",
        &match &manifest.cuda {
            Some(cuda) => format!("needed ({})", cuda.abi),
            None => "not needed".into(),
        },
    );
    line("imports", &manifest.imports.len());
    for import in &manifest.imports {
        line(
            "",
            &format_args!("{}.{}: {}", import.module, import.name, import.ty),
        );
    }
    description
}

fn describe_run(run: &ImageRun) -> String {
    format!(
        "memory {} at {:#x}: {}",
        run.memory,
        run.address,
        bytes(run.bytes.length)
    )
}

fn describe_memory(memory: &MemorySummary) -> String {
    let maximum = match memory.maximum {
        Some(pages) => format!("at most {pages}"),
        None => "no maximum".into(),
    };
    let shared = if memory.shared { ", shared" } else { "" };
    let imported = if memory.imported { ", imported" } else { "" };
    format!(
        "{} pages of 64 KiB, {maximum}{shared}{imported}",
        memory.minimum
    )
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[cfg(feature = "cranelift")]
mod tests {
    use faas_wasm_artifact::Backend;

    use super::*;
    use crate::build::tests::{artifact, options};

    const TEXT: &str = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
        (import "env" "cuInit" (func (param i32) (result i32)))
        (memory 2 40)
        (data (i32.const 65536) "x")
        (func (export "_start")))"#;

    fn saved() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let bytes = artifact(TEXT, &options(Backend::Cranelift, 1));
        std::fs::write(file.path(), bytes).expect("it can be written");
        file
    }

    /// Replaces what another version of a compiler may change.
    fn masked(text: &str) -> String {
        let lines = text
            .lines()
            .map(|line| match line.split_whitespace().next() {
                Some(name @ ("size" | "code")) => format!("{name:<10} N\n"),
                Some("sha256") => line.replace(|c: char| c.is_ascii_hexdigit(), "0") + "\n",
                _ => format!("{line}\n"),
            });
        // `sha256` itself has hexadecimal digits.
        lines.collect::<String>().replace("sh0000", "sha256")
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn text_is_aligned_and_complete() {
        let file = saved();
        let text = inspect(file.path(), Style::Text, false).expect("it is intact");
        let version = env!("CARGO_PKG_VERSION");
        let engine = wasmer_compiler::VERSION;
        let zeros = "0".repeat(64);
        let module = wat::parse_str(TEXT).expect("the text is correct").len();
        assert_eq!(
            masked(&text),
            format!(
                "\
format     2
size       N
sha256     {zeros}
producer   faas-wasm {version}
backend    cranelift {engine}, -O3 (Apache-2.0 WITH LLVM-exception)
engine     wasmer-vm {engine}
target     {}
features   sse2
module     {module} bytes
           sha256 {zeros}
entry      _start
functions  1
code       N
image      65536 bytes (64.0 KiB)
           memory 0 at 0x10000: 65536 bytes (64.0 KiB)
memory 0   2 pages of 64 KiB, at most 40
cuda       needed (w32, device pointers of 4 bytes, handles of 4, sizes of 4)
imports    2
           wasi_snapshot_preview1.proc_exit: func (param i32)
           env.cuInit: func (param i32) (result i32)
",
                faas_wasm_artifact::host_triple()
            )
        );
    }

    #[test]
    fn json_keys_are_stable() {
        let file = saved();
        let text = inspect(file.path(), Style::Json, false).expect("it is intact");
        let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let keys: Vec<_> = json.as_object().expect("an object").keys().collect();
        assert_eq!(
            keys,
            [
                "backend",
                "backend_licence",
                "backend_version",
                "code_size",
                "cpu_features",
                "cuda_abi",
                "engine_version",
                "entry",
                "file_size",
                "format",
                "functions",
                "image",
                "image_size",
                "imports",
                "memories",
                "needs_cuda",
                "opt_level",
                "producer",
                "sha256",
                "target",
                "variants",
                "wasm_sha256",
                "wasm_size"
            ]
        );
        assert_eq!(json["image"][0]["address"], 65536);
        assert_eq!(json["memories"][0]["maximum"], 40);
        assert_eq!(json["imports"][1]["name"], "cuInit");
        assert_eq!(json["imports"][1]["type"], "func (param i32) (result i32)");
        assert_eq!(json["needs_cuda"], true);
        assert_eq!(json["wasm_sha256"].as_str().map(str::len), Some(64));
    }

    #[test]
    fn verify_tells_damage_that_loading_does_not_see() {
        let file = saved();
        verify(file.path()).expect("it is intact");
        let mut bytes = std::fs::read(file.path()).expect("it can be read");
        let image = bytes.iter().rposition(|byte| *byte == b'x');
        bytes[image.expect("the data is there")] = b'y';
        std::fs::write(file.path(), bytes).expect("it can be written");
        assert!(matches!(verify(file.path()), Err(Error::Verify { .. })));
    }
}
