//! The queue of ended instances, and the thread that tears them down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cuda, LOOK, Opened};
use crate::code::Code;
use crate::settings::Level;
use crate::teardown::{Teardown, TeardownOutcome, probe};

impl Cuda {
    /// Queues the teardown of an instance.
    pub(crate) fn leave(&self, teardown: Teardown) {
        let mut shared = self.lock();
        if teardown.poisoned.is_some() {
            shared.retire(teardown.lease.device, teardown.lease.context);
        }
        shared.teardown_queue.push_back(teardown);
        drop(shared);
        self.changed.notify_all();
    }

    /// Waits at most `patience` until all teardowns are complete. Returns whether they are.
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

    /// The main function of the second thread.
    pub(super) fn run_teardowns(&self) {
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
                continue; // Before the driver is open, instances have nothing to tear down.
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
                        &format!("a guest's CUDA context was abandoned: {cause}"),
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
}
