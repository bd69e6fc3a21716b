//! Nodes of graphs.

use crate::arguments::{Device, Kind, Pointer, Size};
use crate::call::Call;
use crate::code::Code;
use crate::driver::{Graph, LaunchShape, MemsetNode, Node};
use crate::handles::Handle;
use crate::layout::Fields;
use crate::objects::NodeObject;
use crate::outcome::{CallResult, fail};

use super::memory::translate;
use super::{graph, launch, memcpy_nd, memset};

/// Most dependencies of one node.
const MOST_DEPENDENCIES: u64 = 65_536;

fn node(call: &Call<'_>, handle: Handle, graph: Handle) -> CallResult<Node> {
    match call.state.nodes.get(handle) {
        Some(object) if object.graph == graph => Ok(object.node),
        _ => fail(Code::INVALID_HANDLE),
    }
}

fn dependencies(
    call: &Call<'_>,
    graph: Handle,
    list: Pointer,
    count: Size,
) -> CallResult<Vec<Node>> {
    if count.0 > MOST_DEPENDENCIES {
        return fail(Code::INVALID_VALUE);
    }
    let element = |index| call.load_element(list, index, Kind::Handle).map(Handle);
    (0..count.0)
        .map(|index| node(call, element(index)?, graph))
        .collect()
}

/// The guest's handle of a node, created on first use.
fn handle_of(call: &mut Call<'_>, graph: Handle, node: Node) -> CallResult<Handle> {
    let known = call
        .state
        .nodes
        .iter()
        .find(|(_, object)| object.node == node && object.graph == graph);
    if let Some((handle, _)) = known {
        return Ok(handle);
    }
    call.state
        .nodes
        .insert(NodeObject { graph, node })
        .map_err(|_| Code::OUT_OF_MEMORY.into())
}

/// Adds a node by the function `add`.
fn add(
    call: &mut Call<'_>,
    out: Pointer,
    graph: Handle,
    (list, count): (Pointer, Size),
    add: impl FnOnce(&mut Call<'_>, Graph, &[Node]) -> CallResult<Node>,
) -> CallResult {
    let out = call.out(out, Kind::Handle)?;
    let (_, raw) = graph::find(call, graph)?;
    let after = dependencies(call, graph, list, count)?;
    if !call.state.nodes.has_room() {
        return fail(Code::OUT_OF_MEMORY);
    }
    let node = add(call, raw, &after)?;
    let handle = handle_of(call, graph, node)?;
    call.store(out, handle.0)
}

/// `cuGraphAddKernelNode` and `_v2`, whose structure has two more fields at the end.
pub(crate) fn add_kernel(
    call: &mut Call<'_>,
    node: Pointer,
    graph: Handle,
    list: Pointer,
    count: Size,
    parameters: Pointer,
) -> CallResult {
    add(call, node, graph, (list, count), |call, raw, after| {
        let mut fields = Fields::of(parameters);
        let kernel = Handle(fields.next(call, Kind::Handle)?);
        let (grid, block) = (fields.three(call)?, fields.three(call)?);
        let shared = fields.next(call, Kind::Int)? as u32;
        let packed = Pointer(fields.next(call, Kind::Pointer)?);
        let extra = Pointer(fields.next(call, Kind::Pointer)?);
        let shape = LaunchShape {
            grid,
            block,
            shared,
        };
        let object = launch::prepared(call, kernel, shape, packed, extra)?;
        let backend = call.backend()?;
        let arguments = &mut call.state.arguments;
        Ok(backend
            .driver
            .graph_add_kernel(raw, after, object.function, shape, arguments)?)
    })
}

/// `cuGraphAddMemsetNode`.
pub(crate) fn add_memset(
    call: &mut Call<'_>,
    node: Pointer,
    graph: Handle,
    list: Pointer,
    count: Size,
    parameters: Pointer,
    context: Handle,
) -> CallResult {
    let current = call.enter_context(context)?;
    add(call, node, graph, (list, count), |call, raw, after| {
        let mut fields = Fields::of(parameters);
        let to = Device(fields.next(call, Kind::Device)?);
        let pitch = fields.next(call, Kind::Size)?;
        let value = fields.next(call, Kind::Int)? as u32;
        let element = fields.next(call, Kind::Int)? as u32;
        let (width, height) = (
            fields.next(call, Kind::Size)?,
            fields.next(call, Kind::Size)?,
        );
        if !matches!(element, 1 | 2 | 4) || width == 0 || !to.0.is_multiple_of(u64::from(element)) {
            return fail(Code::INVALID_VALUE);
        }
        let bytes = width
            .checked_mul(u64::from(element))
            .ok_or(Code::INVALID_VALUE)?;
        let extent = memset::extent(pitch, bytes, height).ok_or(Code::INVALID_VALUE)?;
        let real = translate(call, to, extent)?;
        let set = MemsetNode {
            to: real,
            pitch: pitch as usize,
            value,
            element,
            width: width as usize,
            height: height as usize,
        };
        Ok(call
            .backend()?
            .driver
            .graph_add_memset(raw, after, &set, current.context)?)
    })
}

/// `cuGraphAddMemcpyNode` between two locations on the device.
pub(crate) fn add_memcpy(
    call: &mut Call<'_>,
    node: Pointer,
    graph: Handle,
    list: Pointer,
    count: Size,
    parameters: Pointer,
    context: Handle,
) -> CallResult {
    let current = call.enter_context(context)?;
    add(call, node, graph, (list, count), |call, raw, after| {
        let copy = memcpy_nd::node_copy(call, parameters)?;
        Ok(call
            .backend()?
            .driver
            .graph_add_memcpy(raw, after, &copy, current.context)?)
    })
}

/// `cuGraphAddEmptyNode`.
pub(crate) fn add_empty(
    call: &mut Call<'_>,
    node: Pointer,
    graph: Handle,
    list: Pointer,
    count: Size,
) -> CallResult {
    add(call, node, graph, (list, count), |call, raw, after| {
        Ok(call.backend()?.driver.graph_add_empty(raw, after)?)
    })
}

/// `cuGraphAddDependencies`.
pub(crate) fn add_dependencies(
    call: &mut Call<'_>,
    graph: Handle,
    from: Pointer,
    to: Pointer,
    count: Size,
) -> CallResult {
    let (_, raw) = graph::find(call, graph)?;
    let from = dependencies(call, graph, from, count)?;
    let to = dependencies(call, graph, to, count)?;
    Ok(call
        .backend()?
        .driver
        .graph_add_dependencies(raw, &from, &to)?)
}

/// `cuGraphAddDependencies_v2`. Edge data is not supported.
pub(crate) fn add_dependencies_v2(
    call: &mut Call<'_>,
    graph: Handle,
    from: Pointer,
    to: Pointer,
    data: Pointer,
    count: Size,
) -> CallResult {
    if !data.is_null() {
        return fail(Code::NOT_SUPPORTED);
    }
    add_dependencies(call, graph, from, to, count)
}

/// `cuGraphGetNodes`.
pub(crate) fn get_nodes(
    call: &mut Call<'_>,
    graph: Handle,
    nodes: Pointer,
    count: Pointer,
) -> CallResult {
    let out = call.out(count, Kind::Size)?;
    let (_, raw) = graph::find(call, graph)?;
    let there = call.backend()?.driver.graph_nodes(raw)?;
    if nodes.is_null() {
        return call.store(out, there.len() as u64);
    }
    let room = call.load(count, Kind::Size)?;
    let given = there.len().min(usize::try_from(room).unwrap_or(usize::MAX));
    for (index, node) in there.into_iter().take(given).enumerate() {
        let place = call.out_element(nodes, index as u64, Kind::Handle)?;
        let handle = handle_of(call, graph, node)?;
        call.store(place, handle.0)?;
    }
    call.store(out, given as u64)
}

/// `cuGraphGetEdges`.
pub(crate) fn get_edges(
    call: &mut Call<'_>,
    graph: Handle,
    from: Pointer,
    to: Pointer,
    count: Pointer,
) -> CallResult {
    let out = call.out(count, Kind::Size)?;
    let (_, raw) = graph::find(call, graph)?;
    let there = call.backend()?.driver.graph_edges(raw)?;
    if from.is_null() && to.is_null() {
        return call.store(out, there.len() as u64);
    }
    let room = call.load(count, Kind::Size)?;
    let given = there.len().min(usize::try_from(room).unwrap_or(usize::MAX));
    for (index, edge) in there.into_iter().take(given).enumerate() {
        for (list, node) in [(from, edge.0), (to, edge.1)] {
            let place = call.out_element(list, index as u64, Kind::Handle)?;
            let handle = handle_of(call, graph, node)?;
            call.store(place, handle.0)?;
        }
    }
    call.store(out, given as u64)
}

/// `cuGraphGetEdges_v2`. Edge data is not supported.
pub(crate) fn get_edges_v2(
    call: &mut Call<'_>,
    graph: Handle,
    from: Pointer,
    to: Pointer,
    data: Pointer,
    count: Pointer,
) -> CallResult {
    if !data.is_null() {
        return fail(Code::NOT_SUPPORTED);
    }
    get_edges(call, graph, from, to, count)
}

/// `cuGraphNodeGetType`.
pub(crate) fn node_type(call: &mut Call<'_>, node: Handle, ty: Pointer) -> CallResult {
    let out = call.out(ty, Kind::Int)?;
    let Some(object) = call.state.nodes.get(node) else {
        return fail(Code::INVALID_HANDLE);
    };
    let (graph, raw) = (object.graph, object.node);
    graph::find(call, graph)?;
    let ty = call.backend()?.driver.node_type(raw)?;
    call.store(out, u64::from(ty))
}

/// `cuGraphDestroyNode`.
pub(crate) fn destroy_node(call: &mut Call<'_>, node: Handle) -> CallResult {
    let Some(object) = call.state.nodes.get(node) else {
        return fail(Code::INVALID_HANDLE);
    };
    let (graph, raw) = (object.graph, object.node);
    graph::find(call, graph)?;
    call.backend()?.driver.graph_destroy_node(raw)?;
    call.state.nodes.remove(node);
    Ok(())
}
