//! The objects that an instance leaves on a device, and how they are released.
//!
//! The order is the same whatever ended the instance: wait for its streams; destroy executable graphs, graphs, events,
//! and streams; unload modules; overwrite and free memory, the newest first; destroy pools; free the staging buffer;
//! destroy the context, or leave it to the other instances that share it. If a kernel has failed, or still runs at the
//! end of [`IDLE_TIMEOUT`], the context is destroyed with everything in it. Objects outside the context, such as memory
//! of pools, are then freed from the context that probes the device. Until the context is destroyed its staging buffer
//! is not freed, as the device may still write to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::device::{Backend, Prepared};
use crate::driver::{
    EntryPoints, Event, Graph, GraphExec, Module, Pool, Stream, clear_current, set_current,
};
use crate::lease::Lease;

/// How long the streams of an ended instance may stay busy.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest pause between two queries of a stream.
const PAUSE: Duration = Duration::from_millis(1);

/// Marks offloaded work. The work is still running as long as the token has a second owner.
pub(crate) type WorkToken = Arc<()>;

/// An allocation of device memory that must be freed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocation {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) number: u64,
    pub(crate) from_pool: bool,
}

/// The objects of an instance on one device; see the module documentation.
#[derive(Debug)]
pub(crate) struct Teardown {
    pub(crate) lease: Lease,
    pub(crate) execs: Vec<GraphExec>,
    pub(crate) graphs: Vec<Graph>,
    pub(crate) events: Vec<Event>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) modules: Vec<Module>,
    pub(crate) memory: Vec<Allocation>,
    pub(crate) pools: Vec<Pool>,
    /// Recorded at the end of the per-thread default stream of the guest, to which other threads have no handle.
    pub(crate) fence: Option<Event>,
    /// The error after which every call in the context fails.
    pub(crate) poisoned: Option<Code>,
    /// Whether a wait for the device was abandoned, so that work is still running.
    pub(crate) overdue: bool,
    /// Offloaded work of the instance that may still use the context.
    pub(crate) offloaded: Vec<WorkToken>,
}

/// The result of a teardown.
#[derive(Debug)]
pub(crate) enum TeardownOutcome {
    /// Everything was released.
    Clean,
    /// A kernel failed or did not end (`NOT_READY`), and the context is destroyed or retired. The device must be
    /// probed.
    Suspect(Code, Detached),
    /// Work is still running in a context that other instances use, so it cannot be stopped.
    Stuck,
}

/// Objects that do not belong to a context and outlive it.
#[derive(Debug, Default)]
pub(crate) struct Detached {
    graphs: Vec<Graph>,
    memory: Vec<u64>,
    pools: Vec<Pool>,
}

impl Teardown {
    /// The teardown of an instance that has created no objects.
    pub(crate) fn of(lease: Lease) -> Self {
        Self {
            lease,
            execs: Vec::new(),
            graphs: Vec::new(),
            events: Vec::new(),
            streams: Vec::new(),
            modules: Vec::new(),
            memory: Vec::new(),
            pools: Vec::new(),
            fence: None,
            poisoned: None,
            overdue: false,
            offloaded: Vec::new(),
        }
    }

    /// Whether offloaded work still uses the context.
    pub(crate) fn is_in_use(&self) -> bool {
        self.offloaded
            .iter()
            .any(|token| Arc::strong_count(token) > 1)
    }

    /// Releases everything. `destroying` is called before the driver calls that may never return; its argument says
    /// whether the context must not be given to further instances.
    pub(crate) fn run(mut self, backend: &Backend, destroying: &dyn Fn(bool)) -> TeardownOutcome {
        let driver = &backend.driver;
        let end = self.come_to_rest(driver);
        let end = end.and_then(|()| self.take_apart(driver));
        let verdict = match (&self.lease.shared, end) {
            (_, Ok(())) => TeardownOutcome::Clean,
            // Other instances still use the context, so the kernel cannot be stopped.
            (Some(_), Err(Code::NOT_READY)) => TeardownOutcome::Stuck,
            (_, Err(code)) => TeardownOutcome::Suspect(code, self.detached()),
        };
        clear_current(driver);
        destroying(!matches!(verdict, TeardownOutcome::Clean));
        let context = match self.lease.shared.take() {
            None => Some(self.lease.context),
            // The last instance of a retired context destroys it.
            Some(shared) => Arc::into_inner(shared).map(|shared| shared.context),
        };
        if let Some(context) = context {
            // If this fails, the context no longer exists.
            let _ = driver.context_destroy(context);
        }
        verdict
    }

    /// Waits until no work of the instance is running. Fails with `NOT_READY` if some still is.
    fn come_to_rest(&self, driver: &EntryPoints) -> Result<(), Code> {
        if self.overdue {
            return Err(Code::NOT_READY);
        }
        self.poisoned.map_or(Ok(()), Err)?;
        set_current(driver, self.lease.context)?;
        let streams = [self.lease.stream, self.lease.default_stream()];
        let streams = self.streams.iter().copied().chain(streams);
        let until = Instant::now() + IDLE_TIMEOUT;
        wait_for(driver, streams, until)?;
        match self.fence {
            Some(fence) => poll(until, || driver.event_query(fence)),
            None => Ok(()),
        }
    }

    fn detached(&mut self) -> Detached {
        let pooled = self.memory.iter().filter(|memory| memory.from_pool);
        Detached {
            graphs: self.graphs.drain(..).collect(),
            memory: pooled.map(|memory| memory.address).collect(),
            pools: self.pools.drain(..).collect(),
        }
    }

    /// Releases the objects of an idle instance. Fails if a driver call reports the fault of a kernel.
    fn take_apart(&mut self, driver: &EntryPoints) -> Result<(), Code> {
        let stream = self.lease.stream;
        // Only errors that mean a broken context matter here.
        let mut fault = None;
        let mut note = |result: Result<(), Code>| {
            fault = fault.or(result.err().filter(|code| code.is_sticky()));
        };
        self.execs
            .drain(..)
            .for_each(|exec| note(driver.graph_exec_destroy(exec)));
        self.graphs
            .drain(..)
            .for_each(|graph| note(driver.graph_destroy(graph)));
        let barrier = self
            .lease
            .barrier
            .take()
            .into_iter()
            .chain(self.fence.take());
        self.events
            .drain(..)
            .chain(barrier)
            .for_each(|event| note(driver.event_destroy(event)));
        self.streams
            .drain(..)
            .for_each(|stream| note(driver.stream_destroy(stream)));
        self.modules
            .drain(..)
            .for_each(|module| note(driver.module_unload(module)));
        self.memory
            .sort_unstable_by_key(|allocation| std::cmp::Reverse(allocation.number));
        for allocation in &self.memory {
            // The driver does not clear memory that is allocated again in the same process.
            note(driver.memset_8(allocation.address, 0, allocation.size as usize, stream));
        }
        wait_for(driver, [stream], Instant::now() + IDLE_TIMEOUT)?;
        // This frees memory of pools as well. No work uses it now.
        for allocation in self.memory.drain(..) {
            note(driver.mem_free(allocation.address));
        }
        self.pools
            .drain(..)
            .for_each(|pool| note(driver.pool_destroy(pool)));
        if let Some(staging) = self.lease.staging.take() {
            note(driver.free_host_buffer(staging));
        }
        note(driver.stream_destroy(stream));
        fault.map_or(Ok(()), Err)
    }
}

/// Waits for streams. Fails with `NOT_READY` if one is still busy at `until`.
pub(crate) fn wait_for(
    driver: &EntryPoints,
    streams: impl IntoIterator<Item = Stream>,
    until: Instant,
) -> Result<(), Code> {
    let mut streams = streams.into_iter();
    streams.try_for_each(|stream| poll(until, || driver.stream_query(stream)))
}

/// Repeats a query until its result is not `NOT_READY`, or until the time is over.
fn poll(until: Instant, ask: impl Fn() -> Result<(), Code>) -> Result<(), Code> {
    let mut pause = Duration::from_micros(20);
    loop {
        match ask() {
            Err(Code::NOT_READY) if Instant::now() < until => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE);
            }
            answer => return answer,
        }
    }
}

/// Probes whether a device still works: creates a context and runs a memset in it. Also frees the detached objects of a
/// destroyed context. A device that is out of memory counts as working.
pub(crate) fn probe(backend: &Backend, device: usize, detached: Detached) -> Result<(), Code> {
    match try_device(backend, device, detached) {
        Err(Code::OUT_OF_MEMORY) => Ok(()),
        result => result,
    }
}

fn try_device(backend: &Backend, device: usize, detached: Detached) -> Result<(), Code> {
    let driver = &backend.driver;
    let Prepared {
        context,
        stream,
        staging,
    } = backend.prepare(device)?;
    set_current(driver, context)?;
    let tried = (|| {
        let address = driver.mem_alloc(4)?;
        driver.memset_8(address, 0, 4, stream)?;
        wait_for(driver, [stream], Instant::now() + IDLE_TIMEOUT).map_err(|code| match code {
            Code::NOT_READY => Code::LAUNCH_TIMEOUT,
            code => code,
        })?;
        driver.mem_free(address)
    })();
    for graph in detached.graphs {
        let _ = driver.graph_destroy(graph);
    }
    for address in detached.memory {
        let _ = driver.mem_free(address);
    }
    for pool in detached.pools {
        let _ = driver.pool_destroy(pool);
    }
    // An error here means that the context does not work.
    let freed = driver.free_host_buffer(staging);
    let ended = driver.stream_destroy(stream);
    clear_current(driver);
    let destroyed = driver.context_destroy(context);
    tried.and(freed).and(ended).and(destroyed)
}
