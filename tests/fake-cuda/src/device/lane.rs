//! Lanes: the queues of work behind streams. A stream may be destroyed before its work is done; its lane lives until
//! then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::worker;
use super::{Copy, Set};
use crate::abi::{Code, Result};
use crate::driver::{Call, Capture, Driver};
use crate::exec::Launch;

/// One step of a stream's work.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Nothing,
    Kernel(Launch),
    Copy(Copy),
    Set(Set),
    /// Marks the event's record with this number as reached.
    Record {
        event: u64,
        number: u64,
    },
    /// Waits until the event's record with this number has been reached.
    Wait {
        event: u64,
        number: u64,
    },
    /// Frees memory from a pool.
    Free {
        base: u64,
    },
    /// A launched graph.
    Batch(Arc<Vec<Work>>),
}

#[derive(Debug)]
pub(crate) struct Item {
    /// The item's position among all items of all lanes.
    pub(crate) sequence: u64,
    pub(crate) work: Work,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) context: u64,
    /// Whether this is the default stream that waits for all blocking streams, and they for it.
    pub(crate) legacy: bool,
    pub(crate) blocking: bool,
    pub(crate) queue: VecDeque<Item>,
    pub(crate) running: Option<u64>,
    pub(crate) worker: bool,
    pub(crate) closing: bool,
    /// Tells the running kernel to stop.
    pub(crate) cancel: Arc<AtomicBool>,
    pub(crate) capture: Option<Capture>,
}

impl Lane {
    pub(crate) fn new(context: u64, legacy: bool, blocking: bool) -> Self {
        Self {
            context,
            legacy,
            blocking,
            queue: VecDeque::new(),
            running: None,
            worker: false,
            closing: false,
            cancel: Arc::new(AtomicBool::new(false)),
            capture: None,
        }
    }

    /// Number of items that are queued or running.
    pub(crate) fn pending(&self) -> usize {
        self.queue.len() + usize::from(self.running.is_some())
    }

    /// The sequence number of the oldest item.
    fn oldest(&self) -> Option<u64> {
        self.running
            .or(self.queue.front().map(|item| item.sequence))
    }
}

/// The next step of a worker.
pub(crate) enum Next {
    Run(Item),
    /// The first item must wait for another lane or an event.
    Later,
    Idle,
    Gone,
}

impl Driver {
    pub(crate) fn add_lane(&mut self, context: u64, legacy: bool, blocking: bool) -> u64 {
        let lane = self.next_sequence();
        self.lanes
            .insert(lane, Lane::new(context, legacy, blocking));
        lane
    }

    /// Queues work, or adds it to the graph that captures the lane. `kind` is the node's `CUgraphNodeType`.
    pub(crate) fn queue(&mut self, lane: u64, kind: u32, work: Work) -> Result {
        if self.capture(lane).is_some() {
            return self.captured(lane, kind, work);
        }
        self.queue_now(lane, work)
    }

    /// Queues work even if the lane is captured.
    pub(crate) fn queue_now(&mut self, lane: u64, work: Work) -> Result {
        let sequence = self.next_sequence();
        let entry = self.lanes.get_mut(&lane).ok_or(Code::INVALID_HANDLE)?;
        entry.queue.push_back(Item { sequence, work });
        if !entry.worker {
            entry.worker = worker::start(lane);
            if !entry.worker {
                return Err(Code::OUT_OF_MEMORY);
            }
        }
        Ok(())
    }

    /// Lets a lane end as soon as its work is done.
    pub(crate) fn close_lane(&mut self, lane: u64) {
        if let Some(entry) = self.lanes.get_mut(&lane) {
            entry.closing = true;
            if !entry.worker {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Ends all lanes of a context, including their running work.
    pub(crate) fn abandon_lanes(&mut self, context: u64) {
        let lanes: Vec<_> = self.lanes_of(context).collect();
        for lane in lanes {
            if let Some(entry) = self.lanes.get_mut(&lane) {
                entry.queue.clear();
                entry.cancel.store(true, Ordering::Relaxed);
            }
            self.close_lane(lane);
        }
    }

    pub(crate) fn lanes_of(&self, context: u64) -> impl Iterator<Item = u64> + '_ {
        let lanes = self
            .lanes
            .iter()
            .filter(move |(_, lane)| lane.context == context);
        lanes.map(|(handle, _)| *handle)
    }

    pub(crate) fn is_idle(&self, lane: u64) -> bool {
        self.lanes.get(&lane).is_none_or(|lane| lane.pending() == 0)
    }

    pub(crate) fn next(&mut self, handle: u64) -> Next {
        let Some(lane) = self.lanes.get(&handle) else {
            return Next::Gone;
        };
        let Some(item) = lane.queue.front() else {
            if lane.closing {
                self.lanes.remove(&handle);
                return Next::Gone;
            }
            return Next::Idle;
        };
        if !self.may_start(lane, item) {
            return Next::Later;
        }
        let lane = self.lanes.get_mut(&handle);
        match lane.and_then(|lane| lane.queue.pop_front().map(|item| (lane, item))) {
            Some((lane, item)) => {
                lane.running = Some(item.sequence);
                Next::Run(item)
            }
            None => Next::Idle,
        }
    }

    fn may_start(&self, lane: &Lane, item: &Item) -> bool {
        if let Work::Wait { event, number } = item.work
            && !self.is_reached(event, number)
        {
            return false;
        }
        // The legacy default stream and its context's blocking streams take turns.
        !lane.blocking
            || self.lanes.values().all(|other| {
                let concerned =
                    other.context == lane.context && other.blocking && other.legacy != lane.legacy;
                !concerned || other.oldest().is_none_or(|oldest| oldest > item.sequence)
            })
    }

    /// Whether an event's record has been reached. A destroyed event blocks no work.
    pub(crate) fn is_reached(&self, event: u64, number: u64) -> bool {
        self.events
            .get(event)
            .is_none_or(|event| event.reached >= number)
    }
}

impl Call<'_> {
    /// Waits until a lane has no work left, or its context has failed.
    pub(crate) fn drain(&mut self, lane: u64) -> Result {
        let context = self.driver().lanes.get(&lane).map(|lane| lane.context);
        let Some(context) = context else {
            return Ok(());
        };
        self.wait(|driver| {
            let sound = driver.sound(context);
            (sound.is_err() || driver.is_idle(lane)).then_some(sound)
        })
    }

    /// Waits for the lanes of a context for which `pick` returns true.
    fn drain_where(&mut self, context: u64, pick: impl Fn(&Lane) -> bool) -> Result {
        self.wait(|driver| {
            let sound = driver.sound(context);
            let busy = driver
                .lanes
                .values()
                .any(|lane| lane.context == context && lane.pending() > 0 && pick(lane));
            (sound.is_err() || !busy).then_some(sound)
        })
    }

    /// Waits for all work of a context.
    pub(crate) fn drain_context(&mut self, context: u64) -> Result {
        self.drain_where(context, |_| true)
    }

    /// Waits for the work that must precede work on the legacy default stream.
    pub(crate) fn drain_blocking(&mut self, context: u64) -> Result {
        self.drain_where(context, |lane| lane.blocking)
    }
}
