//! `faas-wasm build`: from a WebAssembly module to an artifact. One function a step.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use faas_wasm_artifact::{
    Backend, Contents, CudaAbi, Import, LineTable, Manifest, MemorySummary, OptLevel, Variant,
};
use sha2::{Digest as _, Sha256};

use crate::backend;
use crate::cache::{Cache, Wish};
use crate::check;
use crate::convert::{self, Parts};
use crate::cuda;
use crate::elements;
use crate::emit::Emit;
use crate::entry;
use crate::error::{Error, InvalidModule};
use crate::exnref;
use crate::imports;
use crate::input;
use crate::jump_tables;
use crate::lift;
use crate::lines;
use crate::module::Module;
use crate::output::Output;
use crate::preinit::{self, Preinit};
use crate::progress::Progress;
use crate::sbom::{self, Subject};
use crate::summary::Summary;
use crate::tail_calls;
use crate::target::{Level, Target};
use crate::trap_imports;
use crate::wrap;

/// The options that decide an artifact's content.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) backend: Backend,
    /// The data model of CUDA imports, if it was given.
    pub(crate) cuda_abi: Option<CudaAbi>,
    pub(crate) opt_level: OptLevel,
    pub(crate) jobs: NonZero<usize>,
    /// What to compile for; several make a fat artifact. Never empty.
    pub(crate) targets: Vec<Target>,
    /// Whether DWARF and source lines are kept.
    pub(crate) debug: bool,
    /// What is written beside the artifact.
    pub(crate) emit: Option<Emit>,
    /// Whether imported functions that nobody provides become traps.
    pub(crate) allow_unknown_imports: bool,
    /// The export that a request runs, if it is another than `_start`.
    pub(crate) entry: Option<String>,
    /// Where compiled functions are kept. The output does not depend on it.
    pub(crate) cache: Cache,
}

/// The options as they were given.
#[derive(Debug)]
pub(crate) struct RawOptions<'a> {
    pub(crate) backend: Option<Backend>,
    pub(crate) targets: &'a [&'a str],
    pub(crate) levels: &'a [Level],
    pub(crate) features: Option<&'a str>,
    pub(crate) opt_level: OptLevel,
    pub(crate) debug: bool,
    pub(crate) jobs: Option<NonZero<usize>>,
    pub(crate) cuda_abi: Option<CudaAbi>,
    pub(crate) allow_unknown_imports: bool,
    pub(crate) entry: Option<String>,
    pub(crate) cache: Wish,
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
        let targets = Target::resolve(raw.targets, raw.levels, raw.features, backend)?;
        if raw.debug && backend == Backend::Cranelift && targets.iter().any(Target::is_foreign) {
            return Err(Error::ForeignDebug {
                backend: backend.name(),
            });
        }
        let jobs = raw
            .jobs
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZero::<usize>::MIN);
        Ok(Self {
            backend,
            cuda_abi: raw.cuda_abi,
            opt_level: raw.opt_level,
            jobs,
            targets,
            debug: raw.debug,
            emit: None,
            allow_unknown_imports: raw.allow_unknown_imports,
            entry: raw.entry.clone(),
            cache: Cache::open(&raw.cache)?,
        })
    }

    /// The same with something to write beside the artifact.
    ///
    /// # Errors
    ///
    /// If the backend does not have it, or the artifact several variants.
    pub(crate) fn emit(self, emit: Option<Emit>) -> Result<Self, Error> {
        if emit.is_some() && self.backend != Backend::Llvm {
            return Err(Error::EmitBackend {
                backend: self.backend.name(),
            });
        }
        if emit.is_some() && self.targets.len() > 1 {
            return Err(Error::EmitVariants {
                count: self.targets.len(),
            });
        }
        Ok(Self { emit, ..self })
    }

    /// What the backend is told for one of the targets.
    fn for_target(&self, target: &Target) -> backend::Options {
        backend::Options {
            opt_level: self.opt_level,
            jobs: self.jobs,
            target: target.clone(),
            debug: self.debug,
            emit: self.emit,
        }
    }
}

/// What is written beside and about the artifact, but not into it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extras {
    /// Where to write what it is made of.
    pub(crate) sbom: Option<PathBuf>,
    /// The time of all files, in seconds since 1970 (SOURCE_DATE_EPOCH).
    pub(crate) time: Option<u64>,
}

fn set_time(file: &File, time: Option<u64>) -> io::Result<()> {
    match time {
        Some(seconds) => file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
        None => Ok(()),
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn file_sha256(path: &Path) -> Result<[u8; 32], Error> {
    let mut hash = Sha256::new();
    let result = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hash));
    result.map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    Ok(hash.finalize().into())
}

impl Options {
    /// Options for code of a module that runs here, once, and soon.
    fn quick_for_host(other: &Self, path: &Path, wasm: &[u8]) -> Result<Self, Error> {
        let by = |backend| Self::for_host(other, backend);
        match backend::version(Backend::Cranelift) {
            // It may lack what the module uses.
            Some(_) => by(Backend::Cranelift)
                .and_then(|quick| validate(path, wasm, &quick).map(|()| quick))
                .or_else(|_| by(other.backend)),
            None => by(other.backend),
        }
    }

    fn for_host(other: &Self, backend: Backend) -> Result<Self, Error> {
        Self::resolve(&RawOptions {
            backend: Some(backend),
            targets: &[],
            levels: &[],
            features: None,
            opt_level: OptLevel::None,
            debug: false,
            jobs: Some(other.jobs),
            cuda_abi: None,
            allow_unknown_imports: other.allow_unknown_imports,
            // What is built with these has one of its own.
            entry: None,
            cache: Wish {
                off: true,
                ..Wish::default()
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
    preinit: Option<&Preinit>,
    options: &Options,
    extras: &Extras,
    quiet: bool,
) -> Result<Summary, Error> {
    let mut wasm = input::read(input)?;
    if let Some(preinit) = preinit {
        validate(input, &wasm, options)?;
        elements::check(input, &parse(input, &wasm)?)?;
        let quick = Options::quick_for_host(options, input, &wasm)?;
        wasm = preinit::initialize(input, &wasm, preinit, &quick)?;
    }
    build_from(input, &wasm, output, options, extras, quiet)
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
    extras: &Extras,
    quiet: bool,
) -> Result<Summary, Error> {
    let started = Instant::now();
    let output = Output::prepare(output, input)?;
    let sbom_output = match &extras.sbom {
        Some(path) => Some(Output::prepare(path, input)?),
        None => None,
    };
    if let Some(sbom) = &sbom_output {
        sbom.differs_from(&output)?;
    }
    let original = wasm;
    validate(input, original, options)?;
    // What the module is rewritten to lives longer than what borrows from it.
    let (command, replaced);
    let mut module = parse(input, original)?;
    check_tail_calls(input, &module, options)?;
    let (given_offsets, given_bodies) = (module.names.offsets.clone(), module.bodies());
    command = entry::command(input, &module, options.entry.as_deref())?;
    if let Some(command) = &command {
        module = parse(input, command)?;
    }
    replaced = if options.allow_unknown_imports {
        trap_imports::rewrite(&module).map_err(|source| Error::TrapImports {
            path: input.into(),
            source,
        })?
    } else {
        None
    };
    if let Some(replaced) = &replaced {
        module = parse(input, &replaced.wasm)?;
    }
    imports::check(input, &module)?;
    elements::check(input, &module)?;
    let cuda = cuda::derive(input, &module, options.cuda_abi)?;
    let wrapped = wrap::wrap(&module).map_err(|source| Error::Wrap {
        path: input.into(),
        source,
    })?;
    let rewritten = match &wrapped {
        Some(wrapped) => Some(parse(input, &wrapped.wasm)?),
        None => None,
    };
    let rewritten = rewritten.as_ref().unwrap_or(&module);
    let functions = rewritten.names.offsets.len();
    let beyond_limits = check::beyond_limits(rewritten);
    // What is added can move the functions, which DWARF would not know.
    let stays = rewritten.bodies().starts_with(&given_bodies);
    let debug = if options.debug && stays {
        &module.debug[..]
    } else {
        &[]
    };
    let without_lines = match (module.debug.is_empty(), stays) {
        (true, _) => Some("the module has no DWARF, compile it with `-g`"),
        (_, false) => Some("what the build adds has moved the module's functions"),
        _ => None,
    };
    let lifted = lift::lift(input, rewritten, debug)?;
    let has_lines = !debug.is_empty();
    if let Some(wrapped) = &wrapped {
        wrapped.name(&mut module);
    }
    // In the file that the user has; what was added comes last, and has no place in it.
    module.names.offsets = given_offsets;

    let mut compiled = Vec::new();
    let emit_to = options.emit.map(|emit| emit.directory(output.path()));
    for target in &options.targets {
        let progress = Progress::start(quiet, functions);
        let result = compile(
            input,
            &lifted.wasm,
            options,
            target,
            has_lines,
            emit_to.as_deref(),
            &progress,
        );
        progress.finish();
        compiled.push(result?);
    }
    let variants = compiled.iter_mut().map(|code| {
        let manifest = manifest(
            original,
            &module,
            &code.parts,
            options,
            code.target,
            cuda.as_ref(),
        );
        Variant {
            elf: &code.elf,
            manifest,
            module: std::mem::take(&mut code.parts.module),
            tables: std::mem::take(&mut code.parts.tables),
            traps: std::mem::take(&mut code.parts.traps),
            lines: std::mem::take(&mut code.lines),
            debug: options.debug,
        }
    });
    let written = faas_wasm_artifact::write(Contents {
        variants: variants.collect(),
        names: module.names,
        images: lifted.images,
        passive_data: lifted.passive_data,
    })?;
    // Before what can fail: the disk may be full because of it.
    options.cache.prune(None);
    output.save(|file| {
        written.save(file)?;
        set_time(file, extras.time)
    })?;
    let sha256 = file_sha256(output.path())?;
    if let Some(sbom_output) = &sbom_output {
        let subject = Subject {
            artifact: &file_name(output.path()),
            module: &file_name(input),
            artifact_sha256: sha256,
            manifests: &written.manifests,
            wasm: original,
            time: extras.time,
        };
        let text = sbom::document(&subject);
        sbom_output.save(|mut file| {
            io::Write::write_all(&mut file, text.as_bytes())?;
            set_time(file, extras.time)
        })?;
    }
    Ok(Summary {
        path: output.path().into(),
        code_sizes: compiled.iter().map(|code| code.parts.code_size).collect(),
        manifests: written.manifests.clone(),
        artifact_size: written.size,
        sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        sbom: extras.sbom.clone(),
        without_lines: without_lines.filter(|_| options.debug),
        trapping: replaced
            .map(|replaced| replaced.functions)
            .unwrap_or_default(),
        beyond_limits,
        reused: options
            .cache
            .is_on()
            .then(|| compiled.iter().map(|code| code.reused).sum()),
        native: options.targets.iter().any(|target| target.native),
        unknown_cuda: cuda.map(|found| found.unknown).unwrap_or_default(),
        elapsed: started.elapsed(),
    })
}

/// A module compiled for one target.
struct Code<'a> {
    target: &'a Target,
    elf: Vec<u8>,
    parts: Parts,
    lines: LineTable,
    reused: usize,
}

fn compile<'a>(
    input: &Path,
    wasm: &[u8],
    options: &Options,
    target: &'a Target,
    has_lines: bool,
    emit_to: Option<&Path>,
    progress: &Progress,
) -> Result<Code<'a>, Error> {
    let compiled = backend::compile(
        options.backend,
        input,
        wasm,
        &options.for_target(target),
        emit_to,
        &options.cache,
        progress.callback(),
    )?;
    let not_expected = |source| Error::BackendOutput {
        backend: options.backend.name(),
        source,
    };
    let parts = convert::convert(&compiled).map_err(not_expected)?;
    let lines = if has_lines {
        lines::read(&compiled.elf).map_err(not_expected)?
    } else {
        LineTable::default()
    };
    Ok(Code {
        target,
        elf: compiled.elf,
        parts,
        lines,
        reused: compiled.reused,
    })
}

/// Walks over a valid module.
///
/// # Errors
///
/// None if it is valid.
pub(crate) fn parse<'a>(path: &Path, wasm: &'a [u8]) -> Result<Module<'a>, Error> {
    Module::parse(wasm).map_err(|error| Error::Invalid {
        path: path.into(),
        source: error.into(),
    })
}

/// Validates a module with what the backend supports.
///
/// # Errors
///
/// What is wrong with it, or what is not supported.
pub(crate) fn validate(path: &Path, wasm: &[u8], options: &Options) -> Result<(), Error> {
    for target in &options.targets {
        let compile = options.for_target(target);
        let supported = backend::wasm_features(options.backend, &compile)?;
        let other = backend::alternative(options.backend)
            .map(|other| {
                backend::wasm_features(other, &compile).map(|features| (other.name(), features))
            })
            .transpose()?;
        input::validate(path, wasm, &supported, options.backend.name(), other)?;
        jump_tables::check(path, wasm, options.backend, target)?;
    }
    let found = exnref::find(wasm, options.backend).map_err(|error| Error::Invalid {
        path: path.into(),
        source: error.into(),
    })?;
    let Some(found) = found else {
        return Ok(());
    };
    Err(Error::UnsupportedFeature {
        path: path.into(),
        feature: found.feature,
        backend: options.backend.name(),
        other_backend: backend::alternative(options.backend)
            .filter(|_| found.by_one)
            .map(Backend::name),
        source: InvalidModule {
            offset: found.offset,
            message: "its type is exnref".into(),
            truncated: false,
        },
    })
}

/// Refuses tail calls for which the backend would take stack.
///
/// # Errors
///
/// [`Error::TailCall`] for the first of them.
pub(crate) fn check_tail_calls(
    path: &Path,
    module: &Module<'_>,
    options: &Options,
) -> Result<(), Error> {
    if options.backend != Backend::Llvm {
        return Ok(());
    }
    let targets = options.targets.iter();
    let architectures = targets.map(|target| target.triple.architecture);
    let refused = tail_calls::refused(module, architectures).map_err(|error| Error::Invalid {
        path: path.into(),
        source: error.into(),
    })?;
    let Some(refused) = refused else {
        return Ok(());
    };
    let mut names = module.names.names.iter();
    let name = names.find(|(function, _)| *function == refused.function);
    Err(Error::TailCall {
        path: path.into(),
        function: refused.function,
        name: name.map(|(_, name)| name.clone()),
        architecture: refused.architecture,
        integers: refused.integers,
        source: refused.call,
    })
}

fn manifest(
    original: &[u8],
    module: &Module<'_>,
    parts: &Parts,
    options: &Options,
    target: &Target,
    cuda: Option<&cuda::Found>,
) -> Manifest<'static> {
    let imported_memories = module.imported_memories();
    Manifest {
        producer: format!("faas-wasm {}", env!("CARGO_PKG_VERSION")),
        backend: options.backend,
        backend_version: backend::version(options.backend).unwrap_or_default().into(),
        // The backends, their interface and wasmer-vm are pinned to one version.
        engine_version: wasmer_compiler::VERSION.into(),
        wasm_sha256: Sha256::digest(original).into(),
        wasm_size: original.len() as u64,
        triple: target.triple.to_string(),
        cpu_features: target.features.clone(),
        opt_level: options.opt_level,
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
                module: import.module.to_owned().into(),
                name: import.name.to_owned().into(),
                ty: imports::describe(module, import).into(),
            })
            .collect(),
        needs_cuda: cuda.is_some(),
        cuda: cuda.map(|found| found.cuda.clone()),
        entry: options.entry.clone().unwrap_or_else(|| entry::START.into()),
        // Not what the build adds.
        functions: module.names.offsets.len() as u32,
        // The writer fills these in.
        code_size: 0,
        image_size: 0,
    }
}

#[cfg(test)]
#[cfg(feature = "cranelift")]
pub(crate) mod tests {
    use faas_wasm_artifact::{Artifact, Export, ImportKind, TrapCode};

    use super::*;

    /// Functions that trap, names, data at both ends of the memory, an active and a passive
    /// element segment, globals of every kind.
    const TEXT: &str = r#"(module
        (type $start (func))
        (type $divide (func (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (memory (export "memory") 40 100)
        (table 4 8 funcref)
        (global $a (mut i32) (i32.const 7))
        (global $b f64 (f64.const nan:0x4000000000001))
        (global $c funcref (ref.func $divide))
        (global $d externref (ref.null extern))
        (elem (i32.const 1) func $divide $start)
        (elem $passive funcref (ref.func $exit) (ref.null func))
        (data (i32.const 16) "low")
        (data (i32.const 2621436) "high")
        (data $kept "passive")
        (func $divide (type $divide) local.get 0 local.get 1 i32.div_s)
        (func $start (export "_start") (type $start)
            (table.init $passive (i32.const 0) (i32.const 0) (i32.const 1))
            (memory.init $kept (i32.const 0) (i32.const 0) (i32.const 7))
            (global.set $a (call_indirect (type $divide)
                (i32.const 1) (call $yield) (i32.const 1)))
            (call $exit (global.get $a))))"#;

    pub(crate) fn options(backend: Backend, jobs: usize) -> Options {
        options_for(backend, &[], jobs)
    }

    pub(crate) fn options_for(backend: Backend, targets: &[&str], jobs: usize) -> Options {
        Options::resolve(&RawOptions {
            backend: Some(backend),
            targets,
            levels: &[Level::Generic],
            features: None,
            opt_level: OptLevel::default(),
            debug: false,
            jobs: NonZero::new(jobs),
            cuda_abi: None,
            allow_unknown_imports: false,
            entry: None,
            cache: Wish {
                off: true,
                ..Wish::default()
            },
        })
        .expect("the options are correct")
    }

    pub(crate) fn artifact(text: &str, options: &Options) -> Vec<u8> {
        let directory = tempfile::tempdir().expect("a directory");
        let input = directory.path().join("a.wasm");
        let wasm = wat::parse_str(text).expect("the text is correct");
        std::fs::write(&input, wasm).expect("it can be written");
        let output = default_output(&input);
        build(&input, &output, None, options, &Extras::default(), true)
            .unwrap_or_else(|error| panic!("{}", error.report()));
        std::fs::read(output).expect("it was written")
    }

    fn check_content(backend: Backend) {
        let file = artifact(TEXT, &options(backend, 1));
        let artifact = Artifact::parse(&file).expect("it is intact");
        let (module, manifest) = (&artifact.module, &artifact.manifest);
        assert_eq!(manifest.backend, backend);
        assert_eq!(manifest.functions, 2);
        assert_eq!(manifest.image_size, 2 << 16);
        assert_eq!(manifest.imports[0].name, "proc_exit");
        assert_eq!(manifest.imports[0].ty, "func (param i32)");
        assert_eq!(module.imported_functions, 2);
        assert!(matches!(module.imports[1].kind, ImportKind::Function(_)));
        assert!(module.exports.contains(&Export::Function {
            name: "_start".into(),
            index: 3
        }));
        assert!(module.exports.contains(&Export::Memory {
            name: "memory".into(),
            index: 0
        }));
        assert_eq!(
            (module.memories[0].minimum, module.memories[0].maximum),
            (40, Some(100))
        );
        assert_eq!(
            (module.tables[0].minimum, module.tables[0].maximum),
            (4, Some(8))
        );
        let inits: Vec<_> = module
            .globals
            .iter()
            .map(|global| global.init.clone())
            .collect();
        use faas_wasm_artifact::GlobalInit::{F64Const, I32Const, RefFunc, RefNull};
        assert_eq!(
            inits,
            [
                Some(I32Const(7)),
                Some(F64Const(0x7ff4_0000_0000_0001)),
                Some(RefFunc(2)),
                Some(RefNull)
            ]
        );
        assert_eq!(module.elements.len(), 1);
        assert_eq!(module.passive_elements.len(), 1);
        let elements: Vec<_> = artifact.tables.elements().collect();
        // The imported function's wrapper is behind all others.
        assert_eq!(elements, [2, 3, 4, u32::MAX]);
        assert_eq!(artifact.tables.code().len(), 3);
        assert_eq!(artifact.tables.trampolines().len(), module.types.len());
        assert_eq!(artifact.tables.signatures().len(), 5);
        // Only the passive segment has bytes; the lifted ones before it count.
        assert_eq!(module.passive_data.len(), 1);
        assert_eq!(module.passive_data[0].segment, 2);
        let data = module.passive_data[0]
            .bytes
            .within(file.len())
            .expect("it is inside");
        assert_eq!(file[data], *b"passive");
        let runs: Vec<_> = module
            .image
            .iter()
            .map(|run| (run.memory, run.address))
            .collect();
        assert_eq!(runs, [(0, 0), (0, 39 << 16)]);
        let high = module.image[1]
            .bytes
            .within(file.len())
            .expect("it is inside");
        assert!(file[high].ends_with(b"high"));
    }

    #[test]
    fn artifact_has_all_of_the_module() {
        check_content(Backend::Cranelift);
        #[cfg(feature = "llvm")]
        check_content(Backend::Llvm);
    }

    #[test]
    #[cfg(feature = "llvm")]
    fn llvm_reads_tables_in_place_that_never_change() {
        let module = |change: &str| {
            format!(
                r#"(module (type $f (func)) (table 2 2 funcref) (elem (i32.const 1) func 0)
                    (func (export "_start") (call_indirect (type $f) (i32.const 1)) {change}))"#
            )
        };
        let readonly = |text: &str| {
            let file = artifact(text, &options(Backend::Llvm, 1));
            let artifact = Artifact::parse(&file).expect("it is intact");
            artifact.module.tables[0].readonly
        };
        assert!(readonly(&module("")));
        let change = "(table.set (i32.const 1) (ref.null func))";
        assert!(!readonly(&module(change)));
    }

    #[test]
    fn same_input_and_options_give_the_same_bytes() {
        let functions = (0..200).fold(String::new(), |text, index| {
            text + &format!(
                "(func (param i32) (result i32) (i32.div_u (i32.const {index}) (local.get 0)))"
            )
        });
        let text = format!(r#"(module {functions} (func (export "_start")))"#);
        let first = artifact(&text, &options(Backend::Cranelift, 1));
        assert_eq!(first, artifact(&text, &options(Backend::Cranelift, 1)));
        assert_eq!(first, artifact(&text, &options(Backend::Cranelift, 4)));
    }

    #[test]
    fn cranelift_tells_which_instructions_trap() {
        let wasm = wat::parse_str(TEXT).expect("the text is correct");
        let options = options(Backend::Cranelift, 1);
        let progress = Progress::start(true, 2).callback();
        let compiled = backend::compile(
            options.backend,
            Path::new("a"),
            &wasm,
            &options.for_target(&options.targets[0]),
            None,
            &options.cache,
            progress,
        )
        .expect("it compiles");
        let parts = convert::convert(&compiled).expect("the output is as expected");
        assert!(parts.traps.is_sorted_by_key(|(address, _)| *address));
        let codes: Vec<_> = parts.traps.iter().map(|(_, code)| *code).collect();
        for code in [
            TrapCode::IntegerDivisionByZero,
            TrapCode::BadSignature,
            TrapCode::TableOutOfBounds,
        ] {
            assert!(codes.contains(&code), "{code:?} is not in {codes:?}");
        }
    }
}
