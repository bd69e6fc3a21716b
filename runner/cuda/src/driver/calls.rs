//! Driver calls that read or write host memory.
//!
//! Besides the assumptions of `table.rs`, the unsafe code assumes that every pointer is to a live buffer of the length
//! that is passed with it. Asynchronous copies use only [`HostBuffer`]s, which are never freed while a copy may be in
//! progress: a buffer is freed explicitly, or else with its context.
//!
//! If a driver lacks a function or does not support it, the closest alternative is used: a stream without priority, a
//! synchronous copy, or pageable memory.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ops::Range;
use std::ptr::NonNull;

use super::table::check;
use super::{
    Context, EntryPoints, Event, Function, Graph, GraphExec, KernelNode, LaunchAttribute,
    LaunchConfig, Memcpy2D, Memcpy3D, MemsetNode, Module, Node, Pool, PoolProperties, Stream,
    UpdateResult,
};
use crate::code::Code;

/// Most nodes or edges of a graph that are listed.
const MOST_NODES: usize = 1 << 20;
/// `CU_JIT_INPUT_PTX`.
const INPUT_PTX: u32 = 1;
/// `CU_JIT_ERROR_LOG_BUFFER` and `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`.
const ERROR_LOG: [u32; 2] = [5, 6];
/// Size of the buffer for compiler messages in bytes.
const LOG_SIZE: usize = 8 << 10;

/// Page-locked host memory that belongs to a context, or pageable memory if the driver does not support it.
#[derive(Debug)]
pub(crate) struct HostBuffer {
    base: NonNull<u8>,
    length: usize,
    is_locked: bool,
}

// SAFETY: this value has exclusive ownership of the memory.
unsafe impl Send for HostBuffer {}
// SAFETY: as above; a shared reference allows only reads.
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// A part of the buffer. The caller must have waited for every copy into it.
    ///
    /// # Panics
    ///
    /// If the range is not within the buffer.
    pub(crate) fn part(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: the driver allocated `length` bytes at `base`, which were zeroed and are freed only by value. The
        // range is inside the buffer, and no copy writes to it now.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(range.start), range.len()) }
    }

    /// The same for writing.
    ///
    /// # Panics
    ///
    /// If the range is not within the buffer.
    pub(crate) fn part_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: as in `part`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(range.start), range.len()) }
    }
}

/// Grid, block, and shared memory of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LaunchShape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
}

/// The packed parameters of a launch: a buffer in the kernel's layout, and the offset of each parameter.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// Words, so that every parameter is aligned.
    pub(crate) buffer: Vec<u64>,
    /// Offsets in bytes. Each parameter lies within the buffer.
    pub(crate) offsets: Vec<usize>,
    pointers: Vec<usize>,
}

impl Arguments {
    /// The buffer's bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.buffer.len() * 8;
        // SAFETY: the words are initialized, and `u8` has no alignment and no invalid values.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.as_mut_ptr().cast(), length) }
    }

    /// Pointers to the parameters for the driver, valid until the buffer changes.
    fn pointers(&mut self) -> *mut *mut c_void {
        let base = self.buffer.as_mut_ptr() as usize;
        self.pointers.clear();
        self.pointers
            .extend(self.offsets.iter().map(|offset| base + offset));
        // One extra element, as the driver may read the pointer of an empty list.
        self.pointers.push(0);
        self.pointers.as_mut_ptr().cast()
    }
}

/// Converts a missing entry to an error.
fn present<F>(entry: Option<F>) -> Result<F, Code> {
    entry.ok_or(Code::NOT_SUPPORTED)
}

/// Copies a C string of the driver.
///
/// # Safety
///
/// `text` must be null or a C string.
unsafe fn owned(text: *const c_char) -> Option<String> {
    (!text.is_null()).then(|| {
        // SAFETY: the caller guarantees it.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    })
}

impl EntryPoints {
    /// `cuDeviceGetName`.
    pub(crate) fn device_name(&self, device: i32) -> Result<String, Code> {
        let function = present(self.device_name)?;
        let mut name = [0u8; 256];
        // SAFETY: writes at most 255 bytes and a NUL.
        check(unsafe { function(name.as_mut_ptr(), 255, device) })?;
        let end = name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len());
        Ok(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    /// `cuDeviceGetUuid`.
    pub(crate) fn device_uuid(&self, device: i32) -> Result<[u8; 16], Code> {
        let function = present(self.device_uuid)?;
        let mut uuid = [0; 16];
        // SAFETY: writes sixteen bytes.
        check(unsafe { function(&mut uuid, device) }).map(|()| uuid)
    }

    /// The driver's name for a code that is not in our table.
    pub(crate) fn error_name(&self, code: Code) -> Option<String> {
        let mut name = std::ptr::null();
        // SAFETY: writes a pointer to a string that lives as long as the driver, or null.
        check(unsafe { self.error_name?(code.0, &mut name) }).ok()?;
        // SAFETY: as above.
        unsafe { owned(name) }
    }

    /// `cuMemAllocPitch_v2`. Returns address and pitch.
    pub(crate) fn mem_alloc_pitch(
        &self,
        width: usize,
        height: usize,
        element: u32,
    ) -> Result<(u64, usize), Code> {
        let function = present(self.mem_alloc_pitch)?;
        let (mut address, mut pitch) = (0, 0);
        // SAFETY: writes both.
        check(unsafe { function(&mut address, &mut pitch, width, height, element) })
            .map(|()| (address, pitch))
    }

    /// `cuMemAllocHost_v2`, zeroed.
    pub(crate) fn host_buffer(&self, length: usize) -> Result<HostBuffer, Code> {
        let mut base = std::ptr::null_mut();
        let allocated = match self.mem_alloc_host {
            // SAFETY: writes an address of `length` bytes.
            Some(function) => check(unsafe { function(&mut base, length) }),
            None => Err(Code::NOT_SUPPORTED),
        };
        if allocated == Err(Code::NOT_SUPPORTED) {
            let memory = Box::leak(vec![0; length].into_boxed_slice());
            return Ok(HostBuffer {
                base: NonNull::from(memory).cast(),
                length,
                is_locked: false,
            });
        }
        allocated?;
        let base = NonNull::new(base).ok_or(Code::OUT_OF_MEMORY)?;
        // SAFETY: the driver has just allocated these bytes.
        unsafe { base.as_ptr().write_bytes(0, length) };
        Ok(HostBuffer {
            base,
            length,
            is_locked: true,
        })
    }

    /// `cuMemFreeHost`. No copy may be in progress.
    pub(crate) fn free_host_buffer(&self, buffer: HostBuffer) -> Result<(), Code> {
        let HostBuffer {
            base,
            length,
            is_locked,
        } = buffer;
        if !is_locked {
            let memory = std::ptr::slice_from_raw_parts_mut(base.as_ptr(), length);
            // SAFETY: leaked from a box of this length in `host_buffer`, and owned by `buffer`, which is consumed.
            drop(unsafe { Box::from_raw(memory) });
            return Ok(());
        }
        let function = present(self.mem_free_host)?;
        // SAFETY: allocated by `host_buffer`, and owned by `buffer`, which is consumed.
        check(unsafe { function(base.as_ptr()) })
    }

    /// Enqueues a copy of a part of a buffer to the device.
    ///
    /// # Panics
    ///
    /// If the part is not within the buffer.
    pub(crate) fn copy_to_device(
        &self,
        to: u64,
        from: &HostBuffer,
        part: Range<usize>,
        stream: Stream,
    ) -> Result<(), Code> {
        let bytes = from.part(part);
        let (from, length) = (bytes.as_ptr(), bytes.len());
        if let Some(function) = self.memcpy_htod_async {
            // SAFETY: the buffer contains these bytes and outlives the copy (see the module documentation). The caller
            // has checked the device address.
            let result = check(unsafe { function(to, from, length, stream) });
            if result != Err(Code::NOT_SUPPORTED) {
                return result;
            }
        }
        let function = present(self.memcpy_htod)?;
        // SAFETY: as above.
        check(unsafe { function(to, from, length) })
    }

    /// Enqueues a copy from the device to a part of a buffer.
    ///
    /// # Panics
    ///
    /// If the part is not within the buffer.
    pub(crate) fn copy_from_device(
        &self,
        to: &mut HostBuffer,
        part: Range<usize>,
        from: u64,
        stream: Stream,
    ) -> Result<(), Code> {
        let bytes = to.part_mut(part);
        let (to, length) = (bytes.as_mut_ptr(), bytes.len());
        if let Some(function) = self.memcpy_dtoh_async {
            // SAFETY: as in `copy_to_device`.
            let result = check(unsafe { function(to, from, length, stream) });
            if result != Err(Code::NOT_SUPPORTED) {
                return result;
            }
        }
        let function = present(self.memcpy_dtoh)?;
        // SAFETY: as above.
        check(unsafe { function(to, from, length) })
    }

    /// Enqueues a copy of rows between a buffer and the device.
    fn copy_rows(&self, copy: &Memcpy2D, stream: Stream) -> Result<(), Code> {
        if let Some(function) = self.memcpy_2d_async {
            // SAFETY: the caller's rows lie in a buffer that outlives the copy (see the module documentation).
            let result = check(unsafe { function(copy, stream) });
            if result != Err(Code::NOT_SUPPORTED) {
                return result;
            }
        }
        let function = present(self.memcpy_2d)?;
        // SAFETY: as above.
        check(unsafe { function(copy) })
    }

    /// `cuStreamCreateWithPriority`.
    pub(crate) fn stream_create(&self, flags: u32, priority: i32) -> Result<Stream, Code> {
        match self.stream_create_with_priority(flags, priority) {
            Err(Code::NOT_SUPPORTED) => self.stream_create_plain(flags),
            result => result,
        }
    }

    /// `cuStreamQuery`.
    pub(crate) fn stream_query(&self, stream: Stream) -> Result<(), Code> {
        match self.stream_is_idle(stream) {
            Err(Code::NOT_SUPPORTED) => self.stream_synchronize(stream),
            result => result,
        }
    }

    /// `cuEventQuery`.
    pub(crate) fn event_query(&self, event: Event) -> Result<(), Code> {
        match self.event_has_passed(event) {
            Err(Code::NOT_SUPPORTED) => self.event_synchronize(event),
            result => result,
        }
    }

    /// Enqueues a copy of rows from a buffer, where they are contiguous, to the device.
    pub(crate) fn copy_rows_to_device(
        &self,
        (to, pitch): (u64, usize),
        from: &HostBuffer,
        (width, height): (usize, usize),
        stream: Stream,
    ) -> Result<(), Code> {
        if width
            .checked_mul(height)
            .is_none_or(|length| length > from.length)
        {
            return Err(Code::INVALID_VALUE);
        }
        let host = super::Side2D {
            memory: super::MEMORY_HOST,
            host: from.base.as_ptr() as usize,
            pitch: width,
            ..Default::default()
        };
        let device = super::Side2D {
            memory: super::MEMORY_DEVICE,
            device: to,
            pitch,
            ..Default::default()
        };
        let copy = Memcpy2D {
            from: host,
            to: device,
            width,
            height,
        };
        self.copy_rows(&copy, stream)
    }

    /// Enqueues a copy of rows from the device to a buffer, where they are contiguous.
    pub(crate) fn copy_rows_from_device(
        &self,
        to: &mut HostBuffer,
        (from, pitch): (u64, usize),
        (width, height): (usize, usize),
        stream: Stream,
    ) -> Result<(), Code> {
        if width
            .checked_mul(height)
            .is_none_or(|length| length > to.length)
        {
            return Err(Code::INVALID_VALUE);
        }
        let device = super::Side2D {
            memory: super::MEMORY_DEVICE,
            device: from,
            pitch,
            ..Default::default()
        };
        let host = super::Side2D {
            memory: super::MEMORY_HOST,
            host: to.base.as_ptr() as usize,
            pitch: width,
            ..Default::default()
        };
        let copy = Memcpy2D {
            from: device,
            to: host,
            width,
            height,
        };
        self.copy_rows(&copy, stream)
    }

    /// Enqueues a copy of planes between two locations on the device.
    pub(crate) fn copy_3d(&self, copy: &Memcpy3D, stream: Stream) -> Result<(), Code> {
        let function = present(self.memcpy_3d_async)?;
        debug_assert!(
            copy.from.memory == super::MEMORY_DEVICE && copy.to.memory == super::MEMORY_DEVICE
        );
        // SAFETY: reads the structure. Both of its sides are on the device.
        check(unsafe { function(copy, stream) })
    }

    /// `cuMemPoolCreate` for memory of a device.
    pub(crate) fn pool_create(&self, device: i32, max_size: usize) -> Result<Pool, Code> {
        let function = present(self.pool_create)?;
        let properties = PoolProperties {
            allocation: 1,
            handles: 0,
            location: 1,
            device,
            security: 0,
            max_size,
            usage: 0,
            reserved: [0; 54],
        };
        let mut pool = Pool::NULL;
        // SAFETY: reads the properties, writes the handle.
        check(unsafe { function(&mut pool, &properties) }).map(|()| pool)
    }

    /// `cuMemPoolGetAttribute`. The upper half of a 4-byte attribute is zero.
    pub(crate) fn pool_attribute(&self, pool: Pool, attribute: u32) -> Result<u64, Code> {
        let function = present(self.pool_attribute)?;
        let mut value = 0;
        // SAFETY: no attribute is longer than eight bytes.
        check(unsafe { function(pool, attribute, &mut value) }).map(|()| value)
    }

    /// `cuMemPoolSetAttribute`.
    pub(crate) fn pool_set_attribute(
        &self,
        pool: Pool,
        attribute: u32,
        mut value: u64,
    ) -> Result<(), Code> {
        let function = present(self.pool_set_attribute)?;
        // SAFETY: no attribute is longer than eight bytes.
        check(unsafe { function(pool, attribute, &mut value) })
    }

    /// `cuModuleLoadDataEx`. An error comes with the messages of the compiler.
    pub(crate) fn module_load(&self, image: &CStrImage) -> Result<Module, (Code, String)> {
        let mut module = Module::NULL;
        let Some(function) = self.module_load_data_ex else {
            let function = present(self.module_load_data).map_err(|code| (code, String::new()))?;
            // SAFETY: as below, without options.
            let code = unsafe { function(&mut module, image.0.as_ptr().cast()) };
            return check(code)
                .map(|()| module)
                .map_err(|code| (code, String::new()));
        };
        let mut log = vec![0u8; LOG_SIZE];
        let mut options = ERROR_LOG;
        let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_SIZE as *mut c_void];
        // SAFETY: the image ends in a NUL, and a length in its header was checked. The options pass the message buffer
        // and its size.
        let code = unsafe {
            function(
                &mut module,
                image.0.as_ptr().cast(),
                2,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        check(code).map(|()| module).map_err(|code| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
            (code, String::from_utf8_lossy(&log[..end]).trim().to_owned())
        })
    }

    /// `cuModuleGetFunction`.
    pub(crate) fn module_function(&self, module: Module, name: &str) -> Result<Function, Code> {
        let entry = present(self.module_function)?;
        let name = CString::new(name).map_err(|_| Code::INVALID_VALUE)?;
        let mut function = Function::NULL;
        // SAFETY: reads a C string, writes the handle.
        check(unsafe { entry(&mut function, module, name.as_ptr()) }).map(|()| function)
    }

    /// `cuModuleGetGlobal_v2`. Returns address and size.
    pub(crate) fn module_global(&self, module: Module, name: &str) -> Result<(u64, usize), Code> {
        let function = present(self.module_global)?;
        let name = CString::new(name).map_err(|_| Code::INVALID_VALUE)?;
        let (mut address, mut size) = (0, 0);
        // SAFETY: reads a C string, writes both.
        check(unsafe { function(&mut address, &mut size, module, name.as_ptr()) })
            .map(|()| (address, size))
    }

    /// `cuModuleEnumerateFunctions`.
    pub(crate) fn module_functions(
        &self,
        module: Module,
        count: usize,
    ) -> Result<Vec<Function>, Code> {
        let function = present(self.module_functions)?;
        let mut functions = vec![Function::NULL; count];
        let length = u32::try_from(count).map_err(|_| Code::INVALID_VALUE)?;
        // SAFETY: writes at most `length` handles.
        check(unsafe { function(functions.as_mut_ptr(), length, module) }).map(|()| functions)
    }

    /// `cuFuncGetName`.
    pub(crate) fn function_name(&self, function: Function) -> Result<String, Code> {
        let entry = present(self.function_name)?;
        let mut name = std::ptr::null();
        // SAFETY: writes a pointer to a string that lives as long as the module.
        check(unsafe { entry(&mut name, function) })?;
        // SAFETY: as above.
        unsafe { owned(name) }.ok_or(Code::NOT_FOUND)
    }

    /// `cuFuncGetParamInfo`. Returns offset and size of a parameter, or `None` after the last one.
    pub(crate) fn function_parameter(
        &self,
        function: Function,
        index: usize,
    ) -> Result<Option<(usize, usize)>, Code> {
        let entry = present(self.function_parameter)?;
        let (mut offset, mut size) = (0, 0);
        // SAFETY: writes both.
        match check(unsafe { entry(function, index, &mut offset, &mut size) }) {
            Ok(()) => Ok(Some((offset, size))),
            Err(Code::INVALID_VALUE) => Ok(None),
            Err(code) => Err(code),
        }
    }

    /// `cuLaunchKernel` or `cuLaunchCooperativeKernel`.
    pub(crate) fn launch(
        &self,
        function: Function,
        shape: LaunchShape,
        stream: Stream,
        arguments: &mut Arguments,
        cooperative: bool,
    ) -> Result<(), Code> {
        let LaunchShape {
            grid,
            block,
            shared,
        } = shape;
        let pointers = arguments.pointers();
        // SAFETY: the driver reads the kernel's parameters through these pointers before it returns. Their layout is
        // that of the driver or the image, and the buffer covers it (`Arguments`).
        check(unsafe {
            if cooperative {
                let entry = present(self.launch_cooperative)?;
                entry(
                    function, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared,
                    stream, pointers,
                )
            } else {
                let entry = present(self.launch_kernel)?;
                entry(
                    function,
                    grid[0],
                    grid[1],
                    grid[2],
                    block[0],
                    block[1],
                    block[2],
                    shared,
                    stream,
                    pointers,
                    std::ptr::null_mut(),
                )
            }
        })
    }

    /// `cuLaunchKernelEx`.
    pub(crate) fn launch_with(
        &self,
        function: Function,
        shape: LaunchShape,
        stream: Stream,
        attributes: &[LaunchAttribute],
        arguments: &mut Arguments,
    ) -> Result<(), Code> {
        let entry = present(self.launch_kernel_ex)?;
        let config = LaunchConfig {
            grid: shape.grid,
            block: shape.block,
            shared: shape.shared,
            stream,
            attributes: attributes.as_ptr() as usize,
            attribute_count: attributes.len() as u32,
        };
        // SAFETY: as in `launch`; the configuration and its attributes are read before it returns.
        check(unsafe {
            entry(
                &config,
                function,
                arguments.pointers(),
                std::ptr::null_mut(),
            )
        })
    }

    /// `cuOccupancyMaxPotentialBlockSizeWithFlags` without a callback. Returns grid and block size.
    pub(crate) fn occupancy_block_size(
        &self,
        function: Function,
        shared: usize,
        limit: i32,
        flags: u32,
    ) -> Result<(i32, i32), Code> {
        let entry = present(self.occupancy_block_size)?;
        let (mut grid, mut block) = (0, 0);
        // SAFETY: writes both; there is no callback.
        check(unsafe { entry(&mut grid, &mut block, function, None, shared, limit, flags) })
            .map(|()| (grid, block))
    }

    /// Compiles PTX to a cubin for the device of the current context.
    pub(crate) fn compile(&self, image: &CStrImage) -> Result<Vec<u8>, Code> {
        let (create, add) = (present(self.link_create)?, present(self.link_add_data)?);
        let (complete, destroy) = (present(self.link_complete)?, present(self.link_destroy)?);
        let mut state = 0;
        // SAFETY: no options; writes the handle.
        check(unsafe { create(0, std::ptr::null_mut(), std::ptr::null_mut(), &mut state) })?;
        let (mut cubin, mut size) = (std::ptr::null(), 0);
        // SAFETY: the length includes the NUL, as the driver requires for PTX; there are no options. The linker state
        // owns the result.
        let linked = check(unsafe {
            add(
                state,
                INPUT_PTX,
                image.0.as_ptr().cast(),
                image.0.len(),
                c"ptx".as_ptr(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        })
        .and_then(|()| {
            // SAFETY: writes address and size of the result.
            check(unsafe { complete(state, &mut cubin, &mut size) })
        })
        .map(|()| {
            if cubin.is_null() {
                return Vec::new();
            }
            // SAFETY: the driver returned the address and size of the result, which lives until the state is destroyed.
            unsafe { std::slice::from_raw_parts(cubin, size) }.to_vec()
        });
        // SAFETY: created above and not used again.
        check(unsafe { destroy(state) })?;
        linked
    }

    /// `cuGraphAddKernelNode_v2`.
    pub(crate) fn graph_add_kernel(
        &self,
        graph: Graph,
        after: &[Node],
        function: Function,
        shape: LaunchShape,
        arguments: &mut Arguments,
    ) -> Result<Node, Code> {
        let entry = present(self.graph_add_kernel_node)?;
        let parameters = KernelNode {
            function,
            grid: shape.grid,
            block: shape.block,
            shared: shape.shared,
            parameters: arguments.pointers() as usize,
            extra: 0,
            kernel: 0,
            context: Context::NULL,
        };
        let mut node = Node::NULL;
        // SAFETY: the driver copies the parameters before it returns, as for a launch.
        check(unsafe { entry(&mut node, graph, after.as_ptr(), after.len(), &parameters) })
            .map(|()| node)
    }

    /// `cuGraphAddMemsetNode`.
    pub(crate) fn graph_add_memset(
        &self,
        graph: Graph,
        after: &[Node],
        set: &MemsetNode,
        context: Context,
    ) -> Result<Node, Code> {
        let entry = present(self.graph_add_memset_node)?;
        let mut node = Node::NULL;
        // SAFETY: reads the dependencies and the structure, writes the node.
        check(unsafe { entry(&mut node, graph, after.as_ptr(), after.len(), set, context) })
            .map(|()| node)
    }

    /// `cuGraphAddMemcpyNode` between two locations on the device.
    pub(crate) fn graph_add_memcpy(
        &self,
        graph: Graph,
        after: &[Node],
        copy: &Memcpy3D,
        context: Context,
    ) -> Result<Node, Code> {
        let entry = present(self.graph_add_memcpy_node)?;
        debug_assert!(
            copy.from.memory == super::MEMORY_DEVICE && copy.to.memory == super::MEMORY_DEVICE
        );
        let mut node = Node::NULL;
        // SAFETY: as above; both sides are on the device, so the graph keeps no host address.
        check(unsafe { entry(&mut node, graph, after.as_ptr(), after.len(), copy, context) })
            .map(|()| node)
    }

    /// `cuGraphAddEmptyNode`.
    pub(crate) fn graph_add_empty(&self, graph: Graph, after: &[Node]) -> Result<Node, Code> {
        let entry = present(self.graph_add_empty_node)?;
        let mut node = Node::NULL;
        // SAFETY: reads the dependencies, writes the node.
        check(unsafe { entry(&mut node, graph, after.as_ptr(), after.len()) }).map(|()| node)
    }

    /// `cuGraphAddDependencies`. Both lists have the same length.
    pub(crate) fn graph_add_dependencies(
        &self,
        graph: Graph,
        from: &[Node],
        to: &[Node],
    ) -> Result<(), Code> {
        let entry = present(self.graph_add_dependencies)?;
        let count = from.len().min(to.len());
        // SAFETY: reads `count` nodes of each.
        check(unsafe { entry(graph, from.as_ptr(), to.as_ptr(), count) })
    }

    /// `cuGraphGetNodes` for all nodes.
    pub(crate) fn graph_nodes(&self, graph: Graph) -> Result<Vec<Node>, Code> {
        let entry = present(self.graph_nodes)?;
        let mut count = 0;
        // SAFETY: without an array it writes the number of nodes.
        check(unsafe { entry(graph, std::ptr::null_mut(), &mut count) })?;
        let mut nodes = vec![Node::NULL; count.min(MOST_NODES)];
        let mut written = nodes.len();
        if !nodes.is_empty() {
            // SAFETY: writes at most `written` nodes.
            check(unsafe { entry(graph, nodes.as_mut_ptr(), &mut written) })?;
        }
        nodes.truncate(written);
        Ok(nodes)
    }

    /// `cuGraphGetEdges` for all edges.
    pub(crate) fn graph_edges(&self, graph: Graph) -> Result<Vec<(Node, Node)>, Code> {
        let entry = present(self.graph_edges)?;
        let mut count = 0;
        // SAFETY: without arrays it writes the number of edges.
        check(unsafe {
            entry(
                graph,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                &mut count,
            )
        })?;
        let count = count.min(MOST_NODES);
        let (mut from, mut to) = (vec![Node::NULL; count], vec![Node::NULL; count]);
        let mut written = count;
        if count > 0 {
            // SAFETY: writes at most `written` nodes to each.
            check(unsafe { entry(graph, from.as_mut_ptr(), to.as_mut_ptr(), &mut written) })?;
        }
        Ok(from.into_iter().zip(to).take(written).collect())
    }

    /// `cuGraphExecUpdate_v2`. Returns the result structure whether or not the update succeeded.
    pub(crate) fn graph_exec_update(
        &self,
        exec: GraphExec,
        graph: Graph,
    ) -> (UpdateResult, Result<(), Code>) {
        let mut result = UpdateResult::default();
        let Some(entry) = self.graph_exec_update else {
            return (result, Err(Code::NOT_SUPPORTED));
        };
        // SAFETY: writes the structure.
        let code = check(unsafe { entry(exec, graph, &mut result) });
        (result, code)
    }
}

/// A module image followed by a NUL. PTX is a C string; a binary has its length in its header.
#[derive(Debug, Clone)]
pub(crate) struct CStrImage(Vec<u8>);

impl CStrImage {
    /// Appends the NUL. If the image has a header, its length must have been checked against it.
    pub(crate) fn new(mut image: Vec<u8>) -> Self {
        image.push(0);
        Self(image)
    }

    /// The image without the NUL.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0[..self.0.len() - 1]
    }
}
