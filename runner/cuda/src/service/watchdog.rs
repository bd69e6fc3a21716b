//! Finds out that the device is lost: a call of the driver, or a teardown, does not return.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::{Cuda, Shared, TEARDOWN_TIMEOUT};
use crate::settings::Level;

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

impl Cuda {
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

    pub(super) fn is_overdue(&self, shared: &Shared) -> bool {
        let now = self.began.elapsed().as_millis() as u64;
        let watches = shared.watches.iter().filter_map(Weak::upgrade);
        watches
            .map(|watch| watch.0.load(Ordering::Relaxed))
            .any(|due| due != 0 && due < now)
    }

    /// The process cannot use the device any more.
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
