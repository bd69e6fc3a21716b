//! Numbers that are difficult for code generators.

use anyhow::{Result, bail};
use wasm_encoder::Instruction;
use wasmparser::ValType;

use crate::random::Random;

/// 32-bit integers: near zero, the limits, powers of two, shift widths, and patterns.
pub(crate) const I32: [u32; 30] = [
    0,
    1,
    2,
    3,
    5,
    7,
    8,
    10,
    15,
    16,
    31,
    32,
    33,
    63,
    64,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x0001_0000,
    0x5555_5555,
    0x1234_5678,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xffff_ff80,
    0xffff_fffe,
    0xffff_ffff,
];

/// The same for 64 bits.
pub(crate) const I64: [u64; 28] = [
    0,
    1,
    2,
    3,
    7,
    10,
    31,
    32,
    63,
    64,
    65,
    0xff,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x5555_5555_5555_5555,
    0x1234_5678_9abc_def0,
    0xffff_ffff_0000_0000,
    0xffff_ffff_7fff_ffff,
    0xffff_ffff_8000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x8000_0000_0000_0001,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// Magnitudes of 32-bit floats, each used with both signs: zeros, subnormals, the limits, halves, neighbors of the
/// limits of integers, infinity, and NaNs (canonical, quiet with a payload, and signaling).
const F32: [u32; 28] = [
    0x0000_0000, // 0
    0x0000_0001, // least subnormal
    0x007f_ffff, // greatest subnormal
    0x0080_0000, // least normal
    0x3eff_ffff, // below 0.5
    0x3f00_0000, // 0.5
    0x3f7f_ffff, // below 1
    0x3f80_0000, // 1
    0x3f80_0001, // above 1
    0x3fc0_0000, // 1.5
    0x4020_0000, // 2.5
    0x4049_0fdb, // pi
    0x4aff_ffff, // 2^23 - 0.5
    0x4b00_0001, // 2^23 + 1
    0x4eff_ffff, // below 2^31
    0x4f00_0000, // 2^31
    0x4f00_0001, // above 2^31
    0x4f7f_ffff, // below 2^32
    0x4f80_0000, // 2^32
    0x5eff_ffff, // below 2^63
    0x5f00_0000, // 2^63
    0x5f7f_ffff, // below 2^64
    0x5f80_0000, // 2^64
    0x7f7f_ffff, // greatest
    0x7f80_0000, // infinity
    0x7fc0_0000, // canonical NaN
    0x7fc1_2345, // quiet NaN with a payload
    0x7f80_0001, // signaling NaN
];

/// The same for 64-bit floats, and values that round to the limits of 32-bit floats.
const F64: [u64; 34] = [
    0x0000_0000_0000_0000, // 0
    0x0000_0000_0000_0001, // least subnormal
    0x000f_ffff_ffff_ffff, // greatest subnormal
    0x0010_0000_0000_0000, // least normal
    0x3690_0000_0000_0000, // half of the least subnormal of 32 bits
    0x36a0_0000_0000_0000, // the least subnormal of 32 bits
    0x380f_ffff_e000_0000, // rounds to the least normal of 32 bits
    0x3fdf_ffff_ffff_ffff, // below 0.5
    0x3fe0_0000_0000_0000, // 0.5
    0x3fef_ffff_ffff_ffff, // below 1
    0x3ff0_0000_0000_0000, // 1
    0x3ff0_0000_0000_0001, // above 1
    0x3ff8_0000_0000_0000, // 1.5
    0x4004_0000_0000_0000, // 2.5
    0x4009_21fb_5444_2d18, // pi
    0x41df_ffff_ffc0_0000, // 2^31 - 1
    0x41df_ffff_ffe0_0000, // 2^31 - 0.5
    0x41e0_0000_0000_0000, // 2^31
    0x41e0_0000_0020_0000, // 2^31 + 1
    0x41ef_ffff_ffe0_0000, // 2^32 - 1
    0x41ef_ffff_fff0_0000, // 2^32 - 0.5
    0x41f0_0000_0000_0000, // 2^32
    0x432f_ffff_ffff_ffff, // 2^52 - 0.5
    0x4330_0000_0000_0001, // 2^52 + 1
    0x43df_ffff_ffff_ffff, // below 2^63
    0x43e0_0000_0000_0000, // 2^63
    0x43ef_ffff_ffff_ffff, // below 2^64
    0x43f0_0000_0000_0000, // 2^64
    0x47ef_ffff_f000_0000, // rounds to infinity of 32 bits
    0x7fef_ffff_ffff_ffff, // greatest
    0x7ff0_0000_0000_0000, // infinity
    0x7ff8_0000_0000_0000, // canonical NaN
    0x7ff8_1234_5678_9abc, // quiet NaN with a payload
    0x7ff0_0000_0000_0001, // signaling NaN
];

/// All 32-bit floats of interest, as bits.
pub(crate) fn f32s() -> Vec<u32> {
    F32.iter()
        .flat_map(|bits| [*bits, bits | 1 << 31])
        .collect()
}

/// All 64-bit floats of interest, as bits.
pub(crate) fn f64s() -> Vec<u64> {
    F64.iter()
        .flat_map(|bits| [*bits, bits | 1 << 63])
        .collect()
}

/// An instruction that pushes a random argument: one of the numbers above, or any value.
///
/// # Errors
///
/// The type does not exist in modules without garbage collection.
pub(crate) fn argument(ty: ValType, random: &mut Random) -> Result<Instruction<'static>> {
    use wasm_encoder::Instruction as I;
    let any = random.chance(1, 3);
    Ok(match ty {
        ValType::I32 if any => I::I32Const(random.next() as i32),
        ValType::I32 => I::I32Const(*random.pick(&I32) as i32),
        ValType::I64 if any => I::I64Const(random.next() as i64),
        ValType::I64 => I::I64Const(*random.pick(&I64) as i64),
        ValType::F32 if any => I::F32Const((random.next() as i32 as f32 / 4096.0).into()),
        ValType::F32 => I::F32Const(wasm_encoder::Ieee32::new(*random.pick(&f32s()))),
        ValType::F64 if any => I::F64Const((random.next() as i64 as f64 / 4096.0).into()),
        ValType::F64 => I::F64Const(wasm_encoder::Ieee64::new(*random.pick(&f64s()))),
        ValType::V128 => {
            I::V128Const((u128::from(random.next()) << 64 | u128::from(random.next())) as i128)
        }
        ValType::Ref(ty) if ty.is_nullable() => {
            I::RefNull(wasm_encoder::reencode::Reencode::heap_type(
                &mut wasm_encoder::reencode::RoundtripReencoder,
                ty.heap_type(),
            )?)
        }
        ValType::Ref(_) => bail!("a function has a parameter of type {ty}"),
    })
}
