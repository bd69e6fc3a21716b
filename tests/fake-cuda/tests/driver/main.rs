//! The stand-in driver as seen by a program that has loaded the library.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "an unmet expectation is a failed test"
)]

mod contexts;
mod faults;
mod library;
mod memory;
