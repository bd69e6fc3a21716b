//! Why a run ended before its guest returned.

/// What a host function returns to end the run of the guest that called it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The guest asked to end with this status (`proc_exit`).
    #[error("exit status {0}")]
    Exit(u32),
    /// The embedder or a limit of it ended the run.
    #[error("{0}")]
    Interrupted(Interruption),
    /// The guest did what traps.
    #[error("{0}")]
    Trap(TrapKind),
    /// A host function panicked; the message is for the log, never for the client.
    #[error("a host function panicked: {0}")]
    HostPanic(String),
}

impl Stop {
    /// The run's deadline has passed.
    pub const DEADLINE: Self = Self::Interrupted(Interruption::Deadline);
}

/// Which limit, or who, ended a run from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Interruption {
    /// Its wall-clock time was used up.
    #[error("the deadline has passed")]
    Deadline,
    /// Its CPU time was used up.
    #[error("the CPU time is used up")]
    CpuTime,
    /// The client is gone or the embedder gave up.
    #[error("the request was canceled")]
    Canceled,
    /// It wrote more output than allowed.
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
    /// The guest's stack is used up.
    #[error("call stack exhausted")]
    StackOverflow,
    /// A load, store or bulk operation outside of the linear memory.
    #[error("out of bounds memory access")]
    MemoryOutOfBounds,
    /// An atomic access that is not aligned.
    #[error("unaligned atomic access")]
    UnalignedAtomic,
    /// A wait for another thread, which nobody could end.
    #[error("atomic wait on memory that is not shared")]
    WaitOnUnshared,
    /// An access outside of a table or an element segment.
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
    /// A float that has no integer value.
    #[error("invalid conversion to integer")]
    BadConversionToInteger,
    /// The instruction `unreachable`.
    #[error("unreachable instruction executed")]
    Unreachable,
    /// An exception that nobody caught.
    #[error("uncaught exception")]
    UncaughtException,
    /// The host had no memory for what the guest asked.
    #[error("the host is out of memory")]
    OutOfMemory,
    /// A fault in the artifact's code that is none of the above.
    #[error("unknown fault in compiled code")]
    Unknown,
}
