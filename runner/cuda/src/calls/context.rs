//! The contexts of guests: any number up to the limit, all on one driver context per device.

use std::sync::Arc;

use crate::arguments::{Kind, Pointer, Size};
use crate::call::Call;
use crate::code::Code;
use crate::handles::Handle;
use crate::lease::Lease;
use crate::objects::{ContextObject, Current};
use crate::outcome::{CallResult, fail};
use crate::settings::Isolation;
use crate::teardown::Teardown;

use super::device;

/// The API version of contexts: that of `cuCtxCreate_v2`.
const API_VERSION: u64 = 3020;
/// `CU_LIMIT_STACK_SIZE`, `PRINTF_FIFO_SIZE` and `MALLOC_HEAP_SIZE`.
const STACK_SIZE: u32 = 0;
const PRINTF_SIZE: u32 = 1;
const HEAP_SIZE: u32 = 2;
const LARGEST_PRINTF: u64 = 1 << 20;

/// Leases a driver context on a device, unless the instance already has one there.
pub(crate) fn lease(call: &mut Call<'_>, index: usize) -> CallResult {
    if call.state.leases[index].is_some() {
        return Ok(());
    }
    let backend = call.backend()?;
    let lease = match call.cuda.lease_now(&backend, index)? {
        Some(lease) => lease,
        None => {
            // Creating a context takes long, and blocks if the device hangs.
            let (cuda, giver) = (Arc::clone(call.cuda), Arc::clone(call.cuda));
            let worker = Arc::clone(&backend);
            let preparing = cuda.prepare();
            let work = move || cuda.lease(&worker, index);
            let undo = move |lease: Result<Lease, Code>| {
                let _preparing = preparing;
                if let Ok(lease) = lease {
                    giver.leave(Teardown::of(lease));
                }
            };
            call.offload("cuda-context", &backend, work, undo)??
        }
    };
    call.state.leases[index] = Some(lease);
    Ok(())
}

/// Creates a context for the guest on the driver context, which is leased on first use.
pub(crate) fn make(call: &mut Call<'_>, device: i32, flags: u32) -> CallResult<Handle> {
    device::find(call, device)?;
    let index = device as usize;
    if !call.state.contexts.has_room() {
        return fail(Code::OUT_OF_MEMORY);
    }
    lease(call, index)?;
    let object = ContextObject {
        device: index,
        flags,
    };
    call.state
        .contexts
        .insert(object)
        .map_err(|_| Code::OUT_OF_MEMORY.into())
}

/// `cuCtxCreate_v2`.
pub(crate) fn create(call: &mut Call<'_>, context: Pointer, flags: u32, device: i32) -> CallResult {
    call.backend()?;
    let out = call.out(context, Kind::Handle)?;
    let handle = make(call, device, flags)?;
    call.state.stack.push(handle);
    call.store(out, handle.0)
}

/// `cuCtxCreate_v3`. Affinities are not supported.
pub(crate) fn create_v3(
    call: &mut Call<'_>,
    context: Pointer,
    affinities: Pointer,
    count: i32,
    flags: u32,
    device: i32,
) -> CallResult {
    if !affinities.is_null() || count != 0 {
        return fail(Code::NOT_SUPPORTED);
    }
    create(call, context, flags, device)
}

/// `cuCtxCreate_v4`. Parameters are not supported.
pub(crate) fn create_v4(
    call: &mut Call<'_>,
    context: Pointer,
    parameters: Pointer,
    flags: u32,
    device: i32,
) -> CallResult {
    if !parameters.is_null() {
        return fail(Code::NOT_SUPPORTED);
    }
    create(call, context, flags, device)
}

/// Destroys a context of the guest and everything that was created in it.
pub(crate) fn end(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let current = call.enter_context(handle)?;
    let backend = call.backend()?;
    call.wait_all(&backend.driver, current)?;
    release_objects(call, current)?;
    call.state.contexts.remove(handle);
    call.state.stack.retain(|entry| *entry != handle);
    Ok(())
}

/// Frees everything that belongs to an idle context of the guest.
pub(crate) fn release_objects(call: &mut Call<'_>, current: Current) -> CallResult {
    let backend = call.backend()?;
    let driver = &backend.driver;
    let here = current.handle;
    let state = &mut *call.state;
    for exec in state.execs.take_if(|object| object.context == here) {
        driver.graph_exec_destroy(exec.exec)?;
    }
    let graphs: Vec<_> = state
        .graphs
        .iter()
        .filter(|(_, graph)| graph.context == here)
        .map(|(h, _)| h)
        .collect();
    for graph in graphs {
        super::graph::forget(state, driver, graph)?;
    }
    for event in state.events.take_if(|object| object.context == here) {
        driver.event_destroy(event.event)?;
    }
    for stream in state.streams.take_if(|object| object.context == here) {
        driver.stream_destroy(stream.stream)?;
    }
    let modules: Vec<_> = state
        .modules
        .iter()
        .filter(|(_, module)| module.context == here)
        .map(|(h, _)| h)
        .collect();
    for module in modules {
        super::module::unload(call, module)?;
    }
    super::memory::release_all(call, current)
}

/// `cuCtxDestroy_v2`.
pub(crate) fn destroy(call: &mut Call<'_>, context: Handle) -> CallResult {
    call.backend()?;
    if call
        .state
        .primaries
        .iter()
        .any(|primary| primary.handle == Some(context))
    {
        return fail(Code::INVALID_CONTEXT);
    }
    end(call, context)
}

/// `cuCtxSetCurrent`.
pub(crate) fn set_current(call: &mut Call<'_>, context: Handle) -> CallResult {
    call.backend()?;
    if context == Handle::NULL {
        call.state.stack.pop();
        return Ok(());
    }
    call.enter_context(context)?;
    call.state.stack.pop();
    call.state.stack.push(context);
    Ok(())
}

/// `cuCtxPushCurrent_v2`.
pub(crate) fn push_current(call: &mut Call<'_>, context: Handle) -> CallResult {
    const DEEPEST: usize = 1024;
    call.backend()?;
    call.enter_context(context)?;
    if call.state.stack.len() >= DEEPEST {
        return fail(Code::OUT_OF_MEMORY);
    }
    call.state.stack.push(context);
    Ok(())
}

/// `cuCtxPopCurrent_v2`.
pub(crate) fn pop_current(call: &mut Call<'_>, context: Pointer) -> CallResult {
    call.backend()?;
    let out = call.optional_out(context, Kind::Handle)?;
    match call.state.stack.pop() {
        Some(handle) => call.store_optional(out, handle.0),
        None => fail(Code::INVALID_CONTEXT),
    }
}

/// `cuCtxGetCurrent`.
pub(crate) fn get_current(call: &mut Call<'_>, context: Pointer) -> CallResult {
    call.backend()?;
    let out = call.out(context, Kind::Handle)?;
    let current = call.state.stack.last().copied().unwrap_or(Handle::NULL);
    call.store(out, current.0)
}

/// `cuCtxGetDevice`.
pub(crate) fn get_device(call: &mut Call<'_>, device: Pointer) -> CallResult {
    let current = call.current()?;
    let out = call.out(device, Kind::Int)?;
    call.store(out, current.device as u64)
}

/// `cuCtxGetFlags`.
pub(crate) fn get_flags(call: &mut Call<'_>, flags: Pointer) -> CallResult {
    let current = call.current()?;
    let out = call.out(flags, Kind::Int)?;
    let flags = call
        .state
        .contexts
        .get(current.handle)
        .map_or(0, |object| object.flags);
    call.store(out, u64::from(flags))
}

/// The context of a handle; for NULL the current context.
fn named(call: &mut Call<'_>, context: Handle) -> CallResult<Current> {
    match context {
        Handle::NULL => call.current(),
        handle => call.enter_context(handle),
    }
}

/// `cuCtxGetApiVersion`.
pub(crate) fn get_api_version(
    call: &mut Call<'_>,
    context: Handle,
    version: Pointer,
) -> CallResult {
    named(call, context)?;
    let out = call.out(version, Kind::Int)?;
    call.store(out, API_VERSION)
}

/// `cuCtxGetId`: a number that is unique within the instance.
pub(crate) fn get_id(call: &mut Call<'_>, context: Handle, id: Pointer) -> CallResult {
    let current = named(call, context)?;
    let out = call.out(id, Kind::Long)?;
    call.store(out, current.handle.0)
}

/// `cuCtxSynchronize`.
pub(crate) fn synchronize(call: &mut Call<'_>) -> CallResult {
    let current = call.current()?;
    let backend = call.backend()?;
    if call.state.capturing > 0 {
        return fail(Code::STREAM_CAPTURE_UNSUPPORTED);
    }
    call.wait_all(&backend.driver, current)
}

/// `cuCtxGetLimit`.
pub(crate) fn get_limit(call: &mut Call<'_>, value: Pointer, limit: u32) -> CallResult {
    call.current()?;
    let out = call.out(value, Kind::Size)?;
    let value = call.backend()?.driver.context_limit(limit)?;
    call.store(out, value as u64)
}

/// `cuCtxSetLimit`. Allowed only in an exclusive context.
pub(crate) fn set_limit(call: &mut Call<'_>, limit: u32, value: Size) -> CallResult {
    call.current()?;
    if call.cuda.settings().isolation == Isolation::Shared {
        return fail(Code::UNSUPPORTED_LIMIT);
    }
    let backend = call.backend()?;
    let (used, most) = (call.state.used, call.cuda.settings().mem_limit);
    match limit {
        STACK_SIZE => {}
        PRINTF_SIZE if value.0 <= LARGEST_PRINTF => {}
        // The heap of kernels counts against the device memory of the instance.
        HEAP_SIZE => {
            let before = call.backend()?.driver.context_limit(HEAP_SIZE)? as u64;
            let more = value.0.saturating_sub(before);
            if used.saturating_add(more) > most {
                return fail(Code::OUT_OF_MEMORY);
            }
            backend.driver.context_set_limit(limit, value.0 as usize)?;
            call.state.used += more;
            return Ok(());
        }
        PRINTF_SIZE => return fail(Code::INVALID_VALUE),
        _ => return fail(Code::UNSUPPORTED_LIMIT),
    }
    Ok(backend
        .driver
        .context_set_limit(limit, usize::try_from(value.0).unwrap_or(usize::MAX))?)
}

/// `cuCtxGetCacheConfig`.
pub(crate) fn get_cache_config(call: &mut Call<'_>, config: Pointer) -> CallResult {
    call.current()?;
    let out = call.out(config, Kind::Int)?;
    let value = call.backend()?.driver.context_cache_config()?;
    call.store(out, u64::from(value))
}

/// `cuCtxSetCacheConfig`. Ignored in a shared context, where it would affect other instances.
pub(crate) fn set_cache_config(call: &mut Call<'_>, config: u32) -> CallResult {
    call.current()?;
    if config > 3 {
        return fail(Code::INVALID_VALUE);
    }
    if call.cuda.settings().isolation == Isolation::Shared {
        return Ok(());
    }
    Ok(call.backend()?.driver.context_set_cache_config(config)?)
}

/// `cuCtxGetStreamPriorityRange`.
pub(crate) fn stream_priority_range(
    call: &mut Call<'_>,
    least: Pointer,
    greatest: Pointer,
) -> CallResult {
    call.current()?;
    let outs = (
        call.optional_out(least, Kind::Int)?,
        call.optional_out(greatest, Kind::Int)?,
    );
    let (least, greatest) = call.backend()?.driver.stream_priority_range()?;
    call.store_optional(outs.0, u64::from(least as u32))?;
    call.store_optional(outs.1, u64::from(greatest as u32))
}
