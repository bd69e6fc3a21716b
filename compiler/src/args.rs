//! The command line: what was typed. What it means is found out in the modules `build` and `run`.
//! The doc comments are the manual page that `--help` prints.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use faas_wasm_artifact::{Backend, CudaAbi, OptLevel};

use crate::emit::Emit;
use crate::error::Exit;
use crate::message::Format;
use crate::preinit::{self, Preinit};
use crate::run::{Directory, absolute_directory};
use crate::target::Level;

/// Most threads to compile with.
const MOST_JOBS: usize = 1024;

/// What the manual says behind the options.
fn after_help() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        text += &format!("  {:<4} {}\n", exit as u8, exit.meaning());
    }
    text + "\
Otherwise `faas-wasm run` exits with the guest's own code. `faas-wasm serve` exits with the runner's \
code, and with 0 after Ctrl-C. A signal that ends a build is its status.

Environment (a variable that is empty counts as none):
  wasm_c_target         default of --target
  wasm_c_cpu_features   default of --cpu-features
  FAAS_WASM_CACHE_DIR   default of --cache-dir
  FAAS_WASM_CACHE_LIMIT default of --cache-limit
  SOURCE_DATE_EPOCH     default of --source-date-epoch
  NO_COLOR              if it is set, no color is used
  FAAS_WASM_RUNNER      the runner for `run`, `serve` and `--preinit` if there is none beside this
                        program; else it is looked for on PATH"
}

/// Compile WebAssembly (WASI preview1) to native artifacts for faas-wasm-runner.
#[derive(Debug, Parser)]
#[command(
    name = "faas-wasm",
    disable_version_flag = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_long_help = after_help()
)]
pub(crate) struct Arguments {
    /// Print the version; with --verbose also the backends and their licences
    #[arg(short = 'V', long)]
    pub(crate) version: bool,

    /// Print more
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Whom messages are for
    ///
    /// json: each is one object on a line, results on standard output, errors and notes on standard
    /// error. `reason` says what it is: artifact, check, inspect, intact, version, serve, note or
    /// error. Keys are stable: new ones may appear, none changes its meaning.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "human"
    )]
    pub(crate) message_format: Format,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Build(BuildArguments),
    Check(CheckArguments),
    Run(RunArguments),
    Serve(ServeArguments),
    Inspect(InspectArguments),
    Verify(VerifyArguments),
    Man(ManArguments),
    Completions(CompletionsArguments),
}

/// Compile a module to an artifact
///
/// The module is a WASI command: a core WebAssembly module with an exported function `_start`. The
/// artifact is an ELF shared object that faas-wasm-runner maps and serves. The same module and
/// options give the same bytes. The artifact appears complete or not at all.
///
/// Prints a summary on standard output, everything else on standard error.
#[derive(Debug, Args)]
pub(crate) struct BuildArguments {
    /// The WebAssembly module, binary or text; `-` is standard input
    #[arg(value_name = "MODULE.wasm")]
    pub(crate) module: PathBuf,

    /// The artifact [default: the module's path with .so for .wasm]
    #[arg(short, long, value_name = "OUT.so")]
    pub(crate) output: Option<PathBuf>,

    /// Also write what the llvm backend makes of each function, to a directory beside the artifact
    ///
    /// The directory has the artifact's name with the kind for .so. A function's file is named by
    /// its index, which `faas-wasm inspect --functions` lists.
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) emit: Option<Emit>,

    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Write what the artifact is made of, as CycloneDX JSON [default file: OUT.cdx.json]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub(crate) emit_sbom: Option<Option<PathBuf>>,

    /// Time of the files that are written, in seconds since 1970
    ///
    /// The artifact itself has no time in it. With this, its file and the SBOM have this one.
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS")]
    pub(crate) source_date_epoch: Option<u64>,

    #[command(flatten)]
    pub(crate) preinit: PreinitArguments,

    #[command(flatten)]
    pub(crate) compile: CompileArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Initialization at build time")]
pub(crate) struct PreinitArguments {
    /// Call an exported function now, and keep what it does to memory and globals
    ///
    /// Each request then begins where the function returned: a language runtime starts initialized.
    /// The function sees nothing of this machine but what the options below give it. If the module
    /// exports `wizer.resume`, that is what a request runs instead of `_start`. Refused where
    /// something could not be kept: open files, tables that change, CUDA.
    #[arg(
        long,
        value_name = "EXPORT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = preinit::DEFAULT_EXPORT
    )]
    pub(crate) preinit: Option<String>,

    /// Directory that it sees; as for `run`, but by an absolute path. May be repeated
    #[arg(
        long,
        value_name = "HOST[::GUEST][:ro|cow|rw]",
        value_parser = absolute_directory,
        requires = "preinit"
    )]
    pub(crate) preinit_dir: Vec<Directory>,

    /// Environment variable that it sees. May be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = environment_variable, requires = "preinit")]
    pub(crate) preinit_env: Vec<String>,

    /// File that is its standard input [default: an empty one]
    #[arg(long, value_name = "FILE", requires = "preinit")]
    pub(crate) preinit_stdin: Option<PathBuf>,
}

impl PreinitArguments {
    /// What is to be initialized, if anything.
    pub(crate) fn resolve(&self) -> Option<Preinit> {
        Some(Preinit {
            export: self.preinit.clone()?,
            directories: self.preinit_dir.clone(),
            environment: self.preinit_env.clone(),
            stdin: self.preinit_stdin.clone(),
        })
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Compilation")]
pub(crate) struct CompileArguments {
    /// Code generator [default: llvm where it is part of this build]
    ///
    /// llvm makes faster code (about 1.2 times on scalar code) and takes about 20 times the time.
    /// Its licence is BUSL-1.1: production use asks for an agreement with Wasmer. cranelift is
    /// licensed permissively.
    #[arg(long, value_name = "BACKEND", value_parser = backend_parser())]
    pub(crate) backend: Option<Backend>,

    /// Target triple, or amd64, arm64, riscv64 [default: this machine's]
    ///
    /// Docker's names of platforms, such as linux/arm64, are understood too. Artifacts call nothing
    /// but the runner, so that triples with gnu and musl are the same.
    ///
    /// May be repeated or a list separated by commas: the artifact then has a variant for each.
    #[arg(
        long,
        env = "wasm_c_target",
        value_name = "TRIPLE",
        value_delimiter = ','
    )]
    pub(crate) target: Vec<String>,

    /// CPU level whose features the code may use
    ///
    /// The artifact lists exactly the part of it that the backend can use, and the runner refuses
    /// to start on a CPU that lacks one. With several levels the artifact has a variant for each,
    /// and the runner takes the best one for its CPU.
    #[arg(long, value_enum, value_name = "LEVEL", value_delimiter = ',')]
    pub(crate) cpu: Vec<Level>,

    /// CPU features that the code may use beside the level's
    ///
    /// A list separated by commas, spaces, tabs or newlines. Without this option (an empty list is
    /// as good as none) and without --cpu the features are this machine's own.
    #[arg(long, env = "wasm_c_cpu_features", value_name = "LIST")]
    pub(crate) cpu_features: Option<String>,

    /// How much to optimize, 0 to 3
    #[arg(
        short = 'O',
        long,
        value_name = "LEVEL",
        default_value = "3",
        value_parser = clap::value_parser!(u8).range(0..=3).map(opt_level)
    )]
    pub(crate) opt_level: OptLevel,

    /// Keep DWARF and source lines
    ///
    /// Trap reports then have file and line, if the module was compiled with `-g`; the file is
    /// larger, and loads as quickly. Where llvm lets several traps of a function share code, the
    /// line can be another one's. Without this option only the names of functions are kept.
    #[arg(long)]
    pub(crate) debug: bool,

    /// Threads to compile with, 1 to 1024 [default: the number of CPUs]
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    pub(crate) jobs: Option<NonZero<usize>>,

    /// Data model of the guest's cuda.h [default: what its imports tell]
    ///
    /// w32: everything has four bytes; w32p64: device pointers have eight; w64: everything has
    /// eight. Only a module whose imports do not tell needs it.
    #[arg(long, value_name = "MODEL", value_parser = cuda_abi_parser())]
    pub(crate) cuda_abi: Option<CudaAbi>,

    /// Make traps of imported functions that nobody provides
    ///
    /// For programs that import what they never call. The summary names them.
    #[arg(long)]
    pub(crate) allow_unknown_imports: bool,

    /// Run this exported function for each request instead of `_start`
    ///
    /// It has neither parameters nor results. Of a reactor module, `_initialize` is called before it;
    /// with `--preinit` that has happened at build time.
    #[arg(long, value_name = "EXPORT")]
    pub(crate) entry: Option<String>,

    #[command(flatten)]
    pub(crate) cache: CacheArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArguments {
    /// Where compiled functions are kept for the next build
    /// [default: $XDG_CACHE_HOME/faas-wasm, or ~/.cache/faas-wasm]
    ///
    /// Several builds may use it at once, and it may be deleted at any time. In a Dockerfile it can
    /// be a cache mount. Whoever can write it decides what code comes out of a build.
    #[arg(long, env = crate::cache::VARIABLE, value_name = "DIRECTORY")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Keep nothing, and use nothing that was kept
    #[arg(long)]
    pub(crate) no_cache: bool,

    /// Size that the cache may have; beyond it goes what was not used for longest
    #[arg(
        long,
        env = "FAAS_WASM_CACHE_LIMIT",
        value_name = "SIZE",
        default_value = "2Gi",
        value_parser = size
    )]
    pub(crate) cache_limit: u64,
}

/// Run a module or an artifact once
///
/// The guest has this terminal's standard input, output and error, and its exit code is this
/// command's. A module is compiled first, and the artifact is kept in a cache. What runs is
/// faas-wasm-runner, the program that serves.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Directory that the guest sees, by the same path if GUEST is left out: ro (read only, the
    /// default), cow (changes are dropped afterwards) or rw. May be repeated
    ///
    /// The guest's working directory is `/`, so that `--dir .` shows it this one's files there. A
    /// relative GUEST is also a preopened directory of that name.
    #[arg(long, value_name = "HOST[::GUEST][:ro|cow|rw]")]
    pub(crate) dir: Vec<Directory>,

    /// Environment variable of the guest; it inherits none. May be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = environment_variable)]
    pub(crate) env: Vec<String>,

    /// What the guest sees as its own name [default: the file's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) argv0: Option<OsString>,

    /// Print nothing while compiling
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) compile: CompileArguments,

    /// The module or artifact, and the guest's arguments
    #[arg(
        value_names = ["MODULE.wasm|ARTIFACT", "ARGS"],
        required = true,
        num_args = 1..,
        trailing_var_arg = true
    )]
    pub(crate) command: Vec<OsString>,
}

/// Show what a module needs, who provides it, and whether it can be built and served
///
/// `build` makes the same checks first. Exits with 1 if the module would be refused.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The WebAssembly module, binary or text; `-` is standard input
    #[arg(value_name = "MODULE.wasm")]
    pub(crate) module: PathBuf,

    /// Print JSON. Its keys are stable: new ones may appear, none changes its meaning
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) compile: CompileArguments,
}

/// Serve a module or an artifact over HTTP, for development
///
/// A module is built first; what was built before is taken from the cache. What serves is
/// faas-wasm-runner, with the settings of the environment and those given here. Ctrl-C lets it
/// finish what it has begun; a second one ends it at once.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Build and serve again whenever the file changes
    ///
    /// If it cannot be built the version before is still served.
    #[arg(long)]
    pub(crate) watch: bool,

    /// Port to serve on [default: that of the environment, or 8080]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// A setting of the runner, as in its environment. May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::serve::setting)]
    pub(crate) set: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) compile: CompileArguments,

    /// The module or artifact
    #[arg(value_name = "MODULE.wasm|ARTIFACT")]
    pub(crate) file: PathBuf,

    /// The guest's arguments
    #[arg(value_name = "ARGS", last = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// Write the manual pages
#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Directory for the pages of all commands; without it the first one goes to standard output
    #[arg(value_name = "DIRECTORY")]
    pub(crate) directory: Option<PathBuf>,
}

/// Print a shell's completions
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Show what an artifact is and needs
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// The artifact
    pub(crate) artifact: PathBuf,

    /// Print JSON. Its keys are stable: new ones may appear, none changes its meaning
    #[arg(long)]
    pub(crate) json: bool,

    /// List the functions with the size of their code, the largest first
    #[arg(long)]
    pub(crate) functions: bool,
}

/// Check every byte of an artifact against its checksums
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The artifact
    pub(crate) artifact: PathBuf,
}

fn backend_parser() -> impl clap::builder::TypedValueParser<Value = Backend> {
    PossibleValuesParser::new(["llvm", "cranelift"]).map(|name| match name.as_str() {
        "llvm" => Backend::Llvm,
        _ => Backend::Cranelift,
    })
}

fn cuda_abi_parser() -> impl clap::builder::TypedValueParser<Value = CudaAbi> {
    PossibleValuesParser::new(["w32", "w32p64", "w64"])
        // One of these.
        .map(|name| CudaAbi::from_name(&name).unwrap_or(CudaAbi::W32))
}

fn opt_level(digit: u8) -> OptLevel {
    match digit {
        0 => OptLevel::None,
        1 => OptLevel::Less,
        2 => OptLevel::Default,
        _ => OptLevel::Aggressive,
    }
}

/// A number of threads. Each has a stack and a code generator: many more than there are CPUs only
/// take memory.
fn jobs(text: &str) -> Result<NonZero<usize>, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number: &NonZero<usize>| number.get() <= MOST_JOBS);
    number.ok_or_else(|| format!("expected a number from 1 to {MOST_JOBS}"))
}

/// Bytes, or a number with `Ki`, `Mi` or `Gi`.
fn size(text: &str) -> Result<u64, &'static str> {
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
        .unwrap_or((text, 0));
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or("expected a number of bytes, or one with Ki, Mi or Gi")
}

fn environment_variable(text: &str) -> Result<String, &'static str> {
    match text.split_once('=') {
        None => Err("expected KEY=VALUE"),
        Some(("", _)) => Err("the name before `=` is empty"),
        Some(_) => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_guests_options_are_not_ours() {
        let line = [
            "faas-wasm",
            "run",
            "--env",
            "A=1",
            "--dir",
            "/tmp::/data:rw",
            "a.wasm",
            "--env",
            "B",
            "-v",
        ];
        let arguments = Arguments::try_parse_from(line).expect("it is correct");
        let Some(Command::Run(run)) = arguments.command else {
            panic!("not run: {arguments:?}");
        };
        assert_eq!(run.env, ["A=1"]);
        assert_eq!(run.command, ["a.wasm", "--env", "B", "-v"]);
        assert_eq!(run.dir.len(), 1);
    }

    #[test]
    fn usage_errors_exit_with_2() {
        for line in [
            &["faas-wasm", "build"][..],
            &["faas-wasm", "build", "a.wasm", "--backend", "gcc"],
            &["faas-wasm", "build", "a.wasm", "-O4"],
            &["faas-wasm", "build", "a.wasm", "--jobs", "0"],
            &["faas-wasm", "build", "a.wasm", "--jobs", "1025"],
            &["faas-wasm", "build", "a.wasm", "--cpu", "x86-64-v9"],
            &["faas-wasm", "run", "--env", "A", "a.wasm"],
            &["faas-wasm", "run", "--dir", "/tmp::/a:wo", "a.wasm"],
            &[
                "faas-wasm",
                "build",
                "a.wasm",
                "--preinit",
                "--preinit-dir",
                ".",
            ],
            &["faas-wasm", "run", "--unknown", "a.wasm"],
            &["faas-wasm", "build", "a.wasm", "--cache-limit", "2GB"],
        ] {
            let error = Arguments::try_parse_from(line).expect_err("it is wrong");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }
}
