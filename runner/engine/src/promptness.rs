//! Which threads run first: the monitor's at once when it wakes up, as it does little each time, and
//! those that run guests after the others.
//!
//! The requests need no privilege and are for the better only: where the kernel knows one of them
//! not, deadlines are kept less exactly and short requests cost more.
//!
//! Unsafe here assumes nothing: two system calls write and read a structure of ours.

use std::num::NonZero;

/// Time slice to ask for: the shortest that the kernel gives.
const SLICE_NANOSECONDS: u64 = 100_000;

/// Lets the calling thread run soon after it wakes up.
pub(crate) fn wake_promptly() {
    // Timers may be late by 50 us otherwise, so that several can be served at once.
    let _ = rustix::thread::set_current_timer_slack(NonZero::new(1));
    // A thread that asks for a short slice is preferred when it wakes up (Linux 6.12).
    change_schedule(|attributes| attributes.sched_runtime = SLICE_NANOSECONDS);
}

/// Keeps the calling thread from interrupting others when it wakes up, but not from having its share
/// of the CPU.
///
/// It is for threads that run guests. Otherwise one that is given a guest to run takes the core from
/// the very thread that has given it, which was about to give others: two switches for each of many
/// short runs.
pub fn run_as_batch() {
    change_schedule(|attributes| attributes.sched_policy = libc::SCHED_BATCH as u32);
}

/// Changes how the calling thread is scheduled, unless that is not as usual: who runs the whole process
/// with another policy has a reason.
fn change_schedule(change: impl FnOnce(&mut libc::sched_attr)) {
    let size = size_of::<libc::sched_attr>();
    // SAFETY: zeros are valid for this structure of numbers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes of the structure; 0 is the calling thread.
    let known =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } == 0;
    if known && attributes.sched_policy == libc::SCHED_OTHER as u32 {
        change(&mut attributes);
        // SAFETY: the structure says its own size and lives for the call.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}
