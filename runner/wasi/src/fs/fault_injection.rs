//! Leaks an instance's changes to the next instance, for the test that must detect it
//! (`tests/tests/isolation`).
//!
//! Compiled only with the feature `fault-injection`, which the runner never enables
//! (`tests/tests/layers.rs`). Otherwise `fault_injection_disabled.rs` takes its place.

use std::cell::{Cell, RefCell};

use super::upper::Upper;

thread_local! {
    static KEEPS: Cell<bool> = const { Cell::new(false) };
    static KEPT: RefCell<Option<Upper>> = const { RefCell::new(None) };
}

/// Makes file systems of this thread leak their nodes to the next file system, or stops that.
pub fn keep_nodes(keep: bool) {
    KEEPS.set(keep);
    KEPT.take();
}

/// The nodes that the previous file system leaked.
pub(super) fn take() -> Option<Upper> {
    KEPT.take()
}

/// Keeps the nodes of a file system that ends, if they are to leak.
pub(super) fn keep(upper: &mut Upper) {
    if KEEPS.get() {
        KEPT.replace(Some(std::mem::replace(upper, Upper::new(0))));
    }
}
