//! Artifacts for tests, each in a directory of its own.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::Outcome;
use crate::runner::RunnerCommand;
use crate::surroundings::{fixture, skip, tool, tool_at, tool_program};

/// A code generator of the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The quick one: where the backend does not matter.
    Cranelift,
    /// The default one.
    Llvm,
}

impl Backend {
    /// Those of the tool, the quick one first: a build without LLVM passes the same tests.
    pub fn all() -> Vec<Self> {
        static ALL: OnceLock<Vec<Backend>> = OnceLock::new();
        ALL.get_or_init(|| Self::of(&tool_program())).clone()
    }

    /// Those of another build of the tool.
    pub fn of(tool: &Path) -> Vec<Self> {
        let mut version = tool_at(tool);
        let version = Outcome::of(version.args(["--version", "--verbose"])).success();
        let is_there = |backend: &Self| {
            let line = format!("backend    {} ", backend.name());
            let rest = version.split_once(&line);
            rest.is_some_and(|(_, version)| !version.starts_with("not part"))
        };
        let both = [Self::Cranelift, Self::Llvm].into_iter();
        both.filter(is_there).collect()
    }

    /// Whether the tool has LLVM. If not, the test is left out, and that is told.
    pub fn llvm_or_skip(test: &str) -> bool {
        let is_there = Self::all().contains(&Self::Llvm);
        if !is_there {
            skip(test, "the tool was built without LLVM");
        }
        is_there
    }

    /// What `--backend` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cranelift => "cranelift",
            Self::Llvm => "llvm",
        }
    }
}

/// A directory for one test, removed at its end.
#[derive(Debug)]
pub struct Work(TempDir);

impl Work {
    /// An empty directory.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory can be made"))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).expect("the file can be written");
        path
    }

    /// The names of what is in it, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("the directory is there");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("it can be read").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Copies a fixture's module into it.
    pub fn fixture(&self, name: &str) -> PathBuf {
        let path = self.join(&format!("{name}.wasm"));
        std::fs::copy(fixture(name), &path).expect("the module can be copied");
        path
    }
}

/// A compiled guest.
#[derive(Debug)]
pub struct Guest {
    work: Work,
    artifact: PathBuf,
}

impl Guest {
    /// A fixture, compiled by the quick backend.
    pub fn fixture(name: &str) -> Self {
        Self::compiled(&fixture(name), Backend::Cranelift)
    }

    /// A fixture, compiled by this backend.
    pub fn fixture_by(name: &str, backend: Backend) -> Self {
        Self::compiled(&fixture(name), backend)
    }

    /// A module, compiled by this backend.
    pub fn compiled(module: &Path, backend: Backend) -> Self {
        let work = Work::new();
        let stem = module.file_stem().expect("a module has a name");
        let artifact = work.path().join(stem).with_extension("so");
        Outcome::of(
            tool()
                .args(["build", "--quiet", "--backend", backend.name(), "-o"])
                .args([&artifact, module]),
        )
        .success();
        Self { work, artifact }
    }

    /// The artifact.
    pub fn artifact(&self) -> &Path {
        &self.artifact
    }

    /// The directory in which the artifact lies.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// A runner that will serve it.
    pub fn serve(&self) -> RunnerCommand {
        self.serve_with(&[])
    }

    /// A runner that will serve it with these arguments.
    pub fn serve_with(&self, arguments: &[&str]) -> RunnerCommand {
        let mut fprocess = self.artifact.display().to_string();
        for argument in arguments {
            fprocess.push(' ');
            fprocess.push_str(argument);
        }
        RunnerCommand::new(&fprocess)
    }
}
