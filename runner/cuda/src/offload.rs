//! Work of the driver that takes as long as it takes, on a thread of its own: the call waits for it within its deadline
//! and leaves when that is over, without the result.

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
    /// Does something on a thread of its own, which has no context before or after. If the run ends before, `undo` gets
    /// the result, on that thread.
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
