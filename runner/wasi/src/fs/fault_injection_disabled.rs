//! No faults are injected. See `fault_injection.rs`.

use super::upper::Upper;

pub(super) const fn take() -> Option<Upper> {
    None
}
