//! Operators of floats and vectors that a backend translates wrongly or not at all, said in others.
//!
//! - LLVM's translator notes with a value that its NaNs may have to be made canonical, as 32 or as 64 bits. Rounding a
//!   vector of the one kind that was computed as the other makes it give up. A local has no such note.
//! - Without SSE4.1, x86 rounds by a call that gives a signaling NaN back as it is. A product with 1 is quiet, and no
//!   backend removes it, since it can be seen.
//! - LLVM removes a vector's promotion and demotion that follow each other, which make a signaling NaN quiet.
//! - Without SSSE3, Cranelift has no shuffles.
//! - LLVM's translator selects lanes of 32 and 64 bits by bytes, and rounds to nearest where a relaxed conversion must
//!   truncate. The strict counterparts are among the results that relaxed SIMD permits.

use faas_wasm_artifact::{Backend, CpuFeature};
use target_lexicon::Architecture;
use wasmer_compiler::wasmparser::{Operator, ValType};

use super::{Edit, Finder};
use crate::target::Target;

/// A float type, or a vector of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    F32,
    F64,
    F32x4,
    F64x2,
}

fn rounding(operator: &Operator<'_>) -> Option<Shape> {
    use Operator as O;
    match operator {
        O::F32Ceil | O::F32Floor | O::F32Trunc | O::F32Nearest => Some(Shape::F32),
        O::F64Ceil | O::F64Floor | O::F64Trunc | O::F64Nearest => Some(Shape::F64),
        O::F32x4Ceil | O::F32x4Floor | O::F32x4Trunc | O::F32x4Nearest => Some(Shape::F32x4),
        O::F64x2Ceil | O::F64x2Floor | O::F64x2Trunc | O::F64x2Nearest => Some(Shape::F64x2),
        _ => None,
    }
}

/// The strict counterpart of a relaxed operator that LLVM's translator gets wrong.
fn strict(operator: &Operator<'_>) -> Option<Operator<'static>> {
    use Operator as O;
    match operator {
        O::I32x4RelaxedLaneselect | O::I64x2RelaxedLaneselect => Some(O::V128Bitselect),
        O::I32x4RelaxedTruncF32x4U => Some(O::I32x4TruncSatF32x4U),
        O::I32x4RelaxedTruncF64x2SZero => Some(O::I32x4TruncSatF64x2SZero),
        O::I32x4RelaxedTruncF64x2UZero => Some(O::I32x4TruncSatF64x2UZero),
        _ => None,
    }
}

/// Makes the value on top of the stack quiet.
fn quiet(shape: Shape) -> Vec<Operator<'static>> {
    use Operator as O;
    let one = O::F32Const { value: 1.0.into() };
    let wide_one = O::F64Const { value: 1.0.into() };
    match shape {
        Shape::F32 => vec![one, O::F32Mul],
        Shape::F64 => vec![wide_one, O::F64Mul],
        Shape::F32x4 => vec![one, O::F32x4Splat, O::F32x4Mul],
        Shape::F64x2 => vec![wide_one, O::F64x2Splat, O::F64x2Mul],
    }
}

/// Whether a target is one that Cranelift needs changes for.
pub(super) fn concerns(target: &Target) -> bool {
    lacks(target, CpuFeature::Sse41)
}

fn lacks(target: &Target, feature: CpuFeature) -> bool {
    target.triple.architecture == Architecture::X86_64 && !target.features.contains(&feature)
}

impl Finder<'_, '_> {
    /// Says operators in others where the backend or the target asks for it.
    pub(super) fn vectors(&mut self, backend: Backend, target: &Target) {
        let rounds_by_call = lacks(target, CpuFeature::Sse41);
        let lacks_shuffles = backend == Backend::Cranelift && lacks(target, CpuFeature::Ssse3);
        let flow = self.flow;
        let promotes = flow
            .nodes
            .iter()
            .any(|node| matches!(node.operator, Operator::F64x2PromoteLowF32x4));
        for node in &flow.nodes {
            let (mut before, mut instead) = (Vec::new(), None);
            if let Some(shape) = rounding(&node.operator) {
                let is_vector = matches!(shape, Shape::F32x4 | Shape::F64x2);
                if rounds_by_call {
                    before = quiet(shape);
                } else if is_vector && backend == Backend::Llvm {
                    let local_index = self.local(ValType::V128);
                    before = vec![
                        Operator::LocalSet { local_index },
                        Operator::LocalGet { local_index },
                    ];
                }
            }
            if backend == Backend::Llvm {
                instead = strict(&node.operator).map(|operator| vec![operator]);
            }
            match &node.operator {
                Operator::F32x4DemoteF64x2Zero if promotes && backend == Backend::Llvm => {
                    before = quiet(Shape::F64x2);
                }
                Operator::I8x16Shuffle { lanes } if lacks_shuffles => {
                    instead = Some(self.shuffle(*lanes));
                }
                Operator::I8x16Swizzle | Operator::I8x16RelaxedSwizzle if lacks_shuffles => {
                    instead = Some(self.swizzle());
                }
                _ => {}
            }
            if !before.is_empty() || instead.is_some() {
                self.edits.edits.push(Edit {
                    at: node.at,
                    before,
                    instead,
                });
            }
        }
    }

    /// Byte by byte; each comes from where the operator itself says.
    fn shuffle(&mut self, lanes: [u8; 16]) -> Vec<Operator<'static>> {
        use Operator as O;
        let left = self.local(ValType::V128);
        let right = self.another_local(ValType::V128);
        let mut out = vec![
            O::LocalSet { local_index: right },
            O::LocalSet { local_index: left },
            // Every byte of it is replaced.
            O::LocalGet { local_index: left },
        ];
        for (at, lane) in (0..).zip(lanes) {
            let local_index = if lane < 16 { left } else { right };
            out.extend([
                O::LocalGet { local_index },
                O::I8x16ExtractLaneU { lane: lane % 16 },
                O::I8x16ReplaceLane { lane: at },
            ]);
        }
        out
    }

    /// Byte by byte: the half of the vector that has it, shifted, or 0.
    fn swizzle(&mut self) -> Vec<Operator<'static>> {
        use Operator as O;
        let bytes = self.local(ValType::V128);
        let places = self.another_local(ValType::V128);
        let place = self.local(ValType::I32);
        let get = |local_index| O::LocalGet { local_index };
        let mut out = vec![
            O::LocalSet {
                local_index: places,
            },
            O::LocalSet { local_index: bytes },
            // Every byte of it is replaced.
            get(bytes),
        ];
        for lane in 0..16 {
            out.extend([
                get(places),
                O::I8x16ExtractLaneU { lane },
                O::LocalSet { local_index: place },
                // The half.
                get(bytes),
                O::I64x2ExtractLane { lane: 1 },
                get(bytes),
                O::I64x2ExtractLane { lane: 0 },
                get(place),
                O::I32Const { value: 8 },
                O::I32And,
                O::Select,
                // The byte, in the lowest bits: the shift's count is taken modulo 64.
                get(place),
                O::I32Const { value: 3 },
                O::I32Shl,
                O::I64ExtendI32U,
                O::I64ShrU,
                O::I32WrapI64,
                // Places from 16 on have 0.
                O::I32Const { value: 0 },
                get(place),
                O::I32Const { value: 16 },
                O::I32LtU,
                O::Select,
                O::I8x16ReplaceLane { lane },
            ]);
        }
        out
    }
}
