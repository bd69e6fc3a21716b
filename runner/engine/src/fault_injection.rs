//! Faults in the reset of instances, injected by the test that must detect them
//! (`tests/tests/isolation`).
//!
//! Compiled only with the feature `fault-injection`, which the runner never enables
//! (`tests/tests/layers.rs`). Otherwise `fault_injection_disabled.rs` takes its place.

use std::cell::Cell;

/// A step that a reset omits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Restoring the first page that a run has written.
    HotPage,
    /// Clearing the grown part of a memory and making it inaccessible.
    GrownTail,
    /// Restoring the first element of each table.
    TableEntry,
    /// Noticing that write protection was lifted.
    LiftedProtection,
}

thread_local! {
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Injects a fault into the resets of this thread, or none.
pub fn inject(fault: Option<Fault>) {
    FAULT.set(fault);
}

pub(crate) fn is(fault: Fault) -> bool {
    FAULT.get() == Some(fault)
}
