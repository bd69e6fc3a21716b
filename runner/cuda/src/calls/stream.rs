//! Streams, stream capture, and the default streams.
//!
//! In an exclusive context, the default streams are those of the driver. In a shared context, the legacy default stream
//! would wait for other instances, so a private stream replaces it. An event orders the private stream and the blocking
//! streams of its instance.

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::device::{DISABLE_TIMING, NON_BLOCKING};
use crate::driver::Stream;
use crate::handles::Handle;
use crate::objects::{Current, GraphObject, StreamObject};
use crate::outcome::{CallResult, fail};

/// `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`.
const LEGACY: Handle = Handle(1);
const PER_THREAD: Handle = Handle(2);
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL` and `CU_STREAM_CAPTURE_MODE_RELAXED`.
const THREAD_LOCAL: u32 = 1;
const LAST_MODE: u32 = 2;
/// `CU_STREAM_CAPTURE_STATUS_NONE`.
const NOT_CAPTURING: u32 = 0;

/// The stream of a call, and its context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    pub(crate) stream: Stream,
    pub(crate) current: Current,
    blocking: bool,
    is_default: bool,
}

impl Call<'_> {
    /// The stream of a handle. Handles 0, 1, and 2 are the default streams.
    pub(crate) fn stream(&mut self, handle: Handle) -> CallResult<Named> {
        let handle = match handle {
            Handle::NULL if self.per_thread => PER_THREAD,
            Handle::NULL => LEGACY,
            handle => handle,
        };
        if handle == LEGACY || handle == PER_THREAD {
            let current = self.current()?;
            let own = current.stream == Stream::LEGACY;
            let stream = match handle {
                PER_THREAD if own => {
                    self.state.used_per_thread = true;
                    Stream::PER_THREAD
                }
                _ => current.stream,
            };
            return Ok(Named {
                stream,
                current,
                blocking: false,
                is_default: true,
            });
        }
        let Some(object) = self.state.streams.get(handle) else {
            return fail(Code::INVALID_HANDLE);
        };
        let (stream, context, flags) = (object.stream, object.context, object.flags);
        let current = self.enter_context(context)?;
        Ok(Named {
            stream,
            current,
            blocking: flags & NON_BLOCKING == 0,
            is_default: false,
        })
    }

    /// The same for work that is enqueued. Orders the work after the default stream, or the blocking streams, as
    /// required.
    pub(crate) fn ordered_stream(&mut self, handle: Handle) -> CallResult<Named> {
        let named = self.stream(handle)?;
        let shared = named.current.stream != Stream::LEGACY;
        if shared && (named.is_default || named.blocking) && self.state.capturing == 0 {
            self.order(named)?;
        }
        Ok(named)
    }

    fn order(&mut self, named: Named) -> CallResult {
        let device = named.current.device;
        let before: Vec<_> = if named.is_default {
            let streams = self.state.streams.iter().filter(|(_, object)| {
                object.flags & NON_BLOCKING == 0
                    && self.state.device_of(object.context) == Some(device)
            });
            streams.map(|(_, object)| object.stream).collect()
        } else {
            vec![named.current.stream]
        };
        if before.is_empty() {
            return Ok(());
        }
        let backend = self.backend()?;
        let Some(lease) = self.state.leases[device].as_mut() else {
            return fail(Code::INVALID_CONTEXT);
        };
        let barrier = match lease.barrier {
            Some(barrier) => barrier,
            None => *lease
                .barrier
                .insert(backend.driver.event_create(DISABLE_TIMING)?),
        };
        for stream in before {
            backend.driver.event_record(barrier, stream)?;
            backend.driver.stream_wait_event(named.stream, barrier, 0)?;
        }
        Ok(())
    }

    /// Whether the stream is being captured into a graph.
    pub(crate) fn is_capturing(&self, stream: Stream) -> CallResult<bool> {
        if self.state.capturing == 0 {
            return Ok(false);
        }
        let status = self.backend()?.driver.stream_is_capturing(stream)?;
        Ok(status != NOT_CAPTURING)
    }
}

/// `cuStreamCreateWithPriority`.
pub(crate) fn create_with_priority(
    call: &mut Call<'_>,
    stream: Pointer,
    flags: u32,
    priority: i32,
) -> CallResult {
    let out = call.out(stream, Kind::Handle)?;
    let current = call.current()?;
    if flags & !NON_BLOCKING != 0 {
        return fail(Code::INVALID_VALUE);
    }
    if !call.state.streams.has_room() {
        return fail(Code::OUT_OF_MEMORY);
    }
    let shared = current.stream != Stream::LEGACY;
    let real_flags = if shared { NON_BLOCKING } else { flags };
    let stream = call.backend()?.driver.stream_create(real_flags, priority)?;
    let id = call.state.next_id();
    let object = StreamObject {
        context: current.handle,
        stream,
        flags,
        priority,
        id,
    };
    let handle = call
        .state
        .streams
        .insert(object)
        .map_err(|_| Code::OUT_OF_MEMORY)?;
    call.store(out, handle.0)
}

/// `cuStreamCreate`.
pub(crate) fn create(call: &mut Call<'_>, stream: Pointer, flags: u32) -> CallResult {
    create_with_priority(call, stream, flags, 0)
}

/// `cuStreamDestroy_v2`. Waits for the work in the stream, which the driver would otherwise finish unobserved.
pub(crate) fn destroy(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let Some(object) = call.state.streams.get(handle) else {
        return fail(Code::INVALID_HANDLE);
    };
    let (context, stream) = (object.context, object.stream);
    call.enter_context(context)?;
    let backend = call.backend()?;
    if call.is_capturing(stream)? {
        return fail(Code::STREAM_CAPTURE_UNSUPPORTED);
    }
    call.wait_stream(&backend.driver, stream)?;
    backend.driver.stream_destroy(stream)?;
    call.state.streams.remove(handle);
    Ok(())
}

/// `cuStreamSynchronize`.
pub(crate) fn synchronize(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let named = call.stream(handle)?;
    let backend = call.backend()?;
    if call.is_capturing(named.stream)? {
        return fail(Code::STREAM_CAPTURE_UNSUPPORTED);
    }
    call.wait_stream(&backend.driver, named.stream)
}

/// `cuStreamQuery`.
pub(crate) fn query(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let named = call.stream(handle)?;
    Ok(call.backend()?.driver.stream_query(named.stream)?)
}

/// `cuStreamWaitEvent`.
pub(crate) fn wait_event(
    call: &mut Call<'_>,
    handle: Handle,
    event: Handle,
    flags: u32,
) -> CallResult {
    let named = call.ordered_stream(handle)?;
    let Some(event) = call.state.events.get(event) else {
        return fail(Code::INVALID_HANDLE);
    };
    // The event may belong to another device; the driver accepts that.
    let event = event.event;
    let backend = call.backend()?;
    call.make_room(&backend.driver, named.current)?;
    Ok(backend
        .driver
        .stream_wait_event(named.stream, event, flags)?)
}

fn facts(call: &mut Call<'_>, handle: Handle) -> CallResult<(u32, i32, u64, Current)> {
    let named = call.stream(handle)?;
    let object = call.state.streams.get(handle);
    let (flags, priority, id) = object.map_or((0, 0, 0), |object| {
        (object.flags, object.priority, object.id)
    });
    Ok((flags, priority, id, named.current))
}

/// `cuStreamGetFlags`.
pub(crate) fn get_flags(call: &mut Call<'_>, handle: Handle, flags: Pointer) -> CallResult {
    let facts = facts(call, handle)?;
    let out = call.out(flags, Kind::Int)?;
    call.store(out, u64::from(facts.0))
}

/// `cuStreamGetPriority`.
pub(crate) fn get_priority(call: &mut Call<'_>, handle: Handle, priority: Pointer) -> CallResult {
    let facts = facts(call, handle)?;
    let out = call.out(priority, Kind::Int)?;
    call.store_int(out, facts.1)
}

/// `cuStreamGetId`.
pub(crate) fn get_id(call: &mut Call<'_>, handle: Handle, id: Pointer) -> CallResult {
    let facts = facts(call, handle)?;
    let out = call.out(id, Kind::Long)?;
    call.store(out, facts.2)
}

/// `cuStreamGetCtx`.
pub(crate) fn get_context(call: &mut Call<'_>, handle: Handle, context: Pointer) -> CallResult {
    let facts = facts(call, handle)?;
    let out = call.out(context, Kind::Handle)?;
    call.store(out, facts.3.handle.0)
}

/// `cuStreamGetDevice`.
pub(crate) fn get_device(call: &mut Call<'_>, handle: Handle, device: Pointer) -> CallResult {
    let facts = facts(call, handle)?;
    let out = call.out(device, Kind::Int)?;
    call.store(out, facts.3.device as u64)
}

/// `cuStreamBeginCapture_v2`. Every capture is thread-local, as other threads run other guests.
pub(crate) fn begin_capture_v2(call: &mut Call<'_>, handle: Handle, mode: u32) -> CallResult {
    if mode > LAST_MODE {
        return fail(Code::INVALID_VALUE);
    }
    let named = call.stream(handle)?;
    if named.is_default && named.stream != Stream::PER_THREAD {
        return fail(Code::STREAM_CAPTURE_UNSUPPORTED);
    }
    call.backend()?
        .driver
        .stream_begin_capture(named.stream, mode.max(THREAD_LOCAL))?;
    call.state.capturing += 1;
    Ok(())
}

/// `cuStreamBeginCapture`.
pub(crate) fn begin_capture(call: &mut Call<'_>, handle: Handle) -> CallResult {
    begin_capture_v2(call, handle, THREAD_LOCAL)
}

/// `cuStreamEndCapture`.
pub(crate) fn end_capture(call: &mut Call<'_>, handle: Handle, graph: Pointer) -> CallResult {
    let named = call.stream(handle)?;
    let out = call.out(graph, Kind::Handle)?;
    let backend = call.backend()?;
    if call.state.capturing == 0 {
        return fail(Code::ILLEGAL_STATE);
    }
    // This also ends an invalidated capture.
    let was_capturing = call.is_capturing(named.stream)?;
    let ended = backend.driver.stream_end_capture(named.stream);
    if was_capturing {
        let still = backend.driver.stream_is_capturing(named.stream);
        if still.is_ok_and(|status| status == NOT_CAPTURING) {
            call.state.capturing -= 1;
        }
    }
    let graph = ended?;
    let object = GraphObject {
        context: named.current.handle,
        graph,
    };
    match call.state.graphs.insert(object) {
        Ok(handle) => call.store(out, handle.0),
        Err(object) => {
            backend.driver.graph_destroy(object.graph)?;
            fail(Code::OUT_OF_MEMORY)
        }
    }
}

/// `cuStreamIsCapturing`.
pub(crate) fn capture_status(call: &mut Call<'_>, handle: Handle, status: Pointer) -> CallResult {
    let named = call.stream(handle)?;
    let out = call.out(status, Kind::Int)?;
    let status = match call.state.capturing {
        0 => NOT_CAPTURING,
        _ => call.backend()?.driver.stream_is_capturing(named.stream)?,
    };
    call.store(out, u64::from(status))
}

/// `cuStreamGetCaptureInfo`: status and id of the capture.
pub(crate) fn capture_info(
    call: &mut Call<'_>,
    handle: Handle,
    status: Pointer,
    id: Pointer,
) -> CallResult {
    let out = call.optional_out(id, Kind::Long)?;
    capture_status(call, handle, status)?;
    call.store_optional(out, handle.0)
}
