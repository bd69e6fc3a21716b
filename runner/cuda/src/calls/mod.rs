//! The functions that guests call, by topic. `linker.rs` lists their names.

pub(crate) mod context;
pub(crate) mod copy;
pub(crate) mod device;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod function;
pub(crate) mod graph;
pub(crate) mod graph_nodes;
pub(crate) mod launch;
pub(crate) mod library;
pub(crate) mod memcpy_nd;
pub(crate) mod memory;
pub(crate) mod memset;
pub(crate) mod module;
pub(crate) mod occupancy;
pub(crate) mod pinned;
pub(crate) mod pool;
pub(crate) mod primary;
pub(crate) mod stream;
