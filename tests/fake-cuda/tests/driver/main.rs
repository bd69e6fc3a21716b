//! The fake driver as a program with the library loaded sees it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an unmet expectation is a failed test"
)]

mod contexts;
mod faults;
mod library;
mod memory;
