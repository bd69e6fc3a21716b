//! The devices: memory, and streams whose work is done by threads.

mod lane;
mod memory;
mod range;
mod transfer;
mod worker;

pub(crate) use lane::{Lane, Work};
pub(crate) use memory::{Memory, Misuse, Purpose};
pub(crate) use transfer::{Copy, Place, Set, Side};
