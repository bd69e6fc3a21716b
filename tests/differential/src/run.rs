//! The outcome of a module's run.

use std::fmt;

/// Output and end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) output: Vec<u8>,
    pub(crate) ending: Ending,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Returned,
    Trapped(TrapKind),
    /// A failure that no module may cause, with the printed message.
    Failed(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("return"),
            Self::Trapped(kind) => write!(f, "trap: {kind}"),
            Self::Failed(how) => write!(f, "failure: {how}"),
        }
    }
}

macro_rules! trap_kinds {
    ($($name:ident = $message:literal,)*) => {
        /// The kinds of trap, with the runner's name for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum TrapKind {
            $($name,)*
        }

        impl TrapKind {
            const ALL: &[(Self, &str)] = &[$((Self::$name, $message),)*];
        }
    };
}

trap_kinds! {
    StackOverflow = "call stack exhausted",
    MemoryOutOfBounds = "out of bounds memory access",
    UnalignedAtomic = "unaligned atomic access",
    WaitOnUnshared = "atomic wait on memory that is not shared",
    TableOutOfBounds = "out of bounds table access",
    IndirectCallToNull = "uninitialized element called",
    BadSignature = "indirect call type mismatch",
    IntegerOverflow = "integer overflow",
    IntegerDivisionByZero = "integer divide by zero",
    BadConversionToInteger = "invalid conversion to integer",
    Unreachable = "unreachable instruction executed",
    NullReference = "null reference",
    UncaughtException = "uncaught exception",
}

impl TrapKind {
    /// The kind of trap that a message of the runner names.
    pub(crate) fn named(message: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, name)| *name == message);
        found.map(|(kind, _)| *kind)
    }
}

impl fmt::Display for TrapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(kind, _)| kind == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}
