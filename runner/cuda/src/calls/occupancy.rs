//! Occupancy queries.

use crate::arguments::{Kind, Pointer, Size};
use crate::call::Call;
use crate::code::Code;
use crate::handles::Handle;
use crate::outcome::{CallResult, fail};

use super::function;

/// `cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags`.
pub(crate) fn active_blocks_with_flags(
    call: &mut Call<'_>,
    blocks: Pointer,
    kernel: Handle,
    block_size: i32,
    shared: Size,
    flags: u32,
) -> CallResult {
    let out = call.out(blocks, Kind::Int)?;
    let (_, object) = function::find(call, kernel)?;
    let backend = call.backend()?;
    let blocks =
        backend
            .driver
            .occupancy_blocks(object.function, block_size, shared.0 as usize, flags)?;
    call.store_int(out, blocks)
}

/// `cuOccupancyMaxActiveBlocksPerMultiprocessor`.
pub(crate) fn active_blocks(
    call: &mut Call<'_>,
    blocks: Pointer,
    kernel: Handle,
    block_size: i32,
    shared: Size,
) -> CallResult {
    active_blocks_with_flags(call, blocks, kernel, block_size, shared, 0)
}

/// `cuOccupancyAvailableDynamicSMemPerBlock`.
pub(crate) fn available_shared(
    call: &mut Call<'_>,
    shared: Pointer,
    kernel: Handle,
    blocks: i32,
    block_size: i32,
) -> CallResult {
    let out = call.out(shared, Kind::Size)?;
    let (_, object) = function::find(call, kernel)?;
    let shared = call
        .backend()?
        .driver
        .occupancy_shared(object.function, blocks, block_size)?;
    call.store(out, shared as u64)
}

/// `cuOccupancyMaxPotentialBlockSizeWithFlags`. Callbacks are not supported, as the driver cannot call guest code.
#[allow(clippy::too_many_arguments, reason = "the driver's signature")]
pub(crate) fn block_size_with_flags(
    call: &mut Call<'_>,
    grid: Pointer,
    block: Pointer,
    kernel: Handle,
    callback: Pointer,
    shared: Size,
    limit: i32,
    flags: u32,
) -> CallResult {
    if !callback.is_null() {
        return fail(Code::NOT_SUPPORTED);
    }
    let outs = (call.out(grid, Kind::Int)?, call.out(block, Kind::Int)?);
    let (_, object) = function::find(call, kernel)?;
    let backend = call.backend()?;
    let (grid, block) =
        backend
            .driver
            .occupancy_block_size(object.function, shared.0 as usize, limit, flags)?;
    call.store_int(outs.0, grid)?;
    call.store_int(outs.1, block)
}

/// `cuOccupancyMaxPotentialBlockSize`.
pub(crate) fn block_size(
    call: &mut Call<'_>,
    grid: Pointer,
    block: Pointer,
    kernel: Handle,
    callback: Pointer,
    shared: Size,
    limit: i32,
) -> CallResult {
    block_size_with_flags(call, grid, block, kernel, callback, shared, limit, 0)
}
