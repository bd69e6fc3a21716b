//! The seam between the pipeline and the code generators.
//!
//! A backend is a name, a version, what it can be told to use, and a configuration of wasmer's
//! compiler interface. A backend that is not compiled in is a twin file that says so; no code
//! outside of this module asks which ones are. What comes out is an ELF shared object and
//! wasmer's description of the module; [`crate::convert`] turns both into our own format. For
//! another architecture than this machine's the link is ours, see [`cross`].

mod cross;
mod panic;

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
use std::sync::Arc;

use faas_wasm_artifact::{Backend, CpuFeature, OptLevel};
use wasmer_compiler::{ArtifactCreate as _, CompilerConfig, EngineBuilder};
use wasmer_types::target::{CpuFeature as EngineFeature, Target as EngineTarget};
use wasmer_types::{CompilationProgressCallback, Features, ModuleInfo};

use self::cross::{Code, CrossConfig, ObjectDirectory};
use crate::emit::Emit;
use crate::error::{BackendOutput, Error};
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
    #[cfg_attr(
        not(any(feature = "cranelift", feature = "llvm")),
        allow(dead_code, reason = "there is no backend to read it")
    )]
    pub(crate) debug: bool,
    /// What is kept of the backend's intermediate output.
    pub(crate) emit: Option<Emit>,
}

/// What a backend made.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) module: ModuleInfo,
    pub(crate) elf: Vec<u8>,
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
    Ok(config(backend, options)?.supported_features_for_target(&target))
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
    progress: CompilationProgressCallback,
) -> Result<Compiled, Error> {
    let mut options = options.clone();
    let directory = directory(backend, &options)?;
    if directory.is_some() {
        options.jobs = cross::jobs(wasm, options.jobs);
    }
    let config = if options.target.is_foreign() {
        cross_config(backend, &options, directory.clone())?
    } else {
        native_config(backend, &options, directory.as_deref())?
    };
    let target = engine_target(&options.target);
    let features = config.supported_features_for_target(&target);
    let compiled = panic::catch(|| {
        let engine = EngineBuilder::new(config)
            .set_target(Some(target))
            .set_features(Some(features))
            .engine();
        engine.compile_with_progress(wasm, Some(progress))
    });
    let artifact = compiled
        .map_err(|source| Error::BackendPanic {
            path: path.into(),
            backend: backend.name(),
            other: alternative(backend).map(Backend::name),
            source,
        })?
        .map_err(|source| Error::Backend {
            path: path.into(),
            backend: backend.name(),
            source,
        })?;
    if let (Some(directory), Some(emit), Some(to)) = (directory, options.emit, emit_to) {
        directory.save(emit, to).map_err(|source| Error::Write {
            path: to.into(),
            source,
        })?;
    }
    let elf = artifact
        .serialize()
        .map_err(|source| Error::BackendOutput {
            backend: backend.name(),
            source: BackendOutput::Serialize(source),
        })?;
    Ok(Compiled {
        module: artifact.module_info().clone(),
        elf,
    })
}

fn config(backend: Backend, options: &Options) -> Result<Box<dyn CompilerConfig>, Error> {
    let config = match backend {
        Backend::Llvm => llvm::config(options),
        Backend::Cranelift => cranelift::config(options),
    };
    config.ok_or_else(|| missing(backend))
}

/// A directory for the files of LLVM's dump, where they are needed.
fn directory(backend: Backend, options: &Options) -> Result<Option<Arc<ObjectDirectory>>, Error> {
    let needed =
        backend == Backend::Llvm && (options.target.is_foreign() || options.emit.is_some());
    if !needed {
        return Ok(None);
    }
    let directory = ObjectDirectory::new(options.emit);
    directory
        .map(|directory| Some(Arc::new(directory)))
        .map_err(|source| Error::TemporaryDirectory {
            path: std::env::temp_dir(),
            source,
        })
}

fn native_config(
    backend: Backend,
    options: &Options,
    directory: Option<&ObjectDirectory>,
) -> Result<Box<dyn CompilerConfig>, Error> {
    let config = match directory {
        Some(directory) => llvm::dumping_config(options, directory),
        None => return config(backend, options),
    };
    config.ok_or_else(|| missing(backend))
}

fn cross_config(
    backend: Backend,
    options: &Options,
    directory: Option<Arc<ObjectDirectory>>,
) -> Result<Box<dyn CompilerConfig>, Error> {
    let (inner, code) = match directory {
        Some(directory) => (
            llvm::dumping_config(options, &directory),
            Code::Objects(directory),
        ),
        None => (cranelift::bodies_config(options), Code::Bodies),
    };
    Ok(Box::new(CrossConfig {
        inner: inner.ok_or_else(|| missing(backend))?,
        code,
        jobs: options.jobs,
        debug: options.debug,
    }))
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
