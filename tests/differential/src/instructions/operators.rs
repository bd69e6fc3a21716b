//! Every numeric and vector instruction and every memory access in wasmparser's list, with the types of its operands.
//!
//! An instruction that a later wasmparser adds gets a case automatically, or fails the test below.

use anyhow::{Result, bail, ensure};
use wasm_encoder::{Encode as _, Instruction};
use wasmparser::{
    BinaryReader, FuncToValidate, FuncValidatorAllocations, Operator, OperatorsReader, Parser,
    ValType, ValidPayload, Validator, ValidatorResources, WasmFeatures,
};

/// Proposals whose instructions are tested, except those in [`NO_CASE`].
const PROPOSALS: [&str; 7] = [
    "mvp",
    "relaxed_simd",
    "saturating_float_to_int",
    "sign_extension",
    "simd",
    "threads",
    "wide_arithmetic",
];

/// Proposals without numeric or vector instructions and memory accesses.
const OTHER_PROPOSALS: [&str; 14] = [
    "acquire_release_atomics",
    "bulk_memory",
    "custom_descriptors",
    "exceptions",
    "function_references",
    "gc",
    "legacy_exceptions",
    "memory_control",
    "reference_types",
    "shared_everything_threads",
    "stack_switching",
    "tail_call",
    // Names that wasmparser may give to the features above.
    "memory64",
    "multi_memory",
];

/// Instructions of the proposals above that are neither numeric nor accesses. The specification's suite and the
/// random modules cover them.
const NO_CASE: [&str; 28] = [
    // Control.
    "Unreachable",
    "Nop",
    "Block",
    "Loop",
    "If",
    "Else",
    "End",
    "Br",
    "BrIf",
    "BrTable",
    "Return",
    "Call",
    "CallIndirect",
    // Parametric and variable.
    "Drop",
    "Select",
    "LocalGet",
    "LocalSet",
    "LocalTee",
    "GlobalGet",
    "GlobalSet",
    // These affect a whole memory.
    "MemorySize",
    "MemoryGrow",
    // Has neither a result nor an operand.
    "AtomicFence",
    // Constants are the operands of all other instructions.
    "I32Const",
    "I64Const",
    "F32Const",
    "F64Const",
    "V128Const",
];

/// One instruction with its immediates.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// wasmparser's name of the instruction.
    pub(crate) name: &'static str,
    pub(crate) operator: Operator<'static>,
    pub(crate) params: Vec<ValType>,
    pub(crate) results: Vec<ValType>,
    /// Whether it reads or writes memory 0.
    pub(crate) accesses: bool,
    /// Whether its immediates are the first variant of the instruction, or the first one with a very large offset.
    pub(crate) is_typical: bool,
}

impl Case {
    /// The instruction with its immediates, for messages.
    pub(crate) fn label(&self) -> String {
        format!("{:?}", self.operator)
    }
}

/// An immediate with several values that are worth testing.
trait Immediate: Sized {
    /// Takes a value from a mixed-radix number, whose rest is for the next immediate. Returns `None` if the type has
    /// no values; the instruction then has no case.
    fn pick(rest: &mut usize) -> Option<Self>;
}

fn digit(rest: &mut usize, values: usize) -> usize {
    let digit = *rest % values;
    *rest /= values;
    digit
}

impl Immediate for wasmparser::MemArg {
    fn pick(rest: &mut usize) -> Option<Self> {
        // Validation selects the permitted alignments; an atomic access needs the natural one.
        const ALIGN_AND_OFFSET: [(u8, u64); 7] = [
            (0, 0),
            (0, 5),
            (0, 0xffff_fff0),
            (1, 6),
            (2, 12),
            (3, 24),
            (4, 48),
        ];
        let (align, offset) = ALIGN_AND_OFFSET[digit(rest, ALIGN_AND_OFFSET.len())];
        let target = wasmparser::MemArgTarget::Memory(0);
        Some(Self {
            align,
            max_align: align,
            offset,
            target,
            ordering: None,
        })
    }
}

impl Immediate for u8 {
    fn pick(rest: &mut usize) -> Option<Self> {
        Some(digit(rest, 16) as u8)
    }
}

impl Immediate for [u8; 16] {
    fn pick(rest: &mut usize) -> Option<Self> {
        const SHUFFLES: [[u8; 16]; 10] = [
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            [
                16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
            ],
            [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23],
            [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31],
            [
                31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16,
            ],
            [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
            [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11],
            [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3],
            [0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29],
            [7, 31, 0, 16, 15, 2, 29, 11, 11, 30, 1, 19, 6, 23, 9, 14],
        ];
        Some(SHUFFLES[digit(rest, SHUFFLES.len())])
    }
}

/// Immediates of instructions without a case.
macro_rules! no_values {
    ($($ty:ty,)*) => {
        $(impl Immediate for $ty {
            fn pick(_: &mut usize) -> Option<Self> {
                None
            }
        })*
    };
}

no_values! {
    u32,
    i32,
    i64,
    wasmparser::BlockType,
    wasmparser::BrTable<'_>,
    wasmparser::HeapType,
    wasmparser::Ieee32,
    wasmparser::Ieee64,
    wasmparser::Ordering,
    wasmparser::RefType,
    wasmparser::ResumeTable,
    wasmparser::TryTable,
    wasmparser::V128,
    wasmparser::ValType,
    Vec<wasmparser::ValType>,
}

/// An instruction in wasmparser's list.
struct Listed {
    proposal: &'static str,
    name: &'static str,
    /// The instruction with its n-th immediates, and the rest of n.
    operator: fn(usize) -> Option<(Operator<'static>, usize)>,
}

macro_rules! list {
    ($( @$proposal:ident $op:ident $({ $($argument:ident: $ty:ty),* })? => $visit:ident ($($annotation:tt)*) )*) => {
        vec![$(Listed {
            proposal: stringify!($proposal),
            name: stringify!($op),
            operator: {
                // The types in the list have this lifetime.
                #[allow(unused_mut, clippy::extra_unused_lifetimes, reason = "most instructions have no immediate")]
                fn operator<'a>(number: usize) -> Option<(Operator<'a>, usize)> {
                    let mut rest = number;
                    let operator = Operator::$op $({ $($argument: <$ty as Immediate>::pick(&mut rest)?),* })?;
                    Some((operator, rest))
                }
                operator
            },
        },)*]
    };
}

fn listed() -> Vec<Listed> {
    wasmparser::for_each_operator!(list)
}

/// A case for each instruction that computes or accesses memory, with each variant of its immediates.
///
/// # Errors
///
/// An instruction has neither a case nor a reason for having none.
pub(crate) fn cases() -> Result<Vec<Case>> {
    let scratch = scratch()?;
    let mut cases = Vec::new();
    for listed in listed() {
        let Listed {
            proposal,
            name,
            operator,
        } = listed;
        if OTHER_PROPOSALS.contains(&proposal) || NO_CASE.contains(&name) {
            continue;
        }
        ensure!(
            PROPOSALS.contains(&proposal),
            "the proposal `{proposal}` of `{name}` is neither tested nor set aside"
        );
        let before = cases.len();
        for number in 0.. {
            let Some((operator, rest)) = operator(number) else {
                break;
            };
            if rest > 0 {
                break;
            }
            let Some((params, results)) = signature(&scratch, &operator) else {
                continue;
            };
            let accesses = accesses_memory(name);
            let is_typical = cases.len() == before || number == 2;
            cases.push(Case {
                name,
                operator,
                params,
                results,
                accesses,
                is_typical,
            });
        }
        ensure!(cases.len() > before, "the instruction `{name}` has no case");
    }
    Ok(cases)
}

/// Whether an instruction reads or writes memory, according to its name.
fn accesses_memory(name: &str) -> bool {
    ["Load", "Store", "Atomic"]
        .iter()
        .any(|word| name.contains(word))
}

/// A function for trying instructions, in a module with a memory.
struct Scratch {
    resources: ValidatorResources,
    ty: u32,
}

fn scratch() -> Result<Scratch> {
    let wasm = wat::parse_str("(module (memory 1) (func))")?;
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    for payload in Parser::new(0).parse_all(&wasm) {
        if let ValidPayload::Func(function, _) = validator.payload(&payload?)? {
            return Ok(Scratch {
                ty: function.ty,
                resources: function.resources,
            });
        }
    }
    bail!("the scratch module has no function")
}

const TYPES: [ValType; 5] = [
    ValType::I32,
    ValType::I64,
    ValType::F32,
    ValType::F64,
    ValType::V128,
];

/// The types that an instruction pops and pushes, or `None` if its immediates are invalid.
fn signature(
    scratch: &Scratch,
    operator: &Operator<'static>,
) -> Option<(Vec<ValType>, Vec<ValType>)> {
    // Only decoding gives the natural alignment of an access.
    let mut bytes = Vec::new();
    Instruction::try_from(operator.clone())
        .ok()?
        .encode(&mut bytes);
    let operator = &OperatorsReader::new(BinaryReader::new(&bytes, 0))
        .read()
        .ok()?;
    // Find the smallest number of operands, because additional ones would stay on the stack.
    for count in 0..=4 {
        for number in 0..TYPES.len().pow(count) {
            let mut rest = number;
            let params: Vec<_> = (0..count)
                .map(|_| TYPES[digit(&mut rest, TYPES.len())])
                .collect();
            if let Some(results) = results(scratch, &params, operator) {
                return Some((params, results));
            }
        }
    }
    None
}

fn results(scratch: &Scratch, params: &[ValType], operator: &Operator<'_>) -> Option<Vec<ValType>> {
    let function = FuncToValidate {
        resources: scratch.resources.clone(),
        index: 0,
        ty: scratch.ty,
        features: WasmFeatures::all(),
    };
    let mut validator = function.into_validator(FuncValidatorAllocations::default());
    for ty in params {
        let constant = match ty {
            ValType::I32 => Operator::I32Const { value: 0 },
            ValType::I64 => Operator::I64Const { value: 0 },
            ValType::F32 => Operator::F32Const { value: 0.0.into() },
            ValType::F64 => Operator::F64Const { value: 0.0.into() },
            _ => Operator::V128Const {
                value: 0_u128.into(),
            },
        };
        validator.op(0, &constant).ok()?;
    }
    validator.op(0, operator).ok()?;
    let height = validator.operand_stack_height() as usize;
    (0..height)
        .rev()
        .map(|depth| validator.get_operand_type(depth).flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_of_wasmparser_has_a_case_or_a_reason() {
        let cases = cases().expect("no instruction is forgotten");
        let names: std::collections::BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        // The numeric, vector and memory instructions of the core specification 3.0, and wide arithmetic.
        assert!(names.len() >= 484, "{}", names.len());
        for listed in listed() {
            let excused =
                OTHER_PROPOSALS.contains(&listed.proposal) || NO_CASE.contains(&listed.name);
            assert!(names.contains(listed.name) != excused, "{}", listed.name);
        }
    }

    #[test]
    fn types_are_those_of_the_specification() {
        use ValType::{F64, I32, I64, V128};
        let cases = cases().expect("no instruction is forgotten");
        for (name, params, results) in [
            ("I32Add", vec![I32, I32], vec![I32]),
            ("F64ConvertI32U", vec![I32], vec![F64]),
            ("I64MulWideU", vec![I64, I64], vec![I64, I64]),
            ("I8x16ShrS", vec![V128, I32], vec![V128]),
            ("I64AtomicRmwCmpxchg", vec![I32, I64, I64], vec![I64]),
            ("V128Store64Lane", vec![I32, V128], vec![]),
        ] {
            let case = cases
                .iter()
                .find(|case| case.name == name)
                .expect("there is such a case");
            assert_eq!((&case.params, &case.results), (&params, &results), "{name}");
        }
        assert_eq!(
            cases
                .iter()
                .filter(|case| case.name == "I8x16ReplaceLane")
                .count(),
            16
        );
        assert_eq!(
            cases
                .iter()
                .filter(|case| case.name == "I64x2ReplaceLane")
                .count(),
            2
        );
    }
}
