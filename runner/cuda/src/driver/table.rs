//! The table of driver entry points, and safe calls of those that take only values.
//!
//! Signatures are those of the documented 64-bit ABI of the driver. Any entry may be missing in an old driver; calling
//! it then fails with [`Code::NOT_SUPPORTED`].
//!
//! The unsafe code assumes: (1) a symbol of that name in a driver library has that signature; (2) values of the handle
//! types of this module come only from the driver; (3) the owner of a handle (a table of an instance, or the pool of
//! contexts) drops it when the object is destroyed, so that a stale handle is never passed to the driver.

use std::ffi::{CStr, c_void};

use crate::code::Code;

/// A source of entry points.
pub(crate) trait SymbolSource: Send + Sync {
    /// The address of a function of that name with the driver's signature, or null.
    fn symbol(&self, name: &CStr) -> *mut c_void;
}

macro_rules! handles {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(transparent)]
        pub(crate) struct $name(pub(super) usize);

        impl $name {
            /// No object.
            #[allow(dead_code, reason = "not of every kind")]
            pub(crate) const NULL: Self = Self(0);
        }
    )*};
}
handles! {
    /// `CUcontext`.
    Context;
    /// `CUstream`.
    Stream;
    /// `CUevent`.
    Event;
    /// `CUmodule`.
    Module;
    /// `CUfunction`.
    Function;
    /// `CUmemoryPool`.
    Pool;
    /// `CUgraph`.
    Graph;
    /// `CUgraphNode`.
    Node;
    /// `CUgraphExec`.
    GraphExec;
}

impl Stream {
    /// The legacy default stream, which synchronizes with blocking streams; stream 0 of the functions in the table.
    pub(crate) const LEGACY: Self = Self(0);
    /// The per-thread default stream.
    pub(crate) const PER_THREAD: Self = Self(2);
}

/// Converts a code of the driver to a `Result`.
pub(crate) fn check(code: u32) -> Result<(), Code> {
    match Code(code) {
        Code::SUCCESS => Ok(()),
        code => Err(code),
    }
}

macro_rules! entry_points {
    (
        raw { $($raw:ident = $raw_symbol:literal ($($raw_ty:ty),*);)* }
        streamed { $($streamed:ident = $streamed_symbol:literal, $waiting:ident = $waiting_symbol:literal ($($streamed_arg:ident: $streamed_ty:ty),*);)* }
        plain { $($plain:ident = $plain_symbol:literal ($($plain_arg:ident: $plain_ty:ty),*);)* }
        first { $($first:ident = $first_symbol:literal -> $first_out:ty, ($($first_arg:ident: $first_ty:ty),*);)* }
        last { $($last:ident = $last_symbol:literal ($($last_arg:ident: $last_ty:ty),*) -> $last_out:ty;)* }
        pair { $($pair:ident = $pair_symbol:literal -> $pair_out:ty;)* }
    ) => {
        /// The entry points. `calls.rs` calls those of the section `raw`; the methods here call the others.
        #[derive(Debug, Default)]
        pub(crate) struct EntryPoints {
            $(pub(super) $raw: Option<unsafe extern "C" fn($($raw_ty),*) -> u32>,)*
            $($streamed: Option<unsafe extern "C" fn($($streamed_ty,)* Stream) -> u32>,)*
            $($waiting: Option<unsafe extern "C" fn($($streamed_ty),*) -> u32>,)*
            $($plain: Option<unsafe extern "C" fn($($plain_ty),*) -> u32>,)*
            $($first: Option<unsafe extern "C" fn(*mut $first_out, $($first_ty),*) -> u32>,)*
            $($last: Option<unsafe extern "C" fn($($last_ty,)* *mut $last_out) -> u32>,)*
            $($pair: Option<unsafe extern "C" fn(*mut $pair_out, *mut $pair_out) -> u32>,)*
        }

        impl EntryPoints {
            /// Looks up all of them.
            pub(crate) fn load(source: &dyn SymbolSource) -> Self {
                Self {
                    $($raw: entry(source, $raw_symbol),)*
                    $($streamed: entry(source, $streamed_symbol),)*
                    $($waiting: entry(source, $waiting_symbol),)*
                    $($plain: entry(source, $plain_symbol),)*
                    $($first: entry(source, $first_symbol),)*
                    $($last: entry(source, $last_symbol),)*
                    $($pair: entry(source, $pair_symbol),)*
                }
            }
        }

        /// The functions that take and return only values.
        #[allow(clippy::too_many_arguments, reason = "the driver's signatures")]
        impl EntryPoints {
            $(pub(crate) fn $streamed(&self, $($streamed_arg: $streamed_ty,)* stream: Stream) -> Result<(), Code> {
                if let Some(function) = self.$streamed {
                    // SAFETY: the arguments are numbers and live handles (see the module documentation).
                    let result = check(unsafe { function($($streamed_arg,)* stream) });
                    if result != Err(Code::NOT_SUPPORTED) {
                        return result;
                    }
                }
                // A driver without the stream-ordered function has the synchronous one.
                let function = self.$waiting.ok_or(Code::NOT_SUPPORTED)?;
                // SAFETY: as above.
                check(unsafe { function($($streamed_arg),*) })
            })*
            $(pub(crate) fn $plain(&self, $($plain_arg: $plain_ty),*) -> Result<(), Code> {
                let function = self.$plain.ok_or(Code::NOT_SUPPORTED)?;
                // SAFETY: the arguments are numbers and live handles (see the module documentation).
                check(unsafe { function($($plain_arg),*) })
            })*
            $(pub(crate) fn $first(&self, $($first_arg: $first_ty),*) -> Result<$first_out, Code> {
                let function = self.$first.ok_or(Code::NOT_SUPPORTED)?;
                let mut out = <$first_out>::default();
                // SAFETY: as above; `out` has the type that the driver writes.
                check(unsafe { function(&mut out, $($first_arg),*) }).map(|()| out)
            })*
            $(pub(crate) fn $last(&self, $($last_arg: $last_ty),*) -> Result<$last_out, Code> {
                let function = self.$last.ok_or(Code::NOT_SUPPORTED)?;
                let mut out = <$last_out>::default();
                // SAFETY: as above; `out` has the type that the driver writes.
                check(unsafe { function($($last_arg,)* &mut out) }).map(|()| out)
            })*
            $(pub(crate) fn $pair(&self) -> Result<($pair_out, $pair_out), Code> {
                let function = self.$pair.ok_or(Code::NOT_SUPPORTED)?;
                let mut out = (<$pair_out>::default(), <$pair_out>::default());
                // SAFETY: both have the type that the driver writes.
                check(unsafe { function(&mut out.0, &mut out.1) }).map(|()| out)
            })*
        }
    };
}

/// Looks up one; `F` is the function pointer type of the table's field for that name.
fn entry<F: Copy>(source: &dyn SymbolSource, name: &'static str) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
    let address = source.symbol(name);
    // SAFETY: the address is not null, and that of a function with this signature (see the module documentation); `F`
    // is the type of a pointer to it, of the same size.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
}

entry_points! {
    raw {
        device_name = "cuDeviceGetName\0" (*mut u8, i32, i32);
        device_uuid = "cuDeviceGetUuid\0" (*mut [u8; 16], i32);
        error_name = "cuGetErrorName\0" (u32, *mut *const std::ffi::c_char);
        mem_alloc_pitch = "cuMemAllocPitch_v2\0" (*mut u64, *mut usize, usize, usize, u32);
        mem_alloc_host = "cuMemAllocHost_v2\0" (*mut *mut u8, usize);
        mem_free_host = "cuMemFreeHost\0" (*mut u8);
        memcpy_htod_async = "cuMemcpyHtoDAsync_v2\0" (u64, *const u8, usize, Stream);
        memcpy_dtoh_async = "cuMemcpyDtoHAsync_v2\0" (*mut u8, u64, usize, Stream);
        memcpy_htod = "cuMemcpyHtoD_v2\0" (u64, *const u8, usize);
        memcpy_dtoh = "cuMemcpyDtoH_v2\0" (*mut u8, u64, usize);
        memcpy_2d_async = "cuMemcpy2DAsync_v2\0" (*const super::Memcpy2D, Stream);
        memcpy_2d = "cuMemcpy2D_v2\0" (*const super::Memcpy2D);
        memcpy_3d_async = "cuMemcpy3DAsync_v2\0" (*const super::Memcpy3D, Stream);
        pool_create = "cuMemPoolCreate\0" (*mut Pool, *const super::PoolProperties);
        pool_attribute = "cuMemPoolGetAttribute\0" (Pool, u32, *mut u64);
        pool_set_attribute = "cuMemPoolSetAttribute\0" (Pool, u32, *mut u64);
        module_load_data = "cuModuleLoadData\0" (*mut Module, *const c_void);
        module_load_data_ex = "cuModuleLoadDataEx\0" (*mut Module, *const c_void, u32, *mut u32, *mut *mut c_void);
        module_function = "cuModuleGetFunction\0" (*mut Function, Module, *const std::ffi::c_char);
        module_global = "cuModuleGetGlobal_v2\0" (*mut u64, *mut usize, Module, *const std::ffi::c_char);
        module_functions = "cuModuleEnumerateFunctions\0" (*mut Function, u32, Module);
        function_name = "cuFuncGetName\0" (*mut *const std::ffi::c_char, Function);
        function_parameter = "cuFuncGetParamInfo\0" (Function, usize, *mut usize, *mut usize);
        launch_kernel = "cuLaunchKernel\0" (Function, u32, u32, u32, u32, u32, u32, u32, Stream, *mut *mut c_void, *mut *mut c_void);
        launch_cooperative = "cuLaunchCooperativeKernel\0" (Function, u32, u32, u32, u32, u32, u32, u32, Stream, *mut *mut c_void);
        launch_kernel_ex = "cuLaunchKernelEx\0" (*const super::LaunchConfig, Function, *mut *mut c_void, *mut *mut c_void);
        occupancy_block_size = "cuOccupancyMaxPotentialBlockSizeWithFlags\0" (*mut i32, *mut i32, Function, Option<unsafe extern "C" fn(i32) -> usize>, usize, i32, u32);
        link_create = "cuLinkCreate_v2\0" (u32, *mut u32, *mut *mut c_void, *mut usize);
        link_add_data = "cuLinkAddData_v2\0" (usize, u32, *const c_void, usize, *const std::ffi::c_char, u32, *mut u32, *mut *mut c_void);
        link_complete = "cuLinkComplete\0" (usize, *mut *const u8, *mut usize);
        link_destroy = "cuLinkDestroy\0" (usize);
        graph_add_kernel_node = "cuGraphAddKernelNode_v2\0" (*mut Node, Graph, *const Node, usize, *const super::KernelNode);
        graph_add_memset_node = "cuGraphAddMemsetNode\0" (*mut Node, Graph, *const Node, usize, *const super::MemsetNode, Context);
        graph_add_memcpy_node = "cuGraphAddMemcpyNode\0" (*mut Node, Graph, *const Node, usize, *const super::Memcpy3D, Context);
        graph_add_empty_node = "cuGraphAddEmptyNode\0" (*mut Node, Graph, *const Node, usize);
        graph_add_dependencies = "cuGraphAddDependencies\0" (Graph, *const Node, *const Node, usize);
        graph_nodes = "cuGraphGetNodes\0" (Graph, *mut Node, *mut usize);
        graph_edges = "cuGraphGetEdges\0" (Graph, *mut Node, *mut Node, *mut usize);
        graph_exec_update = "cuGraphExecUpdate_v2\0" (GraphExec, Graph, *mut super::UpdateResult);
    }
    streamed {
        memcpy_dtod_async = "cuMemcpyDtoDAsync_v2\0", memcpy_dtod_waiting = "cuMemcpyDtoD_v2\0" (to: u64, from: u64, bytes: usize);
        memset_8 = "cuMemsetD8Async\0", memset_8_waiting = "cuMemsetD8_v2\0" (to: u64, value: u8, count: usize);
        memset_16 = "cuMemsetD16Async\0", memset_16_waiting = "cuMemsetD16_v2\0" (to: u64, value: u16, count: usize);
        memset_32 = "cuMemsetD32Async\0", memset_32_waiting = "cuMemsetD32_v2\0" (to: u64, value: u32, count: usize);
        memset_2d_8 = "cuMemsetD2D8Async\0", memset_2d_8_waiting = "cuMemsetD2D8_v2\0" (to: u64, pitch: usize, value: u8, width: usize, height: usize);
        memset_2d_16 = "cuMemsetD2D16Async\0", memset_2d_16_waiting = "cuMemsetD2D16_v2\0" (to: u64, pitch: usize, value: u16, width: usize, height: usize);
        memset_2d_32 = "cuMemsetD2D32Async\0", memset_2d_32_waiting = "cuMemsetD2D32_v2\0" (to: u64, pitch: usize, value: u32, width: usize, height: usize);
    }
    plain {
        init = "cuInit\0" (flags: u32);
        context_destroy = "cuCtxDestroy_v2\0" (context: Context);
        context_set_current = "cuCtxSetCurrent\0" (context: Context);
        context_set_limit = "cuCtxSetLimit\0" (limit: u32, value: usize);
        context_set_cache_config = "cuCtxSetCacheConfig\0" (config: u32);
        mem_free = "cuMemFree_v2\0" (address: u64);
        mem_free_async = "cuMemFreeAsync\0" (address: u64, stream: Stream);
        pool_destroy = "cuMemPoolDestroy\0" (pool: Pool);
        pool_trim = "cuMemPoolTrimTo\0" (pool: Pool, keep: usize);
        stream_destroy = "cuStreamDestroy_v2\0" (stream: Stream);
        stream_is_idle = "cuStreamQuery\0" (stream: Stream);
        stream_synchronize = "cuStreamSynchronize\0" (stream: Stream);
        stream_wait_event = "cuStreamWaitEvent\0" (stream: Stream, event: Event, flags: u32);
        stream_begin_capture = "cuStreamBeginCapture_v2\0" (stream: Stream, mode: u32);
        event_destroy = "cuEventDestroy_v2\0" (event: Event);
        event_has_passed = "cuEventQuery\0" (event: Event);
        event_synchronize = "cuEventSynchronize\0" (event: Event);
        event_record = "cuEventRecord\0" (event: Event, stream: Stream);
        event_record_with_flags = "cuEventRecordWithFlags\0" (event: Event, stream: Stream, flags: u32);
        module_unload = "cuModuleUnload\0" (module: Module);
        function_set_attribute = "cuFuncSetAttribute\0" (function: Function, attribute: u32, value: i32);
        function_set_cache_config = "cuFuncSetCacheConfig\0" (function: Function, config: u32);
        function_load = "cuFuncLoad\0" (function: Function);
        graph_destroy = "cuGraphDestroy\0" (graph: Graph);
        graph_exec_destroy = "cuGraphExecDestroy\0" (graph: GraphExec);
        graph_launch = "cuGraphLaunch\0" (graph: GraphExec, stream: Stream);
        graph_upload = "cuGraphUpload\0" (graph: GraphExec, stream: Stream);
        graph_destroy_node = "cuGraphDestroyNode\0" (node: Node);
    }
    first {
        driver_version = "cuDriverGetVersion\0" -> i32, ();
        device_count = "cuDeviceGetCount\0" -> i32, ();
        device = "cuDeviceGet\0" -> i32, (ordinal: i32);
        device_attribute = "cuDeviceGetAttribute\0" -> i32, (attribute: u32, device: i32);
        device_total = "cuDeviceTotalMem_v2\0" -> usize, (device: i32);
        context_create = "cuCtxCreate_v2\0" -> Context, (flags: u32, device: i32);
        context_limit = "cuCtxGetLimit\0" -> usize, (limit: u32);
        context_cache_config = "cuCtxGetCacheConfig\0" -> u32, ();
        mem_alloc = "cuMemAlloc_v2\0" -> u64, (bytes: usize);
        mem_alloc_from_pool = "cuMemAllocFromPoolAsync\0" -> u64, (bytes: usize, pool: Pool, stream: Stream);
        stream_create_plain = "cuStreamCreate\0" -> Stream, (flags: u32);
        stream_create_with_priority = "cuStreamCreateWithPriority\0" -> Stream, (flags: u32, priority: i32);
        event_create = "cuEventCreate\0" -> Event, (flags: u32);
        event_elapsed = "cuEventElapsedTime\0" -> f32, (start: Event, end: Event);
        module_function_count = "cuModuleGetFunctionCount\0" -> u32, (module: Module);
        module_loading_mode = "cuModuleGetLoadingMode\0" -> u32, ();
        function_attribute = "cuFuncGetAttribute\0" -> i32, (attribute: u32, function: Function);
        occupancy_blocks = "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags\0" -> i32, (function: Function, block_size: i32, shared: usize, flags: u32);
        occupancy_shared = "cuOccupancyAvailableDynamicSMemPerBlock\0" -> usize, (function: Function, blocks: i32, block_size: i32);
        graph_create = "cuGraphCreate\0" -> Graph, (flags: u32);
        graph_clone = "cuGraphClone\0" -> Graph, (graph: Graph);
        graph_instantiate = "cuGraphInstantiateWithFlags\0" -> GraphExec, (graph: Graph, flags: u64);
    }
    last {
        stream_end_capture = "cuStreamEndCapture\0" (stream: Stream) -> Graph;
        stream_is_capturing = "cuStreamIsCapturing\0" (stream: Stream) -> u32;
        node_type = "cuGraphNodeGetType\0" (node: Node) -> u32;
    }
    pair {
        mem_info = "cuMemGetInfo_v2\0" -> usize;
        stream_priority_range = "cuCtxGetStreamPriorityRange\0" -> i32;
    }
}
