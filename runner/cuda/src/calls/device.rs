//! Initialization and devices.

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::device::Device;
use crate::objects::Primary;
use crate::outcome::{CallResult, Failure, fail};

/// The version reported without a driver: that of the API here.
const OWN_VERSION: u64 = 13_000;
/// Size of the address space of a guest with 4-byte device pointers.
const ADDRESSABLE: u64 = 0xFFFF_0000;

/// Attributes that are reported as 0 because the feature is not supported here: shared addresses with the host, mapped
/// host memory, managed memory, peers, handles for other processes, and direct access by other devices.
const ABSENT: &[u32] = &[
    19, // CAN_MAP_HOST_MEMORY
    41, // UNIFIED_ADDRESSING
    83, // MANAGED_MEMORY
    84, // MULTI_GPU_BOARD
    88, // PAGEABLE_MEMORY_ACCESS
    89, // CONCURRENT_MANAGED_ACCESS
    91, // CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM
    92, 93, 94,  // stream memory operations
    100, // PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES
    101, // DIRECT_MANAGED_MEM_ACCESS_FROM_HOST
    102, // VIRTUAL_MEMORY_MANAGEMENT
    103, 104, 105, // handles for other processes
    110, // GPU_DIRECT_RDMA_WITH_CUDA_VMM
    116, 117, 118, // RDMA
    119, // MEMPOOL_SUPPORTED_HANDLE_TYPES
    122, 124, 125, // stream memory operations, IPC events
    132, // MULTICAST
    133, // MPS
    134, // HOST_NUMA
];

/// `cuInit`.
pub(crate) fn init(call: &mut Call<'_>, flags: u32) -> CallResult {
    if flags != 0 {
        return fail(Code::INVALID_VALUE);
    }
    if call.state.backend.is_some() {
        return Ok(());
    }
    let cuda = call.cuda.clone();
    let deadline = call.host.deadline();
    let backend = cuda.backend(|| {
        if call.host.is_interrupted()
            || deadline.is_some_and(|deadline| deadline <= std::time::Instant::now())
        {
            return Err(Failure::Stop(faas_wasm_engine::Stop::DEADLINE));
        }
        Ok(())
    })?;
    let devices = backend.devices.len();
    call.state.leases.resize_with(devices, || None);
    call.state.primaries.resize(devices, Primary::default());
    call.state.backend = Some(backend);
    call.state.watch = Some((cuda.watch(), cuda.due(deadline)));
    Ok(())
}

/// `cuDriverGetVersion`.
pub(crate) fn driver_version(call: &mut Call<'_>, version: Pointer) -> CallResult {
    let out = call.out(version, Kind::Int)?;
    let known = call
        .state
        .backend
        .as_ref()
        .map(|backend| backend.version as u64);
    call.store(out, known.unwrap_or(OWN_VERSION))
}

/// `cuDeviceGetCount`.
pub(crate) fn device_count(call: &mut Call<'_>, count: Pointer) -> CallResult {
    let backend = call.backend()?;
    let out = call.out(count, Kind::Int)?;
    call.store(out, backend.devices.len() as u64)
}

/// The device with a number in the guest's numbering.
pub(crate) fn find(call: &Call<'_>, device: i32) -> CallResult<Device> {
    let backend = call.backend()?;
    match usize::try_from(device)
        .ok()
        .and_then(|device| backend.devices.get(device))
    {
        Some(device) => Ok(device.clone()),
        None => fail(Code::INVALID_DEVICE),
    }
}

/// `cuDeviceGet`.
pub(crate) fn device_get(call: &mut Call<'_>, device: Pointer, ordinal: i32) -> CallResult {
    let out = call.out(device, Kind::Int)?;
    find(call, ordinal)?;
    call.store_int(out, ordinal)
}

/// `cuDeviceGetName`.
pub(crate) fn device_name(
    call: &mut Call<'_>,
    name: Pointer,
    length: i32,
    device: i32,
) -> CallResult {
    let device = find(call, device)?;
    let Some(room) = usize::try_from(length).ok().filter(|room| *room > 0) else {
        return fail(Code::INVALID_VALUE);
    };
    let text = device.name.as_bytes();
    let kept = text.len().min(room - 1);
    let bytes = call.bytes_mut(name, kept as u64 + 1)?;
    bytes[..kept].copy_from_slice(&text[..kept]);
    bytes[kept] = 0;
    Ok(())
}

/// `cuDeviceGetAttribute`.
pub(crate) fn device_attribute(
    call: &mut Call<'_>,
    value: Pointer,
    attribute: u32,
    device: i32,
) -> CallResult {
    let device = find(call, device)?;
    let out = call.out(value, Kind::Int)?;
    if ABSENT.contains(&attribute) {
        return call.store(out, 0);
    }
    let value = call
        .backend()?
        .driver
        .device_attribute(attribute, device.number)?;
    call.store_int(out, value)
}

/// `cuDeviceComputeCapability`.
pub(crate) fn compute_capability(
    call: &mut Call<'_>,
    major: Pointer,
    minor: Pointer,
    device: i32,
) -> CallResult {
    let device = find(call, device)?;
    let (major, minor) = (call.out(major, Kind::Int)?, call.out(minor, Kind::Int)?);
    call.store_int(major, device.capability.0)?;
    call.store_int(minor, device.capability.1)
}

/// `cuDeviceGetUuid` and `cuDeviceGetUuid_v2`.
pub(crate) fn device_uuid(call: &mut Call<'_>, uuid: Pointer, device: i32) -> CallResult {
    let device = find(call, device)?;
    call.bytes(uuid, 16)?;
    let value = call.backend()?.driver.device_uuid(device.number)?;
    call.bytes_mut(uuid, 16)?.copy_from_slice(&value);
    Ok(())
}

/// Limits a number of bytes to what the guest can use.
fn usable(call: &Call<'_>, bytes: u64) -> u64 {
    let bytes = bytes.min(call.cuda.settings().mem_limit);
    match call.abi.device_pointer {
        faas_wasm_artifact::Width::Four => bytes.min(ADDRESSABLE),
        faas_wasm_artifact::Width::Eight => bytes,
    }
}

/// `cuDeviceTotalMem_v2`.
pub(crate) fn device_total(call: &mut Call<'_>, bytes: Pointer, device: i32) -> CallResult {
    let device = find(call, device)?;
    let out = call.out(bytes, Kind::Size)?;
    let total = usable(call, device.total);
    call.store(out, total)
}

/// `cuMemGetInfo_v2`.
pub(crate) fn mem_info(call: &mut Call<'_>, free: Pointer, total: Pointer) -> CallResult {
    let outs = (call.out(free, Kind::Size)?, call.out(total, Kind::Size)?);
    let current = call.current()?;
    let backend = call.backend()?;
    let (free, _) = backend.driver.mem_info()?;
    let total = usable(call, backend.devices[current.device].total);
    let left = total.saturating_sub(call.state.used).min(free as u64);
    call.store(outs.0, left)?;
    call.store(outs.1, total)
}

/// `cuDeviceCanAccessPeer`: always 0.
pub(crate) fn can_access_peer(
    call: &mut Call<'_>,
    can: Pointer,
    device: i32,
    peer: i32,
) -> CallResult {
    find(call, device)?;
    find(call, peer)?;
    let out = call.out(can, Kind::Int)?;
    call.store(out, 0)
}
