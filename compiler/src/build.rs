//! `faas-wasm build`: from a WebAssembly module to an artifact. One function a step.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Instant;

use faas_wasm_artifact::{
    Backend, Contents, IMAGE_ALIGNMENT, Import, Manifest, MemorySummary, OptLevel, Written,
};
use sha2::{Digest as _, Sha256};

use crate::backend;
use crate::convert::{self, Parts};
use crate::error::Error;
use crate::imports;
use crate::input;
use crate::lift::{self, Lifted};
use crate::module::Module;
use crate::output::Output;
use crate::progress::Progress;
use crate::summary::Summary;
use crate::target::{Level, Target};

/// The options that decide an artifact's content.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) backend: Backend,
    pub(crate) compile: backend::Options,
}

/// The options as they were given.
#[derive(Debug)]
pub(crate) struct RawOptions<'a> {
    pub(crate) backend: Option<Backend>,
    pub(crate) target: Option<&'a str>,
    pub(crate) levels: &'a [Level],
    pub(crate) features: Option<&'a str>,
    pub(crate) opt_level: OptLevel,
    pub(crate) jobs: Option<NonZero<usize>>,
}

impl Options {
    /// Finds out what is meant, with defaults for what was not given.
    ///
    /// # Errors
    ///
    /// Names that are not known, do not fit together or are not part of this build.
    pub(crate) fn resolve(raw: &RawOptions<'_>) -> Result<Self, Error> {
        let backend = raw
            .backend
            .or_else(backend::default)
            // A build without any backend can still inspect and verify.
            .unwrap_or(Backend::Cranelift);
        if backend::version(backend).is_none() {
            return Err(Error::NoBackend {
                backend: backend.name(),
                other: backend::alternative(backend).map(Backend::name),
            });
        }
        let target = Target::resolve(raw.target, raw.levels, raw.features, backend)?;
        let jobs = raw
            .jobs
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZero::<usize>::MIN);
        Ok(Self {
            backend,
            compile: backend::Options {
                opt_level: raw.opt_level,
                jobs,
                target,
            },
        })
    }
}

/// The default name of an artifact: `foo.so` for `foo.wasm`, in the same directory.
pub(crate) fn default_output(input: &Path) -> PathBuf {
    input.with_extension("so")
}

/// Builds the artifact `output` from the module `input`.
///
/// # Errors
///
/// Whatever goes wrong; then there is no output.
pub(crate) fn build(
    input: &Path,
    output: &Path,
    options: &Options,
    quiet: bool,
) -> Result<Summary, Error> {
    let wasm = input::read(input)?;
    build_from(input, &wasm, output, options, quiet)
}

/// The same for a module that was read already.
///
/// # Errors
///
/// See [`build`].
pub(crate) fn build_from(
    input: &Path,
    wasm: &[u8],
    output: &Path,
    options: &Options,
    quiet: bool,
) -> Result<Summary, Error> {
    let started = Instant::now();
    let output = Output::prepare(output, input)?;
    validate(input, wasm, options)?;
    let module = Module::parse(wasm).map_err(|error| Error::Invalid {
        path: input.into(),
        source: error.into(),
    })?;
    input::check_entry(input, &module)?;
    let needs_cuda = imports::check(input, &module)?;
    let lifted = lift::lift(input, &module)?;

    let progress = Progress::start(quiet, module.names.offsets.len());
    let compiled = backend::compile(
        options.backend,
        input,
        &lifted.wasm,
        &options.compile,
        progress.callback(),
    );
    progress.finish();
    let compiled = compiled?;
    let parts = convert::convert(&compiled).map_err(|source| Error::BackendOutput {
        backend: options.backend.name(),
        source,
    })?;

    let manifest = manifest(&module, &lifted, &parts, options, needs_cuda);
    let written = write(module, lifted, parts, &compiled.elf, manifest.clone())?;
    output.save(|file| written.save(file))?;
    Ok(Summary {
        path: output.path().into(),
        manifest,
        artifact_size: written.size,
        native: options.compile.target.native,
        elapsed: started.elapsed(),
    })
}

fn validate(path: &Path, wasm: &[u8], options: &Options) -> Result<(), Error> {
    let supported = backend::wasm_features(options.backend, &options.compile)?;
    let other = backend::alternative(options.backend)
        .map(|other| {
            backend::wasm_features(other, &options.compile)
                .map(|features| (other.name(), features))
        })
        .transpose()?;
    input::validate(path, wasm, &supported, options.backend.name(), other)
}

fn manifest(
    module: &Module<'_>,
    lifted: &Lifted,
    parts: &Parts,
    options: &Options,
    needs_cuda: bool,
) -> Manifest {
    let imported_memories = module.imported_memories();
    Manifest {
        producer: format!("faas-wasm {}", env!("CARGO_PKG_VERSION")),
        backend: options.backend,
        backend_version: backend::version(options.backend).unwrap_or_default().into(),
        // The backends, their interface and wasmer-vm are pinned to one version.
        engine_version: wasmer_compiler::VERSION.into(),
        wasm_sha256: Sha256::digest(module.wasm).into(),
        wasm_size: module.wasm.len() as u64,
        triple: options.compile.target.triple.to_string(),
        cpu_features: options.compile.target.features.clone(),
        opt_level: options.compile.opt_level,
        memories: parts
            .module
            .memories
            .iter()
            .enumerate()
            .map(|(index, memory)| MemorySummary {
                minimum: memory.minimum,
                maximum: memory.maximum,
                shared: memory.shared,
                imported: index < imported_memories,
            })
            .collect(),
        imports: module
            .imports
            .iter()
            .map(|import| Import {
                module: import.module.into(),
                name: import.name.into(),
                ty: imports::describe(module, import),
            })
            .collect(),
        needs_cuda,
        entry: input::ENTRY.into(),
        functions: parts.module.local_functions,
        code_size: parts.code_size,
        image_size: lifted
            .images
            .iter()
            .map(|image| (image.bytes.len() as u64).next_multiple_of(IMAGE_ALIGNMENT))
            .sum(),
    }
}

fn write(
    module: Module<'_>,
    lifted: Lifted,
    parts: Parts,
    elf: &[u8],
    manifest: Manifest,
) -> Result<Written, Error> {
    Ok(faas_wasm_artifact::write(Contents {
        elf,
        manifest,
        module: parts.module,
        tables: parts.tables,
        names: module.names,
        traps: parts.traps,
        images: lifted.images,
        passive_data: lifted.passive_data,
    })?)
}
