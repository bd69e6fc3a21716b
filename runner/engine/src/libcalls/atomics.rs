//! Waiting for other threads. A guest has none, so a wait for a value that is there ends with its
//! time-out or with the run, and nobody is ever told.
//!
//! Unsafe here assumes what `libcalls.rs` does, and that each wait comes after its check.

use std::time::{Duration, Instant};

use rustix::thread::{Timespec, nanosleep};
use wasmer_vm::VMContext;

use super::{DONE, active, fits, trap_number};
use crate::signal;

const NOT_EQUAL: u32 = 1;
const TIMED_OUT: u32 = 2;

/// Longest sleep; the monitor's signal ends it sooner.
const NAP: Duration = Duration::from_secs(3600);

fn check(memory: u32, address: u32, size: u32, waits: bool) -> u32 {
    let state = active();
    let inside = |(_, length)| fits(address, size, length);
    if !address.is_multiple_of(size) {
        trap_number::UNALIGNED + 1
    } else if !state.memory(memory).is_some_and(inside) {
        trap_number::MEMORY_OUT_OF_BOUNDS + 1
    } else if waits && !state.is_shared(memory) {
        trap_number::NOT_SHARED + 1
    } else {
        DONE
    }
}

pub(crate) unsafe extern "C" fn may_wait32(_: *mut VMContext, memory: u32, address: u32) -> u32 {
    check(memory, address, 4, true)
}

pub(crate) unsafe extern "C" fn may_wait64(_: *mut VMContext, memory: u32, address: u32) -> u32 {
    check(memory, address, 8, true)
}

pub(crate) unsafe extern "C" fn may_notify(_: *mut VMContext, memory: u32, address: u32) -> u32 {
    check(memory, address, 4, false)
}

/// What stands at a checked address.
///
/// # Safety
///
/// The check for this size must have passed.
unsafe fn load<N: Copy + Default>(memory: u32, address: u32) -> N {
    let place = active().memory(memory);
    // SAFETY: as the caller promises; the guest, which alone writes there, waits for us.
    place.map_or_else(N::default, |(base, _)| unsafe {
        base.add(address as usize).cast::<N>().read_unaligned()
    })
}

pub(crate) unsafe extern "C" fn wait32(
    _: *mut VMContext,
    memory: u32,
    address: u32,
    expected: u32,
    timeout: i64,
) -> u32 {
    // SAFETY: `may_wait32` has passed.
    let found = unsafe { load::<u32>(memory, address) };
    wait(found == expected, timeout)
}

pub(crate) unsafe extern "C" fn wait64(
    _: *mut VMContext,
    memory: u32,
    address: u32,
    expected: u64,
    timeout: i64,
) -> u32 {
    // SAFETY: `may_wait64` has passed.
    let found = unsafe { load::<u64>(memory, address) };
    wait(found == expected, timeout)
}

pub(crate) unsafe extern "C" fn notify(_: *mut VMContext, _: u32, _: u32, _: u32) -> u32 {
    0
}

/// Waits so many nanoseconds, or for ever if the number is negative.
fn wait(is_equal: bool, timeout: i64) -> u32 {
    if !is_equal {
        return NOT_EQUAL;
    }
    let timeout = u64::try_from(timeout).ok().map(Duration::from_nanos);
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    while !signal::interrupted() {
        let left = end.map_or(NAP, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            break;
        }
        let left = left.min(NAP);
        // It ends when a signal comes; where that came before it, the monitor soon sends another one.
        let _ = nanosleep(&Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        });
    }
    TIMED_OUT
}
