//! The guest's file system: a copy-on-write view of directories of the host.
//!
//! ```text
//! namespace   tree 0 = wasm_root, trees 1.. = wasm_mounts            shared, read-only
//!   lower     one directory of the host per tree, only ever entered by canonical paths
//! upper       nodes of what this instance changed: names, whiteouts, chunks of data, times
//! ```
//! It knows nothing of descriptors, rights or guest memory.

mod change;
mod content;
mod device;
mod direct;
mod entry;
#[cfg(feature = "fault-injection")]
mod fault_injection;
#[cfg(not(feature = "fault-injection"))]
#[path = "fault_injection_disabled.rs"]
mod fault_injection;
mod list;
mod lower;
mod metadata;
mod mounts;
mod namespace;
mod open;
mod path;
mod tree;
mod upper;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use change::Moved;
pub(crate) use device::Device;
pub(crate) use entry::{At, Dir};
#[cfg(feature = "fault-injection")]
pub use fault_injection::keep_nodes;
pub(crate) use list::{Listing, Name};
pub use lower::{Root, RootError};
pub(crate) use metadata::{Kind, Metadata, NewTime};
pub use mounts::{Mount, MountError, MountProblem};
pub use namespace::{Access, Namespace};
pub(crate) use open::{File, OpenOptions, Opened};
pub(crate) use tree::{FileSystem, device_metadata};
