//! Which WebAssembly features a module uses, for people to read.

use std::collections::BTreeSet;

use wasmparser::{FunctionBody, Operator, Parser, Payload, Result, TypeRef};

use crate::module::Module;

/// The names that proposals have in `wasmparser`, and what people call them. What is not here is in
/// every engine for years.
const PROPOSALS: [(&str, &str); 12] = [
    ("bulk_memory", "bulk memory"),
    ("exceptions", "exceptions"),
    ("legacy_exceptions", "legacy exceptions"),
    ("reference_types", "reference types"),
    ("relaxed_simd", "relaxed SIMD"),
    ("saturating_float_to_int", "saturating conversions"),
    ("sign_extension", "sign extension"),
    ("simd", "SIMD"),
    ("tail_call", "tail calls"),
    ("threads", "threads"),
    ("wide_arithmetic", "wide arithmetic"),
    ("gc", "garbage collection"),
];

macro_rules! proposal {
    ($operator:ident $( @$proposal:ident $op:ident $({ $($argument:ident: $ty:ty),* })?
        => $visit:ident ($($annotation:tt)*) )*) => {
        match $operator {
            $( Operator::$op { .. } => stringify!($proposal), )*
            _ => "",
        }
    };
}

/// The proposal that an instruction is from.
fn proposal(operator: &Operator<'_>) -> &'static str {
    macro_rules! of_operator {
        ($($all:tt)*) => { proposal!(operator $($all)*) };
    }
    wasmparser::for_each_operator!(of_operator)
}

/// The features that a valid module uses, by name.
///
/// # Errors
///
/// None if the module is valid.
pub(crate) fn used(module: &Module<'_>) -> Result<Vec<&'static str>> {
    let mut features = BTreeSet::new();
    for payload in Parser::new(0).parse_all(module.wasm) {
        match payload? {
            Payload::CodeSectionEntry(body) => add_body(&body, &mut features)?,
            Payload::TagSection(_) => {
                features.insert("exceptions");
            }
            _ => {}
        }
    }
    let results = |ty: &wasmparser::FuncType| ty.results().len();
    if module.types.iter().flatten().any(|ty| results(ty) > 1) {
        features.insert("multiple values");
    }
    if module.memories.len() > 1 {
        features.insert("several memories");
    }
    if module.memories.iter().any(|memory| memory.shared) {
        features.insert("threads");
    }
    if module.memories.iter().any(|memory| memory.memory64) {
        features.insert("64-bit memory");
    }
    let is_tag = |import: &wasmparser::Import<'_>| matches!(import.ty, TypeRef::Tag(_));
    if module.imports.iter().any(is_tag) {
        features.insert("exceptions");
    }
    Ok(features.into_iter().collect())
}

fn add_body(body: &FunctionBody<'_>, features: &mut BTreeSet<&'static str>) -> Result<()> {
    let mut last = "";
    for operator in body.get_operators_reader()? {
        let proposal = proposal(&operator?);
        // Long runs of instructions are from one.
        if proposal != last {
            last = proposal;
            let known = PROPOSALS.iter().find(|(name, _)| *name == proposal);
            features.extend(known.map(|(_, name)| *name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_and_declarations_tell() {
        for (text, expected) in [
            (
                "(module (func (drop (i32.add (i32.const 1) (i32.const 2)))))",
                &[][..],
            ),
            (
                "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))
                    (drop (i32.extend8_s (i32.const 0)))
                    (drop (i64x2.splat (i64.const 0)))))",
                &["SIMD", "bulk memory", "sign extension"],
            ),
            ("(module (func $f return_call $f))", &["tail calls"]),
            (
                "(module (memory 1 1 shared) (memory 1))",
                &["several memories", "threads"],
            ),
            (
                "(module (tag) (func (result i32 i32) unreachable))",
                &["exceptions", "multiple values"],
            ),
        ] {
            let wasm = wat::parse_str(text).expect("the text is correct");
            let module = Module::parse(&wasm).expect("it is well formed");
            assert_eq!(used(&module).expect("it is valid"), expected, "{text}");
        }
    }
}
