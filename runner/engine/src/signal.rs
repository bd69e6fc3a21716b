//! Placeholder until the real handlers land.
use crate::stop::Stop;
pub(crate) fn leave_host() {}
/// # Safety
/// A guest must be on this stack.
pub(crate) unsafe fn raise(stop: Stop) -> ! {
    // SAFETY: the caller vouches.
    unsafe { wasmer_vm::raise_user_trap(Box::new(stop)) }
}
