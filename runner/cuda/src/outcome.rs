//! The result of a call: a value, an error code for the guest, or the end of the run.

use faas_wasm_engine::Stop;

use crate::code::Code;

/// Why a call did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The call returns this code to the guest.
    Code(Code),
    /// The run ends.
    Stop(Stop),
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

/// The result of a call.
pub(crate) type CallResult<T = ()> = Result<T, Failure>;

/// Fails with a code for the guest.
pub(crate) fn fail<T>(code: Code) -> CallResult<T> {
    Err(Failure::Code(code))
}
