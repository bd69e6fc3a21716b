//! PTX text to instructions that `exec` runs.
//!
//! The parser believes nothing: names must be declared, types and operands must fit, an instruction
//! or modifier that is not known is an error and not skipped. So a module that loads is one that
//! runs, and everything else is `CUDA_ERROR_INVALID_PTX`, with the line and the reason in the trace.

mod body;
mod decode;
mod lexer;
mod module;
mod op;
mod operand;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use module::parse;
pub(crate) use op::{
    Address, AtomOp, Base, BinaryOp, BoolOp, Compare, Inst, MulPart, Op, Rounding, ShuffleMode,
    Source, Special, UnaryOp, VoteMode,
};
pub(crate) use types::{Kind, Space, Type, mask};

/// Why a text is no PTX that runs here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(crate) struct Error {
    pub(crate) line: u32,
    pub(crate) reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("expected {0}")]
    Expected(&'static str),
    #[error("`{0}` is not declared")]
    Undeclared(String),
    #[error("`{0}` is declared twice")]
    Twice(String),
    #[error("instruction `{0}` is not known")]
    Instruction(String),
    #[error("modifiers or operands of `{0}` do not fit")]
    Operands(String),
    #[error("directive `.{0}` is not known")]
    Directive(String),
    #[error("version {0} is newer than the driver's")]
    Version(String),
    #[error("{0}")]
    Unsupported(&'static str),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A translated module.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) functions: Vec<Function>,
    pub(crate) variables: Vec<Variable>,
    /// Shared memory that all declared variables take.
    pub(crate) shared_size: usize,
}

/// A variable in global or constant memory.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) size: usize,
    pub(crate) initial: Vec<u8>,
    /// Offsets of words that hold another variable's address plus what they hold.
    pub(crate) addresses: Vec<(usize, usize)>,
}

/// A kernel, or a function that kernels call.
#[derive(Debug, Default)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) entry: bool,
    /// Without a body: one of `BUILTINS`.
    pub(crate) external: bool,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) returns: Vec<Parameter>,
    /// The bits that each register has.
    pub(crate) masks: Vec<u64>,
    pub(crate) parameter_space: usize,
    pub(crate) local_size: usize,
    pub(crate) shared_size: usize,
    /// Threads that a block may have, by `.maxntid` or `.reqntid`.
    pub(crate) max_threads: Option<u64>,
    pub(crate) code: Vec<Inst>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

/// Functions that drivers link into every module and that `exec` knows.
pub(crate) const BUILTINS: [&str; 2] = ["vprintf", "__assertfail"];

impl Program {
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, &Function)> {
        let functions = self.functions.iter().enumerate();
        functions.filter(|(_, function)| function.entry)
    }
}
