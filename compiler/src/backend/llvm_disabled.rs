//! Stands in for `llvm.rs` in a build without the feature `llvm`.

use faas_wasm_artifact::CpuFeature;
use wasmer_compiler::CompilerConfig;

use super::Options;
use super::dump::Dump;

pub(super) const VERSION: Option<&str> = None;

pub(super) const UNUSABLE_FEATURES: &[CpuFeature] = &[];

pub(super) fn config(_: &Options) -> Option<Box<dyn CompilerConfig>> {
    None
}

pub(super) fn dumping_config(_: &Options, _: &Dump) -> Option<Box<dyn CompilerConfig>> {
    None
}
