//! Measures calls, launches, copies and a matrix product in a native program that uses the crate cust, and prints the
//! same lines as `fixtures/cuda/bench.c` for the same kernels.
//!
//! Arguments: the kernels' PTX, the size of the copies in bytes, and the rows of the matrices; 0 skips a measurement.

use std::error::Error;
use std::time::Instant;

use cust::memory::{CopyDestination as _, DeviceBuffer, mem_get_info};
use cust::prelude::{Module, Stream, StreamFlags};

const BATCHES: usize = 20;
const CALLS: usize = 500;
const LAUNCHES: usize = 200;
const TIMES: usize = 5;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The best of several batches, in microseconds per call.
fn measure(
    name: &str,
    calls: usize,
    mut call: impl FnMut() -> Outcome,
    mut after: impl FnMut() -> Outcome,
) -> Outcome {
    let mut best = f64::INFINITY;
    for _ in 0..BATCHES {
        let began = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        best = best.min(began.elapsed().as_secs_f64() * 1e6 / calls as f64);
        after()?;
    }
    println!("{name} {best:.4} us");
    Ok(())
}

fn device_bytes(size: usize) -> Outcome<DeviceBuffer<u8>> {
    // SAFETY: nothing reads them before they are written, and bytes have no invalid values.
    Ok(unsafe { DeviceBuffer::uninitialized(size) }?)
}

fn calls(module: &Module, stream: &Stream) -> Outcome {
    let eight = module.get_function("eight")?;
    let mut memory = device_bytes(16)?;
    let mut bytes = [0; 16];
    let nothing = || Ok(());
    let wait = || Ok(stream.synchronize()?);
    measure(
        "cuDeviceGetCount",
        CALLS,
        || {
            cust::device::Device::num_devices()
                .map(drop)
                .map_err(Into::into)
        },
        nothing,
    )?;
    measure(
        "cuMemGetInfo",
        CALLS,
        || mem_get_info().map(drop).map_err(Into::into),
        nothing,
    )?;
    measure(
        "cuMemAlloc_cuMemFree",
        CALLS,
        || device_bytes(4096).map(drop),
        nothing,
    )?;
    measure("cuMemsetD8_16", LAUNCHES, || Ok(memory.set_8(0)?), nothing)?;
    measure(
        "cuMemcpyHtoD_16",
        LAUNCHES,
        || Ok(memory.copy_from(&bytes)?),
        nothing,
    )?;
    measure(
        "cuMemcpyDtoH_16",
        LAUNCHES,
        || Ok(memory.copy_to(&mut bytes)?),
        nothing,
    )?;
    let pointer = memory.as_device_ptr();
    let launch = || {
        // SAFETY: the kernel has these parameters and does nothing.
        let launched = unsafe {
            cust::launch!(eight<<<1, 1, 0, stream>>>(
                pointer, pointer, pointer, pointer, 4096_u64, 2.0_f64, 1024_i32, 1.0_f32
            ))
        };
        Ok(launched?)
    };
    measure("cuLaunchKernel_8", LAUNCHES, launch, wait)?;
    let all = || {
        for _ in 0..LAUNCHES {
            launch()?;
        }
        wait()
    };
    measure("launches_with_end", 1, all, nothing)
}

fn copies(size: usize) -> Outcome {
    let mut bytes = vec![1_u8; size];
    let mut memory = device_bytes(size)?;
    let (mut to, mut from) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..TIMES {
        let began = Instant::now();
        memory.copy_from(&bytes[..])?;
        to = to.min(began.elapsed().as_secs_f64());
        let began = Instant::now();
        memory.copy_to(&mut bytes[..])?;
        from = from.min(began.elapsed().as_secs_f64());
    }
    let rate = |time: f64| size as f64 / time * 1e-9;
    println!("copy_to_device {:.3} GB/s", rate(to));
    println!("copy_from_device {:.3} GB/s", rate(from));
    Ok(())
}

fn product(module: &Module, stream: &Stream, rows: usize) -> Outcome {
    let matmul = module.get_function("matmul")?;
    let matrix = || DeviceBuffer::from_slice(&vec![0.0_f32; rows * rows]);
    let (a, b, c) = (matrix()?, matrix()?, matrix()?);
    let blocks = rows.div_ceil(16) as u32;
    let mut best = f64::INFINITY;
    for _ in 0..TIMES {
        let began = Instant::now();
        // SAFETY: the kernel has these parameters, and the matrices as many rows and columns.
        unsafe {
            cust::launch!(matmul<<<(blocks, blocks), (16, 16), 0, stream>>>(
                a.as_device_ptr(), b.as_device_ptr(), c.as_device_ptr(), rows as i32
            ))
        }?;
        stream.synchronize()?;
        best = best.min(began.elapsed().as_secs_f64() * 1e6);
    }
    println!("matrix_product {best:.3} us");
    Ok(())
}

fn main() -> Outcome {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [kernels, size, rows] = &arguments[..] else {
        return Err("usage: faas-wasm-cust-rival KERNELS BYTES ROWS".into());
    };
    let text = std::fs::read_to_string(kernels)?;
    let (size, rows) = (size.parse()?, rows.parse()?);
    let _context = cust::quick_init()?;
    let module = Module::from_ptx(text, &[])?;
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None)?;
    calls(&module, &stream)?;
    if size > 0 {
        copies(size)?;
    }
    if rows > 0 {
        product(&module, &stream, rows)?;
    }
    Ok(())
}
