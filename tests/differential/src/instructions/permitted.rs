//! The results that the specification permits besides the oracle's: NaNs of a class, and the choices of relaxed
//! instructions.

use wasmparser::ValType;

use super::operands::Shape;
use super::operators::Case;

/// Whether a result may be `found` where the oracle returns `expected`.
pub(crate) fn is_permitted(
    case: &Case,
    operands: &[u128],
    ty: ValType,
    expected: u128,
    found: u128,
) -> bool {
    // Only the type's bytes of a slot are written.
    let bits = match ty {
        ValType::I32 | ValType::F32 => 32,
        ValType::I64 | ValType::F64 => 64,
        _ => 128,
    };
    let written = u128::MAX >> (128 - bits);
    let (expected, found) = (expected & written, found & written);
    if expected == found {
        return true;
    }
    let lanes = match ty {
        ValType::F32 => Lanes { bits: 32, count: 1 },
        ValType::F64 => Lanes { bits: 64, count: 1 },
        ValType::V128 => match Shape::named(case.name).first() {
            Some(shape) => Lanes {
                bits: shape.bits(),
                count: 128 / shape.bits(),
            },
            None => return false,
        },
        _ => return false,
    };
    (0..lanes.count).all(|index| {
        let (expected, found) = (lanes.lane(expected, index), lanes.lane(found, index));
        expected == found
            || makes_nans(case)
                && is_nan_of_class(case, operands, index, expected, found, lanes.bits)
            || is_relaxed_choice(case, operands, lanes, index, found)
    })
}

/// The lanes of a vector. A scalar is one lane.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    bits: u32,
    count: u32,
}

impl Lanes {
    fn lane(self, value: u128, index: u32) -> u128 {
        value >> (index * self.bits) & (u128::MAX >> (128 - self.bits))
    }
}

/// Whether the bits of a NaN result are nondeterministic. Instructions that copy bits (absolute value, negation,
/// sign, pseudo-minimum, moves between lanes, memory and types) are deterministic.
fn makes_nans(case: &Case) -> bool {
    let float = ["F32", "F64"].iter().any(|ty| case.name.starts_with(ty));
    let arithmetic = [
        "Add", "Sub", "Mul", "Div", "Sqrt", "Min", "Max", "Ceil", "Floor", "Trunc", "Nearest",
        "Demote", "Promote", "Madd", "Nmadd",
    ];
    let copies = ["PMin", "PMax"];
    float
        && arithmetic.iter().any(|word| case.name.contains(word))
        && !copies.iter().any(|word| case.name.contains(word))
}

/// Sign, exponent and fraction of NaNs.
#[derive(Debug, Clone, Copy)]
struct Float {
    bits: u32,
    fraction: u32,
}

impl Float {
    fn of(bits: u32) -> Self {
        Self {
            bits,
            fraction: if bits == 32 { 23 } else { 52 },
        }
    }

    fn is_nan(self, value: u128) -> bool {
        let magnitude = value & !(1 << (self.bits - 1));
        let infinity = ((1 << (self.bits - 1 - self.fraction)) - 1) << self.fraction;
        magnitude > infinity
    }

    /// A NaN with only the most significant bit of its fraction set.
    fn is_canonical(self, value: u128) -> bool {
        self.is_nan(value) && value & ((1 << self.fraction) - 1) == 1 << (self.fraction - 1)
    }

    /// A NaN with at least that bit set: a quiet NaN.
    fn is_arithmetic(self, value: u128) -> bool {
        self.is_nan(value) && value >> (self.fraction - 1) & 1 == 1
    }
}

/// Whether `found` is a NaN that the specification permits for a NaN result: canonical if all NaN operands are
/// canonical, and otherwise arithmetic.
fn is_nan_of_class(
    case: &Case,
    operands: &[u128],
    index: u32,
    expected: u128,
    found: u128,
    bits: u32,
) -> bool {
    let float = Float::of(bits);
    if !float.is_nan(expected) || !float.is_arithmetic(found) {
        return false;
    }
    // Conversions between formats have operands with another shape.
    let from = match Shape::named(case.name).get(1) {
        Some(shape) => shape.bits(),
        None if case.name == "F32DemoteF64" => 64,
        None if case.name == "F64PromoteF32" => 32,
        None => bits,
    };
    let operand_float = Float::of(from);
    let operand_lanes = Lanes {
        bits: from,
        count: 128 / from,
    };
    let nans: Vec<_> = operands
        .iter()
        .map(|operand| operand_lanes.lane(*operand, index))
        .filter(|lane| operand_float.is_nan(*lane))
        .collect();
    float.is_canonical(found) || nans.iter().any(|nan| !operand_float.is_canonical(*nan))
}

/// Whether a lane is one of the results that relaxed SIMD leaves to the engine.
fn is_relaxed_choice(
    case: &Case,
    operands: &[u128],
    lanes: Lanes,
    index: u32,
    found: u128,
) -> bool {
    let lane = |operand: usize| lanes.lane(operands[operand], index);
    let Some((_, relaxed)) = case.name.split_once("Relaxed") else {
        return false;
    };
    match relaxed {
        "Swizzle" => {
            let select = lane(1) as u32;
            (16..128).contains(&select)
                && (found == 0 || found == lanes.lane(operands[0], select % 16))
        }
        "Laneselect" => {
            let (a, b, mask) = (lane(0), lane(1), lane(2));
            let top = mask >> (lanes.bits - 1) & 1 == 1;
            let by_bits = a & mask | b & !mask & (u128::MAX >> (128 - lanes.bits));
            // x86 has no blend of 16-bit lanes, so the specification permits a blend of bytes, but only for this
            // size.
            let by_bytes = (0..lanes.bits / 8).fold(0, |value, byte| {
                let from = if mask >> (byte * 8 + 7) & 1 == 1 {
                    a
                } else {
                    b
                };
                value | from & 0xff << (byte * 8)
            });
            found == by_bits
                || found == (if top { a } else { b })
                || lanes.bits == 16 && found == by_bytes
        }
        "Madd" => is_fused_or_not(lane(0), lane(1), lane(2), found, lanes.bits, false),
        "Nmadd" => is_fused_or_not(lane(0), lane(1), lane(2), found, lanes.bits, true),
        "Min" | "Max" => is_either(lane(0), lane(1), found, lanes.bits),
        "TruncF32x4S" | "TruncF32x4U" => {
            truncated(f64::from(f32::from_bits(lane(0) as u32)), relaxed, found)
        }
        "TruncF64x2SZero" | "TruncF64x2UZero" => {
            index < 2
                && truncated(
                    f64::from_bits(Lanes { bits: 64, count: 2 }.lane(operands[0], index) as u64),
                    relaxed,
                    found,
                )
        }
        "Q15mulrS" => {
            lane(0) == 0x8000 && lane(1) == 0x8000 && (found == 0x8000 || found == 0x7fff)
        }
        "DotI8x16I7x16S" => dots(operands, index).any(|dot| dot as u16 == found as u16),
        "DotI8x16I7x16AddS" => {
            let sum = |(low, high): (i16, i16)| {
                i32::from(low)
                    .wrapping_add(i32::from(high))
                    .wrapping_add(lane(2) as i32)
            };
            let pairs = dots(operands, index * 2).zip(dots(operands, index * 2 + 1));
            pairs.map(sum).any(|value| value as u32 == found as u32)
        }
        _ => false,
    }
}

/// `a * b + c`, rounded once or twice.
fn is_fused_or_not(a: u128, b: u128, c: u128, found: u128, bits: u32, negated: bool) -> bool {
    let float = Float::of(bits);
    let results = if bits == 32 {
        let [a, b, c] = [a, b, c].map(|bits| f32::from_bits(bits as u32));
        let a = if negated { -a } else { a };
        [a.mul_add(b, c), a * b + c].map(|value| u128::from(value.to_bits()))
    } else {
        let [a, b, c] = [a, b, c].map(|bits| f64::from_bits(bits as u64));
        let a = if negated { -a } else { a };
        [a.mul_add(b, c), a * b + c].map(|value| u128::from(value.to_bits()))
    };
    // The result can be a number if rounded once, and a NaN if rounded twice.
    results
        .iter()
        .any(|result| *result == found || float.is_nan(*result) && float.is_arithmetic(found))
}

/// For a NaN, or for zeros with both signs, minimum and maximum may return either operand.
fn is_either(a: u128, b: u128, found: u128, bits: u32) -> bool {
    let float = Float::of(bits);
    let magnitude = |value: u128| value & !(1 << (bits - 1));
    let open = float.is_nan(a) || float.is_nan(b) || magnitude(a) == 0 && magnitude(b) == 0;
    // For a NaN and a number, the result is a NaN or the number.
    open && (found == a || found == b)
}

/// A value out of range may give the saturated value, or the single value that x86 uses.
fn truncated(value: f64, relaxed: &str, found: u128) -> bool {
    let found = found as u32;
    if relaxed.contains('U') {
        let outside = value.is_nan() || value <= -1.0 || value >= 4_294_967_296.0;
        outside && (found == u32::MAX || found == value as u32)
    } else {
        let outside = value.is_nan() || value <= -2_147_483_649.0 || value >= 2_147_483_648.0;
        outside && (found == 0x8000_0000 || found == value as i32 as u32)
    }
}

/// The sum of the products of two pairs: the second operand's bytes signed or unsigned, and the sum wrapped or
/// saturated. The choices have the same order for every index.
fn dots(operands: &[u128], index: u32) -> impl Iterator<Item = i16> {
    let byte = |operand: u128, at: u32| (operand >> (at * 8)) as u8;
    let (a, b) = (operands[0], operands[1]);
    [false, true].into_iter().flat_map(move |unsigned| {
        let product = |at: u32| {
            let right = if unsigned {
                i32::from(byte(b, at))
            } else {
                i32::from(byte(b, at) as i8)
            };
            i32::from(byte(a, at) as i8) * right
        };
        let sum = product(index * 2) + product(index * 2 + 1);
        let saturated = sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX));
        [sum as i16, saturated as i16]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instructions::operators::cases;

    fn permitted(name: &str, operands: &[u128], expected: u128, found: u128) -> bool {
        let cases = cases().expect("no instruction is forgotten");
        let case = cases
            .iter()
            .find(|case| case.name == name)
            .expect("there is such a case");
        is_permitted(case, operands, case.results[0], expected, found)
    }

    #[test]
    fn nans_are_compared_by_class_and_numbers_by_bits() {
        let (canonical, negative, payload, signaling) =
            (0x7fc0_0000, 0xffc0_0000, 0x7fc1_2345, 0x7f80_0001);
        assert!(permitted(
            "F32Add",
            &[0x7f80_0000, 0xff80_0000],
            canonical,
            negative
        ));
        assert!(
            !permitted("F32Add", &[0x7f80_0000, 0xff80_0000], canonical, payload),
            "no operand has a payload"
        );
        assert!(permitted("F32Add", &[payload, 0], payload, canonical));
        assert!(
            !permitted("F32Nearest", &[signaling], 0x7fc0_0001, signaling),
            "it must be quiet"
        );
        assert!(
            !permitted("F32Neg", &[canonical], negative, canonical),
            "negation is of bits"
        );
        assert!(
            !permitted("F32Add", &[0, 0x8000_0000], 0, 0x8000_0000),
            "zeros have signs"
        );
        assert!(!permitted(
            "I32ReinterpretF32",
            &[payload],
            payload,
            canonical
        ));
        assert!(permitted(
            "F64PromoteF32",
            &[0x7f80_0001],
            0x7ff8_0000_2000_0000,
            0x7ff8_0000_0000_0000
        ));
    }

    #[test]
    fn relaxed_instructions_have_the_choices_of_the_specification() {
        let a =
            u128::from_str_radix("100f0e0d0c0b0a090807060504030201", 16).expect("it is a number");
        assert!(permitted(
            "I8x16RelaxedSwizzle",
            &[a, 0x10],
            0x0101_0101_0101_0101_0101_0101_0101_0100,
            0x0101_0101_0101_0101_0101_0101_0101_0101
        ));
        assert!(
            !permitted("I8x16RelaxedSwizzle", &[a, 0x80], 0, 1),
            "the top bit means zero"
        );
        // In the mask of a lane, the top bit is clear and that of a byte is set.
        let select = [0x1111_1111, 0x2222_2222, 0x0080_0000];
        assert!(
            !permitted("I32x4RelaxedLaneselect", &select, 0x2222_2222, 0x2211_2222),
            "no choice by bytes"
        );
        assert!(permitted(
            "I16x8RelaxedLaneselect",
            &[0x1111, 0x2222, 0x0080],
            0x2222,
            0x2211
        ));
        let big = u128::from(f32::MAX.to_bits());
        let minus = u128::from(f32::NEG_INFINITY.to_bits());
        assert!(
            permitted("F32x4RelaxedMadd", &[big, big, minus], minus, 0x7fc0_0000),
            "twice rounded it is infinity - infinity"
        );
        assert!(permitted(
            "I16x8RelaxedQ15mulrS",
            &[0x8000, 0x8000],
            0x7fff,
            0x8000
        ));
        assert!(!permitted(
            "I16x8RelaxedQ15mulrS",
            &[0x8000, 0x7fff],
            0x8001,
            0x8000
        ));
    }
}
