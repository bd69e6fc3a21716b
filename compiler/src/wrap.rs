//! Makes sure that no imported function can ever be a function reference.
//!
//! Works around a miscompilation of wasmer-compiler-llvm 7.4.2. Its code passes a hidden argument,
//! the base of memory 0, to functions that the module defines but not to imported ones. For
//! `call_indirect` it must guess which of the two it will find (`build_m0_indirect_call` in
//! `translator/code.rs`): it looks the table index up in the table's first active segment as if
//! that began at 0, and disregards other segments, passive ones and `table.set`. A wrong guess
//! passes arguments in the wrong registers. Its call trampolines, with which the host calls an
//! exported or start function, always pass the argument.
//!
//! So each imported function that is used as a value gets a *wrapper*: a defined function of the
//! same type, behind all others, that calls it.
//!
//! ```text
//! (import "m" "f" (func $f (param i32)))      (import "m" "f" (func $f (param i32)))
//! (elem (i32.const 3) $g $f)             =>   (elem (i32.const 3) $g $f.wrapper)
//! (func $g ...)                               (func $g ...)
//!                                             (func $f.wrapper (param i32)
//!                                                 (call $f (local.get 0)))
//! ```
//!
//! Why that is complete: a function becomes a value only by an element segment, by `ref.func` in a
//! body, a global or a table's initializer, by an export, or as the start function, and all of
//! these are rewritten here. Tables and globals that come from outside could bring others, but
//! [`crate::imports`] rejects them, and no host function takes or gives a reference. What remains
//! are direct calls, where the backend knows the callee. The guess then never finds an imported
//! function in a segment, so that it always takes the call with the argument: for segments at any
//! offset, empty ones, tables without any, and references that are stored at run time. Null
//! references need no care: the call traps before.
//!
//! It is done for both backends, so that an artifact means the same from either.

use std::collections::BTreeMap;
use std::convert::Infallible;

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    CodeSection, ElementSection, ExportSection, Function, FunctionSection, GlobalSection,
    Instruction, RawSection, SectionId, StartSection, TableSection,
};
use wasmparser::{BinaryReader, Operator, SectionLimited, TypeRef};

use crate::module::Module;

/// Why a module cannot be rewritten: none of it can happen to a valid one.
pub(crate) type Error = reencode::Error<Infallible>;

/// Sections where a function can become a value, but for the code: there, `ref.func` can only
/// name functions that one of these names, too.
const REFERRING: [u8; 5] = [
    SectionId::Table as u8,
    SectionId::Global as u8,
    SectionId::Export as u8,
    SectionId::Start as u8,
    SectionId::Element as u8,
];

/// A module with wrappers.
#[derive(Debug)]
pub(crate) struct Wrapped {
    /// The module: its function indices as before, without custom sections.
    pub(crate) wasm: Vec<u8>,
    /// Wrapper by imported function.
    wrappers: BTreeMap<u32, u32>,
}

impl Wrapped {
    /// Names the wrappers among the functions of the module that they were made for. They have no
    /// place in its file, so no offset.
    pub(crate) fn name(&self, module: &mut Module<'_>) {
        let imports: Vec<_> = imported_functions(module).collect();
        let names = &module.names.names;
        let name = |imported: u32| match names.binary_search_by_key(&imported, |(index, _)| *index)
        {
            Ok(at) => format!("{} (wrapper)", names[at].1),
            Err(_) => imports
                .get(imported as usize)
                .map_or_else(String::new, |import| {
                    format!("{}.{} (wrapper)", import.module, import.name)
                }),
        };
        let wrappers = self.wrappers.iter();
        let mut added: Vec<_> = wrappers
            .map(|(imported, wrapper)| (*wrapper, name(*imported)))
            .collect();
        added.sort_unstable();
        // The file may name functions that it does not have.
        let known = module.functions.len() as u32;
        module.names.names.retain(|(index, _)| *index < known);
        module.names.names.extend(added);
    }
}

/// Rewrites a validated module, or gives nothing if no imported function is used as a value.
///
/// # Errors
///
/// None if the module is valid.
pub(crate) fn wrap(module: &Module<'_>) -> Result<Option<Wrapped>, Error> {
    let mut wrapper = Wrapper::new(module);
    let mut scratch = wasm_encoder::Module::new();
    for (id, _) in REFERRING.iter().filter_map(|id| section(module, *id)) {
        wrapper.section(*id, &mut scratch)?;
    }
    if wrapper.wrappers.is_empty() {
        return Ok(None);
    }
    Ok(Some(Wrapped {
        wasm: wrapper.module()?,
        wrappers: wrapper.wrappers,
    }))
}

fn imported_functions<'a, 'm>(
    module: &'m Module<'a>,
) -> impl Iterator<Item = &'m wasmparser::Import<'a>> {
    let imports = module.imports.iter();
    imports.filter(|import| matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)))
}

fn section<'m>(module: &'m Module<'_>, id: u8) -> Option<&'m (u8, std::ops::Range<usize>)> {
    module.sections.iter().find(|(found, _)| *found == id)
}

/// Re-encodes sections, giving out wrappers as they are needed.
struct Wrapper<'a, 'm> {
    module: &'m Module<'a>,
    imported: u32,
    wrappers: BTreeMap<u32, u32>,
    /// The imported functions in the order of their wrappers.
    order: Vec<u32>,
}

impl<'a, 'm> Wrapper<'a, 'm> {
    fn new(module: &'m Module<'a>) -> Self {
        Self {
            module,
            imported: imported_functions(module).count() as u32,
            wrappers: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    /// All of the module, once it is known which wrappers it takes.
    fn module(&mut self) -> Result<Vec<u8>, Error> {
        let module = self.module;
        let mut out = wasm_encoder::Module::new();
        // A module of imports alone has neither functions nor code.
        let missing = |id| section(module, id as u8).is_none();
        let mut functions_due = missing(SectionId::Function);
        let mut code_due = missing(SectionId::Code);
        for (id, _) in &module.sections {
            let early = [SectionId::Type as u8, SectionId::Import as u8];
            if functions_due && !early.contains(id) {
                self.section(SectionId::Function as u8, &mut out)?;
                functions_due = false;
            }
            if code_due && *id == SectionId::Data as u8 {
                self.section(SectionId::Code as u8, &mut out)?;
                code_due = false;
            }
            self.section(*id, &mut out)?;
        }
        if functions_due {
            self.section(SectionId::Function as u8, &mut out)?;
        }
        if code_due {
            self.section(SectionId::Code as u8, &mut out)?;
        }
        Ok(out.finish())
    }

    /// One section; a missing one counts as empty.
    fn section(&mut self, id: u8, out: &mut wasm_encoder::Module) -> Result<(), Error> {
        let (data, offset) = match section(self.module, id) {
            Some((_, range)) => (&self.module.wasm[range.clone()], range.start as u64),
            None => (&[0][..], 0),
        };
        let mut reader = BinaryReader::new(data, offset);
        if id == SectionId::Function as u8 {
            let mut functions = FunctionSection::new();
            self.parse_function_section(&mut functions, SectionLimited::new(reader)?)?;
            for imported in &self.order {
                functions.function(self.module.functions[*imported as usize]);
            }
            out.section(&functions);
        } else if id == SectionId::Code as u8 {
            let mut code = CodeSection::new();
            self.parse_code_section(&mut code, SectionLimited::new(reader)?)?;
            for imported in &self.order {
                code.function(&self.body(*imported));
            }
            out.section(&code);
        } else if id == SectionId::Table as u8 {
            let mut tables = TableSection::new();
            self.parse_table_section(&mut tables, SectionLimited::new(reader)?)?;
            out.section(&tables);
        } else if id == SectionId::Global as u8 {
            let mut globals = GlobalSection::new();
            self.parse_global_section(&mut globals, SectionLimited::new(reader)?)?;
            out.section(&globals);
        } else if id == SectionId::Export as u8 {
            let mut exports = ExportSection::new();
            self.parse_export_section(&mut exports, SectionLimited::new(reader)?)?;
            out.section(&exports);
        } else if id == SectionId::Start as u8 {
            let function_index = self.start_section(reader.read_var_u32()?)?;
            out.section(&StartSection { function_index });
        } else if id == SectionId::Element as u8 {
            let mut elements = ElementSection::new();
            self.parse_element_section(&mut elements, SectionLimited::new(reader)?)?;
            out.section(&elements);
        } else {
            out.section(&RawSection { id, data });
        }
        Ok(())
    }

    /// A body that calls an imported function with its own parameters.
    fn body(&self, imported: u32) -> Function {
        let ty = self.module.functions[imported as usize];
        let parameters = self
            .module
            .function_type(ty)
            .map_or(0, |ty| ty.params().len() as u32);
        let mut body = Function::new([]);
        for parameter in 0..parameters {
            body.instruction(&Instruction::LocalGet(parameter));
        }
        body.instruction(&Instruction::Call(imported));
        body.instruction(&Instruction::End);
        body
    }
}

impl Reencode for Wrapper<'_, '_> {
    type Error = Infallible;

    /// Whoever asks uses the function as a value, see `instruction` for the others.
    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        if function >= self.imported {
            return Ok(function);
        }
        let next = (self.module.functions.len() + self.order.len()) as u32;
        let order = &mut self.order;
        let wrapper = self.wrappers.entry(function).or_insert_with(|| {
            order.push(function);
            next
        });
        Ok(*wrapper)
    }

    fn instruction<'a>(&mut self, operator: Operator<'a>) -> Result<Instruction<'a>, Error> {
        match operator {
            Operator::Call { function_index } => Ok(Instruction::Call(function_index)),
            Operator::ReturnCall { function_index } => Ok(Instruction::ReturnCall(function_index)),
            other => reencode::utils::instruction(self, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::{ConstExpr, ElementItems, FunctionBody, Parser, Payload, TableInit};

    use super::*;

    /// Every place where an imported function can become a value, and direct calls of the same.
    const TEXT: &str = r#"(module
        (type $unit (func))
        (import "m" "start" (func $start (type $unit)))
        (import "m" "exported" (func $exported (param i64 f32) (result i32 f64)))
        (import "m" "table" (func $table (param i32)))
        (import "m" "global" (func (result v128)))
        (import "m" "called" (func $called (param i32) (result i32)))
        (import "m" "passive" (func $passive))
        (import "m" "declared" (func $declared (param externref)))
        (import "m" "initial" (func $initial))
        (table 10 funcref)
        (table 2 funcref (ref.func $initial))
        (memory 1)
        (global funcref (ref.func 3))
        (export "exported" (func $exported))
        (export "_start" (func $own))
        (start $start)
        (elem (i32.const 3) $own $table $own)
        (elem (i32.const 0) funcref (ref.func $passive) (ref.null func))
        (elem funcref (item ref.func $passive) (item ref.null func))
        (elem declare func $declared)
        (data "kept")
        (func $own
            (drop (call $called (i32.const 1)))
            (call $table (i32.const 2))
            (table.set (i32.const 1) (ref.func $declared))
            (table.set (i32.const 2) (ref.func $own))
            (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 4))
            (return_call $passive)))"#;

    fn assemble(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("the text is correct")
    }

    fn wrap_bytes(wasm: &[u8]) -> Option<Wrapped> {
        let module = Module::parse(wasm).expect("the module is well formed");
        wrap(&module).expect("the module is valid")
    }

    /// The functions that are values, and the ones that are called.
    #[derive(Debug, Default)]
    struct Uses {
        values: Vec<u32>,
        calls: Vec<u32>,
    }

    impl Uses {
        /// Found by a walk of its own, so that the test does not share the rewriting's mistakes.
        fn of(wasm: &[u8]) -> Self {
            let mut uses = Self::default();
            for payload in Parser::new(0).parse_all(wasm) {
                match payload.expect("it is well formed") {
                    Payload::TableSection(tables) => {
                        for table in tables {
                            if let TableInit::Expr(init) = table.expect("a table").init {
                                uses.expression(&init);
                            }
                        }
                    }
                    Payload::GlobalSection(globals) => {
                        for global in globals {
                            uses.expression(&global.expect("a global").init_expr);
                        }
                    }
                    Payload::ExportSection(exports) => {
                        for export in exports {
                            let export = export.expect("an export");
                            if export.kind == wasmparser::ExternalKind::Func {
                                uses.values.push(export.index);
                            }
                        }
                    }
                    Payload::StartSection { func, .. } => uses.values.push(func),
                    Payload::ElementSection(segments) => {
                        for segment in segments {
                            match segment.expect("a segment").items {
                                ElementItems::Functions(functions) => {
                                    let functions = functions.into_iter();
                                    uses.values
                                        .extend(functions.map(|index| index.expect("one")));
                                }
                                ElementItems::Expressions(_, items) => {
                                    for item in items {
                                        uses.expression(&item.expect("an expression"));
                                    }
                                }
                            }
                        }
                    }
                    Payload::CodeSectionEntry(body) => uses.body(&body),
                    _ => {}
                }
            }
            uses
        }

        fn expression(&mut self, expression: &ConstExpr<'_>) {
            for operator in expression.get_operators_reader() {
                self.operator(&operator.expect("an operator"));
            }
        }

        fn body(&mut self, body: &FunctionBody<'_>) {
            for operator in body.get_operators_reader().expect("a body") {
                self.operator(&operator.expect("an operator"));
            }
        }

        fn operator(&mut self, operator: &Operator<'_>) {
            match operator {
                Operator::RefFunc { function_index } => self.values.push(*function_index),
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    self.calls.push(*function_index);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn no_imported_function_remains_a_value() {
        let wasm = assemble(TEXT);
        let wrapped = wrap_bytes(&wasm).expect("there is something to wrap");
        wasmparser::validate(&wrapped.wasm).expect("the result is valid");

        let before = Module::parse(&wasm).expect("it is well formed");
        let after = Module::parse(&wrapped.wasm).expect("it is well formed");
        let uses = Uses::of(&wrapped.wasm);
        assert!(uses.values.iter().all(|index| *index >= 8), "{uses:?}");
        // Each value became its wrapper, which has the same type, or stayed as it was.
        let expected: Vec<_> = Uses::of(&wasm)
            .values
            .iter()
            .map(|index| *wrapped.wrappers.get(index).unwrap_or(index))
            .collect();
        assert_eq!(uses.values, expected);
        for (imported, wrapper) in &wrapped.wrappers {
            assert_eq!(
                after.functions[*wrapper as usize], before.functions[*imported as usize],
                "{imported}"
            );
        }
        let all: Vec<_> = wrapped.wrappers.keys().copied().collect();
        assert_eq!(all, [0, 1, 2, 3, 5, 6, 7], "only called: 4");

        // Direct calls stay; behind them come those of the wrappers, in their order.
        let mut calls = vec![4, 2, 5];
        let mut wrappers: Vec<_> = wrapped.wrappers.iter().map(|(i, w)| (*w, *i)).collect();
        wrappers.sort_unstable();
        assert_eq!(wrappers[0].0, 9);
        calls.extend(wrappers.iter().map(|(_, imported)| *imported));
        assert_eq!(uses.calls, calls);
        // Sections that name no functions are as they were.
        for id in [1, 2, 5, 11, 12] {
            let content = |module: &Module<'_>, wasm: &[u8]| {
                section(module, id).map(|(_, range)| wasm[range.clone()].to_vec())
            };
            let kept = content(&before, &wasm);
            assert!(kept.is_some(), "section {id}");
            assert_eq!(kept, content(&after, &wrapped.wasm), "section {id}");
        }
        assert!(wrap_bytes(&wrapped.wasm).is_none(), "nothing is left to do");
    }

    #[test]
    fn modules_without_such_values_stay_as_they_are() {
        for text in [
            "(module)",
            r#"(module (import "m" "f" (func $f)) (func (export "_start") call $f))"#,
            r#"(module (import "m" "f" (func $f)) (import "m" "t" (table 1 funcref))
                (elem (i32.const 0) $own) (global funcref (ref.func $own)) (start $own)
                (func $own (table.set (i32.const 0) (ref.func $own)) return_call $f))"#,
        ] {
            assert!(wrap_bytes(&assemble(text)).is_none(), "{text}");
        }
    }

    #[test]
    fn module_of_imports_alone_gets_the_sections_it_lacks() {
        for rest in [
            "",
            r#"(memory 1) (data (i32.const 0) "x")"#,
            "(table 1 funcref)",
        ] {
            let text = format!(
                r#"(module (import "m" "f" (func $f)) {rest} (export "_start" (func $f)))"#
            );
            let wrapped = wrap_bytes(&assemble(&text)).expect("the export is one");
            wasmparser::validate(&wrapped.wasm).expect("the result is valid");
            let uses = Uses::of(&wrapped.wasm);
            assert_eq!((uses.values, uses.calls), (vec![1], vec![0]), "{rest}");
        }
    }

    #[test]
    fn wrappers_are_named_and_have_no_offset() {
        let wasm = assemble(
            r#"(module (import "m" "a" (func $first)) (import "m" "b" (func))
                (table 2 funcref) (elem (i32.const 0) func 1 0) (func $own))"#,
        );
        let mut module = Module::parse(&wasm).expect("it is well formed");
        let wrapped = wrap_bytes(&wasm).expect("there is something to wrap");
        // The name section of a hostile file.
        module.names.names.push((3, "a lie".into()));
        let offsets = module.names.offsets.clone();
        wrapped.name(&mut module);
        let names: Vec<_> = module.names.names.iter().map(|(i, n)| (*i, &**n)).collect();
        assert_eq!(
            names,
            [
                (0, "first"),
                (2, "own"),
                (3, "m.b (wrapper)"),
                (4, "first (wrapper)"),
            ]
        );
        assert_eq!(module.names.offsets, offsets);
    }
}
