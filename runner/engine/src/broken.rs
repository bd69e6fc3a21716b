//! Ways to break the reset of instances, for the test that must notice it (`tests/tests/isolation`).
//!
//! Compiled with the feature `broken-reset` alone, which the runner never has
//! (`tests/tests/layers.rs`); `broken_disabled.rs` stands in its place otherwise.

use std::cell::Cell;

/// What a reset forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The content of the first page that a run has written.
    HotPage,
    /// What a memory was grown by: its content, and that it is not to be accessed any more.
    GrownTail,
    /// The first element of each table.
    TableEntry,
    /// That a guard was lifted.
    LiftedGuard,
}

thread_local! {
    static BROKEN: Cell<Option<Broken>> = const { Cell::new(None) };
}

/// Breaks the reset of instances on this thread, or repairs it.
pub fn break_reset(broken: Option<Broken>) {
    BROKEN.set(broken);
}

pub(crate) fn is(broken: Broken) -> bool {
    BROKEN.get() == Some(broken)
}
