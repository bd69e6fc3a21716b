//! Puts functions that trap in the place of imported ones that nobody provides, if the user asks.
//!
//! Programs often import what they never call: a library that was linked for one function brings
//! all others. Such a module is rewritten before anything else looks at it: the imports go away, and
//! behind all functions there is one for each that has their type and one instruction,
//! `unreachable`. Numbers of functions change; the name section, if there is one, goes along.

use std::convert::Infallible;

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, Function, FunctionSection, ImportSection, Instruction};
use wasmparser::{CodeSectionReader, FunctionSectionReader, ImportSectionReader, TypeRef};

use crate::imports::{Provider, provider};
use crate::module::Module;

/// Why a module cannot be rewritten: none of it can happen to a valid one.
pub(crate) type Error = reencode::Error<Infallible>;

/// A module without the imports that nobody provides.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) wasm: Vec<u8>,
    /// The functions that trap now: `module.name`.
    pub(crate) functions: Vec<String>,
}

/// Rewrites a module, if there is something to do. Other things than functions stay.
///
/// # Errors
///
/// See [`Error`].
pub(crate) fn rewrite(module: &Module<'_>) -> Result<Option<Rewritten>, Error> {
    let mut rewriter = Rewriter::default();
    let mut functions = Vec::new();
    let mut numbers = Vec::new();
    for import in &module.imports {
        let (TypeRef::Func(ty) | TypeRef::FuncExact(ty)) = import.ty else {
            rewriter.keep.push(true);
            continue;
        };
        let missing = matches!(provider(module, import), Provider::Nobody(_));
        rewriter.keep.push(!missing);
        numbers.push(missing);
        if missing {
            rewriter.types.push(ty);
            functions.push(format!("{}.{}", import.module, import.name));
        }
    }
    if functions.is_empty() {
        return Ok(None);
    }
    let kept = numbers.iter().filter(|missing| !**missing).count() as u32;
    let defined = module.functions.len() as u32 - numbers.len() as u32;
    let (mut next_kept, mut next_trap) = (0, kept + defined);
    for missing in numbers {
        let next = if missing {
            &mut next_trap
        } else {
            &mut next_kept
        };
        rewriter.numbers.push(*next);
        *next += 1;
    }
    rewriter.removed = functions.len() as u32;
    let mut out = wasm_encoder::Module::new();
    rewriter.parse_core_module(&mut out, wasmparser::Parser::new(0), module.wasm)?;
    Ok(Some(Rewritten {
        wasm: out.finish(),
        functions,
    }))
}

#[derive(Debug, Default)]
struct Rewriter {
    /// For each import whether it stays.
    keep: Vec<bool>,
    /// New numbers of the imported functions.
    numbers: Vec<u32>,
    /// Imported functions that go away.
    removed: u32,
    /// Types of the functions that trap.
    types: Vec<u32>,
}

impl Reencode for Rewriter {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        let imported = self.numbers.get(function as usize);
        Ok(imported.copied().unwrap_or_else(|| function - self.removed))
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: ImportSectionReader<'_>,
    ) -> Result<(), Error> {
        for (number, import) in section.into_imports().enumerate() {
            let import = import?;
            if self.keep.get(number) == Some(&true) {
                self.parse_import(imports, import)?;
            }
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error> {
        reencode::utils::parse_function_section(self, functions, section)?;
        for ty in &self.types {
            functions.function(*ty);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error> {
        reencode::utils::parse_code_section(self, code, section)?;
        for _ in &self.types {
            let mut body = Function::new([]);
            body.instruction(&Instruction::Unreachable);
            body.instruction(&Instruction::End);
            code.function(&body);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_references_follow_the_functions() {
        let wasm = wat::parse_str(
            r#"(module
                (import "env" "first" (func $first (param i32) (result i64)))
                (import "wasi_unstable" "sched_yield" (func $yield (result i32)))
                (import "env" "second" (func $second))
                (import "wasi_unstable" "proc_exit" (func $exit (param i32)))
                (table 2 funcref) (elem (i32.const 0) func $second $own)
                (func $own (drop (call $first (call $yield))) (call $second)
                    (call $exit (i32.const 1)))
                (export "_start" (func $own)))"#,
        )
        .expect("the text is correct");
        let module = Module::parse(&wasm).expect("it is well formed");
        let rewritten = rewrite(&module)
            .expect("it is valid")
            .expect("two are missing");
        assert_eq!(rewritten.functions, ["env.first", "env.second"]);
        wasmparser::validate(&rewritten.wasm).expect("the result is valid");
        let after = Module::parse(&rewritten.wasm).expect("it is well formed");
        let names: Vec<_> = after.imports.iter().map(|import| import.name).collect();
        assert_eq!(names, ["sched_yield", "proc_exit"]);
        assert_eq!(after.functions.len(), 5);
        // Behind the two imports: $own, then $first and $second.
        assert_eq!(after.exports[0].2, 2);
        assert_eq!(after.functions[3], module.functions[0]);
        assert_eq!(after.functions[4], module.functions[2]);
        let names: Vec<_> = after.names.names.iter().map(|(i, n)| (*i, &**n)).collect();
        let expected = [
            (0, "yield"),
            (1, "exit"),
            (2, "own"),
            (3, "first"),
            (4, "second"),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_module_that_lacks_nothing_stays() {
        let wasm = wat::parse_str(r#"(module (import "env" "m" (memory 1)))"#);
        let wasm = wasm.expect("the text is correct");
        let module = Module::parse(&wasm).expect("it is well formed");
        assert!(rewrite(&module).expect("it is valid").is_none());
    }
}
