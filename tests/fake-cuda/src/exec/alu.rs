//! Arithmetic on typed bits.

use crate::ptx::{BinaryOp, BoolOp, Compare, Kind, MulPart, Type, UnaryOp};

/// A number of a signed type, from its bits.
pub(super) fn signed(bits: u64, kind: Type) -> i64 {
    let unused = 64 - kind.bits;
    ((bits << unused) as i64) >> unused
}

/// A number of an integer type, exactly.
fn wide(bits: u64, kind: Type) -> i128 {
    if kind.is_signed() {
        i128::from(signed(bits, kind))
    } else {
        i128::from(bits & kind.mask())
    }
}

pub(super) fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Treats subnormal numbers as zeros, if the instruction requires it.
fn flushed(value: f32, flush: bool) -> f32 {
    if flush && value.is_subnormal() {
        0.0f32.copysign(value)
    } else {
        value
    }
}

/// Applies a function to floats of either size.
fn floats<const N: usize>(
    kind: Type,
    flush: bool,
    operands: [u64; N],
    single: impl FnOnce([f32; N]) -> f32,
    double: impl FnOnce([f64; N]) -> f64,
) -> u64 {
    if kind.bits == 32 {
        let operands = operands.map(|bits| flushed(f32_of(bits), flush));
        u64::from(flushed(single(operands), flush).to_bits())
    } else {
        double(operands.map(f64::from_bits)).to_bits()
    }
}

/// Clamps to 0 to 1; NaN becomes 0.
fn unit(kind: Type, bits: u64, saturate: bool) -> u64 {
    if !saturate {
        return bits;
    }
    let limit = |value: f64| {
        if value.is_nan() {
            0.0
        } else {
            value.clamp(0.0, 1.0)
        }
    };
    if kind.bits == 32 {
        u64::from((limit(f64::from(f32_of(bits))) as f32).to_bits())
    } else {
        limit(f64::from_bits(bits)).to_bits()
    }
}

pub(super) fn binary(
    op: BinaryOp,
    kind: Type,
    (flush, saturate): (bool, bool),
    a: u64,
    b: u64,
) -> u64 {
    if kind.is_float() {
        let bits = match op {
            BinaryOp::Add => floats(kind, flush, [a, b], |[a, b]| a + b, |[a, b]| a + b),
            BinaryOp::Sub => floats(kind, flush, [a, b], |[a, b]| a - b, |[a, b]| a - b),
            BinaryOp::Div => floats(kind, flush, [a, b], |[a, b]| a / b, |[a, b]| a / b),
            BinaryOp::Min => floats(kind, flush, [a, b], |[a, b]| a.min(b), |[a, b]| a.min(b)),
            BinaryOp::Max => floats(kind, flush, [a, b], |[a, b]| a.max(b), |[a, b]| a.max(b)),
            // The second operand with the sign of the first.
            BinaryOp::CopySign => floats(
                kind,
                flush,
                [a, b],
                |[a, b]| b.copysign(a),
                |[a, b]| b.copysign(a),
            ),
            BinaryOp::Rem
            | BinaryOp::And
            | BinaryOp::Or
            | BinaryOp::Xor
            | BinaryOp::Shl
            | BinaryOp::Shr => 0,
        };
        return unit(kind, bits, saturate);
    }
    let (x, y) = (wide(a, kind), wide(b, kind));
    let bits = kind.bits;
    match op {
        BinaryOp::Add | BinaryOp::Sub => {
            let exact = if op == BinaryOp::Add { x + y } else { x - y };
            if saturate && kind.is_signed() {
                let limit = 1i128 << (bits - 1);
                exact.clamp(-limit, limit - 1) as u64
            } else {
                exact as u64
            }
        }
        // On a device, a division by zero gives all ones, and its remainder is the dividend.
        BinaryOp::Div => x
            .checked_div(y)
            .map_or(u64::MAX, |quotient| quotient as u64),
        BinaryOp::Rem => x.checked_rem(y).map_or(a, |rest| rest as u64),
        BinaryOp::Min => x.min(y) as u64,
        BinaryOp::Max => x.max(y) as u64,
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        // A shift by at least the width gives zero.
        BinaryOp::Shl => a.checked_shl((b & 0xffff_ffff) as u32).unwrap_or(0),
        BinaryOp::Shr => {
            let amount = (b & 0xffff_ffff).min(u64::from(bits)) as u32;
            if kind.is_signed() {
                (signed(a, kind) >> amount.min(63)) as u64
            } else {
                (a & kind.mask()).checked_shr(amount).unwrap_or(0)
            }
        }
        BinaryOp::CopySign => 0,
    }
}

pub(super) fn unary(op: UnaryOp, kind: Type, flush: bool, a: u64) -> u64 {
    if kind.is_float() {
        return match op {
            UnaryOp::Neg => floats(kind, flush, [a], |[a]| -a, |[a]| -a),
            UnaryOp::Abs => floats(kind, flush, [a], |[a]| a.abs(), |[a]| a.abs()),
            UnaryOp::Sqrt => floats(kind, flush, [a], |[a]| a.sqrt(), |[a]| a.sqrt()),
            UnaryOp::RSqrt => floats(kind, flush, [a], |[a]| 1.0 / a.sqrt(), |[a]| 1.0 / a.sqrt()),
            UnaryOp::Rcp => floats(kind, flush, [a], |[a]| a.recip(), |[a]| a.recip()),
            UnaryOp::Sin => floats(kind, flush, [a], |[a]| a.sin(), |[a]| a.sin()),
            UnaryOp::Cos => floats(kind, flush, [a], |[a]| a.cos(), |[a]| a.cos()),
            UnaryOp::Ex2 => floats(kind, flush, [a], |[a]| a.exp2(), |[a]| a.exp2()),
            UnaryOp::Lg2 => floats(kind, flush, [a], |[a]| a.log2(), |[a]| a.log2()),
            UnaryOp::Tanh => floats(kind, flush, [a], |[a]| a.tanh(), |[a]| a.tanh()),
            UnaryOp::Not
            | UnaryOp::CNot
            | UnaryOp::Popc
            | UnaryOp::Clz
            | UnaryOp::Brev
            | UnaryOp::BFind => 0,
        };
    }
    let value = a & kind.mask();
    match op {
        UnaryOp::Neg => value.wrapping_neg(),
        UnaryOp::Abs => signed(value, kind).unsigned_abs(),
        UnaryOp::Not => !value,
        UnaryOp::CNot => u64::from(value == 0),
        UnaryOp::Popc => u64::from(value.count_ones()),
        UnaryOp::Clz => u64::from(value.leading_zeros() + kind.bits - 64),
        UnaryOp::Brev => value.reverse_bits() >> (64 - kind.bits),
        UnaryOp::BFind => {
            // For a negative number, the highest bit that differs from the sign.
            let bits = if kind.is_signed() && signed(value, kind) < 0 {
                !value & kind.mask()
            } else {
                value
            };
            bits.checked_ilog2().map_or(u64::MAX, u64::from)
        }
        UnaryOp::Sqrt
        | UnaryOp::RSqrt
        | UnaryOp::Rcp
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Ex2
        | UnaryOp::Lg2
        | UnaryOp::Tanh => 0,
    }
}

pub(super) fn mul(part: MulPart, kind: Type, a: u64, b: u64) -> u64 {
    // This is exact even for unsigned 64-bit numbers, because the low and high halves are the bits of the product
    // modulo 2^128.
    let product = (wide(a, kind) as u128).wrapping_mul(wide(b, kind) as u128);
    match part {
        MulPart::Low | MulPart::Wide => product as u64,
        MulPart::High => (product >> kind.bits) as u64,
    }
}

pub(super) fn float_mul(kind: Type, (flush, saturate): (bool, bool), a: u64, b: u64) -> u64 {
    let bits = floats(kind, flush, [a, b], |[a, b]| a * b, |[a, b]| a * b);
    unit(kind, bits, saturate)
}

pub(super) fn fma(kind: Type, (flush, saturate): (bool, bool), operands: [u64; 3]) -> u64 {
    let bits = floats(
        kind,
        flush,
        operands,
        |[a, b, c]| a.mul_add(b, c),
        |[a, b, c]| a.mul_add(b, c),
    );
    unit(kind, bits, saturate)
}

pub(super) fn compare(compare: Compare, kind: Type, a: u64, b: u64) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match kind.kind {
        Kind::Float if kind.bits == 32 => f32_of(a).partial_cmp(&f32_of(b)),
        Kind::Float => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
        Kind::Unsigned | Kind::Signed | Kind::Bits | Kind::Predicate => {
            wide(a, kind).partial_cmp(&wide(b, kind))
        }
    };
    match compare {
        Compare::Eq => order == Some(Equal),
        Compare::Ne => matches!(order, Some(Less | Greater)),
        Compare::Lt => order == Some(Less),
        Compare::Le => matches!(order, Some(Less | Equal)),
        Compare::Gt => order == Some(Greater),
        Compare::Ge => matches!(order, Some(Greater | Equal)),
        Compare::Equ => matches!(order, None | Some(Equal)),
        Compare::Neu => order != Some(Equal),
        Compare::Ltu => matches!(order, None | Some(Less)),
        Compare::Leu => order != Some(Greater),
        Compare::Gtu => matches!(order, None | Some(Greater)),
        Compare::Geu => order != Some(Less),
        Compare::Num => order.is_some(),
        Compare::Nan => order.is_none(),
    }
}

pub(super) fn combine(op: BoolOp, a: bool, b: bool) -> bool {
    match op {
        BoolOp::And => a && b,
        BoolOp::Or => a || b,
        BoolOp::Xor => a != b,
    }
}

/// `bfe`: a bit field, sign-extended for signed types.
pub(super) fn extract(kind: Type, a: u64, position: u64, length: u64) -> u64 {
    let (position, length) = ((position & 0xff) as u32, (length & 0xff) as u32);
    if length == 0 {
        return 0;
    }
    let value = wide(a, kind);
    let shifted = value >> position.min(127);
    let bits = length.min(kind.bits);
    if kind.is_signed() {
        let unused = 128 - bits;
        ((shifted << unused) >> unused) as u64
    } else {
        (shifted as u128 & ((1u128 << bits) - 1)) as u64
    }
}

/// `bfi`: replaces a bit field of one number with the low bits of another.
pub(super) fn insert(kind: Type, a: u64, b: u64, position: u64, length: u64) -> u64 {
    let (position, length) = ((position & 0xff) as u32, (length & 0xff) as u32);
    if position >= kind.bits || length == 0 {
        return b;
    }
    let field = crate::ptx::mask(length.min(kind.bits - position)) << position;
    (b & !field) | ((a << position) & field)
}

/// `prmt`: selects bytes of two words by index; bit 3 of an index replicates the byte's sign instead.
pub(super) fn permute(a: u64, b: u64, selector: u64) -> u64 {
    let bytes = ((b & 0xffff_ffff) << 32 | (a & 0xffff_ffff)).to_le_bytes();
    let picked = [0, 4, 8, 12].map(|shift| {
        let choice = selector >> shift & 0xf;
        let byte = bytes[(choice & 7) as usize];
        match choice & 8 {
            0 => byte,
            _ => (byte as i8 >> 7) as u8,
        }
    });
    u64::from(u32::from_le_bytes(picked))
}

/// `lop3`: any function of three bits, given by its truth table.
pub(super) fn logic(a: u64, b: u64, c: u64, table: u8) -> u64 {
    let rows = (0..8).filter(|row| table >> row & 1 == 1);
    rows.fold(0, |result, row| {
        let term = |value: u64, bit: u32| if row >> bit & 1 == 1 { value } else { !value };
        result | (term(a, 2) & term(b, 1) & term(c, 0))
    })
}

/// `shf`: two words shifted as one.
pub(super) fn funnel(left: bool, wrap: bool, low: u64, high: u64, amount: u64) -> u64 {
    let amount = amount & 0xffff_ffff;
    let amount = if wrap { amount & 31 } else { amount.min(32) };
    let both = (high & 0xffff_ffff) << 32 | (low & 0xffff_ffff);
    if left {
        (both << amount) >> 32
    } else {
        both >> amount & 0xffff_ffff
    }
}
