//! Makes the calling thread run soon after it wakes up: the monitor's, which does little each time.
//!
//! Both requests need no privilege and are for the better only: where the kernel knows one of them
//! not, deadlines are kept less exactly.
//!
//! Unsafe here assumes nothing: two system calls write and read a structure of ours.

use std::num::NonZero;

/// Time slice to ask for: the shortest that the kernel gives.
const SLICE_NANOSECONDS: u64 = 100_000;

/// See the module's documentation.
pub(crate) fn wake_promptly() {
    // Timers may be late by 50 us otherwise, so that several can be served at once.
    let _ = rustix::thread::set_current_timer_slack(NonZero::new(1));
    // A thread that asks for a short slice is preferred when it wakes up (Linux 6.12).
    let size = size_of::<libc::sched_attr>();
    // SAFETY: zeros are valid for this structure of numbers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes of the structure; 0 is the calling thread.
    let known =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } == 0;
    // Who runs the whole process with another policy has a reason.
    if known && attributes.sched_policy == libc::SCHED_OTHER as u32 {
        attributes.sched_runtime = SLICE_NANOSECONDS;
        // SAFETY: the structure says its own size and lives for the call.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}
