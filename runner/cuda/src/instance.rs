//! The CUDA state of one instance: the objects that it has created, and its limits.
//!
//! Creating the state is cheap, as most runs never call CUDA. Whatever ends the run, `Drop` queues everything on a
//! device for teardown (`teardown.rs`).

use std::sync::Arc;

use faas_wasm_artifact::CudaAbi;

use crate::addresses::{Addresses, Origin, Range};
use crate::code::Code;
use crate::device::{Backend, DISABLE_TIMING};
use crate::driver::{self, Arguments, EntryPoints, Stream, clear_current, set_current};
use crate::guest_strings::GuestStrings;
use crate::handles::{Handle, Kind, Table};
use crate::host_blocks::HostBlocks;
use crate::imports::Imports;
use crate::lease::Lease;
use crate::objects::{
    ContextObject, Current, EventObject, ExecObject, FunctionObject, GraphObject, KernelObject,
    LibraryObject, ModuleObject, NodeObject, PoolObject, Primary, StreamObject,
};
use crate::service::{Cuda, Watch};
use crate::teardown::{Allocation, Teardown, WorkToken};

/// The state of an instance, created by its first call.
#[derive(Debug)]
pub(crate) struct State {
    cuda: Arc<Cuda>,
    pub(crate) backend: Option<Arc<Backend>>,
    /// The watch, and the time by which calls must return.
    pub(crate) watch: Option<(Arc<Watch>, u64)>,
    pub(crate) leases: Vec<Option<Lease>>,
    pub(crate) primaries: Vec<Primary>,
    /// The guest's stack of current contexts.
    pub(crate) stack: Vec<Handle>,
    pub(crate) contexts: Table<ContextObject>,
    pub(crate) modules: Table<ModuleObject>,
    pub(crate) functions: Table<FunctionObject>,
    pub(crate) streams: Table<StreamObject>,
    pub(crate) events: Table<EventObject>,
    pub(crate) graphs: Table<GraphObject>,
    pub(crate) nodes: Table<NodeObject>,
    pub(crate) execs: Table<ExecObject>,
    pub(crate) pools: Table<PoolObject>,
    pub(crate) libraries: Table<LibraryObject>,
    pub(crate) kernels: Table<KernelObject>,
    pub(crate) addresses: Addresses,
    /// Bytes of device memory in use, counted against the limit.
    pub(crate) used: u64,
    /// Freed memory that graphs may still refer to, by device. It counts as used until the graphs are destroyed.
    pub(crate) kept: Vec<(usize, Allocation)>,
    /// Number of streams that are being captured.
    pub(crate) capturing: u32,
    /// Whether the guest has used the per-thread default stream.
    pub(crate) used_per_thread: bool,
    pub(crate) poisoned: Option<Code>,
    /// Whether a wait for the device was abandoned.
    pub(crate) overdue: bool,
    pub(crate) arguments: Arguments,
    pub(crate) guest_strings: GuestStrings,
    pub(crate) host_blocks: HostBlocks,
    pub(crate) ids: u64,
    /// Operations enqueued since all streams were last known to be idle.
    pub(crate) queued: u32,
    /// Offloaded work that may still be running.
    pub(crate) offloaded: Vec<WorkToken>,
}

impl State {
    fn new(abi: CudaAbi, cuda: &Arc<Cuda>) -> Self {
        let settings = cuda.settings();
        let limit = |count: u32| count as usize;
        let most = crate::handles::MOST_OBJECTS;
        Self {
            cuda: Arc::clone(cuda),
            backend: None,
            watch: None,
            leases: Vec::new(),
            primaries: Vec::new(),
            stack: Vec::new(),
            contexts: Table::new(Kind::Context, limit(settings.max_contexts)),
            modules: Table::new(Kind::Module, limit(settings.max_modules)),
            functions: Table::new(Kind::Function, most),
            streams: Table::new(Kind::Stream, limit(settings.max_streams)),
            events: Table::new(Kind::Event, limit(settings.max_events)),
            graphs: Table::new(Kind::Graph, limit(settings.max_graphs)),
            nodes: Table::new(Kind::Node, most),
            execs: Table::new(Kind::GraphExec, limit(settings.max_graphs)),
            pools: Table::new(Kind::Pool, 64),
            libraries: Table::new(Kind::Library, limit(settings.max_modules)),
            kernels: Table::new(Kind::Kernel, most),
            addresses: Addresses::new(abi.device_pointer),
            used: 0,
            kept: Vec::new(),
            capturing: 0,
            used_per_thread: false,
            poisoned: None,
            overdue: false,
            arguments: Arguments::default(),
            guest_strings: GuestStrings::default(),
            host_blocks: HostBlocks::default(),
            ids: 0,
            queued: 0,
            offloaded: Vec::new(),
        }
    }

    /// Makes every later call return this code.
    pub(crate) fn poison(&mut self, code: Code) {
        self.poisoned.get_or_insert(code);
    }

    /// A number that is unique within the instance.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// The streams of a context of the driver that may be busy.
    pub(crate) fn busy_streams(&self, current: Current) -> Vec<Stream> {
        let own = self.streams.iter().filter_map(|(_, object)| {
            let context = self.contexts.get(object.context)?;
            (context.device == current.device).then_some(object.stream)
        });
        let lease = self.leases.get(current.device).and_then(Option::as_ref);
        let mut streams = vec![current.stream];
        // In an exclusive context the guest may also use the per-thread stream.
        if self.used_per_thread && lease.is_some_and(|lease| lease.shared.is_none()) {
            streams.push(Stream::PER_THREAD);
        }
        streams.extend(own);
        streams
    }

    /// Whether graphs exist that may refer to memory by address.
    pub(crate) fn has_graphs(&self) -> bool {
        self.graphs.len() + self.execs.len() > 0 || self.capturing > 0
    }

    /// The device of a context of the guest.
    pub(crate) fn device_of(&self, context: Handle) -> Option<usize> {
        self.contexts.get(context).map(|object| object.device)
    }

    /// Ends captures of this thread, and records an event at the end of its per-thread default stream.
    fn leave_thread(&self, driver: &EntryPoints, lease: &Lease) -> Option<driver::Event> {
        if self.poisoned.is_some() || (self.capturing == 0 && !self.used_per_thread) {
            return None;
        }
        set_current(driver, lease.context).ok()?;
        if self.capturing > 0 {
            let own = self.streams.iter();
            let own =
                own.filter(|(_, stream)| self.device_of(stream.context) == Some(lease.device));
            for stream in own
                .map(|(_, object)| object.stream)
                .chain([Stream::PER_THREAD])
            {
                // For a stream that is not captured this fails and has no effect.
                if let Ok(graph) = driver.stream_end_capture(stream) {
                    let _ = driver.graph_destroy(graph);
                }
            }
        }
        if !self.used_per_thread {
            return None;
        }
        let fence = driver.event_create(DISABLE_TIMING).ok()?;
        let _ = driver.event_record(fence, Stream::PER_THREAD);
        Some(fence)
    }

    /// Moves all objects of a device into a teardown.
    fn teardown(&mut self, lease: Lease) -> Teardown {
        let device = lease.device;
        let contexts: Vec<_> = self
            .contexts
            .iter()
            .filter(|(_, object)| object.device == device)
            .map(|(handle, _)| handle)
            .collect();
        let ours = |context: &Handle| contexts.contains(context);
        let mut memory: Vec<_> = self
            .addresses
            .take_if(|range| ours(&range.context) && !matches!(range.origin, Origin::Global(_)))
            .iter()
            .map(allocation)
            .collect();
        self.kept.retain(|(kept_on, allocation)| {
            let here = *kept_on == device;
            if here {
                memory.push(*allocation);
            }
            !here
        });
        Teardown {
            execs: self
                .execs
                .take_if(|exec| ours(&exec.context))
                .into_iter()
                .map(|exec| exec.exec)
                .collect(),
            graphs: self
                .graphs
                .take_if(|graph| ours(&graph.context))
                .into_iter()
                .map(|graph| graph.graph)
                .collect(),
            events: self
                .events
                .take_if(|event| ours(&event.context))
                .into_iter()
                .map(|event| event.event)
                .collect(),
            streams: self
                .streams
                .take_if(|stream| ours(&stream.context))
                .into_iter()
                .map(|s| s.stream)
                .collect(),
            modules: self
                .modules
                .take_if(|module| ours(&module.context))
                .into_iter()
                .map(|m| m.module)
                .collect(),
            pools: self
                .pools
                .take_if(|pool| pool.device == device)
                .into_iter()
                .map(|pool| pool.pool)
                .collect(),
            memory,
            fence: None,
            poisoned: self.poisoned,
            overdue: self.overdue,
            offloaded: self.offloaded.clone(),
            lease,
        }
    }
}

/// The allocation behind a range, which must be freed.
pub(crate) fn allocation(range: &Range) -> Allocation {
    Allocation {
        address: range.real,
        size: range.size,
        number: range.number,
        from_pool: range.origin == Origin::Pool,
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let Some(backend) = self.backend.clone() else {
            return;
        };
        let leases: Vec<_> = self.leases.iter_mut().filter_map(Option::take).collect();
        let mut all = Vec::new();
        for lease in leases {
            let fence = self.leave_thread(&backend.driver, &lease);
            let mut teardown = self.teardown(lease);
            teardown.fence = fence;
            all.push(teardown);
        }
        if !all.is_empty() {
            clear_current(&backend.driver);
        }
        for teardown in all {
            self.cuda.leave(teardown);
        }
    }
}

/// The CUDA of one instance. Dropping it releases everything on the devices.
#[derive(Debug)]
pub struct Instance {
    pub(crate) cuda: Arc<Cuda>,
    pub(crate) imports: Arc<Imports>,
    state: Option<Box<State>>,
}

impl Instance {
    /// The CUDA of an instance that has not called it yet.
    pub fn new(cuda: &Arc<Cuda>, imports: &Arc<Imports>) -> Self {
        Self {
            cuda: Arc::clone(cuda),
            imports: Arc::clone(imports),
            state: None,
        }
    }

    /// Takes the state for the duration of a call. The caller returns it with [`put_state`](Self::put_state).
    pub(crate) fn take_state(&mut self) -> Box<State> {
        self.state
            .take()
            .unwrap_or_else(|| Box::new(State::new(self.imports.abi, &self.cuda)))
    }

    pub(crate) fn put_state(&mut self, state: Box<State>) {
        self.state = Some(state);
    }
}
