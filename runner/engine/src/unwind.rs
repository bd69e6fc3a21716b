//! Finds the guest frame that called the host, for the report of a run that ends in a host function or
//! a library call.
//!
//! ```text
//! guest frame                       has its return address in the artifact's code
//! thunk (libcalls.rs), if any       no unwind information, but a frame pointer
//! host frames                       unwind information, but no frame pointers
//! ```
//!
//! The platform's unwinder walks up as far as it can, which is to the guest's frame or to the thunk
//! below it. From a thunk, the frame pointer leads to the guest's frame. Only addresses in the
//! artifact's code are accepted.
//!
//! Unsafe code here assumes that the given stack range is mapped and belongs to this thread.

use std::ffi::{c_int, c_void};
use std::ops::Range;

/// DWARF number of the frame pointer register.
#[cfg(target_arch = "x86_64")]
const FRAME_POINTER: c_int = 6;
#[cfg(target_arch = "aarch64")]
const FRAME_POINTER: c_int = 29;

/// Any value but 0 ends a walk.
const STOP: c_int = 4;

unsafe extern "C" {
    // The unwinder interface of the Itanium C++ ABI.
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn _Unwind_GetGR(context: *mut c_void, register: c_int) -> usize;
}

#[derive(Debug)]
struct Walk {
    code: Range<usize>,
    pc: usize,
    fp: usize,
}

extern "C" fn visit(context: *mut c_void, walk: *mut c_void) -> c_int {
    // SAFETY: the unwinder passes its context and the argument of `innermost_guest_frame`, which
    // outlives the walk. Callees preserve the frame pointer, so the unwinder knows it in every frame.
    unsafe {
        let walk = &mut *walk.cast::<Walk>();
        walk.pc = _Unwind_GetIP(context);
        walk.fp = _Unwind_GetGR(context, FRAME_POINTER);
        if walk.code.contains(&walk.pc) {
            STOP
        } else {
            0
        }
    }
}

/// Returns the return address and the frame pointer of the innermost frame of `code` on `stack`, which
/// must be the current stack.
pub(crate) fn innermost_guest_frame(
    code: Range<usize>,
    stack: Range<usize>,
) -> Option<(usize, usize)> {
    let mut walk = Walk { code, pc: 0, fp: 0 };
    // SAFETY: `visit` does not unwind, and `walk` outlives the call.
    unsafe { _Unwind_Backtrace(visit, (&raw mut walk).cast()) };
    let Walk { code, pc, fp } = walk;
    if code.contains(&pc) {
        return Some((pc, fp));
    }
    let record = size_of::<[usize; 2]>();
    let on_stack = stack.contains(&fp) && stack.end - fp >= record && fp.is_multiple_of(record / 2);
    if !on_stack {
        return None;
    }
    // SAFETY: the two words are in the stack, which is mapped. They are checked before use.
    let [next, pc] = unsafe { *std::ptr::with_exposed_provenance::<[usize; 2]>(fp) };
    code.contains(&pc).then_some((pc, next))
}
