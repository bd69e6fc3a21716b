//! Refuses `br_table` instructions that cranelift-codegen 0.135.0 compiles to wrong code for aarch64.
//!
//! That version, to which wasmer-compiler-cranelift 7.4.2 is pinned, puts the addresses of the labels between a
//! conditional branch and the label that it leads to (`JTSequence` in `isa/aarch64/inst/emit.rs`):
//!
//! ```text
//! b.hs   default            19 bits, counted in words: it reaches 1 MiB
//! csel, adr, ldrsw, add, br
//! .word  ...                four bytes for each entry
//! b      ...                the next instructions, and branches that lead on to labels out of reach
//! ```
//!
//! Behind more than 262,136 entries the nearest place for a branch that leads on is out of reach, and the distance
//! wraps around: control leaves the function. 0.135.8 has no such branch; this module can go as soon as
//! wasmer-compiler-cranelift takes that.

use std::path::Path;

use faas_wasm_artifact::Backend;
use wasmparser::{FunctionBody, Operator, Parser, Payload, Result as WasmResult};

use crate::backend;
use crate::error::{Error, Place};
use crate::target::Target;

/// Most entries of a `br_table`, beside the default one. They take up half of what the branch reaches; the other half
/// is left to what can lie between the table and the branch that leads on.
const MOST_ENTRIES: u32 = (1 << 20) / 2 / 4;

/// Checks that a validated module has no `br_table` that is too large for this backend and target.
///
/// # Errors
///
/// [`Error::Uncompilable`] with the first one.
pub(crate) fn check(
    path: &Path,
    wasm: &[u8],
    backend: Backend,
    target: &Target,
) -> Result<(), Error> {
    if backend != Backend::Cranelift || target.architecture() != "aarch64" {
        return Ok(());
    }
    // The module is valid.
    let Ok(Some(found)) = first_too_large(wasm) else {
        return Ok(());
    };
    let module = crate::build::parse(path, wasm)?;
    Err(Error::Uncompilable {
        path: path.into(),
        instruction: format!("`br_table` with {} entries", found.entries),
        backend: backend.name(),
        architecture: target.architecture(),
        other: backend::alternative(backend).map(Backend::name),
        source: Box::new(Place::new(
            &module,
            found.body,
            found.offset,
            format!("{MOST_ENTRIES} entries are the most"),
        )),
    })
}

struct TooLarge {
    /// Number of the function among the defined ones.
    body: u32,
    /// Where in the file.
    offset: u64,
    entries: u32,
}

fn first_too_large(wasm: &[u8]) -> WasmResult<Option<TooLarge>> {
    let mut body = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::CodeSectionEntry(code) = payload? {
            if let Some((offset, entries)) = in_body(&code)? {
                return Ok(Some(TooLarge {
                    body,
                    offset,
                    entries,
                }));
            }
            body += 1;
        }
    }
    Ok(None)
}

/// Offset and number of entries of the first that is too large.
fn in_body(code: &FunctionBody<'_>) -> WasmResult<Option<(u64, u32)>> {
    // An entry takes a byte at least, so that hardly any function need be looked at.
    let range = code.range();
    if range.end - range.start <= u64::from(MOST_ENTRIES) {
        return Ok(None);
    }
    let mut operators = code.get_operators_reader()?;
    while !operators.eof() {
        let (operator, offset) = operators.read_with_offset()?;
        if let Operator::BrTable { targets } = operator
            && targets.len() > MOST_ENTRIES
        {
            return Ok(Some((offset, targets.len())));
        }
    }
    Ok(None)
}

#[cfg(all(test, feature = "cranelift"))]
mod tests {
    use wasm_encoder::{CodeSection, Function, FunctionSection, ImportSection, TypeSection};

    use super::*;
    use crate::build::tests::options_for;

    /// An imported function, a small one and one with so many entries.
    fn module(entries: u32) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([wasm_encoder::ValType::I32], []);
        let mut imports = ImportSection::new();
        imports.import("m", "f", wasm_encoder::EntityType::Function(0));
        let mut functions = FunctionSection::new();
        functions.function(0).function(0);
        let mut code = CodeSection::new();
        let mut small = Function::new([]);
        small.instructions().end();
        let mut large = Function::new([]);
        let labels = vec![0; entries as usize];
        large.instructions().local_get(0).br_table(labels, 0).end();
        code.function(&small).function(&large);
        let mut module = wasm_encoder::Module::new();
        module.section(&types).section(&imports).section(&functions);
        module.section(&code);
        module.finish()
    }

    fn report(entries: u32, backend: Backend, target: &str) -> String {
        let wasm = module(entries);
        let checked = options_for(backend, &[target], 1)
            .targets
            .iter()
            .try_for_each(|target| check(Path::new("a.wasm"), &wasm, backend, target));
        checked.map_or_else(|error| error.report(), |()| "accepted".into())
    }

    #[test]
    fn only_cranelift_for_aarch64_is_limited() {
        for target in ["amd64", "riscv64"] {
            assert_eq!(report(300_000, Backend::Cranelift, target), "accepted");
        }
        assert_eq!(
            report(MOST_ENTRIES, Backend::Cranelift, "arm64"),
            "accepted"
        );
        let report = report(MOST_ENTRIES + 1, Backend::Cranelift, "arm64");
        for part in [
            "error: the cranelift backend cannot compile `br_table` with 131073 entries of a.wasm for aarch64\n",
            "  function 2, wasm offset 0x",
            ": 131072 entries are the most\n",
            "hint: ",
        ] {
            assert!(report.contains(part), "{part}: {report}");
        }
        let offset = report
            .split_once("offset 0x")
            .and_then(|(_, rest)| rest.split_once(':'));
        let offset = offset.and_then(|(digits, _)| usize::from_str_radix(digits, 16).ok());
        let wasm = module(MOST_ENTRIES + 1);
        assert_eq!(offset.map(|offset| wasm[offset]), Some(0x0e), "{report}");
    }
}
