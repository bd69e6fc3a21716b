//! The functions of preview1, each as one `fn` over a [`Call`].
//!
//! They check what the guest gave, find the descriptor, and leave the work to the file system,
//! the streams and the host's clocks. Nothing here waits beyond the deadline.

pub(crate) mod clock;
pub(crate) mod fd;
pub(crate) mod layout;
pub(crate) mod path;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod transfer;

#[cfg(test)]
mod tests;

use std::time::Instant;

use faas_wasm_engine::{GuestMemory, Stop};

use crate::context::WasiContext;
use crate::errno::{Errno, Failure, Outcome};

/// Which module the guest imports from; they differ in some layouts and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    Preview1,
    Unstable,
}

/// One call of a guest.
pub(crate) struct Call<'c, 'm> {
    pub(crate) wasi: &'c mut WasiContext,
    pub(crate) memory: &'c mut GuestMemory<'m>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) abi: Abi,
}

/// Longest path that is looked at at all; what is too long by less gets its answer from the walk.
const LONGEST_PATH: u32 = 64 * 1024;

impl Call<'_, '_> {
    /// Ends the run if its time is up; for loops that the guest can make long.
    pub(crate) fn checkpoint(&self) -> Result<(), Stop> {
        checkpoint(self.deadline)
    }
}

pub(crate) fn checkpoint(deadline: Option<Instant>) -> Result<(), Stop> {
    match deadline {
        Some(deadline) if Instant::now() >= deadline => Err(Stop::DEADLINE),
        _ => Ok(()),
    }
}

/// A path in guest memory.
pub(crate) fn path<'m>(memory: &'m GuestMemory<'_>, at: u32, length: u32) -> Outcome<&'m [u8]> {
    let bytes = memory.slice(at, length)?;
    if length > LONGEST_PATH {
        return Err(Errno::Nametoolong.into());
    }
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(Errno::Ilseq.into()),
    }
}

/// What the guest gets as the result of its call.
pub(crate) fn answer(outcome: Outcome) -> Result<i32, Stop> {
    match outcome {
        Ok(()) => Ok(0),
        Err(Failure::Errno(errno)) => Ok(errno as i32),
        Err(Failure::Stop(stop)) => Err(stop),
    }
}

/// The address of element `index` of an array of structures.
pub(crate) fn element(base: u32, index: u32, size: u32) -> Outcome<u32> {
    let offset = index.checked_mul(size).ok_or(Errno::Fault)?;
    Ok(base.checked_add(offset).ok_or(Errno::Fault)?)
}

/// Flags of which the guest may give those in `known` only.
pub(crate) fn flags(given: u32, known: u16) -> Outcome<u16> {
    match u16::try_from(given) {
        Ok(flags) if flags & !known == 0 => Ok(flags),
        _ => Err(Errno::Inval.into()),
    }
}
