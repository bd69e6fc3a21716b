//! Graphs and executable graphs.
//!
//! The nodes of a graph contain device addresses. So memory that is freed while a graph exists is kept until no graph
//! exists (`memory.rs`), and a launch can only access memory of the instance.

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::driver::{EntryPoints, Graph, GraphExec};
use crate::handles::Handle;
use crate::instance::State;
use crate::layout::Fields;
use crate::objects::{Current, ExecObject, GraphObject};
use crate::outcome::{CallResult, fail};

use super::memory::release_kept;

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH`, `UPLOAD`, and `USE_NODE_PRIORITY`.
const FLAGS: u64 = 1 | 2 | 8;

/// The graph of a handle. Makes its context current on the thread.
pub(crate) fn find(call: &mut Call<'_>, handle: Handle) -> CallResult<(Current, Graph)> {
    let Some(object) = call.state.graphs.get(handle) else {
        return fail(Code::INVALID_HANDLE);
    };
    let (context, graph) = (object.context, object.graph);
    Ok((call.enter_context(context)?, graph))
}

fn find_exec(call: &mut Call<'_>, handle: Handle) -> CallResult<(Current, GraphExec)> {
    let Some(object) = call.state.execs.get(handle) else {
        return fail(Code::INVALID_HANDLE);
    };
    let (context, exec) = (object.context, object.exec);
    Ok((call.enter_context(context)?, exec))
}

fn insert(call: &mut Call<'_>, context: Handle, graph: Graph) -> CallResult<Handle> {
    match call.state.graphs.insert(GraphObject { context, graph }) {
        Ok(handle) => Ok(handle),
        Err(object) => {
            call.backend()?.driver.graph_destroy(object.graph)?;
            fail(Code::OUT_OF_MEMORY)
        }
    }
}

/// `cuGraphCreate`.
pub(crate) fn create(call: &mut Call<'_>, graph: Pointer, flags: u32) -> CallResult {
    let out = call.out(graph, Kind::Handle)?;
    let current = call.current()?;
    let graph = call.backend()?.driver.graph_create(flags)?;
    let handle = insert(call, current.handle, graph)?;
    call.store(out, handle.0)
}

/// `cuGraphClone`.
pub(crate) fn clone(call: &mut Call<'_>, clone: Pointer, original: Handle) -> CallResult {
    let out = call.out(clone, Kind::Handle)?;
    let (current, graph) = find(call, original)?;
    let graph = call.backend()?.driver.graph_clone(graph)?;
    let handle = insert(call, current.handle, graph)?;
    call.store(out, handle.0)
}

/// Destroys a graph and the handles of its nodes.
pub(crate) fn forget(state: &mut State, driver: &EntryPoints, handle: Handle) -> Result<(), Code> {
    if let Some(object) = state.graphs.get(handle) {
        driver.graph_destroy(object.graph)?;
        state.graphs.remove(handle);
        state.nodes.take_if(|node| node.graph == handle);
    }
    Ok(())
}

/// `cuGraphDestroy`.
pub(crate) fn destroy(call: &mut Call<'_>, handle: Handle) -> CallResult {
    find(call, handle)?;
    let backend = call.backend()?;
    forget(call.state, &backend.driver, handle)?;
    release_kept(call)
}

/// `cuGraphInstantiateWithFlags`.
pub(crate) fn instantiate(
    call: &mut Call<'_>,
    exec: Pointer,
    graph: Handle,
    flags: u64,
) -> CallResult {
    let out = call.out(exec, Kind::Handle)?;
    let (current, graph) = find(call, graph)?;
    if flags & !FLAGS != 0 {
        return fail(Code::NOT_SUPPORTED);
    }
    if !call.state.execs.has_room() {
        return fail(Code::OUT_OF_MEMORY);
    }
    let exec = call.backend()?.driver.graph_instantiate(graph, flags)?;
    let object = ExecObject {
        context: current.handle,
        exec,
        flags,
    };
    let handle = call
        .state
        .execs
        .insert(object)
        .map_err(|_| Code::OUT_OF_MEMORY)?;
    call.store(out, handle.0)
}

/// `cuGraphInstantiate_v2`. The buffer for messages stays empty.
pub(crate) fn instantiate_v2(
    call: &mut Call<'_>,
    exec: Pointer,
    graph: Handle,
    _error_node: Pointer,
    _log: Pointer,
    _log_size: crate::arguments::Size,
) -> CallResult {
    instantiate(call, exec, graph, 0)
}

/// `cuGraphInstantiateWithParams`: flags, a stream for the upload, and two results.
pub(crate) fn instantiate_with_params(
    call: &mut Call<'_>,
    exec: Pointer,
    graph: Handle,
    parameters: Pointer,
) -> CallResult {
    const UPLOAD: u64 = 2;
    let mut fields = Fields::of(parameters);
    let flags = fields.next(call, Kind::Long)?;
    let stream = Handle(fields.next(call, Kind::Handle)?);
    let error_node = fields.place(call, Kind::Handle);
    let result = fields.place(call, Kind::Int);
    let outs = (
        call.out(error_node, Kind::Handle)?,
        call.out(result, Kind::Int)?,
    );
    instantiate(call, exec, graph, flags & !UPLOAD)?;
    call.store(outs.0, 0)?;
    call.store(outs.1, 0)?;
    if flags & UPLOAD != 0 {
        let handle = Handle(call.load(exec, Kind::Handle)?);
        return upload(call, handle, stream);
    }
    Ok(())
}

/// `cuGraphLaunch`.
pub(crate) fn launch(call: &mut Call<'_>, exec: Handle, stream: Handle) -> CallResult {
    let (current, exec) = find_exec(call, exec)?;
    let named = call.ordered_stream(stream)?;
    if named.current.device != current.device {
        return fail(Code::INVALID_VALUE);
    }
    let backend = call.backend()?;
    call.make_room(&backend.driver, named.current)?;
    Ok(backend.driver.graph_launch(exec, named.stream)?)
}

/// `cuGraphUpload`.
pub(crate) fn upload(call: &mut Call<'_>, exec: Handle, stream: Handle) -> CallResult {
    let (current, exec) = find_exec(call, exec)?;
    let named = call.ordered_stream(stream)?;
    if named.current.device != current.device {
        return fail(Code::INVALID_VALUE);
    }
    Ok(call.backend()?.driver.graph_upload(exec, named.stream)?)
}

/// `cuGraphExecDestroy`. Memory that was kept for graphs is then freed, once running launches have ended.
pub(crate) fn exec_destroy(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let (_, exec) = find_exec(call, handle)?;
    call.backend()?.driver.graph_exec_destroy(exec)?;
    call.state.execs.remove(handle);
    release_kept(call)
}

/// `cuGraphExecUpdate_v2`.
pub(crate) fn exec_update(
    call: &mut Call<'_>,
    exec: Handle,
    graph: Handle,
    result: Pointer,
) -> CallResult {
    let (_, raw) = find_exec(call, exec)?;
    let (_, raw_graph) = find(call, graph)?;
    let mut fields = Fields::of(result);
    let code = fields.place(call, Kind::Int);
    let nodes = [
        fields.place(call, Kind::Handle),
        fields.place(call, Kind::Handle),
    ];
    let out = call.out(code, Kind::Int)?;
    let nodes = [
        call.out(nodes[0], Kind::Handle)?,
        call.out(nodes[1], Kind::Handle)?,
    ];
    let (update, outcome) = call.backend()?.driver.graph_exec_update(raw, raw_graph);
    call.store(out, u64::from(update.result))?;
    for (out, node) in nodes.into_iter().zip([update.node, update.from]) {
        let known = call
            .state
            .nodes
            .iter()
            .find(|(_, object)| object.node == node)
            .map(|(handle, _)| handle);
        call.store(out, known.unwrap_or(Handle::NULL).0)?;
    }
    Ok(outcome?)
}

/// `cuGraphExecGetFlags`.
pub(crate) fn exec_flags(call: &mut Call<'_>, exec: Handle, flags: Pointer) -> CallResult {
    find_exec(call, exec)?;
    let out = call.out(flags, Kind::Long)?;
    let flags = call.state.execs.get(exec).map_or(0, |object| object.flags);
    call.store(out, flags)
}
