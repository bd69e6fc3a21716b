//! What a call gives: nothing or a value, a code for the guest, or the end of the run.

use faas_wasm_engine::Stop;

use crate::code::Code;

/// Why a call did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The guest gets this result.
    Code(Code),
    /// The run ends.
    Stop(Stop),
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

/// What a call gives.
pub(crate) type CallResult<T = ()> = Result<T, Failure>;

/// A failure with a code.
pub(crate) fn fail<T>(code: Code) -> CallResult<T> {
    Err(Failure::Code(code))
}
