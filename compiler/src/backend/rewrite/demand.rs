//! Which part of its operands an operator's result depends on, and which operators do nothing but make a result.
//!
//! What is said here of an operator errs to one side: a value that is said to be of no use may be of use.

use wasmer_compiler::wasmparser::Operator;

/// An operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// The result of a node of the same block.
    Node(u32),
    /// What the block found at this height of the stack.
    Slot(u32),
}

/// An operand and its number: equal numbers are equal values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    pub(super) value: Value,
    pub(super) number: u32,
    /// Its value, if that is constant.
    pub(super) constant: Option<u64>,
    /// A bound of its value as an unsigned number.
    pub(super) maximum: u64,
}

/// All of a value. The value of a `v128` has a bit for each byte, others one for each bit.
pub(super) const ALL: u64 = u64::MAX;

/// How much a load reads, and where its last byte is in its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) bytes: u32,
    /// The value's bits that depend on the last byte of what is read.
    pub(super) last: u64,
}

/// What a load reads, or nothing if it is none, or one that the compiler keeps as it is (an atomic one).
pub(super) fn load(operator: &Operator<'_>) -> Option<Load> {
    use Operator as O;
    let (bytes, last) = match operator {
        O::I32Load8U { .. } | O::I64Load8U { .. } => (1, 0xff),
        O::I32Load8S { .. } | O::I64Load8S { .. } => (1, ALL),
        O::I32Load16U { .. } | O::I64Load16U { .. } => (2, 0xff00),
        O::I32Load16S { .. } | O::I64Load16S { .. } => (2, ALL << 8),
        O::I32Load { .. } | O::I64Load32U { .. } => (4, 0xff00_0000),
        O::I64Load32S { .. } => (4, ALL << 24),
        O::I64Load { .. } => (8, 0xff << 56),
        O::F32Load { .. } => (4, ALL),
        O::F64Load { .. } => (8, ALL),
        O::V128Load { .. } => (16, 1 << 15),
        O::V128Load8x8S { .. } | O::V128Load8x8U { .. } => (8, 0xc000),
        O::V128Load16x4S { .. } | O::V128Load16x4U { .. } => (8, 0xe000),
        O::V128Load32x2S { .. } | O::V128Load32x2U { .. } => (8, 0xf800),
        O::V128Load8Splat { .. } => (1, ALL),
        O::V128Load16Splat { .. } => (2, 0xaaaa),
        O::V128Load32Splat { .. } => (4, 0x8888),
        O::V128Load64Splat { .. } => (8, 0x8080),
        O::V128Load32Zero { .. } => (4, 1 << 3),
        O::V128Load64Zero { .. } => (8, 1 << 7),
        O::V128Load8Lane { lane, .. } => (1, lane_bits(*lane, 1)),
        O::V128Load16Lane { lane, .. } => (2, last_of_lane(*lane, 2)),
        O::V128Load32Lane { lane, .. } => (4, last_of_lane(*lane, 4)),
        O::V128Load64Lane { lane, .. } => (8, last_of_lane(*lane, 8)),
        _ => return None,
    };
    Some(Load { bytes, last })
}

impl Load {
    /// Whether these bits of the value take a load of all of it. A shorter one has half the size at most, and leaves out
    /// the last byte.
    pub(super) fn is_whole(self, operator: &Operator<'_>, bits: u64) -> bool {
        if bits & self.last != 0 {
            return true;
        }
        // Whether a bit of the value stands for a bit, and not for a byte.
        let unit = match operator {
            Operator::I32Load { .. }
            | Operator::I64Load { .. }
            | Operator::I32Load16U { .. }
            | Operator::I64Load16U { .. }
            | Operator::I64Load32U { .. } => 8,
            Operator::V128Load { .. } => 1,
            _ => return false,
        };
        let size = self.bytes * unit;
        let bits = bits & (ALL >> (64 - size));
        bits != 0 && 64 - bits.leading_zeros() - bits.trailing_zeros() > size / 2
    }
}

fn lane_bits(lane: u8, width: u8) -> u64 {
    ((1 << width) - 1) << (lane * width)
}

fn last_of_lane(lane: u8, width: u8) -> u64 {
    1 << (lane * width + width - 1)
}

/// Whether an operator does nothing but make a value of its operands, so that it goes where nothing uses that.
pub(super) fn is_pure(operator: &Operator<'_>) -> bool {
    use Operator as O;
    !(load(operator).is_some()
        || is_division(operator)
        || stores(operator)
        || matches!(
            operator,
            O::LocalSet { .. }
                | O::LocalTee { .. }
                | O::GlobalSet { .. }
                | O::TableGet { .. }
                | O::TableSet { .. }
                | O::TableGrow { .. }
                | O::TableFill { .. }
                | O::TableCopy { .. }
                | O::TableInit { .. }
                | O::ElemDrop { .. }
                | O::DataDrop { .. }
                | O::MemoryGrow { .. }
                | O::MemoryFill { .. }
                | O::MemoryCopy { .. }
                | O::MemoryInit { .. }
                | O::I32TruncF32S
                | O::I32TruncF32U
                | O::I32TruncF64S
                | O::I32TruncF64U
                | O::I64TruncF32S
                | O::I64TruncF32U
                | O::I64TruncF64S
                | O::I64TruncF64U
                | O::Block { .. }
                | O::Loop { .. }
                | O::If { .. }
                | O::Else
                | O::End
                | O::TryTable { .. }
                | O::Br { .. }
                | O::BrIf { .. }
                | O::BrTable { .. }
                | O::Return
                | O::Unreachable
                | O::Call { .. }
                | O::CallIndirect { .. }
                | O::CallRef { .. }
                | O::ReturnCall { .. }
                | O::ReturnCallIndirect { .. }
                | O::ReturnCallRef { .. }
                | O::Throw { .. }
                | O::ThrowRef
        )
        || is_atomic(operator))
}

/// Whether code that comes before an operator stays before it.
pub(super) fn is_barrier(operator: &Operator<'_>) -> bool {
    use Operator as O;
    stores(operator)
        || is_atomic(operator)
        || matches!(
            operator,
            O::Call { .. }
                | O::CallIndirect { .. }
                | O::CallRef { .. }
                | O::MemoryGrow { .. }
                | O::MemoryFill { .. }
                | O::MemoryCopy { .. }
                | O::MemoryInit { .. }
                | O::TableSet { .. }
                | O::TableGrow { .. }
                | O::TableFill { .. }
                | O::TableCopy { .. }
                | O::TableInit { .. }
        )
}

/// Bytes that an operator writes to memory, atomic ones aside.
pub(super) fn stored(operator: &Operator<'_>) -> Option<u32> {
    use Operator as O;
    Some(match operator {
        O::I32Store8 { .. } | O::I64Store8 { .. } | O::V128Store8Lane { .. } => 1,
        O::I32Store16 { .. } | O::I64Store16 { .. } | O::V128Store16Lane { .. } => 2,
        O::I32Store { .. }
        | O::F32Store { .. }
        | O::I64Store32 { .. }
        | O::V128Store32Lane { .. } => 4,
        O::I64Store { .. } | O::F64Store { .. } | O::V128Store64Lane { .. } => 8,
        O::V128Store { .. } => 16,
        _ => return None,
    })
}

fn stores(operator: &Operator<'_>) -> bool {
    stored(operator).is_some()
}

/// Atomic accesses; the compiler removes and moves none of them.
fn is_atomic(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::MemoryAtomicNotify { .. }
            | O::MemoryAtomicWait32 { .. }
            | O::MemoryAtomicWait64 { .. }
            | O::AtomicFence
            | O::I32AtomicLoad { .. }
            | O::I64AtomicLoad { .. }
            | O::I32AtomicLoad8U { .. }
            | O::I32AtomicLoad16U { .. }
            | O::I64AtomicLoad8U { .. }
            | O::I64AtomicLoad16U { .. }
            | O::I64AtomicLoad32U { .. }
            | O::I32AtomicStore { .. }
            | O::I64AtomicStore { .. }
            | O::I32AtomicStore8 { .. }
            | O::I32AtomicStore16 { .. }
            | O::I64AtomicStore8 { .. }
            | O::I64AtomicStore16 { .. }
            | O::I64AtomicStore32 { .. }
    ) || is_atomic_change(operator)
}

fn is_atomic_change(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::I32AtomicRmwAdd { .. }
            | O::I64AtomicRmwAdd { .. }
            | O::I32AtomicRmw8AddU { .. }
            | O::I32AtomicRmw16AddU { .. }
            | O::I64AtomicRmw8AddU { .. }
            | O::I64AtomicRmw16AddU { .. }
            | O::I64AtomicRmw32AddU { .. }
            | O::I32AtomicRmwSub { .. }
            | O::I64AtomicRmwSub { .. }
            | O::I32AtomicRmw8SubU { .. }
            | O::I32AtomicRmw16SubU { .. }
            | O::I64AtomicRmw8SubU { .. }
            | O::I64AtomicRmw16SubU { .. }
            | O::I64AtomicRmw32SubU { .. }
            | O::I32AtomicRmwAnd { .. }
            | O::I64AtomicRmwAnd { .. }
            | O::I32AtomicRmw8AndU { .. }
            | O::I32AtomicRmw16AndU { .. }
            | O::I64AtomicRmw8AndU { .. }
            | O::I64AtomicRmw16AndU { .. }
            | O::I64AtomicRmw32AndU { .. }
            | O::I32AtomicRmwOr { .. }
            | O::I64AtomicRmwOr { .. }
            | O::I32AtomicRmw8OrU { .. }
            | O::I32AtomicRmw16OrU { .. }
            | O::I64AtomicRmw8OrU { .. }
            | O::I64AtomicRmw16OrU { .. }
            | O::I64AtomicRmw32OrU { .. }
            | O::I32AtomicRmwXor { .. }
            | O::I64AtomicRmwXor { .. }
            | O::I32AtomicRmw8XorU { .. }
            | O::I32AtomicRmw16XorU { .. }
            | O::I64AtomicRmw8XorU { .. }
            | O::I64AtomicRmw16XorU { .. }
            | O::I64AtomicRmw32XorU { .. }
            | O::I32AtomicRmwXchg { .. }
            | O::I64AtomicRmwXchg { .. }
            | O::I32AtomicRmw8XchgU { .. }
            | O::I32AtomicRmw16XchgU { .. }
            | O::I64AtomicRmw8XchgU { .. }
            | O::I64AtomicRmw16XchgU { .. }
            | O::I64AtomicRmw32XchgU { .. }
            | O::I32AtomicRmwCmpxchg { .. }
            | O::I64AtomicRmwCmpxchg { .. }
            | O::I32AtomicRmw8CmpxchgU { .. }
            | O::I32AtomicRmw16CmpxchgU { .. }
            | O::I64AtomicRmw8CmpxchgU { .. }
            | O::I64AtomicRmw16CmpxchgU { .. }
            | O::I64AtomicRmw32CmpxchgU { .. }
    )
}

/// Divisions and remainders of integers: they trap by their divisor.
pub(super) fn is_division(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::I32DivS
            | O::I32DivU
            | O::I32RemS
            | O::I32RemU
            | O::I64DivS
            | O::I64DivU
            | O::I64RemS
            | O::I64RemU
    )
}

/// The bits of an operand that these bits of the result depend on.
pub(super) fn operand_bits(
    operator: &Operator<'_>,
    lane: u8,
    operands: &[Operand],
    index: usize,
    bits: u64,
) -> u64 {
    use Operator as O;
    if bits == 0 || is_decided(operator, operands) {
        return 0;
    }
    let other = operands
        .get(1 - index.min(1))
        .and_then(|other| other.constant);
    // Carries go up only.
    let below = ALL >> bits.leading_zeros();
    let sign = |from: u32| {
        if bits >> from == 0 {
            0
        } else {
            1 << (from - 1)
        }
    };
    match (operator, index) {
        (O::I32And | O::I64And, _) => bits & other.unwrap_or(ALL),
        (O::I32Or | O::I64Or, _) => bits & !other.unwrap_or(0),
        (O::I32Xor | O::I64Xor, _) => bits,
        (O::I32Add | O::I64Add | O::I32Sub | O::I64Sub, _) => below,
        (O::I32Mul | O::I64Mul, _) => match other {
            Some(0) => 0,
            Some(factor) => below >> factor.trailing_zeros(),
            None => below,
        },
        (O::I32Shl, 0) => other.map_or(below, |count| bits >> (count % 32)),
        (O::I64Shl, 0) => other.map_or(below, |count| bits >> (count % 64)),
        (O::I32ShrU, 0) => other.map_or(ALL, |count| (bits << (count % 32)) & 0xffff_ffff),
        (O::I64ShrU, 0) => other.map_or(ALL, |count| bits << (count % 64)),
        (O::I32ShrS, 0) => other.map_or(ALL, |count| {
            let wide = (bits & 0xffff_ffff) << (count % 32);
            (wide & 0xffff_ffff) | if wide >> 31 == 0 { 0 } else { 1 << 31 }
        }),
        (O::I64ShrS, 0) => other.map_or(ALL, |count| {
            let wide = u128::from(bits) << (count % 64);
            wide as u64 | if wide >> 63 == 0 { 0 } else { 1 << 63 }
        }),
        (O::I32Rotl, 0) => other.map_or(ALL, |count| {
            u64::from((bits as u32).rotate_right(count as u32 % 32))
        }),
        (O::I32Rotr, 0) => other.map_or(ALL, |count| {
            u64::from((bits as u32).rotate_left(count as u32 % 32))
        }),
        (O::I64Rotl, 0) => other.map_or(ALL, |count| bits.rotate_right(count as u32 % 64)),
        (O::I64Rotr, 0) => other.map_or(ALL, |count| bits.rotate_left(count as u32 % 64)),
        (O::I32WrapI64 | O::I64ExtendI32U, _) => bits & 0xffff_ffff,
        (O::I64ExtendI32S | O::I64Extend32S, _) => bits & 0xffff_ffff | sign(32),
        (O::I32Extend8S | O::I64Extend8S, _) => bits & 0xff | sign(8),
        (O::I32Extend16S | O::I64Extend16S, _) => bits & 0xffff | sign(16),
        (
            O::I32ReinterpretF32
            | O::I64ReinterpretF64
            | O::F32ReinterpretI32
            | O::F64ReinterpretI64,
            _,
        ) => bits,
        _ if is_test(operator) => {
            if bits & 1 == 0 {
                0
            } else {
                ALL
            }
        }
        _ => vector_bits(operator, lane, index, bits),
    }
}

/// The same for operators on vectors.
fn vector_bits(operator: &Operator<'_>, lane: u8, index: usize, bits: u64) -> u64 {
    use Operator as O;
    // A lane goes into a vector, or what is left of that stays.
    let replace = |lane: u8, width: u8| {
        let there = lane_bits(lane, width);
        match index {
            0 => bits & !there,
            _ if bits & there == 0 => 0,
            _ => ALL,
        }
    };
    match operator {
        O::I8x16ExtractLaneS { lane } | O::I8x16ExtractLaneU { lane } => lane_bits(*lane, 1),
        O::I16x8ExtractLaneS { lane } | O::I16x8ExtractLaneU { lane } => lane_bits(*lane, 2),
        O::I32x4ExtractLane { lane } | O::F32x4ExtractLane { lane } => lane_bits(*lane, 4),
        O::I64x2ExtractLane { lane } | O::F64x2ExtractLane { lane } => lane_bits(*lane, 8),
        O::I8x16ReplaceLane { lane } => replace(*lane, 1),
        O::I16x8ReplaceLane { lane } => replace(*lane, 2),
        O::I32x4ReplaceLane { lane } | O::F32x4ReplaceLane { lane } => replace(*lane, 4),
        O::I64x2ReplaceLane { lane } | O::F64x2ReplaceLane { lane } => replace(*lane, 8),
        O::I8x16Shuffle { lanes } => (0..16)
            .filter(|at| bits >> at & 1 != 0)
            .map(|at| lanes[at])
            .filter(|lane| usize::from(lane / 16) == index)
            .fold(0, |bits, lane| bits | 1 << (lane % 16)),
        O::V128And | O::V128Or | O::V128Xor | O::V128Not | O::V128AndNot | O::V128Bitselect => bits,
        O::I16x8ExtendLowI8x16S
        | O::I16x8ExtendLowI8x16U
        | O::I32x4ExtendLowI16x8S
        | O::I32x4ExtendLowI16x8U
        | O::I64x2ExtendLowI32x4S
        | O::I64x2ExtendLowI32x4U
        | O::I16x8ExtMulLowI8x16S
        | O::I16x8ExtMulLowI8x16U
        | O::I32x4ExtMulLowI16x8S
        | O::I32x4ExtMulLowI16x8U
        | O::I64x2ExtMulLowI32x4S
        | O::I64x2ExtMulLowI32x4U
        | O::F64x2ConvertLowI32x4S
        | O::F64x2ConvertLowI32x4U
        | O::F64x2PromoteLowF32x4 => 0xff,
        O::I16x8ExtendHighI8x16S
        | O::I16x8ExtendHighI8x16U
        | O::I32x4ExtendHighI16x8S
        | O::I32x4ExtendHighI16x8U
        | O::I64x2ExtendHighI32x4S
        | O::I64x2ExtendHighI32x4U
        | O::I16x8ExtMulHighI8x16S
        | O::I16x8ExtMulHighI8x16U
        | O::I32x4ExtMulHighI16x8S
        | O::I32x4ExtMulHighI16x8U
        | O::I64x2ExtMulHighI32x4S
        | O::I64x2ExtMulHighI32x4U => 0xff00,
        _ if lane > 0 => (0..16 / lane)
            .map(|at| lane_bits(at, lane))
            .filter(|there| bits & there != 0)
            .fold(0, |sum, there| sum | there),
        _ => ALL,
    }
}

/// Whether the result is 0 or 1, and nothing else of it counts.
fn is_test(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::I32Eqz
            | O::I64Eqz
            | O::F32Eq
            | O::F32Ne
            | O::F32Lt
            | O::F32Gt
            | O::F32Le
            | O::F32Ge
            | O::F64Eq
            | O::F64Ne
            | O::F64Lt
            | O::F64Gt
            | O::F64Le
            | O::F64Ge
            | O::RefIsNull
            | O::V128AnyTrue
            | O::I8x16AllTrue
            | O::I16x8AllTrue
            | O::I32x4AllTrue
            | O::I64x2AllTrue
    ) || is_comparison(operator)
}

fn is_comparison(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::I32Eq
            | O::I32Ne
            | O::I32LtS
            | O::I32LtU
            | O::I32GtS
            | O::I32GtU
            | O::I32LeS
            | O::I32LeU
            | O::I32GeS
            | O::I32GeU
            | O::I64Eq
            | O::I64Ne
            | O::I64LtS
            | O::I64LtU
            | O::I64GtS
            | O::I64GtU
            | O::I64LeS
            | O::I64LeU
            | O::I64GeS
            | O::I64GeU
    )
}

/// Whether the result is the same whatever the operands are: `x - x`, or a byte compared with 256.
fn is_decided(operator: &Operator<'_>, operands: &[Operand]) -> bool {
    use Operator as O;
    let [left, right, ..] = operands else {
        return false;
    };
    if left.number == right.number {
        return is_comparison(operator)
            || matches!(
                operator,
                O::I32Sub | O::I64Sub | O::I32Xor | O::I64Xor | O::V128Xor | O::V128AndNot
            );
    }
    if !is_comparison(operator) {
        return false;
    }
    // What the operator says of the other operand is what its mirror image says of this one.
    match (left.constant, right.constant) {
        (None, Some(constant)) => is_bound(operator, constant, left.maximum, false),
        (Some(constant), None) => is_bound(operator, constant, right.maximum, true),
        _ => false,
    }
}

/// Whether comparing a number up to `maximum` with a constant always has one outcome.
fn is_bound(operator: &Operator<'_>, constant: u64, maximum: u64, mirrored: bool) -> bool {
    use Operator as O;
    let maximum = match operator {
        O::I32LtU | O::I32LeU | O::I32GtU | O::I32GeU => maximum.min(0xffff_ffff),
        _ => maximum,
    };
    // Signed comparisons are unsigned ones of small numbers.
    let small = maximum < 1 << 31;
    let (less, or_equal) = match operator {
        O::I32Eq | O::I32Ne | O::I64Eq | O::I64Ne => return maximum < constant,
        O::I32LtU | O::I64LtU => (true, false),
        O::I32LtS | O::I64LtS if small => (true, false),
        O::I32LeU | O::I64LeU => (true, true),
        O::I32LeS | O::I64LeS if small => (true, true),
        O::I32GtU | O::I64GtU => (false, false),
        O::I32GtS | O::I64GtS if small => (false, false),
        O::I32GeU | O::I64GeU => (false, true),
        O::I32GeS | O::I64GeS if small => (false, true),
        _ => return false,
    };
    match (less != mirrored, or_equal) {
        // Less than the constant, and its negation.
        (true, false) | (false, true) => constant == 0 || maximum < constant,
        // At most the constant, and its negation.
        (true, true) | (false, false) => maximum <= constant,
    }
}
