//! Events.

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::device::DISABLE_TIMING;
use crate::driver::Event;
use crate::handles::Handle;
use crate::objects::EventObject;
use crate::outcome::{CallResult, fail};

/// `CU_EVENT_BLOCKING_SYNC` and `CU_EVENT_INTERPROCESS`.
const BLOCKING_SYNC: u32 = 1;
const INTERPROCESS: u32 = 4;

/// `cuEventCreate`.
pub(crate) fn create(call: &mut Call<'_>, event: Pointer, flags: u32) -> CallResult {
    let out = call.out(event, Kind::Handle)?;
    let current = call.current()?;
    if flags & INTERPROCESS != 0 {
        return fail(Code::NOT_SUPPORTED);
    }
    if flags & !(BLOCKING_SYNC | DISABLE_TIMING) != 0 {
        return fail(Code::INVALID_VALUE);
    }
    if !call.state.events.has_room() {
        return fail(Code::OUT_OF_MEMORY);
    }
    // Ignore how the driver would wait: we never call its waits.
    let event = call
        .backend()?
        .driver
        .event_create(flags & DISABLE_TIMING)?;
    let object = EventObject {
        context: current.handle,
        event,
    };
    let handle = call
        .state
        .events
        .insert(object)
        .map_err(|_| Code::OUT_OF_MEMORY)?;
    call.store(out, handle.0)
}

/// The event of a handle. Makes its context current on the thread.
fn find(call: &mut Call<'_>, handle: Handle) -> CallResult<Event> {
    let Some(object) = call.state.events.get(handle) else {
        return fail(Code::INVALID_HANDLE);
    };
    let (context, event) = (object.context, object.event);
    call.enter_context(context)?;
    Ok(event)
}

/// `cuEventDestroy_v2`.
pub(crate) fn destroy(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let event = find(call, handle)?;
    call.backend()?.driver.event_destroy(event)?;
    call.state.events.remove(handle);
    Ok(())
}

/// `cuEventRecordWithFlags`.
pub(crate) fn record_with_flags(
    call: &mut Call<'_>,
    handle: Handle,
    stream: Handle,
    flags: u32,
) -> CallResult {
    let named = call.ordered_stream(stream)?;
    let Some(object) = call.state.events.get(handle) else {
        return fail(Code::INVALID_HANDLE);
    };
    if call.state.device_of(object.context) != Some(named.current.device) {
        return fail(Code::INVALID_HANDLE);
    }
    let event = object.event;
    let backend = call.backend()?;
    call.make_room(&backend.driver, named.current)?;
    match flags {
        0 => Ok(backend.driver.event_record(event, named.stream)?),
        flags => Ok(backend
            .driver
            .event_record_with_flags(event, named.stream, flags)?),
    }
}

/// `cuEventRecord`.
pub(crate) fn record(call: &mut Call<'_>, handle: Handle, stream: Handle) -> CallResult {
    record_with_flags(call, handle, stream, 0)
}

/// `cuEventQuery`.
pub(crate) fn query(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let event = find(call, handle)?;
    Ok(call.backend()?.driver.event_query(event)?)
}

/// `cuEventSynchronize`.
pub(crate) fn synchronize(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let event = find(call, handle)?;
    let backend = call.backend()?;
    call.wait_event(&backend.driver, event)
}

/// `cuEventElapsedTime` and `cuEventElapsedTime_v2`, in milliseconds.
pub(crate) fn elapsed(
    call: &mut Call<'_>,
    time: Pointer,
    start: Handle,
    end: Handle,
) -> CallResult {
    let out = call.out(time, Kind::Int)?;
    let (start, end) = (find(call, start)?, find(call, end)?);
    let time = call.backend()?.driver.event_elapsed(start, end)?;
    call.store(out, u64::from(time.to_bits()))
}
