//! A way to leave what an instance has changed to the next one, for the test that must notice it
//! (`tests/tests/isolation`).
//!
//! Compiled with the feature `broken-reset` alone, which the runner never has
//! (`tests/tests/layers.rs`); `leftover_disabled.rs` stands in its place otherwise.

use std::cell::{Cell, RefCell};

use super::tree::FileSystem;
use super::upper::Upper;

thread_local! {
    static KEEPS: Cell<bool> = const { Cell::new(false) };
    static KEPT: RefCell<Option<Upper>> = const { RefCell::new(None) };
}

/// Makes file systems of this thread keep their nodes for the next one, or not any more.
pub fn keep_nodes(keep: bool) {
    KEEPS.set(keep);
    KEPT.take();
}

/// What the last file system has left.
pub(super) fn take() -> Option<Upper> {
    KEPT.take()
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        if KEEPS.get() {
            KEPT.replace(Some(std::mem::replace(&mut self.upper, Upper::new(0))));
        }
    }
}
