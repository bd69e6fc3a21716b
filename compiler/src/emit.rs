//! `--emit`: what the LLVM backend makes on its way, for people who look at its work.

use std::path::{Path, PathBuf};

/// A kind of intermediate output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Emit {
    /// Intermediate code after optimization, as text
    LlvmIr,
    /// Assembly
    Asm,
    /// Relocatable objects
    Obj,
}

impl Emit {
    /// How its files' names end, as the backend writes them.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::LlvmIr => ".postopt.ll",
            Self::Asm => ".s",
            Self::Obj => ".o",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::LlvmIr => "llvm-ir",
            Self::Asm => "asm",
            Self::Obj => "obj",
        }
    }

    /// Where its files go: a directory beside the artifact, `foo.asm` for `foo.so`.
    pub(crate) fn directory(self, artifact: &Path) -> PathBuf {
        artifact.with_extension(self.name())
    }
}
