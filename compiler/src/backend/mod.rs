//! The seam between the pipeline and the code generators.
//!
//! A backend is a name, a version, what it can be told to use, and a configuration of wasmer's
//! compiler interface. A backend that is not compiled in is a twin file that says so; no code
//! outside of this module asks which ones are. What comes out is an ELF shared object and
//! wasmer's description of the module; [`crate::convert`] turns both into our own format.
//!
//! A backend makes an object of each function; cache and link are ours, see [`incremental`].

mod dump;
mod incremental;
mod key;
mod link;
mod object;
mod panic;
mod renumber;
mod rewrite;

#[cfg(feature = "cranelift")]
mod cranelift;
#[cfg(not(feature = "cranelift"))]
#[path = "cranelift_disabled.rs"]
mod cranelift;
#[cfg(feature = "llvm")]
mod llvm;
#[cfg(not(feature = "llvm"))]
#[path = "llvm_disabled.rs"]
mod llvm;

use std::num::NonZero;
use std::path::Path;
use std::sync::PoisonError;

use faas_wasm_artifact::{Backend, CpuFeature, OptLevel};
use target_lexicon::Architecture;
use wasmer_compiler::{CompilerConfig, EngineBuilder};
use wasmer_types::target::{CpuFeature as EngineFeature, Target as EngineTarget};
use wasmer_types::{CompilationProgressCallback, Features, ModuleInfo};

use self::dump::Dump;
pub(crate) use self::incremental::Error as CompilationError;
use self::incremental::Outcome;
use crate::cache::Cache;
use crate::emit::Emit;
use crate::error::{BackendOutput, Error};
use crate::module::Module;
use crate::tail_calls;
use crate::target::Target;

/// All backends, the default one first.
pub(crate) const ALL: [Backend; 2] = [Backend::Llvm, Backend::Cranelift];

/// What a backend needs to know beside the module.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) opt_level: OptLevel,
    /// Threads to compile with. The output does not depend on it.
    #[cfg_attr(
        not(any(feature = "cranelift", feature = "llvm")),
        allow(dead_code, reason = "there is no backend to read it")
    )]
    pub(crate) jobs: NonZero<usize>,
    pub(crate) target: Target,
    /// Whether the output's DWARF will be used.
    pub(crate) debug: bool,
    /// What is kept of the backend's intermediate output.
    pub(crate) emit: Option<Emit>,
}

/// What a backend made.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) module: ModuleInfo,
    pub(crate) elf: Vec<u8>,
    /// Functions whose code came from the cache.
    pub(crate) reused: usize,
}

/// Version of a backend, or `None` if it is not compiled in.
pub(crate) fn version(backend: Backend) -> Option<&'static str> {
    match backend {
        Backend::Llvm => llvm::VERSION,
        Backend::Cranelift => cranelift::VERSION,
    }
}

/// The first backend that is compiled in.
pub(crate) fn default() -> Option<Backend> {
    ALL.into_iter().find(|backend| version(*backend).is_some())
}

/// A backend that is compiled in, other than `backend`: worth a try where that one fails.
pub(crate) fn alternative(backend: Backend) -> Option<Backend> {
    ALL.into_iter()
        .find(|other| *other != backend && version(*other).is_some())
}

/// The part of a CPU's features that a backend can be told to use.
pub(crate) fn usable_features(backend: Backend, features: &[CpuFeature]) -> Vec<CpuFeature> {
    let unusable = match backend {
        Backend::Llvm => llvm::UNUSABLE_FEATURES,
        Backend::Cranelift => cranelift::UNUSABLE_FEATURES,
    };
    let usable = features.iter().copied();
    usable
        .filter(|feature| !unusable.contains(feature))
        .collect()
}

/// The WebAssembly features that a backend supports.
pub(crate) fn wasm_features(backend: Backend, options: &Options) -> Result<Features, Error> {
    let target = engine_target(&options.target);
    let mut features = config(backend, options)?.supported_features_for_target(&target);
    let architecture = options.target.triple.architecture;
    if backend == Backend::Cranelift && matches!(architecture, Architecture::Riscv64(_)) {
        // It has vectors there only with an extension that no target of ours has.
        features.simd(false);
        features.relaxed_simd(false);
    }
    Ok(features)
}

/// Compiles a validated module. Intermediate output that is wanted goes to the directory `emit_to`.
///
/// # Errors
///
/// The backend's own, and its panics.
pub(crate) fn compile(
    backend: Backend,
    path: &Path,
    wasm: &[u8],
    options: &Options,
    emit_to: Option<&Path>,
    cache: &Cache,
    progress: CompilationProgressCallback,
) -> Result<Compiled, Error> {
    let mut options = options.clone();
    if backend == Backend::Llvm && options.opt_level == OptLevel::None && has_tail_calls(wasm) {
        // Without optimization LLVM makes them calls, unless the types of both functions are equal.
        options.opt_level = OptLevel::Less;
    }
    let dump = dump(backend, &options)?;
    if dump.is_some() {
        options.jobs = dump::jobs(wasm, options.jobs);
    }
    let outcome = Outcome::default();
    let config = incremental::Config {
        inner: match &dump {
            Some(dump) => llvm::dumping_config(&options, dump).ok_or_else(|| missing(backend))?,
            None => config(backend, &options)?,
        },
        backend,
        options: options.clone(),
        cache: cache.clone(),
        outcome: outcome.clone(),
    };
    let target = engine_target(&options.target);
    let features = config.supported_features_for_target(&target);
    let refused = panic::catch(|| {
        let engine = EngineBuilder::new(Box::new(config) as Box<dyn CompilerConfig>)
            .set_target(Some(target))
            .set_features(Some(features))
            .engine();
        // Without a result it is always an error; before the compiler is called it is a true one.
        engine.compile_with_progress(wasm, Some(progress)).err()
    })
    .map_err(|source| Error::BackendPanic {
        path: path.into(),
        backend: backend.name(),
        other: alternative(backend).map(Backend::name),
        source,
    })?;
    if let (Some(dump), Some(to)) = (&dump, emit_to) {
        dump.save(to).map_err(|source| Error::Write {
            path: to.into(),
            source,
        })?;
    }
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    match (outcome.take(), refused) {
        (Some(Ok(compiled)), _) => Ok(compiled),
        (Some(Err(CompilationError::Backend(source))), _) | (None, Some(source)) => {
            Err(Error::Backend {
                path: path.into(),
                backend: backend.name(),
                source,
            })
        }
        (Some(Err(source)), _) if source.is_too_large() => Err(Error::CodeTooLarge {
            path: path.into(),
            architecture: options.target.architecture(),
            source: Box::new(source),
        }),
        (Some(Err(source)), _) => Err(Error::BackendOutput {
            backend: backend.name(),
            source: BackendOutput::Compilation(source),
        }),
        (None, None) => Err(Error::BackendOutput {
            backend: backend.name(),
            source: BackendOutput::Compilation(CompilationError::NoObjects),
        }),
    }
}

fn has_tail_calls(wasm: &[u8]) -> bool {
    Module::parse(wasm).is_ok_and(|module| tail_calls::any(&module))
}

fn config(backend: Backend, options: &Options) -> Result<Box<dyn CompilerConfig>, Error> {
    let config = match backend {
        Backend::Llvm => llvm::config(options),
        Backend::Cranelift => cranelift::config(options),
    };
    config.ok_or_else(|| missing(backend))
}

/// A directory for what is wanted of LLVM's intermediate output.
fn dump(backend: Backend, options: &Options) -> Result<Option<Dump>, Error> {
    let Some(wanted) = options.emit.filter(|_| backend == Backend::Llvm) else {
        return Ok(None);
    };
    let dump = Dump::new(wanted);
    dump.map(Some).map_err(|source| Error::TemporaryDirectory {
        path: std::env::temp_dir(),
        source,
    })
}

fn missing(backend: Backend) -> Error {
    Error::NoBackend {
        backend: backend.name(),
        other: alternative(backend).map(Backend::name),
    }
}

fn engine_target(target: &Target) -> EngineTarget {
    let features = target
        .features
        .iter()
        .map(|feature| engine_feature(*feature));
    EngineTarget::new(target.triple.clone(), features.collect())
}

fn engine_feature(feature: CpuFeature) -> EngineFeature {
    match feature {
        CpuFeature::Sse2 => EngineFeature::SSE2,
        CpuFeature::Sse3 => EngineFeature::SSE3,
        CpuFeature::Ssse3 => EngineFeature::SSSE3,
        CpuFeature::Sse41 => EngineFeature::SSE41,
        CpuFeature::Sse42 => EngineFeature::SSE42,
        CpuFeature::Popcnt => EngineFeature::POPCNT,
        CpuFeature::Avx => EngineFeature::AVX,
        CpuFeature::Bmi1 => EngineFeature::BMI1,
        CpuFeature::Bmi2 => EngineFeature::BMI2,
        CpuFeature::Avx2 => EngineFeature::AVX2,
        CpuFeature::Avx512dq => EngineFeature::AVX512DQ,
        CpuFeature::Avx512vl => EngineFeature::AVX512VL,
        CpuFeature::Avx512f => EngineFeature::AVX512F,
        CpuFeature::Lzcnt => EngineFeature::LZCNT,
        CpuFeature::Fma => EngineFeature::FMA,
        CpuFeature::Neon => EngineFeature::NEON,
    }
}
