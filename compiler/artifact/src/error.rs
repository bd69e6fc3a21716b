//! Why a file cannot be read as an artifact for this host.

use crate::cpu::CpuFeature;
use crate::header::{Range, Region};

/// Why a file is not an artifact for this host. Each message says what was expected, what was found and
/// what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ReadError {
    #[error("the file is empty")]
    Empty,
    #[error(
        "this is a WebAssembly module, not an artifact: compile it first with `faas-wasm build`"
    )]
    Wasm,
    #[error(
        "not an artifact: expected an ELF file made by `faas-wasm build`, found bytes {found:02x?}"
    )]
    NotElf { found: Vec<u8> },
    #[error(
        "no artifact header at the end of this ELF file ({size} bytes): it was cut off, or it was \
         not made by `faas-wasm build`; copy or build it again"
    )]
    NoHeader { size: usize },
    #[error(
        "artifact format {found}, but this program reads format {expected}: use `faas-wasm build` \
         and the runner of the same release"
    )]
    Format { expected: u32, found: u32 },
    #[error(
        "the artifact should have {expected} bytes but has {found}: it was cut off or changed; \
         copy or build it again"
    )]
    Size { expected: u64, found: usize },
    #[error(
        "the artifact is damaged: {region:?} should lie at {range:?}, outside of the file; copy or \
         build it again"
    )]
    RegionOutside { region: Region, range: Range },
    #[error(
        "the artifact is damaged: checksum {found:016x}, expected {expected:016x}; copy or build \
         it again"
    )]
    Sum { expected: u64, found: u64 },
    #[error("the artifact is damaged: section {section} cannot be decoded; copy or build it again")]
    Decode {
        section: &'static str,
        #[source]
        source: postcard::Error,
    },
    #[error("the artifact is damaged: {what}; copy or build it again")]
    Inconsistent { what: &'static str },
    #[error(
        "the artifact is for {found}, this host is {expected}: build it with `faas-wasm build \
         --target {expected}`"
    )]
    Triple { expected: String, found: String },
    #[error(
        "the artifact needs CPU features that this host lacks: {}; build it for less, for example \
         with `faas-wasm build --cpu x86-64-v2`",
        names(missing)
    )]
    CpuFeatures { missing: Vec<CpuFeature> },
    #[error(
        "none of the artifact's variants runs on this host, {host}: they are {}; add one that does \
         with `faas-wasm build --target` and `--cpu`",
        variants.join(", ")
    )]
    NoVariant {
        host: String,
        /// Each with what the host lacks of it.
        variants: Vec<String>,
    },
    #[error(
        "the artifact calls into engine {found}, this program has engine {expected}: build it with \
         the `faas-wasm` of the same release"
    )]
    Engine { expected: String, found: String },
}

pub(crate) fn names(features: &[CpuFeature]) -> String {
    let names: Vec<_> = features.iter().map(|feature| feature.name()).collect();
    names.join(", ")
}
