//! Fills of device memory. Counts are in elements, not bytes.

use crate::abi::{Code, Result, Stream};
use crate::device::{Set, Work};
use crate::driver::Call;
use crate::entry::entries;

/// `CU_GRAPH_NODE_TYPE_MEMSET`.
pub(super) const NODE: u32 = 2;

/// A checked fill.
pub(super) fn set(
    call: &mut Call<'_>,
    to: u64,
    pitch: usize,
    (value, element): (u32, usize),
    width: usize,
    height: usize,
) -> Result<Set> {
    if !to.is_multiple_of(element as u64) || height > 1 && pitch < width.saturating_mul(element) {
        return Err(Code::INVALID_VALUE);
    }
    let set = Set {
        context: call.driver().context()?,
        to,
        pitch,
        value,
        element,
        width,
        height,
    };
    call.driver().device_range(to, set.extent())?;
    Ok(set)
}

/// Fills now, in the order of the legacy default stream.
fn now(call: &mut Call<'_>, set: Set) -> Result {
    call.driver().no_capture_in(set.context)?;
    call.drain_blocking(set.context)?;
    set.perform().map_err(|misuse| call.driver().misuse(misuse))
}

fn later(call: &mut Call<'_>, set: Set, stream: Stream) -> Result {
    let lane = call.driver().lane_for_work(stream)?;
    call.driver().queue(lane, NODE, Work::Set(set))
}

entries! {
    fn cuMemsetD8_v2 / cuMemsetD8_v2_ptds(to: u64, value: u8, count: usize) |call| {
        let set = set(call, to, 0, (value.into(), 1), count, 1)?;
        now(call, set)
    }

    fn cuMemsetD16_v2 / cuMemsetD16_v2_ptds(to: u64, value: u16, count: usize) |call| {
        let set = set(call, to, 0, (value.into(), 2), count, 1)?;
        now(call, set)
    }

    fn cuMemsetD32_v2 / cuMemsetD32_v2_ptds(to: u64, value: u32, count: usize) |call| {
        let set = set(call, to, 0, (value, 4), count, 1)?;
        now(call, set)
    }

    fn cuMemsetD2D8_v2 / cuMemsetD2D8_v2_ptds(
        to: u64,
        pitch: usize,
        value: u8,
        width: usize,
        height: usize,
    ) |call| {
        let set = set(call, to, pitch, (value.into(), 1), width, height)?;
        now(call, set)
    }

    fn cuMemsetD2D16_v2 / cuMemsetD2D16_v2_ptds(
        to: u64,
        pitch: usize,
        value: u16,
        width: usize,
        height: usize,
    ) |call| {
        let set = set(call, to, pitch, (value.into(), 2), width, height)?;
        now(call, set)
    }

    fn cuMemsetD2D32_v2 / cuMemsetD2D32_v2_ptds(
        to: u64,
        pitch: usize,
        value: u32,
        width: usize,
        height: usize,
    ) |call| {
        let set = set(call, to, pitch, (value, 4), width, height)?;
        now(call, set)
    }

    fn cuMemsetD8Async / cuMemsetD8Async_ptsz(
        to: u64,
        value: u8,
        count: usize,
        stream: Stream,
    ) |call| {
        let set = set(call, to, 0, (value.into(), 1), count, 1)?;
        later(call, set, stream)
    }

    fn cuMemsetD16Async / cuMemsetD16Async_ptsz(
        to: u64,
        value: u16,
        count: usize,
        stream: Stream,
    ) |call| {
        let set = set(call, to, 0, (value.into(), 2), count, 1)?;
        later(call, set, stream)
    }

    fn cuMemsetD32Async / cuMemsetD32Async_ptsz(
        to: u64,
        value: u32,
        count: usize,
        stream: Stream,
    ) |call| {
        let set = set(call, to, 0, (value, 4), count, 1)?;
        later(call, set, stream)
    }

    fn cuMemsetD2D8Async / cuMemsetD2D8Async_ptsz(
        to: u64,
        pitch: usize,
        value: u8,
        width: usize,
        height: usize,
        stream: Stream,
    ) |call| {
        let set = set(call, to, pitch, (value.into(), 1), width, height)?;
        later(call, set, stream)
    }

    fn cuMemsetD2D16Async / cuMemsetD2D16Async_ptsz(
        to: u64,
        pitch: usize,
        value: u16,
        width: usize,
        height: usize,
        stream: Stream,
    ) |call| {
        let set = set(call, to, pitch, (value.into(), 2), width, height)?;
        later(call, set, stream)
    }

    fn cuMemsetD2D32Async / cuMemsetD2D32Async_ptsz(
        to: u64,
        pitch: usize,
        value: u32,
        width: usize,
        height: usize,
        stream: Stream,
    ) |call| {
        let set = set(call, to, pitch, (value, 4), width, height)?;
        later(call, set, stream)
    }
}
