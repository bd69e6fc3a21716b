//! Occupancy: how many blocks fit on a multiprocessor, based only on threads and shared memory.

use super::device::{BLOCKS_PER_MULTIPROCESSOR, MAX_THREADS, THREADS_PER_MULTIPROCESSOR};
use super::function::resolve;
use crate::abi::{Code, Host, Out, Result};
use crate::driver::Call;
use crate::entry::entries;

/// Shared memory of a multiprocessor that blocks can use.
const SHARED: u32 = 227 << 10;

/// The number of blocks of a size that run concurrently on one multiprocessor.
pub(super) fn blocks(threads: u32, shared: u32) -> u32 {
    let warps = threads.div_ceil(32).max(1) * 32;
    let by_threads = THREADS_PER_MULTIPROCESSOR / warps;
    let by_shared = SHARED.checked_div(shared).unwrap_or(u32::MAX);
    by_threads.min(by_shared).min(BLOCKS_PER_MULTIPROCESSOR)
}

fn active(
    call: &mut Call<'_>,
    out: Out<i32>,
    function: u64,
    threads: i32,
    shared: usize,
) -> Result {
    let out = out.required()?;
    resolve(call, function)?;
    let threads = u32::try_from(threads)
        .ok()
        .filter(|threads| (1..=MAX_THREADS).contains(threads));
    let shared = u32::try_from(shared).or(Err(Code::INVALID_VALUE))?;
    out.put(blocks(threads.ok_or(Code::INVALID_VALUE)?, shared) as i32);
    Ok(())
}

fn potential(
    call: &mut Call<'_>,
    (grid, block): (Out<i32>, Out<i32>),
    function: u64,
    callback: usize,
    shared: usize,
    limit: i32,
) -> Result {
    let (grid, block) = (grid.required()?, block.required()?);
    resolve(call, function)?;
    if callback != 0 {
        call.driver()
            .violation("a callback for the shared memory of a block".to_owned());
        return Err(Code::NOT_SUPPORTED);
    }
    let shared = u32::try_from(shared).or(Err(Code::INVALID_VALUE))?;
    let threads = if limit > 0 { limit.min(1024) } else { 1024 };
    block.put(threads);
    grid.put(blocks(threads as u32, shared) as i32 * super::device::MULTIPROCESSORS);
    Ok(())
}

entries! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        count: Out<i32>,
        function: u64,
        threads: i32,
        shared: usize,
    ) |call| {
        active(call, count, function, threads, shared)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        count: Out<i32>,
        function: u64,
        threads: i32,
        shared: usize,
        flags: u32,
    ) |call| {
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        active(call, count, function, threads, shared)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        size: Out<usize>,
        function: u64,
        wanted: i32,
        threads: i32,
    ) |call| {
        let out = size.required()?;
        resolve(call, function)?;
        let wanted = u32::try_from(wanted).ok().filter(|wanted| *wanted > 0);
        let wanted = wanted.ok_or(Code::INVALID_VALUE)?;
        let threads = u32::try_from(threads).or(Err(Code::INVALID_VALUE))?;
        if wanted > blocks(threads, 0) {
            return Err(Code::INVALID_VALUE);
        }
        out.put((SHARED / wanted) as usize);
        Ok(())
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>,
        block: Out<i32>,
        function: u64,
        callback: Host,
        shared: usize,
        limit: i32,
    ) |call| {
        potential(call, (grid, block), function, callback.0, shared, limit)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>,
        block: Out<i32>,
        function: u64,
        callback: Host,
        shared: usize,
        limit: i32,
        flags: u32,
    ) |call| {
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        potential(call, (grid, block), function, callback.0, shared, limit)
    }
}
