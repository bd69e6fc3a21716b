//! Replicas: worker threads, each with a memory slot and a spare instance, and the queue before them.
//!
//! The *floor* of replicas always exists; load adds more up to the ceiling, and one above the floor ends when it has
//! been idle for a while. A job waits in one queue for whichever replica is free first.
//!
//! Waking a thread costs the one that does it more than a short run. So a replica that has got its last job at once looks
//! out for the next one for a moment before it sleeps ([`LOOK_OUT`]), one at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use faas_wasm_engine::{Replica, run_as_batch};

use super::WasmMetrics;
use super::cpu_share::CpuShares;
use super::exchange::Exchange;
use super::job::{Job, Reports, Worker};
use super::world::World;
use crate::guest::Guest;
use crate::log::Logger;
use crate::threads;

/// Pause after a replica could not be prepared, so that a system without memory is not hammered. Doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a replica looks out for a job before it sleeps. Under load it saves as much time as it takes; otherwise it
/// is not done ([`SOON`]), nor on a single core, which those need that have the jobs.
const LOOK_OUT: Duration = Duration::from_micros(4);
/// A job that came so soon after the last one may be followed by another.
const SOON: Duration = Duration::from_micros(50);

/// How long replicas that run no guest may take to end; leaving a control group can take the kernel a while.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How many replicas there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub min: u32,
    pub max: u32,
    pub idle_timeout: Duration,
    pub queue_limit: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Job>,
    /// Replicas that exist.
    replicas: u32,
    /// Those that have not been ready yet, nor found out that they cannot be.
    starting: u32,
    /// Their threads, until they have let go of everything.
    threads: u32,
    /// Those with a spare instance, waiting.
    idle: u32,
    /// At least the idle ones that sleep and have not been told of a job.
    asleep: u32,
    /// One of the idle ones looks out for a job, and need not be told of it.
    looks_out: bool,
    /// Those with a spare instance or in a run.
    ready: u32,
    /// Places of replicas that guests on other threads have taken.
    places_taken: u32,
    floor: u32,
    stopping: bool,
    /// Set by a replica that cannot prepare, cleared by one that can.
    problem: Option<String>,
    growth: Growth,
}

/// Keeps a system that has no memory for more replicas from being asked at every request.
#[derive(Debug, Default)]
struct Growth {
    not_before: Option<Instant>,
    pause: Duration,
}

impl Growth {
    fn is_allowed(&self) -> bool {
        self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    fn refused(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.not_before = Some(Instant::now() + self.pause);
    }
}

impl State {
    /// How many of the idle replicas may run a guest, of `max` guests at once.
    fn free(&self, max: u32) -> u32 {
        let busy = self.replicas.saturating_sub(self.idle) + self.places_taken;
        self.idle.min(max.saturating_sub(busy))
    }

    /// How many more guests would run at once, of `max`, with the replicas that can be started.
    fn room(&self, max: u32) -> u32 {
        let to_come = self.idle + self.starting;
        let room = max.saturating_sub(self.replicas.saturating_sub(to_come) + self.places_taken);
        if self.growth.is_allowed() {
            room
        } else {
            room.min(to_come)
        }
    }

    /// Whether another replica is wanted: for a job that none of the others is free for, or for the floor.
    fn wants_more(&self) -> bool {
        self.queue.len() > (self.idle + self.starting) as usize || self.replicas < self.floor
    }
}

/// A replica's place, for a guest on another thread. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place(&'static Pool);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.places_taken -= 1;
        if !state.queue.is_empty() {
            self.0.tell_one(state);
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
    guest: Arc<Guest>,
    pub(super) scale: Scale,
    shares: Option<CpuShares>,
    world: World,
    reports: Arc<Reports>,
    /// Others can work while a replica looks out.
    has_cores: bool,
    metrics: WasmMetrics,
    logger: Logger,
}

impl Pool {
    /// A pool without replicas. It is there for as long as the process.
    pub(super) fn new(
        guest: Arc<Guest>,
        scale: Scale,
        shares: Option<CpuShares>,
        world: World,
        metrics: WasmMetrics,
        logger: Logger,
    ) -> &'static Self {
        let floor = scale.min;
        Box::leak(Box::new(Self {
            state: Mutex::new(State {
                floor,
                ..State::default()
            }),
            changed: Condvar::new(),
            guest,
            scale,
            shares,
            world,
            reports: Arc::default(),
            has_cores: threads::cores() > 1,
            metrics,
            logger,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the floor of replicas and waits until they are ready.
    ///
    /// # Errors
    /// Why one is not.
    pub(super) fn start(&'static self) -> Result<(), String> {
        self.grow_to_floor();
        let mut state = self.lock();
        loop {
            if let Some(problem) = &state.problem {
                return Err(problem.clone());
            }
            if state.ready >= self.scale.min {
                return Ok(());
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn grow_to_floor(&'static self) {
        let mut state = self.lock();
        while state.replicas < state.floor {
            if !self.spawn(&mut state) {
                break;
            }
        }
    }

    /// Starts one replica.
    fn spawn(&'static self, state: &mut State) -> bool {
        let thread = std::thread::Builder::new().name("replica".into());
        let life = move || {
            self.work();
            self.lock().threads -= 1;
            self.changed.notify_all();
        };
        match thread.spawn(life) {
            Ok(_) => {
                state.replicas += 1;
                state.starting += 1;
                state.threads += 1;
                self.metrics.replicas.inc();
                true
            }
            Err(error) => {
                let problem = format!("could not start a replica's thread: {error}");
                self.logger.error(&problem);
                state.problem = Some(problem);
                state.growth.refused();
                false
            }
        }
    }

    /// Takes a replica's place for a guest on the calling thread, if one is free and nobody waits for it.
    pub(super) fn take_place(&'static self) -> Option<Place> {
        let mut state = self.lock();
        let is_free = state.queue.is_empty() && !state.stopping && state.free(self.scale.max) > 0;
        state.places_taken += u32::from(is_free);
        drop(state);
        is_free.then(|| Place(self))
    }

    /// Puts a job into the queue, or drops it and says `false` if the queue is full.
    pub(super) fn submit(&'static self, job: Job) -> bool {
        let mut state = self.lock();
        // Those who wait for a replica beyond the ones that are free for them, or can be.
        let room = state.room(self.scale.max) as usize;
        if state.queue.len() >= room.saturating_add(self.scale.queue_limit) {
            return false;
        }
        state.queue.push_back(job);
        if state.wants_more() && state.replicas < self.scale.max && state.growth.is_allowed() {
            self.spawn(&mut state);
        }
        // Nobody takes it, so it would wait in vain.
        let in_vain = match state.replicas {
            0 => state.queue.pop_back(),
            _ => None,
        };
        self.metrics.queued.set(state.queue.len() as i64);
        if let Some(job) = in_vain {
            drop(state);
            job.fail();
            return true;
        }
        let is_seen = state.looks_out && state.queue.len() == 1;
        if !is_seen {
            self.tell_one(state);
        }
        true
    }

    /// Wakes a replica, if one sleeps: telling is a system call even if nobody does, and under load nobody does.
    fn tell_one(&self, mut state: MutexGuard<'_, State>) {
        let tell = state.asleep > 0;
        state.asleep -= u32::from(tell);
        drop(state);
        if tell {
            self.changed.notify_one();
        }
    }

    /// Takes a job out of the queue whose client does not wait any more, so that it keeps nobody else from waiting.
    pub(super) fn withdraw(&self, exchange: &Arc<Exchange>) {
        let mut state = self.lock();
        let place = state
            .queue
            .iter()
            .position(|job| Arc::ptr_eq(&job.exchange, exchange));
        let job = place.and_then(|place| state.queue.remove(place));
        self.metrics.queued.set(state.queue.len() as i64);
        drop(state);
        // What it holds is given back outside of the lock.
        drop(job);
    }

    /// Replicas that exist, and those of them that are ready or running.
    pub(super) fn count(&self) -> (u32, u32) {
        let state = self.lock();
        (state.replicas, state.ready)
    }

    /// Whether the floor stands.
    pub(super) fn is_ready(&self) -> bool {
        let state = self.lock();
        state.ready >= self.scale.min
    }

    /// Sets the floor, within the configured bounds (the caller's check).
    pub(super) fn set_floor(&'static self, floor: u32) {
        self.lock().floor = floor;
        self.grow_to_floor();
        self.changed.notify_all();
    }

    /// Ends idle replicas; the others end after their job. Waits a while for those that run no guest: what the log still
    /// has to say of a request comes after its answer.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        self.changed.notify_all();
        let ended = self.changed.wait_timeout_while(state, LAST_WORDS, |state| {
            u64::from(state.threads) > self.metrics.running()
        });
        drop(ended);
    }

    /// What the calling thread runs guests with.
    pub(super) fn worker(&self) -> Result<Worker, String> {
        let replica = Replica::new(&self.guest).map_err(|error| error.to_string())?;
        // Only now: the first replica starts the thread that watches deadlines, and a thread is born into the group of
        // the one that starts it.
        let share = self.shares.as_ref().map(CpuShares::enter).transpose();
        let share = share.map_err(|error| error.to_string())?;
        let (world, metrics) = (self.world.copy(), self.metrics.clone());
        let reports = Arc::clone(&self.reports);
        Ok(Worker::new(
            replica,
            share,
            world,
            metrics,
            self.logger,
            reports,
        ))
    }

    /// What the calling thread runs guests with, and whether it counts as starting any more; tried until it can be had,
    /// or nobody needs it.
    fn first_worker(&self, is_starting: &mut bool) -> Option<Worker> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.worker() {
                Ok(worker) => return Some(worker),
                Err(error) => error,
            };
            let mut state = self.lock();
            state.starting -= u32::from(std::mem::take(is_starting));
            state.problem = Some(error.clone());
            drop(state);
            self.changed.notify_all();
            self.logger
                .error(&format!("cannot start a replica: {error}"));
            if self.ends_after_refusal(pause) {
                return None;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The life of a replica's thread.
    fn work(&self) {
        let mut is_starting = true;
        let Some(mut worker) = self.first_worker(&mut is_starting) else {
            self.metrics.replicas.dec();
            return;
        };
        // Not before the thread that watches deadlines is there, which would have the same schedule.
        run_as_batch();
        let mut was_ready = false;
        let mut pause = FIRST_PAUSE;
        let mut expects_more = false;
        loop {
            let prepared = worker.prepare(Instant::now());
            let problem = prepared.as_ref().err().cloned();
            let mut state = self.lock();
            if prepared.is_err() {
                state.starting -= u32::from(std::mem::take(&mut is_starting));
            }
            // After most runs nothing changes, and nobody is to be woken for it.
            if was_ready != prepared.is_ok() || state.problem != problem {
                match (&prepared, was_ready) {
                    (Ok(()), false) => {
                        state.ready += 1;
                        state.growth = Growth::default();
                    }
                    (Err(_), true) => state.ready -= 1,
                    _ => {}
                }
                was_ready = prepared.is_ok();
                state.problem = problem;
                self.changed.notify_all();
            }
            drop(state);
            if let Err(problem) = prepared {
                self.logger
                    .error(&format!("cannot make an instance: {problem}"));
                if self.ends_after_refusal(pause) {
                    break;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            pause = FIRST_PAUSE;
            match self.next(&mut is_starting, &mut expects_more) {
                Some(job) => worker.run(job),
                None => break,
            }
        }
        let mut state = self.lock();
        if was_ready {
            state.ready -= 1;
        }
        // `next` has already taken it off the number of replicas, unless it never got there.
        drop(state);
        self.metrics.replicas.dec();
    }

    /// What becomes of a replica for which the system has no memory: one beyond the floor ends if others can go on, and
    /// no further one is started for a while. One that is needed tries again after a pause. Returns whether it ends.
    fn ends_after_refusal(&self, pause: Duration) -> bool {
        let mut state = self.lock();
        let others_go_on = state.ready > 0;
        state.growth.refused();
        if others_go_on && state.replicas > state.floor {
            state.problem = None;
            state.replicas -= 1;
            return true;
        }
        // Nobody else takes it, so it would wait in vain.
        let job = match others_go_on {
            true => None,
            false => state.queue.pop_front(),
        };
        drop(state);
        if let Some(job) = job {
            job.fail();
        }
        // Not on `changed`: who is told of a job there must be able to take it.
        let again = Instant::now() + pause;
        loop {
            let mut state = self.lock();
            if state.stopping {
                state.replicas -= 1;
                return true;
            }
            drop(state);
            let left = again.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(FIRST_PAUSE));
        }
    }

    /// Waits for a job without sleeping.
    fn look_out<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        until: Instant,
    ) -> MutexGuard<'a, State> {
        state.looks_out = true;
        drop(state);
        while self.metrics.queued.get() == 0 && Instant::now() < until {
            std::hint::spin_loop();
        }
        let mut state = self.lock();
        state.looks_out = false;
        state
    }

    /// Waits for a job; `None` if the replica shall end. Who counts as starting does no longer, and `expects_more` is
    /// whether the last job came soon.
    fn next(&self, is_starting: &mut bool, expects_more: &mut bool) -> Option<Job> {
        let began = Instant::now();
        let mut idle_since = began;
        let mut state = self.lock();
        // Both at once, so that nobody takes the replica for a busy one in between.
        state.starting -= u32::from(std::mem::take(is_starting));
        state.idle += 1;
        if *expects_more && state.queue.is_empty() && !state.looks_out {
            state = self.look_out(state, began + LOOK_OUT);
        }
        let job = loop {
            if state.free(self.scale.max) > 0
                && let Some(job) = state.queue.pop_front()
            {
                break Some(job);
            }
            if state.stopping {
                break None;
            }
            let idle = idle_since.elapsed();
            // Who wakes without having been told is counted twice; a job more is then told of for nothing.
            if state.replicas <= state.floor {
                state.asleep += 1;
                // Part of the floor: its idle time counts from when it is not any more.
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                idle_since = if state.replicas <= state.floor {
                    Instant::now()
                } else {
                    idle_since
                };
            } else if idle >= self.scale.idle_timeout {
                break None;
            } else {
                let left = self.scale.idle_timeout - idle;
                state.asleep += 1;
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        state.idle -= 1;
        *expects_more = self.has_cores && began.elapsed() < SOON;
        if job.is_none() {
            state.replicas -= 1;
        }
        self.metrics.queued.set(state.queue.len() as i64);
        job
    }
}
