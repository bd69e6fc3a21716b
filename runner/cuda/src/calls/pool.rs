//! Stream-ordered allocation from pools. All pools belong to one instance, even the one that stands for the default
//! pool of a device, so that no instance gets memory that another instance has freed.

use crate::addresses::Origin;
use crate::arguments::{Device, Kind, Pointer, Size};
use crate::call::Call;
use crate::code::Code;
use crate::driver::{Pool, Stream};
use crate::handles::Handle;
use crate::instance::allocation;
use crate::layout::Fields;
use crate::objects::PoolObject;
use crate::outcome::{CallResult, fail};

use super::memory::{charge, charged};
use super::{context, device};

/// `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD`. Attributes before it have four bytes.
const FIRST_WIDE: u32 = 4;
const LAST: u32 = 8;

fn make(call: &mut Call<'_>, device: usize, is_default: bool) -> CallResult<Handle> {
    let backend = call.backend()?;
    if !call.state.pools.has_room() {
        return fail(Code::OUT_OF_MEMORY);
    }
    // A pool needs no context, but it is destroyed with the instance's context on the device.
    context::lease(call, device)?;
    let pool = backend
        .driver
        .pool_create(backend.devices[device].number, 0)?;
    let object = PoolObject {
        device,
        pool,
        is_default,
    };
    match call.state.pools.insert(object) {
        Ok(handle) => Ok(handle),
        Err(object) => {
            backend.driver.pool_destroy(object.pool)?;
            fail(Code::OUT_OF_MEMORY)
        }
    }
}

/// The pool that stands for the default pool of a device.
fn default_pool(call: &mut Call<'_>, device: usize) -> CallResult<Handle> {
    let found = call
        .state
        .pools
        .iter()
        .find(|(_, pool)| pool.is_default && pool.device == device);
    match found.map(|(handle, _)| handle) {
        Some(handle) => Ok(handle),
        None => make(call, device, true),
    }
}

/// `cuDeviceGetDefaultMemPool` and `cuDeviceGetMemPool`.
pub(crate) fn device_pool(call: &mut Call<'_>, pool: Pointer, device: i32) -> CallResult {
    device::find(call, device)?;
    let out = call.out(pool, Kind::Handle)?;
    let handle = default_pool(call, device as usize)?;
    call.store(out, handle.0)
}

/// `cuMemPoolCreate` for device memory of this process.
pub(crate) fn create(call: &mut Call<'_>, pool: Pointer, properties: Pointer) -> CallResult {
    call.backend()?;
    let out = call.out(pool, Kind::Handle)?;
    let mut fields = Fields::of(properties);
    let allocation = fields.next(call, Kind::Int)?;
    let handles = fields.next(call, Kind::Int)?;
    let location = fields.next(call, Kind::Int)?;
    let device = fields.next(call, Kind::Int)? as u32 as i32;
    if allocation != 1 || location != 1 {
        return fail(Code::INVALID_VALUE);
    }
    if handles != 0 {
        return fail(Code::NOT_SUPPORTED);
    }
    device::find(call, device)?;
    let handle = make(call, device as usize, false)?;
    call.store(out, handle.0)
}

fn find(call: &Call<'_>, handle: Handle) -> CallResult<(Pool, usize, bool)> {
    match call.state.pools.get(handle) {
        Some(object) => Ok((object.pool, object.device, object.is_default)),
        None => fail(Code::INVALID_HANDLE),
    }
}

/// `cuMemPoolDestroy`. Allocations from the pool stay valid until they are freed.
pub(crate) fn destroy(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let (pool, _, is_default) = find(call, handle)?;
    if is_default {
        return fail(Code::INVALID_VALUE);
    }
    call.backend()?.driver.pool_destroy(pool)?;
    call.state.pools.remove(handle);
    Ok(())
}

/// `cuMemPoolTrimTo`.
pub(crate) fn trim(call: &mut Call<'_>, handle: Handle, keep: Size) -> CallResult {
    let (pool, ..) = find(call, handle)?;
    Ok(call.backend()?.driver.pool_trim(pool, keep.0 as usize)?)
}

fn attribute_kind(attribute: u32) -> CallResult<Kind> {
    match attribute {
        1..FIRST_WIDE => Ok(Kind::Int),
        FIRST_WIDE..=LAST => Ok(Kind::Long),
        _ => fail(Code::INVALID_VALUE),
    }
}

/// `cuMemPoolGetAttribute`.
pub(crate) fn get_attribute(
    call: &mut Call<'_>,
    handle: Handle,
    attribute: u32,
    value: Pointer,
) -> CallResult {
    let (pool, ..) = find(call, handle)?;
    let out = call.out(value, attribute_kind(attribute)?)?;
    let value = call.backend()?.driver.pool_attribute(pool, attribute)?;
    call.store(out, value)
}

/// `cuMemPoolSetAttribute`.
pub(crate) fn set_attribute(
    call: &mut Call<'_>,
    handle: Handle,
    attribute: u32,
    value: Pointer,
) -> CallResult {
    let (pool, ..) = find(call, handle)?;
    let value = call.load(value, attribute_kind(attribute)?)?;
    Ok(call
        .backend()?
        .driver
        .pool_set_attribute(pool, attribute, value)?)
}

fn alloc(
    call: &mut Call<'_>,
    address: Pointer,
    bytes: Size,
    pool: Option<Handle>,
    stream: Handle,
) -> CallResult {
    let out = call.out(address, Kind::Device)?;
    let named = call.ordered_stream(stream)?;
    charge(call, bytes.0)?;
    let handle = match pool {
        Some(handle) => handle,
        None => default_pool(call, named.current.device)?,
    };
    let (pool, device, _) = find(call, handle)?;
    if device != named.current.device {
        return fail(Code::INVALID_VALUE);
    }
    // Refused in a capture: a graph would allocate at every launch, at an address that is not in our map.
    super::copy::refuse_capture(call, named.stream)?;
    let backend = call.backend()?;
    let size = usize::try_from(bytes.0).map_err(|_| Code::OUT_OF_MEMORY)?;
    let real = backend
        .driver
        .mem_alloc_from_pool(size, pool, named.stream)?;
    match call
        .state
        .addresses
        .insert(real, bytes.0, named.current.handle, Origin::Pool)
    {
        Some(address) => {
            call.state.used += charged(bytes.0);
            call.store(out, address)
        }
        None => {
            backend.driver.mem_free_async(real, named.stream)?;
            fail(Code::OUT_OF_MEMORY)
        }
    }
}

/// `cuMemAllocAsync`.
pub(crate) fn alloc_async(
    call: &mut Call<'_>,
    address: Pointer,
    bytes: Size,
    stream: Handle,
) -> CallResult {
    alloc(call, address, bytes, None, stream)
}

/// `cuMemAllocFromPoolAsync`.
pub(crate) fn alloc_from_pool(
    call: &mut Call<'_>,
    address: Pointer,
    bytes: Size,
    pool: Handle,
    stream: Handle,
) -> CallResult {
    alloc(call, address, bytes, Some(pool), stream)
}

/// `cuMemFreeAsync`.
pub(crate) fn free_async(call: &mut Call<'_>, address: Device, stream: Handle) -> CallResult {
    let named = call.ordered_stream(stream)?;
    if address.0 == 0 {
        return Ok(());
    }
    let range = match call.state.addresses.at(address.0) {
        Some(range) if !matches!(range.origin, Origin::Global(_)) => *range,
        _ => return fail(Code::INVALID_VALUE),
    };
    if call.state.device_of(range.context) != Some(named.current.device) {
        return fail(Code::INVALID_VALUE);
    }
    super::copy::refuse_capture(call, named.stream)?;
    if range.origin == Origin::Allocation {
        // Not from a pool: wait, then free it synchronously.
        return super::memory::free(call, address);
    }
    if call.state.has_graphs() {
        call.state.addresses.remove(address.0);
        call.state
            .kept
            .push((named.current.device, allocation(&range)));
        return Ok(());
    }
    let backend = call.backend()?;
    if named.current.stream != Stream::LEGACY {
        // The context is shared.
        backend
            .driver
            .memset_8(range.real, 0, range.size as usize, named.stream)?;
    }
    backend.driver.mem_free_async(range.real, named.stream)?;
    call.state.addresses.remove(address.0);
    call.state.used -= charged(range.size);
    Ok(())
}
