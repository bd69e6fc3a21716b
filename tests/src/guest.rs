//! Artifacts for tests, each in a separate temporary directory.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::Outcome;
use crate::runner::RunnerCommand;
use crate::surroundings::{fixture, skip, tool, tool_at, tool_program};

/// A backend of the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The fast backend, for tests in which the backend does not matter.
    Cranelift,
    /// The default backend.
    Llvm,
}

impl Backend {
    /// All backends of the tool, Cranelift first. A build without LLVM passes the same tests.
    pub fn all() -> Vec<Self> {
        static ALL: OnceLock<Vec<Backend>> = OnceLock::new();
        ALL.get_or_init(|| Self::of(&tool_program())).clone()
    }

    /// All backends of another build of the tool.
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

    /// Whether the tool has LLVM. If it does not, records that the test is skipped.
    pub fn llvm_or_skip(test: &str) -> bool {
        let is_there = Self::all().contains(&Self::Llvm);
        if !is_there {
            skip(test, "the tool was built without LLVM");
        }
        is_there
    }

    /// The backend's name for `--backend`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cranelift => "cranelift",
            Self::Llvm => "llvm",
        }
    }
}

/// A directory for one test, removed on drop.
#[derive(Debug)]
pub struct Work(TempDir);

impl Work {
    /// Creates an empty directory.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory can be made"))
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of an entry in the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file into the directory.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).expect("the file can be written");
        path
    }

    /// The sorted names of the directory's entries.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("the directory is there");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("it can be read").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Copies a fixture's module into the directory.
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
    /// Compiles a fixture with the fast backend.
    pub fn fixture(name: &str) -> Self {
        Self::compiled(&fixture(name), Backend::Cranelift)
    }

    /// Compiles a fixture with the given backend.
    pub fn fixture_by(name: &str, backend: Backend) -> Self {
        Self::compiled(&fixture(name), backend)
    }

    /// Compiles a module with the given backend.
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

    /// The artifact's path.
    pub fn artifact(&self) -> &Path {
        &self.artifact
    }

    /// The directory that holds the artifact.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// A runner that will serve the artifact.
    pub fn serve(&self) -> RunnerCommand {
        self.serve_with(&[])
    }

    /// A runner that will serve the artifact with these arguments.
    pub fn serve_with(&self, arguments: &[&str]) -> RunnerCommand {
        let mut fprocess = self.artifact.display().to_string();
        for argument in arguments {
            fprocess.push(' ');
            fprocess.push_str(argument);
        }
        RunnerCommand::new(&fprocess)
    }
}
