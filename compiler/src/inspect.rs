//! `faas-wasm inspect` and `faas-wasm verify`.
//!
//! The JSON keys are a contract: new ones may appear, none changes its meaning or goes away.

use std::fmt::Write as _;
use std::path::Path;

use faas_wasm_artifact::{Artifact, ImageRun, MemorySummary};
use serde::Serialize;

use crate::error::Error;
use crate::summary::{backend, bytes, features};

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

/// Describes an artifact, for people or as JSON. Ends with a newline.
///
/// # Errors
///
/// If the file cannot be read or is no intact artifact.
pub(crate) fn inspect(path: &Path, json: bool) -> Result<String, Error> {
    let file = read(path)?;
    let artifact = Artifact::parse(&file).map_err(|source| Error::Artifact {
        path: path.into(),
        source,
    })?;
    Ok(if json {
        as_json(&artifact)
    } else {
        as_text(&artifact)
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
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })
}

fn as_json(artifact: &Artifact<'_>) -> String {
    let manifest = &artifact.manifest;
    let json = Json {
        format: artifact.header.format,
        file_size: artifact.header.file_size,
        sha256: hexadecimal(&artifact.header.sha256),
        producer: &manifest.producer,
        backend: manifest.backend.name(),
        backend_version: &manifest.backend_version,
        backend_licence: manifest.backend.licence(),
        engine_version: &manifest.engine_version,
        opt_level: manifest.opt_level.digit(),
        target: &manifest.triple,
        cpu_features: manifest
            .cpu_features
            .iter()
            .map(|feature| feature.name())
            .collect(),
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
    };
    // Strings, numbers and lists always serialize.
    let mut text = serde_json::to_string_pretty(&json).unwrap_or_default();
    text.push('\n');
    text
}

fn as_text(artifact: &Artifact<'_>) -> String {
    let manifest = &artifact.manifest;
    let header = &artifact.header;
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("format", &header.format);
    line("size", &bytes(header.file_size));
    line("sha256", &hexadecimal(&header.sha256));
    line("producer", &manifest.producer);
    line("backend", &backend(manifest));
    line(
        "engine",
        &format_args!("wasmer-vm {}", manifest.engine_version),
    );
    line("target", &manifest.triple);
    line("features", &features(manifest));
    line("module", &bytes(manifest.wasm_size));
    line(
        "",
        &format_args!("sha256 {}", hexadecimal(&manifest.wasm_sha256)),
    );
    line("entry", &manifest.entry);
    line("functions", &manifest.functions);
    line("code", &bytes(manifest.code_size));
    line("image", &bytes(manifest.image_size));
    for run in &artifact.module.image {
        line("", &describe_run(run));
    }
    for (index, memory) in manifest.memories.iter().enumerate() {
        line(&format!("memory {index}"), &describe_memory(memory));
    }
    line(
        "cuda",
        &if manifest.needs_cuda {
            "needed"
        } else {
            "not needed"
        },
    );
    line("imports", &manifest.imports.len());
    for import in &manifest.imports {
        line(
            "",
            &format_args!("{}.{}: {}", import.module, import.name, import.ty),
        );
    }
    text
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
