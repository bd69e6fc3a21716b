//! Signals: how faults and deadlines stop a guest.
//!
//! A worker thread runs guest code on a separate stack. Two kinds of signals concern it: faults
//! (SIGSEGV, SIGBUS, SIGFPE, SIGILL), raised by the guest's instructions, and [`INTERRUPT`],
//! sent by the monitor thread (`deadline.rs`) when a run must end. The handler decides by the program
//! counter:
//!
//! ```text
//! in the artifact's code,    the page is write-protected (write_protect.rs): lift the protection
//! fault at a protected page  and continue
//! in the artifact's code     no lock is held and no destructor is pending: continue in a stub
//!                            that ends the run
//! elsewhere, INTERRUPT       remember it; every host function checks when it returns
//! elsewhere, fault in the    a host function exhausted the guest's stack: open the red zone and
//! red zone                   continue; the host function's return closes it, or ends the run if
//!                            the guest itself is at the end of its stack
//! elsewhere, another fault   not ours: pass it to the handler that was installed before
//! ```
//!
//! A fault signal that another process or thread *sent* is not the guest's fault, wherever the program
//! counter is. It is passed on, too.
//!
//! The **red zone** is the end of a guest's stack. It is inaccessible while guest code runs and reserves
//! space for the few host frames on the guest's stack (entry shims, library calls and the stubs
//! below), however deep the guest has recursed.
//!
//! ```text
//! low                                                                  high
//! | guard page | red zone | . . . . guest frames grow down . . . . . . . |
//!              ^ stack_low ^ red_zone_end                       stack_high ^
//! ```
//!
//! Unsafe here assumes: [`install`] ran once before any guest; the handler runs on the alternate
//! signal stack that wasmer-vm registers for every thread that enters a guest; only a thread itself
//! publishes its [`Thread`] to the handler, and the `Thread` lives until that thread withdraws it.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize};

use crate::stop::{Interruption, Stop, TrapKind};
use crate::unwind;
use crate::write_protect::WriteProtection;

/// The signal that ends a run. The monitor sends it to single threads. The handler ignores it if no run
/// is to end, so a signal from elsewhere has no effect.
pub(crate) const INTERRUPT: i32 = libc::SIGUSR2;

/// Size of the red zone in bytes. The deepest host frames on a guest's stack are those of a panic that
/// has not reached its hook, an allocation and a stack switch: together less than 6 KiB, measured.
pub(crate) const RED_ZONE: usize = 64 * 1024;

/// Minimum distance of a frame from the red zone to close it: more than the closing code needs.
const CLEARANCE: usize = 1024;

const FAULTS: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];

/// What the handler knows about the thread that it interrupts. The fields are atomic because the
/// monitor and the handler read what the thread writes.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    /// The kernel's thread ID.
    tid: AtomicI32,
    /// The thread's CPU clock.
    clock: AtomicI32,
    /// Number of the current run, 0 between runs.
    run: AtomicU64,
    /// Number of the run that must end.
    target: AtomicU64,
    reason: AtomicU8,
    /// The next return from a host function has something to do.
    attention: AtomicBool,
    interrupted: AtomicBool,
    red_zone_open: AtomicBool,
    code_start: AtomicUsize,
    code_end: AtomicUsize,
    /// The write protection of the run's memory, or null.
    protection: AtomicPtr<WriteProtection>,
    stack_low: AtomicUsize,
    stack_high: AtomicUsize,
    /// Program counter, frame pointer, signal and address of the last fault in guest code.
    fault_pc: AtomicUsize,
    fault_fp: AtomicUsize,
    fault_signal: AtomicI32,
    fault_address: AtomicUsize,
}

thread_local! {
    /// Plain data without a destructor, so that the handler may read it at any time.
    static CURRENT: Cell<*const Thread> = const { Cell::new(ptr::null()) };
}

/// Calls `visit` with the calling thread's published state, if a run is in progress on it.
fn with_current<R>(visit: impl FnOnce(&Thread) -> R) -> Option<R> {
    // SAFETY: the pointer is null or was published by `RunGuard::new` on this thread. The guard
    // borrows the state and withdraws the pointer when it is dropped, which cannot happen on this
    // thread before `visit` returns: the reference does not escape `visit`.
    let thread = unsafe { CURRENT.get().as_ref() };
    thread.map(visit)
}

/// Position in guest code at which a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct GuestFrame {
    /// Program counter, 0 if unknown.
    pub(crate) pc: usize,
    /// Frame pointer.
    pub(crate) fp: usize,
    /// Signal number of a fault, 0 if there was none.
    pub(crate) signal: i32,
    /// Address of a fault.
    pub(crate) address: usize,
}

impl Thread {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Number of the current run, 0 if there is none.
    pub(crate) fn run(&self) -> u64 {
        self.run.load(SeqCst)
    }

    /// Asks the handler to end the run with this number, and signals the thread. Must be repeated
    /// until the run is over, because a host function may be between its check and the guest.
    pub(crate) fn interrupt(&self, run: u64, reason: Interruption) {
        self.reason.store(reason as u8, SeqCst);
        self.target.store(run, SeqCst);
        // SAFETY: sends a signal to a thread of this process by its ID. If the thread is gone, the
        // call fails. If another thread has the ID now, it has no run with this number.
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                libc::getpid(),
                self.tid.load(SeqCst),
                INTERRUPT,
            );
        }
    }

    /// CPU time that the thread has used, in nanoseconds; 0 before its first run. Any thread may call it.
    pub(crate) fn cpu_time(&self) -> u64 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let clock = self.clock.load(SeqCst);
        // SAFETY: writes one `timespec`. For a thread that is gone the call returns an error and
        // leaves the zeros.
        if clock != 0 && unsafe { libc::clock_gettime(clock, &mut time) } == 0 {
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        } else {
            0
        }
    }

    fn reason(&self) -> Interruption {
        Interruption::from_number(self.reason.load(SeqCst))
    }

    fn in_code(&self, pc: usize) -> bool {
        pc >= self.code_start.load(Relaxed) && pc < self.code_end.load(Relaxed)
    }

    /// The write protection of the run's memory.
    fn protection(&self) -> Option<&WriteProtection> {
        // SAFETY: null or published by `RunGuard::new`, which borrows it until it withdraws the
        // pointer. Only the run's own thread and its handler read it.
        unsafe { self.protection.load(Relaxed).as_ref() }
    }

    fn in_red_zone(&self, address: usize) -> bool {
        let low = self.stack_low.load(Relaxed);
        low != 0 && address >= low && address < low + RED_ZONE
    }

    /// Whether an address lies in the red zone or the guard page under it.
    pub(crate) fn is_stack_end(&self, address: usize) -> bool {
        let low = self.stack_low.load(Relaxed);
        let page = rustix::param::page_size();
        low != 0 && address >= low - page && address < low + RED_ZONE
    }

    fn protect_red_zone(&self, protection: i32) {
        let low = self.stack_low.load(Relaxed);
        // SAFETY: `stack_low` is the low end of this thread's guest stack (`enter_stack`), which
        // stays mapped during the run. Only the red zone's access changes.
        unsafe {
            libc::mprotect(low as *mut libc::c_void, RED_ZONE, protection);
        }
    }

    /// Records the guest's stack. To be called on that stack, before guest code. `size` is the size that
    /// was requested from wasmer-vm, which rounds it up to pages.
    pub(crate) fn enter_stack(&self, size: usize) {
        let page = rustix::param::page_size();
        let marker = 0u8;
        // The first frames of a fresh stack are in its highest page.
        let high = (ptr::from_ref(&marker).addr()).next_multiple_of(page);
        let low = high - size.next_multiple_of(page);
        self.stack_high.store(high, Relaxed);
        if self.stack_low.swap(low, Relaxed) != low {
            self.protect_red_zone(libc::PROT_NONE);
        }
    }

    /// Calls `visit` with each return address on the guest's stack, innermost first, until it returns
    /// `false` or the chain of frame pointers leaves the stack. To be called on the same thread
    /// after a run and before the next one.
    pub(crate) fn walk_frames(&self, mut fp: usize, mut visit: impl FnMut(usize) -> bool) {
        let low = self.stack_low.load(Relaxed) + RED_ZONE;
        let high = self.stack_high.load(Relaxed);
        let word = size_of::<usize>();
        while fp >= low && fp + 2 * word <= high && fp.is_multiple_of(word) {
            // SAFETY: the two words are in the guest's stack, outside the red zone. The stack stays
            // mapped after the run, in this thread's cache, and nothing writes it meanwhile. The
            // values may be arbitrary; they are checked before use.
            let [next, return_address] =
                unsafe { *std::ptr::with_exposed_provenance::<[usize; 2]>(fp) };
            if next <= fp || !visit(return_address) {
                break;
            }
            fp = next;
        }
    }

    /// Records the guest code that has called the host, if it can be found.
    fn note_caller(&self) {
        let code = self.code_start.load(Relaxed)..self.code_end.load(Relaxed);
        let stack = self.stack_low.load(Relaxed)..self.stack_high.load(Relaxed);
        match unwind::innermost_guest_frame(code, stack) {
            Some((return_address, fp)) => self.note_call(return_address, fp),
            None => self.fault_pc.store(0, Relaxed),
        }
    }

    /// Records the position of guest code by the return address of its call. The return address is
    /// after the call, so it may be after the end of the function; the recorded address is not.
    fn note_call(&self, return_address: usize, fp: usize) {
        self.fault_pc.store(return_address - 1, Relaxed);
        self.fault_fp.store(fp, Relaxed);
    }

    /// Position of guest code when the run ended.
    pub(crate) fn last_frame(&self) -> GuestFrame {
        GuestFrame {
            pc: self.fault_pc.load(Relaxed),
            fp: self.fault_fp.load(Relaxed),
            signal: self.fault_signal.load(Relaxed),
            address: self.fault_address.load(Relaxed),
        }
    }
}

/// Publishes a run to the handler while it exists.
pub(crate) struct RunGuard<'a> {
    thread: &'a Thread,
    outer: *const Thread,
}

impl<'a> RunGuard<'a> {
    /// Begins run number `run` of an artifact whose code is at `code`, on a memory with this write
    /// protection.
    pub(crate) fn new(
        thread: &'a Thread,
        run: u64,
        code: std::ops::Range<usize>,
        protection: Option<&'a WriteProtection>,
    ) -> Self {
        if thread.tid.load(Relaxed) == 0 {
            thread
                .tid
                .store(rustix::thread::gettid().as_raw_nonzero().get(), SeqCst);
            let mut clock = libc::CLOCK_THREAD_CPUTIME_ID;
            // SAFETY: asks for the clock of the calling thread, which exists.
            unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
            thread.clock.store(clock, SeqCst);
        }
        thread.code_start.store(code.start, Relaxed);
        thread.code_end.store(code.end, Relaxed);
        let protection = protection.map_or(ptr::null(), ptr::from_ref);
        thread.protection.store(protection.cast_mut(), Relaxed);
        thread.fault_pc.store(0, Relaxed);
        thread.fault_signal.store(0, Relaxed);
        thread.interrupted.store(false, Relaxed);
        thread.attention.store(false, Relaxed);
        let outer = CURRENT.replace(thread);
        thread.run.store(run, SeqCst);
        Self { thread, outer }
    }
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        self.thread.run.store(0, SeqCst);
        self.thread.protection.store(ptr::null_mut(), Relaxed);
        CURRENT.set(self.outer);
        if self.thread.red_zone_open.swap(false, Relaxed) {
            self.thread.protect_red_zone(libc::PROT_NONE);
        }
    }
}

/// Every host function and library call calls this before it returns to the guest, on the guest's
/// stack, with nothing left to drop.
#[inline]
pub(crate) fn leave_host() {
    with_current(|thread| {
        if thread.attention.load(Relaxed) {
            attend(thread);
        }
    });
}

#[cold]
fn attend(thread: &Thread) {
    thread.attention.store(false, Relaxed);
    if thread.interrupted.load(Relaxed) {
        // SAFETY: a guest is on this stack, because only host functions and library calls come
        // here, and no frame in between holds anything to drop.
        unsafe { raise(Stop::Interrupted(thread.reason())) }
    }
    if thread.red_zone_open.load(Relaxed) {
        let marker = 0u8;
        if ptr::from_ref(&marker).addr() < thread.stack_low.load(Relaxed) + RED_ZONE + CLEARANCE {
            // The guest called the host from the very end of its stack. It must not continue with
            // an open red zone, and the red zone cannot be closed while this frame is in it.
            // SAFETY: as above.
            unsafe { raise(Stop::Trap(TrapKind::StackOverflow)) }
        }
        thread.red_zone_open.store(false, Relaxed);
        thread.protect_red_zone(libc::PROT_NONE);
    }
}

/// Makes a range of guest memory writable for the host (system calls, host functions and library
/// calls). Returns `false` if the system refuses. Ranges outside the run's memory are ignored.
#[inline]
pub(crate) fn allow_write(start: *const u8, length: usize) -> bool {
    let range = start.addr()..start.addr() + length;
    with_current(|thread| {
        let protection = thread.protection();
        protection.is_none_or(|protection| protection.allow(range))
    })
    .unwrap_or(true)
}

/// Whether an interruption is pending. Long library calls ask between their chunks.
pub(crate) fn interrupted() -> bool {
    with_current(|thread| thread.interrupted.load(Relaxed)).unwrap_or(false)
}

/// Ends the run of the guest that is on this stack and has called the host.
///
/// # Safety
///
/// Guest code must be on this stack, and no frame above it may hold a value with a destructor.
pub(crate) unsafe fn raise(stop: Stop) -> ! {
    let is_reported = matches!(stop, Stop::Interrupted(_) | Stop::Trap(_));
    if is_reported {
        with_current(Thread::note_caller);
    }
    // SAFETY: the caller's contract.
    unsafe { raise_here(stop) }
}

/// Ends the run with a trap of a library call. Return address and frame pointer are those of the guest
/// code that called it.
///
/// # Safety
///
/// As [`raise`].
pub(crate) unsafe fn raise_trap(kind: TrapKind, return_address: usize, fp: usize) -> ! {
    note_call(return_address, fp);
    // SAFETY: the caller's contract.
    unsafe { raise_here(Stop::Trap(kind)) }
}

/// Records the position of guest code before a call of wasmer-vm that may end the run.
pub(crate) fn note_call(return_address: usize, fp: usize) {
    with_current(|thread| thread.note_call(return_address, fp));
}

/// Ends the run of the guest whose position was recorded.
///
/// # Safety
///
/// As [`raise`].
unsafe fn raise_here(stop: Stop) -> ! {
    // SAFETY: the caller's contract.
    unsafe { wasmer_vm::raise_user_trap(Box::new(stop)) }
}

/// Guest code continues here after a fault or an interruption.
unsafe extern "C" fn stub() -> ! {
    let interruption =
        with_current(|thread| (thread.fault_signal.load(Relaxed) == 0).then(|| thread.reason()));
    let stop = match interruption.flatten() {
        Some(reason) => Stop::Interrupted(reason),
        // The kind of trap is determined later, off the guest's stack.
        None => Stop::Trap(TrapKind::Unknown),
    };
    // SAFETY: the handler redirected guest code to here, so a guest is on this stack and nothing is
    // to be dropped.
    unsafe { raise_here(stop) }
}

struct Previous([MaybeUninit<libc::sigaction>; FAULTS.len()]);
// SAFETY: plain data, written once before it is shared.
unsafe impl Send for Previous {}
// SAFETY: as above; it is only read afterwards.
unsafe impl Sync for Previous {}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

/// Installs the handlers, once per process.
pub(crate) fn install() {
    PREVIOUS.get_or_init(|| {
        let mut previous = Previous([MaybeUninit::uninit(); FAULTS.len()]);
        for (signal, slot) in FAULTS.into_iter().zip(&mut previous.0) {
            // SAFETY: reads the current action into a slot that is large enough.
            unsafe { libc::sigaction(signal, ptr::null(), slot.as_mut_ptr()) };
        }
        previous
    });
    static INSTALLED: std::sync::Once = std::sync::Once::new();
    INSTALLED.call_once(|| {
        for signal in FAULTS.into_iter().chain([INTERRUPT]) {
            // SAFETY: a zeroed `sigaction` is valid; the handler has the signature that
            // SA_SIGINFO asks for and is async-signal-safe: it touches atomics and `mprotect`.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
                if signal != INTERRUPT {
                    // The stub may fault in the red zone while the kernel still considers the
                    // handler of the first fault active.
                    action.sa_flags |= libc::SA_NODEFER;
                }
                action.sa_sigaction = handle as *const () as usize;
                libc::sigemptyset(&mut action.sa_mask);
                libc::sigaction(signal, &action, ptr::null_mut());
            }
        }
    });
}

unsafe extern "C" fn handle(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes valid pointers to a handler installed with SA_SIGINFO; errno is
    // the thread's own and restored, as the interrupted code may be about to read it.
    unsafe {
        let errno = *libc::__errno_location();
        let context = &mut *context.cast::<libc::ucontext_t>();
        let address = (*info).si_addr().addr();
        // Signals that the kernel raises have positive codes.
        let sent = signal != INTERRUPT && (*info).si_code <= 0;
        if (sent || !handled(signal, address, context)) && signal != INTERRUPT {
            forward(signal, info, context);
            if sent {
                end_by_default(signal);
            }
        }
        *libc::__errno_location() = errno;
    }
}

fn handled(signal: i32, address: usize, context: &mut libc::ucontext_t) -> bool {
    with_current(|thread| handled_by(thread, signal, address, context)).unwrap_or(false)
}

fn handled_by(
    thread: &Thread,
    signal: i32,
    address: usize,
    context: &mut libc::ucontext_t,
) -> bool {
    let run = thread.run.load(SeqCst);
    if run == 0 {
        return false;
    }
    let is_interrupt = signal == INTERRUPT;
    if is_interrupt && thread.target.load(SeqCst) != run {
        return true; // It was meant for a run that is over.
    }
    let registers = Registers(context);
    let pc = registers.pc();
    if thread.in_code(pc) {
        let lifted = |protection: &WriteProtection| protection.lift_for_fault(address);
        if signal == libc::SIGSEGV && thread.protection().is_some_and(lifted) {
            return true;
        }
        thread.fault_pc.store(pc, Relaxed);
        thread.fault_fp.store(registers.fp(), Relaxed);
        thread
            .fault_signal
            .store(if is_interrupt { 0 } else { signal }, Relaxed);
        thread.fault_address.store(address, Relaxed);
        registers.continue_at(stub as *const () as usize);
        return true;
    }
    if is_interrupt {
        thread.interrupted.store(true, Relaxed);
        thread.attention.store(true, Relaxed);
        return true;
    }
    if signal == libc::SIGSEGV && thread.in_red_zone(address) && !thread.red_zone_open.load(Relaxed)
    {
        thread.red_zone_open.store(true, Relaxed);
        thread.attention.store(true, Relaxed);
        thread.protect_red_zone(libc::PROT_READ | libc::PROT_WRITE);
        return true;
    }
    false
}

/// Passes a fault to the handler that was installed before ours.
///
/// # Safety
///
/// Must be called in a signal handler, with the arguments from the kernel.
unsafe fn forward(signal: i32, info: *mut libc::siginfo_t, context: &mut libc::ucontext_t) {
    let index = FAULTS.iter().position(|fault| *fault == signal);
    let previous = index.and_then(|index| PREVIOUS.get().map(|previous| &previous.0[index]));
    // SAFETY: `install` fills every slot before it installs the first handler. A disposition that is
    // not a function is restored, so that the instruction faults again and the kernel acts.
    unsafe {
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        let previous = previous.map_or(&default, |previous| previous.assume_init_ref());
        match previous.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                libc::sigaction(signal, &default, ptr::null_mut());
            }
            function if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                let function: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(function);
                function(signal, info, ptr::from_mut(context).cast());
            }
            function => {
                let function: extern "C" fn(i32) = std::mem::transmute(function);
                function(signal);
            }
        }
    }
}

/// Ends the process by a signal that was sent, if its disposition is the default. A real fault repeats
/// after `forward` has restored the default disposition; a signal that was sent would be lost.
fn end_by_default(signal: i32) {
    // SAFETY: a zeroed `sigaction` is valid and large enough for the result. Raising a signal in its
    // own handler is allowed, and it is not blocked there (SA_NODEFER).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut action);
        if action.sa_sigaction == libc::SIG_DFL {
            libc::raise(signal);
        }
    }
}

/// The interrupted thread's registers, by architecture.
struct Registers<'a>(&'a mut libc::ucontext_t);

#[cfg(target_arch = "x86_64")]
impl Registers<'_> {
    fn pc(&self) -> usize {
        self.0.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
    }

    fn fp(&self) -> usize {
        self.0.uc_mcontext.gregs[libc::REG_RBP as usize] as usize
    }

    /// Continues at a function as if guest code had called it.
    fn continue_at(self, function: usize) {
        /// Bytes below the stack pointer that leaf functions may use (System V ABI).
        const ABI_RED_ZONE: i64 = 128;
        /// The direction flag, which functions expect to be clear.
        const DIRECTION: i64 = 0x400;
        let registers = &mut self.0.uc_mcontext.gregs;
        let sp = registers[libc::REG_RSP as usize];
        // Sixteen-byte alignment before a call pushes its return address.
        registers[libc::REG_RSP as usize] = ((sp - ABI_RED_ZONE) & !15) - 8;
        registers[libc::REG_RIP as usize] = function as i64;
        registers[libc::REG_EFL as usize] &= !DIRECTION;
    }
}

#[cfg(target_arch = "aarch64")]
impl Registers<'_> {
    fn pc(&self) -> usize {
        self.0.uc_mcontext.pc as usize
    }

    fn fp(&self) -> usize {
        self.0.uc_mcontext.regs[29] as usize
    }

    /// Continues at a function as if guest code had called it.
    fn continue_at(self, function: usize) {
        let registers = &mut self.0.uc_mcontext;
        registers.sp &= !15;
        registers.regs[30] = registers.pc;
        registers.pc = function as u64;
    }
}
