//! What an instance leaves behind on a device, and how it is taken apart.
//!
//! In this order, whatever ended the instance: wait for its streams, destroy executable graphs, graphs, events and
//! streams, unload modules, overwrite and free memory (the newest first), destroy pools, free the staging buffer,
//! destroy the context or give it up. A context in which a kernel has failed, or still runs when the time is over, is
//! destroyed as it is; what lies outside of it (memory of pools) is freed from the context with which the device is
//! tried then. Until that has happened the staging buffer stays where it is, as the device may still write to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::device::{Backend, Prepared};
use crate::driver::{
    EntryPoints, Event, Graph, GraphExec, Module, Pool, Stream, clear_current, set_current,
};
use crate::lease::Lease;

/// How long an instance's streams may still be busy after its end.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest pause between two looks at a stream.
const PAUSE: Duration = Duration::from_millis(1);

/// Says whether work that was begun is still going on: as long as there is a second one of it.
pub(crate) type WorkToken = Arc<()>;

/// A piece of device memory to be freed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocation {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) number: u64,
    pub(crate) from_pool: bool,
}

/// See the module's text.
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
    /// Recorded at the end of the default stream of the guest's thread, which no other thread can name.
    pub(crate) fence: Option<Event>,
    /// The code after which nothing works in the context any more.
    pub(crate) poisoned: Option<Code>,
    /// Whether a wait for the device was given up: something still runs.
    pub(crate) overdue: bool,
    /// Offloaded work of the instance that may still use the context.
    pub(crate) offloaded: Vec<WorkToken>,
}

/// How taking apart went.
#[derive(Debug)]
pub(crate) enum TeardownOutcome {
    /// As it should.
    Clean,
    /// A kernel had failed or did not end (`NOT_READY`), and the context is gone or given up: the device has to be tried.
    Suspect(Code, Detached),
    /// Something of it is still running where nothing can end it.
    Stuck,
}

/// What is not in a context, and outlives one.
#[derive(Debug, Default)]
pub(crate) struct Detached {
    graphs: Vec<Graph>,
    memory: Vec<u64>,
    pools: Vec<Pool>,
}

impl Teardown {
    /// Those of an instance that has done nothing.
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

    /// Whether something still goes on that uses the context.
    pub(crate) fn is_in_use(&self) -> bool {
        self.offloaded
            .iter()
            .any(|token| Arc::strong_count(token) > 1)
    }

    /// Takes everything apart. `destroying` is called before what may block without end, and told whether nobody should
    /// get the context any more.
    pub(crate) fn run(mut self, backend: &Backend, destroying: &dyn Fn(bool)) -> TeardownOutcome {
        let driver = &backend.driver;
        let end = self.come_to_rest(driver);
        let end = end.and_then(|()| self.take_apart(driver));
        let verdict = match (&self.lease.shared, end) {
            (_, Ok(())) => TeardownOutcome::Clean,
            // The others go on using the context, and what runs in it cannot be stopped.
            (Some(_), Err(Code::NOT_READY)) => TeardownOutcome::Stuck,
            (_, Err(code)) => TeardownOutcome::Suspect(code, self.detached()),
        };
        clear_current(driver);
        destroying(!matches!(verdict, TeardownOutcome::Clean));
        let context = match self.lease.shared.take() {
            None => Some(self.lease.context),
            // The last one to leave a context that nobody new gets closes it.
            Some(shared) => Arc::into_inner(shared).map(|shared| shared.context),
        };
        if let Some(context) = context {
            // One that cannot be destroyed any more is gone already.
            let _ = driver.context_destroy(context);
        }
        verdict
    }

    /// Waits until nothing of it runs any more; with `NOT_READY` something does.
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

    /// Gives back what an idle instance has; an error if a kernel's fault shows.
    fn take_apart(&mut self, driver: &EntryPoints) -> Result<(), Code> {
        let stream = self.lease.stream;
        // The driver's answers are of no use here, but for those that say that the context is broken.
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
            // Freed memory is not cleared by the driver when it goes to somebody else of this process.
            note(driver.memset_8(allocation.address, 0, allocation.size as usize, stream));
        }
        wait_for(driver, [stream], Instant::now() + IDLE_TIMEOUT)?;
        // That of pools, too: nothing uses it any more, and it is certain to be gone then.
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

/// Waits for streams; `NOT_READY` if one is still busy at the end of the time.
pub(crate) fn wait_for(
    driver: &EntryPoints,
    streams: impl IntoIterator<Item = Stream>,
    until: Instant,
) -> Result<(), Code> {
    let mut streams = streams.into_iter();
    streams.try_for_each(|stream| poll(until, || driver.stream_query(stream)))
}

/// Asks until the answer is another than "not ready", or the time is over.
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

/// Tries whether a device still works: a new context, and a kernel-like operation in it. What is left of another
/// context is freed from there. A device that has no room has not lost its senses.
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
    // Whatever is wrong with them is wrong with the context.
    let freed = driver.free_host_buffer(staging);
    let ended = driver.stream_destroy(stream);
    clear_current(driver);
    let destroyed = driver.context_destroy(context);
    tried.and(freed).and(ended).and(destroyed)
}
