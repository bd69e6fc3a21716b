//! The pool of contexts that are created in advance, and how instances get a context.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cuda, MAX_QUEUED, TEARDOWN_TIMEOUT};
use crate::code::Code;
use crate::device::{Backend, Prepared};
use crate::driver::{clear_current, set_current};
use crate::lease::{Lease, SharedContext};
use crate::settings::{Isolation, Level};
use crate::teardown::IDLE_TIMEOUT;

/// Counts a thread that creates a context; see [`Cuda::prepare`].
#[derive(Debug)]
pub(crate) struct PreparationGuard(Arc<Cuda>);

impl Drop for PreparationGuard {
    fn drop(&mut self) {
        self.0.lock().preparing -= 1;
        self.0.changed.notify_all();
    }
}

impl Cuda {
    /// Gives an instance a context from the pool, or a share of the shared one. Returns `None` if that needs a wait.
    pub(crate) fn lease_now(
        &self,
        backend: &Backend,
        device: usize,
    ) -> Result<Option<Lease>, Code> {
        let mut shared = self.lock();
        if shared.dead.is_some() || shared.teardown_queue.len() >= MAX_QUEUED {
            return Ok(None);
        }
        match self.settings.isolation {
            Isolation::Context => {
                let prepared = shared.pool.get_mut(device).and_then(Vec::pop);
                drop(shared);
                self.changed.notify_all();
                Ok(prepared.map(|prepared| Lease::own(device, prepared)))
            }
            Isolation::Shared => {
                let present = shared.contexts.get(device).cloned().flatten();
                drop(shared);
                present
                    .map(|context| Self::join(backend, device, context))
                    .transpose()
            }
        }
    }

    /// Marks a context as being created for as long as the returned guard lives.
    pub(crate) fn prepare(self: &Arc<Self>) -> PreparationGuard {
        self.lock().preparing += 1;
        PreparationGuard(Arc::clone(self))
    }

    /// Gives an instance a context, or a share of the shared one. Creates the context if necessary, which can take
    /// long.
    pub(crate) fn lease(&self, backend: &Backend, device: usize) -> Result<Lease, Code> {
        let mut shared = self.lock();
        if shared.dead.is_some() {
            return Err(Code::DEVICE_UNAVAILABLE);
        }
        let began = Instant::now();
        while shared.teardown_queue.len() >= MAX_QUEUED && began.elapsed() < IDLE_TIMEOUT {
            shared = self.wait_on(shared, Duration::from_millis(5));
        }
        match self.settings.isolation {
            Isolation::Context => {
                let prepared = shared.pool.get_mut(device).and_then(Vec::pop);
                drop(shared);
                self.changed.notify_all();
                let prepared = match prepared {
                    Some(prepared) => prepared,
                    None => backend.prepare(device)?,
                };
                Ok(Lease::own(device, prepared))
            }
            Isolation::Shared => {
                let present = shared.contexts.get(device).cloned().flatten();
                let prepared = match present {
                    Some(_) => None,
                    None => shared.pool.get_mut(device).and_then(Vec::pop),
                };
                drop(shared);
                let context = match present {
                    Some(context) => context,
                    None => self.share(backend, device, prepared)?,
                };
                Self::join(backend, device, context)
            }
        }
    }

    /// Gives an instance a share of a shared context: a stream and a staging buffer.
    fn join(backend: &Backend, device: usize, shared: Arc<SharedContext>) -> Result<Lease, Code> {
        set_current(&backend.driver, shared.context)?;
        let (stream, staging) = backend.equip()?;
        Ok(Lease {
            device,
            context: shared.context,
            stream,
            staging: Some(staging),
            shared: Some(shared),
            barrier: None,
        })
    }

    /// Creates the shared context, or returns the one that another thread has created meanwhile.
    fn share(
        &self,
        backend: &Backend,
        device: usize,
        prepared: Option<Prepared>,
    ) -> Result<Arc<SharedContext>, Code> {
        let Prepared {
            context,
            stream,
            staging,
        } = match prepared {
            Some(prepared) => prepared,
            None => backend.prepare(device)?,
        };
        // Each instance has a separate stream and staging buffer.
        set_current(&backend.driver, context)?;
        let _ = backend.driver.free_host_buffer(staging);
        let _ = backend.driver.stream_destroy(stream);
        clear_current(&backend.driver);
        let made = Arc::new(SharedContext { context });
        let mut shared = self.lock();
        let Some(place) = shared.contexts.get_mut(device) else {
            return Err(Code::INVALID_DEVICE);
        };
        let taken = Arc::clone(place.get_or_insert_with(|| Arc::clone(&made)));
        // The pool may have received a context meanwhile, which no instance will use.
        let spare = shared.pool.get_mut(device).map(std::mem::take);
        drop(shared);
        for prepared in spare.into_iter().flatten() {
            destroy(backend, prepared);
        }
        if !Arc::ptr_eq(&taken, &made) {
            let _ = backend.driver.context_destroy(context);
        }
        Ok(taken)
    }

    pub(super) fn refill(self: &Arc<Self>, backend: &Arc<Backend>) {
        let wanted = match self.settings.isolation {
            Isolation::Context => self.settings.warm_contexts as usize,
            Isolation::Shared => 1,
        };
        loop {
            let mut shared = self.lock();
            let missing = loop {
                if shared.stopping || shared.dead.is_some() {
                    return;
                }
                if let Some(since) = shared.blocked_since
                    && since.elapsed() > TEARDOWN_TIMEOUT
                {
                    drop(shared);
                    self.lose(&format!(
                        "a context could not be destroyed within {TEARDOWN_TIMEOUT:?}"
                    ));
                    return;
                }
                if self.is_overdue(&shared) {
                    drop(shared);
                    self.lose(&format!(
                        "a driver call has not returned {TEARDOWN_TIMEOUT:?} after the end of its run"
                    ));
                    return;
                }
                let lacks = |device: &usize| {
                    let made = shared.pool[*device].len();
                    let used = shared.contexts[*device].is_some();
                    match self.settings.isolation {
                        Isolation::Context => made < wanted,
                        Isolation::Shared => !used && made < wanted,
                    }
                };
                match (0..backend.devices.len()).find(lacks) {
                    Some(device) => break device,
                    None => {
                        if !shared.warm {
                            shared.warm = true;
                            self.changed.notify_all();
                        }
                        let look = match shared.blocked_since {
                            Some(_) => Duration::from_millis(100),
                            None => Duration::from_secs(1),
                        };
                        shared = self.wait_on(shared, look);
                    }
                }
            };
            shared.preparing += 1;
            drop(shared);
            // `stop` waits for this guard, then empties the pool.
            let preparing = PreparationGuard(Arc::clone(self));
            let made = backend.prepare(missing);
            let mut shared = self.lock();
            // An instance may have created the shared context meanwhile.
            let late =
                self.settings.isolation == Isolation::Shared && shared.contexts[missing].is_some();
            let failed = match made {
                Ok(prepared) if late => {
                    drop(shared);
                    destroy(backend, prepared);
                    None
                }
                Ok(prepared) => {
                    shared.pool[missing].push(prepared);
                    drop(shared);
                    None
                }
                Err(code) => {
                    // Guests then create their contexts on demand. Readiness must not wait, as every attempt may fail.
                    shared.warm = true;
                    drop(shared);
                    Some(code)
                }
            };
            drop(preparing);
            if let Some(code) = failed {
                self.log_once("refill", Level::Warning, || {
                    format!("cannot create a context in advance: {code}")
                });
                drop(self.wait_on(self.lock(), Duration::from_secs(1)));
            }
        }
    }
}

/// Destroys a context of the pool.
pub(super) fn destroy(backend: &Backend, prepared: Prepared) {
    let Prepared {
        context,
        stream,
        staging,
    } = prepared;
    if set_current(&backend.driver, context).is_ok() {
        let _ = backend.driver.free_host_buffer(staging);
        let _ = backend.driver.stream_destroy(stream);
    }
    clear_current(&backend.driver);
    let _ = backend.driver.context_destroy(context);
}
