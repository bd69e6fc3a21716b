//! Instructions in executable form, with names resolved to indices and types to their meaning.

use super::types::{Space, Type};

/// Index of a register in the function.
pub(crate) type Reg = u16;

/// An operand that has a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Source {
    Reg(Reg),
    Bits(u64),
    Special(Special),
    /// The address of something within its own space.
    Address(Base),
}

/// Special registers. The number of those with three components is the dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Thread(usize),
    BlockSize(usize),
    Block(usize),
    GridSize(usize),
    Lane,
    Warp,
    WarpCount,
    LaneMask(Compare),
    Multiprocessor,
    MultiprocessorCount,
    Grid,
    Clock,
    DynamicShared,
    TotalShared,
}

/// The base of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Nothing,
    Reg(Reg),
    /// A variable in global or constant memory, by index.
    Variable(usize),
    Shared(u64),
    /// The end of all declared shared memory, where the launch's dynamic shared memory begins.
    DynamicShared,
    /// In the frame's part of local memory.
    Local(u64),
    /// In the frame's parameters.
    Parameter(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) base: Base,
    pub(crate) offset: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    CopySign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnaryOp {
    Neg,
    Abs,
    Not,
    CNot,
    Popc,
    Clz,
    Brev,
    BFind,
    Sqrt,
    RSqrt,
    Rcp,
    Sin,
    Cos,
    Ex2,
    Lg2,
    Tanh,
}

/// The part of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MulPart {
    Low,
    High,
    Wide,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Float comparisons that are true for NaN operands.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoolOp {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
    Increment,
    Decrement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    Nothing,
    Move {
        to: Reg,
        from: Source,
    },
    /// Combines several values into one; the first becomes the lowest bits.
    Pack {
        to: Reg,
        parts: Vec<Source>,
        bits: u32,
    },
    Unpack {
        to: Vec<Option<Reg>>,
        from: Source,
        bits: u32,
    },
    Load {
        space: Space,
        kind: Type,
        to: Vec<Option<Reg>>,
        address: Address,
    },
    Store {
        space: Space,
        kind: Type,
        from: Vec<Source>,
        address: Address,
    },
    /// Converts an address of a space to a generic one, or the reverse.
    ToGeneric {
        space: Space,
        to: Reg,
        from: Source,
    },
    FromGeneric {
        space: Space,
        to: Reg,
        from: Source,
    },
    IsInSpace {
        space: Space,
        to: Reg,
        from: Source,
    },
    Unary {
        op: UnaryOp,
        kind: Type,
        flush: bool,
        to: Reg,
        a: Source,
    },
    Binary {
        op: BinaryOp,
        kind: Type,
        flush: bool,
        saturate: bool,
        to: Reg,
        a: Source,
        b: Source,
    },
    Mul {
        part: MulPart,
        kind: Type,
        to: Reg,
        a: Source,
        b: Source,
    },
    FloatMul {
        kind: Type,
        flush: bool,
        saturate: bool,
        to: Reg,
        a: Source,
        b: Source,
    },
    Mad {
        part: MulPart,
        kind: Type,
        to: Reg,
        a: Source,
        b: Source,
        c: Source,
    },
    Fma {
        kind: Type,
        flush: bool,
        saturate: bool,
        to: Reg,
        a: Source,
        b: Source,
        c: Source,
    },
    SetPredicate {
        compare: Compare,
        combine: Option<(BoolOp, Source, bool)>,
        kind: Type,
        to: Option<Reg>,
        other: Option<Reg>,
        a: Source,
        b: Source,
    },
    /// Writes the result as a number: all ones, or 1.0, for true.
    Set {
        compare: Compare,
        result: Type,
        kind: Type,
        to: Reg,
        a: Source,
        b: Source,
    },
    Select {
        to: Reg,
        a: Source,
        b: Source,
        predicate: Source,
    },
    Convert {
        result: Type,
        kind: Type,
        rounding: Option<Rounding>,
        saturate: bool,
        flush: bool,
        to: Reg,
        a: Source,
    },
    BitExtract {
        kind: Type,
        to: Reg,
        a: Source,
        position: Source,
        length: Source,
    },
    BitInsert {
        kind: Type,
        to: Reg,
        a: Source,
        b: Source,
        position: Source,
        length: Source,
    },
    Permute {
        to: Reg,
        a: Source,
        b: Source,
        selector: Source,
    },
    Logic3 {
        to: Reg,
        a: Source,
        b: Source,
        c: Source,
        table: u8,
    },
    Funnel {
        left: bool,
        wrap: bool,
        to: Reg,
        low: Source,
        high: Source,
        amount: Source,
    },
    Branch {
        target: usize,
    },
    Call {
        function: usize,
        /// Locations of arguments and results in the caller's parameter space.
        arguments: Vec<(usize, usize)>,
        results: Vec<(usize, usize)>,
    },
    Return,
    Exit,
    Trap,
    Barrier {
        id: Source,
        threads: Option<Source>,
        waits: bool,
    },
    Atomic {
        op: AtomOp,
        space: Space,
        kind: Type,
        to: Option<Reg>,
        address: Address,
        b: Source,
        c: Option<Source>,
    },
    Shuffle {
        mode: ShuffleMode,
        to: Reg,
        within: Option<Reg>,
        a: Source,
        b: Source,
        c: Source,
        members: Source,
    },
    Vote {
        mode: VoteMode,
        to: Reg,
        predicate: Source,
        negated: bool,
        members: Source,
    },
    WarpBarrier {
        members: Source,
    },
    ActiveMask {
        to: Reg,
    },
}

/// An instruction, its guard, and its line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inst {
    /// The instruction runs only if the predicate register has this value.
    pub(crate) guard: Option<(Reg, bool)>,
    pub(crate) op: Op,
    pub(crate) line: u32,
}
