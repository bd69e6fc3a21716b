//! Maps artifacts and runs them.
pub mod host;
pub mod memory;
mod signal;
pub mod stop;

pub use host::{Caller, HostFunction, Linker};
pub use memory::{GuestMemory, MemoryFault};
pub use stop::{Interruption, Stop, TrapKind};
