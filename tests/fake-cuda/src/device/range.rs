//! Address space for device memory, inaccessible to the host; and threads that leave signals alone.
//!
//! The unsafe code here calls the kernel and touches no memory.

/// As much as is reserved: more than all devices have, and addresses are not used twice often.
const LENGTH: usize = 1 << 40;
/// Where the range begins if it cannot be reserved, for want of address space. Nothing is mapped
/// there on Linux unless somebody asks for it.
const FALLBACK: u64 = 0x2200_0000_0000;

/// The first address of the range.
pub(crate) fn reserve() -> u64 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice, without access: no memory that
    // anybody uses changes.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, libc::PROT_NONE, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        FALLBACK
    } else {
        // Addresses of real devices are multiples of 2 MiB.
        (address as u64).next_multiple_of(2 << 20)
    }
}

/// Blocks all signals in the calling thread: they are for the program's own threads.
pub(crate) fn block_signals() {
    // SAFETY: `sigset_t` is a plain bit set, for which zeros are valid; both calls write to it or
    // read it within this frame.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}
