//! Requests to the guest, each with a separate environment and separate files, all in one slot.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use faas_wasm_engine::{Interruption, Limits, Linker, Replica, RunLimits, RunOutcome, TrapKind};
use faas_wasm_tests::{Backend, Guest, Work};
use faas_wasm_wasi::{
    Access, InputStream, Namespace, OutputStream, Root, StreamError, WasiContext, add_to_linker,
};

use crate::trusted;

/// Number of ways in which a request ends.
pub(crate) const ENDINGS: usize = 9;
/// The ending that needs a deadline.
const SPIN: usize = 6;
/// Usually long enough for the guest to reach its loop, and short enough to wait for.
const SOON: Duration = Duration::from_millis(1);
/// So long that only a guest that hangs reaches it.
const NEVER: Duration = Duration::from_secs(60);

/// The instruction for a request; see `guest.wat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    changes: u8,
    ending: usize,
}

impl Instruction {
    /// Makes all changes, and returns.
    pub(crate) const fn everything() -> Self {
        Self {
            changes: 0x7f,
            ending: 0,
        }
    }

    /// Each change alone, all changes, and no change, each with every ending.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let changes = (0..7).map(|bit| 1 << bit).chain([0, 0x7f]);
        changes.flat_map(|changes| (0..ENDINGS).map(move |ending| Self { changes, ending }))
    }

    /// Makes all changes except those of sizes, and returns.
    pub(crate) const fn everything_in_place() -> Self {
        Self {
            changes: 0x7c,
            ending: 0,
        }
    }

    /// Makes no changes, and returns.
    pub(crate) const fn nothing() -> Self {
        Self {
            changes: 0,
            ending: 0,
        }
    }

    fn input(self) -> [u8; 8] {
        std::array::from_fn(|digit| match digit {
            7 => b'0' + self.ending as u8,
            digit => b'0' + (self.changes >> digit & 1),
        })
    }

    fn is_as_wanted(self, ending: &RunOutcome) -> bool {
        use TrapKind as Kind;
        let trapped = |kind| matches!(ending, RunOutcome::Trapped(trap) if trap.kind == kind);
        match self.ending {
            0 => *ending == RunOutcome::Returned,
            1 => *ending == RunOutcome::Exited(0),
            2 => *ending == RunOutcome::Exited(3),
            3 => trapped(Kind::Unreachable),
            4 => trapped(Kind::MemoryOutOfBounds),
            5 => trapped(Kind::StackOverflow),
            SPIN => matches!(ending, RunOutcome::Interrupted(Interruption::Deadline, _)),
            7 => trapped(Kind::IndirectCallToNull),
            _ => trapped(Kind::IntegerDivisionByZero),
        }
    }
}

/// A trace that a request should not have found.
#[derive(Debug)]
pub(crate) struct Found {
    number: usize,
    instruction: Instruction,
    before: Option<Instruction>,
    what: What,
}

#[derive(Debug)]
enum What {
    RunOutcome(RunOutcome),
    Output(String),
}

impl Found {
    /// The exit code with which the guest reports the trace.
    pub(crate) fn exit_code(&self) -> Option<u32> {
        match self.what {
            What::RunOutcome(RunOutcome::Exited(code)) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            instruction,
            before,
            what,
        } = self;
        write!(f, "request {number}, {instruction:?} after {before:?}: ")?;
        match what {
            What::RunOutcome(ending) => write!(f, "{ending:?}"),
            What::Output(text) => write!(f, "wrote {text:?}"),
        }
    }
}

/// One replica of the guest.
pub(crate) struct Guests {
    replica: Replica<WasiContext>,
    namespace: Arc<Namespace>,
    output: Arc<Mutex<Vec<u8>>>,
    seed: u64,
    number: usize,
    before: Option<Instruction>,
    // Keeps the artifact's directory until the end.
    _guest: Guest,
    _root: Work,
}

impl Guests {
    pub(crate) fn new(backend: Backend) -> Self {
        let root = Work::new();
        root.write("kept", "first");
        root.write("gone", "");
        let module = wat::parse_str(include_str!("guest.wat")).expect("it is WebAssembly text");
        let guest = Guest::compiled(&Work::new().write("guest.wasm", module), backend);
        let mut linker = Linker::<WasiContext>::new();
        add_to_linker(&mut linker);
        let linked = linker.link(trusted::load(guest.artifact()), Limits::default());
        let lower = Root::open(root.path()).expect("it is a directory");
        Self {
            replica: Replica::new(&linked.expect("WASI is all it needs")).expect("it can be made"),
            namespace: Arc::new(Namespace::new(lower, Access::CopyOnWrite)),
            output: Arc::default(),
            seed: 1,
            number: 0,
            before: None,
            _guest: guest,
            _root: root,
        }
    }

    fn random(&mut self, below: usize) -> usize {
        // Knuth's MMIX generator.
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % below
    }

    /// Runs this many requests and counts their endings. Returns an error for the first trace that one finds.
    pub(crate) fn run(&mut self, requests: usize) -> Result<[usize; ENDINGS], Box<Found>> {
        let mut endings = [0; ENDINGS];
        for _ in 0..requests {
            // Spin rarely, because waiting for deadlines takes most of the time.
            let spins = self.random(70) == 0;
            let others = self.random(ENDINGS);
            let instruction = Instruction {
                changes: self.random(0x80) as u8,
                ending: if spins { SPIN } else { others },
            };
            let ending = if instruction.ending == SPIN && !spins {
                0
            } else {
                instruction.ending
            };
            let instruction = Instruction {
                ending,
                ..instruction
            };
            self.one(instruction)?;
            endings[instruction.ending] += 1;
        }
        Ok(endings)
    }

    /// Runs one request.
    pub(crate) fn one(&mut self, instruction: Instruction) -> Result<(), Box<Found>> {
        self.number += 1;
        let secret = format!("SECRET=of request {}", self.number).into_bytes();
        let mut context = WasiContext::builder(Arc::clone(&self.namespace))
            .own_environment({
                let secret = secret.clone();
                || vec![secret]
            })
            .stdin(Box::new(Input(instruction.input().into())))
            .stdout(Box::new(Output(Arc::clone(&self.output))))
            .build();
        let time = if instruction.ending == SPIN {
            SOON
        } else {
            NEVER
        };
        let limits = RunLimits {
            deadline: Some(Instant::now() + time),
            ..RunLimits::default()
        };
        let ending = self.replica.run(&mut context, limits);
        drop(context);
        let ending = ending.expect("there is memory for an instance");
        let output = std::mem::take(&mut *self.output.lock().expect("one thread has it"));
        // The deadline may expire before the guest writes.
        let all = [&secret[..], b"\0"].concat();
        let wrote = if instruction.changes & 1 << 5 != 0 {
            output == all || instruction.ending == SPIN && output.is_empty()
        } else {
            output.is_empty()
        };
        let what = if !instruction.is_as_wanted(&ending) {
            Some(What::RunOutcome(ending))
        } else if !wrote {
            Some(What::Output(String::from_utf8_lossy(&output).into_owned()))
        } else {
            None
        };
        let before = self.before.replace(instruction);
        match what {
            None => Ok(()),
            Some(what) => Err(Box::new(Found {
                number: self.number,
                instruction,
                before,
                what,
            })),
        }
    }
}

struct Input(Vec<u8>);

impl InputStream for Input {
    fn read(&mut self, buffer: &mut [u8], _: Option<Instant>) -> Result<usize, StreamError> {
        let count = self.0.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0.drain(..count);
        Ok(count)
    }

    fn wait_readable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }
}

struct Output(Arc<Mutex<Vec<u8>>>);

impl OutputStream for Output {
    fn write(&mut self, bytes: &[u8], _: Option<Instant>) -> Result<usize, StreamError> {
        let mut output = self.0.lock().expect("one thread has it");
        output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn wait_writable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }
}
