//! Executable graphs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::graph::checked;
use crate::abi::layout::{InstantiateParams, UpdateResult};
use crate::abi::{Code, Host, In, Out, Result, Stream};
use crate::device::Work;
use crate::driver::{Call, GraphExec};
use crate::entry::entries;

/// `CU_GRAPH_NODE_TYPE_GRAPH`: a launch within a capture becomes a child graph.
const NODE_GRAPH: u32 = 4;
/// Free memory on launch, upload, device launch, node priority.
const FLAGS: u64 = 0xf;
/// `CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED`, `.._NODE_TYPE_CHANGED`.
const TOPOLOGY_CHANGED: u32 = 2;
const NODE_TYPE_CHANGED: u32 = 3;

/// A graph's work in an order that respects its dependencies, or `None` if they form a cycle.
fn ordered(call: &mut Call<'_>, graph: u64) -> Option<Vec<(u32, Work)>> {
    let driver = call.driver();
    let mut left = driver.graphs.get(graph)?.nodes.clone();
    let mut done = BTreeSet::new();
    let mut work = Vec::new();
    while !left.is_empty() {
        let next = left.iter().position(|node| {
            let node = driver.nodes.get(*node);
            node.is_some_and(|node| node.dependencies.iter().all(|node| done.contains(node)))
        })?;
        let node = left.remove(next);
        done.insert(node);
        let object = driver.nodes.get(node)?;
        work.push((object.kind, object.work.clone()));
    }
    Some(work)
}

fn instantiate(call: &mut Call<'_>, out: Out<u64>, graph: u64, flags: u64) -> Result {
    let out = out.required()?;
    checked(call, graph)?;
    if flags & !FLAGS != 0 {
        return Err(Code::INVALID_VALUE);
    }
    let context = call.driver().context()?;
    let work = ordered(call, graph).ok_or(Code::INVALID_VALUE)?;
    out.put(call.driver().execs.insert(GraphExec {
        context,
        flags,
        work,
    }));
    Ok(())
}

fn executable(call: &mut Call<'_>, exec: u64) -> Result {
    let driver = call.driver();
    driver.check(exec, |driver| &driver.execs)?;
    let owner = driver.execs.get(exec).map_or(0, |exec| exec.context);
    driver.same_context("executable graph", exec, owner)
}

entries! {
    fn cuGraphInstantiateWithFlags(exec: Out<u64>, graph: u64, flags: u64) |call| {
        instantiate(call, exec, graph, flags)
    }

    fn cuGraphInstantiateWithParams / cuGraphInstantiateWithParams_ptsz(
        exec: Out<u64>,
        graph: u64,
        parameters: Host,
    ) |call| {
        if parameters.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        let flags = parameters.word(0);
        // Node and result: CUDA_GRAPH_INSTANTIATE_SUCCESS.
        const RESULT: usize = std::mem::offset_of!(InstantiateParams, error_node);
        parameters.plus(RESULT).write(&[0; 12]);
        instantiate(call, exec, graph, flags)
    }

    fn cuGraphLaunch / cuGraphLaunch_ptsz(exec: u64, stream: Stream) |call| {
        executable(call, exec)?;
        let lane = call.driver().lane_for_work(stream)?;
        let exec = call.driver().execs.get(exec).ok_or(Code::INVALID_HANDLE)?;
        let work: Vec<_> = exec.work.iter().map(|(_, work)| work.clone()).collect();
        call.driver().queue(lane, NODE_GRAPH, Work::Batch(Arc::new(work)))
    }

    fn cuGraphUpload / cuGraphUpload_ptsz(exec: u64, stream: Stream) |call| {
        executable(call, exec)?;
        call.driver().lane_for_work(stream)?;
        Ok(())
    }

    fn cuGraphExecGetFlags(exec: u64, flags: Out<u64>) |call| {
        let out = flags.required()?;
        executable(call, exec)?;
        let exec = call.driver().execs.get(exec).ok_or(Code::INVALID_HANDLE)?;
        out.put(exec.flags);
        Ok(())
    }

    fn cuGraphExecUpdate_v2(exec: u64, graph: u64, result: Out<UpdateResult>) |call| {
        executable(call, exec)?;
        checked(call, graph)?;
        let work = ordered(call, graph).ok_or(Code::INVALID_VALUE)?;
        let object = call.driver().execs.get_mut(exec).ok_or(Code::INVALID_HANDLE)?;
        let failure = if object.work.len() != work.len() {
            TOPOLOGY_CHANGED
        } else if object.work.iter().zip(&work).any(|((before, _), (after, _))| before != after) {
            NODE_TYPE_CHANGED
        } else {
            0
        };
        result.put(UpdateResult {
            result: failure,
            error_node: 0,
            error_from_node: 0,
        });
        if failure != 0 {
            return Err(Code::GRAPH_EXEC_UPDATE_FAILURE);
        }
        object.work = work;
        Ok(())
    }

    fn cuGraphExecDestroy(exec: u64) |call| {
        call.driver().check(exec, |driver| &driver.execs)?;
        call.driver().execs.remove(exec);
        Ok(())
    }

    fn cuGraphDebugDotPrint(graph: u64, _path: In<u8>, _flags: u32) |call| {
        checked(call, graph)?;
        Err(Code::NOT_SUPPORTED)
    }
}
