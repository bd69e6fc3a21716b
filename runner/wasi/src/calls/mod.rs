//! The functions of preview1, each as one `fn` over a [`Call`].
//!
//! They check the guest's arguments, find the descriptor, and delegate to the file system, the streams
//! and the host's clocks. No call waits beyond the deadline.

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

/// The module from which the guest imports. The modules differ in some layouts and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    Preview1,
    Unstable,
}

/// A guest's call.
pub(crate) struct Call<'c, 'm> {
    pub(crate) wasi: &'c mut WasiContext,
    pub(crate) memory: &'c mut GuestMemory<'m>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) abi: Abi,
}

/// Maximum length of a path that is read at all. The walk refuses paths that are shorter but too long.
const LONGEST_PATH: u32 = 64 * 1024;

impl Call<'_, '_> {
    /// Ends the run if its deadline has passed. For loops whose length the guest decides.
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

/// Converts the result of a call to the guest's error number.
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

/// Checks that a guest's flags are among `known`.
pub(crate) fn flags(given: u32, known: u16) -> Outcome<u16> {
    match u16::try_from(given) {
        Ok(flags) if flags & !known == 0 => Ok(flags),
        _ => Err(Errno::Inval.into()),
    }
}
