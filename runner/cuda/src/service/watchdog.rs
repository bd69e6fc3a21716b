//! Detects a lost device: a driver call or a teardown that does not return.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::{Cuda, Shared, TEARDOWN_TIMEOUT};
use crate::settings::Level;

/// The time by which the current call of an instance must return, in milliseconds since the start of the service; 0
/// between calls.
///
/// Our calls return in time, as none of them waits for the device inside the driver. But a driver whose device hangs
/// may block in any call, and only the end of the process ends such a call.
#[derive(Debug, Default)]
pub(crate) struct Watch(AtomicU64);

impl Watch {
    /// Marks the begin of a call that must return by `due`, see [`Cuda::due`].
    pub(crate) fn begin(&self, due: u64) {
        self.0.store(due, Ordering::Relaxed);
    }

    /// Marks the end of the call.
    pub(crate) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Cuda {
    /// Creates a watch for the calls of an instance.
    pub(crate) fn watch(&self) -> Arc<Watch> {
        let watch = Arc::<Watch>::default();
        let mut shared = self.lock();
        shared.watches.retain(|watch| watch.strong_count() > 0);
        shared.watches.push(Arc::downgrade(&watch));
        watch
    }

    /// The time by which the calls of a run with this deadline must return.
    pub(crate) fn due(&self, deadline: Option<Instant>) -> u64 {
        let due = deadline
            .map(|deadline| deadline.saturating_duration_since(self.began) + TEARDOWN_TIMEOUT);
        due.map_or(0, |due| due.as_millis() as u64)
    }

    pub(super) fn is_overdue(&self, shared: &Shared) -> bool {
        let now = self.began.elapsed().as_millis() as u64;
        let watches = shared.watches.iter().filter_map(Weak::upgrade);
        watches
            .map(|watch| watch.0.load(Ordering::Relaxed))
            .any(|due| due != 0 && due < now)
    }

    /// Records that the process can no longer use the device, and reports it.
    pub(super) fn lose(&self, cause: &str) {
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
