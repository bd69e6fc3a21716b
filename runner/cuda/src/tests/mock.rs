//! A driver inside the test process that records what it is asked.
//!
//! It tracks the ranges of device memory that it has allocated, and records every address outside them as a violation.

#![allow(unsafe_code, reason = "it has the driver's C functions")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "the same for all: callers pass valid pointers for results, as the driver's interface requires"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, PoisonError};

use crate::driver::SymbolSource;

/// The state of the driver.
#[derive(Debug, Default)]
pub(super) struct Books {
    memory: BTreeMap<u64, u64>,
    host: BTreeMap<usize, usize>,
    objects: BTreeMap<usize, &'static str>,
    next: u64,
    /// Calls that a correct host never makes.
    pub(super) violations: Vec<String>,
    /// Parameters of the last launch.
    pub(super) launched: Vec<u64>,
    /// How often queries still return "not ready".
    pub(super) busy: u32,
}

static BOOKS: Mutex<Option<Books>> = Mutex::new(None);
/// Offset and size of the parameters of every kernel: two pointers, a number, and a word.
const PARAMETERS: [(usize, usize); 4] = [(0, 8), (8, 8), (16, 8), (24, 4)];

/// Accesses the state of the driver.
pub(super) fn books<R>(look: impl FnOnce(&mut Books) -> R) -> R {
    let mut books = BOOKS.lock().unwrap_or_else(PoisonError::into_inner);
    look(books.get_or_insert_default())
}

impl Books {
    fn add(&mut self, kind: &'static str) -> usize {
        self.next += 1;
        let handle = 0x1000_0000 + self.next as usize * 16;
        self.objects.insert(handle, kind);
        handle
    }

    fn take(&mut self, kind: &'static str, handle: usize) -> u32 {
        if self.objects.get(&handle) == Some(&kind) {
            self.objects.remove(&handle);
            return 0;
        }
        self.violations.push(format!("{kind} {handle:#x} is none"));
        400
    }

    fn owned(&mut self, address: u64, length: usize) -> u32 {
        let range = self.memory.range(..=address).next_back();
        if range.is_some_and(|(base, size)| address + length as u64 <= base + size) {
            return 0;
        }
        self.violations
            .push(format!("{address:#x}+{length:#x} is nobody's"));
        1
    }

    /// Number of live objects.
    pub(super) fn left(&self) -> usize {
        self.memory.len() + self.host.len() + self.objects.len()
    }
}

macro_rules! functions {
    ($($symbol:literal => fn $name:ident($($argument:ident: $ty:ty),*) $body:block)*) => {
        $(unsafe extern "C" fn $name($($argument: $ty),*) -> u32 $body)*

        impl SymbolSource for Mock {
            fn symbol(&self, name: &CStr) -> *mut c_void {
                match name.to_bytes() {
                    $($symbol => $name as *mut c_void,)*
                    _ => std::ptr::null_mut(),
                }
            }
        }
    };
}

/// The source of the entry points.
pub(super) struct Mock;

functions! {
    b"cuInit" => fn init(_flags: u32) { 0 }
    b"cuDriverGetVersion" => fn version(out: *mut i32) { unsafe { *out = 13_000 }; 0 }
    b"cuDeviceGetCount" => fn count(out: *mut i32) { unsafe { *out = 1 }; 0 }
    b"cuDeviceGet" => fn device(out: *mut i32, ordinal: i32) { unsafe { *out = ordinal }; 0 }
    b"cuDeviceGetName" => fn name(out: *mut u8, _length: i32, _device: i32) {
        unsafe { out.copy_from(c"mock".as_ptr().cast(), 5) };
        0
    }
    b"cuDeviceGetAttribute" => fn attribute(out: *mut i32, _attribute: u32, _device: i32) { unsafe { *out = 1024 }; 0 }
    b"cuDeviceTotalMem_v2" => fn total(out: *mut usize, _device: i32) { unsafe { *out = 1 << 37 }; 0 }
    b"cuMemGetInfo_v2" => fn info(free: *mut usize, total: *mut usize) {
        unsafe { (*free, *total) = (1 << 36, 1 << 37) };
        0
    }
    b"cuCtxCreate_v2" => fn context_create(out: *mut usize, _flags: u32, _device: i32) {
        unsafe { *out = books(|books| books.add("context")) };
        0
    }
    b"cuCtxDestroy_v2" => fn context_destroy(context: usize) { books(|books| books.take("context", context)) }
    b"cuCtxSetCurrent" => fn set_current(context: usize) {
        books(|books| {
            if context != 0 && books.objects.get(&context) != Some(&"context") {
                books.violations.push(format!("context {context:#x} is none"));
                return 201;
            }
            0
        })
    }
    b"cuStreamCreateWithPriority" => fn stream_create(out: *mut usize, _flags: u32, _priority: i32) {
        unsafe { *out = books(|books| books.add("stream")) };
        0
    }
    b"cuStreamDestroy_v2" => fn stream_destroy(stream: usize) { books(|books| books.take("stream", stream)) }
    b"cuStreamQuery" => fn stream_query(_stream: usize) {
        books(|books| {
            let busy = books.busy > 0;
            books.busy = books.busy.saturating_sub(1);
            if busy { 600 } else { 0 }
        })
    }
    b"cuEventCreate" => fn event_create(out: *mut usize, _flags: u32) {
        unsafe { *out = books(|books| books.add("event")) };
        0
    }
    b"cuEventDestroy_v2" => fn event_destroy(event: usize) { books(|books| books.take("event", event)) }
    b"cuEventRecord" => fn event_record(_event: usize, _stream: usize) { 0 }
    b"cuEventQuery" => fn event_query(_event: usize) { 0 }
    b"cuMemAllocHost_v2" => fn alloc_host(out: *mut *mut u8, length: usize) {
        let memory = Box::leak(vec![0u8; length].into_boxed_slice());
        books(|books| books.host.insert(memory.as_ptr() as usize, length));
        unsafe { *out = memory.as_mut_ptr() };
        0
    }
    b"cuMemFreeHost" => fn free_host(memory: *mut u8) {
        match books(|books| books.host.remove(&(memory as usize))) {
            Some(length) => {
                drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(memory, length)) });
                0
            }
            None => 1,
        }
    }
    b"cuMemAlloc_v2" => fn alloc(out: *mut u64, length: usize) {
        books(|books| {
            books.next += 1;
            let address = 0x7f00_0000_0000 + books.next * (4 << 30);
            books.memory.insert(address, length as u64);
            unsafe { *out = address };
        });
        0
    }
    b"cuMemFree_v2" => fn free(address: u64) {
        books(|books| match books.memory.remove(&address) {
            Some(_) => 0,
            None => { books.violations.push(format!("{address:#x} is freed")); 1 }
        })
    }
    b"cuMemcpyHtoDAsync_v2" => fn to_device(to: u64, _from: *const u8, length: usize, _stream: usize) {
        books(|books| books.owned(to, length))
    }
    b"cuMemcpyDtoHAsync_v2" => fn from_device(_to: *mut u8, from: u64, length: usize, _stream: usize) {
        books(|books| books.owned(from, length))
    }
    b"cuMemcpyDtoDAsync_v2" => fn on_device(to: u64, from: u64, length: usize, _stream: usize) {
        books(|books| books.owned(to, length).max(books.owned(from, length)))
    }
    b"cuMemcpy3DAsync_v2" => fn planes(copy: *const crate::driver::Memcpy3D, _stream: usize) {
        let copy = unsafe { *copy };
        books(|books| {
            for side in [copy.from, copy.to] {
                let rows = (copy.depth - 1) * side.pitch * side.height + (copy.height - 1) * side.pitch;
                books.owned(side.device, rows + copy.width);
            }
        });
        0
    }
    b"cuMemsetD8Async" => fn set_8(to: u64, _value: u8, count: usize, _stream: usize) {
        books(|books| books.owned(to, count))
    }
    b"cuMemsetD16Async" => fn set_16(to: u64, _value: u16, count: usize, _stream: usize) {
        books(|books| books.owned(to, count * 2))
    }
    b"cuMemsetD32Async" => fn set_32(to: u64, _value: u32, count: usize, _stream: usize) {
        books(|books| books.owned(to, count * 4))
    }
    b"cuMemsetD2D8Async" => fn set_rows(to: u64, pitch: usize, _value: u8, width: usize, height: usize, _stream: usize) {
        books(|books| books.owned(to, (height - 1) * pitch + width))
    }
    b"cuModuleLoadDataEx" => fn load(out: *mut usize, _image: *const c_void, _count: u32, _options: *mut u32, _values: *mut *mut c_void) {
        unsafe { *out = books(|books| books.add("module")) };
        0
    }
    b"cuModuleUnload" => fn unload(module: usize) { books(|books| books.take("module", module)) }
    b"cuModuleGetFunction" => fn function(out: *mut usize, module: usize, _name: *const c_char) {
        unsafe { *out = module + 8 };
        0
    }
    b"cuFuncGetParamInfo" => fn parameter(_function: usize, index: usize, offset: *mut usize, size: *mut usize) {
        match PARAMETERS.get(index) {
            Some(parameter) => { unsafe { (*offset, *size) = *parameter }; 0 }
            None => 1,
        }
    }
    b"cuLaunchKernel" => fn launch(
        _function: usize, _gx: u32, _gy: u32, _gz: u32, _bx: u32, _by: u32, _bz: u32, _shared: u32, _stream: usize,
        parameters: *mut *mut c_void, _extra: *mut *mut c_void
    ) {
        let values = (0..3).map(|index| unsafe { (*parameters.add(index)).cast::<u64>().read_unaligned() });
        let values: Vec<_> = values.collect();
        books(|books| {
            // The first two are pointers.
            for address in values.iter().take(2).filter(|address| **address != 0) {
                books.owned(*address, 0);
            }
            books.launched = values;
        });
        0
    }
}
