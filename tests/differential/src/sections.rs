//! A module split into its sections, so that items can be added to each.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, ElementSection, ExportSection, Function,
    FunctionSection, GlobalSection, ImportSection, MemorySection, Module, StartSection,
    TableSection, TagSection, TypeSection, ValType,
};
use wasmparser::{ExternalKind, FuncType, Parser, Payload, TableType};

/// The sections of a module, and the contents of its index spaces.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    types: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    tables: TableSection,
    pub(crate) memories: MemorySection,
    tags: TagSection,
    globals: GlobalSection,
    pub(crate) exports: ExportSection,
    start: Option<u32>,
    pub(crate) elements: ElementSection,
    data_count: Option<u32>,
    code: CodeSection,
    pub(crate) data: DataSection,
    pub(crate) known: Known,
}

/// The contents of a module's index spaces.
#[derive(Debug, Default, Clone)]
pub(crate) struct Known {
    /// The module's types, with `None` for those that are not function types.
    pub(crate) types: Vec<Option<FuncType>>,
    /// The type index of each defined function.
    pub(crate) functions: Vec<u32>,
    pub(crate) tables: Vec<TableType>,
    pub(crate) memories: u32,
    pub(crate) globals: Vec<wasmparser::GlobalType>,
    /// The exported defined functions, without duplicates, in ascending order.
    pub(crate) exported_functions: BTreeSet<u32>,
}

impl Known {
    /// The type of a defined function.
    pub(crate) fn function(&self, index: u32) -> Result<&FuncType> {
        let ty = self.functions.get(index as usize);
        let ty = ty.and_then(|ty| self.types.get(*ty as usize));
        ty.and_then(Option::as_ref)
            .context("a function's type is no function type")
    }
}

impl Sections {
    /// Splits a module without imports. `reencoder` changes its parts.
    ///
    /// # Errors
    ///
    /// The module is malformed or has imports.
    pub(crate) fn parse<R: Reencode<Error = std::convert::Infallible>>(
        wasm: &[u8],
        reencoder: &mut R,
    ) -> Result<Self> {
        let mut sections = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            sections.add(payload?, reencoder)?;
        }
        Ok(sections)
    }

    fn add<R: Reencode<Error = std::convert::Infallible>>(
        &mut self,
        payload: Payload<'_>,
        r: &mut R,
    ) -> Result<()> {
        let known = &mut self.known;
        match payload {
            Payload::TypeSection(section) => {
                for group in section.clone() {
                    known.types.extend(group?.into_types().map(
                        |ty| match ty.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        },
                    ));
                }
                r.parse_type_section(&mut self.types, section)?;
            }
            Payload::ImportSection(section) if section.count() == 0 => {}
            Payload::ImportSection(_) => bail!("the module has imports"),
            Payload::FunctionSection(section) => {
                for ty in section.clone() {
                    known.functions.push(ty?);
                }
                r.parse_function_section(&mut self.functions, section)?;
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    known.tables.push(table?.ty);
                }
                r.parse_table_section(&mut self.tables, section)?;
            }
            Payload::MemorySection(section) => {
                known.memories = section.count();
                r.parse_memory_section(&mut self.memories, section)?;
            }
            Payload::TagSection(section) => r.parse_tag_section(&mut self.tags, section)?,
            Payload::GlobalSection(section) => {
                for global in section.clone() {
                    known.globals.push(global?.ty);
                }
                r.parse_global_section(&mut self.globals, section)?;
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        known.exported_functions.insert(export.index);
                    }
                }
                r.parse_export_section(&mut self.exports, section)?;
            }
            Payload::StartSection { func, .. } => {
                self.start = Some(r.start_section(func)?);
            }
            Payload::ElementSection(section) => {
                r.parse_element_section(&mut self.elements, section)?
            }
            Payload::DataCountSection { count, .. } => self.data_count = Some(count),
            Payload::CodeSectionEntry(body) => r.parse_function_body(&mut self.code, body)?,
            Payload::DataSection(section) => r.parse_data_section(&mut self.data, section)?,
            _ => {}
        }
        Ok(())
    }

    /// Adds a function type and returns its index.
    pub(crate) fn add_type(&mut self, params: &[ValType], results: &[ValType]) -> u32 {
        let index = self.known.types.len() as u32;
        self.known.types.push(None);
        self.types
            .ty()
            .function(params.iter().copied(), results.iter().copied());
        index
    }

    /// Adds an imported function. The caller must have shifted all other indices.
    pub(crate) fn import_function(&mut self, module: &str, name: &str, ty: u32) {
        self.imports
            .import(module, name, wasm_encoder::EntityType::Function(ty));
    }

    /// Adds a function and returns its index among the defined ones.
    pub(crate) fn add_function(&mut self, ty: u32, body: &Function) -> u32 {
        let index = self.known.functions.len() as u32;
        self.known.functions.push(ty);
        self.functions.function(ty);
        self.code.function(body);
        index
    }

    /// Adds a mutable i32 global with the value zero, and returns its index.
    pub(crate) fn add_cell(&mut self) -> u32 {
        let index = self.globals.len();
        let ty = wasm_encoder::GlobalType {
            val_type: ValType::I32,
            mutable: true,
            shared: false,
        };
        self.globals
            .global(ty, &wasm_encoder::ConstExpr::i32_const(0));
        index
    }

    /// Adds a function table with this many elements that cannot grow, and returns its index.
    pub(crate) fn add_table(&mut self, size: u64) -> u32 {
        let index = self.tables.len();
        self.tables.table(wasm_encoder::TableType {
            element_type: wasm_encoder::RefType::FUNCREF,
            minimum: size,
            maximum: Some(size),
            table64: false,
            shared: false,
        });
        index
    }

    /// Adds a memory with this many pages that cannot grow, and returns its index.
    pub(crate) fn add_memory(&mut self, pages: u64) -> u32 {
        self.memories.memory(wasm_encoder::MemoryType {
            minimum: pages,
            maximum: Some(pages),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        self.memories.len() - 1
    }

    /// The module.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut module = Module::new();
        module
            .section(&self.types)
            .section(&self.imports)
            .section(&self.functions);
        module.section(&self.tables).section(&self.memories);
        if !self.tags.is_empty() {
            module.section(&self.tags);
        }
        module.section(&self.globals).section(&self.exports);
        if let Some(function_index) = self.start {
            module.section(&StartSection { function_index });
        }
        module.section(&self.elements);
        if let Some(count) = self.data_count {
            module.section(&DataCountSection { count });
        }
        module.section(&self.code).section(&self.data);
        module.finish()
    }
}

/// Converts a parsed type to wasm-encoder's. Supports only types of modules without garbage collection.
pub(crate) fn value_type(ty: wasmparser::ValType) -> Result<ValType> {
    Ok(reencode::RoundtripReencoder.val_type(ty)?)
}
