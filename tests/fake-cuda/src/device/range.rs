//! Address space for device memory that the host cannot access, and blocking of signals in threads.
//!
//! The unsafe code here calls the kernel and touches no memory.

/// Size of the reserved range. It exceeds the memory of all devices, so that addresses are rarely reused.
const LENGTH: usize = 1 << 40;
/// Start of the range if there is not enough address space to reserve it. On Linux, nothing is mapped there unless a
/// program asks for it.
const FALLBACK: u64 = 0x2200_0000_0000;

/// The first address of the range.
pub(crate) fn reserve() -> u64 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: this makes a new mapping without access at an address that the kernel chooses, so no memory in use
    // changes.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, libc::PROT_NONE, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        FALLBACK
    } else {
        // Addresses of real devices are multiples of 2 MiB.
        (address as u64).next_multiple_of(2 << 20)
    }
}

/// Blocks all signals in the calling thread, because they are meant for the program's threads.
pub(crate) fn block_signals() {
    // SAFETY: `sigset_t` is a plain bit set, for which zeros are valid, and both calls access only this frame's
    // variable.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}
