//! Scheduling of threads: the monitor runs at once when it wakes up, because it does little each
//! time, and threads that run guests do not preempt other threads.
//!
//! These requests need no privilege and are optional. On a kernel without one of them, deadlines are
//! less exact and short requests cost more.
//!
//! Unsafe code here assumes nothing: two system calls read and write a local structure.

use std::num::NonZero;

/// Requested time slice: the shortest that the kernel grants.
const SLICE_NANOSECONDS: u64 = 100_000;

/// Makes the calling thread run soon after it wakes up.
pub(crate) fn wake_promptly() {
    // By default a timer may be late by 50 us, so that the kernel can handle several at once.
    let _ = rustix::thread::set_current_timer_slack(NonZero::new(1));
    // A thread with a short slice is preferred when it wakes up (since Linux 6.12).
    change_schedule(|attributes| attributes.sched_runtime = SLICE_NANOSECONDS);
}

/// Keeps the calling thread from preempting other threads when it wakes up, without reducing its share of
/// the CPU.
///
/// It is meant for threads that run guests. Otherwise a thread that receives a guest to run takes the
/// core from the thread that sent it, which is about to send others: two switches for each of many
/// short runs.
pub fn run_as_batch() {
    change_schedule(|attributes| attributes.sched_policy = libc::SCHED_BATCH as u32);
}

/// Changes the scheduling of the calling thread if its policy is the default. An operator who runs the
/// process with another policy has a reason.
fn change_schedule(change: impl FnOnce(&mut libc::sched_attr)) {
    let size = size_of::<libc::sched_attr>();
    // SAFETY: all-zero bytes are valid for this structure of integers.
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
