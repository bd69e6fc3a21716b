//! wasmer-compiler-llvm. Its licence, BUSL-1.1, is told wherever a user meets it.

use std::io;

use faas_wasm_artifact::{CpuFeature, OptLevel};
use wasmer_compiler::CompilerConfig;
use wasmer_compiler_llvm::{LLVM, LLVMCallbacks, LLVMOptLevel};

use super::Options;
use super::cross::{Code, CrossConfig, ObjectDirectory};

/// The crate has no constant for its version. It is pinned to the compiler interface's.
pub(super) const VERSION: Option<&str> = Some(wasmer_compiler::VERSION);

pub(super) const UNUSABLE_FEATURES: &[CpuFeature] = &[];

pub(super) fn config(options: &Options) -> Option<Box<dyn CompilerConfig>> {
    Some(Box::new(llvm(options)))
}

pub(super) fn cross_config(options: &Options) -> Option<io::Result<CrossConfig>> {
    Some(ObjectDirectory::new().and_then(|directory| {
        let mut inner = llvm(options);
        inner.callbacks(Some(LLVMCallbacks::new(directory.path().into())?));
        Ok(CrossConfig {
            inner: Box::new(inner),
            code: Code::Objects(directory),
            jobs: options.jobs,
        })
    }))
}

fn llvm(options: &Options) -> LLVM {
    let mut config = LLVM::new();
    config
        .experimental_artifact(true)
        // Guest accesses are volatile otherwise: 1.35x native instead of 1.17x.
        .non_volatile_memops(true)
        .readonly_funcref_table(true)
        .num_threads(options.jobs)
        .opt_level(match options.opt_level {
            OptLevel::None => LLVMOptLevel::None,
            OptLevel::Less => LLVMOptLevel::Less,
            OptLevel::Default => LLVMOptLevel::Default,
            OptLevel::Aggressive => LLVMOptLevel::Aggressive,
        });
    config
}
