//! Kernel launches: copies the guest's parameters to a buffer in the kernel's layout and translates device pointers.
//!
//! The driver reads the parameters from a buffer of the host. Parameters that are not pointers are copied unchanged,
//! and with 8-byte device pointers all parameters are. A kernel can compute any address; only its context bounds what
//! it can access.

use faas_wasm_artifact::Width;

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::device::Device;
use crate::driver::{Arguments, LaunchAttribute, LaunchShape};
use crate::handles::Handle;
use crate::layout::Fields;
use crate::objects::FunctionObject;
use crate::outcome::{CallResult, fail};
use crate::parameters::{Layout, Parameter, Role};

use super::function;

/// Terminator and keys of the array `extra`.
const END: u64 = 0;
const BUFFER: u64 = 1;
const BUFFER_SIZE: u64 = 2;
/// Most attributes of a launch.
const MOST_ATTRIBUTES: u32 = 16;
/// Launch attributes that affect only the launch: ignored, cooperative, cluster dimension, cluster scheduling,
/// programmatic stream serialization, priority, preferred cluster dimension, shared memory carve-out.
const ATTRIBUTES: &[u32] = &[0, 2, 4, 5, 6, 8, 11, 14];

/// Checks a launch against the limits of the device, as the driver does.
fn check(device: &Device, shape: LaunchShape) -> CallResult {
    let within = |values: [u32; 3], limits: [u32; 3]| {
        values
            .iter()
            .zip(limits)
            .all(|(value, limit)| *value > 0 && *value <= limit)
    };
    let threads = shape
        .block
        .iter()
        .try_fold(1u32, |product, length| product.checked_mul(*length));
    let fits = threads.is_some_and(|threads| threads <= device.max_threads);
    match within(shape.grid, device.max_grid)
        && within(shape.block, device.max_block)
        && fits
        && shape.shared <= device.max_shared
    {
        true => Ok(()),
        false => fail(Code::INVALID_VALUE),
    }
}

/// Writes a parameter to its place in the buffer. `value` is the guest's representation.
fn translated(
    call: &Call<'_>,
    parameter: Parameter,
    value: u64,
    is_pointer: bool,
) -> CallResult<u64> {
    match call.state.addresses.translate_pointer(value) {
        Some(real) => Ok(real),
        None if is_pointer => fail(Code::INVALID_VALUE),
        None => {
            debug_assert!(parameter.size == 8);
            Ok(value)
        }
    }
}

/// Packs parameters from the guest's array of pointers to them.
fn pack(call: &mut Call<'_>, layout: &Layout, parameters: Pointer) -> CallResult {
    let four = call.abi.device_pointer == Width::Four;
    let mut arguments = std::mem::take(&mut call.state.arguments);
    let result = (|| {
        prepare(&mut arguments, layout);
        for (index, parameter) in layout.parameters.iter().enumerate() {
            let at = Pointer(call.load_element(parameters, index as u64, Kind::Pointer)?);
            let range = parameter.offset..parameter.offset + parameter.size;
            let bytes = &mut arguments.bytes_mut()[range];
            match parameter.role {
                Role::Pointer if four => {
                    let value = call.load(at, Kind::Int)?;
                    bytes
                        .copy_from_slice(&translated(call, *parameter, value, true)?.to_le_bytes());
                }
                Role::Unknown if four => {
                    // The upper half is valid only if the parameter is a number.
                    let low = call.load(at, Kind::Int)?;
                    let value = match call.state.addresses.find(low) {
                        Some(_) => translated(call, *parameter, low, true)?,
                        None => call.load(at, Kind::Long)?,
                    };
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
                _ => bytes.copy_from_slice(call.bytes(at, parameter.size as u64)?),
            }
        }
        Ok(())
    })();
    call.state.arguments = arguments;
    result
}

/// Packs parameters from a buffer in the kernel's layout, given by `extra`.
fn pack_buffer(call: &mut Call<'_>, layout: &Layout, extra: Pointer) -> CallResult {
    let (mut buffer, mut size) = (None, None);
    let mut index = 0;
    loop {
        let key = call.load_element(extra, index, Kind::Pointer)?;
        if key == END {
            break;
        }
        let value = Pointer(call.load_element(extra, index + 1, Kind::Pointer)?);
        match key {
            BUFFER => buffer = Some(value),
            BUFFER_SIZE => size = Some(call.load(value, Kind::Size)?),
            _ => return fail(Code::INVALID_VALUE),
        }
        index += 2;
        if index > 8 {
            return fail(Code::INVALID_VALUE);
        }
    }
    let (Some(buffer), Some(size)) = (buffer, size) else {
        return fail(Code::INVALID_VALUE);
    };
    if size < layout.size as u64 {
        return fail(Code::INVALID_VALUE);
    }
    let four = call.abi.device_pointer == Width::Four;
    let mut arguments = std::mem::take(&mut call.state.arguments);
    let result = (|| {
        prepare(&mut arguments, layout);
        // Check the whole buffer that the guest declares, even if the kernel's layout is shorter.
        let given = &call.bytes(buffer, size)?[..layout.size];
        arguments.bytes_mut()[..layout.size].copy_from_slice(given);
        for parameter in layout
            .parameters
            .iter()
            .filter(|parameter| four && parameter.role != Role::Value)
        {
            let range = parameter.offset..parameter.offset + 8;
            let bytes = &mut arguments.bytes_mut()[range];
            let value = u64::from_le_bytes(bytes.try_into().map_err(|_| Code::INVALID_VALUE)?);
            let real = translated(call, *parameter, value, parameter.role == Role::Pointer)?;
            bytes.copy_from_slice(&real.to_le_bytes());
        }
        Ok(())
    })();
    call.state.arguments = arguments;
    result
}

fn prepare(arguments: &mut Arguments, layout: &Layout) {
    arguments.buffer.clear();
    arguments.buffer.resize(layout.size.div_ceil(8), 0);
    arguments.offsets.clear();
    arguments
        .offsets
        .extend(layout.parameters.iter().map(|parameter| parameter.offset));
}

/// Finds a kernel, checks the launch, and packs its parameters, for a launch or a graph node.
pub(crate) fn prepared(
    call: &mut Call<'_>,
    kernel: Handle,
    shape: LaunchShape,
    parameters: Pointer,
    extra: Pointer,
) -> CallResult<FunctionObject> {
    let (handle, object) = function::find(call, kernel)?;
    let backend = call.backend()?;
    let device = call
        .state
        .device_of(object.context)
        .ok_or(Code::INVALID_CONTEXT)?;
    check(&backend.devices[device], shape)?;
    let layout = function::layout(call, handle, &object)?;
    if layout.is_uncertain()
        && call.cuda.settings().strict_params
        && call.abi.device_pointer == Width::Four
    {
        return fail(Code::NOT_SUPPORTED);
    }
    match (parameters.is_null(), extra.is_null()) {
        (false, false) => fail(Code::INVALID_VALUE),
        (true, true) if layout.parameters.is_empty() => {
            prepare(&mut call.state.arguments, &layout);
            Ok(())
        }
        (true, true) => fail(Code::INVALID_VALUE),
        (false, true) => pack(call, &layout, parameters),
        (true, false) => pack_buffer(call, &layout, extra),
    }?;
    Ok(object)
}

fn launch(
    call: &mut Call<'_>,
    kernel: Handle,
    shape: LaunchShape,
    stream: Handle,
    parameters: Pointer,
    extra: Pointer,
    cooperative: bool,
) -> CallResult {
    let object = prepared(call, kernel, shape, parameters, extra)?;
    let named = call.ordered_stream(stream)?;
    if call.state.device_of(object.context) != Some(named.current.device) {
        return fail(Code::INVALID_HANDLE);
    }
    let backend = call.backend()?;
    call.make_room(&backend.driver, named.current)?;
    let arguments = &mut call.state.arguments;
    Ok(backend
        .driver
        .launch(object.function, shape, named.stream, arguments, cooperative)?)
}

/// `cuLaunchKernel`.
#[allow(clippy::too_many_arguments, reason = "the driver's signature")]
pub(crate) fn launch_kernel(
    call: &mut Call<'_>,
    kernel: Handle,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: Handle,
    parameters: Pointer,
    extra: Pointer,
) -> CallResult {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    launch(
        call,
        kernel,
        LaunchShape {
            grid,
            block,
            shared,
        },
        stream,
        parameters,
        extra,
        false,
    )
}

/// `cuLaunchCooperativeKernel`.
#[allow(clippy::too_many_arguments, reason = "the driver's signature")]
pub(crate) fn launch_cooperative(
    call: &mut Call<'_>,
    kernel: Handle,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: Handle,
    parameters: Pointer,
) -> CallResult {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    launch(
        call,
        kernel,
        LaunchShape {
            grid,
            block,
            shared,
        },
        stream,
        parameters,
        Pointer(0),
        true,
    )
}

/// `cuLaunchKernelEx`.
pub(crate) fn launch_ex(
    call: &mut Call<'_>,
    config: Pointer,
    kernel: Handle,
    parameters: Pointer,
    extra: Pointer,
) -> CallResult {
    let mut fields = Fields::of(config);
    let (grid, block) = (fields.three(call)?, fields.three(call)?);
    let shared = fields.next(call, Kind::Int)? as u32;
    let stream = Handle(fields.next(call, Kind::Handle)?);
    let list = Pointer(fields.next(call, Kind::Pointer)?);
    let count = fields.next(call, Kind::Int)? as u32;
    if count > MOST_ATTRIBUTES {
        return fail(Code::INVALID_VALUE);
    }
    let mut attributes = Vec::new();
    for index in 0..u64::from(count) {
        // A number, and 64 bytes of value at offset 8, both in guests and in the driver.
        let bytes = call.bytes(list.plus(index * size_of::<LaunchAttribute>() as u64), 72)?;
        let id = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let mut value = [0; 64];
        value.copy_from_slice(&bytes[8..]);
        if !ATTRIBUTES.contains(&id) {
            return fail(Code::NOT_SUPPORTED);
        }
        attributes.push(LaunchAttribute {
            id,
            padding: 0,
            value,
        });
    }
    let shape = LaunchShape {
        grid,
        block,
        shared,
    };
    if attributes.is_empty() {
        return launch(call, kernel, shape, stream, parameters, extra, false);
    }
    let object = prepared(call, kernel, shape, parameters, extra)?;
    let named = call.ordered_stream(stream)?;
    if call.state.device_of(object.context) != Some(named.current.device) {
        return fail(Code::INVALID_HANDLE);
    }
    let backend = call.backend()?;
    call.make_room(&backend.driver, named.current)?;
    let arguments = &mut call.state.arguments;
    Ok(backend
        .driver
        .launch_with(object.function, shape, named.stream, &attributes, arguments)?)
}
