//! A bundle as a WASI command. It executes the steps that an argument selects, and writes their results.
//!
//! The argument has one character per step: `1` executes the step, `p` applies the segments of an instantiation that
//! traps, up to the one that does not fit, and any other character omits the step. For each step that returns, the
//! guest writes a record to standard output: the step's number in four bytes, and [`value::SIZE`] bytes for each
//! result. So one build serves a whole bundle: one run executes all steps that return, and a separate run for each
//! trap ends with it.
//!
//! ```text
//! scratch memory   0         8        12     16     20     32     1024     64 KiB
//!                  |iovec    |written |      |argc  |size  |argv  |record  |arguments
//! ```

use wasm_encoder::{
    BlockType, EntityType, ExportKind, Function, HeapType, ImportSection, InstructionSink, MemArg,
    MemoryType, ValType,
};

use crate::link::{Linked, Placed, Segment};
use crate::script::{Act, Bundle, Ending, Step};
use crate::shape::Signature;
use crate::value::{self, Argument};

/// Executes a step.
pub(crate) const DO: u8 = b'1';
/// Applies the part of an instantiation that precedes its trap.
pub(crate) const PARTLY: u8 = b'p';
/// Omits a step.
pub(crate) const OMIT: u8 = b'0';

const WASI: &str = "wasi_snapshot_preview1";
/// The functions imported from WASI: their names and numbers of parameters.
const IMPORTS: [(&str, usize); 3] = [("args_sizes_get", 2), ("args_get", 2), ("fd_write", 4)];
const ARGS_SIZES_GET: u32 = 0;
const ARGS_GET: u32 = 1;
const FD_WRITE: u32 = 2;

const STDOUT: i32 = 1;
const IOVEC: i32 = 0;
const WRITTEN: i32 = 8;
const ARGC: i32 = 16;
const ARGS_SIZE: i32 = 20;
const ARGV: i32 = 32;
const RECORD: i32 = 1024;
const ARGUMENTS: i32 = 65_536;
/// Linux limits a program argument to 128 KiB.
const SCRATCH_PAGES: u64 = 4;
const PAGE: i64 = 65_536;

/// Maximum number of steps per function, because one function with all steps would take long to compile.
const STEPS_PER_FUNCTION: usize = 40;

/// A module that executes the steps, and the number of each step's results.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) wasm: Vec<u8>,
    /// Number of results of each step.
    pub(crate) results: Vec<usize>,
}

/// Builds the command for a bundle.
///
/// # Errors
///
/// Describes what cannot be linked or called.
pub(crate) fn command(bundle: &Bundle) -> Result<Guest, String> {
    let mut linked = Linked::new(bundle, IMPORTS.len() as u32)?;
    let mut imports = ImportSection::new();
    for (name, params) in IMPORTS {
        let ty = linked.add_type(&vec![ValType::I32; params], &[ValType::I32]);
        imports.import(WASI, name, EntityType::Function(ty));
    }
    let memory = linked.memories.len();
    linked.memories.memory(MemoryType {
        minimum: SCRATCH_PAGES,
        maximum: Some(SCRATCH_PAGES),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    linked.export("memory", ExportKind::Memory, memory);
    let mut emitter = Emitter {
        nothing: linked.add_type(&[], &[]),
        address: linked.add_type(&[ValType::I32], &[]),
        linked,
        memory,
        report: 0,
    };
    emitter.add_report();
    let mut results = Vec::new();
    let mut parts = Vec::new();
    for (part, steps) in bundle.steps.chunks(STEPS_PER_FUNCTION).enumerate() {
        let (function, of_part) = emitter.part(bundle, part * STEPS_PER_FUNCTION, steps)?;
        parts.push(function);
        results.extend(of_part);
    }
    emitter.add_start(&parts);
    Ok(Guest {
        wasm: emitter.linked.finish(&imports),
        results,
    })
}

struct Emitter {
    linked: Linked,
    /// The scratch memory.
    memory: u32,
    /// The function that writes the record. Its parameter is the length.
    report: u32,
    /// The types of a function without parameters, and of a function with an address.
    nothing: u32,
    address: u32,
}

impl Emitter {
    fn at(&self, offset: i32) -> MemArg {
        MemArg {
            offset: offset as u64,
            align: 0,
            memory_index: self.memory,
        }
    }

    fn add_report(&mut self) {
        let mut function = Function::new([]);
        let mut code = function.instructions();
        code.i32_const(0)
            .i32_const(RECORD)
            .i32_store(self.at(IOVEC));
        code.i32_const(0).local_get(0).i32_store(self.at(IOVEC + 4));
        for argument in [STDOUT, IOVEC, 1, WRITTEN] {
            code.i32_const(argument);
        }
        code.call(FD_WRITE);
        code.if_(BlockType::Empty).unreachable().end();
        code.i32_const(0)
            .i32_load(self.at(WRITTEN))
            .local_get(0)
            .i32_ne();
        code.if_(BlockType::Empty).unreachable().end();
        code.end();
        self.report = self.linked.add_function(self.address, &function);
    }

    fn add_start(&mut self, parts: &[u32]) {
        let mut function = Function::new([]);
        let mut code = function.instructions();
        code.i32_const(ARGC)
            .i32_const(ARGS_SIZE)
            .call(ARGS_SIZES_GET)
            .drop();
        code.i32_const(ARGV)
            .i32_const(ARGUMENTS)
            .call(ARGS_GET)
            .drop();
        // Without a selection, do nothing.
        code.i32_const(0)
            .i32_load(self.at(ARGC))
            .i32_const(2)
            .i32_ne();
        code.if_(BlockType::Empty).unreachable().end();
        for part in parts {
            code.i32_const(0).i32_load(self.at(ARGV + 4)).call(*part);
        }
        code.end();
        let start = self.linked.add_function(self.nothing, &function);
        self.linked.export("_start", ExportKind::Func, start);
    }

    /// A function that executes the steps selected by the string at its parameter.
    fn part(
        &mut self,
        bundle: &Bundle,
        first: usize,
        steps: &[Step],
    ) -> Result<(u32, Vec<usize>), String> {
        let mut locals = Locals::default();
        let mut counts = Vec::new();
        let mut body = Vec::new();
        for (number, step) in (first..).zip(steps) {
            let instance = &bundle.instances[step.instance];
            let calls = match &step.act {
                Act::Nothing => None,
                Act::Instantiate => self.instantiation(step),
                Act::Call(name, arguments) => {
                    let target = instance.shape.exports.get(name);
                    let (kind, index) = target.ok_or_else(|| format!("no export `{name}`"))?;
                    let signature = instance.shape.signature(*kind, *index)?;
                    let place = self.linked.placed[step.instance].place(*kind, *index);
                    Some(call(place, arguments, signature)?)
                }
                Act::Get(name) => {
                    let target = instance.shape.exports.get(name);
                    let (kind, index) = target.ok_or_else(|| format!("no export `{name}`"))?;
                    let signature = instance.shape.signature(*kind, *index)?;
                    let place = self.linked.placed[step.instance].place(*kind, *index);
                    let mut code = Vec::new();
                    InstructionSink::new(&mut code).global_get(place);
                    Some((code, signature.results))
                }
            };
            let (code, results) = calls.unwrap_or_default();
            counts.push(results.len());
            self.step(&mut body, number, &code, &results, &mut locals);
            if step.act == Act::Instantiate && step.ending != Ending::Returned {
                self.partly(&mut body, number, step.instance);
            }
        }
        let mut function = Function::new_with_locals_types(locals.types);
        function.raw(body);
        function.instructions().end();
        Ok((self.linked.add_function(self.address, &function), counts))
    }

    /// Executes a step if it is selected, and reports its results.
    fn step(
        &self,
        body: &mut Vec<u8>,
        number: usize,
        act: &[u8],
        results: &[ValType],
        locals: &mut Locals,
    ) {
        self.if_selected(body, number, DO);
        body.extend_from_slice(act);
        let mut code = InstructionSink::new(body);
        let places = locals.of(results);
        for place in places.iter().rev() {
            code.local_set(*place);
        }
        code.i32_const(0)
            .i32_const(number as i32)
            .i32_store(self.at(RECORD));
        for (result, (place, ty)) in (0..).zip(places.iter().zip(results)) {
            let at = self.at(RECORD + 4 + result * value::SIZE as i32);
            code.i32_const(0).local_get(*place);
            match ty {
                ValType::I32 => code.i32_store(at),
                ValType::I64 => code.i64_store(at),
                ValType::F32 => code.f32_store(at),
                ValType::F64 => code.f64_store(at),
                ValType::V128 => code.v128_store(at),
                ValType::Ref(_) => code.ref_is_null().i32_store(at),
            };
        }
        let length = 4 + results.len() * value::SIZE;
        code.i32_const(length as i32).call(self.report).end();
    }

    fn if_selected(&self, body: &mut Vec<u8>, number: usize, how: u8) {
        let mut code = InstructionSink::new(body);
        code.local_get(0).i32_load8_u(self.at(number as i32));
        code.i32_const(how.into()).i32_eq().if_(BlockType::Empty);
    }

    /// Code that instantiates an instance, unless the engine does it before `_start`.
    fn instantiation(&mut self, step: &Step) -> Option<(Vec<u8>, Vec<ValType>)> {
        let placed = &self.linked.placed[step.instance];
        let mut body = Vec::new();
        for segment in &placed.segments {
            apply(segment, &mut body);
        }
        if let Some(start) = placed.start {
            InstructionSink::new(&mut body).call(start);
        }
        Some((body, Vec::new()))
    }

    /// Applies the segments of an instantiation that traps, up to the one that does not fit. The effects of its start
    /// function are unknown.
    fn partly(&self, body: &mut Vec<u8>, number: usize, instance: usize) {
        self.if_selected(body, number, PARTLY);
        InstructionSink::new(body).block(BlockType::Empty);
        let Placed { segments, .. } = &self.linked.placed[instance];
        for segment in segments {
            body.extend_from_slice(&segment.offset);
            let mut code = InstructionSink::new(body);
            code.i64_extend_i32_u()
                .i64_const(segment.length.into())
                .i64_add();
            if segment.is_data {
                code.memory_size(segment.target).i64_extend_i32_u();
                code.i64_const(PAGE).i64_mul();
            } else {
                code.table_size(segment.target).i64_extend_i32_u();
            }
            code.i64_gt_u().br_if(0);
            apply(segment, body);
        }
        InstructionSink::new(body).end().end();
    }
}

/// Applies a segment and drops it, as an instantiation does.
fn apply(segment: &Segment, body: &mut Vec<u8>) {
    body.extend_from_slice(&segment.offset);
    let mut code = InstructionSink::new(body);
    code.i32_const(0).i32_const(segment.length as i32);
    if segment.is_data {
        code.memory_init(segment.target, segment.index)
            .data_drop(segment.index);
    } else {
        code.table_init(segment.target, segment.index)
            .elem_drop(segment.index);
    }
}

/// Emits a call with arguments. Returns the types of its results.
fn call(
    function: u32,
    arguments: &[Argument],
    signature: Signature,
) -> Result<(Vec<u8>, Vec<ValType>), String> {
    if arguments.len() != signature.params.len() {
        return Err(format!(
            "{} arguments for {:?}",
            arguments.len(),
            signature.params
        ));
    }
    let mut body = Vec::new();
    let mut code = InstructionSink::new(&mut body);
    for (argument, param) in arguments.iter().zip(&signature.params) {
        let heap: Option<HeapType> = match param {
            ValType::Ref(reference) => Some(reference.heap_type),
            _ => None,
        };
        argument.push(heap, &mut code);
    }
    code.call(function);
    Ok((body, signature.results))
}

/// Local variables for results, shared by steps. The first one is the parameter.
#[derive(Default)]
struct Locals {
    types: Vec<ValType>,
}

impl Locals {
    /// Distinct variables with these types.
    fn of(&mut self, types: &[ValType]) -> Vec<u32> {
        let mut taken = vec![false; self.types.len()];
        let mut places = Vec::new();
        for ty in types {
            let free = (0..self.types.len()).find(|at| !taken[*at] && self.types[*at] == *ty);
            let at = free.unwrap_or_else(|| {
                self.types.push(*ty);
                taken.push(false);
                self.types.len() - 1
            });
            taken[at] = true;
            places.push(at as u32 + 1);
        }
        places
    }
}

/// The record of a step that has returned: its number, and its results as the guest has stored them.
pub(crate) type Record = (usize, Vec<[u8; value::SIZE]>);

/// Parses the output of a run.
///
/// # Errors
///
/// Describes what is malformed.
pub(crate) fn records(guest: &Guest, output: &[u8]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    let mut rest = output;
    while let Some((number, after)) = rest.split_first_chunk::<4>() {
        let number = u32::from_le_bytes(*number) as usize;
        let count = guest.results.get(number);
        let count = *count.ok_or_else(|| format!("a record of step {number}, which is none"))?;
        let (results, after) = after
            .split_at_checked(count * value::SIZE)
            .ok_or("the last record is cut off")?;
        let (results, _) = results.as_chunks::<{ value::SIZE }>();
        records.push((number, results.to_vec()));
        rest = after;
    }
    if rest.is_empty() {
        Ok(records)
    } else {
        Err("the last record is cut off".into())
    }
}
