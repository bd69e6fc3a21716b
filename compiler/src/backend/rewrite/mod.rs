//! Changes function bodies on their way into a backend, where it would make wrong code of them or none.
//!
//! A backend reads bodies through a chain of wasmer's middlewares. What is decided here for a function, its [`Edits`],
//! is put into the stream of its operators by [`Rewrite`]. The module stays as it is, and with it every offset in DWARF
//! and in trap reports: what is added is where the operator is that it is added to.
//!
//! An edit never changes what a valid module means. The keys under which code is kept have the body as it was: edits
//! follow from the body, the module and this program, which are in the keys.

mod demand;
mod flow;
mod loads;
#[cfg(test)]
mod tests;
mod vectors;

use std::sync::{Arc, OnceLock};

use faas_wasm_artifact::Backend;
use wasm_encoder::Encode as _;
use wasmer_compiler::wasmparser::{BinaryReader, FunctionBody, MemArg, Operator, Result, ValType};
use wasmer_compiler::{FunctionMiddleware, MiddlewareReaderState, ModuleMiddleware};
use wasmer_types::entity::EntityRef as _;
use wasmer_types::{
    FunctionIndex, LocalFunctionIndex, MiddlewareError, ModuleInfo, SignatureIndex, TagIndex,
};

use self::flow::{Flow, Types};
use crate::target::Target;

/// What is changed at one operator.
#[derive(Debug, Default)]
struct Edit {
    /// The operator's place in the body.
    at: u32,
    before: Vec<Operator<'static>>,
    /// What takes its place, if it does not stay.
    instead: Option<Vec<Operator<'static>>>,
}

/// All changes of a body.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// In the order of the body.
    edits: Vec<Edit>,
    /// Locals behind those that the function has.
    locals: Vec<ValType>,
}

impl Edits {
    /// Finds out what a backend needs changed in the body of a defined function.
    ///
    /// # Errors
    ///
    /// None if the module is valid.
    pub(super) fn find(
        backend: Backend,
        target: &Target,
        module: &ModuleInfo,
        function: LocalFunctionIndex,
        body: &[u8],
    ) -> Result<Self> {
        if backend == Backend::Cranelift && !vectors::concerns(target) {
            return Ok(Self::default());
        }
        let arity = module.arity(module.function(module.func_index(function).as_u32()));
        let flow = Flow::read(body, arity, module)?;
        let mut finder = Finder {
            flow: &flow,
            edits: Self::default(),
        };
        finder.vectors(backend, target);
        if backend == Backend::Llvm {
            finder.tail_calls(module);
            finder.loads();
        }
        let mut edits = finder.edits;
        edits.edits.sort_by_key(|edit| edit.at);
        Ok(edits)
    }

    /// The body with the locals that were added, or nothing if it needs no more. It is longer by the bytes that are
    /// given, all before its operators.
    pub(super) fn with_locals(&self, body: &[u8]) -> Result<Option<(Vec<u8>, u64)>> {
        if self.locals.is_empty() {
            return Ok(None);
        }
        let read = FunctionBody::new(BinaryReader::new(body, 0));
        let mut locals = read.get_binary_reader();
        let groups = locals.read_var_u32()?;
        let first = locals.original_position() as usize;
        let operators = read.get_operators_reader()?.original_position() as usize;
        let mut longer = Vec::with_capacity(body.len() + 16);
        (groups + self.locals.len() as u32).encode(&mut longer);
        longer.extend_from_slice(&body[first..operators]);
        for ty in &self.locals {
            1u32.encode(&mut longer);
            longer.push(encoding(*ty));
        }
        longer.extend_from_slice(&body[operators..]);
        let added = (longer.len() - body.len()) as u64;
        Ok(Some((longer, added)))
    }
}

/// The types that locals are added of.
fn encoding(ty: ValType) -> u8 {
    match ty {
        ValType::I64 => 0x7e,
        ValType::F32 => 0x7d,
        ValType::F64 => 0x7c,
        ValType::V128 => 0x7b,
        ValType::I32 | ValType::Ref(_) => 0x7f,
    }
}

impl Types for ModuleInfo {
    fn arity(&self, ty: u32) -> (u32, u32) {
        let ty = self.signatures.get(SignatureIndex::from_u32(ty));
        ty.map_or((0, 0), |ty| {
            (ty.params().len() as u32, ty.results().len() as u32)
        })
    }

    fn function(&self, function: u32) -> u32 {
        let ty = self.functions.get(FunctionIndex::from_u32(function));
        ty.map_or(u32::MAX, |ty| ty.as_u32())
    }

    fn tag(&self, tag: u32) -> u32 {
        let ty = self.tags.get(TagIndex::from_u32(tag));
        ty.map_or(u32::MAX, |ty| ty.as_u32())
    }
}

struct Finder<'f, 'a> {
    flow: &'f Flow<'a>,
    edits: Edits,
}

impl Finder<'_, '_> {
    /// A local of this type, for a moment.
    fn local(&mut self, ty: ValType) -> u32 {
        self.nth_local(ty, 0)
    }

    /// The same beside that one.
    fn another_local(&mut self, ty: ValType) -> u32 {
        self.nth_local(ty, 1)
    }

    fn nth_local(&mut self, ty: ValType, nth: usize) -> u32 {
        let locals = &mut self.edits.locals;
        loop {
            let mut places = (0..).zip(&*locals).filter(|(_, found)| **found == ty);
            if let Some((place, _)) = places.nth(nth) {
                return self.flow.locals + place;
            }
            locals.push(ty);
        }
    }

    /// LLVM's translator goes on behind a tail call of an imported function, as if it were a call in the middle of the
    /// function. An imported function never calls back by a tail call, so the stack does not grow.
    fn tail_calls(&mut self, module: &ModuleInfo) {
        for node in &self.flow.nodes {
            if let Operator::ReturnCall { function_index } = node.operator
                && module.is_imported_function(FunctionIndex::from_u32(function_index))
            {
                self.edits.edits.push(Edit {
                    at: node.at,
                    instead: Some(vec![Operator::Call { function_index }, Operator::Return]),
                    ..Edit::default()
                });
            }
        }
    }

    /// Before each load that could be lost, an atomic one of its last byte: any address is aligned for it, and LLVM
    /// keeps it.
    fn loads(&mut self) {
        let found = loads::unobserved(self.flow);
        if found.is_empty() {
            return;
        }
        let address = self.local(ValType::I32);
        let mut nodes = self.flow.nodes.iter();
        for at in found {
            let Some(operator) = nodes.find(|node| node.at == at).map(|node| &node.operator) else {
                continue;
            };
            let (Some(memarg), Some(load)) = (loads::memarg(operator), demand::load(operator))
            else {
                continue;
            };
            let last = MemArg {
                align: 0,
                max_align: 0,
                offset: memarg.offset + u64::from(load.bytes) - 1,
                memory: memarg.memory,
            };
            // A load of a lane has its vector above the address.
            let has_vector = matches!(
                operator,
                Operator::V128Load8Lane { .. }
                    | Operator::V128Load16Lane { .. }
                    | Operator::V128Load32Lane { .. }
                    | Operator::V128Load64Lane { .. }
            );
            let vector = has_vector.then(|| self.local(ValType::V128));
            let mut before = Vec::new();
            before.extend(vector.map(|local_index| Operator::LocalSet { local_index }));
            before.extend([
                Operator::LocalTee {
                    local_index: address,
                },
                Operator::I32AtomicLoad8U { memarg: last },
                Operator::Drop,
                Operator::LocalGet {
                    local_index: address,
                },
            ]);
            before.extend(vector.map(|local_index| Operator::LocalGet { local_index }));
            self.edits.edits.push(Edit {
                at,
                before,
                instead: None,
            });
        }
    }
}

/// The edits of the functions that a compiler is given, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Rewrite(OnceLock<Arc<Vec<Edits>>>);

impl Rewrite {
    /// From now on bodies are changed, once.
    pub(super) fn set(&self, edits: Arc<Vec<Edits>>) {
        // A second one would be ignored; compile_module is called once for a configuration.
        let _ = self.0.set(edits);
    }
}

impl ModuleMiddleware for Rewrite {
    fn generate_function_middleware<'a>(
        &self,
        function: LocalFunctionIndex,
    ) -> Box<dyn FunctionMiddleware<'a> + 'a> {
        Box::new(RewriteFunction {
            edits: self.0.get().cloned().unwrap_or_default(),
            function: function.index(),
            at: 0,
            next: 0,
        })
    }
}

#[derive(Debug)]
struct RewriteFunction {
    edits: Arc<Vec<Edits>>,
    function: usize,
    /// The operator that comes next, and the edit.
    at: u32,
    next: usize,
}

impl<'a> FunctionMiddleware<'a> for RewriteFunction {
    fn feed(
        &mut self,
        operator: Operator<'a>,
        state: &mut MiddlewareReaderState<'a>,
    ) -> std::result::Result<(), MiddlewareError> {
        let edits = self.edits.get(self.function);
        let edits = edits.map_or(&[][..], |edits| &edits.edits);
        match edits.get(self.next) {
            Some(edit) if edit.at == self.at => {
                self.next += 1;
                match &edit.instead {
                    Some(instead) => state.extend(instead.iter().cloned()),
                    None => state.push_operator(operator),
                }
            }
            _ => state.push_operator(operator),
        }
        self.at += 1;
        // Behind an operator is where the next one is to DWARF, so that what can trap is put there.
        if let Some(edit) = edits.get(self.next)
            && edit.at == self.at
        {
            state.extend(edit.before.iter().cloned());
        }
        Ok(())
    }
}
