//! The fake driver as a program with the library loaded sees it.

mod contexts;
mod faults;
mod library;
mod memory;
