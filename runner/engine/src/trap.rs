//! The outcome of a run, and the position in the guest at which it trapped.
//!
//! A trap holds raw addresses only. Translating them to names reads sections of the artifact that a load
//! does not touch, so it happens only when a trap is printed ([`Trap::report`]), outside the
//! request's path.

use std::fmt::Write as _;

use faas_wasm_artifact::{FunctionNames, Range, SourceLine, source_lines, trap_at};

use crate::module::Module;
use crate::names::{function_name, printable};
use crate::signal::{GuestFrame, Thread};
use crate::stop::{Interruption, Stop, TrapKind};

/// Maximum number of frames in a backtrace.
const MAX_FRAMES: usize = 64;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOutcome {
    /// The entry function returned: exit status 0.
    Returned,
    /// The guest exited with this status.
    Exited(u32),
    /// A limit or the embedder ended the run.
    Interrupted(Interruption, Backtrace),
    /// The guest trapped.
    Trapped(Trap),
    /// A host function panicked; the message is for the log.
    HostPanicked(String),
}

/// Addresses of the guest's active instructions, relative to the artifact's load address, innermost
/// first. Empty if the position in guest code is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backtrace {
    frames: Vec<u32>,
}

/// A trap and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// The kind of trap.
    pub kind: TrapKind,
    /// The position.
    pub backtrace: Backtrace,
}

impl RunOutcome {
    pub(crate) fn new(
        result: Result<(), Stop>,
        module: &Module,
        thread: &Thread,
        in_memory: impl Fn(usize) -> bool,
    ) -> Self {
        let stop = match result {
            Ok(()) => return Self::Returned,
            Err(stop) => stop,
        };
        match stop {
            Stop::Exit(status) => Self::Exited(status),
            Stop::HostPanic(message) => Self::HostPanicked(message),
            Stop::Interrupted(reason) => {
                Self::Interrupted(reason, Backtrace::collect(module, thread))
            }
            Stop::Trap(kind) => Self::Trapped(Trap {
                kind: match kind {
                    TrapKind::Unknown => classify(module, thread, in_memory),
                    kind => kind,
                },
                backtrace: Backtrace::collect(module, thread),
            }),
        }
    }
}

/// Determines the kind of trap that a fault in compiled code means.
fn classify(module: &Module, thread: &Thread, in_memory: impl Fn(usize) -> bool) -> TrapKind {
    use faas_wasm_artifact::TrapCode;
    let frame = thread.last_frame();
    let is_access = matches!(frame.signal, libc::SIGSEGV | libc::SIGBUS);
    if is_access && thread.is_stack_end(frame.address) {
        return TrapKind::StackOverflow;
    }
    let traps = module.metadata.traps.within(module.file().len());
    let traps = traps.map_or(&[][..], |range| &module.file()[range]);
    match module.relative(frame.pc).and_then(|pc| trap_at(traps, pc)) {
        Some(TrapCode::StackOverflow) => TrapKind::StackOverflow,
        Some(TrapCode::MemoryOutOfBounds) => TrapKind::MemoryOutOfBounds,
        Some(TrapCode::UnalignedAtomic) => TrapKind::UnalignedAtomic,
        Some(TrapCode::TableOutOfBounds) => TrapKind::TableOutOfBounds,
        Some(TrapCode::IndirectCallToNull) => TrapKind::IndirectCallToNull,
        Some(TrapCode::BadSignature) => TrapKind::BadSignature,
        Some(TrapCode::IntegerOverflow) => TrapKind::IntegerOverflow,
        Some(TrapCode::IntegerDivisionByZero) => TrapKind::IntegerDivisionByZero,
        Some(TrapCode::BadConversionToInteger) => TrapKind::BadConversionToInteger,
        Some(TrapCode::Unreachable) => TrapKind::Unreachable,
        Some(TrapCode::UncaughtException) => TrapKind::UncaughtException,
        None if is_access && in_memory(frame.address) => TrapKind::MemoryOutOfBounds,
        None if frame.signal == libc::SIGFPE => TrapKind::IntegerDivisionByZero,
        None => TrapKind::Unknown,
    }
}

impl Backtrace {
    /// Follows the frame pointers of the run that has just ended on this thread.
    fn collect(module: &Module, thread: &Thread) -> Self {
        let GuestFrame { pc, fp, .. } = thread.last_frame();
        let mut frames: Vec<u32> = module.relative(pc).into_iter().collect();
        if frames.is_empty() {
            return Self { frames };
        }
        thread.walk_frames(fp, |return_address| {
            // A return address is after its call, which may be the last instruction of the function.
            let Some(address) = module.relative(return_address.wrapping_sub(1)) else {
                return false;
            };
            frames.push(address);
            frames.len() < MAX_FRAMES
        });
        Self { frames }
    }

    /// The backtrace as text, one frame per line, with the function names and source lines that the
    /// artifact has.
    pub fn report(&self, module: &Module) -> String {
        let bytes = |range: Range| {
            let range = range.within(module.file().len());
            range.map_or(&[][..], |range| &module.file()[range])
        };
        let names = FunctionNames::decode(bytes(module.metadata.names));
        let lines = source_lines(bytes(module.metadata.lines), &self.frames);
        let functions = module.functions_by_address();
        let mut text = String::new();
        for ((number, address), line) in self.frames.iter().enumerate().zip(lines) {
            let next = functions.partition_point(|(start, _)| start <= address);
            let Some((start, Some(local))) = next.checked_sub(1).map(|at| functions[at]) else {
                continue;
            };
            let index = local + module.metadata.imported_functions;
            let name = function_name(&names, index);
            let _ = write!(text, "  {number:>2}: {name}+{:#x}", address - start);
            if let Some(SourceLine { file, line }) = line {
                let _ = write!(text, " at {}:{line}", printable(&file));
            }
            if let Some(offset) = names.offsets.get(local as usize) {
                let _ = write!(text, " (function {index}, wasm offset {offset:#x})");
            }
            text.push('\n');
        }
        text
    }
}

impl Trap {
    /// The trap with its backtrace, for the log: several lines.
    pub fn report(&self, module: &Module) -> String {
        format!(
            "wasm trap: {}\n{}",
            self.kind,
            self.backtrace.report(module)
        )
    }
}
