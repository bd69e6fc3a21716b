//! What a request runs: the exported function `_start`, which has neither parameters nor results.
//!
//! A reactor, that is a library, exports functions of its own instead, and often `_initialize`, which wants to be
//! called before them. `--entry` names one of them, and the module is rewritten to a command before anything else looks
//! at it:
//!
//! ```text
//! (func $initialize (export "_initialize") ...)      (func $initialize ...)
//! (func $handle (export "handle") ...)         =>    (func $handle (export "handle") ...)
//!                                                    (func (export "_start")
//!                                                        (call $initialize) (call $handle))
//! ```
//!
//! Everything else stays byte for byte, function bodies above all: DWARF counts from where they begin.

use std::path::Path;

use wasm_encoder::reencode::{Reencode as _, RoundtripReencoder};
use wasm_encoder::{
    Encode as _, ExportKind, ExportSection, Function, Instruction, RawSection, SectionId,
};
use wasmparser::{BinaryReader, ExternalKind};

use crate::error::Error;
use crate::module::{Module, describe_function};

/// The exported function that a request runs.
pub(crate) const START: &str = "_start";
/// The exported function of a reactor that is called before any other.
pub(crate) const INITIALIZE: &str = "_initialize";

/// The module as a command that runs the export `name`, or nothing if it is one that runs `_start`, as without a name it
/// must.
///
/// # Errors
///
/// [`Error::NoStart`], [`Error::NoEntry`] or [`Error::EntryType`].
pub(crate) fn command(
    path: &Path,
    module: &Module<'_>,
    name: Option<&str>,
) -> Result<Option<Vec<u8>>, Error> {
    match name {
        Some(name) => apply(path, module, name).map(Some),
        None => check(path, module).map(|()| None),
    }
}

/// Checks that there is something to run.
fn check(path: &Path, module: &Module<'_>) -> Result<(), Error> {
    match find(path, module, START)? {
        Some(_) => Ok(()),
        None => Err(Error::NoStart {
            path: path.into(),
            reactor: exported(module, INITIALIZE).is_some(),
            candidates: candidates(module),
        }),
    }
}

/// The module with `name` as what a request runs.
fn apply(path: &Path, module: &Module<'_>, name: &str) -> Result<Vec<u8>, Error> {
    let function = find(path, module, name)?.ok_or_else(|| Error::NoEntry {
        path: path.into(),
        name: name.into(),
        candidates: candidates(module),
    })?;
    let initialize = find(path, module, INITIALIZE)?.filter(|initialize| *initialize != function);
    if initialize.is_some() && module.names.offsets.is_empty() {
        // There is no section of functions that another one could go to.
        return Err(Error::EntryType {
            path: path.into(),
            name: name.into(),
            found: "an imported function".into(),
        });
    }
    let mut exports = exports_but(module, &[START, INITIALIZE]);
    let added = match initialize {
        // Behind all others.
        Some(_) => module.functions.len() as u32,
        None => function,
    };
    exports.export(START, ExportKind::Func, added);
    let calls = initialize.map(|initialize| [initialize, function]);
    Ok(rewritten(module, &exports, calls))
}

/// All exports but those with these names.
pub(crate) fn exports_but(module: &Module<'_>, left_out: &[&str]) -> ExportSection {
    let mut exports = ExportSection::new();
    for (name, kind, index) in &module.exports {
        if !left_out.contains(name)
            // No kind that a valid module has is refused.
            && let Ok(kind) = RoundtripReencoder.export_kind(*kind)
        {
            exports.export(name, kind, *index);
        }
    }
    exports
}

fn exported(module: &Module<'_>, name: &str) -> Option<(ExternalKind, u32)> {
    let mut exports = module.exports.iter();
    let (_, kind, index) = exports.find(|(export, ..)| *export == name)?;
    Some((*kind, *index))
}

/// The exported function of this name, which must be one that can be called without more ado.
fn find(path: &Path, module: &Module<'_>, name: &str) -> Result<Option<u32>, Error> {
    let Some((kind, index)) = exported(module, name) else {
        return Ok(None);
    };
    let found = match kind {
        ExternalKind::Func | ExternalKind::FuncExact => {
            let ty = module.functions.get(index as usize);
            match ty.and_then(|ty| module.function_type(*ty)) {
                Some(ty) if ty.params().is_empty() && ty.results().is_empty() => {
                    return Ok(Some(index));
                }
                Some(ty) => describe_function(ty),
                None => "a function of an unknown type".into(),
            }
        }
        ExternalKind::Table => "a table".into(),
        ExternalKind::Memory => "a memory".into(),
        ExternalKind::Global => "a global".into(),
        ExternalKind::Tag => "a tag".into(),
    };
    Err(Error::EntryType {
        path: path.into(),
        name: name.into(),
        found,
    })
}

/// What `--entry` could name, in the order of the module.
fn candidates(module: &Module<'_>) -> Vec<String> {
    let names = module.exports.iter().map(|(name, ..)| *name);
    names
        .filter(|name| ![START, INITIALIZE].contains(name))
        .filter(|name| matches!(find(Path::new(""), module, name), Ok(Some(_))))
        .map(str::to_owned)
        .collect()
}

/// The module with these exports and, behind its functions, one that calls two of them.
fn rewritten(module: &Module<'_>, exports: &ExportSection, calls: Option<[u32; 2]>) -> Vec<u8> {
    let mut ty = Vec::new();
    let mut body = Vec::new();
    if let Some(calls) = calls {
        // The type of what it calls.
        module.functions[calls[0] as usize].encode(&mut ty);
        let mut function = Function::new([]);
        for call in calls {
            function.instruction(&Instruction::Call(call));
        }
        function.instruction(&Instruction::End);
        function.encode(&mut body);
    }
    let mut out = wasm_encoder::Module::new();
    for (id, data) in module.all_sections() {
        let is = |section: SectionId| id == section as u8;
        if is(SectionId::Export) {
            out.section(exports);
        } else if is(SectionId::Function) && calls.is_some() {
            let data = &with_one_more(data, &ty);
            out.section(&RawSection { id, data });
        } else if is(SectionId::Code) && calls.is_some() {
            let data = &with_one_more(data, &body);
            out.section(&RawSection { id, data });
        } else {
            out.section(&RawSection { id, data });
        }
    }
    out.finish()
}

/// The content of a section that counts its items, with another one at the end.
fn with_one_more(section: &[u8], item: &[u8]) -> Vec<u8> {
    let mut reader = BinaryReader::new(section, 0);
    // The module is valid, and nobody has that many functions.
    let count = reader.read_var_u32().unwrap_or_default().saturating_add(1);
    let items = &section[reader.original_position() as usize..];
    let mut longer = Vec::with_capacity(section.len() + item.len() + 1);
    count.encode(&mut longer);
    longer.extend_from_slice(items);
    longer.extend_from_slice(item);
    longer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("the text is correct")
    }

    fn report(result: Result<(), Error>) -> String {
        result.map_or_else(|error| error.report(), |()| "accepted".into())
    }

    #[test]
    fn asks_for_something_to_run() {
        for (text, expected) in [
            ("(module)", "has no function `_start`"),
            (
                r#"(module (func (export "_initialize")))"#,
                "hint: this is a reactor module",
            ),
            (
                r#"(module (func (export "_initialize")) (func (export "a") (export "b")))"#,
                "`--entry a`; it could be a, b",
            ),
            (
                r#"(module (func (export "_start") (param i32)))"#,
                "is func (param i32), not a function without",
            ),
            (
                r#"(module (memory (export "_start") 1))"#,
                "is a memory, not",
            ),
            (r#"(module (func (export "_start")))"#, "accepted"),
        ] {
            let wasm = parsed(text);
            let module = Module::parse(&wasm).expect("it is well formed");
            let report = report(check(Path::new("a.wasm"), &module));
            assert!(report.contains(expected), "{text}: {report}");
        }
    }

    #[test]
    fn code_stays_where_it_is_within_its_section() {
        let text =
            r#"(module (func $init (export "_initialize")) (func (export "a") nop) (data "x"))"#;
        let wasm = parsed(text);
        let module = Module::parse(&wasm).expect("it is well formed");
        let rewritten = apply(Path::new("a.wasm"), &module, "a").expect("there is one");
        wasmparser::Validator::new()
            .validate_all(&rewritten)
            .expect("it is valid");
        let after = Module::parse(&rewritten).expect("it is well formed");
        assert!(after.bodies().starts_with(&module.bodies()));
        assert_eq!(after.functions.len(), module.functions.len() + 1);
        assert_eq!(
            after.exports,
            [
                ("a", ExternalKind::Func, 1),
                ("_start", ExternalKind::Func, 2)
            ]
        );
        assert_eq!(after.names, {
            let mut names = module.names.clone();
            names.offsets.clone_from(&after.names.offsets);
            names
        });
    }
}
