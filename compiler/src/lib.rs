//! The build tool `faas-wasm`: compiles WebAssembly modules to artifacts, and looks at them.
//!
//! The pipeline of a build, a module each: `input` and `imports` reject what cannot become an
//! artifact, `wrap` sees to it that no imported function is a value, `lift` takes the data out of
//! the module, `backend` compiles it, `convert` brings the result into our own format, the artifact
//! crate writes it, `output` saves it.
//!
//! This crate never loads or runs an artifact: that is the runner's, which `run` executes.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::expect_used, clippy::panic, reason = "tests"))]

mod args;
mod backend;
mod build;
mod convert;
mod cuda;
mod emit;
mod error;
mod functions;
mod imports;
mod input;
mod inspect;
mod lift;
mod lines;
mod module;
mod output;
mod progress;
mod run;
mod summary;
mod supervise;
mod target;
mod temporary;
mod version;
mod wrap;

#[cfg(all(test, feature = "cranelift"))]
mod fuzz_smoke;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use faas_wasm_artifact::Backend;

use crate::args::{Arguments, BuildArguments, Command, CompileArguments, RunArguments};
use crate::build::{Options, RawOptions};
use crate::error::{Error, Exit};

/// Runs the program with this process's arguments and environment.
pub fn main() -> ExitCode {
    // The hook has told the panic; what is missing is our exit code for a bug.
    std::panic::catch_unwind(|| dispatch(Arguments::parse())).unwrap_or_else(|_| {
        print_error("error: internal error\nhint: please report this with the command line\n");
        Exit::Internal.into()
    })
}

fn dispatch(arguments: Arguments) -> ExitCode {
    if arguments.version {
        return finish(print(&version::describe(arguments.verbose)));
    }
    match arguments.command {
        // clap does this itself where there is no argument at all.
        None => {
            print_error(&Arguments::command().render_help().to_string());
            Exit::Usage.into()
        }
        Some(Command::Build(arguments)) => supervised_build(&arguments),
        Some(Command::Inspect(arguments)) => finish(
            inspect::inspect(&arguments.artifact, arguments.json, arguments.functions)
                .and_then(|text| print(&text)),
        ),
        Some(Command::Verify(arguments)) => finish(
            inspect::verify(&arguments.artifact)
                .and_then(|()| print(&format!("{}: intact\n", arguments.artifact.display()))),
        ),
        Some(Command::Run(arguments)) => {
            let Err(error) = run(arguments);
            report(&error);
            Exit::RunFailed.into()
        }
    }
}

/// A build in a child process where the backend can take its process down.
fn supervised_build(arguments: &BuildArguments) -> ExitCode {
    let options = options(&arguments.compile).and_then(|options| options.emit(arguments.emit));
    let options = match options {
        Ok(options) => options,
        Err(error) => return finish(Err(error)),
    };
    if supervise::is_child() {
        supervise::end_with_parent();
    } else if options.backend == Backend::Llvm
        && let Some(result) = supervise::run()
    {
        return result.map_or_else(|error| finish(Err(error)), ExitCode::from);
    }
    finish(build(arguments, &options))
}

fn build(arguments: &BuildArguments, options: &Options) -> Result<(), Error> {
    let output = match &arguments.output {
        Some(path) => path.clone(),
        None => build::default_output(&arguments.module),
    };
    let summary = build::build(&arguments.module, &output, options, arguments.quiet)?;
    if arguments.quiet {
        return Ok(());
    }
    if let Some(notes) = summary.notes() {
        print_error(&format!("{notes}\n"));
    }
    print(&summary.to_string())
}

fn run(arguments: RunArguments) -> Result<std::convert::Infallible, Error> {
    let (file, guest_arguments) = run::split_command(&arguments.command);
    let guest = run::Guest {
        directories: arguments.dir,
        environment: arguments.env,
        argv0: arguments.argv0,
        arguments: guest_arguments,
    };
    let compile = &arguments.compile;
    run::run(file, &guest, || options(compile), arguments.quiet)
}

fn options(arguments: &CompileArguments) -> Result<Options, Error> {
    // Images set variables to nothing where there is nothing to say.
    let given = |text: &'_ Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let targets: Vec<_> = arguments
        .target
        .iter()
        .map(|name| name.trim())
        .filter(|name| !name.is_empty())
        .collect();
    Options::resolve(&RawOptions {
        backend: arguments.backend,
        targets: &targets,
        levels: &arguments.cpu,
        features: given(&arguments.cpu_features).as_deref(),
        opt_level: arguments.opt_level,
        debug: arguments.debug,
        jobs: arguments.jobs,
        cuda_abi: arguments.cuda_abi,
    })
}

fn finish(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            report(&error);
            error.exit().into()
        }
    }
}

fn report(error: &Error) {
    print_error(&error.report());
}

fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // The reader has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Error::Stdout),
    }
}

fn print_error(text: &str) {
    // If standard error is gone there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
