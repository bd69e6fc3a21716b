//! The objects that handles refer to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::table::{Kind, Object};
use super::{Capture, Driver};
use crate::abi::Code;
use crate::device::Work;
use crate::exec::Loaded;

/// A device. Devices exist as soon as `cuInit` has been called.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) primary: Option<u64>,
    pub(crate) primary_users: usize,
    pub(crate) primary_flags: u32,
    pub(crate) default_pool: u64,
    pub(crate) pool: u64,
}

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) device: usize,
    pub(crate) flags: u32,
    pub(crate) primary: bool,
    pub(crate) sticky: Option<Code>,
    pub(crate) limits: BTreeMap<u32, usize>,
    pub(crate) cache: u32,
    pub(crate) legacy_lane: u64,
    pub(crate) per_thread_lane: u64,
    pub(crate) id: u64,
}

#[derive(Debug)]
pub(crate) struct StreamObject {
    pub(crate) context: u64,
    pub(crate) lane: u64,
    pub(crate) flags: u32,
    pub(crate) priority: i32,
}

/// An event: how often it was recorded, and how many of these records have been reached.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) context: u64,
    pub(crate) timing: bool,
    pub(crate) recorded: u64,
    pub(crate) reached: u64,
    pub(crate) time: Option<Instant>,
    /// Set if the event was recorded while its stream was captured: the graph, and the nodes that the event stands
    /// for.
    pub(crate) captured: Option<(u64, Vec<u64>)>,
}

#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) context: u64,
    /// The library whose module this is in this context, if any.
    pub(crate) library: Option<u64>,
    pub(crate) program: Program,
    pub(crate) functions: BTreeMap<String, u64>,
}

/// The contents of an image.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// PTX, which can run.
    Text(Arc<Loaded>),
    /// Machine code. Only its functions and their parameters are known.
    Binary(Arc<crate::image::Cubin>),
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) context: u64,
    pub(crate) module: u64,
    pub(crate) name: String,
    /// Offset and size of every parameter.
    pub(crate) parameters: Vec<(usize, usize)>,
    pub(crate) attributes: BTreeMap<u32, i32>,
}

#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) image: crate::image::Image,
    pub(crate) kernels: BTreeMap<String, u64>,
    /// The library's module in each context that has requested one.
    pub(crate) modules: BTreeMap<u64, u64>,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) library: u64,
    pub(crate) name: String,
    pub(crate) parameters: Vec<(usize, usize)>,
}

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) device: usize,
    pub(crate) default: bool,
    pub(crate) attributes: BTreeMap<u32, u64>,
    pub(crate) maximum: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// In creation order.
    pub(crate) nodes: Vec<u64>,
    /// Set during a capture, while the graph does not belong to the caller yet.
    pub(crate) capturing: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) graph: u64,
    /// `CUgraphNodeType`.
    pub(crate) kind: u32,
    pub(crate) work: Work,
    pub(crate) dependencies: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct GraphExec {
    pub(crate) context: u64,
    pub(crate) flags: u64,
    /// Kind and work of each node, in an order that respects the dependencies.
    pub(crate) work: Vec<(u32, Work)>,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) context: u64,
    pub(crate) texts: Vec<String>,
    pub(crate) output: Vec<u8>,
}

macro_rules! objects {
    ($($object:ident => $kind:ident),* $(,)?) => {
        $(impl Object for $object { const KIND: Kind = Kind::$kind; })*
    };
}
objects! {
    Context => Context, StreamObject => Stream, Event => Event, Module => Module,
    Function => Function, Library => Library, Kernel => Kernel, Pool => Pool, Graph => Graph,
    Node => Node, GraphExec => GraphExec, Link => Link,
}

impl Driver {
    /// The capture that includes a lane.
    pub(crate) fn capture(&mut self, lane: u64) -> Option<&mut Capture> {
        self.lanes.get_mut(&lane)?.capture.as_mut()
    }
}
