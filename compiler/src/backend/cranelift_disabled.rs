//! Stands in for `cranelift.rs` in a build without the feature `cranelift`.

use faas_wasm_artifact::CpuFeature;
use wasmer_compiler::CompilerConfig;

use super::Options;

pub(super) const VERSION: Option<&str> = None;

pub(super) const UNUSABLE_FEATURES: &[CpuFeature] = &[];

pub(super) fn config(_: &Options) -> Option<Box<dyn CompilerConfig>> {
    None
}
