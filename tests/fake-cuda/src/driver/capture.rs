//! Capture: work is not run, but becomes nodes of a graph, from one stream or from several streams that events join.

use std::collections::BTreeSet;
use std::thread::ThreadId;

use super::{Driver, Graph, Node};
use crate::abi::{Code, Result};
use crate::device::Work;

/// `CUstreamCaptureMode`.
pub(crate) const GLOBAL: u32 = 0;
pub(crate) const THREAD_LOCAL: u32 = 1;
pub(crate) const RELAXED: u32 = 2;

/// One stream's part in a capture.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    pub(crate) graph: u64,
    pub(crate) mode: u32,
    /// The stream on which the capture began, and must end.
    pub(crate) origin: bool,
    pub(crate) thread: ThreadId,
    /// The nodes that the next node depends on.
    pub(crate) frontier: Vec<u64>,
    pub(crate) invalid: bool,
}

impl Driver {
    pub(crate) fn begin_capture(&mut self, lane: u64, mode: u32) -> Result {
        if mode > RELAXED {
            return Err(Code::INVALID_VALUE);
        }
        let legacy = self.lanes.get(&lane).is_none_or(|lane| lane.legacy);
        if legacy {
            return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
        }
        if self.capture(lane).is_some() {
            return Err(Code::INVALID_VALUE);
        }
        let graph = self.graphs.insert(Graph {
            nodes: Vec::new(),
            capturing: true,
        });
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.capture = Some(Capture {
                graph,
                mode,
                origin: true,
                thread: std::thread::current().id(),
                frontier: Vec::new(),
                invalid: false,
            });
        }
        Ok(())
    }

    /// Adds work to the graph of the lane's capture.
    pub(crate) fn captured(&mut self, lane: u64, kind: u32, work: Work) -> Result {
        let capture = self.capture(lane).ok_or(Code::INVALID_HANDLE)?;
        if capture.invalid {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        let (graph, dependencies) = (capture.graph, capture.frontier.clone());
        let node = self.add_node(Node {
            graph,
            kind,
            work,
            dependencies,
        });
        if let Some(capture) = self.capture(lane) {
            capture.frontier = vec![node];
        }
        Ok(())
    }

    pub(crate) fn add_node(&mut self, node: Node) -> u64 {
        let graph = node.graph;
        let handle = self.nodes.insert(node);
        if let Some(graph) = self.graphs.get_mut(graph) {
            graph.nodes.push(handle);
        }
        handle
    }

    /// Makes a lane wait for a captured event, so that it joins the event's capture.
    pub(crate) fn join_capture(&mut self, lane: u64, graph: u64, nodes: &[u64]) -> Result {
        let origin = self.lanes.values().find_map(|other| {
            other
                .capture
                .clone()
                .filter(|capture| capture.graph == graph && capture.origin)
        });
        let origin = origin.ok_or(Code::CAPTURED_EVENT)?;
        match self.capture(lane) {
            Some(capture) if capture.graph != graph => return Err(Code::STREAM_CAPTURE_MERGE),
            Some(capture) => {
                for node in nodes {
                    if !capture.frontier.contains(node) {
                        capture.frontier.push(*node);
                    }
                }
            }
            None => {
                let joined = Capture {
                    origin: false,
                    frontier: nodes.to_vec(),
                    ..origin
                };
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.capture = Some(joined);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn end_capture(&mut self, lane: u64) -> Result<u64> {
        let capture = self.capture(lane).ok_or(Code::INVALID_VALUE)?.clone();
        if !capture.origin {
            return Err(Code::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != RELAXED && capture.thread != std::thread::current().id() {
            return Err(Code::STREAM_CAPTURE_WRONG_THREAD);
        }
        let joined = self.ancestors(&capture.frontier);
        let mut unjoined = false;
        for lane in self.lanes.values_mut() {
            if let Some(other) = lane.capture.take_if(|other| other.graph == capture.graph) {
                unjoined |= other.frontier.iter().any(|node| !joined.contains(node));
            }
        }
        if capture.invalid || unjoined {
            self.drop_graph(capture.graph);
            return Err(if capture.invalid {
                Code::STREAM_CAPTURE_INVALIDATED
            } else {
                Code::STREAM_CAPTURE_UNJOINED
            });
        }
        if let Some(graph) = self.graphs.get_mut(capture.graph) {
            graph.capturing = false;
        }
        Ok(capture.graph)
    }

    /// These nodes and all of their dependencies.
    fn ancestors(&self, nodes: &[u64]) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut left = nodes.to_vec();
        while let Some(node) = left.pop() {
            if found.insert(node)
                && let Some(node) = self.nodes.get(node)
            {
                left.extend(&node.dependencies);
            }
        }
        found
    }

    /// Refuses a call that is not allowed on a captured lane, and invalidates the capture.
    pub(crate) fn not_captured(&mut self, lane: u64) -> Result {
        match self.capture(lane) {
            Some(capture) => {
                capture.invalid = true;
                Err(Code::STREAM_CAPTURE_UNSUPPORTED)
            }
            None => Ok(()),
        }
    }

    /// Refuses a call that would wait for all streams of the context while one of them is captured.
    pub(crate) fn no_capture_in(&mut self, context: u64) -> Result {
        let thread = std::thread::current().id();
        let relaxed = self.capture_modes.get(&thread) == Some(&RELAXED);
        let lane = self.lanes.values_mut().find_map(|lane| {
            let waits = lane.context == context && lane.blocking;
            lane.capture.as_mut().filter(|capture| {
                let concerned = match capture.mode {
                    GLOBAL => true,
                    THREAD_LOCAL => capture.thread == thread,
                    _ => false,
                };
                waits && concerned && !relaxed
            })
        });
        match lane {
            Some(capture) => {
                capture.invalid = true;
                Err(Code::STREAM_CAPTURE_IMPLICIT)
            }
            None => Ok(()),
        }
    }

    pub(crate) fn drop_graph(&mut self, graph: u64) {
        self.graphs.remove(graph);
        self.nodes.remove_where(|_, node| node.graph == graph);
    }
}
