//! The artifact format: what `faas-wasm build` writes and the runner maps.
//!
//! An artifact is one ELF shared object that tools such as readelf and objdump understand, with
//! sections of our own behind what the linker wrote and a fixed [`Header`] as its last bytes. A
//! fat artifact is several of them, for several hosts, with a directory as its last bytes.
//! `FORMAT.md` beside this crate's `Cargo.toml` is the specification.
//!
//! Both sides depend on this crate and neither on the other. It knows bytes and checks them; it
//! deliberately maps nothing, runs nothing and knows no compiler.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::expect_used, clippy::panic, reason = "tests"))]

mod consistency;
mod cpu;
mod cuda;
mod directory;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod lines;
mod manifest;
mod module;
mod read;
mod tables;
#[cfg(feature = "build")]
mod verify;
#[cfg(feature = "build")]
mod write;

#[cfg(all(test, feature = "build"))]
mod tests;

pub use cpu::{CpuFeature, UnknownFeature, host_features, host_triple};
pub use cuda::{Cuda, CudaAbi, KernelParameters, Width};
pub use directory::MAX_VARIANTS;
pub use error::ReadError;
pub use header::{FORMAT_VERSION, HEADER_SIZE, Header, Range, Region};
#[cfg(feature = "build")]
pub use lines::{LineTable, SourceFile};
pub use lines::{SourceLine, source_lines};
pub use manifest::{Backend, Import, Manifest, MemorySummary, OptLevel};
pub use module::{
    ConstantExpression, ConstantOp, ElementSegment, Export, FunctionNames, FunctionType, Global,
    GlobalInit, ImageRun, ImportKind, LoadPlan, MemoryType, ModuleImport, ModuleMetadata,
    PassiveData, PassiveElements, Protection, Relocation, Segment, TableType, TrapCode, ValueType,
    trap_at,
};
pub use read::{Artifact, is_artifact, is_elf};
pub use tables::{NULL_FUNCTION, Tables, TablesBuilder};
#[cfg(feature = "build")]
pub use verify::{VerifyError, recorded_sha256, verify};
#[cfg(feature = "build")]
pub use write::{Contents, Image, Variant, WriteError, Written, write};

/// Alignment of memory-image runs in guest memory and in the file, in bytes: one WebAssembly page,
/// which is also the largest page of the hosts we target, so that a run can always be mapped.
pub const IMAGE_ALIGNMENT: u64 = 65536;

/// Names of our sections, each with its writer and reader.
pub mod section {
    /// [`crate::Manifest`] (postcard). Read at every load, and by `inspect`.
    pub const MANIFEST: &str = ".faaswasm.manifest";
    /// [`crate::ModuleMetadata`] (postcard). Read at every load.
    pub const MODULE: &str = ".faaswasm.module";
    /// Flat arrays of little-endian `u32`, see [`crate::Tables`]. Read at every load.
    pub const TABLES: &str = ".faaswasm.tables";
    /// [`crate::FunctionNames`] (postcard). Read only when a backtrace is printed.
    pub const NAMES: &str = ".faaswasm.names";
    /// Pairs of little-endian `u32`, ascending: address of an instruction that traps, and its
    /// [`crate::TrapCode`]. Read after a trap.
    pub const TRAPS: &str = ".faaswasm.traps";
    /// Source lines of the code, see [`crate::source_lines`]; only where they were asked for. Read
    /// only when a backtrace is printed.
    pub const LINES: &str = ".faaswasm.lines";
    /// Bytes of passive data segments. Read by `memory.init`.
    pub const DATA: &str = ".faaswasm.data";
    /// Initial content of linear memories. Mapped private into every instance.
    pub const IMAGE: &str = ".faaswasm.image";
    /// [`crate::Header`]. Always the last bytes of the file.
    pub const HEADER: &str = ".faaswasm.header";
}
