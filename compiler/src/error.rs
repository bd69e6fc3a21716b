//! What can go wrong, how it is told, and the exit codes.
//!
//! An error is a line `error:`, its causes indented below, and, where there is something to do, a
//! line `hint:` with a command. Messages name the file; hints are commands that can be run.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use faas_wasm_artifact::{CpuFeature, ReadError, VerifyError, WriteError};
use target_lexicon::Architecture;

use crate::module::Module;
use crate::tail_calls::{Advice, TailCall};
use crate::text;

/// The exit codes: a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Success = 0,
    Failed = 1,
    /// clap exits with it too.
    Usage = 2,
    Internal = 3,
    RunFailed = 125,
    /// The runner exits with it, in place of this program; this one, where no instance can be made because instantiation
    /// traps.
    Trapped = 134,
}

impl Exit {
    /// All of them, ascending.
    pub(crate) const ALL: [Self; 6] = [
        Self::Success,
        Self::Failed,
        Self::Usage,
        Self::Internal,
        Self::RunFailed,
        Self::Trapped,
    ];

    /// What the manual says of it.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done",
            Self::Failed => {
                "the input was rejected, the compilation failed, or a file could not be read or \
                 written"
            }
            Self::Usage => "wrong usage: of options, or of a variable of the environment",
            Self::Internal => "internal error, or the code generator crashed",
            Self::RunFailed => "`run`: the guest could not be started",
            Self::Trapped => "`run`: the guest trapped",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    // The input.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a regular file", path.display())]
    NotFile { path: PathBuf },
    #[error("{} is empty", path.display())]
    Empty { path: PathBuf },
    #[error("{} is not a WebAssembly module: it starts with {}", path.display(), found)]
    NotWasm { path: PathBuf, found: String },
    #[error("{} is an artifact already", path.display())]
    AlreadyCompiled { path: PathBuf },
    #[error("the WebAssembly text of {} cannot be assembled", path.display())]
    WasmText {
        path: PathBuf,
        #[source]
        source: wat::Error,
    },
    #[error("{} is a WebAssembly component, not a core module", path.display())]
    Component { path: PathBuf },
    #[error("{} has WebAssembly binary version {version}; only version 1 exists", path.display())]
    WasmVersion { path: PathBuf, version: u16 },
    #[error("{} is not a valid WebAssembly module", path.display())]
    Invalid {
        path: PathBuf,
        #[source]
        source: InvalidModule,
    },
    #[error("{} uses {feature}, which the {backend} backend does not support", path.display())]
    UnsupportedFeature {
        path: PathBuf,
        feature: &'static str,
        backend: &'static str,
        other_backend: Option<&'static str>,
        #[source]
        source: InvalidModule,
    },
    #[error("a tail call in function {function}{} of {} would take stack on {architecture}",
        name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default(), path.display())]
    TailCall {
        path: PathBuf,
        function: u32,
        name: Option<String>,
        architecture: Architecture,
        /// Registers for integers.
        integers: u32,
        #[source]
        source: TailCall,
    },
    #[error("{} has no function `_start`, so there is nothing to run", path.display())]
    NoStart {
        path: PathBuf,
        reactor: bool,
        candidates: Vec<String>,
    },
    #[error("{} exports no `{name}`, so there is nothing to run", path.display())]
    NoEntry {
        path: PathBuf,
        name: String,
        candidates: Vec<String>,
    },
    #[error("the export `{name}` of {} is {found}, not a function without parameters and results",
        path.display())]
    EntryType {
        path: PathBuf,
        name: String,
        found: String,
    },
    #[error("{} imports what no host provides", path.display())]
    UnknownImports {
        path: PathBuf,
        #[source]
        source: ImportList,
        memory: bool,
        functions_only: bool,
    },
    #[error("the CUDA imports of {} do not fit together: {problem}", path.display())]
    CudaAbi { path: PathBuf, problem: String },
    #[error("custom section `{section}` of {}: {problem}", path.display())]
    CudaSection {
        path: PathBuf,
        section: &'static str,
        problem: String,
    },
    #[error("data segment {segment} of {} writes {length} bytes at {offset}, but memory {memory} \
        has {size} bytes", path.display())]
    DataOutside {
        path: PathBuf,
        segment: u32,
        memory: u32,
        offset: u64,
        length: u64,
        size: u64,
        #[source]
        source: InstantiationTrap,
    },
    #[error("data segment {segment} of {} has an offset that is not known before the module runs",
        path.display())]
    DataOffset { path: PathBuf, segment: u32 },
    #[error("element segment {segment} of {} writes {length} elements at {offset}, but table {table} \
        has {size}", path.display())]
    ElementOutside {
        path: PathBuf,
        segment: u32,
        table: u32,
        offset: u64,
        length: u64,
        size: u64,
        #[source]
        source: InstantiationTrap,
    },
    #[error("element segment {segment} of {} has an offset that is not known before the module runs",
        path.display())]
    ElementOffset { path: PathBuf, segment: u32 },
    #[error("the tables of {} begin with {elements} elements; an instance has room for {}",
        path.display(), crate::elements::MOST_ELEMENTS)]
    TooManyElements { path: PathBuf, elements: u64 },

    // Options and environment.
    #[error("unknown target `{name}`")]
    UnknownTarget { name: String },
    #[error("target {triple}: artifacts are for Linux only")]
    NotLinux { triple: String },
    #[error("CPU level `native` is this machine's ({host}), the target is {triple}")]
    ForeignNative { triple: String, host: &'static str },
    #[error("unknown CPU feature `{name}`; known for {architecture}: {}", known.join(", "))]
    UnknownFeature {
        name: String,
        architecture: &'static str,
        known: Vec<&'static str>,
    },
    #[error("CPU feature `{feature}` is of {}, the target is {architecture}", feature.architecture())]
    ForeignFeature {
        feature: CpuFeature,
        architecture: &'static str,
    },
    #[error("CPU level `{level}` is of x86_64, the target is {architecture}")]
    ForeignLevel {
        level: &'static str,
        architecture: &'static str,
    },
    #[error("{count} variants in one artifact are too many; it can have {most}")]
    TooManyVariants { count: usize, most: usize },
    #[error("the {backend} backend has no `--debug` for another architecture")]
    ForeignDebug { backend: &'static str },
    #[error("the {backend} backend has nothing for `--emit`")]
    EmitBackend { backend: &'static str },
    #[error("`--emit` is for one target and CPU level, not for {count}")]
    EmitVariants { count: usize },
    #[error("the {backend} backend is not part of this build of faas-wasm")]
    NoBackend {
        backend: &'static str,
        other: Option<&'static str>,
    },

    // Compilation.
    #[error("the {backend} backend cannot compile {instruction} of {} for {architecture}", path.display())]
    Uncompilable {
        path: PathBuf,
        /// With what is special about it.
        instruction: String,
        backend: &'static str,
        architecture: &'static str,
        /// A backend that compiles it.
        other: Option<&'static str>,
        #[source]
        source: Box<Place>,
    },
    #[error("{} has too much code for {architecture}", path.display())]
    CodeTooLarge {
        path: PathBuf,
        architecture: &'static str,
        #[source]
        source: Box<crate::backend::CompilationError>,
    },
    #[error("the {backend} backend rejects {}", path.display())]
    Backend {
        path: PathBuf,
        backend: &'static str,
        #[source]
        source: wasmer_types::CompileError,
    },
    #[error("the {backend} backend failed on {}", path.display())]
    BackendPanic {
        path: PathBuf,
        backend: &'static str,
        other: Option<&'static str>,
        #[source]
        source: Panic,
    },

    #[error("cannot create a temporary directory in {}", path.display())]
    TemporaryDirectory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("the code generator crashed ({})", crate::supervise::describe(*signal))]
    Crashed { signal: Option<i32> },

    // Output.
    #[error("{} is a directory", path.display())]
    OutputIsDirectory { path: PathBuf },
    #[error("the output {} is the input", path.display())]
    OutputIsInput { path: PathBuf },
    #[error("two outputs are {}", path.display())]
    OutputTwice { path: PathBuf },
    #[error("a module from standard input has no name that its artifact could have")]
    NoOutputName,
    #[error("an artifact cannot be written to standard output")]
    OutputIsStdout,
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    // Artifacts.
    #[error("{} is not a usable artifact", path.display())]
    Artifact {
        path: PathBuf,
        #[source]
        source: ReadError,
    },
    #[error("{} is not an intact artifact", path.display())]
    Verify {
        path: PathBuf,
        #[source]
        source: VerifyError,
    },

    // run.
    #[error("cannot find faas-wasm-runner beside faas-wasm, in FAAS_WASM_RUNNER or on PATH")]
    NoRunner,
    #[error("FAAS_WASM_RUNNER names {}, which is not an executable file", path.display())]
    BadRunner { path: PathBuf },
    #[error("`serve` cannot go on")]
    Supervise {
        #[source]
        source: io::Error,
    },
    #[error("`serve` cannot pass the word `{}` on: the runner takes its command apart at spaces", word.display())]
    ServeWord { word: std::ffi::OsString },
    #[error("cannot execute {}", path.display())]
    Exec {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "no place for compiled modules: there is no cache (see `--cache-dir` and `--no-cache`)"
    )]
    NoCacheDir,
    #[error("cannot create the cache directory {}", path.display())]
    CacheDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot keep the compiled module as {}", path.display())]
    CacheWrite {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("{} cannot be initialized ahead", path.display())]
    Preinit {
        path: PathBuf,
        #[source]
        source: Box<crate::preinit::PreinitError>,
    },

    // Ours.
    #[error("internal error: the missing imports of {} cannot be replaced", path.display())]
    TrapImports {
        path: PathBuf,
        #[source]
        source: crate::trap_imports::Error,
    },
    #[error("internal error: the imported functions of {} cannot be wrapped", path.display())]
    Wrap {
        path: PathBuf,
        #[source]
        source: crate::wrap::Error,
    },
    #[error("internal error: the {backend} backend's output is not as expected")]
    BackendOutput {
        backend: &'static str,
        #[source]
        source: BackendOutput,
    },
    #[error("internal error: no artifact can be written from the backend's output")]
    WriteArtifact(#[from] WriteError),
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

/// What the validator says, with the place.
#[derive(Debug, thiserror::Error)]
#[error("at offset {offset:#x}: {message}")]
pub(crate) struct InvalidModule {
    /// Where in the file.
    pub(crate) offset: u64,
    /// What is wrong there.
    pub(crate) message: String,
    /// Whether the file ends where more is expected.
    pub(crate) truncated: bool,
}

impl From<wasmparser::Error> for InvalidModule {
    fn from(error: wasmparser::Error) -> Self {
        Self {
            offset: error.offset(),
            message: error.message().to_owned(),
            truncated: error.message().starts_with("unexpected end-of-file"),
        }
    }
}

/// The trap in which every instantiation of a module ends, as the runner tells it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum InstantiationTrap {
    #[error("wasm trap: out of bounds memory access")]
    Memory,
    #[error("wasm trap: out of bounds table access")]
    Table,
}

/// An instruction that cannot be compiled, and why.
#[derive(Debug, thiserror::Error)]
#[error("{function}, wasm offset {offset:#x}: {reason}")]
pub(crate) struct Place {
    function: String,
    offset: u64,
    reason: String,
}

impl Place {
    /// The instruction at `offset` of the file, in the defined function with the number `body`.
    pub(crate) fn new(module: &Module<'_>, body: u32, offset: u64, reason: String) -> Self {
        let index = module.functions.len() - module.names.offsets.len() + body as usize;
        let names = &module.names.names;
        let named = names.binary_search_by_key(&(index as u32), |(index, _)| *index);
        let function = match named {
            Ok(at) => format!("function {index} (`{}`)", text::line(&names[at].1)),
            Err(_) => format!("function {index}"),
        };
        Self {
            function,
            offset,
            reason,
        }
    }
}

/// Imports, one a line.
#[derive(Debug)]
pub(crate) struct ImportList(
    /// `module.name: type`, with a remark where one helps.
    pub(crate) Vec<String>,
);

/// As many imports are listed; a module of another platform has hundreds.
const LISTED_IMPORTS: usize = 12;

impl std::fmt::Display for ImportList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0[..self.0.len().min(LISTED_IMPORTS)].join("\n"))?;
        match self.0.len().checked_sub(LISTED_IMPORTS) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for ImportList {}

/// A panic of a backend.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({location})")]
pub(crate) struct Panic {
    /// Its message.
    pub(crate) message: String,
    /// File and line.
    pub(crate) location: String,
}

/// How a backend's output differs from what we rely on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendOutput {
    #[error("it cannot be made into a program")]
    Compilation(#[source] crate::backend::CompilationError),
    #[error("it is not a 64-bit little-endian ELF file")]
    Elf(#[from] object::read::Error),
    #[error("its DWARF cannot be read")]
    Dwarf(#[from] gimli::Error),
    #[error("section {0} is missing")]
    MissingSection(&'static str),
    #[error("section {section} has {found} entries, expected {expected}")]
    EntryCount {
        section: &'static str,
        expected: usize,
        found: usize,
    },
    #[error("address {0:#x} does not fit into 32 bits")]
    Address(u64),
    #[error("trap table of function {0} is damaged")]
    TrapTable(usize),
    #[error("trap code {0} is unknown")]
    TrapCode(u32),
}

impl Error {
    /// The exit code of commands other than `run`.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::UnknownTarget { .. }
            | Self::NotLinux { .. }
            | Self::ForeignNative { .. }
            | Self::UnknownFeature { .. }
            | Self::ForeignFeature { .. }
            | Self::ForeignLevel { .. }
            | Self::TooManyVariants { .. }
            | Self::NoBackend { .. }
            | Self::ForeignDebug { .. }
            | Self::EmitBackend { .. }
            | Self::EmitVariants { .. }
            | Self::OutputIsInput { .. }
            | Self::OutputTwice { .. }
            | Self::NoOutputName
            | Self::OutputIsStdout
            | Self::ServeWord { .. } => Exit::Usage,
            Self::Crashed { .. }
            | Self::TrapImports { .. }
            | Self::Wrap { .. }
            | Self::BackendOutput { .. }
            | Self::WriteArtifact(_) => Exit::Internal,
            _ => Exit::Failed,
        }
    }

    /// The exit code of `run`.
    pub(crate) fn run_exit(&self) -> Exit {
        match self {
            Self::DataOutside { .. } | Self::ElementOutside { .. } => Exit::Trapped,
            _ => Exit::RunFailed,
        }
    }

    /// A name for programs: that of the variant, in lower case with dashes.
    pub(crate) fn code(&self) -> String {
        let text = format!("{self:?}");
        let end = text.find(|c: char| !c.is_alphanumeric());
        let mut code = String::new();
        for c in text[..end.unwrap_or(text.len())].chars() {
            if c.is_ascii_uppercase() && !code.is_empty() {
                code.push('-');
            }
            code.push(c.to_ascii_lowercase());
        }
        code
    }

    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotWasm { .. } | Self::Empty { .. } => {
                "compile your program for WASI first, for example with `clang --target=wasm32-wasi`, \
                 `cargo build --target wasm32-wasip1` or `GOOS=wasip1 GOARCH=wasm go build`"
                    .into()
            }
            Self::AlreadyCompiled { path } => {
                format!("look at it with `faas-wasm inspect {}`", path.display())
            }
            Self::Preinit { source, .. } => return source.hint(),
            Self::Component { path } => format!(
                "build for `wasm32-wasip1` instead of `wasm32-wasip2`; or, if the component was \
                 made from a core module, get that back with `wasm-tools component unbundle {} \
                 --module-dir out`",
                path.display()
            ),
            Self::Invalid { source, .. } if source.truncated => {
                "the file seems to be cut off: build or copy it again".into()
            }
            Self::Invalid { path, .. } => {
                format!("`wasm-tools validate {}` tells more", path.display())
            }
            Self::UnsupportedFeature {
                other_backend: Some(other),
                path,
                ..
            }
            | Self::Uncompilable {
                other: Some(other),
                path,
                ..
            } => format!("run `faas-wasm build --backend {other} {}`", path.display()),
            Self::UnsupportedFeature { feature, .. } => {
                format!("build the module without {feature}")
            }
            Self::TailCall {
                architecture,
                integers,
                ..
            } => Advice {
                architecture: *architecture,
                integers: *integers,
            }
            .to_string(),
            Self::CodeTooLarge { .. } => {
                "a call reaches 128 MiB on aarch64 and 2 GiB elsewhere: make the module smaller, for \
                 example with `wasm-opt -Oz`"
                    .into()
            }
            Self::Uncompilable { .. } => "use a build of faas-wasm with the llvm backend".into(),
            Self::NoStart {
                reactor: true,
                candidates,
                ..
            } => match candidates.first() {
                Some(first) => format!(
                    "this is a reactor module (it exports `_initialize`): name the function that a \
                     request runs, `--entry {first}`; it could be {}",
                    candidates.join(", ")
                ),
                None => "this is a reactor module (it exports `_initialize`) without a function that \
                         `--entry` could name: export one without parameters and results, or build a \
                         command, with clang without `-mexec-model=reactor`, with rustc as a binary \
                         instead of a cdylib, with Go without `-buildmode=c-shared`"
                    .into(),
            },
            Self::NoEntry { candidates, .. } if candidates.is_empty() => {
                "export a function without parameters and results".into()
            }
            Self::NoEntry { candidates, .. } => {
                format!("it could be {}", candidates.join(", "))
            }
            Self::NoStart { candidates, .. } => {
                let command = "build a WASI command (a program with `main`), for example with \
                               `clang --target=wasm32-wasi` without `-nostartfiles` and `-Wl,--no-entry`";
                match candidates.first() {
                    Some(first) => format!(
                        "{command}; or name the function that a request runs, `--entry {first}`"
                    ),
                    None => command.into(),
                }
            }
            Self::UnknownImports { memory: true, .. } => {
                "link without `--import-memory` and without shared memory".into()
            }
            Self::UnknownImports {
                functions_only: true,
                ..
            } => "build for WASI preview1 (`wasm32-wasip1`); or, if it never calls them, \
                 `--allow-unknown-imports` makes traps of them"
                .into(),
            Self::UnknownImports { .. } => {
                "build for WASI preview1 (`wasm32-wasip1`); hosts provide wasi_snapshot_preview1, \
                 wasi_unstable and the CUDA driver API (`cu...` in env) only"
                    .into()
            }
            Self::CudaAbi { .. } => {
                "compile all of the guest with one cuda.h; where the imports do not tell its data \
                 model, say it with `--cuda-abi w32|w32p64|w64` or the custom section `faas.cuda`"
                    .into()
            }
            Self::CudaSection { .. } => {
                "`faas.cuda` holds the name of a data model, `faas.cuda.params` a line `KERNEL \
                 KINDS` for each kernel, with a `p` for each device pointer"
                    .into()
            }
            Self::UnknownTarget { .. } | Self::NotLinux { .. } => {
                "`--target` and wasm_c_target take amd64, arm64, riscv64 or a triple such as \
                 x86_64-unknown-linux-gnu"
                    .into()
            }
            Self::UnknownFeature { .. } | Self::ForeignFeature { .. } => {
                "`--cpu-features` and wasm_c_cpu_features take a list separated by commas or spaces; \
                 `--cpu` takes whole levels"
                    .into()
            }
            Self::ForeignNative { .. } => {
                "leave out `--cpu` for what nearly every server of the target has".into()
            }
            Self::TemporaryDirectory { .. } => {
                "set TMPDIR to a directory that can be written".into()
            }
            Self::TooManyVariants { .. } => {
                "each target with each CPU level is one: leave some out".into()
            }
            Self::ForeignLevel { .. } => "use `--cpu generic` or `--cpu native`".into(),
            Self::NoBackend {
                other: Some(other), ..
            } => format!("use `--backend {other}`"),
            Self::BackendPanic {
                path,
                other: Some(other),
                ..
            } => format!(
                "this is a bug in the backend; try `faas-wasm build --backend {other} {}`",
                path.display()
            ),
            // What the system does where memory is short.
            Self::Crashed { signal: Some(9) } => {
                "there may have been too little memory: try `--jobs 1` or `--backend cranelift`"
                    .into()
            }
            Self::Crashed { .. } => {
                "this is a bug in the backend; try `--backend cranelift`".into()
            }
            Self::ForeignDebug { .. } => "use `--backend llvm`".into(),
            Self::EmitBackend { .. } => {
                "use `--backend llvm`, or look at the artifact with `objdump -d`".into()
            }
            Self::OutputIsDirectory { .. } => "name a file: `-o DIRECTORY/NAME.so`".into(),
            Self::OutputIsInput { .. } => "give another name with `-o NAME.so`".into(),
            Self::OutputTwice { .. } => "give another name with `--emit-sbom=FILE`".into(),
            Self::NoOutputName | Self::OutputIsStdout => "name a file: `-o NAME.so`".into(),
            Self::Write { .. } => "name another place with `-o`".into(),
            Self::Artifact {
                source: ReadError::Wasm,
                path,
            } => format!("run `faas-wasm build {}`", path.display()),
            Self::NoRunner | Self::BadRunner { .. } => {
                "install both programs in one directory, or set FAAS_WASM_RUNNER to the runner's path"
                    .into()
            }
            Self::NoCacheDir | Self::CacheDir { .. } | Self::CacheWrite { .. } => {
                "name a directory that can be written with `--cache-dir`".into()
            }
            Self::BackendOutput { .. } | Self::WriteArtifact(_) => {
                "please report this with the module, and with what `faas-wasm --version -v` prints"
                    .into()
            }
            _ => return None,
        };
        Some(hint)
    }

    /// The messages of its causes, one a line of theirs.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            causes.extend(error.to_string().lines().map(str::to_owned));
            cause = error.source();
        }
        causes
    }

    /// The message and its causes.
    pub(crate) fn in_one_line(&self) -> String {
        let causes = self.causes().join("; ");
        if causes.is_empty() {
            self.to_string()
        } else {
            format!("{self}: {causes}")
        }
    }

    /// The message, its causes and the hint, as printed on standard error.
    pub(crate) fn report(&self) -> String {
        let mut report = format!("error: {}\n", text::line(self));
        for cause in self.causes() {
            // Writing to a string cannot fail.
            let _ = writeln!(report, "  {}", text::line(cause));
        }
        if let Some(hint) = self.hint() {
            let _ = writeln!(report, "hint: {}", text::line(hint));
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_has_causes_and_a_hint() {
        let error = Error::Invalid {
            path: "a.wasm".into(),
            source: InvalidModule {
                offset: 16,
                message: "unexpected end-of-file".into(),
                truncated: true,
            },
        };
        assert_eq!(
            error.report(),
            "error: a.wasm is not a valid WebAssembly module\n  at offset 0x10: unexpected \
             end-of-file\nhint: the file seems to be cut off: build or copy it again\n"
        );
        assert_eq!(error.exit(), Exit::Failed);
    }

    #[test]
    fn codes_are_names() {
        let path = std::path::PathBuf::from("a");
        assert_eq!(Error::Empty { path: path.clone() }.code(), "empty");
        assert_eq!(
            Error::NotWasm {
                path,
                found: String::new()
            }
            .code(),
            "not-wasm"
        );
        assert_eq!(Error::NoRunner.code(), "no-runner");
    }

    #[test]
    fn long_import_lists_are_cut() {
        let list = ImportList((0..20).map(|index| format!("env.f{index}: func")).collect());
        let text = list.to_string();
        assert_eq!(text.lines().count(), LISTED_IMPORTS + 1);
        assert!(text.ends_with("and 8 more"), "{text}");
    }
}
