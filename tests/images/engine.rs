//! The container engine's client, and images that it builds.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use faas_wasm_tests::{Outcome, Work, skip};

/// Environment variable with the engine's client.
const DOCKER: &str = "FAAS_WASM_DOCKER";
/// Environment variable with the image that replaces Debian's.
const BASE_IMAGE: &str = "FAAS_WASM_BASE_IMAGE";
/// Environment variable with the directory of the templates.
const TEMPLATES: &str = "FAAS_WASM_TEMPLATES";

fn required(variable: &str) -> String {
    env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run these tests with `make test-image`"))
}

/// The engine's client, set to the classic builder, which every engine has, unless the caller selects BuildKit.
pub(crate) fn docker() -> Command {
    let mut command = Command::new(required(DOCKER));
    command.env("DOCKER_BUILDKIT", "0");
    command
}

/// Runs the client and returns its output without the trailing newline.
#[track_caller]
pub(crate) fn run(arguments: &[&str]) -> String {
    let outcome = Outcome::of(docker().args(arguments));
    outcome.success().trim_end().to_owned()
}

/// A field of the engine's description of an image or a container, selected with a Go template.
#[track_caller]
pub(crate) fn inspect(what: &str, field: &str) -> String {
    run(&["inspect", "--format", field, what])
}

/// The image that replaces Debian's.
pub(crate) fn base_image() -> String {
    required(BASE_IMAGE)
}

/// An image that replaces a public one with a toolchain. If the toolchain is not available, records the test as
/// skipped and returns `None`.
pub(crate) fn toolchain_image(name: &str, test: &str) -> Option<String> {
    let tag = format!("faas-wasm-test/{name}");
    let file = own(&format!("stand-ins/{name}.Dockerfile"));
    let context = Work::new();
    if name == "rust" && !add_rustup(&context) {
        skip(test, "no toolchain: there is no rustup");
        return None;
    }
    let mut command = docker();
    command
        .args(["build", "--tag", &tag, "--build-arg"])
        .arg(format!("BASE_IMAGE={}", base_image()));
    for mirror in mirrors() {
        command.args(["--build-arg", &mirror]);
    }
    command.arg("--file").arg(&file).arg(context.path());
    let outcome = Outcome::of(&mut command);
    if outcome.code() == 0 {
        return Some(tag);
    }
    let reason = outcome.stderr.trim_end();
    let reason = reason.lines().last().unwrap_or_default();
    skip(test, &format!("no toolchain: {}: {reason}", file.display()));
    None
}

/// Copies this machine's rustup, which acts as an installer under the name `rustup-init`.
fn add_rustup(context: &Work) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|directory| directory.join("rustup"))
        .any(|rustup| std::fs::copy(rustup, context.join("rustup-init")).is_ok())
}

/// This machine's package sources as build arguments, so that image builds use them too. If a source is configured
/// only in a client's file, this asks the client. The base image configures the source of Debian's packages.
pub(crate) fn mirrors() -> Vec<String> {
    let clients: [(&str, &[&str]); 4] = [
        ("GOPROXY", &[]),
        ("NPM_CONFIG_REGISTRY", &["npm", "config", "get", "registry"]),
        (
            "PIP_INDEX_URL",
            &["python3", "-m", "pip", "config", "get", "global.index-url"],
        ),
        ("RUSTUP_DIST_SERVER", &[]),
    ];
    let mirror = |(variable, client): (&str, &[&str])| {
        let place = env::var(variable).ok().or_else(|| {
            let (program, arguments) = client.split_first()?;
            let output = Command::new(program).args(arguments).output().ok()?;
            let place = String::from_utf8(output.stdout).ok()?;
            output.status.success().then(|| place.trim().to_owned())
        })?;
        (!place.is_empty()).then(|| format!("{variable}={place}"))
    };
    clients.into_iter().filter_map(mirror).collect()
}

/// A file below `templates/`.
pub(crate) fn templates(path: &str) -> PathBuf {
    Path::new(&required(TEMPLATES)).join(path)
}

/// A file below `tests/images/`.
pub(crate) fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("images")
        .join(path)
}

/// The project's version, which is the tag of its images and the templates' default.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Selects a template's Dockerfile and its builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builder {
    /// `Dockerfile`, with the classic builder.
    Classic,
    /// `Dockerfile.buildkit`, with BuildKit.
    BuildKit,
}

/// An image of a function.
#[derive(Debug)]
pub(crate) struct FunctionImage<'a> {
    template: &'a str,
    name: &'a str,
    /// The handler folder, or `None` for the one that the stand-in's `new` copies from the template.
    handler: Option<PathBuf>,
    builder: Builder,
    arguments: Vec<String>,
}

impl<'a> FunctionImage<'a> {
    /// A function with this name, as the stand-in's `new` creates it from the template.
    pub(crate) fn new(template: &'a str, name: &'a str) -> Self {
        let base = base_image();
        Self {
            template,
            name,
            handler: None,
            builder: Builder::Classic,
            // A template uses one or the other. If an argument is repeated, the last one wins.
            arguments: [
                format!("TOOLCHAIN_IMAGE={base}"),
                format!("BASE_IMAGE={base}"),
            ]
            .into_iter()
            .chain(mirrors())
            .collect(),
        }
    }

    /// Uses this handler folder on top of the template's.
    #[must_use]
    pub(crate) fn handler(mut self, handler: PathBuf) -> Self {
        self.handler = Some(handler);
        self
    }

    /// Selects the builder.
    #[must_use]
    pub(crate) fn builder(mut self, builder: Builder) -> Self {
        self.builder = builder;
        self
    }

    /// Adds a build argument, `NAME=VALUE`.
    #[must_use]
    pub(crate) fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Builds the image in an empty directory. Returns its name and the client's outcome.
    pub(crate) fn try_build(&self) -> (String, Outcome) {
        let work = Work::new();
        let handler = match &self.handler {
            Some(handler) => handler.clone(),
            None => {
                stand_in(&work, &["new", self.template, self.name]).success();
                work.path().join(self.name)
            }
        };
        let tag = format!("faas-wasm-test/{}:{:?}", self.name, self.builder).to_lowercase();
        // The folder is named after the function, whatever the handler's folder is called.
        let folder = work.path().join("handlers").join(self.name);
        copy(&handler, &folder);
        let folder = folder
            .to_str()
            .expect("temporary paths are UTF-8")
            .to_owned();
        let mut arguments = vec!["build", self.template, &folder, &tag];
        if self.builder == Builder::BuildKit {
            arguments.push("--buildkit");
        }
        for argument in &self.arguments {
            arguments.extend(["--build-arg", argument]);
        }
        // Build one at a time: two concurrent builds would both do work that the second can take from the cache.
        let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.template);
        let lock = File::create(lock).expect("a file can be made");
        lock.lock().expect("it can be locked");
        let outcome = stand_in(&work, &arguments);
        (tag, outcome)
    }

    /// Builds the image and returns its name.
    #[track_caller]
    pub(crate) fn build(&self) -> String {
        let (tag, outcome) = self.try_build();
        assert_eq!(outcome.code(), 0, "{}\n{}", outcome.text(), outcome.stderr);
        tag
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    let mut command = Command::new("cp");
    command.arg("-R").arg(from.join(".")).arg(to);
    Outcome::of(&mut command).success();
}

/// Runs the stand-in for faas-cli in a directory.
pub(crate) fn stand_in(work: &Work, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(templates("stand-in"));
    command
        .args(arguments)
        .current_dir(work.path())
        .env("DOCKER", required(DOCKER))
        .env("DOCKER_BUILDKIT", "0");
    Outcome::of(&mut command)
}
