//! CUDA for a process: opens the driver, keeps contexts ready, takes apart what instances leave, and knows when the
//! device is lost.
//!
//! ```text
//! start --> Starting --> Ready --> Dead      a fault or hung kernel that outlives its context
//!               \-----> Failed               no driver, no device
//! ```
//!
//! Two threads: one opens the driver, then refills the pool of contexts and watches the other; the other takes apart
//! what instances leave (`teardown.rs`), which can block for as long as a driver likes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::device::{Backend, Prepared};
use crate::driver::{Context, Library, SymbolSource, clear_current, set_current};
use crate::settings::{Isolation, Level, Log, Settings};
use crate::teardown::{IDLE_TIMEOUT, Lease, SharedContext, Teardown, TeardownOutcome, probe};

/// How long destroying a context may take, or a call after its run's end, before the device counts as lost.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at what may not be told of.
const LOOK: Duration = Duration::from_millis(20);
/// Instances that wait to be taken apart; beyond it a new one waits.
const MAX_QUEUED: usize = 64;

/// Whether the device can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The driver is being opened, or contexts are being made.
    Starting,
    /// Guests can use it.
    Ready,
    /// There is no driver or no device; guests are told so.
    Failed(String),
    /// The process cannot use it any more and should end.
    Dead(String),
}

enum Opened {
    Starting,
    Ready(Arc<Backend>),
    Failed(Code, String),
}

struct Shared {
    opened: Opened,
    warm: bool,
    dead: Option<String>,
    /// Contexts ready for use, by device.
    pool: Vec<Vec<Prepared>>,
    /// Contexts that instances share, by device.
    contexts: Vec<Option<Arc<SharedContext>>>,
    teardown_queue: VecDeque<Teardown>,
    /// When the teardown thread entered a call that may block.
    blocked_since: Option<Instant>,
    tearing_down: bool,
    /// Threads that are making a context.
    preparing: u32,
    stopping: bool,
    /// The calls of instances that have begun.
    watches: Vec<Weak<Watch>>,
}

impl Shared {
    /// Nobody new gets a shared context any more.
    fn retire(&mut self, device: usize, context: Context) {
        if let Some(place) = self.contexts.get_mut(device) {
            place.take_if(|shared| shared.context == context);
        }
    }

    /// Whether a thread has something to do that it should do before the process ends.
    fn has_work(&self) -> bool {
        self.preparing > 0 || self.tearing_down || !self.teardown_queue.is_empty()
    }

    /// The first of what was left that nothing uses any more.
    fn next_teardown(&mut self) -> Option<Teardown> {
        let at = self
            .teardown_queue
            .iter()
            .position(|teardown| !teardown.is_in_use())?;
        self.teardown_queue.remove(at)
    }
}

/// When the call that an instance is in must be over, in milliseconds since the start; 0 while it is in none.
///
/// Calls end in time by themselves, as none of them waits for the device in the driver. But what a driver does when its
/// device hangs is its own affair, and from a call that never returns only the end of the process helps.
#[derive(Debug, Default)]
pub(crate) struct Watch(AtomicU64);

impl Watch {
    /// A call begins; `due` is from [`Cuda::due`].
    pub(crate) fn begin(&self, due: u64) {
        self.0.store(due, Ordering::Relaxed);
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// See [`Cuda::prepare`].
#[derive(Debug)]
pub(crate) struct PreparationGuard(Arc<Cuda>);

impl Drop for PreparationGuard {
    fn drop(&mut self) {
        self.0.lock().preparing -= 1;
        self.0.changed.notify_all();
    }
}

/// See [`Cuda::start`].
type OnLoss = dyn Fn(&str, bool) + Send + Sync;

/// See the module's text.
pub struct Cuda {
    began: Instant,
    settings: Settings,
    log: Log,
    on_loss: Box<OnLoss>,
    shared: Mutex<Shared>,
    changed: Condvar,
    /// Whether `dead` is set, for those who ask often.
    lost: AtomicBool,
    reported: Mutex<HashSet<String>>,
    /// Device code compiled from PTX, by the image's hash.
    pub(crate) compiled: Mutex<HashMap<[u8; 32], Arc<Vec<u8>>>>,
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cuda")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Cuda {
    /// Opens the driver and makes the first contexts in the background.
    ///
    /// `on_loss` is called on another thread, which it may block: with the cause if the driver cannot be opened, or with
    /// `true` when the process has lost the device.
    ///
    /// # Errors
    ///
    /// If the system refuses a thread.
    pub fn start(
        settings: Settings,
        log: Log,
        on_loss: impl Fn(&str, bool) + Send + Sync + 'static,
    ) -> std::io::Result<Arc<Self>> {
        Self::start_with(settings, log, on_loss, |path| {
            Library::open(path).map(|library| Box::new(library) as Box<dyn SymbolSource>)
        })
    }

    pub(crate) fn start_with(
        settings: Settings,
        log: Log,
        on_loss: impl Fn(&str, bool) + Send + Sync + 'static,
        open: impl FnOnce(&std::path::Path) -> Result<Box<dyn SymbolSource>, String> + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let cuda = Arc::new(Self {
            began: Instant::now(),
            settings,
            log,
            on_loss: Box::new(on_loss),
            shared: Mutex::new(Shared {
                opened: Opened::Starting,
                warm: false,
                dead: None,
                pool: Vec::new(),
                contexts: Vec::new(),
                teardown_queue: VecDeque::new(),
                blocked_since: None,
                tearing_down: false,
                preparing: 0,
                stopping: false,
                watches: Vec::new(),
            }),
            changed: Condvar::new(),
            lost: AtomicBool::new(false),
            reported: Mutex::default(),
            compiled: Mutex::default(),
        });
        let worker = Arc::clone(&cuda);
        std::thread::Builder::new()
            .name("cuda".into())
            .spawn(move || worker.open_and_refill(open))?;
        let worker = Arc::clone(&cuda);
        std::thread::Builder::new()
            .name("cuda-teardown".into())
            .spawn(move || worker.run_teardowns())?;
        Ok(cuda)
    }

    /// The settings.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn log(&self, level: Level, message: &str) {
        self.log.write(level, message);
    }

    /// Logs what concerns something of a name only the first time.
    pub(crate) fn log_once(&self, name: &str, level: Level, message: impl FnOnce() -> String) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < 1024 && reported.insert(name.to_owned()) {
            drop(reported);
            self.log(level, &message());
        }
    }

    /// Has the calls of an instance looked after from now on.
    pub(crate) fn watch(&self) -> Arc<Watch> {
        let watch = Arc::<Watch>::default();
        let mut shared = self.lock();
        shared.watches.retain(|watch| watch.strong_count() > 0);
        shared.watches.push(Arc::downgrade(&watch));
        watch
    }

    /// When calls of a run with this deadline must be over.
    pub(crate) fn due(&self, deadline: Option<Instant>) -> u64 {
        let due = deadline
            .map(|deadline| deadline.saturating_duration_since(self.began) + TEARDOWN_TIMEOUT);
        due.map_or(0, |due| due.as_millis() as u64)
    }

    fn is_overdue(&self, shared: &Shared) -> bool {
        let now = self.began.elapsed().as_millis() as u64;
        let watches = shared.watches.iter().filter_map(Weak::upgrade);
        watches
            .map(|watch| watch.0.load(Ordering::Relaxed))
            .any(|due| due != 0 && due < now)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics while it holds the lock.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the device can be used.
    pub fn health(&self) -> Health {
        let shared = self.lock();
        match (&shared.dead, &shared.opened) {
            (Some(cause), _) => Health::Dead(cause.clone()),
            (None, Opened::Failed(_, cause)) => Health::Failed(cause.clone()),
            (None, Opened::Ready(_)) if shared.warm => Health::Ready,
            _ => Health::Starting,
        }
    }

    /// Whether the process has lost the device. It is so before anything is logged or told of it.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Waits until the driver is open.
    ///
    /// # Errors
    ///
    /// Why it cannot be opened.
    pub fn wait_until_open(&self) -> Result<(), String> {
        let mut shared = self.lock();
        loop {
            match &shared.opened {
                Opened::Ready(_) => return Ok(()),
                Opened::Failed(_, cause) => return Err(cause.clone()),
                Opened::Starting => {}
            }
            shared = self.wait_on(shared, Duration::from_secs(1));
        }
    }

    /// Waits until everything that instances have left is taken apart, but no longer than `patience`; whether it is.
    pub fn settle(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut shared = self.lock();
        while shared.tearing_down || !shared.teardown_queue.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            shared = self.wait_on(shared, left);
        }
        true
    }

    /// Ends the threads and destroys the contexts that nobody has; used before the process ends.
    pub fn stop(&self) {
        let mut shared = self.lock();
        shared.stopping = true;
        self.changed.notify_all();
        let until = Instant::now() + TEARDOWN_TIMEOUT;
        while shared.has_work() && shared.dead.is_none() && Instant::now() < until {
            shared = self.wait_on(shared, LOOK);
        }
        let pool: Vec<_> = shared.pool.iter_mut().flat_map(std::mem::take).collect();
        let contexts: Vec<_> = shared
            .contexts
            .iter_mut()
            .filter_map(Option::take)
            .collect();
        let Opened::Ready(backend) = &shared.opened else {
            drop(shared);
            self.changed.notify_all();
            return;
        };
        let backend = Arc::clone(backend);
        let dead = shared.dead.is_some();
        drop(shared);
        self.changed.notify_all();
        if dead {
            // The process ends, and the driver with it; asking it for anything could block.
            return;
        }
        for prepared in pool {
            destroy(&backend, prepared);
        }
        for shared in contexts.into_iter().filter_map(Arc::into_inner) {
            let _ = backend.driver.context_destroy(shared.context);
        }
    }

    fn wait_on<'a>(
        &self,
        shared: MutexGuard<'a, Shared>,
        time: Duration,
    ) -> MutexGuard<'a, Shared> {
        let waited = self.changed.wait_timeout(shared, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The driver, once it is open. `pause` is called now and then, and ends the wait with an error of its own.
    pub(crate) fn backend<E: From<Code>>(
        &self,
        mut pause: impl FnMut() -> Result<(), E>,
    ) -> Result<Arc<Backend>, E> {
        let mut shared = self.lock();
        loop {
            if shared.dead.is_some() {
                return Err(Code::DEVICE_UNAVAILABLE.into());
            }
            match &shared.opened {
                Opened::Ready(backend) => return Ok(Arc::clone(backend)),
                Opened::Failed(code, _) => return Err((*code).into()),
                Opened::Starting => {}
            }
            shared = self.wait_on(shared, Duration::from_millis(2));
            drop(shared);
            pause()?;
            shared = self.lock();
        }
    }

    /// A context for an instance, or a place in the shared one, if it is there and nobody has to be waited for.
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

    /// Says that a context is being made, as long as the value lives.
    pub(crate) fn prepare(self: &Arc<Self>) -> PreparationGuard {
        self.lock().preparing += 1;
        PreparationGuard(Arc::clone(self))
    }

    /// A context for an instance, or a place in the shared one; it can take long.
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

    /// A place in a shared context.
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

    /// Makes the context that all share, unless somebody else was faster.
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
        // Each instance brings its own.
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
        // One may have been made ahead while this was on its way; nobody will ask for it.
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

    /// Gives up what an instance leaves.
    pub(crate) fn leave(&self, teardown: Teardown) {
        let mut shared = self.lock();
        if teardown.poisoned.is_some() {
            shared.retire(teardown.lease.device, teardown.lease.context);
        }
        shared.teardown_queue.push_back(teardown);
        drop(shared);
        self.changed.notify_all();
    }

    /// The life of the first thread.
    fn open_and_refill(
        self: &Arc<Self>,
        open: impl FnOnce(&std::path::Path) -> Result<Box<dyn SymbolSource>, String>,
    ) {
        let began = Instant::now();
        let path = &self.settings.driver_library;
        let opened = match open(path) {
            // It stays open: nothing says when the driver's own threads are done with it.
            Ok(source) => Backend::open(&*Box::leak(source), &self.settings),
            Err(cause) => Err((
                Code::NO_DEVICE,
                format!("cannot open the CUDA driver {}: {cause}", path.display()),
            )),
        };
        let backend = match opened {
            Ok(backend) => Arc::new(backend),
            Err((code, cause)) => {
                self.log(Level::Warning, &format!("no CUDA: {cause}"));
                self.lock().opened = Opened::Failed(code, cause.clone());
                self.changed.notify_all();
                (self.on_loss)(&cause, false);
                return;
            }
        };
        {
            let mut shared = self.lock();
            shared.pool.resize_with(backend.devices.len(), Vec::new);
            shared.contexts.resize(backend.devices.len(), None);
            shared.opened = Opened::Ready(Arc::clone(&backend));
        }
        self.changed.notify_all();
        let names: Vec<_> = backend
            .devices
            .iter()
            .map(|device| device.name.as_str())
            .collect();
        let version = (backend.version / 1000, backend.version % 1000 / 10);
        let took = began.elapsed();
        self.log(
            Level::Info,
            &format!(
                "CUDA driver {}.{} with {} after {took:.1?}",
                version.0,
                version.1,
                names.join(", ")
            ),
        );
        self.refill(&backend);
    }

    fn refill(self: &Arc<Self>, backend: &Arc<Backend>) {
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
                        "a call of the driver has not returned {TEARDOWN_TIMEOUT:?} after the end of its run"
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
            // `stop` waits for it, and takes what is made out of the pool.
            let preparing = PreparationGuard(Arc::clone(self));
            let made = backend.prepare(missing);
            let mut shared = self.lock();
            // An instance has made the shared one meanwhile.
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
                    // Guests make their own when they need one; readiness does not wait for what may never come.
                    shared.warm = true;
                    drop(shared);
                    Some(code)
                }
            };
            drop(preparing);
            if let Some(code) = failed {
                self.log_once("refill", Level::Warning, || {
                    format!("no context could be made ahead: {code}")
                });
                drop(self.wait_on(self.lock(), Duration::from_secs(1)));
            }
        }
    }

    /// The life of the second thread.
    fn run_teardowns(&self) {
        loop {
            let mut shared = self.lock();
            let teardown = loop {
                if shared.dead.is_some() {
                    return;
                }
                if let Some(teardown) = shared.next_teardown() {
                    break teardown;
                }
                let is_over = shared.stopping && !shared.has_work();
                if is_over || matches!(shared.opened, Opened::Failed(..)) {
                    return;
                }
                let look = match shared.teardown_queue.is_empty() {
                    true => Duration::from_secs(1),
                    false => LOOK,
                };
                shared = self.wait_on(shared, look);
            };
            let Opened::Ready(backend) = &shared.opened else {
                continue; // Nobody has anything before the driver is open.
            };
            let backend = Arc::clone(backend);
            shared.tearing_down = true;
            drop(shared);
            let device = teardown.lease.device;
            let context = teardown.lease.context;
            let verdict = teardown.run(&backend, &|is_suspect| {
                let mut shared = self.lock();
                shared.blocked_since = Some(Instant::now());
                if is_suspect {
                    shared.retire(device, context);
                }
                drop(shared);
                self.changed.notify_all();
            });
            let lost = match verdict {
                TeardownOutcome::Clean => None,
                TeardownOutcome::Suspect(code, detached) => {
                    let cause = match code {
                        Code::NOT_READY => "a kernel did not end".to_owned(),
                        code => code.to_string(),
                    };
                    self.log(
                        Level::Error,
                        &format!("a guest's CUDA context was given up: {cause}"),
                    );
                    probe(&backend, device, detached).err().map(|code| {
                        format!(
                            "after a guest's fault ({cause}) a new context does not work: {code}"
                        )
                    })
                }
                TeardownOutcome::Stuck => {
                    Some("a kernel in the shared context does not end".to_owned())
                }
            };
            let mut shared = self.lock();
            shared.blocked_since = None;
            shared.tearing_down = false;
            drop(shared);
            self.changed.notify_all();
            if let Some(cause) = lost {
                self.lose(&cause);
                return;
            }
        }
    }

    /// The process cannot use the device any more.
    fn lose(&self, cause: &str) {
        let mut shared = self.lock();
        if shared.dead.is_some() {
            return;
        }
        shared.dead = Some(cause.to_owned());
        self.lost.store(true, Ordering::SeqCst);
        drop(shared);
        self.changed.notify_all();
        self.log(
            Level::Error,
            &format!("the CUDA device is lost for this process: {cause}"),
        );
        (self.on_loss)(cause, true);
    }
}

/// Destroys a context that nobody has used.
fn destroy(backend: &Backend, prepared: Prepared) {
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
