//! Refuses exception references where no backend, or not the chosen one, can have them.
//!
//! The validator accepts `exnref` wherever a reference type can stand. The engine has no tables of them, no backend
//! translates element segments of them, and Cranelift gives a global of them a wider type than a local: it refuses the
//! one as the value of the other, or mixes both up.

use faas_wasm_artifact::Backend;
use wasmparser::{ElementItems, Parser, Payload, RefType, ValType};

/// What is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) feature: &'static str,
    /// Where in the file.
    pub(crate) offset: u64,
    /// Whether the other backend has it.
    pub(crate) by_one: bool,
}

const TABLES: &str = "tables of exception references";
const ELEMENTS: &str = "element segments of exception references";
const GLOBALS: &str = "globals of exception references";

/// The first that is refused in a valid module.
///
/// # Errors
///
/// None if the module is valid.
pub(crate) fn find(wasm: &[u8], backend: Backend) -> wasmparser::Result<Option<Refused>> {
    let found = |feature, offset| {
        Ok(Some(Refused {
            feature,
            offset,
            by_one: feature == GLOBALS,
        }))
    };
    let refused = |ty: RefType| ty.heap_type() == RefType::EXN.heap_type();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TableSection(tables) => {
                for table in tables.into_iter_with_offsets() {
                    let (offset, table) = table?;
                    if refused(table.ty.element_type) {
                        return found(TABLES, offset);
                    }
                }
            }
            Payload::ElementSection(segments) => {
                for segment in segments.into_iter_with_offsets() {
                    let (offset, segment) = segment?;
                    if let ElementItems::Expressions(ty, _) = segment.items
                        && refused(ty)
                    {
                        return found(ELEMENTS, offset);
                    }
                }
            }
            Payload::GlobalSection(section) if backend == Backend::Cranelift => {
                for global in section.into_iter_with_offsets() {
                    let (offset, global) = global?;
                    if let ValType::Ref(ty) = global.ty.content_type
                        && refused(ty)
                    {
                        return found(GLOBALS, offset);
                    }
                }
            }
            // Nothing of interest follows.
            Payload::CodeSectionStart { .. } => break,
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_exception_references_by_place_and_backend() {
        for (text, llvm, cranelift) in [
            (
                "(module (table 1 externref) (table 1 exnref))",
                Some(TABLES),
                Some(TABLES),
            ),
            (
                "(module (elem funcref (ref.null func)) (elem exnref (ref.null exn)))",
                Some(ELEMENTS),
                Some(ELEMENTS),
            ),
            (
                "(module (global (mut exnref) (ref.null exn)))",
                None,
                Some(GLOBALS),
            ),
            (
                "(module (global exnref (ref.null exn)))",
                None,
                Some(GLOBALS),
            ),
            (
                "(module (global externref (ref.null extern)) (func (local exnref)))",
                None,
                None,
            ),
        ] {
            let wasm = wat::parse_str(text).expect("the text is correct");
            for (backend, expected) in [(Backend::Llvm, llvm), (Backend::Cranelift, cranelift)] {
                let found = find(&wasm, backend).expect("it is valid");
                let by_one = found.as_ref().is_some_and(|found| found.by_one);
                assert_eq!(by_one, expected == Some(GLOBALS), "{text}");
                assert_eq!(found.map(|found| found.feature), expected, "{text}");
            }
        }
    }
}
