//! Primary contexts: one per device and instance.

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::outcome::{CallResult, fail};

use super::{context, device};

/// `cuDevicePrimaryCtxRetain`.
pub(crate) fn retain(call: &mut Call<'_>, context: Pointer, device: i32) -> CallResult {
    device::find(call, device)?;
    let out = call.out(context, Kind::Handle)?;
    let index = device as usize;
    let primary = call.state.primaries[index];
    let handle = match primary.handle {
        Some(handle) => handle,
        None => context::make(call, device, primary.flags)?,
    };
    let primary = &mut call.state.primaries[index];
    primary.handle = Some(handle);
    primary.count = primary.count.saturating_add(1);
    call.store(out, handle.0)
}

/// `cuDevicePrimaryCtxRelease_v2`.
pub(crate) fn release(call: &mut Call<'_>, device: i32) -> CallResult {
    device::find(call, device)?;
    let index = device as usize;
    let primary = call.state.primaries[index];
    match (primary.handle, primary.count) {
        (Some(handle), 1) => {
            context::end(call, handle)?;
            let primary = &mut call.state.primaries[index];
            (primary.handle, primary.count) = (None, 0);
            Ok(())
        }
        (Some(_), _) => {
            call.state.primaries[index].count -= 1;
            Ok(())
        }
        (None, _) => fail(Code::INVALID_CONTEXT),
    }
}

/// `cuDevicePrimaryCtxReset_v2`: frees everything that this instance has created in it.
pub(crate) fn reset(call: &mut Call<'_>, device: i32) -> CallResult {
    device::find(call, device)?;
    let Some(handle) = call.state.primaries[device as usize].handle else {
        return Ok(());
    };
    let current = call.enter_context(handle)?;
    let backend = call.backend()?;
    call.wait_all(&backend.driver, current)?;
    context::release_objects(call, current)
}

/// `cuDevicePrimaryCtxSetFlags_v2`.
pub(crate) fn set_flags(call: &mut Call<'_>, device: i32, flags: u32) -> CallResult {
    device::find(call, device)?;
    let primary = &mut call.state.primaries[device as usize];
    primary.flags = flags;
    let handle = primary.handle;
    if let Some(object) = handle.and_then(|handle| call.state.contexts.get_mut(handle)) {
        object.flags = flags;
    }
    Ok(())
}

/// `cuDevicePrimaryCtxGetState`.
pub(crate) fn get_state(
    call: &mut Call<'_>,
    device: i32,
    flags: Pointer,
    active: Pointer,
) -> CallResult {
    device::find(call, device)?;
    let outs = (call.out(flags, Kind::Int)?, call.out(active, Kind::Int)?);
    let primary = call.state.primaries[device as usize];
    call.store(outs.0, u64::from(primary.flags))?;
    call.store(outs.1, u64::from(primary.handle.is_some()))
}
