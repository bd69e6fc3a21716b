//! Reasons for a run to end before its guest returns.

/// A host function returns this to end the run of the guest that called it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The guest exited with this status (`proc_exit`).
    #[error("exit status {0}")]
    Exit(u32),
    /// The embedder or one of its limits ended the run.
    #[error("{0}")]
    Interrupted(Interruption),
    /// The guest trapped.
    #[error("{0}")]
    Trap(TrapKind),
    /// A host function panicked. The message is for the log, never for the client.
    #[error("a host function panicked: {0}")]
    HostPanic(String),
}

impl Stop {
    /// The run's deadline has passed.
    pub const DEADLINE: Self = Self::Interrupted(Interruption::Deadline);
}

/// The limit or event that ended a run from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Interruption {
    /// The wall-clock time of the run was exhausted.
    #[error("the deadline has passed")]
    Deadline,
    /// The CPU time of the run was exhausted.
    #[error("the CPU time is used up")]
    CpuTime,
    /// The client left or the embedder canceled the run.
    #[error("the request was canceled")]
    Canceled,
    /// The guest wrote more output than allowed.
    #[error("the output limit is reached")]
    OutputLimit,
}

impl Interruption {
    /// The variant with this number (`as u8`).
    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            1 => Self::CpuTime,
            2 => Self::Canceled,
            3 => Self::OutputLimit,
            _ => Self::Deadline,
        }
    }
}

/// The kinds of trap of the WebAssembly specification, and stack exhaustion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TrapKind {
    /// The guest's stack is exhausted.
    #[error("call stack exhausted")]
    StackOverflow,
    /// A load, store or bulk operation outside the linear memory.
    #[error("out of bounds memory access")]
    MemoryOutOfBounds,
    /// An atomic access that is not aligned.
    #[error("unaligned atomic access")]
    UnalignedAtomic,
    /// A wait for another thread on unshared memory, which no thread could end.
    #[error("atomic wait on memory that is not shared")]
    WaitOnUnshared,
    /// An access outside a table or an element segment.
    #[error("out of bounds table access")]
    TableOutOfBounds,
    /// An indirect call through an empty table entry.
    #[error("uninitialized element called")]
    IndirectCallToNull,
    /// An indirect call to a function of another type.
    #[error("indirect call type mismatch")]
    BadSignature,
    /// A signed division whose result does not fit.
    #[error("integer overflow")]
    IntegerOverflow,
    /// A division by zero.
    #[error("integer divide by zero")]
    IntegerDivisionByZero,
    /// A conversion of a float that has no value of the integer type.
    #[error("invalid conversion to integer")]
    BadConversionToInteger,
    /// The instruction `unreachable`.
    #[error("unreachable instruction executed")]
    Unreachable,
    /// `throw_ref` of a null reference.
    #[error("null exception reference")]
    NullException,
    /// An exception without a handler.
    #[error("uncaught exception")]
    UncaughtException,
    /// The host has no memory for the guest's request.
    #[error("the host is out of memory")]
    OutOfMemory,
    /// A fault in the artifact's code that is none of the above.
    #[error("unknown fault in compiled code")]
    Unknown,
}
