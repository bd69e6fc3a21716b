//! The driver's state behind one lock, and the work around every call.

mod capture;
mod census;
mod objects;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

pub(crate) use capture::Capture;
pub(crate) use census::Records;
pub(crate) use objects::{
    Context, Device, Event, Function, Graph, GraphExec, Kernel, Library, Link, Module, Node, Pool,
    Program, StreamObject,
};
pub(crate) use table::{Kind, Object, Table};

use crate::abi::{Code, Host, Result, Stream};
use crate::device::{Lane, Memory, Misuse};
use crate::settings::{Reach, Settings, Source};

/// Maximum delay until a waiting call notices a change of the control file.
const CONTROL_INTERVAL: Duration = Duration::from_millis(20);

/// The state that threads share.
pub(crate) struct Shared {
    pub(crate) driver: Mutex<Driver>,
    /// Signaled whenever a condition that a thread waits for may have changed.
    pub(crate) changed: Condvar,
    pub(crate) memory: Mutex<Memory>,
}

pub(crate) static SHARED: LazyLock<Shared> = LazyLock::new(|| Shared {
    driver: Mutex::new(Driver::new()),
    changed: Condvar::new(),
    memory: Mutex::new(Memory::new()),
});

/// Page-locked memory of the caller.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) context: u64,
    pub(crate) length: usize,
    pub(crate) flags: u32,
    /// Set if the driver allocated the memory and must free it.
    pub(crate) bytes: Option<Vec<u8>>,
}

pub(crate) struct Driver {
    pub(crate) settings: Settings,
    pub(crate) source: Source,
    pub(crate) records: Records,
    pub(crate) initialized: bool,
    /// Set after a fault that affected the whole process.
    pub(crate) dead: Option<Code>,
    pub(crate) devices: Vec<Device>,
    pub(crate) contexts: Table<Context>,
    pub(crate) streams: Table<StreamObject>,
    pub(crate) lanes: BTreeMap<u64, Lane>,
    pub(crate) events: Table<Event>,
    pub(crate) modules: Table<Module>,
    pub(crate) functions: Table<Function>,
    pub(crate) libraries: Table<Library>,
    pub(crate) kernels: Table<Kernel>,
    pub(crate) pools: Table<Pool>,
    pub(crate) graphs: Table<Graph>,
    pub(crate) nodes: Table<Node>,
    pub(crate) execs: Table<GraphExec>,
    pub(crate) links: Table<Link>,
    pub(crate) pinned: BTreeMap<usize, Pinned>,
    pub(crate) current: HashMap<ThreadId, Vec<u64>>,
    pub(crate) capture_modes: HashMap<ThreadId, u32>,
    sequence: u64,
}

impl Driver {
    fn new() -> Self {
        let mut driver = Self {
            settings: Settings::default(),
            source: Source::from_environment(),
            records: Records::default(),
            initialized: false,
            dead: None,
            devices: Vec::new(),
            contexts: Table::new(),
            streams: Table::new(),
            lanes: BTreeMap::new(),
            events: Table::new(),
            modules: Table::new(),
            functions: Table::new(),
            libraries: Table::new(),
            kernels: Table::new(),
            pools: Table::new(),
            graphs: Table::new(),
            nodes: Table::new(),
            execs: Table::new(),
            links: Table::new(),
            pinned: BTreeMap::new(),
            current: HashMap::new(),
            capture_modes: HashMap::new(),
            sequence: 0,
        };
        driver.refresh(true);
        driver
    }

    fn refresh(&mut self, first: bool) {
        if let Some((settings, errors)) = self.source.refresh(first) {
            self.settings = settings;
            for error in errors {
                self.violation(error.to_string());
            }
        }
    }

    /// Records a forbidden call. The test finds it in the census.
    pub(crate) fn violation(&mut self, text: String) {
        self.records.violation(text);
    }

    /// A sequence number larger than all earlier ones.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The thread's current context, even if it has failed.
    pub(crate) fn current_context(&self) -> Option<u64> {
        let stack = self.current.get(&std::thread::current().id())?;
        stack.last().copied()
    }

    /// The thread's current context, if it can be used.
    pub(crate) fn context(&self) -> Result<u64> {
        let handle = self.current_context().ok_or(Code::INVALID_CONTEXT)?;
        let context = self
            .contexts
            .get(handle)
            .ok_or(Code::CONTEXT_IS_DESTROYED)?;
        match context.sticky {
            Some(code) => Err(code),
            None => Ok(handle),
        }
    }

    /// The error that every use of a failed context returns, if it has failed.
    pub(crate) fn sound(&self, context: u64) -> Result {
        let sticky = self
            .contexts
            .get(context)
            .and_then(|context| context.sticky);
        sticky.map_or(Ok(()), Err)
    }

    /// Applies the effect of a kernel's fault.
    pub(crate) fn poison(&mut self, context: u64, code: Code) {
        match self.settings.reach {
            Reach::Context => {
                if let Some(context) = self.contexts.get_mut(context) {
                    context.sticky.get_or_insert(code);
                }
            }
            Reach::Process => {
                self.dead.get_or_insert(code);
                for context in self.contexts.values_mut() {
                    context.sticky.get_or_insert(code);
                }
            }
        }
        let Self {
            contexts, lanes, ..
        } = self;
        for lane in lanes.values_mut() {
            let sticky = contexts
                .get(lane.context)
                .is_some_and(|context| context.sticky.is_some());
            if sticky {
                lane.queue.clear();
                lane.cancel.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Records a violation for a handle that does not refer to an object.
    pub(crate) fn unknown<T: Object>(&mut self, handle: u64, table: fn(&Self) -> &Table<T>) {
        let absence = table(self).absence(handle);
        self.violation(format!("{handle:#x} is {absence} {:?}", T::KIND));
    }

    /// Checks that a handle names a live object.
    pub(crate) fn check<T: Object>(
        &mut self,
        handle: u64,
        table: fn(&Self) -> &Table<T>,
    ) -> Result {
        if table(self).get(handle).is_some() {
            return Ok(());
        }
        self.unknown(handle, table);
        Err(match T::KIND {
            Kind::Context => Code::INVALID_CONTEXT,
            _ => Code::INVALID_HANDLE,
        })
    }

    /// Checks that an object belongs to the current context.
    pub(crate) fn same_context(&mut self, what: &str, handle: u64, owner: u64) -> Result {
        let current = self.context()?;
        if owner == current {
            return Ok(());
        }
        self.violation(format!(
            "{what} {handle:#x} is of context {owner:#x}, current is {current:#x}"
        ));
        Err(Code::INVALID_HANDLE)
    }

    /// The lane of a stream argument, in the current context.
    pub(crate) fn lane(&mut self, stream: Stream) -> Result<u64> {
        if stream.0 <= Stream::PER_THREAD {
            let context = self.context()?;
            let context = self.contexts.get(context).ok_or(Code::INVALID_CONTEXT)?;
            return Ok(if stream.0 == Stream::PER_THREAD {
                context.per_thread_lane
            } else {
                context.legacy_lane
            });
        }
        self.check(stream.0, |driver| &driver.streams)?;
        let object = self.streams.get(stream.0).ok_or(Code::INVALID_HANDLE)?;
        let (lane, owner) = (object.lane, object.context);
        self.sound(owner)?;
        Ok(lane)
    }

    /// Like `lane`, for work that is queued: the stream must belong to the current context.
    pub(crate) fn lane_for_work(&mut self, stream: Stream) -> Result<u64> {
        let context = self.context()?;
        let lane = self.lane(stream)?;
        let owner = self.lanes.get(&lane).map_or(context, |lane| lane.context);
        self.same_context("stream", stream.0, owner)?;
        Ok(lane)
    }

    /// Checks that a range belongs to the current context. A caller should never pass another range.
    pub(crate) fn device_range(&mut self, address: u64, length: usize) -> Result {
        let context = self.context()?;
        if length == 0 {
            return Ok(());
        }
        let checked = SHARED.memory.lock().check(context, address, length);
        checked.map_err(|misuse| self.misuse(misuse))
    }

    pub(crate) fn misuse(&mut self, misuse: Misuse) -> Code {
        self.violation(misuse.to_string());
        Code::INVALID_VALUE
    }

    /// Whether the caller's bytes are page-locked, so that work may access them later.
    pub(crate) fn is_pinned(&self, address: Host, length: usize) -> bool {
        let region = self.pinned.range(..=address.0).next_back();
        region.is_some_and(|(base, region)| address.0 - base + length <= region.length)
    }

    /// The device with an ordinal.
    pub(crate) fn device(&mut self, ordinal: i32) -> Result<usize> {
        usize::try_from(ordinal)
            .ok()
            .filter(|ordinal| *ordinal < self.devices.len())
            .ok_or(Code::INVALID_DEVICE)
    }
}

/// One call of an entry point. It holds the lock except while it waits.
pub(crate) struct Call<'a> {
    guard: MutexGuard<'a, Driver>,
}

impl Call<'_> {
    pub(crate) fn driver(&mut self) -> &mut Driver {
        &mut self.guard
    }

    /// Waits until `answer` returns a value, without holding the lock in between.
    pub(crate) fn wait<T>(&mut self, mut answer: impl FnMut(&mut Driver) -> Option<T>) -> T {
        loop {
            if let Some(answer) = answer(&mut self.guard) {
                return answer;
            }
            SHARED.changed.wait_for(&mut self.guard, CONTROL_INTERVAL);
            self.guard.refresh(false);
        }
    }
}

/// Whether an entry point works before `cuInit` and after the loss of the process's GPU state.
fn is_always_possible(function: &str) -> bool {
    let names = [
        "cuInit",
        "cuDriverGetVersion",
        "cuGetErrorName",
        "cuGetErrorString",
        "cuGetProcAddress",
        "cuGetProcAddress_v2",
    ];
    names.contains(&function)
}

/// Whether an entry point only polls. A poll alone does not cause a new census.
fn is_poll(function: &str) -> bool {
    matches!(
        function,
        "cuStreamQuery" | "cuEventQuery" | "cuCtxGetCurrent"
    )
}

/// Set while settings cannot change, so that calls need not check for changes.
static FIXED: AtomicBool = AtomicBool::new(false);

/// Does the work around every entry point: settings, counters, injected failures and delays, trace and census. Stops
/// panics.
pub(crate) fn enter(
    function: &'static str,
    arguments: impl FnOnce() -> String,
    body: impl FnOnce(&mut Call<'_>) -> Result,
) -> i32 {
    let mut guard = SHARED.driver.lock();
    if !FIXED.load(Ordering::Relaxed) {
        guard.refresh(false);
        FIXED.store(!guard.source.may_change(), Ordering::Relaxed);
    }
    let count = guard.records.count(function);
    if guard.settings.is_forbidden(function) {
        guard.violation(format!("{function} is forbidden in this test"));
    }
    if let Some(latency) = guard.settings.latency(function) {
        MutexGuard::unlocked(&mut guard, || std::thread::sleep(latency));
    }
    let arguments = guard.source.trace.is_some().then(arguments);
    let result = match may_run(&guard, function, count) {
        Err(code) => Err(code),
        Ok(()) => {
            let mut call = Call { guard };
            let result = catch_unwind(AssertUnwindSafe(|| body(&mut call)));
            guard = call.guard;
            result.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                guard.violation(format!("the fake driver panicked in {function}: {text:?}"));
                Err(Code::UNKNOWN)
            })
        }
    };
    SHARED.changed.notify_all();
    if let Some(arguments) = arguments {
        trace(
            &mut guard,
            &format!("{function}({arguments}) = {result:?}\n"),
        );
    }
    if !is_poll(function) {
        guard.publish();
    }
    result.err().map_or(0, |code| code.0)
}

fn may_run(driver: &Driver, function: &str, count: u64) -> Result {
    if let Some(code) = driver.settings.injected(function, count) {
        // An injected code of 0 means: do nothing and report success.
        return Err(code);
    }
    if is_always_possible(function) {
        return Ok(());
    }
    if !driver.initialized {
        return Err(Code::NOT_INITIALIZED);
    }
    // These functions still work after a fault that affected the whole process.
    let ends = [
        "Destroy",
        "Unload",
        "SetCurrent",
        "GetCurrent",
        "Pop",
        "Release",
        "FreeHost",
        "Unregister",
    ];
    match driver.dead {
        Some(code) if !ends.iter().any(|part| function.contains(part)) => Err(code),
        _ => Ok(()),
    }
}

/// Appends a line to the trace, if there is one.
pub(crate) fn trace(driver: &mut Driver, line: &str) {
    let Some(path) = &driver.source.trace else {
        return;
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        let text = format!("{}: {error}", path.display());
        driver.violation(text);
    }
}
