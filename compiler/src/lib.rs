//! The build tool `faas-wasm`: compiles WebAssembly modules to artifacts, and looks at them.
//!
//! The pipeline of a build, a module each: `input` and `imports` reject what cannot become an
//! artifact, `entry` makes commands of reactors, `wrap` sees to it that no imported function is a
//! value, `lift` takes the data out of the module, `backend` compiles it (what it compiled before is
//! in the `cache`), `convert` brings the result into our own format, the artifact crate writes it,
//! `output` saves it.
//!
//! This crate never loads or runs an artifact: that is the runner's, which `run` executes.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::expect_used, clippy::panic, reason = "tests"))]

mod args;
mod backend;
mod build;
mod cache;
mod check;
mod constant;
mod convert;
mod cuda;
mod elements;
mod emit;
mod entry;
mod error;
mod exnref;
mod features;
mod functions;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod imports;
mod input;
mod inspect;
mod jump_tables;
mod lift;
mod lines;
mod manual;
mod message;
mod module;
mod output;
mod preinit;
mod progress;
mod run;
mod sbom;
mod serve;
mod summary;
mod supervise;
mod tail_calls;
mod target;
mod temporary;
mod text;
mod trap_imports;
mod version;
mod watch;
mod wrap;

#[cfg(all(test, feature = "cranelift"))]
mod damage;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, CommandFactory as _, FromArgMatches as _};
use faas_wasm_artifact::Backend;

use crate::args::{
    Arguments, BuildArguments, CheckArguments, Command, CompileArguments, RunArguments,
    ServeArguments,
};
use crate::build::{Extras, Options, RawOptions};
use crate::cache::Wish;
use crate::error::{Error, Exit};
use crate::message::Format;

/// Runs the program with this process's arguments and environment.
pub fn main() -> ExitCode {
    // The hook has told the panic; what is missing is our exit code for a bug.
    std::panic::catch_unwind(|| {
        let parsed = command().try_get_matches().and_then(|matches| {
            let arguments = Arguments::from_arg_matches(&matches)?;
            Ok((arguments, matches))
        });
        match parsed {
            Ok((arguments, matches)) => dispatch(arguments, &matches),
            Err(error) => refuse(&error),
        }
    })
    .unwrap_or_else(|_| {
        print_error(&message::internal(asked_format()));
        Exit::Internal.into()
    })
}

/// The definition of the command line. Images set variables to nothing where there is nothing to
/// say: such a variable is none.
fn command() -> clap::Command {
    let unset = |arg: clap::Arg| {
        let variable = arg.get_env().and_then(std::env::var_os);
        match variable {
            Some(value) if value.is_empty() => arg.env(None::<&str>),
            _ => arg,
        }
    };
    Arguments::command().mut_subcommands(|command| command.mut_args(unset))
}

/// Tells what is wrong with the command line, or prints the help that it asks for.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && asked_format() == Format::Json {
        print_error(&message::usage(error));
        return Exit::Usage.into();
    }
    error.exit()
}

fn asked_format() -> Format {
    Format::of_arguments(std::env::args_os())
}

fn dispatch(arguments: Arguments, matches: &ArgMatches) -> ExitCode {
    let format = arguments.message_format;
    if arguments.version {
        let version = version::Version::new();
        let text = match format {
            Format::Human => version.describe(arguments.verbose),
            Format::Json => message::object("version", &version),
        };
        return finish(format, print(&text));
    }
    match arguments.command {
        // clap does this itself where there is no argument at all.
        None => {
            print_error(&Arguments::command().render_help().to_string());
            Exit::Usage.into()
        }
        Some(Command::Build(arguments)) => supervised_build(&arguments, format),
        Some(Command::Check(arguments)) => check(&arguments, format),
        Some(Command::Inspect(arguments)) => {
            let style = match (format, arguments.json) {
                (Format::Json, _) => inspect::Style::Line,
                (Format::Human, true) => inspect::Style::Json,
                (Format::Human, false) => inspect::Style::Text,
            };
            let text = inspect::inspect(&arguments.artifact, style, arguments.functions);
            finish(format, text.and_then(|text| print(&text)))
        }
        Some(Command::Verify(arguments)) => {
            let intact = inspect::verify(&arguments.artifact);
            let print = |()| print(&message::intact(format, &arguments.artifact));
            finish(format, intact.and_then(print))
        }
        Some(Command::Run(arguments)) => {
            let Err(error) = run(arguments, format);
            report(format, &error);
            error.run_exit().into()
        }
        Some(Command::Serve(arguments)) => match serve(arguments, matches, format) {
            Ok(code) => ExitCode::from(code),
            Err(error) => finish(format, Err(error)),
        },
        Some(Command::Man(arguments)) => finish(format, manual::write(arguments.directory)),
        Some(Command::Completions(arguments)) => {
            finish(format, print(&manual::completions(arguments.shell)))
        }
    }
}

/// A build in a child process where the backend can take its process down.
fn supervised_build(arguments: &BuildArguments, format: Format) -> ExitCode {
    let options = options(&arguments.compile).and_then(|options| options.emit(arguments.emit));
    let options = match options {
        Ok(options) => options,
        Err(error) => return finish(format, Err(error)),
    };
    if supervise::is_child() {
        supervise::end_with_parent();
    } else if options.backend == Backend::Llvm
        && let Some(result) = supervise::run()
    {
        return result.map_or_else(|error| finish(format, Err(error)), ExitCode::from);
    }
    finish(format, build(arguments, &options, format))
}

fn build(arguments: &BuildArguments, options: &Options, format: Format) -> Result<(), Error> {
    let output = match &arguments.output {
        Some(path) => path.clone(),
        None if arguments.module == Path::new(input::STDIN) => return Err(Error::NoOutputName),
        None => build::default_output(&arguments.module),
    };
    let extras = Extras {
        sbom: arguments.emit_sbom.as_ref().map(|path| {
            let default = || output.with_extension("cdx.json");
            path.clone().unwrap_or_else(default)
        }),
        time: arguments.source_date_epoch,
    };
    let preinit = arguments.preinit.resolve();
    // Progress is for people.
    let quiet = arguments.quiet || format == Format::Json;
    let module = &arguments.module;
    let summary = build::build(module, &output, preinit.as_ref(), options, &extras, quiet)?;
    if arguments.quiet {
        return Ok(());
    }
    for note in summary.notes() {
        print_error(&message::note(format, &note));
    }
    print(&message::artifact(format, &summary))
}

fn check(arguments: &CheckArguments, format: Format) -> ExitCode {
    let check = || {
        let options = options(&arguments.compile)?;
        let allow_unknown = arguments.compile.allow_unknown_imports;
        let report = check::check(&arguments.module, &options, allow_unknown)?;
        print(&match (format, arguments.json) {
            (Format::Json, _) => message::object("check", &report),
            (Format::Human, true) => json(&report),
            (Format::Human, false) => report.to_string(),
        })?;
        Ok(report.is_good())
    };
    match check() {
        Ok(true) => Exit::Success.into(),
        Ok(false) => Exit::Failed.into(),
        Err(error) => finish(format, Err(error)),
    }
}

/// A value as JSON, with a line end.
fn json(value: &impl serde::Serialize) -> String {
    // Our own types, whose keys are strings, can always be written.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn run(arguments: RunArguments, format: Format) -> Result<std::convert::Infallible, Error> {
    let (file, guest_arguments) = run::split_command(&arguments.command);
    let guest = run::Guest {
        directories: arguments.dir,
        environment: arguments.env,
        argv0: arguments.argv0,
        arguments: guest_arguments,
    };
    let compile = &arguments.compile;
    // Progress is for people.
    let quiet = arguments.quiet || format == Format::Json;
    run::run(file, &guest, || options(compile), quiet)
}

fn serve(arguments: ServeArguments, matches: &ArgMatches, format: Format) -> Result<u8, Error> {
    // Wrong options are told before anything is started.
    options(&arguments.compile)?;
    let mut settings = arguments.set;
    settings.extend(arguments.port.map(|port| ("port".into(), port.to_string())));
    serve::serve(&serve::Service {
        file: arguments.file,
        arguments: arguments.arguments,
        settings,
        build: matches
            .subcommand_matches("serve")
            .map(compile_options)
            .unwrap_or_default(),
        watch: arguments.watch,
        format,
    })
}

/// The options of [`CompileArguments`] that were given on the command line, as they were given.
fn compile_options(matches: &ArgMatches) -> Vec<OsString> {
    let mut given = Vec::new();
    for option in CompileArguments::augment_args(clap::Command::new("build")).get_arguments() {
        let id = option.get_id().as_str();
        let source = matches.value_source(id);
        let (Some(ValueSource::CommandLine), Some(name)) = (source, option.get_long()) else {
            continue;
        };
        if !option.get_action().takes_values() {
            given.push(format!("--{name}").into());
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            given.push(word);
        }
    }
    given
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
        allow_unknown_imports: arguments.allow_unknown_imports,
        entry: given(&arguments.entry),
        cache: Wish {
            directory: arguments.cache.cache_dir.clone(),
            off: arguments.cache.no_cache,
            limit: arguments.cache.cache_limit,
        },
    })
}

fn finish(format: Format, result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            report(format, &error);
            error.exit().into()
        }
    }
}

fn report(format: Format, error: &Error) {
    print_error(&message::error(format, error));
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
