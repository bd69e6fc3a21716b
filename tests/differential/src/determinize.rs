//! Removes everything from a module that engines may implement differently.
//!
//! - NaNs of promotions and demotions, which wasm-smith does not make canonical.
//! - Relaxed SIMD. If one operand decides the result (swizzle, lane selection, Q15 product, dot product), that
//!   operand is restricted to values with one permitted result, and the instruction stays. The others (multiply-add,
//!   minimum, maximum, truncation) become their deterministic counterparts; `instructions` tests them.
//! - Shared memories, which become unshared. There is only one thread, so atomic accesses behave the same.

use std::collections::BTreeMap;
use std::convert::Infallible;

use anyhow::Result;
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{BlockType, CodeSection, Function, Instruction, MemoryType, ValType};
use wasmparser::{FunctionBody, Operator};

use crate::sections::Sections;

/// A helper function for a rewritten instruction that needs its operand twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Helper {
    CanonicalF32,
    CanonicalF64,
    CanonicalF32x4,
    CanonicalF64x2,
    MaddF32x4,
    MaddF64x2,
    NmaddF32x4,
    NmaddF64x2,
    DotAdd,
}

/// Rewrites a module so that all engines must agree on its behavior.
///
/// # Errors
///
/// The module is malformed or has imports.
pub(crate) fn rewrite(wasm: &[u8]) -> Result<Vec<u8>> {
    let functions = count_functions(wasm)?;
    let mut rewriter = Rewriter {
        first_helper: functions,
        helpers: BTreeMap::new(),
    };
    let mut sections = Sections::parse(wasm, &mut rewriter)?;
    let mut helpers: Vec<_> = rewriter.helpers.into_iter().collect();
    helpers.sort_by_key(|(_, index)| *index);
    for (helper, _) in helpers {
        let (params, result) = helper.signature();
        let ty = sections.add_type(params, &[result]);
        sections.add_function(ty, &helper.body());
    }
    Ok(sections.finish())
}

fn count_functions(wasm: &[u8]) -> Result<u32> {
    for payload in wasmparser::Parser::new(0).parse_all(wasm) {
        if let wasmparser::Payload::FunctionSection(section) = payload? {
            return Ok(section.count());
        }
    }
    Ok(0)
}

struct Rewriter {
    first_helper: u32,
    helpers: BTreeMap<Helper, u32>,
}

impl Rewriter {
    fn call(&mut self, helper: Helper) -> Instruction<'static> {
        let next = self.first_helper + self.helpers.len() as u32;
        Instruction::Call(*self.helpers.entry(helper).or_insert(next))
    }

    fn rewritten(&mut self, operator: &Operator<'_>) -> Option<Vec<Instruction<'static>>> {
        use Helper as H;
        use Instruction as I;
        use Operator as O;
        Some(match operator {
            O::F32DemoteF64 => vec![I::F32DemoteF64, self.call(H::CanonicalF32)],
            O::F64PromoteF32 => vec![I::F64PromoteF32, self.call(H::CanonicalF64)],
            O::F32x4DemoteF64x2Zero => vec![I::F32x4DemoteF64x2Zero, self.call(H::CanonicalF32x4)],
            O::F64x2PromoteLowF32x4 => vec![I::F64x2PromoteLowF32x4, self.call(H::CanonicalF64x2)],
            // Indices of at least 16 select zero; all engines agree on those with the top bit.
            O::I8x16RelaxedSwizzle => vec![splat8(0x8f), I::V128And, I::I8x16RelaxedSwizzle],
            // Restrict the masks to all ones and all zeros.
            O::I8x16RelaxedLaneselect => vec![splat8(0), I::I8x16LtS, I::I8x16RelaxedLaneselect],
            O::I16x8RelaxedLaneselect => vec![splat8(0), I::I16x8LtS, I::I16x8RelaxedLaneselect],
            O::I32x4RelaxedLaneselect => vec![splat8(0), I::I32x4LtS, I::I32x4RelaxedLaneselect],
            O::I64x2RelaxedLaneselect => vec![splat8(0), I::I64x2LtS, I::I64x2RelaxedLaneselect],
            // Only the product of twice -1 overflows.
            O::I16x8RelaxedQ15mulrS => {
                vec![splat16(-0x7fff), I::I16x8MaxS, I::I16x8RelaxedQ15mulrS]
            }
            // Restrict the operand to seven bits without a sign.
            O::I16x8RelaxedDotI8x16I7x16S => {
                vec![splat8(0x7f), I::V128And, I::I16x8RelaxedDotI8x16I7x16S]
            }
            O::I32x4RelaxedDotI8x16I7x16AddS => vec![self.call(H::DotAdd)],
            O::I32x4RelaxedTruncF32x4S => vec![I::I32x4TruncSatF32x4S],
            O::I32x4RelaxedTruncF32x4U => vec![I::I32x4TruncSatF32x4U],
            O::I32x4RelaxedTruncF64x2SZero => vec![I::I32x4TruncSatF64x2SZero],
            O::I32x4RelaxedTruncF64x2UZero => vec![I::I32x4TruncSatF64x2UZero],
            O::F32x4RelaxedMin => vec![I::F32x4Min, self.call(H::CanonicalF32x4)],
            O::F32x4RelaxedMax => vec![I::F32x4Max, self.call(H::CanonicalF32x4)],
            O::F64x2RelaxedMin => vec![I::F64x2Min, self.call(H::CanonicalF64x2)],
            O::F64x2RelaxedMax => vec![I::F64x2Max, self.call(H::CanonicalF64x2)],
            O::F32x4RelaxedMadd => vec![self.call(H::MaddF32x4)],
            O::F32x4RelaxedNmadd => vec![self.call(H::NmaddF32x4)],
            O::F64x2RelaxedMadd => vec![self.call(H::MaddF64x2)],
            O::F64x2RelaxedNmadd => vec![self.call(H::NmaddF64x2)],
            _ => return None,
        })
    }
}

impl Reencode for Rewriter {
    type Error = Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            let operator = reader.read()?;
            match self.rewritten(&operator) {
                Some(instructions) => {
                    for instruction in &instructions {
                        function.instruction(instruction);
                    }
                }
                None => {
                    function.instruction(&self.instruction(operator)?);
                }
            }
        }
        code.function(&function);
        Ok(())
    }

    fn memory_type(
        &mut self,
        ty: wasmparser::MemoryType,
    ) -> Result<MemoryType, reencode::Error<Infallible>> {
        let ty = reencode::utils::memory_type(self, ty);
        Ok(MemoryType {
            shared: false,
            ..ty
        })
    }
}

fn splat8(byte: u8) -> Instruction<'static> {
    Instruction::V128Const(i128::from_le_bytes([byte; 16]))
}

fn splat16(value: i16) -> Instruction<'static> {
    let lanes = u128::from(value as u16) * (u128::MAX / 0xffff);
    Instruction::V128Const(lanes as i128)
}

fn splat32(value: u32) -> Instruction<'static> {
    Instruction::V128Const((u128::from(value) * (u128::MAX / 0xffff_ffff)) as i128)
}

fn splat64(value: u64) -> Instruction<'static> {
    Instruction::V128Const((u128::from(value) << 64 | u128::from(value)) as i128)
}

const NAN_32: u32 = 0x7fc0_0000;
const NAN_64: u64 = 0x7ff8_0000_0000_0000;

impl Helper {
    fn signature(self) -> (&'static [ValType], ValType) {
        use ValType::{F32, F64, V128};
        match self {
            Self::CanonicalF32 => (&[F32], F32),
            Self::CanonicalF64 => (&[F64], F64),
            Self::CanonicalF32x4 | Self::CanonicalF64x2 => (&[V128], V128),
            _ => (&[V128, V128, V128], V128),
        }
    }

    fn body(self) -> Function {
        use Instruction as I;
        let get = I::LocalGet;
        let body = match self {
            Self::CanonicalF32 => vec![
                get(0),
                get(0),
                I::F32Eq,
                I::If(BlockType::Result(ValType::F32)),
                get(0),
                I::Else,
                I::F32Const(f32::from_bits(NAN_32).into()),
                I::End,
            ],
            Self::CanonicalF64 => vec![
                get(0),
                get(0),
                I::F64Eq,
                I::If(BlockType::Result(ValType::F64)),
                get(0),
                I::Else,
                I::F64Const(f64::from_bits(NAN_64).into()),
                I::End,
            ],
            Self::CanonicalF32x4 => canonical(vec![get(0)], I::F32x4Eq, splat32(NAN_32)),
            Self::CanonicalF64x2 => canonical(vec![get(0)], I::F64x2Eq, splat64(NAN_64)),
            Self::MaddF32x4 => madd(
                [I::Nop, I::F32x4Mul, I::F32x4Add],
                I::F32x4Eq,
                splat32(NAN_32),
            ),
            Self::NmaddF32x4 => madd(
                [I::F32x4Neg, I::F32x4Mul, I::F32x4Add],
                I::F32x4Eq,
                splat32(NAN_32),
            ),
            Self::MaddF64x2 => madd(
                [I::Nop, I::F64x2Mul, I::F64x2Add],
                I::F64x2Eq,
                splat64(NAN_64),
            ),
            Self::NmaddF64x2 => madd(
                [I::F64x2Neg, I::F64x2Mul, I::F64x2Add],
                I::F64x2Eq,
                splat64(NAN_64),
            ),
            Self::DotAdd => vec![
                get(0),
                get(1),
                splat8(0x7f),
                I::V128And,
                get(2),
                I::I32x4RelaxedDotI8x16I7x16AddS,
            ],
        };
        let mut function = Function::new([]);
        for instruction in &body {
            function.instruction(instruction);
        }
        function.instruction(&I::End);
        function
    }
}

/// Stores `value` in local 0, with each NaN lane replaced.
fn canonical(
    value: Vec<Instruction<'static>>,
    equal: Instruction<'static>,
    nan: Instruction<'static>,
) -> Vec<Instruction<'static>> {
    use Instruction as I;
    let mut body = value;
    body.extend([
        I::LocalTee(0),
        nan,
        I::LocalGet(0),
        I::LocalGet(0),
        equal,
        I::V128Bitselect,
    ]);
    body
}

/// `local 0 * local 1 + local 2`, rounded twice.
fn madd(
    steps: [Instruction<'static>; 3],
    equal: Instruction<'static>,
    nan: Instruction<'static>,
) -> Vec<Instruction<'static>> {
    use Instruction as I;
    let [negate, multiply, add] = steps;
    let value = vec![
        I::LocalGet(0),
        negate,
        I::LocalGet(1),
        multiply,
        I::LocalGet(2),
        add,
    ];
    canonical(value, equal, nan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nondeterministic_instructions_are_removed() {
        let wasm = wat::parse_str(
            "(module (memory 1 1 shared)
               (func (param v128 v128 v128) (result v128)
                 (f32x4.relaxed_madd (local.get 0) (local.get 1)
                   (f32x4.relaxed_min (local.get 2) (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))))
               (func (param f64) (result f32) (f32.demote_f64 (local.get 0))))",
        )
        .expect("the text is correct");
        let rewritten = rewrite(&wasm).expect("it is valid");
        let text = wasmprinter::print_bytes(&rewritten).expect("it is valid");
        assert!(
            !text.contains("relaxed_m") && !text.contains("shared"),
            "{text}"
        );
        assert!(text.contains("i8x16.relaxed_swizzle"), "{text}");
        wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all())
            .validate_all(&rewritten)
            .expect("it is still valid");
    }
}
