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

mod pool;
mod teardown_queue;
mod watchdog;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::device::{Backend, Prepared};
use crate::driver::{Context, Library, SymbolSource};
use crate::lease::SharedContext;
use crate::settings::{Level, Log, Settings};
use crate::teardown::Teardown;

pub(crate) use watchdog::Watch;

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
            pool::destroy(&backend, prepared);
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
}
