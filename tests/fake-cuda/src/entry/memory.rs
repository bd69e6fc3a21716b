//! Device memory: allocation, release, and queries about addresses.

use crate::abi::{Code, Host, In, Out, Result};
use crate::device::Purpose;
use crate::driver::{Call, SHARED};
use crate::entry::entries;

/// Alignment of the rows of pitched allocations.
const PITCH: usize = 512;

pub(super) fn allocate(call: &mut Call<'_>, size: usize, purpose: Purpose) -> Result<u64> {
    let driver = call.driver();
    let context = driver.context()?;
    let device = driver
        .contexts
        .get(context)
        .ok_or(Code::INVALID_CONTEXT)?
        .device;
    allocate_for(call, context, device, size, purpose)
}

pub(super) fn allocate_for(
    call: &mut Call<'_>,
    context: u64,
    device: usize,
    size: usize,
    purpose: Purpose,
) -> Result<u64> {
    if size == 0 {
        return Err(Code::INVALID_VALUE);
    }
    let total = call.driver().settings.memory;
    let mut memory = SHARED.memory.lock();
    memory
        .allocate(context, device, size, total, purpose)
        .ok_or(Code::OUT_OF_MEMORY)
}

/// The allocation of the current context that contains an address.
fn find(call: &mut Call<'_>, address: u64) -> Result<(u64, usize)> {
    call.driver().context()?;
    let memory = SHARED.memory.lock();
    let found = memory
        .find(address)
        .map(|(base, allocation)| (base, allocation.size));
    found.ok_or(Code::INVALID_VALUE)
}

/// `cuPointerGetAttribute` for device memory, by the public numbers of `CUpointer_attribute`. `None` means that the
/// stand-in does not know the attribute.
fn attribute(call: &mut Call<'_>, attribute: u32, address: u64) -> Result<Option<u64>> {
    let (base, size) = find(call, address)?;
    let memory = SHARED.memory.lock();
    let (_, allocation) = memory.find(address).ok_or(Code::INVALID_VALUE)?;
    Ok(match attribute {
        1 => Some(allocation.context),
        // CU_MEMORYTYPE_DEVICE.
        2 => Some(2),
        3 => Some(address),
        7 => memory.id(base),
        8 => Some(0),
        9 => Some(allocation.device as u64),
        11 => Some(base),
        12 => Some(size as u64),
        13 => Some(1),
        17 => Some(match allocation.purpose {
            Purpose::Pooled(pool) => pool,
            _ => 0,
        }),
        _ => None,
    })
}

/// Size of an attribute's value in bytes.
fn width(attribute: u32) -> usize {
    match attribute {
        2 | 9 => 4,
        8 | 13 => 1,
        _ => 8,
    }
}

entries! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) |call| {
        let (free, total) = (free.required()?, total.required()?);
        let driver = call.driver();
        let context = driver.context()?;
        let device = driver.contexts.get(context).ok_or(Code::INVALID_CONTEXT)?.device;
        let all = driver.settings.memory;
        let used = SHARED.memory.lock().used(device);
        free.put(all.saturating_sub(used) as usize);
        total.put(all as usize);
        Ok(())
    }

    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) |call| {
        let out = address.required()?;
        out.put(allocate(call, bytes, Purpose::Linear)?);
        Ok(())
    }

    fn cuMemAllocPitch_v2(
        address: Out<u64>,
        pitch: Out<usize>,
        width: usize,
        height: usize,
        element: u32,
    ) |call| {
        let (address, pitch) = (address.required()?, pitch.required()?);
        if !matches!(element, 4 | 8 | 16) || width == 0 || height == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let row = width.checked_next_multiple_of(PITCH).ok_or(Code::INVALID_VALUE)?;
        let size = row.checked_mul(height).ok_or(Code::INVALID_VALUE)?;
        address.put(allocate(call, size, Purpose::Linear)?);
        pitch.put(row);
        Ok(())
    }

    fn cuMemFree_v2(address: u64) |call| {
        let context = call.driver().context()?;
        if address == 0 {
            return Ok(());
        }
        call.driver().device_range(address, 1)?;
        let whole = SHARED.memory.lock().find(address).filter(|(base, _)| *base == address).map(|(_, one)| one.purpose);
        match whole {
            Some(Purpose::Linear) => {}
            Some(Purpose::Pooled(_)) => return free_pooled(call, address),
            Some(Purpose::Global) | None => {
                call.driver().violation(format!("{address:#x} is no address to free"));
                return Err(Code::INVALID_VALUE);
            }
        }
        // A free waits for all work, which might still use the memory.
        call.driver().no_capture_in(context)?;
        call.drain_context(context)?;
        SHARED.memory.lock().free(address);
        Ok(())
    }

    fn cuMemGetAddressRange_v2(base: Out<u64>, size: Out<usize>, address: u64) |call| {
        let (found, length) = find(call, address).or(Err(Code::NOT_FOUND))?;
        base.put(found);
        size.put(length);
        Ok(())
    }

    fn cuPointerGetAttribute(data: Host, kind: u32, address: u64) |call| {
        if data.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        let value = attribute(call, kind, address)?.ok_or(Code::INVALID_VALUE)?;
        data.write(&value.to_le_bytes()[..width(kind)]);
        Ok(())
    }

    fn cuPointerGetAttributes(
        count: u32,
        kinds: In<u32>,
        data: In<Host>,
        address: u64,
    ) |call| {
        for index in 0..count as usize {
            let (kind, data) = (kinds.get_at(index)?, data.get_at(index)?);
            // All attributes of an unknown address are zero.
            let value = attribute(call, kind, address).unwrap_or(Some(0));
            let value = value.ok_or(Code::INVALID_VALUE)?;
            data.write(&value.to_le_bytes()[..width(kind)]);
        }
        Ok(())
    }
}

fn free_pooled(call: &mut Call<'_>, address: u64) -> Result {
    let context = call.driver().context()?;
    call.drain_context(context)?;
    SHARED.memory.lock().free(address);
    Ok(())
}
