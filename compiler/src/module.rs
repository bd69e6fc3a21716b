//! The facts of a WebAssembly module that the pipeline needs before and beside the backend: one
//! walk over its sections, after validation.

use std::ops::Range;

use faas_wasm_artifact::FunctionNames;
use wasmparser::{
    CompositeInnerType, ConstExpr, Data, Element, ElementItems, ElementKind, ExternalKind,
    FuncType, Global, Import, KnownCustom, MemoryType, Name, Parser, Payload, Result, TypeRef,
};

/// The facts, borrowed from the file.
#[derive(Debug, Default)]
pub(crate) struct Module<'a> {
    pub(crate) wasm: &'a [u8],
    /// Function types by type index; `None` for other types.
    pub(crate) types: Vec<Option<FuncType>>,
    pub(crate) imports: Vec<Import<'a>>,
    /// Type index of each function, imported ones first.
    pub(crate) functions: Vec<u32>,
    /// Initial sizes of the tables in elements, imported ones first.
    pub(crate) tables: Vec<u64>,
    /// Memories, imported ones first.
    pub(crate) memories: Vec<MemoryType>,
    /// `None` for an imported global.
    pub(crate) globals: Vec<Option<Global<'a>>>,
    pub(crate) exports: Vec<(&'a str, ExternalKind, u32)>,
    /// Active element segments.
    pub(crate) elements: Vec<ActiveElements<'a>>,
    pub(crate) data: Vec<Data<'a>>,
    /// All sections but custom ones, in order: number and content.
    pub(crate) sections: Vec<(u8, Range<usize>)>,
    /// Whether it can have `memory.init` and `data.drop`: they need this section.
    pub(crate) has_data_count: bool,
    pub(crate) names: FunctionNames,
    /// Custom sections with DWARF: name and content.
    pub(crate) debug: Vec<(&'a str, &'a [u8])>,
}

/// An element segment that instantiation writes to a table.
#[derive(Debug)]
pub(crate) struct ActiveElements<'a> {
    /// Its number among all segments.
    pub(crate) segment: u32,
    pub(crate) table: u32,
    pub(crate) offset: ConstExpr<'a>,
    /// In elements.
    pub(crate) length: u32,
}

impl<'a> ActiveElements<'a> {
    fn of(segment: u32, element: Element<'a>) -> Option<Self> {
        let ElementKind::Active {
            table_index,
            offset_expr,
        } = element.kind
        else {
            return None;
        };
        Some(Self {
            segment,
            table: table_index.unwrap_or(0),
            offset: offset_expr,
            length: match element.items {
                ElementItems::Functions(functions) => functions.count(),
                ElementItems::Expressions(_, expressions) => expressions.count(),
            },
        })
    }
}

impl<'a> Module<'a> {
    /// Walks over a module.
    ///
    /// # Errors
    ///
    /// None if the module is valid.
    pub(crate) fn parse(wasm: &'a [u8]) -> Result<Self> {
        let mut module = Self {
            wasm,
            ..Self::default()
        };
        for payload in Parser::new(0).parse_all(wasm) {
            module.add(payload?)?;
        }
        Ok(module)
    }

    /// All sections in order, custom ones too: number and content.
    pub(crate) fn all_sections(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let wasm = self.wasm;
        let payloads = Parser::new(0).parse_all(wasm);
        // The module has been walked over before.
        payloads.filter_map(move |payload| {
            let (id, range) = payload.ok()?.as_section()?;
            Some((id, &wasm[range.start as usize..range.end as usize]))
        })
    }

    /// Number of imported memories.
    pub(crate) fn imported_memories(&self) -> usize {
        let imports = self.imports.iter();
        imports
            .filter(|import| matches!(import.ty, TypeRef::Memory(_)))
            .count()
    }

    /// The bodies of the functions, and where they begin in the file.
    pub(crate) fn code(&self) -> impl Iterator<Item = Result<(&'a [u8], u64)>> {
        let wasm = self.wasm;
        let payloads = Parser::new(0).parse_all(wasm);
        payloads.filter_map(move |payload| match payload {
            Ok(Payload::CodeSectionEntry(body)) => {
                let range = body.range();
                let bytes = &wasm[range.start as usize..range.end as usize];
                Some(Ok((bytes, range.start)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// Where function bodies begin within the code section, as DWARF counts.
    pub(crate) fn bodies(&self) -> Vec<u32> {
        const CODE_SECTION: u8 = 10;
        let mut sections = self.sections.iter();
        let code = sections.find(|(id, _)| *id == CODE_SECTION);
        let start = code.map_or(0, |(_, code)| code.start as u32);
        let offsets = self.names.offsets.iter();
        offsets.map(|offset| offset.saturating_sub(start)).collect()
    }

    /// The type with this index, if it is a function type.
    pub(crate) fn function_type(&self, index: u32) -> Option<&FuncType> {
        self.types.get(index as usize)?.as_ref()
    }

    fn add(&mut self, payload: Payload<'a>) -> Result<()> {
        if let Some((id, range)) = payload.as_section()
            && !matches!(payload, Payload::CustomSection(_))
        {
            // The parser's offsets are within the slice it was given.
            self.sections
                .push((id, range.start as usize..range.end as usize));
        }
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    self.types.extend(group?.into_types().map(
                        |ty| match ty.composite_type.inner {
                            CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        },
                    ));
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.add_import(import?);
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    self.functions.push(ty?);
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    self.tables.push(table?.ty.initial);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    self.memories.push(memory?);
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    self.globals.push(Some(global?));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    self.exports.push((export.name, export.kind, export.index));
                }
            }
            Payload::ElementSection(section) => {
                for (index, segment) in (0..).zip(section) {
                    self.elements.extend(ActiveElements::of(index, segment?));
                }
            }
            Payload::DataCountSection { .. } => self.has_data_count = true,
            Payload::CodeSectionEntry(body) => {
                // Only custom sections could bring a body beyond 4 GiB; backtraces then say so.
                let offset = u32::try_from(body.range().start).unwrap_or(u32::MAX);
                self.names.offsets.push(offset);
            }
            Payload::DataSection(section) => {
                for segment in section {
                    self.data.push(segment?);
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    self.add_names(names);
                } else if section.name().starts_with(".debug_") {
                    self.debug.push((section.name(), section.data()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_import(&mut self, import: Import<'a>) {
        match import.ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => self.functions.push(ty),
            TypeRef::Memory(memory) => self.memories.push(memory),
            TypeRef::Global(_) => self.globals.push(None),
            TypeRef::Table(table) => self.tables.push(table.initial),
            TypeRef::Tag(_) => {}
        }
        self.imports.push(import);
    }

    /// Names are for backtraces only: what cannot be read of them is left out.
    fn add_names(&mut self, names: wasmparser::NameSectionReader<'a>) {
        let functions = names.into_iter().filter_map(|name| match name {
            Ok(Name::Function(map)) => Some(map),
            _ => None,
        });
        for naming in functions
            .flat_map(IntoIterator::into_iter)
            .map_while(Result::ok)
        {
            let name = (naming.index, naming.name.to_owned());
            self.names.names.push(name);
        }
        self.names.names.sort_unstable();
        self.names.names.dedup_by_key(|(index, _)| *index);
    }
}

/// A function type in the text format: `func (param i32) (result i32)`.
pub(crate) fn describe_function(ty: &FuncType) -> String {
    let list = |keyword: &str, types: &[wasmparser::ValType]| {
        let names: Vec<_> = types.iter().map(ToString::to_string).collect();
        match names.as_slice() {
            [] => String::new(),
            names => format!(" ({keyword} {})", names.join(" ")),
        }
    };
    format!(
        "func{}{}",
        list("param", ty.params()),
        list("result", ty.results())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collects_names_and_offsets() {
        let wasm = wat::parse_str(
            r#"(module
                (import "env" "f" (func $outside (param i32) (result i64)))
                (func $one)
                (func $two (export "_start") call $one))"#,
        )
        .expect("the text is correct");
        let module = Module::parse(&wasm).expect("the module is valid");
        let names: Vec<_> = module.names.names.iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["outside", "one", "two"]);
        assert_eq!(module.imports.len(), 1);
        assert_eq!(module.functions.len(), 3);
        let ty = module.function_type(module.functions[0]);
        assert_eq!(
            ty.map(describe_function).as_deref(),
            Some("func (param i32) (result i64)")
        );
        // The second body starts behind the first: one byte of locals, `end`, and a size.
        let [one, two] = module.names.offsets[..] else {
            panic!("{:?}", module.names.offsets);
        };
        assert_eq!(two, one + 3);
        assert_eq!(wasm[one as usize..one as usize + 2], [0, 0x0b]);
    }
}
