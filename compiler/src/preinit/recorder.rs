//! The recorder: the module with a `_start` that calls the initializer and then writes memory and
//! globals to standard output, and the reader of what it writes.
//!
//! ```text
//! mark      16 bytes, before which stands what the initializer itself has written
//! open      i64: the first open descriptor behind the root's, or 0; then that is all
//! scratch   32 bytes: what memory held where the recorder itself needs some
//! pages     i64: size of the memory
//! globals   i64 each mutable one, two of them for a vector
//! memory    all pages; their first 32 bytes are the recorder's
//! ```
//! All numbers are little-endian. A call that fails traps.

use std::convert::Infallible;

use sha2::{Digest as _, Sha256};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    BlockType, CodeSection, ElementSection, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, GlobalSection, ImportSection, InstructionSink, MemArg, RawSection, SectionId,
    StartSection, TableSection, TypeSection, ValType,
};
use wasmparser::{BinaryReader, SectionLimited};

use super::PreinitError;
use crate::entry::{INITIALIZE, START};
use crate::module::Module;

/// Why a module cannot be rewritten: none of it can happen to a valid one.
pub(crate) type Error = reencode::Error<Infallible>;

const WASI: &str = "wasi_snapshot_preview1";
/// Functions that are imported in addition, which moves all others up.
const ADDED: [&str; 2] = ["fd_write", "fd_fdstat_get"];
/// Descriptors behind the standard streams and the root, up to the most that one-shot mode gives.
const DESCRIPTORS: std::ops::Range<i32> = 4..4096;
/// Bytes of the mark.
pub(super) const MARK: usize = 16;
/// Bytes of one write.
const CHUNK: i64 = 1 << 20;
const WASM_PAGE: u64 = 65536;

/// Memory that the recorder uses while it writes.
const SCRATCH: usize = 32;
/// An iovec, the count of bytes written, and the number that is written; the whole of it takes what
/// fd_fdstat_get says.
const IOVEC: u64 = 0;
const WRITTEN: u64 = 8;
const NUMBER: u64 = 16;

/// State of a guest.
#[derive(Debug, PartialEq)]
pub(super) struct Dump {
    pub(super) pages: u64,
    /// The bits of each mutable global.
    pub(super) globals: Vec<u128>,
    pub(super) memory: Vec<u8>,
}

/// Tells the recorder's output from the initializer's: nothing that a guest would say by chance, and
/// the same in every build.
pub(super) fn mark(wasm: &[u8]) -> [u8; MARK] {
    let mut mark = [0; MARK];
    mark.copy_from_slice(&Sha256::digest(wasm)[..MARK]);
    mark
}

/// Makes the recorder, which calls these functions first.
///
/// # Errors
///
/// None if the module is valid.
pub(super) fn record(
    module: &Module<'_>,
    calls: &[u32],
    mark: [u8; MARK],
) -> Result<Vec<u8>, Error> {
    let imported = (module.functions.len() - module.names.offsets.len()) as u32;
    let mut recorder = Recorder {
        module,
        imported,
        calls,
        mark,
    };
    let mut out = wasm_encoder::Module::new();
    let mut imports_due = true;
    for (id, range) in &module.sections {
        if imports_due && *id > SectionId::Import as u8 {
            recorder.section(SectionId::Import as u8, None, &mut out)?;
        }
        imports_due &= *id < SectionId::Import as u8;
        let data = &module.wasm[range.clone()];
        recorder.section(*id, Some((data, range.start as u64)), &mut out)?;
    }
    Ok(out.finish())
}

struct Recorder<'a, 'm> {
    module: &'m Module<'a>,
    imported: u32,
    calls: &'m [u32],
    mark: [u8; MARK],
}

impl Reencode for Recorder<'_, '_> {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        Ok(if function < self.imported {
            function
        } else {
            function + ADDED.len() as u32
        })
    }
}

impl Recorder<'_, '_> {
    /// Index of the first type that is added: of the imports, of `emit`, of the entry.
    fn types(&self) -> u32 {
        self.module.types.len() as u32
    }

    /// Index of `emit`; the entry follows.
    fn emit(&self) -> u32 {
        (self.module.functions.len() + ADDED.len()) as u32
    }

    /// One section; a missing one counts as empty.
    fn section(
        &mut self,
        id: u8,
        content: Option<(&[u8], u64)>,
        out: &mut wasm_encoder::Module,
    ) -> Result<(), Error> {
        let (data, offset) = content.unwrap_or((&[0], 0));
        let mut reader = BinaryReader::new(data, offset);
        if id == SectionId::Type as u8 {
            let mut types = TypeSection::new();
            self.parse_type_section(&mut types, SectionLimited::new(reader)?)?;
            let (i32, i64) = (ValType::I32, ValType::I64);
            types.ty().function([i32; 4], [i32]);
            types.ty().function([i32; 2], [i32]);
            types.ty().function([i64], []);
            types.ty().function([], []);
            out.section(&types);
        } else if id == SectionId::Import as u8 {
            let mut imports = ImportSection::new();
            self.parse_import_section(&mut imports, SectionLimited::new(reader)?)?;
            for (name, ty) in ADDED.iter().zip(self.types()..) {
                imports.import(WASI, name, EntityType::Function(ty));
            }
            out.section(&imports);
        } else if id == SectionId::Function as u8 {
            let mut functions = FunctionSection::new();
            self.parse_function_section(&mut functions, SectionLimited::new(reader)?)?;
            functions.function(self.types() + 2);
            functions.function(self.types() + 3);
            out.section(&functions);
        } else if id == SectionId::Table as u8 {
            let mut tables = TableSection::new();
            self.parse_table_section(&mut tables, SectionLimited::new(reader)?)?;
            out.section(&tables);
        } else if id == SectionId::Global as u8 {
            let mut globals = GlobalSection::new();
            self.parse_global_section(&mut globals, SectionLimited::new(reader)?)?;
            out.section(&globals);
        } else if id == SectionId::Export as u8 {
            out.section(&self.exports()?);
        } else if id == SectionId::Start as u8 {
            let function_index = self.start_section(reader.read_var_u32()?)?;
            out.section(&StartSection { function_index });
        } else if id == SectionId::Element as u8 {
            let mut elements = ElementSection::new();
            self.parse_element_section(&mut elements, SectionLimited::new(reader)?)?;
            out.section(&elements);
        } else if id == SectionId::Code as u8 {
            let mut code = CodeSection::new();
            self.parse_code_section(&mut code, SectionLimited::new(reader)?)?;
            code.function(&self.emit_body());
            code.function(&self.entry_body()?);
            out.section(&code);
        } else {
            out.section(&RawSection { id, data });
        }
        Ok(())
    }

    fn exports(&mut self) -> Result<ExportSection, Error> {
        let mut exports = ExportSection::new();
        for (name, kind, index) in &self.module.exports {
            if [START, INITIALIZE].contains(name) {
                continue;
            }
            let index = match kind {
                wasmparser::ExternalKind::Func => self.function_index(*index)?,
                _ => *index,
            };
            exports.export(name, self.export_kind(*kind)?, index);
        }
        exports.export(START, ExportKind::Func, self.emit() + 1);
        Ok(exports)
    }

    /// `emit(number)`: writes eight bytes.
    fn emit_body(&self) -> Function {
        let mut body = Function::new([]);
        let mut code = body.instructions();
        code.i32_const(0).local_get(0).i64_store(at(NUMBER));
        code.i32_const(0)
            .i32_const(NUMBER as i32)
            .i32_store(at(IOVEC));
        code.i32_const(0).i32_const(8).i32_store(at(IOVEC + 4));
        self.write(&mut code);
        code.i32_const(0)
            .i32_load(at(WRITTEN))
            .i32_const(8)
            .i32_ne();
        trap_if(&mut code);
        code.end();
        body
    }

    /// Writes what the iovec says to standard output.
    fn write(&self, code: &mut InstructionSink<'_>) {
        code.i32_const(1).i32_const(IOVEC as i32).i32_const(1);
        code.i32_const(WRITTEN as i32).call(self.imported);
        trap_if(code);
    }

    fn entry_body(&mut self) -> Result<Function, Error> {
        let emit = self.emit();
        let saved = SCRATCH as u32 / 8;
        let (open, cursor, end, chunk) = (saved, saved + 1, saved + 2, saved + 3);
        let descriptor = chunk + 1;
        let mut body = Function::new([(descriptor, ValType::I64), (1, ValType::I32)]);
        let mut code = body.instructions();
        for function in self.calls {
            code.call(self.function_index(*function)?);
        }
        for place in 0..saved {
            code.i32_const(0)
                .i64_load(at(u64::from(place) * 8))
                .local_set(place);
        }
        // The first descriptor of which there is something to say.
        code.i32_const(DESCRIPTORS.start).local_set(descriptor);
        code.block(BlockType::Empty).loop_(BlockType::Empty);
        code.local_get(descriptor)
            .i32_const(0)
            .call(self.imported + 1);
        code.i32_eqz().if_(BlockType::Empty);
        code.local_get(descriptor)
            .i64_extend_i32_u()
            .local_set(open)
            .br(2)
            .end();
        code.local_get(descriptor)
            .i32_const(1)
            .i32_add()
            .local_tee(descriptor);
        code.i32_const(DESCRIPTORS.end)
            .i32_lt_u()
            .br_if(0)
            .end()
            .end();

        let (first, second) = self.mark.split_at(8);
        for half in [first, second] {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(half);
            code.i64_const(i64::from_le_bytes(bytes)).call(emit);
        }
        code.local_get(open).call(emit);
        code.local_get(open)
            .i64_eqz()
            .i32_eqz()
            .if_(BlockType::Empty)
            .return_()
            .end();
        for place in 0..saved {
            code.local_get(place).call(emit);
        }
        code.memory_size(0).i64_extend_i32_u().call(emit);
        for (index, ty) in mutable_globals(self.module) {
            emit_global(&mut code, index, ty, emit);
        }

        code.memory_size(0)
            .i64_extend_i32_u()
            .i64_const(16)
            .i64_shl()
            .local_set(end);
        code.loop_(BlockType::Empty);
        code.local_get(end)
            .local_get(cursor)
            .i64_sub()
            .local_tee(chunk);
        code.i64_const(CHUNK)
            .local_get(chunk)
            .i64_const(CHUNK)
            .i64_lt_u()
            .select()
            .local_set(chunk);
        code.i32_const(0)
            .local_get(cursor)
            .i32_wrap_i64()
            .i32_store(at(IOVEC));
        code.i32_const(0)
            .local_get(chunk)
            .i32_wrap_i64()
            .i32_store(at(IOVEC + 4));
        self.write(&mut code);
        code.i32_const(0).i32_load(at(WRITTEN)).i32_eqz();
        trap_if(&mut code);
        code.i32_const(0).i32_load(at(WRITTEN)).i64_extend_i32_u();
        code.local_get(cursor).i64_add().local_tee(cursor);
        code.local_get(end).i64_lt_u().br_if(0).end();
        code.end();
        Ok(body)
    }
}

fn at(offset: u64) -> MemArg {
    MemArg {
        offset,
        align: 2,
        memory_index: 0,
    }
}

fn trap_if(code: &mut InstructionSink<'_>) {
    code.if_(BlockType::Empty).unreachable().end();
}

/// Index and type of each mutable global.
pub(super) fn mutable_globals(module: &Module<'_>) -> Vec<(u32, wasmparser::ValType)> {
    let globals = (0..).zip(&module.globals);
    let mutable = globals.filter_map(|(index, global)| Some((index, global.as_ref()?.ty)));
    mutable
        .filter(|(_, ty)| ty.mutable)
        .map(|(index, ty)| (index, ty.content_type))
        .collect()
}

fn emit_global(code: &mut InstructionSink<'_>, index: u32, ty: wasmparser::ValType, emit: u32) {
    code.global_get(index);
    match ty {
        wasmparser::ValType::I64 => {}
        wasmparser::ValType::F32 => {
            code.i32_reinterpret_f32().i64_extend_i32_u();
        }
        wasmparser::ValType::F64 => {
            code.i64_reinterpret_f64();
        }
        wasmparser::ValType::V128 => {
            code.i64x2_extract_lane(0).call(emit);
            code.global_get(index).i64x2_extract_lane(1);
        }
        // References have been refused.
        wasmparser::ValType::I32 | wasmparser::ValType::Ref(_) => {
            code.i64_extend_i32_u();
        }
    }
    code.call(emit);
}

/// A dump as the module's recorder could write it: globals and `pages` pages of memory, filled with bytes of the module.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_output(module: &Module<'_>, mark: [u8; MARK], pages: u64) -> Vec<u8> {
    let mut bytes = module.wasm.iter().copied().cycle();
    let mut output = mark.to_vec();
    output.extend([0; 8]);
    output.extend(bytes.by_ref().take(SCRATCH));
    output.extend(pages.to_le_bytes());
    for (_, ty) in mutable_globals(module) {
        let size = if ty == wasmparser::ValType::V128 {
            16
        } else {
            8
        };
        output.extend(bytes.by_ref().take(size));
    }
    // The second half is zero, as most memory is.
    output.extend(bytes.by_ref().take((pages * WASM_PAGE) as usize / 2));
    output.resize(output.len() + (pages * WASM_PAGE) as usize / 2, 0);
    output
}

/// Where the recorder's output begins.
pub(super) fn find(output: &[u8], mark: [u8; MARK]) -> Option<usize> {
    output.windows(mark.len()).position(|window| window == mark)
}

/// Reads what the recorder of a module has written, from its mark on.
pub(super) fn read(module: &Module<'_>, output: &[u8]) -> Result<Dump, PreinitError> {
    let mut rest = output;
    let mut take = |count: usize| -> Result<&[u8], PreinitError> {
        let (taken, after) = rest.split_at_checked(count).ok_or(PreinitError::Damaged)?;
        rest = after;
        Ok(taken)
    };
    let number = |bytes: &[u8]| -> Result<u64, PreinitError> {
        let bytes = <[u8; 8]>::try_from(bytes).map_err(|_| PreinitError::Damaged)?;
        Ok(u64::from_le_bytes(bytes))
    };
    take(MARK)?;
    match number(take(8)?)? {
        0 => {}
        open => return Err(PreinitError::OpenDescriptor(open)),
    }
    let scratch = take(SCRATCH)?;
    let pages = number(take(8)?)?;
    let mut globals = Vec::new();
    for (_, ty) in mutable_globals(module) {
        let low = u128::from(number(take(8)?)?);
        let high = match ty {
            wasmparser::ValType::V128 => u128::from(number(take(8)?)?),
            _ => 0,
        };
        globals.push(high << 64 | low);
    }
    let size = pages
        .checked_mul(WASM_PAGE)
        .and_then(|size| usize::try_from(size).ok());
    let mut memory = take(size.ok_or(PreinitError::Damaged)?)?.to_vec();
    memory
        .get_mut(..SCRATCH)
        .ok_or(PreinitError::Damaged)?
        .copy_from_slice(scratch);
    if !rest.is_empty() {
        return Err(PreinitError::Damaged);
    }
    Ok(Dump {
        pages,
        globals,
        memory,
    })
}
