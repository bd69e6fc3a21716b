//! A module that runs units and prints their results.
//!
//! Standard input contains the number of the first unit and the number after the last, in four bytes each. A unit is
//! a function of (address of its operands, address of its results). The driver calls each unit with each of its
//! tuples, and then writes all results. The instructions use memory 0, and the driver uses memory 1:
//!
//! ```text
//!      0  a buffer descriptor of WASI, and at 8 what it answers
//!     16  first and last unit
//!     64  what memory 0 has at its start and at its end before each access
//!         for each unit: operands, size of a tuple, number of tuples, size of results
//!         operands, 16 bytes each
//!         results, 16 bytes each; after an access also the start and the end of memory 0
//! ```

use std::collections::HashMap;

use anyhow::Result;
use wasm_encoder::{
    BlockType, ConstExpr, Elements, ExportKind, Function, Ieee32, Ieee64, Instruction, MemArg,
    MemArgTarget, ValType,
};
use wasmparser::ValType as Parsed;

use super::operators::Case;
use super::units::{Operand, Unit, instruction, instruction_function};
use crate::sections::{Sections, value_type};

/// Size of an operand or result in bytes.
pub(crate) const SLOT: usize = 16;
/// Number of bytes at the start and at the end of memory 0 that accesses reach.
const START: usize = 96;
const END: usize = 64;
const PAGE: usize = 65536;
/// Address in memory 1 of the initial values of these bytes.
const PRISTINE: usize = 64;
const UNITS: usize = PRISTINE + START + END;
const UNIT: usize = 16;

/// Size of the results of one evaluation in bytes.
pub(crate) fn result_size(case: &Case) -> usize {
    case.results.len() * SLOT + if case.accesses { START + END } else { 0 }
}

/// Number of bytes that a unit prints.
pub(crate) fn output_size(case: &Case, unit: &Unit) -> usize {
    unit.tuples.len() * unit.evaluations.len() * result_size(case)
}

/// Builds a module with some units.
///
/// # Errors
///
/// wasm-encoder does not support an instruction.
pub(crate) fn module(cases: &[Case], units: &[&Unit]) -> Result<Vec<u8>> {
    let mut sections = Sections::default();
    let wasi = sections.add_type(&[ValType::I32; 4], &[ValType::I32]);
    sections.import_function("wasi_snapshot_preview1", "fd_read", wasi);
    sections.import_function("wasi_snapshot_preview1", "fd_write", wasi);
    sections.add_memory(1);
    let unit_type = sections.add_type(&[ValType::I32, ValType::I32], &[]);
    let reset = Builder::add(&mut sections, &[], &reset());
    let save = Builder::add(&mut sections, &[ValType::I32], &save());
    let mut builder = Builder {
        sections,
        cases,
        unit_type,
        reset,
        save,
        called: HashMap::new(),
    };
    let mut functions = Vec::new();
    for unit in units {
        functions.push(builder.unit(unit)?);
    }
    let layout = Layout::new(cases, units);
    let results = layout.data.len().next_multiple_of(SLOT);
    let largest = units
        .iter()
        .map(|unit| output_size(&cases[unit.case], unit))
        .max()
        .unwrap_or(0);
    let mut sections = builder.sections;
    let memory = sections.add_memory((results + largest).div_ceil(PAGE) as u64);
    let table = sections.add_table(functions.len() as u64);
    sections.elements.active(
        Some(table),
        &ConstExpr::i32_const(0),
        Elements::Functions(functions.into()),
    );
    sections
        .data
        .active(memory, &ConstExpr::i32_const(0), layout.data);
    let start = Builder::add(&mut sections, &[], &start(unit_type, results as i32));
    sections
        .exports
        .export("memory", ExportKind::Memory, memory);
    sections.exports.export("_start", ExportKind::Func, start);
    Ok(sections.finish())
}

/// The initial contents of memory 1.
struct Layout {
    data: Vec<u8>,
}

impl Layout {
    fn new(cases: &[Case], units: &[&Unit]) -> Self {
        let mut data = vec![0; UNITS];
        for (index, byte) in data[PRISTINE..].iter_mut().enumerate() {
            // All bytes differ, and both signs occur.
            *byte = (index * 0x35 + 0x81) as u8;
        }
        data.resize(UNITS + units.len() * UNIT, 0);
        let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
        for (index, unit) in units.iter().enumerate() {
            let operands: Vec<_> = unit
                .tuples
                .iter()
                .flatten()
                .flat_map(|operand| operand.to_le_bytes())
                .collect();
            let at = *known.entry(operands).or_insert_with_key(|operands| {
                let at = data.len().next_multiple_of(SLOT);
                data.resize(at, 0);
                data.extend(operands);
                at
            });
            let stride = unit.tuples.first().map_or(0, Vec::len) * SLOT;
            let size = unit.evaluations.len() * result_size(&cases[unit.case]);
            for (field, value) in [at, stride, unit.tuples.len(), size]
                .into_iter()
                .enumerate()
            {
                let at = UNITS + index * UNIT + field * 4;
                data[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
            }
        }
        Self { data }
    }
}

struct Builder<'a> {
    sections: Sections,
    cases: &'a [Case],
    unit_type: u32,
    reset: u32,
    save: u32,
    /// The called function of each case.
    called: HashMap<usize, u32>,
}

/// The driver's memory.
fn at(offset: usize) -> MemArg {
    MemArg {
        offset: offset as u64,
        align: 2,
        target: MemArgTarget::Memory(1),
        ordering: None,
    }
}

const IMPORTED: u32 = 2;

impl Builder<'_> {
    fn add(sections: &mut Sections, params: &[ValType], body: &Function) -> u32 {
        let ty = sections.add_type(params, &[]);
        sections.add_function(ty, body) + IMPORTED
    }

    /// `unit(operands, results)`.
    fn unit(&mut self, unit: &Unit) -> Result<u32> {
        use Instruction as I;
        let case = &self.cases[unit.case];
        let types = case.params.iter().chain(&case.results);
        let locals = types
            .map(|ty| Ok((1, value_type(*ty)?)))
            .collect::<Result<Vec<_>>>()?;
        let mut body = Function::new(locals);
        // Operands are in local 2 and above, followed by the results.
        let operand = |index: usize| index as u32 + 2;
        let result = |index: usize| (index + case.params.len()) as u32 + 2;
        let parameters = unit.tuples.first().map_or(0, Vec::len);
        for (index, ty) in case.params.iter().enumerate().take(parameters) {
            body.instruction(&I::LocalGet(0));
            body.instruction(&load(*ty, index * SLOT))
                .instruction(&I::LocalSet(operand(index)));
        }
        for (number, evaluation) in unit.evaluations.iter().enumerate() {
            if case.accesses {
                body.instruction(&I::Call(self.reset));
            }
            for (index, from) in evaluation.operands.iter().enumerate() {
                match from {
                    Operand::Parameter(parameter) => {
                        body.instruction(&I::LocalGet(operand(*parameter)))
                    }
                    Operand::Constant(value) => {
                        body.instruction(&constant(case.params[index], *value))
                    }
                };
            }
            if evaluation.called {
                let function = match self.called.get(&unit.case) {
                    Some(function) => *function,
                    None => {
                        let function = instruction_function(&mut self.sections, case)? + IMPORTED;
                        self.called.insert(unit.case, function);
                        function
                    }
                };
                body.instruction(&I::Call(function));
            } else {
                body.instruction(&instruction(case)?);
            }
            for index in (0..case.results.len()).rev() {
                body.instruction(&I::LocalSet(result(index)));
            }
            let base = number * result_size(case);
            for (index, ty) in case.results.iter().enumerate() {
                body.instruction(&I::LocalGet(1))
                    .instruction(&I::LocalGet(result(index)));
                body.instruction(&store(*ty, base + index * SLOT));
            }
            if case.accesses {
                body.instruction(&I::LocalGet(1));
                body.instruction(&I::I32Const((base + case.results.len() * SLOT) as i32));
                body.instruction(&I::I32Add)
                    .instruction(&I::Call(self.save));
            }
        }
        body.instruction(&I::End);
        Ok(self.sections.add_function(self.unit_type, &body) + IMPORTED)
    }
}

fn load(ty: Parsed, offset: usize) -> Instruction<'static> {
    match ty {
        Parsed::I32 => Instruction::I32Load(at(offset)),
        Parsed::I64 => Instruction::I64Load(at(offset)),
        Parsed::F32 => Instruction::F32Load(at(offset)),
        Parsed::F64 => Instruction::F64Load(at(offset)),
        _ => Instruction::V128Load(at(offset)),
    }
}

fn store(ty: Parsed, offset: usize) -> Instruction<'static> {
    match ty {
        Parsed::I32 => Instruction::I32Store(at(offset)),
        Parsed::I64 => Instruction::I64Store(at(offset)),
        Parsed::F32 => Instruction::F32Store(at(offset)),
        Parsed::F64 => Instruction::F64Store(at(offset)),
        _ => Instruction::V128Store(at(offset)),
    }
}

fn constant(ty: Parsed, bits: u128) -> Instruction<'static> {
    match ty {
        Parsed::I32 => Instruction::I32Const(bits as i32),
        Parsed::I64 => Instruction::I64Const(bits as i64),
        Parsed::F32 => Instruction::F32Const(Ieee32::new(bits as u32)),
        Parsed::F64 => Instruction::F64Const(Ieee64::new(bits as u64)),
        _ => Instruction::V128Const(bits as i128),
    }
}

fn function(locals: u32, instructions: &[Instruction<'_>]) -> Function {
    let mut body = Function::new([(locals, ValType::I32)]);
    instructions
        .iter()
        .for_each(|instruction| _ = body.instruction(instruction));
    body.instruction(&Instruction::End);
    body
}

/// `reset()` restores the initial contents of memory 0 where accesses reach.
fn reset() -> Function {
    use Instruction as I;
    let copy = I::MemoryCopy {
        src_mem: 1,
        dst_mem: 0,
    };
    let part = |to: usize, from: usize, size: usize| {
        [
            I::I32Const(to as i32),
            I::I32Const(from as i32),
            I::I32Const(size as i32),
            copy.clone(),
        ]
    };
    let parts = [
        part(0, PRISTINE, START),
        part(PAGE - END, PRISTINE + START, END),
    ];
    function(0, parts.as_flattened())
}

/// `save(results)` copies the same parts of memory 0 to the results.
fn save() -> Function {
    use Instruction as I;
    let copy = I::MemoryCopy {
        src_mem: 0,
        dst_mem: 1,
    };
    let part = |to: usize, from: usize, size: usize| {
        let to = [I::LocalGet(0), I::I32Const(to as i32), I::I32Add];
        [
            &to[..],
            &[
                I::I32Const(from as i32),
                I::I32Const(size as i32),
                copy.clone(),
            ],
        ]
        .concat()
    };
    function(
        0,
        &[part(0, 0, START), part(START, PAGE - END, END)].concat(),
    )
}

fn start(unit_type: u32, results: i32) -> Function {
    use Instruction as I;
    const UNIT_NUMBER: u32 = 0;
    const UNITS_END: u32 = 1;
    const DESCRIPTOR: u32 = 2;
    const OPERANDS: u32 = 3;
    const TUPLE: u32 = 4;
    const RESULTS: u32 = 5;
    let wasi = |function: u32, file: i32| {
        [
            I::I32Const(file),
            I::I32Const(0),
            I::I32Const(1),
            I::I32Const(8),
            I::Call(function),
            I::Drop,
        ]
    };
    let field = |number: usize| [I::LocalGet(DESCRIPTOR), I::I32Load(at(number * 4))];
    let parts: &[&[Instruction<'_>]] = &[
        // Read which units to run.
        &[
            I::I32Const(0),
            I::I32Const(16),
            I::I32Store(at(0)),
            I::I32Const(0),
            I::I32Const(8),
            I::I32Store(at(4)),
        ],
        &wasi(0, 0),
        &[I::I32Const(16), I::I32Load(at(0)), I::LocalSet(UNIT_NUMBER)],
        &[I::I32Const(16), I::I32Load(at(4)), I::LocalSet(UNITS_END)],
        &[I::Block(BlockType::Empty), I::Loop(BlockType::Empty)],
        &[
            I::LocalGet(UNIT_NUMBER),
            I::LocalGet(UNITS_END),
            I::I32GeU,
            I::BrIf(1),
        ],
        &[
            I::LocalGet(UNIT_NUMBER),
            I::I32Const(UNIT as i32),
            I::I32Mul,
        ],
        &[
            I::I32Const(UNITS as i32),
            I::I32Add,
            I::LocalSet(DESCRIPTOR),
        ],
        // Call it with each tuple.
        &field(0),
        &[
            I::LocalSet(OPERANDS),
            I::I32Const(0),
            I::LocalSet(TUPLE),
            I::I32Const(results),
            I::LocalSet(RESULTS),
        ],
        &[I::Loop(BlockType::Empty)],
        &[
            I::LocalGet(OPERANDS),
            I::LocalGet(RESULTS),
            I::LocalGet(UNIT_NUMBER),
        ],
        &[I::CallIndirect {
            type_index: unit_type,
            table_index: 0,
        }],
        &[I::LocalGet(OPERANDS)],
        &field(1),
        &[I::I32Add, I::LocalSet(OPERANDS), I::LocalGet(RESULTS)],
        &field(3),
        &[I::I32Add, I::LocalSet(RESULTS)],
        &[
            I::LocalGet(TUPLE),
            I::I32Const(1),
            I::I32Add,
            I::LocalTee(TUPLE),
        ],
        &field(2),
        &[I::I32LtU, I::BrIf(0), I::End],
        // Write its results. Local OPERANDS holds the remaining length.
        &[I::I32Const(results), I::LocalSet(OPERANDS)],
        &[I::Block(BlockType::Empty), I::Loop(BlockType::Empty)],
        &[
            I::LocalGet(OPERANDS),
            I::LocalGet(RESULTS),
            I::I32GeU,
            I::BrIf(1),
        ],
        &[I::I32Const(0), I::LocalGet(OPERANDS), I::I32Store(at(0))],
        &[
            I::I32Const(0),
            I::LocalGet(RESULTS),
            I::LocalGet(OPERANDS),
            I::I32Sub,
            I::I32Store(at(4)),
        ],
        &wasi(1, 1),
        &[
            I::LocalGet(OPERANDS),
            I::I32Const(8),
            I::I32Load(at(0)),
            I::I32Add,
            I::LocalSet(OPERANDS),
        ],
        &[I::Br(0), I::End, I::End],
        &[
            I::LocalGet(UNIT_NUMBER),
            I::I32Const(1),
            I::I32Add,
            I::LocalSet(UNIT_NUMBER),
        ],
        &[I::Br(0), I::End, I::End],
    ];
    function(6, &parts.concat())
}
