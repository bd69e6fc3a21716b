//! Operands for a case: all combinations of edge values, or only a few where each one needs code.

use wasmparser::ValType;

use super::operators::Case;
use crate::values;

/// Operands of one evaluation, as bits.
pub(crate) type Tuple = Vec<u128>;

/// Addresses for accesses to a memory of one page, in and out of bounds.
const ADDRESSES: [u128; 22] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    24,
    32,
    0xffc0,
    0xffef,
    0xfff0,
    0xfff1,
    0xfff8,
    0xfffc,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_fff0,
    0xffff_ffff,
];

/// The size of a lane in bits, and its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
}

impl Shape {
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::I8 => 8,
            Self::I16 => 16,
            Self::I32 | Self::F32 => 32,
            Self::I64 | Self::F64 => 64,
        }
    }

    /// The shapes in an instruction's name, in order.
    pub(crate) fn named(name: &str) -> Vec<Self> {
        let shapes = [
            ("I8x16", Self::I8),
            ("I7x16", Self::I8),
            ("I16x8", Self::I16),
            ("I32x4", Self::I32),
            ("I64x2", Self::I64),
            ("F32x4", Self::F32),
            ("F64x2", Self::F64),
        ];
        let mut found: Vec<_> = shapes
            .iter()
            .filter_map(|(text, shape)| Some((name.find(text)?, *shape)))
            .collect();
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, shape)| shape).collect()
    }

    fn values(self) -> Vec<u128> {
        match self {
            Self::I8 => {
                let values = [
                    0, 1, 2, 7, 8, 15, 16, 0x55, 0x7e, 0x7f, 0x80, 0x81, 0x8f, 0xaa, 0xfe, 0xff,
                ];
                values.to_vec()
            }
            Self::I16 => {
                let values = [
                    0, 1, 2, 15, 16, 0x7f, 0x80, 0xff, 0x100, 0x5555, 0x7ffe, 0x7fff, 0x8000,
                    0x8001, 0xff7f, 0xff80, 0xff00, 0x00aa, 0xfffe, 0xffff,
                ];
                values.to_vec()
            }
            Self::I32 => values::I32.iter().map(|value| u128::from(*value)).collect(),
            Self::I64 => values::I64.iter().map(|value| u128::from(*value)).collect(),
            Self::F32 => values::f32s().into_iter().map(u128::from).collect(),
            Self::F64 => values::f64s().into_iter().map(u128::from).collect(),
        }
    }

    /// A few of the values.
    fn few(self) -> Vec<u128> {
        match self {
            Self::I8 | Self::I16 => self.values(),
            Self::I32 => [
                0,
                1,
                3,
                31,
                0x7fff,
                0xffff,
                0x7fff_ffff,
                0x8000_0000,
                0x8000_0001,
                0xff,
                0xffff_fffe,
                0xffff_ffff,
            ]
            .into(),
            Self::I64 => [
                0,
                1,
                3,
                63,
                0xffff_ffff,
                0x1_0000_0000,
                0x1234_5678_9abc_def0,
                0x7fff_ffff_ffff_ffff,
                0x8000_0000_0000_0000,
                0x8000_0000_0000_0001,
                0xffff_ffff_fffe,
                0xffff_ffff_ffff_ffff,
            ]
            .into(),
            Self::F32 => [
                0.0_f32.to_bits(),
                (-0.0_f32).to_bits(),
                1,
                0x007f_ffff,
                0.5_f32.to_bits(),
                1.5_f32.to_bits(),
                (-2.5_f32).to_bits(),
                0x4eff_ffff,
                0xcf00_0000,
                f32::MAX.to_bits(),
                f32::NEG_INFINITY.to_bits(),
                f32::INFINITY.to_bits(),
                0x7fc0_0000,
                0xffc1_2345,
                0x7f80_0001,
                0x4f80_0000,
            ]
            .map(u128::from)
            .into(),
            Self::F64 => [
                0.0_f64.to_bits(),
                (-0.0_f64).to_bits(),
                1,
                0x000f_ffff_ffff_ffff,
                0.5_f64.to_bits(),
                1.5_f64.to_bits(),
                (-2.5_f64).to_bits(),
                0x41df_ffff_ffc0_0000,
                0xc1e0_0000_0000_0000,
                f64::MAX.to_bits(),
                f64::NEG_INFINITY.to_bits(),
                f64::INFINITY.to_bits(),
                0x7ff8_0000_0000_0000,
                0xfff8_1234_5678_9abc,
                0x7ff0_0000_0000_0001,
                0x41f0_0000_0000_0000,
            ]
            .map(u128::from)
            .into(),
        }
    }

    /// Vectors whose lanes contain all of these values.
    fn vectors(self, values: &[u128]) -> Vec<u128> {
        let lanes = (128 / self.bits()) as usize;
        let padded: Vec<_> = values
            .iter()
            .cycle()
            .take(values.len().next_multiple_of(lanes))
            .collect();
        let vector = |lanes: &[&u128]| {
            lanes.iter().rev().fold(0, |vector: u128, lane| {
                vector.checked_shl(self.bits()).unwrap_or(0) | **lane
            })
        };
        padded.chunks(lanes).map(vector).collect()
    }

    /// Each vector, with its lanes rotated by every number of places, so that each lane meets each other one.
    fn rotations(self, vectors: &[u128]) -> Vec<u128> {
        let places = 128 / self.bits();
        let rotated = |vector: &u128| {
            (0..places)
                .map(|place| vector.rotate_left(place * self.bits()))
                .collect::<Vec<_>>()
        };
        vectors.iter().flat_map(rotated).collect()
    }
}

fn scalar(ty: ValType) -> Option<Shape> {
    match ty {
        ValType::I32 => Some(Shape::I32),
        ValType::I64 => Some(Shape::I64),
        ValType::F32 => Some(Shape::F32),
        ValType::F64 => Some(Shape::F64),
        _ => None,
    }
}

/// The shapes of a case's vectors. If the instruction's name contains no shape, two different ones.
fn shapes(case: &Case) -> Vec<Shape> {
    let mut shapes = Shape::named(case.name);
    if shapes.is_empty() {
        shapes = vec![Shape::I8, Shape::I32];
    }
    shapes
}

/// Operands that are all known only at run time.
pub(crate) fn many(case: &Case) -> Vec<Tuple> {
    if case.accesses {
        return accesses(case);
    }
    let vectors = case
        .params
        .iter()
        .filter(|ty| **ty == ValType::V128)
        .count();
    match (vectors, case.params.len()) {
        (0, 1 | 2) => product(
            case.params
                .iter()
                .filter_map(|ty| Some(scalar(*ty)?.values())),
        ),
        (0, _) => product(
            case.params
                .iter()
                .filter_map(|ty| Some(scalar(*ty)?.few().into_iter().step_by(2).collect())),
        ),
        (1, 1) => each_shape(case, |shape| product([shape.vectors(&shape.values())])),
        (2, 2) => each_shape(case, |shape| {
            let vectors = shape.vectors(&shape.values());
            product([vectors.clone(), shape.rotations(&vectors)])
        }),
        (1, _) => each_shape(case, |shape| {
            let operands = |ty: &ValType| match scalar(*ty) {
                Some(scalar) => scalar.values(),
                None => shape.vectors(&shape.values()),
            };
            product(case.params.iter().map(operands))
        }),
        _ => each_shape(case, |shape| {
            let vectors = shape.vectors(&shape.few());
            let rotated = shape.rotations(&vectors);
            product([vectors, rotated.clone(), rotated])
        }),
    }
}

/// A few operands, for use as constants.
pub(crate) fn few(case: &Case) -> Vec<Tuple> {
    let scalars: Option<Vec<_>> = case.params.iter().map(|ty| scalar(*ty)).collect();
    match scalars {
        Some(scalars) if !case.accesses && scalars.len() <= 2 => {
            product(scalars.iter().map(|shape| shape.few()))
        }
        _ => sample(many(case), 32),
    }
}

fn each_shape(case: &Case, tuples: impl FnMut(Shape) -> Vec<Tuple>) -> Vec<Tuple> {
    shapes(case).into_iter().flat_map(tuples).collect()
}

/// All combinations.
fn product(operands: impl IntoIterator<Item = Vec<u128>>) -> Vec<Tuple> {
    operands
        .into_iter()
        .fold(vec![Vec::new()], |tuples, values| {
            let longer = |tuple: &Tuple| {
                values
                    .iter()
                    .map(|value| [&tuple[..], &[*value]].concat())
                    .collect::<Vec<_>>()
            };
            tuples.iter().flat_map(longer).collect()
        })
}

/// Addresses, with a few values each.
fn accesses(case: &Case) -> Vec<Tuple> {
    let values = |ty: &ValType| match scalar(*ty) {
        Some(shape) => sample(product([shape.few()]), 4).concat(),
        None => Shape::I8.vectors(&Shape::I8.values()),
    };
    let others = case.params.iter().skip(1).map(values);
    product([ADDRESSES.to_vec()].into_iter().chain(others))
}

/// Up to `count` of the tuples, spread evenly.
fn sample(tuples: Vec<Tuple>, count: usize) -> Vec<Tuple> {
    if tuples.len() <= count {
        return tuples;
    }
    // A prime stride prevents an operand from staying the same.
    let stride = [7919, 104_729]
        .into_iter()
        .find(|prime| !tuples.len().is_multiple_of(*prime))
        .unwrap_or(1);
    (0..count)
        .map(|index| tuples[index * stride % tuples.len()].clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_meet_all_others() {
        let vectors = Shape::F32.vectors(&Shape::F32.values());
        let rotated = Shape::F32.rotations(&vectors);
        let lane = |vector: u128, lane: u32| (vector >> (lane * 32)) as u32;
        let wanted = values::f32s();
        for a in &wanted {
            for b in &wanted {
                let meets =
                    |x: &u128, y: &u128| (0..4).any(|at| lane(*x, at) == *a && lane(*y, at) == *b);
                assert!(
                    vectors.iter().any(|x| rotated.iter().any(|y| meets(x, y))),
                    "{a:#x} and {b:#x}"
                );
            }
        }
    }

    #[test]
    fn shapes_come_from_names() {
        assert_eq!(Shape::named("I8x16NarrowI16x8S"), [Shape::I8, Shape::I16]);
        assert_eq!(
            Shape::named("F32x4DemoteF64x2Zero"),
            [Shape::F32, Shape::F64]
        );
        assert_eq!(Shape::named("V128And"), []);
    }
}
