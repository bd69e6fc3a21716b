//! CUDA for a process: opens the driver, keeps contexts ready, tears down ended instances, and detects a lost device.
//!
//! ```text
//! start --> Starting --> Ready --> Dead      a fault or hung kernel that outlives its context
//!               \-----> Failed               no driver, no device
//! ```
//!
//! Two threads do the work. The first opens the driver, then refills the pool of contexts (`pool.rs`) and watches for
//! calls that do not return (`watchdog.rs`). The second tears down ended instances (`teardown_queue.rs`), which can
//! block in the driver for any length of time.

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

/// The device counts as lost if destroying a context takes longer than this, or if a driver call takes longer than this
/// after the end of its run.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Polling interval for conditions that no thread signals.
const LOOK: Duration = Duration::from_millis(20);
/// Most instances in the teardown queue. New instances wait while it is full.
const MAX_QUEUED: usize = 64;

/// Whether the device can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The driver is being opened, or the first contexts are being created.
    Starting,
    /// Guests can use it.
    Ready,
    /// There is no driver or no device. Calls of guests return errors.
    Failed(String),
    /// The process can no longer use the device and should exit.
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
    /// Number of threads that are creating a context.
    preparing: u32,
    stopping: bool,
    /// The watch of each live instance.
    watches: Vec<Weak<Watch>>,
}

impl Shared {
    /// Stops giving a shared context to new instances.
    fn retire(&mut self, device: usize, context: Context) {
        if let Some(place) = self.contexts.get_mut(device) {
            place.take_if(|shared| shared.context == context);
        }
    }

    /// Whether a thread has work left that it must finish before the process exits.
    fn has_work(&self) -> bool {
        self.preparing > 0 || self.tearing_down || !self.teardown_queue.is_empty()
    }

    /// Takes the first queued teardown whose context is no longer in use.
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

/// The CUDA service of a process; see the module documentation.
pub struct Cuda {
    began: Instant,
    settings: Settings,
    log: Log,
    on_loss: Box<OnLoss>,
    shared: Mutex<Shared>,
    changed: Condvar,
    /// Whether `dead` is set; readable without the lock.
    lost: AtomicBool,
    reported: Mutex<HashSet<String>>,
    /// Device code compiled from PTX, keyed by the hash of the image.
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
    /// Opens the driver and creates the first contexts in the background.
    ///
    /// `on_loss` receives the cause, and whether the process has lost the device (`true`) or the driver cannot be
    /// opened (`false`). It is called on another thread and may block that thread.
    ///
    /// # Errors
    ///
    /// Fails if the system cannot create a thread.
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

    /// Logs a message only the first time that it is logged under a name.
    pub(crate) fn log_once(&self, name: &str, level: Level, message: impl FnOnce() -> String) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < 1024 && reported.insert(name.to_owned()) {
            drop(reported);
            self.log(level, &message());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // No code panics while it holds the lock, so the data of a poisoned lock is consistent.
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

    /// Whether the process has lost the device. Set before the loss is logged and reported.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Waits until the driver is open.
    ///
    /// # Errors
    ///
    /// Returns the reason why the driver cannot be opened.
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

    /// Ends the threads and destroys all unused contexts. Call it before the process exits.
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
            // Any driver call could block now. The exit of the process releases everything.
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

    /// Waits for the driver to be open and returns it. `pause` is called repeatedly during the wait; an error that it
    /// returns ends the wait.
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

    /// The main function of the first thread.
    fn open_and_refill(
        self: &Arc<Self>,
        open: impl FnOnce(&std::path::Path) -> Result<Box<dyn SymbolSource>, String>,
    ) {
        let began = Instant::now();
        let path = &self.settings.driver_library;
        let opened = match open(path) {
            // Leak the library: the driver does not say when its own threads no longer need it.
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
