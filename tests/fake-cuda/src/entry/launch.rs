//! Kernel launches.

use super::device::{MAX_BLOCK, MAX_GRID, MAX_SHARED, MAX_THREADS};
use super::function::resolve;
use crate::abi::layout::{LaunchAttribute, LaunchConfig};
use crate::abi::{Code, Host, In, Result, Stream};
use crate::device::Work;
use crate::driver::{Call, Program, trace};
use crate::entry::entries;
use crate::exec::Launch;

/// `CU_GRAPH_NODE_TYPE_KERNEL`.
pub(super) const NODE: u32 = 0;
/// Maximum size of a kernel's parameters in bytes, since CUDA 12.1.
const MOST_PARAMETERS: usize = 32_764;
/// `CU_LAUNCH_PARAM_BUFFER_POINTER` and `_SIZE`, in the list `extra`.
const EXTRA_END: u64 = 0;
const EXTRA_BUFFER: u64 = 1;
const EXTRA_SIZE: u64 = 2;
/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
const ATTRIBUTE_COOPERATIVE: u32 = 2;

/// Grid, block, and shared memory of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared: u32,
}

/// Collects a kernel's parameters from the caller: from an array of pointers, or from a buffer in the kernel's
/// layout.
fn parameters(layout: &[(usize, usize)], pointers: Host, extra: Host) -> Result<Vec<u8>> {
    let size = layout
        .iter()
        .map(|(offset, size)| offset + size)
        .max()
        .unwrap_or(0);
    if size > MOST_PARAMETERS || !pointers.is_null() && !extra.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    let mut bytes = vec![0; size];
    if !pointers.is_null() {
        for (index, (offset, size)) in layout.iter().enumerate() {
            let parameter = Host(pointers.word(index) as usize);
            if parameter.is_null() {
                return Err(Code::INVALID_VALUE);
            }
            parameter.read(&mut bytes[*offset..offset + size]);
        }
    } else if !extra.is_null() {
        let (mut buffer, mut length) = (Host(0), 0);
        for pair in 0.. {
            match extra.word(pair * 2) {
                EXTRA_END => break,
                EXTRA_BUFFER => buffer = Host(extra.word(pair * 2 + 1) as usize),
                EXTRA_SIZE => length = Host(extra.word(pair * 2 + 1) as usize).word(0) as usize,
                _ => return Err(Code::INVALID_VALUE),
            }
        }
        if buffer.is_null() || length < size {
            return Err(Code::INVALID_VALUE);
        }
        buffer.read(&mut bytes);
    } else if size > 0 {
        return Err(Code::INVALID_VALUE);
    }
    Ok(bytes)
}

/// Checks a launch. The trace shows its parameters as the device sees them.
pub(super) fn prepare(
    call: &mut Call<'_>,
    function: u64,
    shape: Shape,
    pointers: Host,
    extra: Host,
) -> Result<Work> {
    let function = resolve(call, function)?;
    let context = call.driver().context()?;
    let object = call
        .driver()
        .functions
        .get(function)
        .ok_or(Code::INVALID_HANDLE)?;
    let opted_in = object
        .attributes
        .get(&8)
        .copied()
        .unwrap_or(0)
        .max(MAX_SHARED as i32);
    let (module, name) = (object.module, object.name.clone());
    let bytes = parameters(&object.parameters, pointers, extra)?;
    let within = |sizes: [u32; 3], limits: [u32; 3]| {
        sizes
            .iter()
            .zip(limits)
            .all(|(size, limit)| (1..=limit).contains(size))
    };
    let threads: u64 = shape.block.iter().map(|size| u64::from(*size)).product();
    if !within(shape.grid, MAX_GRID)
        || !within(shape.block, MAX_BLOCK)
        || threads > u64::from(MAX_THREADS)
        || shape.shared > opted_in as u32
    {
        return Err(Code::INVALID_VALUE);
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    trace(
        call.driver(),
        &format!(
            "launch {name} {:?} {:?} {} {hex}\n",
            shape.grid, shape.block, shape.shared
        ),
    );
    let module = call
        .driver()
        .modules
        .get(module)
        .ok_or(Code::INVALID_HANDLE)?;
    let Program::Text(code) = &module.program else {
        // Machine code cannot be run here, but the trace shows the parameters.
        return Err(Code::NOT_SUPPORTED);
    };
    let code = std::sync::Arc::clone(code);
    let entry = code.entry(&name).ok_or(Code::NOT_FOUND)?;
    let declared = &code.program.functions[entry];
    if declared.max_threads.is_some_and(|most| threads > most) {
        return Err(Code::LAUNCH_OUT_OF_RESOURCES);
    }
    if code.program.shared_size + shape.shared as usize > opted_in as usize {
        return Err(Code::INVALID_VALUE);
    }
    Ok(Work::Kernel(Launch {
        code,
        entry,
        context,
        grid: shape.grid,
        block: shape.block,
        shared: shape.shared,
        parameters: bytes.into(),
    }))
}

fn launch(
    call: &mut Call<'_>,
    function: u64,
    shape: Shape,
    stream: Stream,
    pointers: Host,
    extra: Host,
) -> Result {
    let lane = call.driver().lane_for_work(stream)?;
    let work = prepare(call, function, shape, pointers, extra)?;
    call.wait(|driver| {
        let lane = driver.lanes.get(&lane);
        let is_full = lane.is_some_and(|lane| lane.queue.len() >= driver.settings.queue);
        (!is_full).then_some(())
    });
    call.driver().queue(lane, NODE, work)
}

/// Checks a cooperative launch: all blocks must fit on the device at once.
fn cooperative(shape: Shape) -> Result {
    let blocks: u64 = shape.grid.iter().map(|size| u64::from(*size)).product();
    let each = super::occupancy::blocks(shape.block.iter().product(), shape.shared);
    if blocks > u64::from(each) * super::device::MULTIPROCESSORS as u64 {
        return Err(Code::COOPERATIVE_LAUNCH_TOO_LARGE);
    }
    Ok(())
}

entries! {
    fn cuLaunchKernel / cuLaunchKernel_ptsz(
        function: u64,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Stream,
        parameters: Host,
        extra: Host,
    ) |call| {
        let shape = Shape {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared,
        };
        launch(call, function, shape, stream, parameters, extra)
    }

    fn cuLaunchCooperativeKernel / cuLaunchCooperativeKernel_ptsz(
        function: u64,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Stream,
        parameters: Host,
    ) |call| {
        let shape = Shape {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared,
        };
        cooperative(shape)?;
        launch(call, function, shape, stream, parameters, Host(0))
    }

    fn cuLaunchKernelEx(
        config: In<LaunchConfig>,
        function: u64,
        parameters: Host,
        extra: Host,
    ) |call| {
        launch_ex(call, config, function, parameters, extra, false)
    }

    fn cuLaunchKernelEx_ptsz(
        config: In<LaunchConfig>,
        function: u64,
        parameters: Host,
        extra: Host,
    ) |call| {
        launch_ex(call, config, function, parameters, extra, true)
    }
}

fn launch_ex(
    call: &mut Call<'_>,
    config: In<LaunchConfig>,
    function: u64,
    parameters: Host,
    extra: Host,
    per_thread: bool,
) -> Result {
    let config = config.get()?;
    let shape = Shape {
        grid: config.grid,
        block: config.block,
        shared: config.shared,
    };
    for index in 0..config.attribute_count as usize {
        let at = Host(config.attributes).plus(index * size_of::<LaunchAttribute>());
        if at.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        let (id, value) = (at.word32() as u32, at.plus(8).word32());
        if id == ATTRIBUTE_COOPERATIVE && value != 0 {
            cooperative(shape)?;
        }
    }
    let stream = match config.stream {
        0 if per_thread => Stream::PER_THREAD,
        stream => stream,
    };
    launch(call, function, shape, Stream(stream), parameters, extra)
}
