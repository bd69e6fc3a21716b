//! Copies between the caller's memory and the devices'.

use std::sync::Arc;

use crate::abi::layout::{MEMORY_DEVICE, MEMORY_HOST, MEMORY_UNIFIED, Memcpy2d, Memcpy3d};
use crate::abi::{Code, Host, In, Result, Stream};
use crate::device::{Copy, Place, Side, Work};
use crate::driver::{Call, Driver};
use crate::entry::entries;

/// `CU_GRAPH_NODE_TYPE_MEMCPY`.
pub(super) const NODE: u32 = 1;

/// Checks both sides of a copy.
pub(super) fn check(driver: &mut Driver, copy: &Copy) -> Result {
    for side in [&copy.from, &copy.to] {
        let length = copy.extent(side);
        match side.place {
            Place::Device(address) => driver.device_range(address, length)?,
            Place::Host(address) if address.is_null() && length > 0 => {
                return Err(Code::INVALID_VALUE);
            }
            Place::Host(_) | Place::Bytes(_) => {}
        }
    }
    Ok(())
}

/// Copies now, after all work that blocking streams have queued.
fn now(call: &mut Call<'_>, copy: &Copy) -> Result {
    check(call.driver(), copy)?;
    call.driver().no_capture_in(copy.context)?;
    call.drain_blocking(copy.context)?;
    copy.perform()
        .map_err(|misuse| call.driver().misuse(misuse))
}

/// Queues a copy. Like a driver, this reads or writes caller memory that is not page-locked before it returns.
fn later(call: &mut Call<'_>, mut copy: Copy, stream: Stream) -> Result {
    let lane = call.driver().lane_for_work(stream)?;
    check(call.driver(), &copy)?;
    let captured = call.driver().capture(lane).is_some();
    let pageable = |driver: &mut Driver, side: &Side| match side.place {
        Place::Host(address) => !driver.is_pinned(address, copy.extent(side)),
        _ => false,
    };
    let (from, to) = (
        pageable(call.driver(), &copy.from),
        pageable(call.driver(), &copy.to),
    );
    if from
        && !captured
        && let Place::Host(address) = copy.from.place
    {
        copy.from.place = Place::Bytes(Arc::new(address.bytes(copy.extent(&copy.from))));
    }
    call.driver().queue(lane, NODE, Work::Copy(copy))?;
    if to && !captured {
        call.drain(lane)?;
    }
    Ok(())
}

fn flat(call: &mut Call<'_>, from: Place, to: Place, length: usize) -> Result<Copy> {
    Ok(Copy::flat(call.driver().context()?, from, to, length))
}

/// A side of a copy whose direction follows from the addresses. Host memory at a unified address is legal for
/// programs but not for this project's host, which passes on no number from a guest.
fn unified(call: &mut Call<'_>, address: u64) -> Result<Place> {
    if crate::driver::SHARED.memory.lock().is_device(address) {
        return Ok(Place::Device(address));
    }
    call.driver()
        .violation(format!("{address:#x} is no device address"));
    Err(Code::INVALID_VALUE)
}

struct Corner {
    kind: u32,
    host: usize,
    device: u64,
    pitch: usize,
    height: usize,
    at: [usize; 3],
}

/// One side of a pitched copy.
fn side(corner: &Corner, width: usize, rows: usize) -> Result<Side> {
    let pitch = if corner.pitch == 0 {
        width
    } else {
        corner.pitch
    };
    let height = if corner.height == 0 {
        rows
    } else {
        corner.height
    };
    if pitch < width {
        return Err(Code::INVALID_VALUE);
    }
    let plane = pitch.checked_mul(height).ok_or(Code::INVALID_VALUE)?;
    let [x, y, z] = corner.at;
    let offset = z
        .checked_mul(plane)
        .and_then(|offset| offset.checked_add(y.checked_mul(pitch)?))
        .and_then(|offset| offset.checked_add(x))
        .ok_or(Code::INVALID_VALUE)?;
    let place = match corner.kind {
        MEMORY_HOST => Place::Host(Host(corner.host).plus(offset)),
        MEMORY_DEVICE | MEMORY_UNIFIED => Place::Device(corner.device.wrapping_add(offset as u64)),
        // Arrays, which no caller can create here.
        _ => return Err(Code::INVALID_VALUE),
    };
    Ok(Side {
        place,
        pitch,
        plane,
    })
}

pub(super) fn plane(call: &mut Call<'_>, shape: &Memcpy2d) -> Result<Copy> {
    let from = Corner {
        kind: shape.src_type,
        host: shape.src_host,
        device: shape.src_device,
        pitch: shape.src_pitch,
        height: 0,
        at: [shape.src_x, shape.src_y, 0],
    };
    let to = Corner {
        kind: shape.dst_type,
        host: shape.dst_host,
        device: shape.dst_device,
        pitch: shape.dst_pitch,
        height: 0,
        at: [shape.dst_x, shape.dst_y, 0],
    };
    Ok(Copy {
        context: call.driver().context()?,
        from: side(&from, shape.width, shape.height)?,
        to: side(&to, shape.width, shape.height)?,
        width: shape.width,
        height: shape.height,
        depth: 1,
    })
}

pub(super) fn volume(call: &mut Call<'_>, shape: &Memcpy3d) -> Result<Copy> {
    let from = Corner {
        kind: shape.src_type,
        host: shape.src_host,
        device: shape.src_device,
        pitch: shape.src_pitch,
        height: shape.src_height,
        at: [shape.src_x, shape.src_y, shape.src_z],
    };
    let to = Corner {
        kind: shape.dst_type,
        host: shape.dst_host,
        device: shape.dst_device,
        pitch: shape.dst_pitch,
        height: shape.dst_height,
        at: [shape.dst_x, shape.dst_y, shape.dst_z],
    };
    Ok(Copy {
        context: call.driver().context()?,
        from: side(&from, shape.width, shape.height)?,
        to: side(&to, shape.width, shape.height)?,
        width: shape.width,
        height: shape.height,
        depth: shape.depth,
    })
}

entries! {
    fn cuMemcpyHtoD_v2 / cuMemcpyHtoD_v2_ptds(to: u64, from: Host, bytes: usize) |call| {
        let copy = flat(call, Place::Host(from), Place::Device(to), bytes)?;
        now(call, &copy)
    }

    fn cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds(to: Host, from: u64, bytes: usize) |call| {
        let copy = flat(call, Place::Device(from), Place::Host(to), bytes)?;
        now(call, &copy)
    }

    fn cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds(to: u64, from: u64, bytes: usize) |call| {
        let copy = flat(call, Place::Device(from), Place::Device(to), bytes)?;
        now(call, &copy)
    }

    fn cuMemcpy / cuMemcpy_ptds(to: u64, from: u64, bytes: usize) |call| {
        let (from, to) = (unified(call, from)?, unified(call, to)?);
        let copy = flat(call, from, to, bytes)?;
        now(call, &copy)
    }

    fn cuMemcpyAsync / cuMemcpyAsync_ptsz(
        to: u64,
        from: u64,
        bytes: usize,
        stream: Stream,
    ) |call| {
        let (from, to) = (unified(call, from)?, unified(call, to)?);
        let copy = flat(call, from, to, bytes)?;
        later(call, copy, stream)
    }

    fn cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz(
        to: u64,
        from: Host,
        bytes: usize,
        stream: Stream,
    ) |call| {
        let copy = flat(call, Place::Host(from), Place::Device(to), bytes)?;
        later(call, copy, stream)
    }

    fn cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz(
        to: Host,
        from: u64,
        bytes: usize,
        stream: Stream,
    ) |call| {
        let copy = flat(call, Place::Device(from), Place::Host(to), bytes)?;
        later(call, copy, stream)
    }

    fn cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz(
        to: u64,
        from: u64,
        bytes: usize,
        stream: Stream,
    ) |call| {
        let copy = flat(call, Place::Device(from), Place::Device(to), bytes)?;
        later(call, copy, stream)
    }

    fn cuMemcpy2D_v2 / cuMemcpy2D_v2_ptds(shape: In<Memcpy2d>) |call| {
        let copy = plane(call, &shape.get()?)?;
        now(call, &copy)
    }

    fn cuMemcpy2DUnaligned_v2 / cuMemcpy2DUnaligned_v2_ptds(shape: In<Memcpy2d>) |call| {
        let copy = plane(call, &shape.get()?)?;
        now(call, &copy)
    }

    fn cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz(shape: In<Memcpy2d>, stream: Stream) |call| {
        let copy = plane(call, &shape.get()?)?;
        later(call, copy, stream)
    }

    fn cuMemcpy3D_v2 / cuMemcpy3D_v2_ptds(shape: In<Memcpy3d>) |call| {
        let copy = volume(call, &shape.get()?)?;
        now(call, &copy)
    }

    fn cuMemcpy3DAsync_v2 / cuMemcpy3DAsync_v2_ptsz(shape: In<Memcpy3d>, stream: Stream) |call| {
        let copy = volume(call, &shape.get()?)?;
        later(call, copy, stream)
    }
}
