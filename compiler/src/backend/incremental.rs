//! Compiles a module function by function, taking from the cache what is there.
//!
//! This stands between wasmer's engine, which reads the module, and a backend, which compiles it:
//!
//! ```text
//! engine -> bodies -> keys -> cache --(found)--------------------> units -> link -> ELF
//!                                \--(missing)-> backend -> objects --^
//! ```
//!
//! A unit depends on its key and nothing else, so that a program from the cache has the same bytes as
//! one without it: [`key`](super::key) says what goes into a key, and the compiler sees functions
//! under changing numbers ([`renumber`](super::renumber)) from the first build on.

use std::sync::{Arc, Mutex, PoisonError};

use faas_wasm_artifact::Backend;
use object::elf;
use wasmer_compiler::types::function::Compilation;
use wasmer_compiler::types::module::CompileModuleInfo;
use wasmer_compiler::{
    Compiler, CompilerConfig, FunctionBodyData, ModuleMiddleware, ModuleTranslationState,
};
use wasmer_types::entity::{EntityRef as _, PrimaryMap};
use wasmer_types::target::{Architecture, Target};
use wasmer_types::{CompilationProgressCallback, CompileError, Features, LocalFunctionIndex};

use super::key::{Environment, FunctionKey};
use super::link::{self, Program};
use super::object::{self as objects, Extras, Unit};
use super::renumber::{Numbers, Renumber};
use super::rewrite::{Edits, Rewrite};
use super::{Compiled, Options};
use crate::cache::Cache;

/// Why a module could not be compiled here, beside the backend's own reasons.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Backend(#[from] CompileError),
    #[error("the backend did not hand out its objects")]
    NoObjects,
    #[error("the backend made {found} objects, expected {expected} at least")]
    Objects { expected: usize, found: usize },
    #[error("a function body cannot be read")]
    Body(#[from] wasmparser::Error),
    #[error("{0} is not an architecture that we link for")]
    Architecture(Architecture),
    #[error(transparent)]
    Object(#[from] objects::Error),
    #[error(transparent)]
    Link(#[from] link::Error),
}

impl Error {
    /// Whether there is more code than calls reach over.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Link(link::Error::TooFar { .. }))
    }
}

/// What the compiler leaves for who asked for it. wasmer's engine would load it into this process.
pub(super) type Outcome = Arc<Mutex<Option<Result<Compiled, Error>>>>;

/// A backend's configuration with the cache and our link behind it.
pub(super) struct Config {
    pub(super) inner: Box<dyn CompilerConfig>,
    pub(super) backend: Backend,
    pub(super) options: Options,
    pub(super) cache: Cache,
    pub(super) outcome: Outcome,
}

impl CompilerConfig for Config {
    fn compiler(mut self: Box<Self>) -> Box<dyn Compiler> {
        // It counts operators, so that it comes before what could add some.
        let rewrite = Arc::new(Rewrite::default());
        self.inner.push_middleware(rewrite.clone());
        let renumber = Arc::new(Renumber::default());
        self.inner.push_middleware(renumber.clone());
        Box::new(Incremental {
            inner: self.inner.compiler(),
            rewrite,
            renumber,
            backend: self.backend,
            options: self.options,
            cache: self.cache,
            outcome: self.outcome,
        })
    }

    fn supported_features_for_target(&self, target: &Target) -> Features {
        self.inner.supported_features_for_target(target)
    }

    fn push_middleware(&mut self, middleware: Arc<dyn ModuleMiddleware>) {
        self.inner.push_middleware(middleware);
    }
}

#[derive(Debug)]
struct Incremental {
    inner: Box<dyn Compiler>,
    rewrite: Arc<Rewrite>,
    renumber: Arc<Renumber>,
    backend: Backend,
    options: Options,
    cache: Cache,
    outcome: Outcome,
}

impl Compiler for Incremental {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn deterministic_id(&self) -> String {
        self.inner.deterministic_id()
    }

    fn get_middlewares(&self) -> &[Arc<dyn ModuleMiddleware>] {
        self.inner.get_middlewares()
    }

    fn enable_readonly_funcref_table(&self) -> bool {
        self.inner.enable_readonly_funcref_table()
    }

    /// Leaves the result in `outcome`, and tells the engine that there is none.
    fn compile_module(
        &self,
        target: &Target,
        info: &CompileModuleInfo,
        _: &[u8],
        translation: &ModuleTranslationState,
        bodies: PrimaryMap<LocalFunctionIndex, FunctionBodyData<'_>>,
        progress: Option<&CompilationProgressCallback>,
    ) -> Result<Compilation, CompileError> {
        let request = Request {
            target,
            info,
            translation,
            bodies: bodies
                .values()
                .map(|body| (body.data, body.module_offset))
                .collect(),
            progress,
        };
        let result = self.compile(&request);
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        *outcome = Some(result);
        Err(CompileError::Codegen("the result is elsewhere".into()))
    }
}

/// What the engine hands over.
struct Request<'a> {
    target: &'a Target,
    info: &'a CompileModuleInfo,
    translation: &'a ModuleTranslationState,
    /// Bytes, and where they lie in the module.
    bodies: Vec<(&'a [u8], u64)>,
    progress: Option<&'a CompilationProgressCallback>,
}

impl Incremental {
    fn compile(&self, request: &Request<'_>) -> Result<Compiled, Error> {
        let info = request.info;
        // Only exceptions unwind guests; for backtraces there are frame pointers.
        let extras = Extras {
            unwind: !info.module.tags.is_empty(),
            debug: self.options.debug,
        };
        let machine = machine(request.target)?;
        let environment = Environment::new(self.backend.name(), &self.options, info, extras.unwind);
        let keys = keys(&environment, &request.bodies, self.options.jobs.get())?;
        let mut functions: Vec<Option<Unit>> =
            keys.iter().map(|key| self.cached(&key.key)).collect();
        // Equal types have one trampoline.
        let types = info.module.signatures.values();
        let trampoline_keys: Vec<_> = types.map(|ty| environment.trampoline(ty)).collect();
        let mut trampolines: Vec<Option<Unit>> =
            trampoline_keys.iter().map(|key| self.cached(key)).collect();

        let missing: Vec<u32> = (0..)
            .zip(&functions)
            .filter(|(_, unit)| unit.is_none())
            .map(|(function, _)| function)
            .collect();
        if !missing.is_empty() || trampolines.iter().any(Option::is_none) {
            let made = self.backend_units(request, &keys, &missing, extras)?;
            for (function, unit) in missing.iter().zip(made.functions) {
                self.keep(&keys[*function as usize].key, &unit);
                functions[*function as usize] = Some(unit);
            }
            for ((place, key), unit) in trampolines
                .iter_mut()
                .zip(&trampoline_keys)
                .zip(made.trampolines)
            {
                if place.is_none() {
                    self.keep(key, &unit);
                    *place = Some(unit);
                }
            }
        }
        // Every place that was empty is filled now.
        let functions: Vec<Unit> = functions.into_iter().flatten().collect();
        let trampolines: Vec<Unit> = trampolines.into_iter().flatten().collect();
        let callees: Vec<_> = keys.into_iter().map(|key| key.callees).collect();
        let elf = link::link(&Program {
            machine,
            functions: &functions,
            callees: &callees,
            trampolines: trampolines.iter().collect(),
        })?;
        Ok(Compiled {
            module: (*info.module).clone(),
            elf,
            reused: functions.len() - missing.len(),
        })
    }

    /// Code without DWARF, which says where in the module it is from.
    fn cached(&self, key: &crate::cache::Key) -> Option<Unit> {
        if self.options.debug || self.options.emit.is_some() {
            return None;
        }
        postcard::from_bytes(&self.cache.function(key)?).ok()
    }

    fn keep(&self, key: &crate::cache::Key, unit: &Unit) {
        if self.cache.is_on()
            && !self.options.debug
            && let Ok(bytes) = postcard::to_stdvec(unit)
        {
            self.cache.keep_function(key, &bytes);
        }
    }

    /// Lets the backend compile the missing functions, and all trampolines.
    fn backend_units(
        &self,
        request: &Request<'_>,
        keys: &[FunctionKey],
        missing: &[u32],
        extras: Extras,
    ) -> Result<Made, Error> {
        let module = &*request.info.module;
        let numbers = Arc::new(Numbers::new(module, missing));
        self.renumber.set(Arc::clone(&numbers));
        let mut info = request.info.clone();
        info.module = Arc::new(numbers.apply(module));
        let least = request.translation.code_section_offset().unwrap_or(0);
        let (backend, target) = (self.backend, &self.options.target);
        let sources = &request.bodies;
        let edits = in_chunks(missing, self.options.jobs.get(), |_, function| {
            let local = LocalFunctionIndex::from_u32(*function);
            let (body, _) = sources[*function as usize];
            let edits = Edits::find(backend, target, module, local, body)?;
            let longer = edits.with_locals(body)?;
            Ok::<_, Error>((edits, longer))
        })?;
        let (edits, longer): (Vec<_>, Vec<_>) = edits.into_iter().unzip();
        self.rewrite.set(Arc::new(edits));
        let bodies = missing.iter().zip(&longer).map(|(function, longer)| {
            let (data, offset) = request.bodies[*function as usize];
            // It is in DWARF only, and changes when a function before it does.
            let offset = if extras.debug { offset } else { least };
            match longer {
                // Its operators stay where they are in the module.
                Some((data, added)) => FunctionBodyData {
                    data,
                    module_offset: offset.saturating_sub(*added),
                },
                None => FunctionBodyData {
                    data,
                    module_offset: offset,
                },
            }
        });
        let compilation = self.inner.compile_module(
            request.target,
            &info,
            &[],
            request.translation,
            bodies.collect(),
            request.progress,
        )?;
        let Compilation::Elf { data, .. } = compilation else {
            return Err(Error::NoObjects);
        };
        let made = libwild::objects(&data).ok_or(Error::NoObjects)?;
        let types = module.signatures.len();
        let expected = missing.len() + types;
        if made.len() < expected {
            return Err(Error::Objects {
                expected,
                found: made.len(),
            });
        }
        let mut functions = Vec::with_capacity(missing.len());
        for (number, (function, object)) in missing.iter().zip(&made).enumerate() {
            let callees = &keys[*function as usize].callees;
            let place = |new: u32| {
                let old = numbers.old(new)?;
                let place = callees.iter().position(|callee| *callee == old)?;
                u32::try_from(place).ok()
            };
            functions.push(Unit::read(object, &format!("f{number}"), extras, place)?);
        }
        let trampolines = made[missing.len()..expected].iter().enumerate();
        let trampolines = trampolines
            .map(|(ty, object)| Unit::read(object, &format!("t{ty}"), Extras::default(), |_| None))
            .collect::<Result<_, _>>()?;
        Ok(Made {
            functions,
            trampolines,
        })
    }
}

/// What the backend made.
struct Made {
    functions: Vec<Unit>,
    trampolines: Vec<Unit>,
}

/// The keys of all functions.
fn keys(
    environment: &Environment<'_>,
    bodies: &[(&[u8], u64)],
    jobs: usize,
) -> Result<Vec<FunctionKey>, Error> {
    in_chunks(bodies, jobs, |function, (body, _)| {
        Ok(environment.function(LocalFunctionIndex::new(function), body)?)
    })
}

/// Does something with all items by several threads.
fn in_chunks<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    work: impl Fn(usize, &T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let size = items.len().div_ceil(jobs).max(1);
    let chunk = |(number, chunk): (usize, &[T])| {
        let items = (number * size..).zip(chunk);
        items
            .map(|(index, item)| work(index, item))
            .collect::<Result<Vec<_>, _>>()
    };
    let chunks: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(size)
            .enumerate()
            .map(|part| {
                let chunk = &chunk;
                scope.spawn(move || chunk(part))
            })
            .collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results
            // A panic goes on here, where it is made into an error.
            .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<_, _>>()
    })?;
    Ok(chunks.into_iter().flatten().collect())
}

fn machine(target: &Target) -> Result<elf::Machine, Error> {
    match target.triple().architecture {
        Architecture::X86_64 => Ok(elf::EM_X86_64),
        Architecture::Aarch64(_) => Ok(elf::EM_AARCH64),
        Architecture::Riscv64(_) => Ok(elf::EM_RISCV),
        other => Err(Error::Architecture(other)),
    }
}
