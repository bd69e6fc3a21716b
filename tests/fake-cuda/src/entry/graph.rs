//! Graphs, built by hand or by capture.

use std::collections::BTreeMap;

use super::launch::{self, Shape};
use super::{copy, fill};
use crate::abi::layout::{KernelNode, Memcpy3d, MemsetNode};
use crate::abi::{Code, Host, In, Out, Result};
use crate::device::Work;
use crate::driver::{Call, Graph, Node};
use crate::entry::entries;

/// `CU_GRAPH_NODE_TYPE_EMPTY`.
const NODE_EMPTY: u32 = 5;

/// Reads and checks the handles of nodes that a new one depends on.
fn dependencies(call: &mut Call<'_>, graph: u64, list: In<u64>, count: usize) -> Result<Vec<u64>> {
    let mut nodes = Vec::new();
    for index in 0..count {
        let node = list.get_at(index)?;
        checked_node(call, node)?;
        if call
            .driver()
            .nodes
            .get(node)
            .is_none_or(|node| node.graph != graph)
        {
            return Err(Code::INVALID_VALUE);
        }
        nodes.push(node);
    }
    Ok(nodes)
}

fn checked_node(call: &mut Call<'_>, node: u64) -> Result {
    call.driver().check(node, |driver| &driver.nodes)
}

pub(super) fn checked(call: &mut Call<'_>, graph: u64) -> Result {
    call.driver().check(graph, |driver| &driver.graphs)
}

fn add(
    call: &mut Call<'_>,
    out: Out<u64>,
    graph: u64,
    (list, count): (In<u64>, usize),
    kind: u32,
    work: impl FnOnce(&mut Call<'_>) -> Result<Work>,
) -> Result {
    let out = out.required()?;
    checked(call, graph)?;
    let dependencies = dependencies(call, graph, list, count)?;
    call.driver().context()?;
    let work = work(call)?;
    out.put(call.driver().add_node(Node {
        graph,
        kind,
        work,
        dependencies,
    }));
    Ok(())
}

/// Checks that the context that a copy or fill node names is the current one.
fn is_current(call: &mut Call<'_>, context: u64) -> Result {
    if context == 0 {
        return Ok(());
    }
    call.driver().check(context, |driver| &driver.contexts)?;
    call.driver()
        .same_context("node of context", context, context)
}

/// Whether a node precedes another one, directly or indirectly.
fn precedes(call: &mut Call<'_>, first: u64, last: u64) -> bool {
    let mut left = vec![last];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(node) = left.pop() {
        if node == first {
            return true;
        }
        if seen.insert(node)
            && let Some(node) = call.driver().nodes.get(node)
        {
            left.extend(&node.dependencies);
        }
    }
    false
}

fn add_edges(call: &mut Call<'_>, graph: u64, from: In<u64>, to: In<u64>, count: usize) -> Result {
    checked(call, graph)?;
    for index in 0..count {
        let (first, last) = (from.get_at(index)?, to.get_at(index)?);
        for node in [first, last] {
            checked_node(call, node)?;
            if call
                .driver()
                .nodes
                .get(node)
                .is_none_or(|node| node.graph != graph)
            {
                return Err(Code::INVALID_VALUE);
            }
        }
        if precedes(call, last, first) {
            return Err(Code::INVALID_VALUE);
        }
        let node = call
            .driver()
            .nodes
            .get_mut(last)
            .ok_or(Code::INVALID_VALUE)?;
        if node.dependencies.contains(&first) {
            return Err(Code::INVALID_VALUE);
        }
        node.dependencies.push(first);
    }
    Ok(())
}

/// Lists the nodes of a graph, or only the roots. A null array asks for their number; otherwise the caller gives the
/// length of the array.
fn list(call: &mut Call<'_>, graph: u64, out: Out<u64>, count: Host, roots: bool) -> Result {
    checked(call, graph)?;
    if count.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    let driver = call.driver();
    let nodes = driver
        .graphs
        .get(graph)
        .map(|graph| graph.nodes.clone())
        .unwrap_or_default();
    let nodes: Vec<_> = nodes
        .into_iter()
        .filter(|node| {
            let object = driver.nodes.get(*node);
            !roots || object.is_some_and(|node| node.dependencies.is_empty())
        })
        .collect();
    if !out.is_null() {
        let room = count.word(0) as usize;
        for index in 0..room {
            out.put_at(index, nodes.get(index).copied().unwrap_or(0));
        }
    }
    count.write(&nodes.len().to_le_bytes());
    Ok(())
}

fn edges(call: &mut Call<'_>, graph: u64, from: Out<u64>, to: Out<u64>, count: Host) -> Result {
    checked(call, graph)?;
    if count.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    let mut edges = Vec::new();
    let driver = call.driver();
    let nodes = driver
        .graphs
        .get(graph)
        .map(|graph| graph.nodes.clone())
        .unwrap_or_default();
    for node in nodes {
        if let Some(object) = driver.nodes.get(node) {
            edges.extend(object.dependencies.iter().map(|first| (*first, node)));
        }
    }
    if !from.is_null() && !to.is_null() {
        for index in 0..count.word(0) as usize {
            let (first, last) = edges.get(index).copied().unwrap_or((0, 0));
            from.put_at(index, first);
            to.put_at(index, last);
        }
    }
    count.write(&edges.len().to_le_bytes());
    Ok(())
}

entries! {
    fn cuGraphCreate(graph: Out<u64>, flags: u32) |call| {
        let out = graph.required()?;
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        out.put(call.driver().graphs.insert(Graph::default()));
        Ok(())
    }

    fn cuGraphDestroy(graph: u64) |call| {
        checked(call, graph)?;
        call.driver().drop_graph(graph);
        Ok(())
    }

    fn cuGraphClone(clone: Out<u64>, graph: u64) |call| {
        let out = clone.required()?;
        checked(call, graph)?;
        let copy = call.driver().graphs.insert(Graph::default());
        let nodes = call.driver().graphs.get(graph).map(|graph| graph.nodes.clone());
        let mut handles = BTreeMap::new();
        for node in nodes.unwrap_or_default() {
            let Some(object) = call.driver().nodes.get(node).cloned() else {
                continue;
            };
            let new = call.driver().add_node(Node { graph: copy, ..object });
            handles.insert(node, new);
        }
        for new in handles.values() {
            if let Some(object) = call.driver().nodes.get_mut(*new) {
                for dependency in &mut object.dependencies {
                    *dependency = handles.get(dependency).copied().unwrap_or(0);
                }
            }
        }
        out.put(copy);
        Ok(())
    }

    fn cuGraphAddKernelNode_v2(
        node: Out<u64>,
        graph: u64,
        dependencies: In<u64>,
        count: usize,
        parameters: In<KernelNode>,
    ) |call| {
        let parameters = parameters.get()?;
        add(call, node, graph, (dependencies, count), launch::NODE, |call| {
            is_current(call, parameters.context)?;
            let shape = Shape {
                grid: parameters.grid,
                block: parameters.block,
                shared: parameters.shared,
            };
            let function = match parameters.function {
                0 => parameters.kernel,
                function => function,
            };
            let (pointers, extra) = (Host(parameters.parameters), Host(parameters.extra));
            launch::prepare(call, function, shape, pointers, extra)
        })
    }

    fn cuGraphAddMemsetNode(
        node: Out<u64>,
        graph: u64,
        dependencies: In<u64>,
        count: usize,
        parameters: In<MemsetNode>,
        context: u64,
    ) |call| {
        let parameters = parameters.get()?;
        add(call, node, graph, (dependencies, count), fill::NODE, |call| {
            is_current(call, context)?;
            if !matches!(parameters.element, 1 | 2 | 4) {
                return Err(Code::INVALID_VALUE);
            }
            let value = (parameters.value, parameters.element as usize);
            let (width, height) = (parameters.width, parameters.height);
            let set = fill::set(call, parameters.destination, parameters.pitch, value, width, height);
            set.map(Work::Set)
        })
    }

    fn cuGraphAddMemcpyNode(
        node: Out<u64>,
        graph: u64,
        dependencies: In<u64>,
        count: usize,
        parameters: In<Memcpy3d>,
        context: u64,
    ) |call| {
        let parameters = parameters.get()?;
        add(call, node, graph, (dependencies, count), copy::NODE, |call| {
            is_current(call, context)?;
            let work = copy::volume(call, &parameters)?;
            copy::check(call.driver(), &work)?;
            Ok(Work::Copy(work))
        })
    }

    fn cuGraphAddEmptyNode(
        node: Out<u64>,
        graph: u64,
        dependencies: In<u64>,
        count: usize,
    ) |call| {
        add(call, node, graph, (dependencies, count), NODE_EMPTY, |_| Ok(Work::Nothing))
    }

    fn cuGraphAddDependencies(graph: u64, from: In<u64>, to: In<u64>, count: usize) |call| {
        add_edges(call, graph, from, to, count)
    }

    fn cuGraphAddDependencies_v2(
        graph: u64,
        from: In<u64>,
        to: In<u64>,
        data: Host,
        count: usize,
    ) |call| {
        if !data.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        add_edges(call, graph, from, to, count)
    }

    fn cuGraphGetNodes(graph: u64, nodes: Out<u64>, count: Host) |call| {
        list(call, graph, nodes, count, false)
    }

    fn cuGraphGetRootNodes(graph: u64, nodes: Out<u64>, count: Host) |call| {
        list(call, graph, nodes, count, true)
    }

    fn cuGraphGetEdges(graph: u64, from: Out<u64>, to: Out<u64>, count: Host) |call| {
        edges(call, graph, from, to, count)
    }

    fn cuGraphGetEdges_v2(
        graph: u64,
        from: Out<u64>,
        to: Out<u64>,
        _data: Host,
        count: Host,
    ) |call| {
        edges(call, graph, from, to, count)
    }

    fn cuGraphNodeGetType(node: u64, kind: Out<u32>) |call| {
        let out = kind.required()?;
        checked_node(call, node)?;
        let node = call.driver().nodes.get(node).ok_or(Code::INVALID_HANDLE)?;
        out.put(node.kind);
        Ok(())
    }

    fn cuGraphDestroyNode(node: u64) |call| {
        checked_node(call, node)?;
        let driver = call.driver();
        let graph = driver.nodes.remove(node).ok_or(Code::INVALID_HANDLE)?.graph;
        if let Some(graph) = driver.graphs.get_mut(graph) {
            graph.nodes.retain(|other| *other != node);
        }
        for other in driver.nodes.values_mut() {
            other.dependencies.retain(|dependency| *dependency != node);
        }
        Ok(())
    }
}
