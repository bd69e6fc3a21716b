//! What the code of a function depends on: the key under which it is kept.
//!
//! Everything goes in that a compiler looks at, but not the numbers of the functions that are
//! called, nor those of types: they change for most functions when one is added. A call stands in
//! the key as "the third function that this body names, of this type", which is all that the code
//! contains of it. Indices that are constants in the code (of references, globals, imports, tables,
//! segments) go in as they are.

use std::collections::HashMap;

use wasmer_compiler::types::module::CompileModuleInfo;
use wasmer_types::entity::EntityRef as _;
use wasmer_types::{ExportIndex, FunctionType, LocalFunctionIndex, ModuleInfo};
use wasmparser::{BinaryReader, BlockType, FunctionBody, Operator};

use super::Options;
use crate::cache::{Key, KeyBuilder};

/// An export whose function LLVM's compiler does not optimize.
const UNOPTIMIZED_EXPORT: &str = "__wasm_apply_data_relocs";

/// What all functions of a module have in common.
pub(super) struct Environment<'a> {
    module: &'a ModuleInfo,
    common: Key,
    types: Vec<Vec<u8>>,
    unoptimized: Option<u32>,
}

/// A function's key, and the defined functions that its body calls, in the order of their first use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FunctionKey {
    pub(super) key: Key,
    pub(super) callees: Vec<u32>,
}

impl<'a> Environment<'a> {
    pub(super) fn new(
        backend: &str,
        options: &Options,
        info: &'a CompileModuleInfo,
        unwind: bool,
    ) -> Self {
        let module = &*info.module;
        let types: Vec<Vec<u8>> = module
            .signatures
            .iter()
            .map(|(index, ty)| {
                let hash = module.signature_hashes.get(index).map(|hash| hash.as_u32());
                format!("{:?} {hash:?}", signature(ty)).into_bytes()
            })
            .collect();
        let mut key = KeyBuilder::new();
        let Options {
            opt_level,
            jobs: _,
            target,
            // What is kept has none.
            debug: _,
            // Nothing is taken from the cache then.
            emit: _,
        } = options;
        for part in [
            backend.to_owned(),
            format!("{opt_level:?} {} {:?}", target.triple, target.features),
            format!("{:?} {unwind}", info.features),
            format!("{:?} {:?}", info.memory_styles, info.table_styles),
            format!("{:?} {:?}", module.tables, module.memories),
            format!("{:?}", module.globals),
            format!(
                "{} {} {} {} {}",
                module.num_imported_functions,
                module.num_imported_tables,
                module.num_imported_memories,
                module.num_imported_tags,
                module.num_imported_globals
            ),
        ] {
            key.add(part.as_bytes());
        }
        for ty in module.tags.values() {
            key.add(types.get(ty.index()).map_or(&[][..], Vec::as_slice));
        }
        let unoptimized = match module.exports.get(UNOPTIMIZED_EXPORT) {
            Some(ExportIndex::Function(function)) => Some(function.as_u32()),
            _ => None,
        };
        Self {
            module,
            common: key.finish(),
            types,
            unoptimized,
        }
    }

    /// The key of a type's call trampoline.
    pub(super) fn trampoline(&self, ty: &FunctionType) -> Key {
        let mut key = self.begin(b"trampoline");
        key.add(format!("{:?}", signature(ty)).as_bytes());
        key.finish()
    }

    /// The key of a defined function.
    ///
    /// # Errors
    ///
    /// None if the module is valid.
    pub(super) fn function(
        &self,
        function: LocalFunctionIndex,
        body: &[u8],
    ) -> wasmparser::Result<FunctionKey> {
        let mut key = self.begin(b"function");
        let index = self.module.func_index(function).as_u32();
        key.add(self.type_of(index));
        key.add(&[u8::from(self.unoptimized == Some(index))]);

        let imported = self.module.num_imported_functions as u32;
        let mut places = HashMap::new();
        let mut callees = Vec::new();
        let mut reader = FunctionBody::new(BinaryReader::new(body, 0)).get_operators_reader()?;
        // Bytes that are in the key.
        let mut done = 0;
        while !reader.eof() {
            let start = reader.original_position() as usize;
            let operator = reader.read()?;
            let end = reader.original_position() as usize;
            let (tag, number, ty): (u8, u32, &[u8]) = match operator {
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    let number = match function_index.checked_sub(imported) {
                        None => function_index,
                        Some(callee) => {
                            let place = *places.entry(callee).or_insert_with(|| {
                                callees.push(callee);
                                callees.len() as u32 - 1
                            });
                            imported + place
                        }
                    };
                    let tail = matches!(operator, Operator::ReturnCall { .. });
                    (u8::from(tail), number, self.type_of(function_index))
                }
                Operator::CallIndirect {
                    type_index,
                    table_index,
                } => (2, table_index, self.ty(type_index)),
                Operator::ReturnCallIndirect {
                    type_index,
                    table_index,
                } => (3, table_index, self.ty(type_index)),
                Operator::Block {
                    blockty: BlockType::FuncType(ty),
                } => (4, 0, self.ty(ty)),
                Operator::Loop {
                    blockty: BlockType::FuncType(ty),
                } => (5, 0, self.ty(ty)),
                Operator::If {
                    blockty: BlockType::FuncType(ty),
                } => (6, 0, self.ty(ty)),
                // What it catches is in its bytes, which stay; its type may have another meaning.
                Operator::TryTable { ref try_table } => match try_table.ty {
                    BlockType::FuncType(ty) => {
                        key.add(self.ty(ty));
                        continue;
                    }
                    _ => continue,
                },
                _ => continue,
            };
            key.add(&body[done..start]);
            key.add(&[tag]);
            key.add(&number.to_le_bytes());
            key.add(ty);
            done = end;
        }
        key.add(&body[done..]);
        Ok(FunctionKey {
            key: key.finish(),
            callees,
        })
    }

    fn begin(&self, what: &[u8]) -> KeyBuilder {
        let mut key = KeyBuilder::default();
        key.add(self.common.as_bytes());
        key.add(what);
        key
    }

    fn ty(&self, index: u32) -> &[u8] {
        self.types.get(index as usize).map_or(&[], Vec::as_slice)
    }

    /// The type of a function, imported ones counted.
    fn type_of(&self, function: u32) -> &[u8] {
        let ty = self
            .module
            .functions
            .get(wasmer_types::FunctionIndex::from_u32(function));
        ty.map_or(&[], |ty| self.ty(ty.as_u32()))
    }
}

fn signature(ty: &FunctionType) -> (&[wasmer_types::Type], &[wasmer_types::Type]) {
    (ty.params(), ty.results())
}
