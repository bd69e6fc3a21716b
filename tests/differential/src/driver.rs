//! Adds a driver to a module: a `_start` that calls every exported function and prints the results.
//!
//! Standard input contains the number of the first call in four bytes. After each call, the driver writes records of
//! the results and of the resulting state: globals, and sizes and contents of memories and tables. A trap ends the
//! run. The next run then starts with the following call in a fresh instance.
//!
//! ```text
//! record: 8 bytes  call << 32 | kind << 16 | index
//!         8 bytes  value: bits of a number, whether a reference is null, or a hash
//! ```
//!
//! The driver needs a memory, which it adds after the others and exports as `memory`:
//!
//! ```text
//!      0  one buffer descriptor of WASI: address, length
//!      8  how many bytes WASI read or wrote
//!     16  number of the first call
//!    256  records of the current call
//! ```

use std::convert::Infallible;
use std::fmt;

use anyhow::{Result, bail};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{BlockType, ExportKind, Function, Instruction, MemArg, MemArgTarget, ValType};
use wasmparser::{FuncType, ValType as Parsed};

use crate::generate::FUEL;
use crate::random::Random;
use crate::sections::{Known, Sections, value_type};
use crate::values;

/// Size of a record in bytes.
const RECORD: i32 = 16;
/// Address of the first record.
const BUFFER: i32 = 256;
const MEMORY_PAGES: u64 = 1;
const MOST_RECORDS: usize = (65536 - BUFFER as usize) / RECORD as usize;

/// The driver's imports, which come before all functions of the module.
const IMPORTED: u32 = 2;
const FD_READ: u32 = 0;
const FD_WRITE: u32 = 1;

/// Number of calls of each function, with different arguments.
const CALLS: usize = 2;

/// The subject of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The call returned. Each call that returns has such a record.
    Returned = 0,
    Result = 1,
    Global = 2,
    MemorySize = 3,
    Memory = 4,
    TableSize = 5,
    Table = 6,
}

/// One record of a run's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) call: u32,
    pub(crate) kind: u16,
    pub(crate) index: u16,
    pub(crate) value: u64,
}

impl Record {
    /// Parses the records of an output. Returns `None` if it is malformed.
    pub(crate) fn parse(output: &[u8]) -> Option<Vec<Self>> {
        let (chunks, rest) = output.as_chunks::<16>();
        let record = |bytes: &[u8; 16]| {
            let bits = u128::from_le_bytes(*bytes);
            Self {
                call: (bits >> 32) as u32,
                kind: (bits >> 16) as u16,
                index: bits as u16,
                value: (bits >> 64) as u64,
            }
        };
        rest.is_empty().then(|| chunks.iter().map(record).collect())
    }

    /// The record's subject, without the value.
    pub(crate) fn subject(&self) -> String {
        let kind = match self.kind {
            kind if kind == Kind::Returned as u16 => "return",
            kind if kind == Kind::Result as u16 => "result word",
            kind if kind == Kind::Global as u16 => "global word",
            kind if kind == Kind::MemorySize as u16 => "pages of memory",
            kind if kind == Kind::Memory as u16 => "hash of memory",
            kind if kind == Kind::TableSize as u16 => "size of table",
            kind if kind == Kind::Table as u16 => "hash of table",
            _ => "unknown record",
        };
        format!("{kind} {} after call {}", self.index, self.call)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:#018x}", self.subject(), self.value)
    }
}

/// A module with its driver.
#[derive(Debug, Clone)]
pub(crate) struct Driven {
    pub(crate) wasm: Vec<u8>,
    /// The function of each call that the driver makes, by its index in the module without the driver.
    pub(crate) calls: Vec<u32>,
}

impl Driven {
    /// The number of the first call that is not made.
    pub(crate) fn end(&self) -> u32 {
        self.calls.len() as u32
    }
}

/// Adds a driver that calls every exported function of a module with arguments that depend on `seed`.
///
/// `fuel` is the global that bounds loops, if the module has one.
///
/// # Errors
///
/// The module is malformed, has imports, or would need too many records.
pub(crate) fn add(wasm: &[u8], fuel: Option<u32>, seed: u64) -> Result<Driven> {
    let mut sections = Sections::parse(wasm, &mut Shift)?;
    let known = sections.known.clone();
    let i32s = |count| vec![ValType::I32; count];
    let wasi = sections.add_type(&i32s(4), &i32s(1));
    sections.import_function("wasi_snapshot_preview1", "fd_read", wasi);
    sections.import_function("wasi_snapshot_preview1", "fd_write", wasi);
    let memory = sections.add_memory(MEMORY_PAGES);
    sections
        .exports
        .export("memory", ExportKind::Memory, memory);
    let cursor = sections.add_cell();
    let mut driver = Driver {
        sections,
        known,
        memory,
        cursor,
        emit: 0,
        flush: 0,
        fuel,
    };
    driver.emit = driver.add_emit();
    driver.flush = driver.add_flush();
    let exported = driver.known.exported_functions.iter();
    let calls: Vec<_> = exported.flat_map(|function| [*function; CALLS]).collect();
    driver.add_start(&calls, seed)?;
    Ok(Driven {
        wasm: driver.sections.finish(),
        calls,
    })
}

struct Shift;

impl Reencode for Shift {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error<Infallible>> {
        Ok(index + IMPORTED)
    }

    fn parse_export(
        &mut self,
        exports: &mut wasm_encoder::ExportSection,
        export: wasmparser::Export<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        // The names of the driver's exports must be free.
        let name = format!("module.{}", export.name);
        let index = self.external_index(export.kind, export.index)?;
        exports.export(&name, self.export_kind(export.kind)?, index);
        Ok(())
    }
}

struct Driver {
    sections: Sections,
    known: Known,
    memory: u32,
    /// The global that holds the end of the records.
    cursor: u32,
    emit: u32,
    flush: u32,
    fuel: Option<u32>,
}

impl Driver {
    fn at(&self, offset: u64, align: u32) -> MemArg {
        MemArg {
            offset,
            align,
            target: MemArgTarget::Memory(self.memory),
            ordering: None,
        }
    }

    fn add(&mut self, params: &[ValType], body: &Function) -> u32 {
        let ty = self.sections.add_type(params, &[]);
        self.sections.add_function(ty, body) + IMPORTED
    }

    /// `emit(id: i64, value: i64)` appends a record.
    fn add_emit(&mut self) -> u32 {
        use Instruction as I;
        let mut body = Function::new([]);
        body.instruction(&I::GlobalGet(self.cursor))
            .instruction(&I::LocalGet(0))
            .instruction(&I::I64Store(self.at(0, 3)))
            .instruction(&I::GlobalGet(self.cursor))
            .instruction(&I::LocalGet(1))
            .instruction(&I::I64Store(self.at(8, 3)))
            .instruction(&I::GlobalGet(self.cursor))
            .instruction(&I::I32Const(RECORD))
            .instruction(&I::I32Add)
            .instruction(&I::GlobalSet(self.cursor))
            .instruction(&I::End);
        self.add(&[ValType::I64, ValType::I64], &body)
    }

    /// `flush()` writes all records, and handles partial writes.
    fn add_flush(&mut self) -> u32 {
        use Instruction as I;
        let word = self.at(0, 2);
        let mut body = Function::new([(1, ValType::I32)]);
        body.instruction(&I::I32Const(BUFFER))
            .instruction(&I::LocalSet(0))
            .instruction(&I::Block(BlockType::Empty))
            .instruction(&I::Loop(BlockType::Empty))
            .instruction(&I::LocalGet(0))
            .instruction(&I::GlobalGet(self.cursor))
            .instruction(&I::I32GeU)
            .instruction(&I::BrIf(1))
            .instruction(&I::I32Const(0))
            .instruction(&I::LocalGet(0))
            .instruction(&I::I32Store(word))
            .instruction(&I::I32Const(4))
            .instruction(&I::GlobalGet(self.cursor))
            .instruction(&I::LocalGet(0))
            .instruction(&I::I32Sub)
            .instruction(&I::I32Store(word));
        wasi(&mut body, FD_WRITE, 1);
        body.instruction(&I::LocalGet(0))
            .instruction(&I::I32Const(8))
            .instruction(&I::I32Load(word))
            .instruction(&I::I32Add)
            .instruction(&I::LocalSet(0))
            .instruction(&I::Br(0))
            .instruction(&I::End)
            .instruction(&I::End)
            .instruction(&I::I32Const(BUFFER))
            .instruction(&I::GlobalSet(self.cursor))
            .instruction(&I::End);
        self.add(&[], &body)
    }

    fn add_start(&mut self, calls: &[u32], seed: u64) -> Result<()> {
        use Instruction as I;
        let word = self.at(0, 2);
        let mut chunks = Vec::new();
        for (call, function) in (0..).zip(calls) {
            chunks.push(self.add_call(call, *function, seed)?);
        }
        let state = self.add_state()?;
        let mut body = Function::new([(1, ValType::I32)]);
        body.instruction(&I::I32Const(BUFFER))
            .instruction(&I::GlobalSet(self.cursor));
        // Descriptor: four bytes at 16.
        body.instruction(&I::I32Const(0))
            .instruction(&I::I32Const(16))
            .instruction(&I::I32Store(word));
        body.instruction(&I::I32Const(4))
            .instruction(&I::I32Const(4))
            .instruction(&I::I32Store(word));
        wasi(&mut body, FD_READ, 0);
        body.instruction(&I::I32Const(16))
            .instruction(&I::I32Load(word))
            .instruction(&I::LocalSet(0));
        for (call, chunk) in chunks.into_iter().enumerate() {
            let call = call as i32;
            body.instruction(&I::LocalGet(0))
                .instruction(&I::I32Const(call))
                .instruction(&I::I32LeU)
                .instruction(&I::If(BlockType::Empty))
                .instruction(&I::Call(chunk))
                .instruction(&I::I64Const(i64::from(call) << 32))
                .instruction(&I::Call(state))
                .instruction(&I::Call(self.flush))
                .instruction(&I::End);
        }
        body.instruction(&I::End);
        let start = self.add(&[], &body);
        self.sections
            .exports
            .export("_start", ExportKind::Func, start);
        Ok(())
    }

    /// A function that makes one call and records its results.
    fn add_call(&mut self, call: u32, function: u32, seed: u64) -> Result<u32> {
        use Instruction as I;
        let ty = self.known.function(function)?.clone();
        if ty.results().len() > MOST_RECORDS / 4 {
            bail!("function {function} has too many results");
        }
        let locals = ty
            .results()
            .iter()
            .map(|ty| Ok((1, value_type(*ty)?)))
            .collect::<Result<Vec<_>>>()?;
        let mut body = Function::new(locals);
        for instruction in prepare(&ty, self.fuel, call, seed)? {
            body.instruction(&instruction);
        }
        body.instruction(&I::Call(function + IMPORTED));
        for local in (0..ty.results().len() as u32).rev() {
            body.instruction(&I::LocalSet(local));
        }
        let base = i64::from(call) << 32 | (Kind::Result as i64) << 16;
        let mut index = 0;
        for (local, ty) in ty.results().iter().enumerate() {
            for word in words(*ty, &I::LocalGet(local as u32)) {
                body.instruction(&I::I64Const(base | index));
                word.iter()
                    .for_each(|instruction| _ = body.instruction(instruction));
                body.instruction(&I::Call(self.emit));
                index += 1;
            }
        }
        body.instruction(&I::End);
        Ok(self.add(&[], &body))
    }

    /// `state(call: i64)` records the observable state of globals, memories and tables.
    fn add_state(&mut self) -> Result<u32> {
        use Instruction as I;
        let globals = self.known.globals.clone();
        let tables = self.known.tables.clone();
        if globals.len() * 2 + tables.len() * 2 + self.known.memories as usize * 2
            > MOST_RECORDS / 2
        {
            bail!("the module has too many globals, tables and memories");
        }
        // Local 1 is a position, local 2 a size, local 3 a hash.
        let mut body = Function::new([(2, ValType::I32), (1, ValType::I64)]);
        let emit = |body: &mut Function, kind: Kind, index: i64, value: &[Instruction<'_>]| {
            body.instruction(&I::LocalGet(0))
                .instruction(&I::I64Const((kind as i64) << 16 | index))
                .instruction(&I::I64Or);
            value
                .iter()
                .for_each(|instruction| _ = body.instruction(instruction));
            body.instruction(&I::Call(self.emit));
        };
        emit(&mut body, Kind::Returned, 0, &[I::I64Const(0)]);
        let mut index = 0;
        for (global, ty) in (0..).zip(&globals) {
            for word in words(ty.content_type, &I::GlobalGet(global)) {
                emit(&mut body, Kind::Global, index, &word);
                index += 1;
            }
        }
        for memory in 0..self.known.memories {
            let pages = [I::MemorySize(memory), I::I64ExtendI32U];
            emit(&mut body, Kind::MemorySize, i64::from(memory), &pages);
            body.instruction(&I::MemorySize(memory))
                .instruction(&I::I32Const(16))
                .instruction(&I::I32Shl)
                .instruction(&I::LocalSet(2));
            let load = I::I64Load(MemArg {
                offset: 0,
                align: 3,
                target: MemArgTarget::Memory(memory),
                ordering: None,
            });
            hash(&mut body, 8, &[I::LocalGet(1), load]);
            emit(
                &mut body,
                Kind::Memory,
                i64::from(memory),
                &[I::LocalGet(3)],
            );
        }
        for table in 0..tables.len() as u32 {
            let size = [I::TableSize(table), I::I64ExtendI32U];
            emit(&mut body, Kind::TableSize, i64::from(table), &size);
            body.instruction(&I::TableSize(table))
                .instruction(&I::LocalSet(2));
            let element = [
                I::LocalGet(1),
                I::TableGet(table),
                I::RefIsNull,
                I::I64ExtendI32U,
            ];
            hash(&mut body, 1, &element);
            emit(&mut body, Kind::Table, i64::from(table), &[I::LocalGet(3)]);
        }
        body.instruction(&I::End);
        Ok(self.add(&[ValType::I64], &body))
    }
}

/// Instructions that set the fuel and push the arguments of a call.
///
/// # Errors
///
/// A parameter has a type that needs the garbage collection proposal.
pub(crate) fn prepare(
    ty: &FuncType,
    fuel: Option<u32>,
    call: u32,
    seed: u64,
) -> Result<Vec<Instruction<'static>>> {
    let mut instructions = Vec::new();
    if let Some(fuel) = fuel {
        instructions.extend([Instruction::I32Const(FUEL), Instruction::GlobalSet(fuel)]);
    }
    let mut random = Random::new(seed ^ (u64::from(call) << 40));
    for ty in ty.params() {
        instructions.push(values::argument(*ty, &mut random)?);
    }
    Ok(instructions)
}

/// Calls a WASI function with one buffer, and ignores its error, because missing output is a difference anyway.
fn wasi(body: &mut Function, function: u32, file: i32) {
    use Instruction as I;
    body.instruction(&I::I32Const(file))
        .instruction(&I::I32Const(0))
        .instruction(&I::I32Const(1))
        .instruction(&I::I32Const(8))
        .instruction(&I::Call(function))
        .instruction(&I::Drop);
}

/// Instructions for each 64-bit word of a value that `get` pushes.
fn words<'a>(ty: Parsed, get: &Instruction<'a>) -> Vec<Vec<Instruction<'a>>> {
    use Instruction as I;
    let get = || get.clone();
    match ty {
        Parsed::I32 => vec![vec![get(), I::I64ExtendI32U]],
        Parsed::I64 => vec![vec![get()]],
        Parsed::F32 => vec![vec![get(), I::I32ReinterpretF32, I::I64ExtendI32U]],
        Parsed::F64 => vec![vec![get(), I::I64ReinterpretF64]],
        Parsed::V128 => (0..2)
            .map(|lane| vec![get(), I::I64x2ExtractLane(lane)])
            .collect(),
        Parsed::Ref(_) => vec![vec![get(), I::RefIsNull, I::I64ExtendI32U]],
    }
}

/// Hashes the items at local 2 positions into local 3, in steps of `step`. `item` pushes the item at the position in
/// local 1. The hash is FNV-1a over words, with a rotation so that high bits affect low ones.
fn hash(body: &mut Function, step: i32, item: &[Instruction<'_>]) {
    use Instruction as I;
    body.instruction(&I::I32Const(0))
        .instruction(&I::LocalSet(1))
        .instruction(&I::I64Const(0xcbf2_9ce4_8422_2325_u64 as i64))
        .instruction(&I::LocalSet(3))
        .instruction(&I::Block(BlockType::Empty))
        .instruction(&I::Loop(BlockType::Empty))
        .instruction(&I::LocalGet(1))
        .instruction(&I::LocalGet(2))
        .instruction(&I::I32GeU)
        .instruction(&I::BrIf(1))
        .instruction(&I::LocalGet(3));
    item.iter()
        .for_each(|instruction| _ = body.instruction(instruction));
    body.instruction(&I::I64Xor)
        .instruction(&I::I64Const(0x100_0000_01b3))
        .instruction(&I::I64Mul)
        .instruction(&I::I64Const(29))
        .instruction(&I::I64Rotl)
        .instruction(&I::LocalSet(3))
        .instruction(&I::LocalGet(1))
        .instruction(&I::I32Const(step))
        .instruction(&I::I32Add)
        .instruction(&I::LocalSet(1))
        .instruction(&I::Br(0))
        .instruction(&I::End)
        .instruction(&I::End);
}
