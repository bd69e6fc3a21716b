//! wasmer-compiler-cranelift.

use faas_wasm_artifact::{CpuFeature, OptLevel};
use wasmer_compiler::CompilerConfig;
use wasmer_compiler_cranelift::{Cranelift, CraneliftOptLevel};

use super::Options;

pub(super) const VERSION: Option<&str> = Some(wasmer_compiler_cranelift::VERSION);

/// What `Cranelift::isa` does not pass on. (NEON is part of its aarch64 whatever it is told.)
pub(super) const UNUSABLE_FEATURES: &[CpuFeature] = &[CpuFeature::Fma, CpuFeature::Avx512f];

pub(super) fn config(options: &Options) -> Option<Box<dyn CompilerConfig>> {
    let mut config = cranelift(options);
    config.experimental_artifact(true);
    Some(Box::new(config))
}

/// The same, but what comes out are bodies of functions.
pub(super) fn bodies_config(options: &Options) -> Option<Box<dyn CompilerConfig>> {
    Some(Box::new(cranelift(options)))
}

fn cranelift(options: &Options) -> Cranelift {
    let mut config = Cranelift::new();
    config
        .num_threads(options.jobs)
        // Cranelift knows two levels: it optimizes or it does not.
        .opt_level(match options.opt_level {
            OptLevel::None => CraneliftOptLevel::None,
            OptLevel::Less | OptLevel::Default | OptLevel::Aggressive => CraneliftOptLevel::Speed,
        });
    config
}
