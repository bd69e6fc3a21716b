//! Arguments of invocations, and the results that assertions expect.
//!
//! A guest stores each result as raw bytes, so that the comparison covers every bit, such as NaN payloads and signs
//! of zeros.

use wasm_encoder::{HeapType, Ieee32, Ieee64, InstructionSink};
use wast::core::{NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wast::token::{F32, F64};
use wast::{WastArg, WastRet};

/// Number of bytes that a guest stores for a result of any type.
pub(crate) const SIZE: usize = 16;

/// Reason for skipping a directive: only a host can create such a value, and the product's hosts do not.
pub(crate) const HOST_REFERENCE: &str = "needs a reference that only a host can make";

/// An argument of an invocation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Argument {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128([u8; 16]),
    /// The null reference of the parameter's type.
    Null,
}

impl Argument {
    /// # Errors
    ///
    /// Why no guest can have such an argument.
    pub(crate) fn new(argument: &WastArg<'_>) -> Result<Self, &'static str> {
        let WastArg::Core(argument) = argument else {
            return Err("is a value of the component model");
        };
        Ok(match argument {
            WastArgCore::I32(value) => Self::I32(*value),
            WastArgCore::I64(value) => Self::I64(*value),
            WastArgCore::F32(value) => Self::F32(value.bits),
            WastArgCore::F64(value) => Self::F64(value.bits),
            WastArgCore::V128(value) => Self::V128(value.to_le_bytes()),
            WastArgCore::RefNull(_) => Self::Null,
            WastArgCore::RefExtern(_) | WastArgCore::RefHost(_) => return Err(HOST_REFERENCE),
        })
    }

    /// Pushes the argument. `heap` is the type that a reference parameter refers to.
    pub(crate) fn push(&self, heap: Option<HeapType>, code: &mut InstructionSink<'_>) {
        match *self {
            Self::I32(value) => code.i32_const(value),
            Self::I64(value) => code.i64_const(value),
            Self::F32(bits) => code.f32_const(Ieee32::new(bits)),
            Self::F64(bits) => code.f64_const(Ieee64::new(bits)),
            Self::V128(bytes) => code.v128_const(i128::from_le_bytes(bytes)),
            Self::Null => code.ref_null(heap.unwrap_or(HeapType::FUNC)),
        };
    }
}

/// A pattern for a float's bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Float<T> {
    Canonical,
    Arithmetic,
    Bits(T),
}

impl Float<u32> {
    fn new(pattern: &NanPattern<F32>) -> Self {
        match pattern {
            NanPattern::CanonicalNan => Self::Canonical,
            NanPattern::ArithmeticNan => Self::Arithmetic,
            NanPattern::Value(value) => Self::Bits(value.bits),
        }
    }

    fn matches(self, bits: u32) -> bool {
        const QUIET_NAN: u32 = 0x7fc0_0000;
        match self {
            Self::Canonical => bits & 0x7fff_ffff == QUIET_NAN,
            Self::Arithmetic => bits & QUIET_NAN == QUIET_NAN,
            Self::Bits(expected) => bits == expected,
        }
    }
}

impl Float<u64> {
    fn new(pattern: &NanPattern<F64>) -> Self {
        match pattern {
            NanPattern::CanonicalNan => Self::Canonical,
            NanPattern::ArithmeticNan => Self::Arithmetic,
            NanPattern::Value(value) => Self::Bits(value.bits),
        }
    }

    fn matches(self, bits: u64) -> bool {
        const QUIET_NAN: u64 = 0x7ff8_0000_0000_0000;
        match self {
            Self::Canonical => bits & 0x7fff_ffff_ffff_ffff == QUIET_NAN,
            Self::Arithmetic => bits & QUIET_NAN == QUIET_NAN,
            Self::Bits(expected) => bits == expected,
        }
    }
}

/// The expected value of one result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expected {
    I32(i32),
    I64(i64),
    F32(Float<u32>),
    F64(Float<u64>),
    /// Integer lanes of any shape.
    V128([u8; 16]),
    F32x4([Float<u32>; 4]),
    F64x2([Float<u64>; 2]),
    Null,
    /// Any non-null reference.
    Reference,
    Either(Vec<Self>),
}

impl Expected {
    /// # Errors
    ///
    /// Why no guest can report such a result.
    pub(crate) fn new(result: &WastRet<'_>) -> Result<Self, &'static str> {
        match result {
            WastRet::Core(result) => Self::of_core(result),
            _ => Err("is a value of the component model"),
        }
    }

    fn of_core(result: &WastRetCore<'_>) -> Result<Self, &'static str> {
        Ok(match result {
            WastRetCore::I32(value) => Self::I32(*value),
            WastRetCore::I64(value) => Self::I64(*value),
            WastRetCore::F32(pattern) => Self::F32(Float::<u32>::new(pattern)),
            WastRetCore::F64(pattern) => Self::F64(Float::<u64>::new(pattern)),
            WastRetCore::V128(pattern) => Self::of_lanes(pattern),
            WastRetCore::RefNull(_) => Self::Null,
            WastRetCore::RefExtern(Some(_)) | WastRetCore::RefHost(_) => {
                return Err(HOST_REFERENCE);
            }
            // The function's type determines the kind of reference, except with the garbage collection proposal.
            WastRetCore::RefExtern(None)
            | WastRetCore::RefFunc(_)
            | WastRetCore::RefAny
            | WastRetCore::RefEq
            | WastRetCore::RefArray
            | WastRetCore::RefStruct
            | WastRetCore::RefI31
            | WastRetCore::RefI31Shared => Self::Reference,
            WastRetCore::Either(results) => {
                let results = results.iter().map(Self::of_core);
                Self::Either(results.collect::<Result<_, _>>()?)
            }
        })
    }

    fn of_lanes(pattern: &V128Pattern) -> Self {
        fn bytes<const N: usize>(lanes: impl IntoIterator<Item = [u8; N]>) -> [u8; 16] {
            let bytes: Vec<u8> = lanes.into_iter().flatten().collect();
            bytes.try_into().expect("lanes fill a vector")
        }
        match pattern {
            V128Pattern::I8x16(lanes) => Self::V128(bytes(lanes.map(i8::to_le_bytes))),
            V128Pattern::I16x8(lanes) => Self::V128(bytes(lanes.map(i16::to_le_bytes))),
            V128Pattern::I32x4(lanes) => Self::V128(bytes(lanes.map(i32::to_le_bytes))),
            V128Pattern::I64x2(lanes) => Self::V128(bytes(lanes.map(i64::to_le_bytes))),
            V128Pattern::F32x4(lanes) => Self::F32x4(lanes.each_ref().map(Float::<u32>::new)),
            V128Pattern::F64x2(lanes) => Self::F64x2(lanes.each_ref().map(Float::<u64>::new)),
        }
    }

    /// Whether a stored result matches.
    pub(crate) fn matches(&self, stored: &[u8; SIZE]) -> bool {
        let word = |lane: usize| u32::from_le_bytes(stored[lane * 4..][..4].try_into().expect("4"));
        let long = |lane: usize| u64::from_le_bytes(stored[lane * 8..][..8].try_into().expect("8"));
        match self {
            Self::I32(expected) => word(0) == *expected as u32,
            Self::I64(expected) => long(0) == *expected as u64,
            Self::F32(expected) => expected.matches(word(0)),
            Self::F64(expected) => expected.matches(long(0)),
            Self::V128(expected) => stored == expected,
            Self::F32x4(lanes) => (0..).zip(lanes).all(|(lane, one)| one.matches(word(lane))),
            Self::F64x2(lanes) => (0..).zip(lanes).all(|(lane, one)| one.matches(long(lane))),
            // A guest stores whether the reference is null.
            Self::Null => word(0) == 1,
            Self::Reference => word(0) == 0,
            Self::Either(several) => several.iter().any(|one| one.matches(stored)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(bytes: &[u8]) -> [u8; SIZE] {
        let mut stored = [0; SIZE];
        stored[..bytes.len()].copy_from_slice(bytes);
        stored
    }

    #[test]
    fn kinds_of_nan_are_distinguished() {
        let f32 =
            |expected, bits: u32| Expected::F32(expected).matches(&stored(&bits.to_le_bytes()));
        for (bits, canonical, arithmetic) in [
            (0x7fc0_0000, true, true),
            (0xffc0_0000, true, true),
            (0x7fc0_0001, false, true),
            // Signaling NaN.
            (0x7fa0_0000, false, false),
            // Infinity.
            (0x7f80_0000, false, false),
            (0, false, false),
        ] {
            assert_eq!(f32(Float::Canonical, bits), canonical, "{bits:#x}");
            assert_eq!(f32(Float::Arithmetic, bits), arithmetic, "{bits:#x}");
        }
        let f64 =
            |expected, bits: u64| Expected::F64(expected).matches(&stored(&bits.to_le_bytes()));
        for (bits, canonical, arithmetic) in [
            (0x7ff8_0000_0000_0000, true, true),
            (0xfff8_0000_0000_0000, true, true),
            (0x7ff8_0000_0000_0001, false, true),
            (0x7ff4_0000_0000_0000, false, false),
            (0x7ff0_0000_0000_0000, false, false),
        ] {
            assert_eq!(f64(Float::Canonical, bits), canonical, "{bits:#x}");
            assert_eq!(f64(Float::Arithmetic, bits), arithmetic, "{bits:#x}");
        }
        assert!(f32(Float::Bits(0x7fa0_0001), 0x7fa0_0001));
        assert!(!f32(Float::Bits(0x7fa0_0001), 0x7fe0_0001));
        assert!(!f32(Float::Bits(0x8000_0000), 0), "zeros have signs");
    }

    #[test]
    fn every_lane_is_compared() {
        let vector: [u8; 16] = std::array::from_fn(|at| at as u8);
        for at in 0..16 {
            let mut other = vector;
            other[at] ^= 0x80;
            assert!(Expected::V128(vector).matches(&vector));
            assert!(!Expected::V128(vector).matches(&other), "byte {at}");
        }
        let one = Float::Bits(1.0_f32.to_bits());
        let lanes = |lanes: [u32; 4]| stored(&lanes.map(u32::to_le_bytes).concat());
        let floats = Expected::F32x4([one, Float::Canonical, one, Float::Arithmetic]);
        let [unit, nan] = [1.0_f32.to_bits(), 0x7fc0_0000];
        assert!(floats.matches(&lanes([unit, nan, unit, nan | 1])));
        assert!(!floats.matches(&lanes([unit, nan | 1, unit, nan])));
        assert!(!floats.matches(&lanes([unit, nan, unit, unit])));
        assert!(!floats.matches(&lanes([0, nan, unit, nan])));
        let doubles = Expected::F64x2([Float::Canonical, Float::Bits(7)]);
        let lanes = |lanes: [u64; 2]| stored(&lanes.map(u64::to_le_bytes).concat());
        assert!(doubles.matches(&lanes([0x7ff8 << 48, 7])));
        assert!(!doubles.matches(&lanes([0x7ff8 << 48, 8])));
        assert!(!doubles.matches(&lanes([7, 7])));
    }

    #[test]
    fn any_of_several_expected_values_matches() {
        let either = Expected::Either(vec![Expected::I32(1), Expected::I32(3)]);
        for (value, expected) in [(1_i32, true), (2, false), (3, true)] {
            assert_eq!(either.matches(&stored(&value.to_le_bytes())), expected);
        }
        assert!(Expected::Null.matches(&stored(&[1])));
        assert!(!Expected::Null.matches(&stored(&[0])));
        assert!(Expected::Reference.matches(&stored(&[0])));
        assert!(!Expected::Reference.matches(&stored(&[1])));
        assert!(!Expected::I64(1).matches(&stored(&[1, 0, 0, 0, 0, 0, 0, 1])));
    }
}
