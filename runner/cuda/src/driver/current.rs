//! The current context of each thread.

use std::cell::Cell;

use super::{Context, EntryPoints};
use crate::code::Code;

thread_local! {
    /// The context that is current on this thread, so that the driver is called only for a change.
    static THREAD_CONTEXT: Cell<Context> = const { Cell::new(Context::NULL) };
}

/// Makes a context current on the calling thread.
pub(crate) fn set_current(driver: &EntryPoints, context: Context) -> Result<(), Code> {
    if THREAD_CONTEXT.get() != context {
        // Until the call succeeds the current context is unknown.
        THREAD_CONTEXT.set(Context::NULL);
        driver.context_set_current(context)?;
        THREAD_CONTEXT.set(context);
    }
    Ok(())
}

/// Makes no context current on the calling thread.
pub(crate) fn clear_current(driver: &EntryPoints) {
    THREAD_CONTEXT.set(Context::NULL);
    // If the driver refuses, no context was current.
    let _ = driver.context_set_current(Context::NULL);
}
