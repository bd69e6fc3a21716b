//! Signals: how faults and deadlines stop a guest.
//!
//! A worker thread runs guest code on a stack of its own. Two kinds of signal concern it: faults
//! (SIGSEGV, SIGBUS, SIGFPE, SIGILL), raised by the guest's own instructions, and [`INTERRUPT`],
//! sent by the monitor thread (`deadline.rs`) when a run must end. What the handler does depends
//! on the program counter alone:
//!
//! ```text
//! in the artifact's code,    a page that a guard keeps (guard.rs): lift the guard and go on
//! fault at such a page
//! in the artifact's code     no lock is held and no destructor is pending: continue in a stub
//!                            that unwinds the run
//! elsewhere, INTERRUPT       remember it; every host function checks on its way out
//! elsewhere, fault in the    a host function ran out of the guest's stack: open the red zone and
//! red zone                   go on; on the way out it is closed, or the run ends if the guest
//!                            itself stands at the edge
//! elsewhere, another fault   not ours: pass it on to the handler that was there before
//! ```
//!
//! A fault signal that another process or thread has *sent* is no fault of the guest's, wherever the
//! program counter is: it is passed on, too.
//!
//! The **red zone** is the end of a guest's stack, inaccessible while guest code runs. It keeps
//! room for the few host frames that live on the guest's stack (entry shims, library calls and the
//! stubs below), however deep the guest has recursed.
//!
//! ```text
//! low                                                                  high
//! | guard page | red zone | . . . . guest frames grow down . . . . . . . |
//!              ^ stack_low ^ red_zone_end                       stack_high ^
//! ```
//!
//! Unsafe here assumes: [`install`] ran once before any guest; the handler runs on the alternate
//! signal stack that wasmer-vm registers for every thread that enters a guest; a [`Thread`] is
//! published to the handler only by its own thread and lives until that thread withdraws it.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize};

use crate::caller;
use crate::guard::Guard;
use crate::stop::{Interruption, Stop, TrapKind};

/// The signal that ends a run. Sent to single threads by the monitor; one that comes from
/// elsewhere finds no run to end and is ignored.
pub(crate) const INTERRUPT: i32 = libc::SIGUSR2;

/// Size of the red zone in bytes. The deepest host frames on a guest's stack are those of a panic
/// hook's predecessor, an allocation and a stack switch, measured below 6 KiB together.
pub(crate) const RED_ZONE: usize = 64 * 1024;

/// Distance from the red zone at which it can be closed: more than the frames need that do so.
const CLEARANCE: usize = 1024;

const FAULTS: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];

/// What the handler knows of the thread it interrupts. All fields are atomic because the monitor
/// and the handler read what the thread writes.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    /// Kernel's number of the thread.
    tid: AtomicI32,
    /// Its CPU clock.
    clock: AtomicI32,
    /// Number of the current run, 0 between runs.
    run: AtomicU64,
    /// The run that shall end.
    target: AtomicU64,
    reason: AtomicU8,
    /// Something waits for the way out of a host function.
    attention: AtomicBool,
    interrupted: AtomicBool,
    red_zone_open: AtomicBool,
    code_start: AtomicUsize,
    code_end: AtomicUsize,
    /// That of the run's memory, or null.
    guard: AtomicPtr<Guard>,
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

fn current<'a>() -> Option<&'a Thread> {
    // SAFETY: the pointer is null or was published by `RunGuard::new` of this thread, which
    // borrows the thread's state until it is dropped on the same thread.
    unsafe { CURRENT.get().as_ref() }
}

/// Where in guest code a run was when it ended.
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

    /// Asks the handler to end the run with this number, and pokes the thread. Must be repeated
    /// until the run is over, as a host function may be between its check and the guest.
    pub(crate) fn interrupt(&self, run: u64, reason: Interruption) {
        self.reason.store(reason as u8, SeqCst);
        self.target.store(run, SeqCst);
        // SAFETY: sends a signal to a thread of this process by number. If the thread is gone the
        // call fails; if the number was given to another thread, that one has no such run.
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                libc::getpid(),
                self.tid.load(SeqCst),
                INTERRUPT,
            );
        }
    }

    /// CPU time that the thread has used, in nanoseconds; 0 before its first run. From any thread.
    pub(crate) fn cpu_time(&self) -> u64 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let clock = self.clock.load(SeqCst);
        // SAFETY: writes one `timespec`; the clock of a thread that is gone is an error, not a
        // fault, and leaves the zeros.
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

    /// The guard of the memory of the run.
    fn guard(&self) -> Option<&Guard> {
        // SAFETY: null or published by `RunGuard::new`, whose caller keeps it until it is withdrawn;
        // read by the run's own thread alone.
        unsafe { self.guard.load(Relaxed).as_ref() }
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
        // stays mapped for the run; only its red zone changes.
        unsafe {
            libc::mprotect(low as *mut libc::c_void, RED_ZONE, protection);
        }
    }

    /// Says which stack the guest runs on; called on that stack, before guest code. `size` is what
    /// was asked of wasmer-vm, which rounds it up to pages.
    pub(crate) fn enter_stack(&self, size: usize) {
        let page = rustix::param::page_size();
        let marker = 0u8;
        // The first frames of a fresh stack lie in its highest page.
        let high = (ptr::from_ref(&marker).addr()).next_multiple_of(page);
        let low = high - size.next_multiple_of(page);
        self.stack_high.store(high, Relaxed);
        if self.stack_low.swap(low, Relaxed) != low {
            self.protect_red_zone(libc::PROT_NONE);
        }
    }

    /// Calls `visit` with each return address on the guest's stack, innermost first, until it says
    /// `false` or the chain of frame pointers leaves the stack. To be called on the same thread
    /// after a run and before the next one.
    pub(crate) fn walk_frames(&self, mut fp: usize, mut visit: impl FnMut(usize) -> bool) {
        let low = self.stack_low.load(Relaxed) + RED_ZONE;
        let high = self.stack_high.load(Relaxed);
        let word = size_of::<usize>();
        while fp >= low && fp + 2 * word <= high && fp.is_multiple_of(word) {
            // SAFETY: the two words lie in the guest's stack, outside of the red zone. It stays
            // mapped after the run, in the cache of this thread, and nobody writes it meanwhile.
            // What is read may be anything: it is checked before it is used.
            let [next, return_address] =
                unsafe { *std::ptr::with_exposed_provenance::<[usize; 2]>(fp) };
            if next <= fp || !visit(return_address) {
                break;
            }
            fp = next;
        }
    }

    /// Notes where guest code stands that has called out, as far as that can be told.
    fn note_caller(&self) {
        let code = self.code_start.load(Relaxed)..self.code_end.load(Relaxed);
        let stack = self.stack_low.load(Relaxed)..self.stack_high.load(Relaxed);
        match caller::find(code, stack) {
            Some((return_address, fp)) => self.note_call(return_address, fp),
            None => self.fault_pc.store(0, Relaxed),
        }
    }

    /// Notes where guest code stands by the return address of its call, which points behind the call
    /// and so perhaps behind the function.
    fn note_call(&self, return_address: usize, fp: usize) {
        self.fault_pc.store(return_address - 1, Relaxed);
        self.fault_fp.store(fp, Relaxed);
    }

    /// Where guest code was when the run ended.
    pub(crate) fn last_frame(&self) -> GuestFrame {
        GuestFrame {
            pc: self.fault_pc.load(Relaxed),
            fp: self.fault_fp.load(Relaxed),
            signal: self.fault_signal.load(Relaxed),
            address: self.fault_address.load(Relaxed),
        }
    }
}

/// Publishes a run to the handler for as long as it lives.
pub(crate) struct RunGuard<'a> {
    thread: &'a Thread,
    outer: *const Thread,
}

impl<'a> RunGuard<'a> {
    /// Begins run number `run` of an artifact whose code lies at `code`, on a memory with this guard.
    pub(crate) fn new(
        thread: &'a Thread,
        run: u64,
        code: std::ops::Range<usize>,
        guard: Option<&'a Guard>,
    ) -> Self {
        if thread.tid.load(Relaxed) == 0 {
            thread
                .tid
                .store(rustix::thread::gettid().as_raw_nonzero().get(), SeqCst);
            let mut clock = libc::CLOCK_THREAD_CPUTIME_ID;
            // SAFETY: asks for the clock of this thread, which exists.
            unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
            thread.clock.store(clock, SeqCst);
        }
        thread.code_start.store(code.start, Relaxed);
        thread.code_end.store(code.end, Relaxed);
        let guard = guard.map_or(ptr::null(), ptr::from_ref);
        thread.guard.store(guard.cast_mut(), Relaxed);
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
        self.thread.guard.store(ptr::null_mut(), Relaxed);
        CURRENT.set(self.outer);
        if self.thread.red_zone_open.swap(false, Relaxed) {
            self.thread.protect_red_zone(libc::PROT_NONE);
        }
    }
}

/// Called by every host function and library call on its way back to the guest, on the guest's
/// stack, with nothing left to drop.
#[inline]
pub(crate) fn leave_host() {
    if let Some(thread) = current()
        && thread.attention.load(Relaxed)
    {
        attend(thread);
    }
}

#[cold]
fn attend(thread: &Thread) {
    thread.attention.store(false, Relaxed);
    if thread.interrupted.load(Relaxed) {
        // SAFETY: a guest is on this stack, as only host functions and library calls come here,
        // and none of the frames between holds anything to drop.
        unsafe { raise(Stop::Interrupted(thread.reason())) }
    }
    if thread.red_zone_open.load(Relaxed) {
        let marker = 0u8;
        if ptr::from_ref(&marker).addr() < thread.stack_low.load(Relaxed) + RED_ZONE + CLEARANCE {
            // The guest has called out from the very end of its stack. It must not go on with an
            // open red zone, which cannot be closed under our feet either.
            // SAFETY: as above.
            unsafe { raise(Stop::Trap(TrapKind::StackOverflow)) }
        }
        thread.red_zone_open.store(false, Relaxed);
        thread.protect_red_zone(libc::PROT_NONE);
    }
}

/// Sees to it that others than compiled code can write so many bytes of guest memory: system calls, host
/// functions and library calls. `false` if the system refuses. A range that is no guest memory is
/// nobody's concern here.
#[inline]
pub(crate) fn allow_write(start: *const u8, length: usize) -> bool {
    let range = start.addr()..start.addr() + length;
    let guard = current().and_then(Thread::guard);
    guard.is_none_or(|guard| guard.allow(range))
}

/// Whether an interruption waits; long library calls ask between their chunks.
pub(crate) fn interrupted() -> bool {
    current().is_some_and(|thread| thread.interrupted.load(Relaxed))
}

/// Ends the run of the guest that is on this stack and has called out.
///
/// # Safety
///
/// Guest code must be on this stack, and no frame above it may hold a value with a destructor.
pub(crate) unsafe fn raise(stop: Stop) -> ! {
    let is_reported = matches!(stop, Stop::Interrupted(_) | Stop::Trap(_));
    if let Some(thread) = current().filter(|_| is_reported) {
        thread.note_caller();
    }
    // SAFETY: as the caller promises.
    unsafe { raise_here(stop) }
}

/// Ends the run with a trap of a library call; return address and frame pointer are those of the
/// guest code that called it.
///
/// # Safety
///
/// As [`raise`].
pub(crate) unsafe fn raise_trap(kind: TrapKind, return_address: usize, fp: usize) -> ! {
    note_call(return_address, fp);
    // SAFETY: as the caller promises.
    unsafe { raise_here(Stop::Trap(kind)) }
}

/// Notes where guest code stands that may end its run by a call of wasmer-vm.
pub(crate) fn note_call(return_address: usize, fp: usize) {
    if let Some(thread) = current() {
        thread.note_call(return_address, fp);
    }
}

/// Ends the run of the guest whose place is noted.
///
/// # Safety
///
/// As [`raise`].
unsafe fn raise_here(stop: Stop) -> ! {
    // SAFETY: as the caller promises.
    unsafe { wasmer_vm::raise_user_trap(Box::new(stop)) }
}

/// Guest code continues here after a fault or an interruption.
unsafe extern "C" fn stub() -> ! {
    let stop = match current() {
        Some(thread) if thread.fault_signal.load(Relaxed) == 0 => {
            Stop::Interrupted(thread.reason())
        }
        // Which trap it was is found out later, off the guest's stack.
        _ => Stop::Trap(TrapKind::Unknown),
    };
    // SAFETY: the handler moved guest code here, so it is on this stack; nothing is to be dropped.
    unsafe { raise_here(stop) }
}

struct Previous([MaybeUninit<libc::sigaction>; FAULTS.len()]);
// SAFETY: plain data that is written once, before it is shared.
unsafe impl Send for Previous {}
// SAFETY: as above, and only read afterwards.
unsafe impl Sync for Previous {}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

/// Installs the handlers, once a process.
pub(crate) fn install() {
    PREVIOUS.get_or_init(|| {
        let mut previous = Previous([MaybeUninit::uninit(); FAULTS.len()]);
        for (signal, slot) in FAULTS.into_iter().zip(&mut previous.0) {
            // SAFETY: asks for the present action; the slot is large enough.
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
                    // A stub may fault in the red zone before the handler of its own fault would
                    // count as left.
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
        // The kernel's own signals have positive codes.
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
    let Some(thread) = current() else {
        return false;
    };
    let run = thread.run.load(SeqCst);
    if run == 0 {
        return false;
    }
    let is_interrupt = signal == INTERRUPT;
    if is_interrupt && thread.target.load(SeqCst) != run {
        return true; // For a run that is over.
    }
    let registers = Registers(context);
    let pc = registers.pc();
    if thread.in_code(pc) {
        let is_guarded = |guard: &Guard| guard.let_pass(address);
        if signal == libc::SIGSEGV && thread.guard().is_some_and(is_guarded) {
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

/// Lets the handler that was there before us deal with a fault.
///
/// # Safety
///
/// To be called in a handler, with the kernel's arguments.
unsafe fn forward(signal: i32, info: *mut libc::siginfo_t, context: &mut libc::ucontext_t) {
    let index = FAULTS.iter().position(|fault| *fault == signal);
    let previous = index.and_then(|index| PREVIOUS.get().map(|previous| &previous.0[index]));
    // SAFETY: `install` fills every slot before the first handler is installed. A disposition that
    // is not a function is put back, so that the instruction faults again and the kernel acts.
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

/// Ends the process by a signal that was sent, unless somebody still handles it. A fault would come
/// again by itself when its handler has put back the default; this one would be lost.
fn end_by_default(signal: i32) {
    // SAFETY: a zeroed `sigaction` is valid and large enough for the answer; raising a signal in its
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
        /// The area under the stack pointer that leaf functions may use (System V ABI).
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
