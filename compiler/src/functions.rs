//! `faas-wasm inspect --functions`: the functions of an artifact and what they take.

use std::collections::HashMap;
use std::fmt::Write as _;

use faas_wasm_artifact::{Artifact, FunctionNames};
use object::{Object as _, ObjectSymbol as _};
use serde::Serialize;

use crate::text;

/// A function that the module defines, or that the build added.
#[derive(Debug, Serialize)]
pub(crate) struct Function {
    /// Its index in the module, imported ones counted.
    index: u32,
    name: Option<String>,
    /// Address of its code, counted from the load address.
    address: u32,
    /// Size of its code in bytes.
    size: u64,
    /// Where its body begins in the WebAssembly file; the build's own functions have none.
    wasm_offset: Option<u32>,
}

/// The functions of an artifact, the largest first.
pub(crate) fn functions(artifact: &Artifact<'_>) -> Vec<Function> {
    let file = artifact.file();
    let bytes = |range: faas_wasm_artifact::Range| {
        let range = range.within(file.len());
        range.map_or(&[][..], |range| &file[range])
    };
    let names = FunctionNames::decode(bytes(artifact.module.names));
    let sizes = sizes(bytes(artifact.place()));
    let imported = artifact.module.imported_functions;
    let code = artifact.tables.code().enumerate();
    let mut functions: Vec<_> = code
        .map(|(local, address)| {
            let index = imported + local as u32;
            let name = names
                .names
                .binary_search_by_key(&index, |(index, _)| *index);
            Function {
                index,
                name: name.ok().map(|at| names.names[at].1.clone()),
                address,
                size: sizes.get(&u64::from(address)).copied().unwrap_or(0),
                wasm_offset: names.offsets.get(local).copied(),
            }
        })
        .collect();
    functions.sort_by_key(|function| (std::cmp::Reverse(function.size), function.index));
    functions
}

/// Sizes of functions by address, from the symbols.
fn sizes(elf: &[u8]) -> HashMap<u64, u64> {
    let Ok(file) = object::File::parse(elf) else {
        return HashMap::new();
    };
    let symbols = file.symbols();
    symbols
        .map(|symbol| (symbol.address(), symbol.size()))
        .collect()
}

/// A table for people.
pub(crate) fn as_text(functions: &[Function]) -> String {
    let mut table = format!("{:>10} {:>8} {:>10}  name\n", "size", "index", "address");
    for function in functions {
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "{:>10} {:>8} {:>#10x}  {}",
            function.size,
            function.index,
            function.address,
            text::line(function.name.as_deref().unwrap_or("-"))
        );
    }
    table
}
