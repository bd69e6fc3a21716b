//! Runs driver calls of unbounded duration on a separate thread. The guest's call waits until its deadline, then
//! returns without the result.

use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Instant;

use crate::call::Call;
use crate::code::Code;
use crate::device::Backend;
use crate::driver::clear_current;
use crate::outcome::{CallResult, fail};
use crate::teardown::WorkToken;

impl Call<'_> {
    /// Runs `work` on a new thread, which has no current context before or after. If the run ends first, `undo`
    /// receives the result on that thread.
    pub(crate) fn offload<T: Send + 'static>(
        &mut self,
        name: &str,
        backend: &Arc<Backend>,
        work: impl FnOnce() -> T + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> CallResult<T> {
        let (sender, receiver) = channel();
        let token = WorkToken::default();
        self.state
            .offloaded
            .retain(|token| Arc::strong_count(token) > 1);
        self.state.offloaded.push(Arc::clone(&token));
        let backend = Arc::clone(backend);
        let spawned = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = work();
                clear_current(&backend.driver);
                if let Err(unheard) = sender.send(result) {
                    undo(unheard.0);
                }
                drop(token);
            });
        if spawned.is_err() {
            return fail(Code::OUT_OF_MEMORY);
        }
        let began = Instant::now();
        loop {
            match receiver.try_recv() {
                Ok(result) => return Ok(result),
                Err(TryRecvError::Empty) => self.pause(began)?,
                Err(TryRecvError::Disconnected) => return fail(Code::UNKNOWN),
            }
        }
    }
}
