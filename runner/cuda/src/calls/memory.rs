//! Device memory: allocation, and attributes of addresses.

use crate::addresses::Origin;
use crate::arguments::{Device, Kind, Pointer, Size};
use crate::call::Call;
use crate::code::Code;
use crate::handles::Handle;
use crate::instance::allocation;
use crate::objects::Current;
use crate::outcome::{CallResult, fail};

/// Allocations are rounded up to this for the limit, as the driver rounds them.
pub(crate) const GRAIN: u64 = 512;

/// The bytes that an allocation counts for. Fails if they would exceed the limit.
pub(crate) fn charge(call: &Call<'_>, bytes: u64) -> CallResult<u64> {
    if bytes == 0 {
        return fail(Code::INVALID_VALUE);
    }
    let settings = call.cuda.settings();
    let charged = bytes.checked_next_multiple_of(GRAIN);
    let total = charged.and_then(|charged| charged.checked_add(call.state.used));
    let fits = total.is_some_and(|total| total <= settings.mem_limit);
    let count = call.state.addresses.len() + call.state.kept.len();
    match charged {
        Some(charged) if fits && count < settings.max_allocations as usize => Ok(charged),
        _ => fail(Code::OUT_OF_MEMORY),
    }
}

/// The bytes that a range counts for.
pub(crate) fn charged(size: u64) -> u64 {
    size.next_multiple_of(GRAIN)
}

/// Assigns a guest address to memory of the driver, or frees the memory if the address space is full.
pub(crate) fn enter(
    call: &mut Call<'_>,
    current: Current,
    real: u64,
    size: u64,
) -> CallResult<u64> {
    match call
        .state
        .addresses
        .insert(real, size, current.handle, Origin::Allocation)
    {
        Some(address) => {
            call.state.used += charged(size);
            Ok(address)
        }
        None => {
            call.backend()?.driver.mem_free(real)?;
            fail(Code::OUT_OF_MEMORY)
        }
    }
}

/// `cuMemAlloc_v2`.
pub(crate) fn alloc(call: &mut Call<'_>, address: Pointer, bytes: Size) -> CallResult {
    let out = call.out(address, Kind::Device)?;
    let current = call.current()?;
    charge(call, bytes.0)?;
    let size = usize::try_from(bytes.0).map_err(|_| Code::OUT_OF_MEMORY)?;
    let real = call.backend()?.driver.mem_alloc(size)?;
    let address = enter(call, current, real, bytes.0)?;
    call.store(out, address)
}

/// `cuMemAllocPitch_v2`. The driver chooses the pitch, so the limit is checked again afterward.
pub(crate) fn alloc_pitch(
    call: &mut Call<'_>,
    address: Pointer,
    pitch: Pointer,
    width: Size,
    height: Size,
    element: u32,
) -> CallResult {
    let outs = (
        call.out(address, Kind::Device)?,
        call.out(pitch, Kind::Size)?,
    );
    let current = call.current()?;
    charge(
        call,
        width.0.checked_mul(height.0).ok_or(Code::OUT_OF_MEMORY)?,
    )?;
    let backend = call.backend()?;
    let (real, pitch) =
        backend
            .driver
            .mem_alloc_pitch(width.0 as usize, height.0 as usize, element)?;
    let size = (pitch as u64).checked_mul(height.0);
    let size = size.filter(|size| charge(call, *size).is_ok());
    let Some(size) = size else {
        backend.driver.mem_free(real)?;
        return fail(Code::OUT_OF_MEMORY);
    };
    let address = enter(call, current, real, size)?;
    call.store(outs.0, address)?;
    call.store(outs.1, pitch as u64)
}

/// `cuMemFree_v2`. The driver would wait for the device, so this waits first, within the deadline. Memory that a graph
/// may refer to is kept until no graph exists.
pub(crate) fn free(call: &mut Call<'_>, address: Device) -> CallResult {
    call.current()?;
    if address.0 == 0 {
        return Ok(());
    }
    let range = match call.state.addresses.at(address.0) {
        Some(range) if !matches!(range.origin, Origin::Global(_)) => *range,
        _ => return fail(Code::INVALID_VALUE),
    };
    let current = call.enter_context(range.context)?;
    let backend = call.backend()?;
    if call.state.has_graphs() {
        call.state.addresses.remove(address.0);
        call.state.kept.push((current.device, allocation(&range)));
        return Ok(());
    }
    call.wait_all(&backend.driver, current)?;
    scrub(call, current, range.real, range.size)?;
    backend.driver.mem_free(range.real)?;
    call.state.addresses.remove(address.0);
    call.state.used -= charged(range.size);
    Ok(())
}

/// Overwrites memory of a shared context before it is freed, as the driver does not clear memory that it reuses.
fn scrub(call: &mut Call<'_>, current: Current, real: u64, size: u64) -> CallResult {
    let lease = call.state.leases[current.device].as_ref();
    let Some(stream) = lease
        .filter(|lease| lease.shared.is_some())
        .map(|lease| lease.stream)
    else {
        return Ok(());
    };
    let backend = call.backend()?;
    backend.driver.memset_8(real, 0, size as usize, stream)?;
    call.wait_stream(&backend.driver, stream)
}

/// Frees the memory that was kept for graphs, if no graph exists. Waits for running work first.
pub(crate) fn release_kept(call: &mut Call<'_>) -> CallResult {
    if call.state.has_graphs() {
        return Ok(());
    }
    while let Some((device, kept)) = call.state.kept.last().copied() {
        let contexts = call.state.contexts.iter();
        let handle = contexts
            .filter(|(_, object)| object.device == device)
            .map(|(handle, _)| handle)
            .next();
        let Some(handle) = handle else {
            return Ok(()); // Freed at the end of the instance.
        };
        let current = call.enter_context(handle)?;
        let backend = call.backend()?;
        call.wait_all(&backend.driver, current)?;
        scrub(call, current, kept.address, kept.size)?;
        backend.driver.mem_free(kept.address)?;
        call.state.kept.pop();
        call.state.used -= charged(kept.size);
    }
    Ok(())
}

/// Frees all memory of an idle context of the guest, the newest first.
pub(crate) fn release_all(call: &mut Call<'_>, current: Current) -> CallResult {
    release_kept(call)?;
    let here = current.handle;
    let mut ranges = call
        .state
        .addresses
        .take_if(|range| range.context == here && !matches!(range.origin, Origin::Global(_)));
    ranges.sort_unstable_by_key(|range| std::cmp::Reverse(range.number));
    // If one fails, the rest is freed at the end of the instance.
    call.state.kept.extend(
        ranges
            .iter()
            .map(|range| (current.device, allocation(range))),
    );
    let backend = call.backend()?;
    if call.state.has_graphs() {
        return Ok(());
    }
    for range in ranges.iter().rev() {
        scrub(call, current, range.real, range.size)?;
        backend.driver.mem_free(range.real)?;
        call.state
            .kept
            .retain(|(_, kept)| kept.number != range.number);
        call.state.used -= charged(range.size);
    }
    Ok(())
}

/// `cuMemGetAddressRange_v2`.
pub(crate) fn address_range(
    call: &mut Call<'_>,
    base: Pointer,
    size: Pointer,
    address: Device,
) -> CallResult {
    call.current()?;
    let outs = (
        call.optional_out(base, Kind::Device)?,
        call.optional_out(size, Kind::Size)?,
    );
    let found = call.state.addresses.find(address.0);
    match found
        .filter(|(base, range)| address.0 < base + range.size)
        .map(|(base, range)| (base, range.size))
    {
        Some((base, size)) => {
            call.store_optional(outs.0, base)?;
            call.store_optional(outs.1, size)
        }
        None => fail(Code::INVALID_VALUE),
    }
}

/// `CUpointer_attribute`.
mod attribute {
    pub(super) const CONTEXT: u32 = 1;
    pub(super) const MEMORY_TYPE: u32 = 2;
    pub(super) const DEVICE_POINTER: u32 = 3;
    pub(super) const SYNC_MEMOPS: u32 = 6;
    pub(super) const BUFFER_ID: u32 = 7;
    pub(super) const IS_MANAGED: u32 = 8;
    pub(super) const DEVICE_ORDINAL: u32 = 9;
    pub(super) const RANGE_START: u32 = 11;
    pub(super) const RANGE_SIZE: u32 = 12;
    pub(super) const MAPPED: u32 = 13;
}

/// Kind and value of an attribute of an address, from our map only.
fn about(call: &Call<'_>, which: u32, address: u64) -> CallResult<Option<(Kind, u64)>> {
    let found = call
        .state
        .addresses
        .find(address)
        .filter(|(base, range)| address < base + range.size);
    let Some((base, range)) = found else {
        return Ok(None);
    };
    let device = call.state.device_of(range.context).unwrap_or_default() as u64;
    Ok(Some(match which {
        attribute::CONTEXT => (Kind::Handle, range.context.0),
        attribute::MEMORY_TYPE => (Kind::Int, 2),
        attribute::DEVICE_POINTER => (Kind::Device, address),
        attribute::SYNC_MEMOPS | attribute::IS_MANAGED => (Kind::Int, 0),
        attribute::BUFFER_ID => (Kind::Long, range.number),
        attribute::DEVICE_ORDINAL => (Kind::Int, device),
        attribute::RANGE_START => (Kind::Device, base),
        attribute::RANGE_SIZE => (Kind::Size, range.size),
        attribute::MAPPED => (Kind::Int, 1),
        // Attributes of host memory, other processes, and the like.
        _ => return fail(Code::NOT_SUPPORTED),
    }))
}

/// `cuPointerGetAttribute`.
pub(crate) fn pointer_attribute(
    call: &mut Call<'_>,
    data: Pointer,
    which: u32,
    address: Device,
) -> CallResult {
    call.current()?;
    match about(call, which, address.0)? {
        Some((kind, value)) => {
            let out = call.out(data, kind)?;
            call.store(out, value)
        }
        None => fail(Code::INVALID_VALUE),
    }
}

/// `cuPointerGetAttributes`. Returns zeros for an unknown address.
pub(crate) fn pointer_attributes(
    call: &mut Call<'_>,
    count: u32,
    attributes: Pointer,
    data: Pointer,
    address: Device,
) -> CallResult {
    const MOST: u32 = 64;
    call.current()?;
    if count > MOST {
        return fail(Code::INVALID_VALUE);
    }
    let mut stores = Vec::new();
    for index in 0..u64::from(count) {
        let which = call.load_element(attributes, index, Kind::Int)? as u32;
        let place = Pointer(call.load_element(data, index, Kind::Pointer)?);
        let (kind, value) = about(call, which, address.0)?.unwrap_or((Kind::Int, 0));
        stores.push((call.out(place, kind)?, value));
    }
    stores
        .into_iter()
        .try_for_each(|(out, value)| call.store(out, value))
}

/// `faasCuDevicePtrToU64`: translates an address of the guest to the device's, for guests that store pointers in device
/// memory. Returns 0 for an address that is not in the guest's memory.
pub(crate) fn real_address(call: &mut Call<'_>, address: Device) -> u64 {
    call.state
        .addresses
        .translate_pointer(address.0)
        .unwrap_or(0)
}

/// The driver's address of `length` bytes of device memory.
pub(crate) fn translate(call: &Call<'_>, address: Device, length: u64) -> CallResult<u64> {
    match call.state.addresses.translate(address.0, length) {
        Some(real) => Ok(real),
        None => fail(Code::INVALID_VALUE),
    }
}

/// The guest's context to which device memory belongs.
pub(crate) fn context_of(call: &Call<'_>, address: Device) -> Option<Handle> {
    call.state
        .addresses
        .find(address.0)
        .map(|(_, range)| range.context)
}
