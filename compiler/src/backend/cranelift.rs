//! wasmer-compiler-cranelift.

use faas_wasm_artifact::{CpuFeature, OptLevel};
use wasmer_compiler::CompilerConfig;
use wasmer_compiler_cranelift::{Cranelift, CraneliftOptLevel};

use super::Options;

pub(super) const VERSION: Option<&str> = Some(wasmer_compiler_cranelift::VERSION);

/// What `Cranelift::isa` does not pass on. (NEON is part of its aarch64 whatever it is told.)
pub(super) const UNUSABLE_FEATURES: &[CpuFeature] = &[CpuFeature::Fma, CpuFeature::Avx512f];

pub(super) fn config(options: &Options) -> Option<Box<dyn CompilerConfig>> {
    let mut config = Cranelift::new();
    config
        .experimental_artifact(true)
        .num_threads(options.jobs)
        // Cranelift knows two levels: it optimizes or it does not.
        .opt_level(match options.opt_level {
            OptLevel::None => CraneliftOptLevel::None,
            OptLevel::Less | OptLevel::Default | OptLevel::Aggressive => CraneliftOptLevel::Speed,
        });
    Some(Box::new(config))
}
