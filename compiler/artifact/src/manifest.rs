//! The manifest: who made the artifact from what, and what it asks of a host.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::cpu::CpuFeature;
use crate::cuda::Cuda;

/// The code generator that made an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// wasmer-compiler-cranelift.
    Cranelift,
    /// wasmer-compiler-llvm.
    Llvm,
}

impl Backend {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cranelift => "cranelift",
            Self::Llvm => "llvm",
        }
    }

    /// What its licence asks of whoever uses the artifact.
    pub fn licence(self) -> &'static str {
        match self {
            Self::Cranelift => "Apache-2.0 WITH LLVM-exception",
            Self::Llvm => "BUSL-1.1: production use asks for an agreement with Wasmer",
        }
    }
}

/// How much the code was optimised, from `-O0` to `-O3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "levels")]
pub enum OptLevel {
    None,
    Less,
    Default,
    #[default]
    Aggressive,
}

impl OptLevel {
    /// Digit on the command line.
    pub fn digit(self) -> u8 {
        self as u8
    }
}

/// A memory's limits in pages of 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySummary {
    /// Initial size.
    pub minimum: u32,
    /// Largest size.
    pub maximum: Option<u32>,
    /// Whether it is shared between threads.
    pub shared: bool,
    /// Whether it is imported.
    pub imported: bool,
}

/// An import by name, with its type in the text format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import<'a> {
    /// Module name.
    #[serde(borrow)]
    pub module: Cow<'a, str>,
    /// Field name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// `func (param i32) (result i32)` and the like.
    #[serde(borrow)]
    pub ty: Cow<'a, str>,
}

/// The manifest. Its JSON form is what `faas-wasm inspect --json` prints. What there can be many of is borrowed from the
/// file that it is read from, as it is read at every load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest<'a> {
    /// `faas-wasm` and its version.
    pub producer: String,
    /// Code generator.
    pub backend: Backend,
    /// Its version.
    pub backend_version: String,
    /// Version of the engine interface (wasmer-vm) that the code calls into.
    pub engine_version: String,
    /// SHA-256 of the WebAssembly file.
    pub wasm_sha256: [u8; 32],
    /// Size of the WebAssembly file in bytes.
    pub wasm_size: u64,
    /// Target triple.
    pub triple: String,
    /// Instruction sets that the code may use, ascending.
    pub cpu_features: Vec<CpuFeature>,
    /// How much it was optimised.
    pub opt_level: OptLevel,
    /// Memories, imported ones first.
    pub memories: Vec<MemorySummary>,
    /// Imports.
    #[serde(borrow)]
    pub imports: Vec<Import<'a>>,
    /// Whether it imports the CUDA driver API, so that the runner needs `use_cuda`.
    pub needs_cuda: bool,
    /// The data model of its CUDA imports, if there are any.
    pub cuda: Option<Cuda>,
    /// Exported function that a request runs. If it is another than `_start`, that calls it.
    pub entry: String,
    /// Number of functions that the module defines.
    pub functions: u32,
    /// Size of the machine code in bytes.
    pub code_size: u64,
    /// Bytes of the memory image that are mapped into an instance.
    pub image_size: u64,
}
