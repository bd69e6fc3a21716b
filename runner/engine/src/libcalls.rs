//! Library calls: what compiled code calls in the engine.
//!
//! wasmer-vm has an implementation of each. Ours stand before or in place of them, so that
//!
//! - bulk operations work in chunks and end at a deadline between two of them,
//! - a trap in one is raised from guest code's own frame, with its place known for the backtrace,
//! - whatever used the red zone of the guest's stack closes it on the way back (`signal.rs`),
//! - `memory.init` reads the artifact's mapping and `table.grow` obeys the embedder's limit.
//!
//! Compiled code reaches them through relocations (LLVM) or through the table of built-in
//! functions in the instance's context (Cranelift); [`address_of`] and [`builtins`] serve both.
//!
//! Unsafe here assumes that [`State`] describes the instance whose code runs on this thread, and
//! that compiled code passes the arguments that wasmer's code generators are written to pass.

mod atomics;

use std::cell::Cell;
use std::ptr;

use wasmer_types::VMBuiltinFunctionIndex as Builtin;
use wasmer_vm::{VMContext, libcalls as vm};

use crate::signal;
use crate::state::{PassiveSegment, State};
use crate::stop::TrapKind;

/// Bytes or elements that a bulk operation handles between two looks at the deadline. At memory
/// speed this is some tens of microseconds.
const CHUNK: usize = 256 * 1024;

/// The numbers of traps on the boundary to compiled code: wasmer's, and some of ours.
pub(crate) mod trap_number {
    pub(crate) const MEMORY_OUT_OF_BOUNDS: u32 = 1;
    pub(crate) const TABLE_OUT_OF_BOUNDS: u32 = 3;
    pub(crate) const UNALIGNED: u32 = 10;
    pub(crate) const OUT_OF_MEMORY: u32 = 100;
    pub(crate) const NOT_SHARED: u32 = 101;
}

/// The kind of trap with wasmer's number (`wasmer_types::TrapCode`).
pub(crate) fn trap_kind(number: u32) -> TrapKind {
    match number {
        0 => TrapKind::StackOverflow,
        1 => TrapKind::MemoryOutOfBounds,
        2 | trap_number::UNALIGNED => TrapKind::UnalignedAtomic,
        3 => TrapKind::TableOutOfBounds,
        4 => TrapKind::IndirectCallToNull,
        5 => TrapKind::BadSignature,
        6 => TrapKind::IntegerOverflow,
        7 => TrapKind::IntegerDivisionByZero,
        8 => TrapKind::BadConversionToInteger,
        9 => TrapKind::Unreachable,
        11 => TrapKind::UncaughtException,
        12 => TrapKind::NullException,
        trap_number::OUT_OF_MEMORY => TrapKind::OutOfMemory,
        trap_number::NOT_SHARED => TrapKind::WaitOnUnshared,
        _ => TrapKind::Unknown,
    }
}

thread_local! {
    static ACTIVE: Cell<*const State> = const { Cell::new(ptr::null()) };
}

/// Makes `active` the instance that library calls of this thread work on while `run` runs.
pub(crate) fn with_active<R>(active: &State, run: impl FnOnce() -> R) -> R {
    struct Restore(*const State);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTIVE.set(self.0);
        }
    }
    let _restore = Restore(ACTIVE.replace(active));
    run()
}

pub(crate) fn active<'a>() -> &'a State {
    // SAFETY: only compiled code calls library calls, and it runs only inside of `with_active`.
    unsafe { &*ACTIVE.get() }
}

fn find(segments: &[PassiveSegment], index: u32) -> Option<&PassiveSegment> {
    segments.iter().find(|segment| segment.index == index)
}

pub(crate) fn fits(start: u32, length: u32, size: u64) -> bool {
    u64::from(start) + u64::from(length) <= size
}

/// Calls `work` with consecutive parts of `0..length`, from the end if `backwards`, and gives a
/// deadline its chance between them.
fn in_chunks(length: usize, backwards: bool, mut work: impl FnMut(usize, usize)) {
    let mut done = 0;
    while done < length {
        let part = CHUNK.min(length - done);
        let start = if backwards {
            length - done - part
        } else {
            done
        };
        work(start, part);
        done += part;
        if signal::interrupted() {
            break; // `leave_host` ends the run.
        }
    }
    signal::leave_host();
}

/// Success on the boundary to the thunks; a trap is its number plus one.
pub(crate) const DONE: u32 = 0;

unsafe extern "C" fn raise_trap(number: u32) -> u32 {
    number + 1
}

/// Bytes or elements with their number, or `None` where the guest names what it does not have.
type Target<E> = Option<(*mut E, u64)>;

/// Fills a part of a memory or table; `written` is told of each piece. Returns what its thunk
/// expects; `trap` is the trap for a range that is not inside.
///
/// # Safety
///
/// The target must be as large as it says, and nobody else's while this runs.
unsafe fn fill<E: Copy>(
    target: Target<E>,
    (to, length): (u32, u32),
    value: E,
    trap: u32,
    written: impl Fn(usize, usize),
) -> u32 {
    let Some((base, _)) = target.filter(|(_, size)| fits(to, length, *size)) else {
        return trap + 1;
    };
    in_chunks(length as usize, false, |start, part| {
        let start = to as usize + start;
        // SAFETY: the range was checked.
        unsafe { std::slice::from_raw_parts_mut(base.add(start), part) }.fill(value);
        written(start, part);
    });
    DONE
}

/// Copies between memories or tables, or inside of one; as [`fill`] besides.
///
/// # Safety
///
/// As [`fill`], for both.
unsafe fn copy<E: Copy>(
    (target, source): (Target<E>, Target<E>),
    (to, from, length): (u32, u32, u32),
    trap: u32,
    written: impl Fn(usize, usize),
) -> u32 {
    let target = target.filter(|(_, size)| fits(to, length, *size));
    let source = source.filter(|(_, size)| fits(from, length, *size));
    let (Some((target, _)), Some((source, _))) = (target, source) else {
        return trap + 1;
    };
    // SAFETY: both ranges were checked.
    let (target, source) = unsafe { (target.add(to as usize), source.add(from as usize)) };
    let backwards = target.addr() > source.addr();
    in_chunks(length as usize, backwards, |start, part| {
        // SAFETY: part of the checked ranges; `copy` allows the overlap inside a chunk, and the
        // direction keeps chunks from overwriting what is still to be read.
        unsafe { ptr::copy(source.add(start), target.add(start), part) };
        written(to as usize + start, part);
    });
    DONE
}

unsafe extern "C" fn memory_fill(
    _: *mut VMContext,
    memory: u32,
    to: u32,
    value: u32,
    length: u32,
) -> u32 {
    let target = active().memory_to_write(memory, to, length);
    let trap = trap_number::MEMORY_OUT_OF_BOUNDS;
    // SAFETY: a memory is so large and cannot shrink; its guest waits for us.
    unsafe { fill(target, (to, length), value as u8, trap, |_, _| ()) }
}

unsafe extern "C" fn table_fill(
    _: *mut VMContext,
    table: u32,
    to: u32,
    element: usize,
    length: u32,
) -> u32 {
    let (target, trap) = (active().table(table), trap_number::TABLE_OUT_OF_BOUNDS);
    let written = |start, part| active().table_written(table, start, part);
    // SAFETY: as for memories.
    unsafe { fill(target, (to, length), element, trap, written) }
}

unsafe extern "C" fn memory_copy(
    _: *mut VMContext,
    to_memory: u32,
    from_memory: u32,
    to: u32,
    from: u32,
    length: u32,
) -> u32 {
    let target = active().memory_to_write(to_memory, to, length);
    let memories = (target, active().memory(from_memory));
    let trap = trap_number::MEMORY_OUT_OF_BOUNDS;
    // SAFETY: as for `memory_fill`.
    unsafe { copy(memories, (to, from, length), trap, |_, _| ()) }
}

unsafe extern "C" fn table_copy(
    _: *mut VMContext,
    to_table: u32,
    from_table: u32,
    to: u32,
    from: u32,
    length: u32,
) -> u32 {
    let tables = (active().table(to_table), active().table(from_table));
    let trap = trap_number::TABLE_OUT_OF_BOUNDS;
    let written = |start, part| active().table_written(to_table, start, part);
    // SAFETY: as for `memory_fill`.
    unsafe { copy(tables, (to, from, length), trap, written) }
}

unsafe extern "C" fn memory_init(
    _: *mut VMContext,
    memory: u32,
    segment: u32,
    to: u32,
    from: u32,
    length: u32,
) -> u32 {
    let target = active()
        .memory_to_write(memory, to, length)
        .filter(|(_, size)| fits(to, length, *size));
    let segment = find(&active().data, segment);
    let size = segment.map_or(0, |segment| segment.length.get());
    let (Some((target, _)), true) = (target, fits(from, length, size as u64)) else {
        return trap_number::MEMORY_OUT_OF_BOUNDS + 1;
    };
    if let Some(segment) = segment {
        in_chunks(length as usize, false, |start, part| {
            // SAFETY: both ranges were checked; the segment lies in the artifact's read-only
            // mapping, so it cannot overlap a memory.
            unsafe {
                let source = segment.bytes.add(from as usize + start);
                ptr::copy_nonoverlapping(source, target.add(to as usize + start), part);
            }
        });
    }
    DONE
}

unsafe extern "C" fn data_drop(_: *mut VMContext, segment: u32) -> u32 {
    if let Some(segment) = find(&active().data, segment) {
        segment.length.set(0);
    }
    DONE
}

unsafe extern "C" fn table_init(
    context: *mut VMContext,
    table: u32,
    segment: u32,
    to: u32,
    from: u32,
    length: u32,
) -> u32 {
    let target = active()
        .table(table)
        .filter(|(_, size)| fits(to, length, *size));
    let size = find(&active().elements, segment).map_or(0, |segment| segment.length.get());
    if target.is_none() || !fits(from, length, size as u64) {
        return trap_number::TABLE_OUT_OF_BOUNDS + 1;
    }
    if !active().is_function_table(table) {
        // The elements of such a segment are all null. wasmer-vm would write null function references,
        // and panics if the table has another type.
        let trap = trap_number::TABLE_OUT_OF_BOUNDS;
        // SAFETY: as in `table_fill`. A null reference is zero.
        return unsafe { fill(target, (to, length), 0usize, trap, |_, _| ()) };
    }
    in_chunks(length as usize, false, |start, part| {
        let start = start as u32;
        // SAFETY: `context` is the running instance's; the ranges were checked, so that the call
        // neither traps nor unwinds.
        unsafe {
            vm::wasmer_vm_table_init(
                context,
                table,
                segment,
                to + start,
                from + start,
                part as u32,
            )
        }
    });
    DONE
}

unsafe extern "C" fn elem_drop(context: *mut VMContext, segment: u32) -> u32 {
    if let Some(found) = find(&active().elements, segment) {
        found.length.set(0);
        // SAFETY: `context` is the running instance's.
        unsafe { vm::wasmer_vm_elem_drop(context, segment) }
    }
    DONE
}

/// Whether `table.grow` may go on, or else meets the limit, which holds for all tables together; what
/// wasmer's implementation does then cannot fail for us.
unsafe extern "C" fn may_grow_table(delta: u32) -> u32 {
    let active = active();
    let size = active.table_elements();
    let fits = size.saturating_add(u64::from(delta)) <= u64::from(active.table_limit);
    if !fits {
        active.table_limited.set(true);
    }
    u32::from(fits)
}

unsafe extern "C" fn table_grow(
    context: *mut VMContext,
    element: usize,
    delta: u32,
    table: u32,
) -> u32 {
    // SAFETY: only reads the active instance.
    if unsafe { may_grow_table(delta) } == 0 {
        return u32::MAX;
    }
    // SAFETY: the function's own type names a union of pointers, which is passed like a `usize`
    // (transparent to the calling convention); compiled code calls it the same way.
    let grow: unsafe extern "C" fn(*mut VMContext, usize, u32, u32) -> u32 =
        unsafe { std::mem::transmute(vm::wasmer_vm_table_grow as *const ()) };
    // SAFETY: `context` is the running instance's, the arguments are compiled code's.
    unsafe { grow(context, element, delta, table) }
}

/// Whether a table has an element of this number.
unsafe extern "C" fn has_element(_: *mut VMContext, table: u32, index: u32) -> u32 {
    match active().table(table) {
        Some((_, size)) if u64::from(index) < size => DONE,
        _ => trap_number::TABLE_OUT_OF_BOUNDS + 1,
    }
}

/// Whether there is room for one more exception of this tag.
unsafe extern "C" fn has_room_for_exception(_: *mut VMContext, tag: u32) -> u32 {
    match active().count_exception(tag) {
        true => DONE,
        false => trap_number::OUT_OF_MEMORY + 1,
    }
}

/// For calls that may end the run somewhere inside of wasmer-vm.
extern "C" fn note_call(return_address: usize, fp: usize) {
    signal::note_call(return_address, fp);
}

/// Where thunks go with a trap: still on the guest's stack, with no frame of ours below.
unsafe extern "C" fn trap_in_guest(number: u32, pc: usize, fp: usize) -> ! {
    // SAFETY: the thunk was called by guest code and has left nothing behind on this stack.
    unsafe { signal::raise_trap(trap_kind(number - 1), pc, fp) }
}

extern "C" fn leave_host() {
    signal::leave_host();
}

/// A thunk in front of a function that returns [`DONE`] or a trap. It keeps the guest's frame
/// pointer and return address at hand for the backtrace.
macro_rules! trapping {
    ($($thunk:ident => $function:path;)*) => {$(
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $thunk() {
            #[cfg(target_arch = "x86_64")]
            std::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "call {function}",
                "pop rbp",
                "test eax, eax",
                "jnz 2f",
                "ret",
                "2:",
                "mov edi, eax",
                "mov rsi, [rsp]",
                "mov rdx, rbp",
                "jmp {trap}",
                function = sym $function,
                trap = sym super::trap_in_guest,
            );
            #[cfg(target_arch = "aarch64")]
            std::arch::naked_asm!(
                "stp x29, x30, [sp, #-16]!",
                "mov x29, sp",
                "bl {function}",
                "ldp x29, x30, [sp], #16",
                "cbnz w0, 2f",
                "ret",
                "2:",
                "mov x1, x30",
                "mov x2, x29",
                "b {trap}",
                function = sym $function,
                trap = sym super::trap_in_guest,
            );
        }
    )*};
}

/// A thunk in front of a function that returns a number: afterwards it does what every way back to
/// the guest does, and keeps the result meanwhile.
macro_rules! returning {
    ($($thunk:ident => $function:path;)*) => {$(
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $thunk() {
            #[cfg(target_arch = "x86_64")]
            std::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "call {function}",
                "sub rsp, 32",
                "mov [rsp], rax",
                "movups [rsp + 16], xmm0",
                "call {leave}",
                "movups xmm0, [rsp + 16]",
                "mov rax, [rsp]",
                "leave",
                "ret",
                function = sym $function,
                leave = sym super::leave_host,
            );
            #[cfg(target_arch = "aarch64")]
            std::arch::naked_asm!(
                "stp x29, x30, [sp, #-16]!",
                "mov x29, sp",
                "bl {function}",
                "stp x0, x1, [sp, #-16]!",
                "str q0, [sp, #-16]!",
                "bl {leave}",
                "ldr q0, [sp], #16",
                "ldp x0, x1, [sp], #16",
                "ldp x29, x30, [sp], #16",
                "ret",
                function = sym $function,
                leave = sym super::leave_host,
            );
        }
    )*};
}

/// A thunk in front of another one, with a check that returns [`DONE`] or a trap and sees the same
/// arguments.
macro_rules! checking {
    ($($thunk:ident => $check:path, $next:path;)*) => {$(
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $thunk() {
            #[cfg(target_arch = "x86_64")]
            std::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "push rdi",
                "push rsi",
                "push rdx",
                "push rcx",
                "push r8",
                "push r9",
                "call {check}",
                "pop r9",
                "pop r8",
                "pop rcx",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                "pop rbp",
                "test eax, eax",
                "jz {next}",
                "mov edi, eax",
                "mov rsi, [rsp]",
                "mov rdx, rbp",
                "jmp {trap}",
                check = sym $check,
                next = sym $next,
                trap = sym super::trap_in_guest,
            );
            #[cfg(target_arch = "aarch64")]
            std::arch::naked_asm!(
                "stp x29, x30, [sp, #-16]!",
                "mov x29, sp",
                "stp x0, x1, [sp, #-16]!",
                "stp x2, x3, [sp, #-16]!",
                "stp x4, x5, [sp, #-16]!",
                "bl {check}",
                "mov w9, w0",
                "ldp x4, x5, [sp], #16",
                "ldp x2, x3, [sp], #16",
                "ldp x0, x1, [sp], #16",
                "ldp x29, x30, [sp], #16",
                "cbnz w9, 2f",
                "b {next}",
                "2:",
                "mov w0, w9",
                "mov x1, x30",
                "mov x2, x29",
                "b {trap}",
                check = sym $check,
                next = sym $next,
                trap = sym super::trap_in_guest,
            );
        }
    )*};
}

mod thunk {
    use super::atomics;
    use super::vm;

    /// In front of a function that unwinds through guest code, and so must seem to be called by it.
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn throw() {
        #[cfg(target_arch = "x86_64")]
        std::arch::naked_asm!(
            "push rdi",
            "push rsi",
            "sub rsp, 8",
            "mov rdi, [rsp + 24]",
            "mov rsi, rbp",
            "call {note}",
            "add rsp, 8",
            "pop rsi",
            "pop rdi",
            "jmp {throw}",
            note = sym super::note_call,
            throw = sym vm::wasmer_vm_throw,
        );
        #[cfg(target_arch = "aarch64")]
        std::arch::naked_asm!(
            "stp x29, x30, [sp, #-16]!",
            "stp x0, x1, [sp, #-16]!",
            "mov x0, x30",
            "mov x1, x29",
            "bl {note}",
            "ldp x0, x1, [sp], #16",
            "ldp x29, x30, [sp], #16",
            "b {throw}",
            note = sym super::note_call,
            throw = sym vm::wasmer_vm_throw,
        );
    }

    trapping! {
        raise_trap => super::raise_trap;
        memory_fill => super::memory_fill;
        memory_copy => super::memory_copy;
        memory_init => super::memory_init;
        data_drop => super::data_drop;
        table_copy => super::table_copy;
        table_fill => super::table_fill;
        table_init => super::table_init;
        elem_drop => super::elem_drop;
    }

    checking! {
        table_get => super::has_element, get_element;
        table_set => super::has_element, set_element;
        alloc_exception => super::has_room_for_exception, make_exception;
        wait32 => atomics::may_wait32, start_wait32;
        wait64 => atomics::may_wait64, start_wait64;
        notify => atomics::may_notify, start_notify;
    }

    returning! {
        get_element => vm::wasmer_vm_table_get;
        set_element => vm::wasmer_vm_table_set;
        make_exception => vm::wasmer_vm_alloc_exception;
        table_grow => super::table_grow;
        memory_grow => vm::wasmer_vm_memory32_grow;
        memory_size => vm::wasmer_vm_memory32_size;
        table_size => vm::wasmer_vm_table_size;
        func_ref => vm::wasmer_vm_func_ref;
        start_wait32 => atomics::wait32;
        start_wait64 => atomics::wait64;
        start_notify => atomics::notify;
        read_exnref => vm::wasmer_vm_read_exnref;
        exception_into_exnref => vm::wasmer_vm_exception_into_exnref;
        ceil_f32 => vm::wasmer_vm_f32_ceil;
        ceil_f64 => vm::wasmer_vm_f64_ceil;
        floor_f32 => vm::wasmer_vm_f32_floor;
        floor_f64 => vm::wasmer_vm_f64_floor;
        nearest_f32 => vm::wasmer_vm_f32_nearest;
        nearest_f64 => vm::wasmer_vm_f64_nearest;
        sqrt_f32 => vm::wasmer_vm_f32_sqrt;
        sqrt_f64 => vm::wasmer_vm_f64_sqrt;
        trunc_f32 => vm::wasmer_vm_f32_trunc;
        trunc_f64 => vm::wasmer_vm_f64_trunc;
    }
}

/// Address of the library call that an artifact names in a relocation; `None` if there is none of
/// that name. Calls on imported memories and tables are missing, as nobody provides such imports.
pub(crate) fn address_of(name: &str) -> Option<usize> {
    let thunk: unsafe extern "C" fn() = match name {
        "wasmer_vm_raise_trap" => thunk::raise_trap,
        "wasmer_vm_memory32_fill" => thunk::memory_fill,
        "wasmer_vm_memory32_copy" => thunk::memory_copy,
        "wasmer_vm_memory32_init" => thunk::memory_init,
        "wasmer_vm_data_drop" => thunk::data_drop,
        "wasmer_vm_table_copy" => thunk::table_copy,
        "wasmer_vm_table_fill" => thunk::table_fill,
        "wasmer_vm_table_init" => thunk::table_init,
        "wasmer_vm_elem_drop" => thunk::elem_drop,
        "wasmer_vm_table_grow" => thunk::table_grow,
        "wasmer_vm_memory32_grow" => thunk::memory_grow,
        "wasmer_vm_memory32_size" => thunk::memory_size,
        "wasmer_vm_table_size" => thunk::table_size,
        "wasmer_vm_table_get" => thunk::table_get,
        "wasmer_vm_table_set" => thunk::table_set,
        "wasmer_vm_func_ref" => thunk::func_ref,
        "wasmer_vm_memory32_atomic_wait32" => thunk::wait32,
        "wasmer_vm_memory32_atomic_wait64" => thunk::wait64,
        "wasmer_vm_memory32_atomic_notify" => thunk::notify,
        "wasmer_vm_alloc_exception" => thunk::alloc_exception,
        "wasmer_vm_read_exnref" => thunk::read_exnref,
        "wasmer_vm_exception_into_exnref" => thunk::exception_into_exnref,
        "ceilf" | "wasmer_vm_f32_ceil" => thunk::ceil_f32,
        "ceil" | "wasmer_vm_f64_ceil" => thunk::ceil_f64,
        "floorf" | "wasmer_vm_f32_floor" => thunk::floor_f32,
        "floor" | "wasmer_vm_f64_floor" => thunk::floor_f64,
        "nearbyintf" | "wasmer_vm_f32_nearest" => thunk::nearest_f32,
        "nearbyint" | "wasmer_vm_f64_nearest" => thunk::nearest_f64,
        "sqrtf" | "wasmer_vm_f32_sqrt" => thunk::sqrt_f32,
        "sqrt" | "wasmer_vm_f64_sqrt" => thunk::sqrt_f64,
        "truncf" | "wasmer_vm_f32_trunc" => thunk::trunc_f32,
        "trunc" | "wasmer_vm_f64_trunc" => thunk::trunc_f64,
        "wasmer_vm_throw" => thunk::throw,
        // The unwinder's functions are called as they are.
        "wasmer_eh_personality" => return Some(vm::wasmer_eh_personality as *const () as usize),
        "wasmer_eh_personality2" => return Some(vm::wasmer_eh_personality2 as *const () as usize),
        _ => return None,
    };
    Some(thunk as *const () as usize)
}

/// The entries of an instance's table of built-in functions that are ours.
pub(crate) fn builtins() -> [(Builtin, usize); 23] {
    let entry =
        |index: Builtin, thunk: unsafe extern "C" fn()| (index, thunk as *const () as usize);
    [
        entry(Builtin::get_raise_trap_index(), thunk::raise_trap),
        entry(Builtin::get_memory_fill_index(), thunk::memory_fill),
        entry(Builtin::get_memory_copy_index(), thunk::memory_copy),
        entry(Builtin::get_memory_init_index(), thunk::memory_init),
        entry(Builtin::get_data_drop_index(), thunk::data_drop),
        entry(Builtin::get_table_copy_index(), thunk::table_copy),
        entry(Builtin::get_table_fill_index(), thunk::table_fill),
        entry(Builtin::get_table_init_index(), thunk::table_init),
        entry(Builtin::get_elem_drop_index(), thunk::elem_drop),
        entry(Builtin::get_table_grow_index(), thunk::table_grow),
        entry(Builtin::get_memory32_grow_index(), thunk::memory_grow),
        entry(Builtin::get_memory32_size_index(), thunk::memory_size),
        entry(Builtin::get_table_size_index(), thunk::table_size),
        entry(Builtin::get_table_get_index(), thunk::table_get),
        entry(Builtin::get_table_set_index(), thunk::table_set),
        entry(Builtin::get_func_ref_index(), thunk::func_ref),
        entry(Builtin::get_memory_atomic_wait32_index(), thunk::wait32),
        entry(Builtin::get_memory_atomic_wait64_index(), thunk::wait64),
        entry(Builtin::get_memory_atomic_notify_index(), thunk::notify),
        entry(Builtin::get_imported_throw_index(), thunk::throw),
        entry(
            Builtin::get_imported_alloc_exception_index(),
            thunk::alloc_exception,
        ),
        entry(
            Builtin::get_imported_read_exnref_index(),
            thunk::read_exnref,
        ),
        entry(
            Builtin::get_imported_exception_into_exnref_index(),
            thunk::exception_into_exnref,
        ),
    ]
}
