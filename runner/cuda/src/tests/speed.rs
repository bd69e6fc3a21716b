//! What a call costs beside the driver's own time. The mock's time is in it, so the real figure is lower.

use std::time::Instant;

use faas_wasm_artifact::CudaAbi;

use super::with_kernel;
use crate::settings::Settings;

const ROUNDS: u32 = 50_000;

#[test]
#[ignore = "a measurement: make bench-cuda-calls"]
#[expect(clippy::print_stdout, reason = "its result")]
fn cost_of_calls() {
    for abi in [CudaAbi::W32, CudaAbi::W32P64] {
        let mut guest = with_kernel(abi, Settings::default());
        let (kernel, memory) = (guest.word(64), guest.long(72));
        let memory = if abi == CudaAbi::W32 {
            memory & 0xffff_ffff
        } else {
            memory
        };
        for (index, at) in [256u32, 264, 272, 280].into_iter().enumerate() {
            guest.write(300 + index * 4, &at.to_le_bytes());
        }
        guest.write(256, &memory.to_le_bytes());
        guest.write(264, &memory.to_le_bytes());
        let mut measure = |name: &str, arguments: &[u64]| {
            let mut best = f64::INFINITY;
            for _ in 0..5 {
                let began = Instant::now();
                for _ in 0..ROUNDS {
                    guest.ok(name, arguments);
                }
                best = best.min(began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
            }
            println!("{abi}: {name:<20} {best:.3} us");
        };
        measure("cuDeviceGetCount", &[400]);
        measure("cuMemGetInfo_v2", &[400, 408]);
        measure("cuStreamQuery", &[0]);
        measure("cuMemsetD8_v2", &[memory, 0, 16]);
        measure("cuMemcpyHtoD_v2", &[memory, 4096, 16]);
        measure("cuLaunchKernel", &[kernel, 1, 1, 1, 1, 1, 1, 0, 0, 300, 0]);
        let began = Instant::now();
        for _ in 0..ROUNDS {
            guest.ok("cuMemAlloc_v2", &[400, 64]);
            let address = guest.long(400);
            guest.ok(
                "cuMemFree_v2",
                &[if abi == CudaAbi::W32 {
                    address & 0xffff_ffff
                } else {
                    address
                }],
            );
        }
        let pair = began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
        println!("{abi}: {:<20} {pair:.3} us", "cuMemAlloc + cuMemFree");
        guest.end();
    }
}
