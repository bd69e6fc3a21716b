//! The names under which guests import the functions, and stubs for those that are not provided.
//!
//! A name in brackets is the variant for which stream 0 is the per-thread default stream. Functions that have another
//! name in newer headers are listed with both names.

use std::sync::Arc;
use std::time::Instant;

use faas_wasm_artifact::CudaAbi;
use faas_wasm_engine::{Caller, Linker, Stop};

use crate::arguments::{Argument, Device, Kind, Pointer, Size};
use crate::call::Call;
use crate::calls::*;
use crate::code::Code;
use crate::handles::Handle;
use crate::host::{FileProblem, GuestHost};
use crate::imports::{Imports, declaration};
use crate::instance::{Instance, State};
use crate::outcome::{CallResult, Failure};
use crate::service::Cuda;
use crate::settings::Level;

/// The module that the functions are imported from.
const MODULE: &str = "env";

/// The embedder's state of a run with CUDA.
pub trait CudaHost {
    /// The CUDA of the running instance; `None` if it has none.
    fn cuda(&mut self) -> Option<&mut Instance>;

    /// Reads a file from the guest's file system.
    ///
    /// # Errors
    ///
    /// [`FileProblem`].
    fn read_file(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, FileProblem>;
}

impl<T: CudaHost> GuestHost for Caller<'_, T> {
    fn bytes(&self, offset: u32, length: u32) -> Option<&[u8]> {
        self.memory.slice(offset, length).ok()
    }

    fn bytes_mut(&mut self, offset: u32, length: u32) -> Option<&mut [u8]> {
        self.memory.slice_mut(offset, length).ok()
    }

    fn memory_size(&self) -> u64 {
        self.memory.size() as u64
    }

    fn grow(&mut self, pages: u32) -> Option<u32> {
        self.grow_memory(pages)
    }

    fn read_file(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, FileProblem> {
        self.data.read_file(path, limit)
    }

    fn deadline(&self) -> Option<Instant> {
        Caller::deadline(self)
    }

    fn is_interrupted(&self) -> bool {
        Caller::is_interrupted(self)
    }
}

/// Runs a function for a guest.
fn enter<T: CudaHost>(
    caller: &mut Caller<'_, T>,
    always: bool,
    per_thread: bool,
    function: impl FnOnce(&mut Call<'_>) -> CallResult,
) -> Result<i32, Stop> {
    let Some(instance) = caller.data.cuda() else {
        return Ok(Code::NOT_INITIALIZED.0 as i32);
    };
    let (cuda, imports) = (Arc::clone(&instance.cuda), Arc::clone(&instance.imports));
    let mut state = instance.take_state();
    let result = run(
        &cuda, &imports, &mut state, caller, always, per_thread, function,
    );
    if let Some(instance) = caller.data.cuda() {
        instance.put_state(state);
    }
    result
}

/// The same for an instance whose state is already taken.
pub(crate) fn run(
    cuda: &Arc<Cuda>,
    imports: &Imports,
    state: &mut State,
    host: &mut dyn GuestHost,
    always: bool,
    per_thread: bool,
    function: impl FnOnce(&mut Call<'_>) -> CallResult,
) -> Result<i32, Stop> {
    if let Some(code) = state.poisoned.filter(|_| !always) {
        return Ok(code.0 as i32);
    }
    let mut call = Call {
        cuda,
        imports,
        abi: imports.abi,
        state,
        host,
        per_thread,
    };
    if let Some((watch, due)) = &call.state.watch {
        watch.begin(*due);
    }
    let result = function(&mut call);
    if let Some((watch, _)) = &call.state.watch {
        watch.end();
    }
    match result {
        Ok(()) => Ok(0),
        Err(Failure::Code(code)) => {
            if code.is_sticky() {
                call.state.poison(code);
            }
            Ok(code.0 as i32)
        }
        Err(Failure::Stop(stop)) => Err(stop),
    }
}

/// Functions that also work after a fault.
fn works_always(name: &str) -> bool {
    matches!(
        name,
        "cuGetErrorName" | "cuGetErrorString" | "cuDriverGetVersion"
    )
}

macro_rules! functions {
    ($($symbol:ident $(| $other:ident)* $([$variant:ident])? ($($argument:ident: $ty:ty),*) => $function:path;)*) => {
        /// Provides a function. Returns `false` if there is none with that name.
        fn provide<T: CudaHost + 'static>(linker: &mut Linker<T>, name: &str, abi: CudaAbi) -> bool {
            match name {
                $(stringify!($symbol) $(| stringify!($other))* $(| stringify!($variant))? => {
                    #[allow(clippy::too_many_arguments, reason = "the driver's signatures")]
                    fn shim<T: CudaHost + 'static, const PER_THREAD: bool>(
                        caller: &mut Caller<'_, T>,
                        $($argument: u64),*
                    ) -> Result<i32, Stop> {
                        let always = works_always(stringify!($symbol));
                        enter(caller, always, PER_THREAD, |call| {
                            $function(call, $(<$ty as Argument>::from_register($argument, call.abi)),*)
                        })
                    }
                    let parameters = vec![$(<$ty as Argument>::KIND.value_type(abi)),*];
                    if false $(|| name == stringify!($variant))? {
                        linker.integer_function(MODULE, name.to_owned(), parameters, shim::<T, true>);
                    } else {
                        linker.integer_function(MODULE, name.to_owned(), parameters, shim::<T, false>);
                    }
                    true
                })*
                _ => false,
            }
        }

        /// Names and parameters of all functions.
        #[cfg(test)]
        pub(crate) const FUNCTIONS: &[(&[&str], &[Kind])] = &[$((
            &[stringify!($symbol), $(stringify!($other),)* $(stringify!($variant))?],
            &[$(<$ty as Argument>::KIND),*],
        )),*];

        /// Calls a function by its name, for tests.
        #[cfg(test)]
        pub(crate) fn invoke(
            cuda: &Arc<Cuda>,
            imports: &Imports,
            state: &mut State,
            host: &mut dyn GuestHost,
            name: &str,
            arguments: &[u64],
        ) -> Result<i32, Stop> {
            match name {
                $(stringify!($symbol) $(| stringify!($other))* $(| stringify!($variant))? => {
                    let variant = false $(|| name == stringify!($variant))?;
                    run(cuda, imports, state, host, works_always(name), variant, |call| {
                        let mut rest = arguments.iter().copied();
                        let _ = &mut rest;
                        $(let $argument = <$ty as Argument>::from_register(rest.next().unwrap_or(0), call.abi);)*
                        $function(call, $($argument),*)
                    })
                })*
                _ => panic!("no function {name}"),
            }
        }
    };
}

functions! {
    cuInit(flags: u32) => device::init;
    cuDriverGetVersion(version: Pointer) => device::driver_version;
    cuGetErrorName(error: u32, text: Pointer) => error::error_name;
    cuGetErrorString(error: u32, text: Pointer) => error::error_string;

    cuDeviceGetCount(count: Pointer) => device::device_count;
    cuDeviceGet(device: Pointer, ordinal: i32) => device::device_get;
    cuDeviceGetName(name: Pointer, length: i32, device: i32) => device::device_name;
    cuDeviceGetAttribute(value: Pointer, attribute: u32, device: i32) => device::device_attribute;
    cuDeviceComputeCapability(major: Pointer, minor: Pointer, device: i32) => device::compute_capability;
    cuDeviceGetUuid | cuDeviceGetUuid_v2(uuid: Pointer, device: i32) => device::device_uuid;
    cuDeviceTotalMem_v2(bytes: Pointer, device: i32) => device::device_total;
    cuDeviceCanAccessPeer(can: Pointer, device: i32, peer: i32) => device::can_access_peer;
    cuDeviceGetDefaultMemPool | cuDeviceGetMemPool(pool: Pointer, device: i32) => pool::device_pool;
    cuDevicePrimaryCtxRetain(context: Pointer, device: i32) => primary::retain;
    cuDevicePrimaryCtxRelease | cuDevicePrimaryCtxRelease_v2(device: i32) => primary::release;
    cuDevicePrimaryCtxReset | cuDevicePrimaryCtxReset_v2(device: i32) => primary::reset;
    cuDevicePrimaryCtxSetFlags | cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) => primary::set_flags;
    cuDevicePrimaryCtxGetState(device: i32, flags: Pointer, active: Pointer) => primary::get_state;

    cuCtxCreate_v2(context: Pointer, flags: u32, device: i32) => context::create;
    cuCtxCreate_v3(context: Pointer, affinities: Pointer, count: i32, flags: u32, device: i32) => context::create_v3;
    cuCtxCreate_v4(context: Pointer, parameters: Pointer, flags: u32, device: i32) => context::create_v4;
    cuCtxDestroy_v2(context: Handle) => context::destroy;
    cuCtxSetCurrent(context: Handle) => context::set_current;
    cuCtxGetCurrent(context: Pointer) => context::get_current;
    cuCtxPushCurrent_v2(context: Handle) => context::push_current;
    cuCtxPopCurrent_v2(context: Pointer) => context::pop_current;
    cuCtxGetDevice(device: Pointer) => context::get_device;
    cuCtxGetFlags(flags: Pointer) => context::get_flags;
    cuCtxGetApiVersion(context: Handle, version: Pointer) => context::get_api_version;
    cuCtxGetId(context: Handle, id: Pointer) => context::get_id;
    cuCtxSynchronize() => context::synchronize;
    cuCtxGetLimit(value: Pointer, limit: u32) => context::get_limit;
    cuCtxSetLimit(limit: u32, value: Size) => context::set_limit;
    cuCtxGetCacheConfig(config: Pointer) => context::get_cache_config;
    cuCtxSetCacheConfig(config: u32) => context::set_cache_config;
    cuCtxGetStreamPriorityRange(least: Pointer, greatest: Pointer) => context::stream_priority_range;

    cuMemGetInfo_v2(free: Pointer, total: Pointer) => device::mem_info;
    cuMemAlloc_v2(address: Pointer, bytes: Size) => memory::alloc;
    cuMemAllocPitch_v2(address: Pointer, pitch: Pointer, width: Size, height: Size, element: u32)
        => memory::alloc_pitch;
    cuMemFree_v2(address: Device) => memory::free;
    cuMemGetAddressRange_v2(base: Pointer, size: Pointer, address: Device) => memory::address_range;
    cuPointerGetAttribute(data: Pointer, attribute: u32, address: Device) => memory::pointer_attribute;
    cuPointerGetAttributes(count: u32, attributes: Pointer, data: Pointer, address: Device)
        => memory::pointer_attributes;
    cuMemAllocHost_v2(pointer: Pointer, bytes: Size) => pinned::mem_alloc_host;
    cuMemHostAlloc(pointer: Pointer, bytes: Size, flags: u32) => pinned::mem_host_alloc;
    cuMemFreeHost(pointer: Pointer) => pinned::mem_free_host;
    cuMemHostGetFlags(flags: Pointer, pointer: Pointer) => pinned::mem_host_flags;
    cuMemHostRegister_v2(pointer: Pointer, bytes: Size, flags: u32) => pinned::mem_host_register;
    cuMemHostUnregister(pointer: Pointer) => pinned::mem_host_unregister;
    cuMemAllocAsync [cuMemAllocAsync_ptsz] (address: Pointer, bytes: Size, stream: Handle) => pool::alloc_async;
    cuMemAllocFromPoolAsync [cuMemAllocFromPoolAsync_ptsz]
        (address: Pointer, bytes: Size, from: Handle, stream: Handle) => pool::alloc_from_pool;
    cuMemFreeAsync [cuMemFreeAsync_ptsz] (address: Device, stream: Handle) => pool::free_async;
    cuMemPoolCreate(created: Pointer, properties: Pointer) => pool::create;
    cuMemPoolDestroy(handle: Handle) => pool::destroy;
    cuMemPoolTrimTo(handle: Handle, keep: Size) => pool::trim;
    cuMemPoolGetAttribute(handle: Handle, attribute: u32, value: Pointer) => pool::get_attribute;
    cuMemPoolSetAttribute(handle: Handle, attribute: u32, value: Pointer) => pool::set_attribute;

    cuMemcpy [cuMemcpy_ptds] (to: Device, from: Device, bytes: Size) => copy::copy;
    cuMemcpyAsync [cuMemcpyAsync_ptsz] (to: Device, from: Device, bytes: Size, stream: Handle) => copy::copy_async;
    cuMemcpyHtoD_v2 [cuMemcpyHtoD_v2_ptds] (to: Device, from: Pointer, bytes: Size) => copy::host_to_device;
    cuMemcpyDtoH_v2 [cuMemcpyDtoH_v2_ptds] (to: Pointer, from: Device, bytes: Size) => copy::device_to_host;
    cuMemcpyDtoD_v2 [cuMemcpyDtoD_v2_ptds] (to: Device, from: Device, bytes: Size) => copy::device_to_device;
    cuMemcpyHtoDAsync_v2 [cuMemcpyHtoDAsync_v2_ptsz]
        (to: Device, from: Pointer, bytes: Size, stream: Handle) => copy::host_to_device_async;
    cuMemcpyDtoHAsync_v2 [cuMemcpyDtoHAsync_v2_ptsz]
        (to: Pointer, from: Device, bytes: Size, stream: Handle) => copy::device_to_host_async;
    cuMemcpyDtoDAsync_v2 [cuMemcpyDtoDAsync_v2_ptsz]
        (to: Device, from: Device, bytes: Size, stream: Handle) => copy::device_to_device_async;
    cuMemcpy2D_v2 [cuMemcpy2D_v2_ptds] (description: Pointer) => memcpy_nd::copy_2d;
    cuMemcpy2DUnaligned_v2 [cuMemcpy2DUnaligned_v2_ptds] (description: Pointer) => memcpy_nd::copy_2d;
    cuMemcpy2DAsync_v2 [cuMemcpy2DAsync_v2_ptsz] (description: Pointer, stream: Handle) => memcpy_nd::copy_2d_async;
    cuMemcpy3D_v2 [cuMemcpy3D_v2_ptds] (description: Pointer) => memcpy_nd::copy_3d;
    cuMemcpy3DAsync_v2 [cuMemcpy3DAsync_v2_ptsz] (description: Pointer, stream: Handle) => memcpy_nd::copy_3d_async;
    cuMemsetD8_v2 [cuMemsetD8_v2_ptds] (to: Device, value: u32, count: Size) => memset::d8;
    cuMemsetD16_v2 [cuMemsetD16_v2_ptds] (to: Device, value: u32, count: Size) => memset::d16;
    cuMemsetD32_v2 [cuMemsetD32_v2_ptds] (to: Device, value: u32, count: Size) => memset::d32;
    cuMemsetD8Async [cuMemsetD8Async_ptsz] (to: Device, value: u32, count: Size, stream: Handle) => memset::d8_async;
    cuMemsetD16Async [cuMemsetD16Async_ptsz] (to: Device, value: u32, count: Size, stream: Handle) => memset::d16_async;
    cuMemsetD32Async [cuMemsetD32Async_ptsz] (to: Device, value: u32, count: Size, stream: Handle) => memset::d32_async;
    cuMemsetD2D8_v2 [cuMemsetD2D8_v2_ptds]
        (to: Device, pitch: Size, value: u32, width: Size, height: Size) => memset::d2d8;
    cuMemsetD2D16_v2 [cuMemsetD2D16_v2_ptds]
        (to: Device, pitch: Size, value: u32, width: Size, height: Size) => memset::d2d16;
    cuMemsetD2D32_v2 [cuMemsetD2D32_v2_ptds]
        (to: Device, pitch: Size, value: u32, width: Size, height: Size) => memset::d2d32;
    cuMemsetD2D8Async [cuMemsetD2D8Async_ptsz]
        (to: Device, pitch: Size, value: u32, width: Size, height: Size, stream: Handle) => memset::d2d8_async;
    cuMemsetD2D16Async [cuMemsetD2D16Async_ptsz]
        (to: Device, pitch: Size, value: u32, width: Size, height: Size, stream: Handle) => memset::d2d16_async;
    cuMemsetD2D32Async [cuMemsetD2D32Async_ptsz]
        (to: Device, pitch: Size, value: u32, width: Size, height: Size, stream: Handle) => memset::d2d32_async;

    cuStreamCreate(stream: Pointer, flags: u32) => stream::create;
    cuStreamCreateWithPriority(stream: Pointer, flags: u32, priority: i32) => stream::create_with_priority;
    cuStreamDestroy_v2(handle: Handle) => stream::destroy;
    cuStreamSynchronize [cuStreamSynchronize_ptsz] (handle: Handle) => stream::synchronize;
    cuStreamQuery [cuStreamQuery_ptsz] (handle: Handle) => stream::query;
    cuStreamWaitEvent [cuStreamWaitEvent_ptsz] (handle: Handle, event: Handle, flags: u32) => stream::wait_event;
    cuStreamGetFlags [cuStreamGetFlags_ptsz] (handle: Handle, flags: Pointer) => stream::get_flags;
    cuStreamGetPriority [cuStreamGetPriority_ptsz] (handle: Handle, priority: Pointer) => stream::get_priority;
    cuStreamGetId [cuStreamGetId_ptsz] (handle: Handle, id: Pointer) => stream::get_id;
    cuStreamGetCtx [cuStreamGetCtx_ptsz] (handle: Handle, context: Pointer) => stream::get_context;
    cuStreamGetDevice [cuStreamGetDevice_ptsz] (handle: Handle, device: Pointer) => stream::get_device;
    cuStreamBeginCapture [cuStreamBeginCapture_ptsz] (handle: Handle) => stream::begin_capture;
    cuStreamBeginCapture_v2 [cuStreamBeginCapture_v2_ptsz] (handle: Handle, mode: u32) => stream::begin_capture_v2;
    cuStreamEndCapture [cuStreamEndCapture_ptsz] (handle: Handle, graph: Pointer) => stream::end_capture;
    cuStreamIsCapturing [cuStreamIsCapturing_ptsz] (handle: Handle, status: Pointer) => stream::capture_status;
    cuStreamGetCaptureInfo [cuStreamGetCaptureInfo_ptsz]
        (handle: Handle, status: Pointer, id: Pointer) => stream::capture_info;

    cuEventCreate(event: Pointer, flags: u32) => event::create;
    cuEventDestroy_v2(handle: Handle) => event::destroy;
    cuEventRecord [cuEventRecord_ptsz] (handle: Handle, stream: Handle) => event::record;
    cuEventRecordWithFlags [cuEventRecordWithFlags_ptsz]
        (handle: Handle, stream: Handle, flags: u32) => event::record_with_flags;
    cuEventQuery(handle: Handle) => event::query;
    cuEventSynchronize(handle: Handle) => event::synchronize;
    cuEventElapsedTime | cuEventElapsedTime_v2(time: Pointer, start: Handle, end: Handle) => event::elapsed;

    cuModuleLoad(module: Pointer, path: Pointer) => module::load;
    cuModuleLoadData(module: Pointer, image: Pointer) => module::load_data;
    cuModuleLoadFatBinary(module: Pointer, image: Pointer) => module::load_data;
    cuModuleLoadDataEx(module: Pointer, image: Pointer, count: u32, options: Pointer, values: Pointer)
        => module::load_data_ex;
    cuModuleUnload(handle: Handle) => module::module_unload;
    cuModuleGetFunction(function: Pointer, handle: Handle, name: Pointer) => module::get_function;
    cuModuleGetGlobal_v2(address: Pointer, size: Pointer, handle: Handle, name: Pointer) => module::get_global;
    cuModuleGetFunctionCount(count: Pointer, handle: Handle) => module::function_count;
    cuModuleEnumerateFunctions(functions: Pointer, count: u32, handle: Handle) => module::functions;
    cuModuleGetLoadingMode(mode: Pointer) => module::loading_mode;

    cuLibraryLoadData(
        library: Pointer, image: Pointer, jit_options: Pointer, jit_values: Pointer, jit_count: u32,
        options: Pointer, values: Pointer, count: u32
    ) => library::load_data;
    cuLibraryUnload(handle: Handle) => library::unload;
    cuLibraryGetModule(module: Pointer, handle: Handle) => library::get_module;
    cuLibraryGetKernel(kernel: Pointer, handle: Handle, name: Pointer) => library::get_kernel;
    cuKernelGetFunction(function: Pointer, kernel: Handle) => library::get_function;

    cuFuncGetAttribute(value: Pointer, attribute: u32, handle: Handle) => function::get_attribute;
    cuFuncSetAttribute(handle: Handle, attribute: u32, value: i32) => function::set_attribute;
    cuFuncSetCacheConfig(handle: Handle, config: u32) => function::set_cache_config;
    cuFuncGetModule(module: Pointer, handle: Handle) => function::get_module;
    cuFuncGetName | cuKernelGetName(name: Pointer, handle: Handle) => function::get_name;
    cuFuncGetParamInfo | cuKernelGetParamInfo(handle: Handle, index: Size, offset: Pointer, size: Pointer)
        => function::parameter;
    cuFuncLoad(handle: Handle) => function::load;
    faasCuFuncSetParamKinds(handle: Handle, kinds: Pointer) => function::set_parameter_kinds;

    cuLaunchKernel [cuLaunchKernel_ptsz] (
        handle: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared: u32, stream: Handle, parameters: Pointer, extra: Pointer
    ) => launch::launch_kernel;
    cuLaunchCooperativeKernel [cuLaunchCooperativeKernel_ptsz] (
        handle: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared: u32, stream: Handle, parameters: Pointer
    ) => launch::launch_cooperative;
    cuLaunchKernelEx [cuLaunchKernelEx_ptsz]
        (config: Pointer, handle: Handle, parameters: Pointer, extra: Pointer) => launch::launch_ex;

    cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Pointer, handle: Handle, size: i32, shared: Size)
        => occupancy::active_blocks;
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Pointer, handle: Handle, size: i32, shared: Size, flags: u32
    ) => occupancy::active_blocks_with_flags;
    cuOccupancyAvailableDynamicSMemPerBlock(shared: Pointer, handle: Handle, blocks: i32, size: i32)
        => occupancy::available_shared;
    cuOccupancyMaxPotentialBlockSize(
        grid: Pointer, block: Pointer, handle: Handle, callback: Pointer, shared: Size, limit: i32
    ) => occupancy::block_size;
    cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Pointer, block: Pointer, handle: Handle, callback: Pointer, shared: Size, limit: i32, flags: u32
    ) => occupancy::block_size_with_flags;

    cuGraphCreate(created: Pointer, flags: u32) => graph::create;
    cuGraphClone(created: Pointer, original: Handle) => graph::clone;
    cuGraphDestroy(handle: Handle) => graph::destroy;
    cuGraphInstantiateWithFlags(exec: Pointer, handle: Handle, flags: u64) => graph::instantiate;
    cuGraphInstantiate | cuGraphInstantiate_v2(exec: Pointer, handle: Handle, node: Pointer, log: Pointer, size: Size)
        => graph::instantiate_v2;
    cuGraphInstantiateWithParams [cuGraphInstantiateWithParams_ptsz]
        (exec: Pointer, handle: Handle, parameters: Pointer) => graph::instantiate_with_params;
    cuGraphLaunch [cuGraphLaunch_ptsz] (exec: Handle, stream: Handle) => graph::launch;
    cuGraphUpload [cuGraphUpload_ptsz] (exec: Handle, stream: Handle) => graph::upload;
    cuGraphExecDestroy(exec: Handle) => graph::exec_destroy;
    cuGraphExecUpdate_v2(exec: Handle, handle: Handle, result: Pointer) => graph::exec_update;
    cuGraphExecGetFlags(exec: Handle, flags: Pointer) => graph::exec_flags;
    cuGraphAddKernelNode | cuGraphAddKernelNode_v2(
        node: Pointer, handle: Handle, after: Pointer, count: Size, parameters: Pointer
    ) => graph_nodes::add_kernel;
    cuGraphAddMemsetNode(
        node: Pointer, handle: Handle, after: Pointer, count: Size, parameters: Pointer, context: Handle
    ) => graph_nodes::add_memset;
    cuGraphAddMemcpyNode(
        node: Pointer, handle: Handle, after: Pointer, count: Size, parameters: Pointer, context: Handle
    ) => graph_nodes::add_memcpy;
    cuGraphAddEmptyNode(node: Pointer, handle: Handle, after: Pointer, count: Size) => graph_nodes::add_empty;
    cuGraphAddDependencies(handle: Handle, from: Pointer, to: Pointer, count: Size) => graph_nodes::add_dependencies;
    cuGraphAddDependencies_v2(handle: Handle, from: Pointer, to: Pointer, data: Pointer, count: Size)
        => graph_nodes::add_dependencies_v2;
    cuGraphGetNodes(handle: Handle, nodes: Pointer, count: Pointer) => graph_nodes::get_nodes;
    cuGraphGetEdges(handle: Handle, from: Pointer, to: Pointer, count: Pointer) => graph_nodes::get_edges;
    cuGraphGetEdges_v2(handle: Handle, from: Pointer, to: Pointer, data: Pointer, count: Pointer)
        => graph_nodes::get_edges_v2;
    cuGraphNodeGetType(node: Handle, ty: Pointer) => graph_nodes::node_type;
    cuGraphDestroyNode(node: Handle) => graph_nodes::destroy_node;
}

/// `faasCuDevicePtrToU64`, which returns an address instead of a code.
fn real_address<T: CudaHost + 'static>(
    caller: &mut Caller<'_, T>,
    address: u64,
) -> Result<u64, Stop> {
    let mut real = 0;
    enter(caller, false, false, |call| {
        real = memory::real_address(call, Device::from_register(address, call.abi));
        Ok(())
    })?;
    Ok(real)
}

/// Returns `CUDA_ERROR_NOT_SUPPORTED` to the guest and logs the name of the function.
fn refuse<T: CudaHost>(caller: &mut Caller<'_, T>, number: usize) -> i32 {
    if let Some(instance) = caller.data.cuda() {
        let names = &instance.imports.unsupported;
        let name = match names.get(number) {
            Some(name) if number + 1 < STUBS || names.len() <= STUBS => name.clone(),
            _ => format!(
                "one of {}",
                names.get(STUBS - 1..).unwrap_or_default().join(", ")
            ),
        };
        instance.cuda.log_once(&name, Level::Warning, || {
            format!("a guest called {name}, which is not supported: the call returned CUDA_ERROR_NOT_SUPPORTED (801)")
        });
    }
    Code::NOT_SUPPORTED.0 as i32
}

macro_rules! stubs {
    ($($number:literal)*) => {
        /// Number of stubs. Each stands for one function; the last one stands for all remaining functions.
        const STUBS: usize = [$($number),*].len();

        fn provide_stub<T: CudaHost + 'static>(linker: &mut Linker<T>, name: &str, number: usize) {
            fn stub<T: CudaHost + 'static, const NUMBER: usize>(caller: &mut Caller<'_, T>) -> Result<i32, Stop> {
                Ok(refuse(caller, NUMBER))
            }
            match number {
                $($number => linker.any_parameters(MODULE, name.to_owned(), stub::<T, $number>),)*
                _ => linker.any_parameters(MODULE, name.to_owned(), stub::<T, { STUBS - 1 }>),
            };
        }
    };
}
stubs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);

/// Provides the driver API imports of a module: functions, and stubs for those that are not supported.
pub fn add_to_linker<'a, T: CudaHost + 'static>(
    linker: &mut Linker<T>,
    needs: &faas_wasm_artifact::Cuda,
    imports: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Arc<Imports> {
    let abi = needs.abi;
    let mut unsupported: Vec<String> = Vec::new();
    for (module, name) in imports {
        if module != MODULE
            || !is_driver_name(name)
            || unsupported.iter().any(|known| known == name)
        {
            continue;
        }
        if name == "faasCuDevicePtrToU64" {
            let parameters = vec![Kind::Device.value_type(abi)];
            linker.integer_function(MODULE, name.to_owned(), parameters, real_address::<T>);
        } else if !provide(linker, name, abi) {
            provide_stub(linker, name, unsupported.len());
            unsupported.push(name.to_owned());
        }
    }
    let declared = needs.parameters.iter();
    let declared = declared.map(|kernel| (kernel.kernel.clone(), declaration(&kernel.kinds)));
    Arc::new(Imports {
        abi,
        unsupported,
        declared: declared.collect(),
    })
}

/// Whether a name belongs to the driver API (`cuInit`) or is one of our extensions (`faasCu...`).
fn is_driver_name(name: &str) -> bool {
    let rest = name
        .strip_prefix("cu")
        .or_else(|| name.strip_prefix("faasCu"));
    rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
}
