//! Copies between guest memory and the device.
//!
//! Copies use the two halves of a staging buffer in turn: while the device uses one half, the host fills or empties the
//! other. Each half is waited for within the deadline. The device never accesses guest memory, so it cannot write there
//! after the end of the instance. Copies to or from guest memory are refused during a capture, as the graph would
//! replay them after the staging buffer has been reused.

use crate::arguments::{Device, Pointer, Size};
use crate::call::Call;
use crate::code::Code;
use crate::driver::{HostBuffer, Stream};
use crate::handles::Handle;
use crate::outcome::{CallResult, fail};

use super::memory::{context_of, translate};
use super::stream::Named;

/// The direction of a copy.
#[derive(Debug, Clone, Copy)]
enum Direction {
    ToDevice,
    FromDevice,
}

/// The stream of a copy. It must be in the context of the memory.
pub(crate) fn stream_for(
    call: &mut Call<'_>,
    addresses: &[Device],
    stream: Handle,
) -> CallResult<Named> {
    let named = call.ordered_stream(stream)?;
    for address in addresses {
        let context = context_of(call, *address);
        if context.and_then(|context| call.state.device_of(context)) != Some(named.current.device) {
            return fail(Code::INVALID_VALUE);
        }
    }
    Ok(named)
}

/// Refuses copies that cannot be captured.
pub(crate) fn refuse_capture(call: &Call<'_>, stream: Stream) -> CallResult {
    match call.is_capturing(stream)? {
        true => fail(Code::STREAM_CAPTURE_UNSUPPORTED),
        false => Ok(()),
    }
}

/// Copies a row. The caller has checked the range of device memory.
pub(crate) fn to_device(
    call: &mut Call<'_>,
    named: Named,
    real: u64,
    from: Pointer,
    length: u64,
) -> CallResult {
    staged(call, named, real, from, length, Direction::ToDevice)
}

/// Copies a row. The caller has checked the range of device memory.
pub(crate) fn from_device(
    call: &mut Call<'_>,
    named: Named,
    to: Pointer,
    real: u64,
    length: u64,
) -> CallResult {
    staged(call, named, real, to, length, Direction::FromDevice)
}

fn staged(
    call: &mut Call<'_>,
    named: Named,
    real: u64,
    host: Pointer,
    length: u64,
    way: Direction,
) -> CallResult {
    call.bytes(host, length)?;
    let lease = call.state.leases[named.current.device].as_mut();
    let Some(mut staging) = lease.and_then(|lease| lease.staging.take()) else {
        return fail(Code::INVALID_CONTEXT);
    };
    let result = pieces(call, named.stream, real, host, length, way, &mut staging);
    // Always return the buffer to the lease: if the device may still write to it, it lives as long as the context.
    if let Some(lease) = call.state.leases[named.current.device].as_mut() {
        lease.staging = Some(staging);
    }
    result
}

fn pieces(
    call: &mut Call<'_>,
    stream: Stream,
    real: u64,
    host: Pointer,
    length: u64,
    way: Direction,
    staging: &mut HostBuffer,
) -> CallResult {
    let backend = call.backend()?;
    let driver = &backend.driver;
    let half = (staging.len() / 2) as u64;
    let piece = |index: u64| {
        let (begin, end) = (index * half, (index * half + half).min(length));
        let part = (index % 2 * half) as usize;
        (begin, end - begin, part..part + (end - begin) as usize)
    };
    let count = length.div_ceil(half);
    match way {
        Direction::ToDevice => {
            for index in 0..count {
                call.checkpoint()?;
                let (begin, size, part) = piece(index);
                let bytes = call.bytes(host.plus(begin), size)?;
                staging.part_mut(part.clone()).copy_from_slice(bytes);
                if index > 0 {
                    call.wait_stream(driver, stream)?;
                }
                driver.copy_to_device(real + begin, staging, part, stream)?;
            }
            call.wait_stream(driver, stream)
        }
        Direction::FromDevice => {
            let start = |staging: &mut HostBuffer, index| {
                let (begin, _, part) = piece(index);
                driver.copy_from_device(staging, part, real + begin, stream)
            };
            start(staging, 0)?;
            for index in 0..count {
                call.checkpoint()?;
                call.wait_stream(driver, stream)?;
                if index + 1 < count {
                    start(staging, index + 1)?;
                }
                let (begin, size, part) = piece(index);
                call.bytes_mut(host.plus(begin), size)?
                    .copy_from_slice(staging.part(part));
            }
            Ok(())
        }
    }
}

/// `cuMemcpyHtoDAsync_v2`.
pub(crate) fn host_to_device_async(
    call: &mut Call<'_>,
    to: Device,
    from: Pointer,
    bytes: Size,
    stream: Handle,
) -> CallResult {
    call.current()?;
    if bytes.0 == 0 {
        return Ok(());
    }
    let real = translate(call, to, bytes.0)?;
    call.bytes(from, bytes.0)?;
    let named = stream_for(call, &[to], stream)?;
    refuse_capture(call, named.stream)?;
    to_device(call, named, real, from, bytes.0)
}

/// `cuMemcpyHtoD_v2`.
pub(crate) fn host_to_device(
    call: &mut Call<'_>,
    to: Device,
    from: Pointer,
    bytes: Size,
) -> CallResult {
    host_to_device_async(call, to, from, bytes, Handle::NULL)
}

/// `cuMemcpyDtoHAsync_v2`.
pub(crate) fn device_to_host_async(
    call: &mut Call<'_>,
    to: Pointer,
    from: Device,
    bytes: Size,
    stream: Handle,
) -> CallResult {
    call.current()?;
    if bytes.0 == 0 {
        return Ok(());
    }
    let real = translate(call, from, bytes.0)?;
    call.bytes(to, bytes.0)?;
    let named = stream_for(call, &[from], stream)?;
    refuse_capture(call, named.stream)?;
    from_device(call, named, to, real, bytes.0)
}

/// `cuMemcpyDtoH_v2`.
pub(crate) fn device_to_host(
    call: &mut Call<'_>,
    to: Pointer,
    from: Device,
    bytes: Size,
) -> CallResult {
    device_to_host_async(call, to, from, bytes, Handle::NULL)
}

/// `cuMemcpyDtoDAsync_v2`, and `cuMemcpyAsync` between two locations on the device.
pub(crate) fn device_to_device_async(
    call: &mut Call<'_>,
    to: Device,
    from: Device,
    bytes: Size,
    stream: Handle,
) -> CallResult {
    call.current()?;
    if bytes.0 == 0 {
        return Ok(());
    }
    let (real_to, real_from) = (
        translate(call, to, bytes.0)?,
        translate(call, from, bytes.0)?,
    );
    let named = stream_for(call, &[to, from], stream)?;
    let backend = call.backend()?;
    call.make_room(&backend.driver, named.current)?;
    Ok(backend
        .driver
        .memcpy_dtod_async(real_to, real_from, bytes.0 as usize, named.stream)?)
}

/// `cuMemcpyDtoD_v2`.
pub(crate) fn device_to_device(
    call: &mut Call<'_>,
    to: Device,
    from: Device,
    bytes: Size,
) -> CallResult {
    device_to_device_async(call, to, from, bytes, Handle::NULL)
}

/// Whether both addresses are on the device. A copy without a direction requires that, as the value of an address does
/// not tell guest memory from device memory.
fn both_on_device(call: &Call<'_>, to: Device, from: Device) -> CallResult {
    match [to, from]
        .iter()
        .all(|address| context_of(call, *address).is_some())
    {
        true => Ok(()),
        false => fail(Code::NOT_SUPPORTED),
    }
}

/// `cuMemcpyAsync`.
pub(crate) fn copy_async(
    call: &mut Call<'_>,
    to: Device,
    from: Device,
    bytes: Size,
    stream: Handle,
) -> CallResult {
    call.current()?;
    both_on_device(call, to, from)?;
    device_to_device_async(call, to, from, bytes, stream)
}

/// `cuMemcpy`, which is synchronous.
pub(crate) fn copy(call: &mut Call<'_>, to: Device, from: Device, bytes: Size) -> CallResult {
    call.current()?;
    both_on_device(call, to, from)?;
    device_to_device(call, to, from, bytes)
}
