//! Replicas: a worker thread's slots and the spare instance for the next run.
//!
//! ```text
//!            prepare                 run                     prepare
//! (nothing) ---------> spare ready ------> used instance -----------> spare ready
//! ```
//!
//! A request pays only for `run`. Dropping its instance, resetting the slots and making the next
//! instance happen in `prepare`, after the response was sent.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::deadline::{self, Canceler, Registration, RunLimits, Watched};
use crate::instance::{self, Instance, InstanceError, Renewed, Slots, Usage, reserve};
use crate::link::Linked;
use crate::signal;
use crate::trap::RunOutcome;

/// Runs guests on the thread that created it, one after another, each in a fresh instance.
pub struct Replica<T> {
    spare: Option<Instance<T>>,
    used: Option<Instance<T>>,
    slots: Option<Slots>,
    registration: Registration,
    linked: Arc<Linked<T>>,
    runs: u64,
    /// Whether the thread has a stack for guests.
    has_stack: bool,
    /// Signals are sent to the thread that runs guests, so a replica must not move.
    not_send: PhantomData<*const ()>,
}

impl<T> std::fmt::Debug for Replica<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("linked", &self.linked)
            .finish_non_exhaustive()
    }
}

impl<T: 'static> Replica<T> {
    /// Creates a replica for this thread. It reserves nothing yet.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Monitor`].
    pub fn new(linked: &Arc<Linked<T>>) -> Result<Self, InstanceError> {
        signal::install();
        deadline::start().map_err(InstanceError::Monitor)?;
        Ok(Self {
            spare: None,
            used: None,
            slots: None,
            registration: Watched::register(),
            linked: Arc::clone(linked),
            runs: 0,
            has_stack: false,
            not_send: PhantomData,
        })
    }

    /// Makes the instance for the next run ready: resets the last one or creates a new one.
    ///
    /// # Errors
    ///
    /// [`InstanceError`]; the replica remains usable.
    pub fn prepare(&mut self) -> Result<(), InstanceError> {
        if let Some(used) = self.used.take() {
            match used.renew()? {
                Renewed::Instance(instance) => self.spare = Some(instance),
                Renewed::Slots(slots) => self.slots = Some(slots),
            }
        }
        if !self.has_stack {
            instance::reserve_stack(&self.linked)?;
            self.has_stack = true;
        }
        if self.spare.is_none() {
            let slots = match self.slots.take() {
                Some(slots) => slots,
                None => reserve(&self.linked.module)?,
            };
            self.spare = Some(Instance::new(&self.linked, slots)?);
        }
        Ok(())
    }

    /// Returns a handle with which another thread can end the next run.
    pub fn canceler(&self) -> Canceler {
        Canceler::new(&self.registration.0, self.runs + 1)
    }

    /// Runs the module once. Its host functions see `data`. The run ends at its limits at the latest.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] if no instance was ready and none could be created. A guest's failure is an
    /// outcome, not an error of this call.
    pub fn run(&mut self, data: &mut T, limits: RunLimits) -> Result<RunOutcome, InstanceError> {
        self.prepare()?;
        self.runs += 1;
        let Some(mut instance) = self.spare.take() else {
            return Err(InstanceError::Vm("no instance was made".into()));
        };
        let watched = &self.registration.0;
        let result = instance.run(watched, self.runs, data, limits);
        let in_memory = |address| instance.owns(address);
        let outcome = RunOutcome::new(result, &self.linked.module, &watched.thread, in_memory);
        self.used = Some(instance);
        Ok(outcome)
    }

    /// Resources that the last run used. Valid until the next [`prepare`](Replica::prepare).
    pub fn usage(&self) -> Usage {
        self.used.as_ref().map(Instance::usage).unwrap_or_default()
    }

    /// The module that the replica runs.
    pub fn linked(&self) -> &Arc<Linked<T>> {
        &self.linked
    }
}
