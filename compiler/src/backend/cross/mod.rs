//! Compiling for another architecture than this machine's.
//!
//! Both backends generate code for any architecture, but the link step of their interface passes
//! the linker no emulation and so knows the host's only. [`CrossConfig`] stands between: it lets a
//! backend generate code and does the link itself ([`link`]).
//!
//! ```text
//! llvm        objects of single functions, written to a directory before its own link fails
//! cranelift   bodies and relocations, put into one object by `object`
//! ```
//!
//! What comes out is like the output of the link step that it replaces, so that nothing behind it
//! can tell the difference.

mod directory;
mod link;
mod object;

use std::collections::HashSet;
use std::num::NonZero;
use std::sync::Arc;

use wasmer_compiler::types::function::Compilation;
use wasmer_compiler::types::module::CompileModuleInfo;
use wasmer_compiler::{
    Compiler, CompilerConfig, FunctionBodyData, ModuleMiddleware, ModuleTranslationState,
};
use wasmer_types::entity::PrimaryMap;
use wasmer_types::target::{Architecture, Target};
use wasmer_types::{CompilationProgressCallback, CompileError, Features, LocalFunctionIndex};

pub(super) use self::directory::ObjectDirectory;

/// Where a backend leaves the code that it has generated.
#[derive(Debug)]
pub(super) enum Code {
    /// In files, one object a function or trampoline.
    Objects(Arc<ObjectDirectory>),
    /// In the result of the compilation.
    Bodies,
}

/// A backend's configuration with a link step of ours.
pub(super) struct CrossConfig {
    pub(super) inner: Box<dyn CompilerConfig>,
    pub(super) code: Code,
    pub(super) jobs: NonZero<usize>,
    /// Whether DWARF is kept.
    pub(super) debug: bool,
}

impl CompilerConfig for CrossConfig {
    fn compiler(self: Box<Self>) -> Box<dyn Compiler> {
        Box::new(CrossCompiler {
            inner: self.inner.compiler(),
            code: self.code,
            jobs: self.jobs,
            debug: self.debug,
        })
    }

    fn default_features_for_target(&self, target: &Target) -> Features {
        self.inner.default_features_for_target(target)
    }

    fn supported_features_for_target(&self, target: &Target) -> Features {
        self.inner.supported_features_for_target(target)
    }

    fn push_middleware(&mut self, middleware: Arc<dyn ModuleMiddleware>) {
        self.inner.push_middleware(middleware);
    }
}

#[derive(Debug)]
struct CrossCompiler {
    inner: Box<dyn Compiler>,
    code: Code,
    jobs: NonZero<usize>,
    debug: bool,
}

impl Compiler for CrossCompiler {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn deterministic_id(&self) -> String {
        self.inner.deterministic_id()
    }

    fn artifact_format(&self) -> String {
        wasmer_compiler::ArtifactFormat::Native.to_string()
    }

    fn get_middlewares(&self) -> &[Arc<dyn ModuleMiddleware>] {
        self.inner.get_middlewares()
    }

    fn enable_readonly_funcref_table(&self) -> bool {
        self.inner.enable_readonly_funcref_table()
    }

    fn compile_module(
        &self,
        target: &Target,
        info: &CompileModuleInfo,
        info_blob: &[u8],
        translation: &ModuleTranslationState,
        bodies: PrimaryMap<LocalFunctionIndex, FunctionBodyData<'_>>,
        progress: Option<&CompilationProgressCallback>,
    ) -> Result<Compilation, CompileError> {
        let functions = bodies.len();
        let result =
            self.inner
                .compile_module(target, info, info_blob, translation, bodies, progress);
        let objects = match &self.code {
            Code::Objects(directory) => {
                ignore_link_error(result)?;
                let (mut objects, symbols) = directory.read(functions, &info.module)?;
                // Behind all others: it ends the unwind information.
                objects.push(object::metadata(target, info_blob, &symbols)?);
                objects
            }
            Code::Bodies => match result? {
                Compilation::Rkyv { compilation, .. } => {
                    vec![object::whole(target, info_blob, &compilation)?]
                }
                Compilation::Elf { .. } => {
                    return Err(CompileError::Codegen("it has linked already".into()));
                }
            },
        };
        Ok(Compilation::Elf {
            data: link::link(emulation(target)?, objects, self.jobs, self.debug)?,
            function_max_stack_usage: (0..functions).map(|_| None).collect(),
        })
    }
}

/// The threads to compile a module with.
///
/// One where several types are equal, which compilers never do: their trampolines are one file, and
/// threads must not write it at the same time.
pub(super) fn jobs(wasm: &[u8], jobs: NonZero<usize>) -> NonZero<usize> {
    let payloads = wasmparser::Parser::new(0).parse_all(wasm);
    let mut types = payloads.filter_map(|payload| match payload {
        Ok(wasmparser::Payload::TypeSection(types)) => Some(types),
        _ => None,
    });
    let mut seen = HashSet::new();
    let distinct = types.next().is_none_or(|types| {
        let mut groups = types.into_iter().flatten();
        groups.all(|group| group.types().all(|ty| seen.insert(format!("{ty}"))))
    });
    if distinct {
        jobs
    } else {
        NonZero::<usize>::MIN
    }
}

/// The backend's own link has failed, which is what we are here for.
fn ignore_link_error(result: Result<Compilation, CompileError>) -> Result<(), CompileError> {
    match result {
        Err(CompileError::Codegen(message)) if message.starts_with("Wild linker failed") => Ok(()),
        // It can succeed if there is nothing in the objects that differs.
        result => result.map(|_| ()),
    }
}

/// The linker's name of the target.
fn emulation(target: &Target) -> Result<&'static str, CompileError> {
    match target.triple().architecture {
        Architecture::X86_64 => Ok("elf_x86_64"),
        Architecture::Aarch64(_) => Ok("aarch64linux"),
        Architecture::Riscv64(_) => Ok("elf64lriscv"),
        other => Err(CompileError::UnsupportedTarget(other.to_string())),
    }
}
