//! Which context of the driver is current on a thread.

use std::cell::Cell;

use super::{Context, EntryPoints};
use crate::code::Code;

thread_local! {
    /// The driver's context that is current on this thread, so that it is set only where it changes.
    static THREAD_CONTEXT: Cell<Context> = const { Cell::new(Context::NULL) };
}

/// Makes a context the thread's.
pub(crate) fn set_current(driver: &EntryPoints, context: Context) -> Result<(), Code> {
    if THREAD_CONTEXT.get() != context {
        // Unknown until it has succeeded.
        THREAD_CONTEXT.set(Context::NULL);
        driver.context_set_current(context)?;
        THREAD_CONTEXT.set(context);
    }
    Ok(())
}

/// Leaves the thread without a context.
pub(crate) fn clear_current(driver: &EntryPoints) {
    THREAD_CONTEXT.set(Context::NULL);
    // A driver that refuses has none to take away.
    let _ = driver.context_set_current(Context::NULL);
}
