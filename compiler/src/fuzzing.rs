//! Entry points for the fuzz targets in `tests/fuzz`: everything that a build does with a module before the backend,
//! and the reader of source lines. A violated property is a panic.

use std::collections::BTreeMap;
use std::path::Path;

use faas_wasm_artifact::{Backend, Image};
use target_lexicon::{Aarch64Architecture, Architecture, Riscv64Architecture};
use wasmer_types::Features;
use wasmparser::{DataKind, Operator, TypeRef};

use crate::error::Error;
use crate::imports::{self, Provider};
use crate::module::Module;
use crate::{
    build, check, cuda, elements, entry, exnref, features, input, lift, lines, preinit, tail_calls,
    trap_imports, wrap,
};

/// Size of a WebAssembly page.
const PAGE: u64 = 65536;

/// Puts a file, in the binary or the text format, through everything that a build does before the backend.
///
/// # Panics
///
/// If a pass rejects a valid module, produces an invalid one, or violates its invariant.
pub fn module(file: &[u8]) {
    let Ok(wasm) = input::module(path(), file.to_vec()) else {
        return;
    };
    if validate(&wasm).is_err() {
        return;
    }
    let module = parse(&wasm);
    let imported = function_imports(&module).count();
    assert_eq!(
        module.functions.len(),
        imported + module.names.offsets.len()
    );
    assert!(
        features::used(&module).is_ok(),
        "valid, but its features cannot be told"
    );
    let architectures = [
        Architecture::X86_64,
        Architecture::Aarch64(Aarch64Architecture::Aarch64),
        Architecture::Riscv64(Riscv64Architecture::Riscv64gc),
    ];
    assert!(tail_calls::refused(&module, architectures).is_ok());
    for backend in [Backend::Llvm, Backend::Cranelift] {
        assert!(exnref::find(&wasm, backend).is_ok());
    }
    let _ = elements::check(path(), &module);
    let _ = check::beyond_limits(&module);
    let _ = cuda::derive(path(), &module, None);
    let _ = imports::check(path(), &module);
    commands(&module);
    trapping_imports(&module);
    wrapped(&module);
    lifted(&module);
    preinit::fuzz(&module, &valid);
}

/// Reads the source lines of a linked object, as a backend made it of a module's DWARF.
///
/// # Panics
///
/// If the reader panics.
pub fn dwarf(elf: &[u8]) {
    if let Ok(table) = lines::read(elf) {
        let _ = faas_wasm_artifact::source_lines(&table.encode(), &[0, 1, u32::MAX]);
    }
}

/// Reads source lines from DWARF without an ELF file around it: the contents of four sections, each after its length as
/// two bytes, little-endian.
///
/// # Panics
///
/// See [`dwarf`].
pub fn debug_sections(mut bytes: &[u8]) {
    let mut sections = BTreeMap::new();
    for name in [".debug_line", ".debug_info", ".debug_abbrev", ".debug_str"] {
        let Some((length, rest)) = bytes.split_first_chunk() else {
            break;
        };
        let length = usize::from(u16::from_le_bytes(*length));
        let (section, rest) = rest.split_at(length.min(rest.len()));
        sections.insert(name, section);
        bytes = rest;
    }
    let find = |name: &str| sections.get(name).copied().unwrap_or_default();
    if let Ok(table) = lines::read_sections(|name| Ok(find(name))) {
        let _ = faas_wasm_artifact::source_lines(&table.encode(), &[0, 1, u32::MAX]);
    }
}

fn path() -> &'static Path {
    Path::new("fuzz.wat")
}

fn validate(wasm: &[u8]) -> Result<(), Error> {
    input::validate(path(), wasm, &Features::all(), "any", None)
}

/// Checks that a pass produced a valid module.
fn valid(wasm: &[u8], pass: &str) {
    if let Err(error) = validate(wasm) {
        panic!("{pass} produced an invalid module: {}", error.report());
    }
}

fn parse(wasm: &[u8]) -> Module<'_> {
    match build::parse(path(), wasm) {
        Ok(module) => module,
        Err(error) => panic!("valid, but cannot be walked over: {}", error.report()),
    }
}

fn function_imports<'a, 'm>(
    module: &'m Module<'a>,
) -> impl Iterator<Item = &'m wasmparser::Import<'a>> {
    let imports = module.imports.iter();
    imports.filter(|import| matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)))
}

/// A rewritten module is a command, and its function bodies keep their offsets.
fn commands(module: &Module<'_>) {
    let names = module.exports.iter().map(|(name, ..)| Some(*name)).take(4);
    for name in names.chain([None, Some("_start")]) {
        let Ok(Some(command)) = entry::command(path(), module, name) else {
            continue;
        };
        valid(&command, "entry");
        let command = parse(&command);
        assert!(command.bodies().starts_with(&module.bodies()), "{name:?}");
        assert!(entry::command(path(), &command, None).is_ok(), "{name:?}");
    }
}

/// Every function import that is left has a host, and the number of functions is unchanged.
fn trapping_imports(module: &Module<'_>) {
    let rewritten = match trap_imports::rewrite(module) {
        Ok(rewritten) => rewritten,
        Err(error) => panic!("trap_imports: {error}"),
    };
    let Some(rewritten) = rewritten else { return };
    valid(&rewritten.wasm, "trap_imports");
    let after = parse(&rewritten.wasm);
    let missing = |import: &wasmparser::Import<'_>| {
        matches!(imports::provider(&after, import), Provider::Nobody(_))
    };
    assert!(!function_imports(&after).any(missing));
    assert_eq!(after.functions.len(), module.functions.len());
    let count = function_imports(module).count() - function_imports(&after).count();
    assert_eq!(count, rewritten.functions.len());
}

/// No imported function is a value after wrapping.
fn wrapped(module: &Module<'_>) {
    let wrapped = match wrap::wrap(module) {
        Ok(wrapped) => wrapped,
        Err(error) => panic!("wrap: {error}"),
    };
    let Some(wrapped) = wrapped else { return };
    valid(&wrapped.wasm, "wrap");
    let after = parse(&wrapped.wasm);
    assert!(matches!(wrap::wrap(&after), Ok(None)), "a value is left");
    let mut named = parse(module.wasm);
    wrapped.name(&mut named);
    assert!(named.names.names.is_sorted_by_key(|(index, _)| *index));
    lifted(&after);
}

/// The image is what instantiation would have written.
fn lifted(module: &Module<'_>) {
    let lifted = match lift::lift(path(), module, &module.debug) {
        Ok(lifted) => lifted,
        Err(Error::DataOffset { .. } | Error::DataOutside { .. }) => return,
        Err(error) => panic!("lift: {}", error.report()),
    };
    valid(&lifted.wasm, "lift");
    let after = parse(&lifted.wasm);
    let active = |kind: &DataKind<'_>| matches!(kind, DataKind::Active { .. });
    assert!(!after.data.iter().any(|segment| active(&segment.kind)));
    let Some(memories) = instantiated(module) else {
        return;
    };
    let mut found: Vec<_> = memories
        .iter()
        .map(|memory| vec![0; memory.len()])
        .collect();
    for Image {
        memory,
        address,
        bytes,
    } in &lifted.images
    {
        let at = *address as usize;
        found[*memory as usize][at..at + bytes.len()].copy_from_slice(bytes);
    }
    assert!(
        found == memories,
        "the image is not what the segments write"
    );
}

/// Small memories after the active segments, where all of these lie at constants.
fn instantiated(module: &Module<'_>) -> Option<Vec<Vec<u8>>> {
    let pages: u64 = module.memories.iter().map(|memory| memory.initial).sum();
    if pages > 8 {
        return None;
    }
    let memories = module.memories.iter();
    let mut memories: Vec<_> = memories
        .map(|memory| vec![0; (memory.initial * PAGE) as usize])
        .collect();
    for segment in &module.data {
        let DataKind::Active {
            memory_index,
            offset_expr,
        } = &segment.kind
        else {
            continue;
        };
        let operators: Vec<_> = offset_expr
            .get_operators_reader()
            .into_iter()
            .flatten()
            .collect();
        let [Operator::I32Const { value }, Operator::End] = operators[..] else {
            return None;
        };
        let at = value as u32 as usize;
        let memory = memories.get_mut(*memory_index as usize)?;
        memory
            .get_mut(at..)?
            .get_mut(..segment.data.len())?
            .copy_from_slice(segment.data);
    }
    Some(memories)
}
