//! What an instance leaves behind on a device, and how it is taken apart.
//!
//! In this order, whatever ended the instance: wait for its streams, destroy executable graphs, graphs, events and
//! streams, unload modules, overwrite and free memory (the newest first), destroy pools, free the staging buffer,
//! destroy the context or give it up. A context in which a kernel has failed, or still runs when the time is over, is
//! destroyed as it is; what lies outside of it (memory of pools) is freed then. Until that has happened the staging
//! buffer stays where it is, as the device may still write to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::{clear_current, set_current};
use crate::code::Code;
use crate::device::{Backend, Prepared};
use crate::driver::{
    Context, EntryPoints, Event, Graph, GraphExec, HostBuffer, Module, Pool, Stream,
};

/// How long an instance's streams may still be busy after its end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Longest pause between two looks at a stream.
const PAUSE: Duration = Duration::from_millis(1);

/// A context that instances share.
#[derive(Debug)]
pub(crate) struct SharedContext {
    pub(crate) context: Context,
}

/// An instance's part of a device: a context of its own, or a stream in a shared one.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) device: usize,
    pub(crate) context: Context,
    /// Ours: for staging and scrubbing, and the guest's default stream if the context is shared.
    pub(crate) stream: Stream,
    pub(crate) staging: Option<HostBuffer>,
    pub(crate) shared: Option<Arc<SharedContext>>,
    /// Recorded where the default stream of a shared context and the guest's wait for each other.
    pub(crate) barrier: Option<Event>,
}

impl Lease {
    /// Takes a context for one instance alone.
    pub(crate) fn own(device: usize, prepared: Prepared) -> Self {
        Self {
            device,
            context: prepared.context,
            stream: prepared.stream,
            staging: Some(prepared.staging),
            shared: None,
            barrier: None,
        }
    }

    /// What the guest's stream 0 is.
    pub(crate) fn default_stream(&self) -> Stream {
        match self.shared {
            // The real one would wait for other instances.
            Some(_) => self.stream,
            None => Stream::LEGACY,
        }
    }
}

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
pub(crate) struct Remains {
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
}

/// How taking apart went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should.
    Clean,
    /// A kernel had failed or did not end, and what there was is gone all the same: the device has to be tried.
    Suspect,
    /// Something of it is still running where nothing can end it.
    Stuck,
}

impl Remains {
    /// Takes everything apart. `destroying` is called before what may block without end.
    pub(crate) fn bury(mut self, backend: &Backend, destroying: &dyn Fn()) -> Verdict {
        let driver = &backend.driver;
        let entered = set_current(driver, self.lease.context);
        let mut idle = self.poisoned.is_none() && entered.is_ok();
        if idle {
            let streams = [self.lease.stream, self.lease.default_stream()];
            let streams = self.streams.iter().copied().chain(streams);
            let until = Instant::now() + PATIENCE;
            idle = wait_for(driver, streams, until)
                && self
                    .fence
                    .is_none_or(|fence| poll(until, || driver.event_query(fence)));
        }
        if idle {
            idle = self.take_apart(driver);
        }
        let verdict = match (&self.lease.shared, idle) {
            (_, true) => Verdict::Clean,
            (None, false) => Verdict::Suspect,
            // The others go on using the context, and what runs in it cannot be stopped.
            (Some(_), false)
                if self
                    .poisoned
                    .is_none_or(|code| code == Code::LAUNCH_TIMEOUT) =>
            {
                Verdict::Stuck
            }
            (Some(_), false) => Verdict::Suspect,
        };
        destroying();
        match self.lease.shared.take() {
            None => {
                clear_current(driver);
                // A context that cannot be destroyed any more is gone already.
                let _ = driver.context_destroy(self.lease.context);
                if !idle {
                    for allocation in self.memory.iter().filter(|allocation| allocation.from_pool) {
                        let _ = driver.mem_free(allocation.address);
                    }
                    for pool in self.pools.drain(..) {
                        let _ = driver.pool_destroy(pool);
                    }
                }
            }
            Some(shared) => {
                clear_current(driver);
                // The last one to leave a context that nobody new gets closes it.
                if let Some(shared) = Arc::into_inner(shared) {
                    let _ = driver.context_destroy(shared.context);
                }
            }
        }
        verdict
    }

    /// Gives back what an idle instance has; `false` if a kernel's fault shows.
    fn take_apart(&mut self, driver: &EntryPoints) -> bool {
        let stream = self.lease.stream;
        // The driver's answers are of no use here, but for those that say that the context is broken.
        let mut well = true;
        let mut note = |result: Result<(), Code>| well &= !result.is_err_and(Code::is_sticky);
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
        if !wait_for(driver, [stream], Instant::now() + PATIENCE) {
            return false;
        }
        for allocation in self.memory.drain(..) {
            match allocation.from_pool {
                true => note(driver.mem_free_async(allocation.address, stream)),
                false => note(driver.mem_free(allocation.address)),
            }
        }
        if !self.pools.is_empty() && !wait_for(driver, [stream], Instant::now() + PATIENCE) {
            return false;
        }
        self.pools
            .drain(..)
            .for_each(|pool| note(driver.pool_destroy(pool)));
        if let Some(staging) = self.lease.staging.take() {
            note(driver.free_host_buffer(staging));
        }
        note(driver.stream_destroy(stream));
        well
    }
}

/// Waits for streams; `false` if one is still busy at the end of the time, or has failed.
pub(crate) fn wait_for(
    driver: &EntryPoints,
    streams: impl IntoIterator<Item = Stream>,
    until: Instant,
) -> bool {
    let mut streams = streams.into_iter();
    streams.all(|stream| poll(until, || driver.stream_query(stream)))
}

/// Asks until the answer is another than "not ready"; `false` if that is not success, or does not come in time.
fn poll(until: Instant, ask: impl Fn() -> Result<(), Code>) -> bool {
    let mut pause = Duration::from_micros(20);
    loop {
        match ask() {
            Ok(()) => return true,
            Err(Code::NOT_READY) if Instant::now() < until => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE);
            }
            Err(_) => return false,
        }
    }
}

/// Tries whether a device still works: a new context, and a kernel-like operation in it.
pub(crate) fn probe(backend: &Backend, device: usize) -> Result<(), Code> {
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
        if !wait_for(driver, [stream], Instant::now() + PATIENCE) {
            return Err(Code::LAUNCH_TIMEOUT);
        }
        driver.mem_free(address)?;
        driver.free_host_buffer(staging)?;
        driver.stream_destroy(stream)
    })();
    clear_current(driver);
    tried.and(driver.context_destroy(context))
}
