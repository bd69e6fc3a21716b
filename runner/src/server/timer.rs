//! A timer for one deadline after the other, as the requests of a connection have them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Sleep;

/// A timer that is left alone while it is due earlier than it must be, so that a busy connection does not arm one for
/// each request: when it rings too early it is set to what is wanted then.
#[derive(Debug, Default)]
pub struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Ready when `deadline` has passed; otherwise the task is woken at the latest then.
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if timer.deadline() > deadline.into() {
            timer.as_mut().reset(deadline.into());
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_each_deadline_and_not_before() {
        let mut timer = LazyTimer::default();
        // Later, earlier, past.
        for milliseconds in [5, 20, 1, 0] {
            let deadline = Instant::now() + Duration::from_millis(milliseconds);
            poll_fn(|context| timer.poll(deadline, context)).await;
            assert!(Instant::now() >= deadline);
        }
    }
}
