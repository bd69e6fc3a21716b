//! Memory pools, and stream-ordered allocation.

use std::collections::BTreeMap;

use super::memory::allocate_for;
use crate::abi::layout::PoolProps;
use crate::abi::{Code, Host, In, Out, Result, Stream};
use crate::device::{Purpose, Work};
use crate::driver::{Call, Pool, SHARED};
use crate::entry::entries;

/// `CU_GRAPH_NODE_TYPE_MEM_FREE`.
const NODE_FREE: u32 = 11;

/// `CUmemPool_attribute`: three switches, a threshold, and four statistics.
const ATTRIBUTES: std::ops::RangeInclusive<u32> = 1..=8;

fn allocate(call: &mut Call<'_>, out: Out<u64>, size: usize, pool: u64, stream: Stream) -> Result {
    let out = out.required()?;
    call.driver().check(pool, |driver| &driver.pools)?;
    let lane = call.driver().lane_for_work(stream)?;
    call.driver().not_captured(lane)?;
    let context = call.driver().context()?;
    let (device, maximum) = {
        let pool = call.driver().pools.get(pool).ok_or(Code::INVALID_HANDLE)?;
        (pool.device, pool.maximum)
    };
    if maximum > 0 && size > maximum {
        return Err(Code::OUT_OF_MEMORY);
    }
    out.put(allocate_for(
        call,
        context,
        device,
        size,
        Purpose::Pooled(pool),
    )?);
    Ok(())
}

/// Number of bytes allocated from a pool.
fn used(pool: u64) -> u64 {
    SHARED
        .memory
        .lock()
        .bytes_where(|one| one.purpose == Purpose::Pooled(pool))
}

entries! {
    fn cuMemAllocAsync / cuMemAllocAsync_ptsz(
        address: Out<u64>,
        bytes: usize,
        stream: Stream,
    ) |call| {
        let driver = call.driver();
        let context = driver.context()?;
        let device = driver.contexts.get(context).ok_or(Code::INVALID_CONTEXT)?.device;
        let pool = driver.devices[device].pool;
        allocate(call, address, bytes, pool, stream)
    }

    fn cuMemAllocFromPoolAsync / cuMemAllocFromPoolAsync_ptsz(
        address: Out<u64>,
        bytes: usize,
        pool: u64,
        stream: Stream,
    ) |call| {
        allocate(call, address, bytes, pool, stream)
    }

    fn cuMemFreeAsync / cuMemFreeAsync_ptsz(address: u64, stream: Stream) |call| {
        let lane = call.driver().lane_for_work(stream)?;
        call.driver().not_captured(lane)?;
        call.driver().device_range(address, 1)?;
        let freeable = {
            let mut memory = SHARED.memory.lock();
            memory.get_mut(address).is_some_and(|one| {
                let freeable = matches!(one.purpose, Purpose::Pooled(_)) && !one.leaving;
                one.leaving |= freeable;
                freeable
            })
        };
        if !freeable {
            call.driver().violation(format!("{address:#x} is no address to free in a stream"));
            return Err(Code::INVALID_VALUE);
        }
        call.driver().queue(lane, NODE_FREE, Work::Free { base: address })
    }

    fn cuMemPoolCreate(pool: Out<u64>, properties: In<PoolProps>) |call| {
        let out = pool.required()?;
        let properties = properties.get()?;
        // Only pinned memory on a device that is not shared with other processes.
        if properties.allocation_type != 1
            || properties.handle_types != 0
            || properties.location_type != 1
        {
            return Err(Code::INVALID_VALUE);
        }
        let device = call.driver().device(properties.location_id)?;
        out.put(call.driver().pools.insert(Pool {
            device,
            default: false,
            attributes: BTreeMap::new(),
            maximum: properties.max_size,
        }));
        Ok(())
    }

    fn cuMemPoolDestroy(pool: u64) |call| {
        let driver = call.driver();
        driver.check(pool, |driver| &driver.pools)?;
        if driver.pools.get(pool).is_some_and(|pool| pool.default) {
            return Err(Code::INVALID_VALUE);
        }
        for device in &mut driver.devices {
            if device.pool == pool {
                device.pool = device.default_pool;
            }
        }
        driver.pools.remove(pool);
        Ok(())
    }

    fn cuMemPoolTrimTo(pool: u64, _keep: usize) |call| {
        call.driver().check(pool, |driver| &driver.pools)
    }

    fn cuMemPoolSetAttribute(pool: u64, attribute: u32, value: Host) |call| {
        call.driver().check(pool, |driver| &driver.pools)?;
        if !ATTRIBUTES.contains(&attribute) || value.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        let value = if attribute <= 3 {
            value.word32()
        } else {
            value.word(0)
        };
        let pool = call.driver().pools.get_mut(pool).ok_or(Code::INVALID_HANDLE)?;
        pool.attributes.insert(attribute, value);
        Ok(())
    }

    fn cuMemPoolGetAttribute(pool: u64, attribute: u32, value: Host) |call| {
        call.driver().check(pool, |driver| &driver.pools)?;
        if !ATTRIBUTES.contains(&attribute) || value.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        let object = call.driver().pools.get(pool).ok_or(Code::INVALID_HANDLE)?;
        let number = match attribute {
            1..=3 => object.attributes.get(&attribute).copied().unwrap_or(1),
            4 => object.attributes.get(&attribute).copied().unwrap_or(0),
            _ => used(pool),
        };
        let width = if attribute <= 3 { 4 } else { 8 };
        value.write(&number.to_le_bytes()[..width]);
        Ok(())
    }
}
