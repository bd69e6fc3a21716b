//! `--preinit`: runs a module's initializer at build time and keeps what it has done.
//!
//! ```text
//!             recorder                 one-shot mode           snapshot
//!  module ---------------> module' ----------------> dump ----------------> module''
//!            initialize,              of the build           memory, globals      as any other:
//!            then write               host's runner          as they were         lift, compile
//!            out the state
//! ```
//!
//! All of it happens at the level of WebAssembly: the module that comes out differs from the one
//! that came in by its data segments, the initial values of its globals and the initial size of its
//! memory. So it can be built for every target, and compiler, artifact and runner need to know
//! nothing of it. What runs the initializer is the runner's own code, and the guest writes its state
//! out by itself, so that nothing has to reach into it.
//!
//! What is not in memory and globals cannot be kept, and is refused: open descriptors, tables that
//! change at run time, references in globals, the state of a CUDA device.

mod recorder;
mod snapshot;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use wasmparser::{ExternalKind, Operator, ValType};

use crate::build::{self, Extras, Options};
use crate::cuda;
use crate::entry::INITIALIZE;
use crate::error::Error;
use crate::module::Module;
use crate::run::{self, Directory, Guest};
use crate::temporary::{self, TemporaryDirectory};

/// The initializer that is called if none is named: what modules export that were made for the tool
/// Wizer.
pub(crate) const DEFAULT_EXPORT: &str = "wizer.initialize";
/// What takes the place of `_start`, if the module exports it: likewise.
const RESUME: &str = "wizer.resume";

/// What the initializer gets. Nothing of the host is there that is not in here.
#[derive(Debug)]
pub(crate) struct Preinit {
    /// The exported function.
    pub(crate) export: String,
    pub(crate) directories: Vec<Directory>,
    pub(crate) environment: Vec<String>,
    /// File for standard input; else it is empty.
    pub(crate) stdin: Option<PathBuf>,
}

/// Why a module could not be initialized ahead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PreinitError {
    #[error("it exports no function `{0}`")]
    NoExport(String),
    #[error("`{0}` takes arguments or gives results; an initializer has neither")]
    Type(String),
    #[error("it has {0} memories; exactly one of its own can be kept")]
    Memories(usize),
    #[error("its memory is shared, so other threads could change it meanwhile")]
    SharedMemory,
    #[error("its memory is empty at first, so there is nothing to initialize")]
    EmptyMemory,
    #[error("its function {0} changes a table at run time, and tables cannot be kept")]
    Table(u32),
    #[error("its global {0} is mutable and holds references, which cannot be kept")]
    ReferenceGlobal(u32),
    #[error("it imports globals")]
    ImportedGlobal,
    #[error("it uses CUDA, and the state of a device cannot be kept")]
    Cuda,
    #[error("cannot use {} as standard input", path.display())]
    Stdin {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot run it")]
    Run(#[source] io::Error),
    #[error("the initializer failed, see above ({0})")]
    Failed(ExitStatus),
    #[error("the initializer ended the program instead of returning")]
    Ended,
    #[error("the initializer left descriptor {0} open, and open files cannot be kept")]
    OpenDescriptor(u64),
    #[error("the initializer has closed or moved standard output")]
    Damaged,
    #[error("internal error: it cannot be rewritten")]
    Rewrite(#[from] recorder::Error),
}

impl PreinitError {
    /// What can be done about it.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoExport(_) => format!(
                "name an exported function, `--preinit=NAME`; in C one is made by \
                 `__attribute__((export_name(\"{DEFAULT_EXPORT}\"))) void initialize(void)`"
            ),
            Self::OpenDescriptor(_) => {
                "close every file in the initializer, and open it again in the request".to_owned()
            }
            Self::Ended => "return from the initializer instead of calling `exit`".to_owned(),
            _ => return None,
        })
    }
}

/// Runs the initializer of a validated module; gives the module as it is afterwards.
///
/// # Errors
///
/// [`Error::Preinit`], and what can go wrong with building and running a module.
pub(crate) fn initialize(
    path: &Path,
    wasm: &[u8],
    preinit: &Preinit,
    options: &Options,
) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Preinit {
        path: path.into(),
        source: Box::new(source),
    };
    let module = build::parse(path, wasm)?;
    check(&module).map_err(failed)?;
    let calls = calls(&module, &preinit.export).map_err(failed)?;
    let mark = recorder::mark(wasm);
    let recorder = recorder::record(&module, &calls, mark)
        .map_err(|source| failed(PreinitError::Rewrite(source)))?;

    let work = TemporaryDirectory::new().map_err(|source| failed(PreinitError::Run(source)))?;
    let artifact = work.path().join("preinit.so");
    build::build_from(
        path,
        &recorder,
        &artifact,
        options,
        &Extras::default(),
        true,
    )?;
    let output = run(&artifact, path, preinit, mark).map_err(|error| match error {
        RunError::Preinit(source) => failed(source),
        RunError::Other(error) => error,
    })?;
    let dump = recorder::read(&module, &output).map_err(failed)?;
    Ok(snapshot::apply(&module, &dump))
}

/// Refuses what cannot be kept.
fn check(module: &Module<'_>) -> Result<(), PreinitError> {
    let memory = match module.memories[..] {
        [memory] if module.imported_memories() == 0 => memory,
        _ => return Err(PreinitError::Memories(module.memories.len())),
    };
    if memory.shared {
        return Err(PreinitError::SharedMemory);
    }
    if memory.initial == 0 {
        return Err(PreinitError::EmptyMemory);
    }
    if module.imports.iter().any(cuda::is_cuda) {
        return Err(PreinitError::Cuda);
    }
    for (index, global) in (0..).zip(&module.globals) {
        let global = global.as_ref().ok_or(PreinitError::ImportedGlobal)?;
        if global.ty.mutable && matches!(global.ty.content_type, ValType::Ref(_)) {
            return Err(PreinitError::ReferenceGlobal(index));
        }
    }
    check_tables(module)
}

fn check_tables(module: &Module<'_>) -> Result<(), PreinitError> {
    let imported = module.functions.len() - module.names.offsets.len();
    let mut function = imported as u32;
    for payload in wasmparser::Parser::new(0).parse_all(module.wasm) {
        let Ok(wasmparser::Payload::CodeSectionEntry(body)) = payload else {
            continue;
        };
        // The module is valid, so each operator can be read.
        let operators = body.get_operators_reader().into_iter().flatten();
        let changes = |operator: &Operator<'_>| {
            matches!(
                operator,
                Operator::TableSet { .. }
                    | Operator::TableGrow { .. }
                    | Operator::TableFill { .. }
                    | Operator::TableCopy { .. }
                    | Operator::TableInit { .. }
            )
        };
        if operators.flatten().any(|operator| changes(&operator)) {
            return Err(PreinitError::Table(function));
        }
        function += 1;
    }
    Ok(())
}

/// The functions to call, in their order.
fn calls(module: &Module<'_>, export: &str) -> Result<Vec<u32>, PreinitError> {
    let find = |wanted: &str| {
        let mut functions = module
            .exports
            .iter()
            .filter(|(_, kind, _)| *kind == ExternalKind::Func);
        functions
            .find(|(name, ..)| *name == wanted)
            .map(|(_, _, index)| *index)
    };
    let initializer = find(export).ok_or_else(|| PreinitError::NoExport(export.to_owned()))?;
    let mut calls: Vec<_> = find(INITIALIZE).into_iter().collect();
    if !calls.contains(&initializer) {
        calls.push(initializer);
    }
    for index in &calls {
        let ty = module.functions.get(*index as usize);
        let ty = ty.and_then(|ty| module.function_type(*ty));
        if !ty.is_some_and(|ty| ty.params().is_empty() && ty.results().is_empty()) {
            return Err(PreinitError::Type(export.to_owned()));
        }
    }
    Ok(calls)
}

/// What can go wrong with a run.
enum RunError {
    Preinit(PreinitError),
    Other(Error),
}

/// For `crate::fuzzing`: makes a recorder for each export that can be an initializer, and applies a dump. `valid` checks
/// that a module is valid.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(module: &Module<'_>, valid: &dyn Fn(&[u8], &str)) {
    if check(module).is_err() {
        return;
    }
    let mark = recorder::mark(module.wasm);
    for (export, ..) in module.exports.iter().take(4) {
        let Ok(calls) = calls(module, export) else {
            continue;
        };
        match recorder::record(module, &calls, mark) {
            Ok(recorder) => valid(&recorder, "the recorder"),
            Err(error) => panic!("the recorder: {error}"),
        }
    }
    let pages = module.memories[0].initial;
    if pages > 4 {
        return;
    }
    let written = recorder::fuzz_output(module, mark, pages);
    let dump = match recorder::read(module, &written) {
        Ok(dump) => dump,
        Err(error) => panic!("what a recorder writes cannot be read: {error}"),
    };
    valid(&snapshot::apply(module, &dump), "the snapshot");
    for end in [0, recorder::MARK, written.len() / 2, written.len() - 1] {
        assert!(recorder::read(module, &written[..end]).is_err());
    }
}

/// Runs the recorder; gives what it wrote. What the initializer wrote before goes to standard error.
fn run(
    artifact: &Path,
    module: &Path,
    preinit: &Preinit,
    mark: [u8; recorder::MARK],
) -> Result<Vec<u8>, RunError> {
    let guest = Guest {
        directories: preinit.directories.clone(),
        environment: preinit.environment.clone(),
        argv0: None,
        arguments: Vec::<OsString>::new(),
    };
    let stdin = match &preinit.stdin {
        None => Stdio::null(),
        Some(path) => File::open(path)
            .map_err(|source| {
                RunError::Preinit(PreinitError::Stdin {
                    path: path.clone(),
                    source,
                })
            })?
            .into(),
    };
    let runner = run::find_runner().map_err(RunError::Other)?;
    let mut command = Command::new(runner);
    command
        .args(run::one_shot_arguments(module, artifact, &guest))
        .env_clear()
        .stdin(stdin)
        .stdout(Stdio::piped());
    // An initializer may never end.
    let output = temporary::output(&mut command);
    let output = output.map_err(|source| RunError::Preinit(PreinitError::Run(source)))?;
    let mut written = output.stdout;
    let recorded = recorder::find(&written, mark).map(|place| written.split_off(place));
    // If standard error is gone there is nobody to tell.
    let _ = io::stderr().write_all(&written);
    if !output.status.success() {
        return Err(RunError::Preinit(PreinitError::Failed(output.status)));
    }
    recorded.ok_or(RunError::Preinit(PreinitError::Ended))
}
