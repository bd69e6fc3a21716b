//! Stands in for `cranelift.rs` in a build without the feature `cranelift`.

use std::io;

use faas_wasm_artifact::CpuFeature;
use wasmer_compiler::CompilerConfig;

use super::Options;
use super::cross::CrossConfig;

pub(super) const VERSION: Option<&str> = None;

pub(super) const UNUSABLE_FEATURES: &[CpuFeature] = &[];

pub(super) fn config(_: &Options) -> Option<Box<dyn CompilerConfig>> {
    None
}

pub(super) fn cross_config(_: &Options) -> Option<io::Result<CrossConfig>> {
    None
}
