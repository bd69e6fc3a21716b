//! Safe calls of the driver over a table of entry points.
//!
//! ```text
//! SymbolSource   source of entry points: a library, or the functions of a test
//! EntryPoints    the table, and calls that take only values                        (unsafe: table.rs)
//! calls          calls that take host memory                                       (unsafe: calls.rs)
//! Library        dlopen                                                            (unsafe: library.rs)
//! current        the current context of each thread
//! ```
//!
//! This module knows nothing of guests. The structures below are those of the driver in its 64-bit layout.

mod calls;
mod current;
mod library;
mod table;

pub(crate) use calls::{Arguments, CStrImage, HostBuffer, LaunchShape};
pub(crate) use current::{clear_current, set_current};
pub(crate) use library::Library;
pub(crate) use table::{
    Context, EntryPoints, Event, Function, Graph, GraphExec, Module, Node, Pool, Stream,
    SymbolSource,
};

/// `CU_MEMORYTYPE_HOST` and `CU_MEMORYTYPE_DEVICE`: the memory of one side of a copy.
pub(crate) const MEMORY_HOST: u32 = 1;
pub(crate) const MEMORY_DEVICE: u32 = 2;

/// `CUDA_MEMCPY2D_v2`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Memcpy2D {
    pub(crate) from: Side2D,
    pub(crate) to: Side2D,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// One side of a [`Memcpy2D`].
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Side2D {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) memory: u32,
    pub(crate) host: usize,
    pub(crate) device: u64,
    pub(crate) array: usize,
    pub(crate) pitch: usize,
}

/// `CUDA_MEMCPY3D_v2`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Memcpy3D {
    pub(crate) from: Side3D,
    pub(crate) to: Side3D,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) depth: usize,
}

/// One side of a [`Memcpy3D`].
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Side3D {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) z: usize,
    pub(crate) level: usize,
    pub(crate) memory: u32,
    pub(crate) host: usize,
    pub(crate) device: u64,
    pub(crate) array: usize,
    pub(crate) reserved: usize,
    pub(crate) pitch: usize,
    pub(crate) height: usize,
}

/// `CUmemPoolProps`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct PoolProperties {
    /// `CU_MEM_ALLOCATION_TYPE_PINNED` is 1.
    pub(crate) allocation: u32,
    pub(crate) handles: u32,
    /// `CU_MEM_LOCATION_TYPE_DEVICE` is 1.
    pub(crate) location: u32,
    pub(crate) device: i32,
    pub(crate) security: usize,
    pub(crate) max_size: usize,
    pub(crate) usage: u16,
    pub(crate) reserved: [u8; 54],
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct KernelNode {
    pub(crate) function: Function,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
    pub(crate) parameters: usize,
    pub(crate) extra: usize,
    pub(crate) kernel: usize,
    pub(crate) context: Context,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct MemsetNode {
    pub(crate) to: u64,
    pub(crate) pitch: usize,
    pub(crate) value: u32,
    pub(crate) element: u32,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// `CUlaunchAttribute`: the number and the bytes of the value.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct LaunchAttribute {
    pub(crate) id: u32,
    pub(crate) padding: u32,
    pub(crate) value: [u8; 64],
}

/// `CUlaunchConfig`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct LaunchConfig {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
    pub(crate) stream: Stream,
    pub(crate) attributes: usize,
    pub(crate) attribute_count: u32,
}

/// `CUgraphExecUpdateResultInfo`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct UpdateResult {
    pub(crate) result: u32,
    pub(crate) node: Node,
    pub(crate) from: Node,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_drivers_sizes() {
        assert_eq!(size_of::<Memcpy2D>(), 128);
        assert_eq!(size_of::<Memcpy3D>(), 200);
        assert_eq!(size_of::<PoolProperties>(), 88);
        assert_eq!(size_of::<KernelNode>(), 72);
        assert_eq!(size_of::<MemsetNode>(), 40);
        assert_eq!(size_of::<LaunchAttribute>(), 72);
        assert_eq!(size_of::<LaunchConfig>(), 56);
        assert_eq!(size_of::<UpdateResult>(), 24);
        assert_eq!(std::mem::offset_of!(LaunchConfig, stream), 32);
        assert_eq!(std::mem::offset_of!(KernelNode, parameters), 40);
        assert_eq!(std::mem::offset_of!(Memcpy2D, width), 112);
    }
}
