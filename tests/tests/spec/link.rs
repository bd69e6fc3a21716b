//! Combines the instances of a bundle into one module.
//!
//! Each instance keeps its definitions in order. Indices are shifted, and an import becomes the index of the imported
//! item. A bundle with one instance keeps its active segments, its start function and its exports, so that the
//! product processes them unchanged. In a bundle with several instances, later ones change the state of earlier ones
//! between the steps of the script. So active segments become passive, and a function instantiates each instance.

use std::collections::BTreeSet;
use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, Elements, Encode as _,
    ExportKind, ExportSection, Function, FunctionSection, GlobalSection, MemorySection,
    TableSection, TagSection, TypeSection,
};
use wasmparser::{ExternalKind, Operator, Parser, Payload};

use crate::script::{Act, Bundle, Instance};

/// An active segment that a function applies.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) is_data: bool,
    pub(crate) index: u32,
    /// The memory or table.
    pub(crate) target: u32,
    /// Code that computes the offset.
    pub(crate) offset: Vec<u8>,
    pub(crate) length: u32,
}

/// The locations of an instance's items in the module.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    types: u32,
    functions: Vec<u32>,
    tables: Vec<u32>,
    memories: Vec<u32>,
    globals: Vec<u32>,
    tags: Vec<u32>,
    elements: u32,
    data: u32,
    imported_globals: u32,
    /// The segments that a function must apply to instantiate it, if any.
    pub(crate) segments: Vec<Segment>,
    /// The start function that a function must call at the end, if any.
    pub(crate) start: Option<u32>,
}

impl Placed {
    fn list(&mut self, kind: ExternalKind) -> &mut Vec<u32> {
        match kind {
            ExternalKind::Func | ExternalKind::FuncExact => &mut self.functions,
            ExternalKind::Table => &mut self.tables,
            ExternalKind::Memory => &mut self.memories,
            ExternalKind::Global => &mut self.globals,
            ExternalKind::Tag => &mut self.tags,
        }
    }

    /// The location of one of the instance's items.
    pub(crate) fn place(&self, kind: ExternalKind, index: u32) -> u32 {
        let list = match kind {
            ExternalKind::Func | ExternalKind::FuncExact => &self.functions,
            ExternalKind::Table => &self.tables,
            ExternalKind::Memory => &self.memories,
            ExternalKind::Global => &self.globals,
            ExternalKind::Tag => &self.tags,
        };
        list[index as usize]
    }
}

const KINDS: [ExternalKind; 5] = [
    ExternalKind::Func,
    ExternalKind::Table,
    ExternalKind::Memory,
    ExternalKind::Global,
    ExternalKind::Tag,
];

/// A module under construction, with the sections of all instances. The harness adds further items.
#[derive(Default)]
pub(crate) struct Linked {
    pub(crate) types: TypeSection,
    /// Number of types so far. A recursive group is one entry of the section but several types.
    pub(crate) type_count: u32,
    pub(crate) functions: FunctionSection,
    /// Number of functions that the harness imports, which come first.
    pub(crate) imported: u32,
    pub(crate) tables: TableSection,
    pub(crate) memories: MemorySection,
    pub(crate) tags: TagSection,
    pub(crate) globals: GlobalSection,
    /// Initial values of the globals, without their `end`.
    initial: Vec<Vec<u8>>,
    pub(crate) exports: ExportSection,
    pub(crate) start: Option<u32>,
    pub(crate) elements: ElementSection,
    pub(crate) code: CodeSection,
    pub(crate) data: DataSection,
    pub(crate) placed: Vec<Placed>,
}

/// Exports that the harness defines, or that the tool would call.
const OWN_EXPORTS: [&str; 3] = ["memory", "_start", "_initialize"];

impl Linked {
    /// Links a bundle's instances after `imported` functions of the harness.
    ///
    /// # Errors
    ///
    /// Describes what cannot be linked.
    pub(crate) fn new(bundle: &Bundle, imported: u32) -> Result<Self, String> {
        let instances = &bundle.instances;
        let mut linked = Self {
            imported,
            ..Self::default()
        };
        let mut counts = [imported, 0, 0, 0, 0];
        let [mut elements, mut data] = [0; 2];
        for instance in instances {
            let Instance { shape, imports, .. } = instance;
            let mut placed = Placed {
                types: linked.type_count,
                elements,
                data,
                ..Placed::default()
            };
            for ((_, _, kind), (exporter, name)) in shape.imports.iter().zip(imports) {
                let target = instances[*exporter].shape.exports.get(name);
                let (_, index) = target.ok_or_else(|| format!("nothing exports `{name}`"))?;
                let place = linked.placed[*exporter].place(*kind, *index);
                placed.list(*kind).push(place);
            }
            placed.imported_globals = placed.globals.len() as u32;
            for (kind, count) in KINDS.into_iter().zip(&mut counts) {
                while (placed.list(kind).len() as u32) < shape.count(kind) {
                    placed.list(kind).push(*count);
                    *count += 1;
                }
            }
            linked.type_count += shape.types();
            elements += shape.elements();
            data += data_segments(&instance.wasm);
            linked.placed.push(placed);
        }
        let instantiations = bundle
            .steps
            .iter()
            .filter(|step| step.act == Act::Instantiate);
        let deferred = instantiations.count() > 1;
        for (index, instance) in instances.iter().enumerate() {
            let added = linked.add(index, instance, deferred);
            added.map_err(|error| format!("cannot be linked: {error}"))?;
        }
        linked.declare(instances);
        Ok(linked)
    }

    fn add(
        &mut self,
        index: usize,
        instance: &Instance,
        deferred: bool,
    ) -> Result<(), Error<Infallible>> {
        let mut placed = std::mem::take(&mut self.placed[index]);
        let mut segments = Vec::new();
        for payload in Parser::new(0).parse_all(&instance.wasm) {
            let mut relocate = Relocate {
                placed: &placed,
                initial: &self.initial,
            };
            match payload? {
                Payload::TypeSection(section) => {
                    utils::parse_type_section(&mut relocate, &mut self.types, section)?;
                }
                Payload::FunctionSection(section) => {
                    utils::parse_function_section(&mut relocate, &mut self.functions, section)?;
                }
                Payload::TableSection(section) => {
                    utils::parse_table_section(&mut relocate, &mut self.tables, section)?;
                }
                Payload::MemorySection(section) => {
                    utils::parse_memory_section(&mut relocate, &mut self.memories, section)?;
                }
                Payload::TagSection(section) => {
                    utils::parse_tag_section(&mut relocate, &mut self.tags, section)?;
                }
                Payload::GlobalSection(section) => {
                    for global in section {
                        let global = global?;
                        let mut relocate = Relocate {
                            placed: &placed,
                            initial: &self.initial,
                        };
                        let initial = relocate.code_of(global.init_expr)?;
                        let ty = relocate.global_type(global.ty)?;
                        self.globals.global(ty, &ConstExpr::raw(initial.clone()));
                        self.initial.push(initial);
                    }
                }
                Payload::ExportSection(section) if !deferred && !instance.is_spectest => {
                    for export in section {
                        let export = export?;
                        if !OWN_EXPORTS.contains(&export.name) {
                            utils::parse_export(&mut relocate, &mut self.exports, export)?;
                        }
                    }
                }
                Payload::ElementSection(section) => {
                    for element in section {
                        let element = element?;
                        let index = self.elements.len();
                        match element.kind {
                            wasmparser::ElementKind::Active {
                                table_index,
                                ref offset_expr,
                            } if deferred => {
                                segments.push(Segment {
                                    is_data: false,
                                    index,
                                    target: relocate.table_index(table_index.unwrap_or(0))?,
                                    offset: relocate.code_of(offset_expr.clone())?,
                                    length: match &element.items {
                                        wasmparser::ElementItems::Functions(items) => items.count(),
                                        wasmparser::ElementItems::Expressions(_, items) => {
                                            items.count()
                                        }
                                    },
                                });
                                let items = relocate.element_items(element.items)?;
                                self.elements.passive(items);
                            }
                            _ => relocate.parse_element(&mut self.elements, element)?,
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    relocate.parse_function_body(&mut self.code, body)?;
                }
                Payload::DataSection(section) => {
                    for data in section {
                        let data = data?;
                        match data.kind {
                            wasmparser::DataKind::Active {
                                memory_index,
                                ref offset_expr,
                            } if deferred => {
                                segments.push(Segment {
                                    is_data: true,
                                    index: self.data.len(),
                                    target: relocate.memory_index(memory_index)?,
                                    offset: relocate.code_of(offset_expr.clone())?,
                                    length: data.data.len() as u32,
                                });
                                self.data.passive(data.data.iter().copied());
                            }
                            _ => relocate.parse_data(&mut self.data, data)?,
                        }
                    }
                }
                _ => {}
            }
        }
        let start = instance
            .shape
            .start
            .map(|start| placed.functions[start as usize]);
        if deferred {
            placed.segments = segments;
            placed.start = start;
        } else {
            self.start = self.start.or(start);
        }
        self.placed[index] = placed;
        Ok(())
    }

    /// Exported functions may be referenced by `ref.func`. A segment names them, so that this stays valid without the
    /// exports.
    fn declare(&mut self, instances: &[Instance]) {
        let mut functions = BTreeSet::new();
        for (placed, instance) in self.placed.iter().zip(instances) {
            let exports = instance.shape.exports.values();
            let exported = exports.filter(|(kind, _)| *kind == ExternalKind::Func);
            functions.extend(exported.map(|(_, index)| placed.functions[*index as usize]));
        }
        if !functions.is_empty() {
            let functions: Vec<u32> = functions.into_iter().collect();
            self.elements
                .declared(Elements::Functions(functions.into()));
        }
    }

    /// Adds a function type.
    pub(crate) fn add_type(
        &mut self,
        params: &[wasm_encoder::ValType],
        results: &[wasm_encoder::ValType],
    ) -> u32 {
        let (params, results) = (params.iter().copied(), results.iter().copied());
        self.types.ty().function(params, results);
        self.type_count += 1;
        self.type_count - 1
    }

    /// Adds a function after all others.
    pub(crate) fn add_function(&mut self, ty: u32, function: &Function) -> u32 {
        self.functions.function(ty);
        self.code.function(function);
        self.imported + self.functions.len() - 1
    }

    /// The module, with the functions that the harness imports.
    pub(crate) fn finish(self, imports: &wasm_encoder::ImportSection) -> Vec<u8> {
        let mut module = wasm_encoder::Module::new();
        module.section(&self.types).section(imports);
        module.section(&self.functions);
        if !self.tables.is_empty() {
            module.section(&self.tables);
        }
        if !self.memories.is_empty() {
            module.section(&self.memories);
        }
        if !self.tags.is_empty() {
            module.section(&self.tags);
        }
        if !self.globals.is_empty() {
            module.section(&self.globals);
        }
        module.section(&self.exports);
        if let Some(function_index) = self.start {
            module.section(&wasm_encoder::StartSection { function_index });
        }
        if !self.elements.is_empty() {
            module.section(&self.elements);
        }
        if !self.data.is_empty() {
            let count = self.data.len();
            module.section(&DataCountSection { count });
        }
        module.section(&self.code);
        if !self.data.is_empty() {
            module.section(&self.data);
        }
        module.finish()
    }

    /// Exports an item under a name of the harness.
    pub(crate) fn export(&mut self, name: &str, kind: ExportKind, index: u32) {
        self.exports.export(name, kind, index);
    }
}

fn data_segments(wasm: &[u8]) -> u32 {
    let sections = Parser::new(0).parse_all(wasm).filter_map(Result::ok);
    let counts = sections.map(|payload| match payload {
        Payload::DataSection(section) => section.count(),
        _ => 0,
    });
    counts.sum()
}

/// Maps an instance's indices to those in the module.
struct Relocate<'a> {
    placed: &'a Placed,
    initial: &'a [Vec<u8>],
}

impl Relocate<'_> {
    /// A constant expression as code. An imported global in it is replaced by its initial value: an index would refer
    /// to a global that the module defines, which only the garbage collection proposal allows.
    fn code_of(
        &mut self,
        expression: wasmparser::ConstExpr<'_>,
    ) -> Result<Vec<u8>, Error<Infallible>> {
        let mut operators = expression.get_operators_reader();
        let mut code = Vec::new();
        while !operators.is_end_then_eof() {
            match operators.clone().read()? {
                Operator::GlobalGet { global_index }
                    if global_index < self.placed.imported_globals =>
                {
                    operators.read()?;
                    let global = self.placed.globals[global_index as usize];
                    code.extend_from_slice(&self.initial[global as usize]);
                }
                _ => self.parse_instruction(&mut operators)?.encode(&mut code),
            }
        }
        Ok(code)
    }
}

impl Reencode for Relocate<'_> {
    type Error = Infallible;

    fn type_index(&mut self, ty: u32) -> Result<u32, Error> {
        Ok(self.placed.types + ty)
    }

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        Ok(self.placed.functions[function as usize])
    }

    fn table_index(&mut self, table: u32) -> Result<u32, Error> {
        Ok(self.placed.tables[table as usize])
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, Error> {
        Ok(self.placed.memories[memory as usize])
    }

    fn global_index(&mut self, global: u32) -> Result<u32, Error> {
        Ok(self.placed.globals[global as usize])
    }

    fn tag_index(&mut self, tag: u32) -> Result<u32, Error> {
        Ok(self.placed.tags[tag as usize])
    }

    fn element_index(&mut self, element: u32) -> Result<u32, Error> {
        Ok(self.placed.elements + element)
    }

    fn data_index(&mut self, data: u32) -> Result<u32, Error> {
        Ok(self.placed.data + data)
    }

    fn const_expr(&mut self, expression: wasmparser::ConstExpr<'_>) -> Result<ConstExpr, Error> {
        self.code_of(expression).map(ConstExpr::raw)
    }
}
