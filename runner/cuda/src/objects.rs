//! The objects behind a guest's handles.

use std::collections::HashMap;
use std::sync::Arc;

use crate::driver::{self, CStrImage, Context, Stream};
use crate::handles::Handle;
use crate::parameters::Layout;

/// A context as the guest sees it.
#[derive(Debug)]
pub(crate) struct ContextObject {
    pub(crate) device: usize,
    pub(crate) flags: u32,
}

/// A loaded module.
#[derive(Debug)]
pub(crate) struct ModuleObject {
    pub(crate) context: Handle,
    pub(crate) module: driver::Module,
    pub(crate) image: Arc<CStrImage>,
    /// Handles of functions by name, so that a repeated lookup returns the same handle.
    pub(crate) functions: HashMap<String, Handle>,
    /// Address and size of variables by name.
    pub(crate) globals: HashMap<String, (u64, u64)>,
}

/// A kernel of a module.
#[derive(Debug, Clone)]
pub(crate) struct FunctionObject {
    pub(crate) module: Handle,
    pub(crate) context: Handle,
    pub(crate) function: driver::Function,
    pub(crate) name: Arc<str>,
    /// `None` until its first launch.
    pub(crate) layout: Option<Arc<Layout>>,
    /// The parameter kinds that the guest has declared.
    pub(crate) declared: Option<Arc<[bool]>>,
}

/// A stream of the guest.
#[derive(Debug)]
pub(crate) struct StreamObject {
    pub(crate) context: Handle,
    pub(crate) stream: Stream,
    pub(crate) flags: u32,
    pub(crate) priority: i32,
    pub(crate) id: u64,
}

/// An event of the guest.
#[derive(Debug)]
pub(crate) struct EventObject {
    pub(crate) context: Handle,
    pub(crate) event: driver::Event,
}

/// A graph of the guest.
#[derive(Debug)]
pub(crate) struct GraphObject {
    pub(crate) context: Handle,
    pub(crate) graph: driver::Graph,
}

/// A node of a graph.
#[derive(Debug)]
pub(crate) struct NodeObject {
    pub(crate) graph: Handle,
    pub(crate) node: driver::Node,
}

/// An executable graph.
#[derive(Debug)]
pub(crate) struct ExecObject {
    pub(crate) context: Handle,
    pub(crate) exec: driver::GraphExec,
    pub(crate) flags: u64,
}

/// A memory pool.
#[derive(Debug)]
pub(crate) struct PoolObject {
    pub(crate) device: usize,
    pub(crate) pool: driver::Pool,
    /// Whether it stands for the default pool of the device, which cannot be destroyed.
    pub(crate) is_default: bool,
}

/// A library: an image that becomes a module in each context where it is used.
#[derive(Debug)]
pub(crate) struct LibraryObject {
    pub(crate) image: Arc<CStrImage>,
    /// The module in each context.
    pub(crate) modules: HashMap<Handle, Handle>,
}

/// A kernel of a library.
#[derive(Debug, Clone)]
pub(crate) struct KernelObject {
    pub(crate) library: Handle,
    pub(crate) name: Arc<str>,
}

/// The guest's reference to a device's primary context.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Primary {
    pub(crate) handle: Option<Handle>,
    pub(crate) count: u32,
    pub(crate) flags: u32,
}

/// The context that a call works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current {
    /// The guest's handle of the context.
    pub(crate) handle: Handle,
    /// The guest's number of the device.
    pub(crate) device: usize,
    /// The driver's context.
    pub(crate) context: Context,
    /// The stream that the guest's stream 0 stands for.
    pub(crate) stream: Stream,
}
