//! The contestants, and their programs for each kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use faas_wasm_tests::{Backend, Outcome, Work, tool_at};

use crate::rival;
use crate::selection::{Selection, sources};

/// How often a program repeats its workload; see `kernel.h`.
const REPEATS: &str = "5";

/// The C dialect and the arithmetic of all programs. Native code must not fuse a product with a sum, because
/// WebAssembly cannot and the results would differ. `sqrt` sets no `errno`: it is one instruction everywhere.
const C_FLAGS: [&str; 7] = [
    "-std=gnu17",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Wall",
    "-Wextra",
    "-Werror",
];

/// A compiler of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// Native code, the baseline for all others.
    Clang,
    /// A build of `faas-wasm`.
    Ours {
        /// Index of the tool in the selection.
        tool: usize,
        /// The tool's backend.
        backend: Backend,
        /// Whether the module uses SIMD.
        simd: bool,
    },
    /// wasmtime.
    Wasmtime {
        /// Whether the module uses SIMD.
        simd: bool,
    },
}

/// A kernel's programs.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Name of the source file.
    pub(crate) name: String,
    /// All contestants with the commands that run their compiled programs.
    pub(crate) programs: Vec<(Contestant, Command)>,
}

/// All contestants.
pub(crate) fn all(selection: &Selection) -> Vec<Contestant> {
    let mut contestants = vec![Contestant::Clang];
    for simd in [true, false] {
        for &backend in &selection.backends {
            // Two tools that are compared run directly after each other.
            for tool in 0..selection.tools.len() {
                contestants.push(Contestant::Ours {
                    tool,
                    backend,
                    simd,
                });
            }
        }
        if rival::IS_THERE && !selection.compares() {
            contestants.push(Contestant::Wasmtime { simd });
        }
    }
    contestants
}

/// Compiles all kernels with all contestants.
pub(crate) fn build(selection: &Selection, work: &Work) -> Vec<Kernel> {
    let kernels = selection.kernels.iter();
    kernels
        .map(|name| {
            let kernel = Builder {
                selection,
                work,
                name,
            };
            for simd in [true, false] {
                kernel.module(simd);
            }
            Kernel {
                name: name.clone(),
                programs: all(selection)
                    .into_iter()
                    .map(|contestant| (contestant, kernel.program(contestant)))
                    .collect(),
            }
        })
        .collect()
}

struct Builder<'a> {
    selection: &'a Selection,
    work: &'a Work,
    name: &'a str,
}

impl Builder<'_> {
    fn program(&self, contestant: Contestant) -> Command {
        let mut command = match contestant {
            Contestant::Clang => Command::new(self.native()),
            Contestant::Ours {
                tool,
                backend,
                simd,
            } => {
                let artifact = self.artifact(tool, backend, simd);
                let mut command = tool_at(&self.selection.tools[tool]);
                command.arg("run").arg(artifact);
                command
            }
            Contestant::Wasmtime { simd } => {
                let this = std::env::current_exe().expect("a program has a file");
                let mut command = Command::new(this);
                command.arg(rival::FLAG).arg(self.path(&module_name(simd)));
                command
            }
        };
        command.arg(REPEATS);
        if self.selection.compares() {
            command.arg("cpu");
        }
        command
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.work.join(&format!("{}{suffix}", self.name))
    }

    fn clang(&self, flags: &[&str], output: &Path) {
        let source = sources().join(format!("{}.c", self.name));
        let mut clang = Command::new("clang-22");
        clang.args(C_FLAGS).args(flags);
        clang.arg("-o").arg(output).arg(source).arg("-lm");
        Outcome::of(&mut clang).success();
    }

    fn native(&self) -> PathBuf {
        let program = self.path("");
        let flag = match self.selection.cpu.as_str() {
            "generic" => None,
            "native" if cfg!(target_arch = "aarch64") => Some("-mcpu=native".to_owned()),
            // clang's name for level 1.
            "x86-64-v1" => Some("-march=x86-64".to_owned()),
            level => Some(format!("-march={level}")),
        };
        self.clang(flag.as_deref().as_slice(), &program);
        program
    }

    fn module(&self, simd: bool) {
        // Debian installs wasi-libc under the name wasm32-wasi.
        let mut flags = vec!["--target=wasm32-wasi", "-Wno-deprecated"];
        if simd {
            flags.push("-msimd128");
        }
        self.clang(&flags, &self.path(&module_name(simd)));
    }

    fn artifact(&self, tool: usize, backend: Backend, simd: bool) -> PathBuf {
        let module = module_name(simd);
        let artifact = self.path(&format!("{module}.{}.{tool}.so", backend.name()));
        let mut command = tool_at(&self.selection.tools[tool]);
        command
            .args(["build", "--quiet", "--no-cache"])
            .args(["--backend", backend.name(), "--cpu", &self.selection.cpu])
            .arg("-o")
            .args([&artifact, &self.path(&module)]);
        Outcome::of(&mut command).success();
        artifact
    }
}

fn module_name(simd: bool) -> String {
    format!("{}.wasm", if simd { ".simd" } else { "" })
}

impl Contestant {
    /// The name in the tables.
    pub(crate) fn name(self) -> String {
        let simd = |name: &str, simd| match simd {
            true => format!("{name}, SIMD"),
            false => name.to_owned(),
        };
        match self {
            Self::Clang => "clang".to_owned(),
            Self::Ours {
                backend,
                simd: with,
                ..
            } => simd(
                match backend {
                    Backend::Llvm => "LLVM",
                    Backend::Cranelift => "Cranelift",
                },
                with,
            ),
            Self::Wasmtime { simd: with } => simd("wasmtime", with),
        }
    }
}
