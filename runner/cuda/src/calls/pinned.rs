//! `cuMemAllocHost` and related functions: blocks of guest memory.
//!
//! A block is whole pages at the end of guest memory, reused after it is freed. Guest memory is not page-locked: all
//! copies go through a page-locked staging buffer. Registering guest memory only records the range.

use crate::arguments::{Kind, Pointer, Size};
use crate::call::Call;
use crate::code::Code;
use crate::outcome::{CallResult, fail};

const PAGE: u64 = 64 << 10;
/// `CU_MEMHOSTALLOC_DEVICEMAP` and `CU_MEMHOSTREGISTER_DEVICEMAP`.
const DEVICE_MAP: u32 = 2;
/// Most registered ranges of one instance.
const MOST_REGISTERED: usize = 4096;

fn allocate(call: &mut Call<'_>, pointer: Pointer, bytes: Size) -> CallResult {
    let out = call.out(pointer, Kind::Pointer)?;
    if bytes.0 == 0 {
        return fail(Code::INVALID_VALUE);
    }
    let Ok(pages) = u32::try_from(bytes.0.div_ceil(PAGE)) else {
        return fail(Code::OUT_OF_MEMORY);
    };
    let blocks = &mut call.state.host_blocks;
    let fitting = blocks
        .free
        .iter()
        .enumerate()
        .filter(|(_, (_, free))| *free >= pages);
    let best = fitting.min_by_key(|(_, (_, free))| *free).map(|(at, _)| at);
    let (base, pages) = match best {
        Some(at) => blocks.free.swap_remove(at),
        None => match call.host.grow(pages) {
            Some(page) => (page << 16, pages),
            None => return fail(Code::OUT_OF_MEMORY),
        },
    };
    call.state.host_blocks.live.insert(base, pages);
    call.store(out, u64::from(base))
}

/// `cuMemAllocHost_v2`.
pub(crate) fn mem_alloc_host(call: &mut Call<'_>, pointer: Pointer, bytes: Size) -> CallResult {
    call.current()?;
    allocate(call, pointer, bytes)
}

/// `cuMemHostAlloc`.
pub(crate) fn mem_host_alloc(
    call: &mut Call<'_>,
    pointer: Pointer,
    bytes: Size,
    flags: u32,
) -> CallResult {
    call.current()?;
    if flags & DEVICE_MAP != 0 {
        return fail(Code::NOT_SUPPORTED);
    }
    allocate(call, pointer, bytes)
}

/// `cuMemFreeHost`.
pub(crate) fn mem_free_host(call: &mut Call<'_>, pointer: Pointer) -> CallResult {
    call.current()?;
    let blocks = &mut call.state.host_blocks;
    let base = u32::try_from(pointer.0).ok();
    match base.and_then(|base| Some((base, blocks.live.remove(&base)?))) {
        Some(block) => {
            blocks.free.push(block);
            Ok(())
        }
        None => fail(Code::INVALID_VALUE),
    }
}

/// `cuMemHostGetFlags`.
pub(crate) fn mem_host_flags(call: &mut Call<'_>, flags: Pointer, pointer: Pointer) -> CallResult {
    let out = call.out(flags, Kind::Int)?;
    let base = u32::try_from(pointer.0).ok();
    match base.is_some_and(|base| call.state.host_blocks.live.contains_key(&base)) {
        true => call.store(out, 0),
        false => fail(Code::INVALID_VALUE),
    }
}

/// `cuMemHostRegister_v2`.
pub(crate) fn mem_host_register(
    call: &mut Call<'_>,
    pointer: Pointer,
    bytes: Size,
    flags: u32,
) -> CallResult {
    call.current()?;
    if flags & DEVICE_MAP != 0 {
        return fail(Code::NOT_SUPPORTED);
    }
    call.bytes(pointer, bytes.0)?;
    if bytes.0 == 0 {
        return fail(Code::INVALID_VALUE);
    }
    let registered = &mut call.state.host_blocks.registered;
    let before = registered.range(..pointer.0 + bytes.0).next_back();
    if before.is_some_and(|(base, length)| base + length > pointer.0) {
        return fail(Code::HOST_MEMORY_ALREADY_REGISTERED);
    }
    if registered.len() >= MOST_REGISTERED {
        return fail(Code::OUT_OF_MEMORY);
    }
    registered.insert(pointer.0, bytes.0);
    Ok(())
}

/// `cuMemHostUnregister`.
pub(crate) fn mem_host_unregister(call: &mut Call<'_>, pointer: Pointer) -> CallResult {
    call.current()?;
    match call.state.host_blocks.registered.remove(&pointer.0) {
        Some(_) => Ok(()),
        None => fail(Code::HOST_MEMORY_NOT_REGISTERED),
    }
}
