//! Parses PTX text into instructions that `exec` runs.
//!
//! The parser is strict: names must be declared, types and operands must fit, and an unknown instruction or modifier
//! is an error. So a module that loads can run, and everything else is `CUDA_ERROR_INVALID_PTX`, with the line and
//! the reason in the trace.

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

/// Why a text is not PTX that can run here.
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
    /// Total size of all declared shared variables.
    pub(crate) shared_size: usize,
}

/// A variable in global or constant memory.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) size: usize,
    pub(crate) initial: Vec<u8>,
    /// Offsets of words that contain another variable's address, and the added offset.
    pub(crate) addresses: Vec<(usize, usize)>,
}

/// A kernel, or a function that kernels call.
#[derive(Debug, Default)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) entry: bool,
    /// A declaration without a body: one of `BUILTINS`.
    pub(crate) external: bool,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) returns: Vec<Parameter>,
    /// Bit mask of each register.
    pub(crate) masks: Vec<u64>,
    pub(crate) parameter_space: usize,
    pub(crate) local_size: usize,
    pub(crate) shared_size: usize,
    /// Maximum number of threads in a block, from `.maxntid` or `.reqntid`.
    pub(crate) max_threads: Option<u64>,
    pub(crate) code: Vec<Inst>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

/// Functions that drivers link into every module, and that `exec` implements.
pub(crate) const BUILTINS: [&str; 2] = ["vprintf", "__assertfail"];

impl Program {
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, &Function)> {
        let functions = self.functions.iter().enumerate();
        functions.filter(|(_, function)| function.entry)
    }
}
