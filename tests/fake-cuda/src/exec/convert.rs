//! `cvt`: from one type to another.

use super::alu::{f32_of, signed};
use crate::ptx::{Rounding, Type};

/// How to convert.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Rounds to an integer.
    pub(super) rounding: Option<Rounding>,
    pub(super) saturate: bool,
    pub(super) flush: bool,
}

pub(super) fn convert(result: Type, kind: Type, manner: Manner, bits: u64) -> u64 {
    match (kind.is_float(), result.is_float()) {
        (true, true) => between_floats(result, kind, manner, bits),
        (true, false) => to_integer(result, float(kind, manner, bits), manner.rounding),
        (false, true) => from_integer(result, kind, bits),
        (false, false) => between_integers(result, kind, manner.saturate, bits),
    }
}

fn float(kind: Type, manner: Manner, bits: u64) -> f64 {
    if kind.bits == 64 {
        return f64::from_bits(bits);
    }
    let value = f32_of(bits);
    let flushed = manner.flush && value.is_subnormal();
    f64::from(if flushed {
        0.0f32.copysign(value)
    } else {
        value
    })
}

fn whole(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

fn between_floats(result: Type, kind: Type, manner: Manner, bits: u64) -> u64 {
    let mut value = float(kind, manner, bits);
    if let Some(rounding) = manner.rounding {
        value = whole(value, rounding);
    }
    if manner.saturate {
        value = if value.is_nan() {
            0.0
        } else {
            value.clamp(0.0, 1.0)
        };
    }
    if result.bits == 32 {
        let value = value as f32;
        let flushed = manner.flush && value.is_subnormal();
        u64::from(
            if flushed {
                0.0f32.copysign(value)
            } else {
                value
            }
            .to_bits(),
        )
    } else {
        value.to_bits()
    }
}

/// Converts a value out of range to the nearest representable one, and NaN to 0.
fn to_integer(result: Type, value: f64, rounding: Option<Rounding>) -> u64 {
    let value = whole(value, rounding.unwrap_or(Rounding::Zero));
    if result.is_signed() {
        let limit = 1i128 << (result.bits - 1);
        (value as i128).clamp(-limit, limit - 1) as u64
    } else {
        (value as i128).clamp(0, i128::from(result.mask())) as u64
    }
}

fn from_integer(result: Type, kind: Type, bits: u64) -> u64 {
    let bits = bits & kind.mask();
    // Convert directly from the integer, so that it is rounded only once.
    match (result.bits, kind.is_signed()) {
        (32, true) => u64::from((signed(bits, kind) as f32).to_bits()),
        (32, false) => u64::from((bits as f32).to_bits()),
        (_, true) => (signed(bits, kind) as f64).to_bits(),
        (_, false) => (bits as f64).to_bits(),
    }
}

fn between_integers(result: Type, kind: Type, saturate: bool, bits: u64) -> u64 {
    let value = if kind.is_signed() {
        i128::from(signed(bits, kind))
    } else {
        i128::from(bits & kind.mask())
    };
    if !saturate {
        return value as u64;
    }
    if result.is_signed() {
        let limit = 1i128 << (result.bits - 1);
        value.clamp(-limit, limit - 1) as u64
    } else {
        value.clamp(0, i128::from(result.mask())) as u64
    }
}
