//! Random calls with almost valid values. No call panics, and no address or handle of another owner reaches the driver.

use faas_wasm_artifact::CudaAbi;

use super::{books, with_kernel};
use crate::linker::FUNCTIONS;
use crate::settings::{Isolation, Settings};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[test]
fn random_calls_ask_the_driver_for_nothing_foreign() {
    for (seed, abi, isolation) in [
        (1, CudaAbi::W32, Isolation::Context),
        (2, CudaAbi::W32P64, Isolation::Context),
        (3, CudaAbi::W32, Isolation::Shared),
        (4, CudaAbi::W64, Isolation::Shared),
    ] {
        let settings = Settings {
            isolation,
            mem_limit: 1 << 20,
            ..Settings::default()
        };
        let mut guest = with_kernel_in(abi, settings);
        let mut random = Random(seed);
        for round in 0..20_000 {
            let (names, kinds) = FUNCTIONS[random.below(FUNCTIONS.len())];
            let name = names[random.below(names.len())];
            // Loading is slow, as it starts a thread.
            let is_load = name.contains("Load") || name.contains("Library");
            // With 8-byte pointers the parameters of a launch are not checked.
            let is_launch =
                name.contains("Launch") && abi.device_pointer == faas_wasm_artifact::Width::Eight;
            if (is_load && round % 50 != 0) || is_launch {
                continue;
            }
            let arguments: Vec<_> = kinds
                .iter()
                .map(|_| value(&mut random, &guest.memory.bytes))
                .collect();
            let result = guest.call(name, &arguments);
            assert!(result.is_ok(), "{name} {arguments:x?}: {result:?}");
            books(|books| {
                assert!(
                    books.violations.is_empty(),
                    "{name} {arguments:x?}: {:?}",
                    books.violations
                )
            });
            if round % 64 == 0 {
                let at = random.below(2048) & !3;
                let bytes = value(&mut random, &guest.memory.bytes).to_le_bytes();
                guest.write(at, &bytes);
            }
        }
        guest.end();
    }
}

fn with_kernel_in(abi: CudaAbi, settings: Settings) -> super::Guest {
    match abi {
        CudaAbi::W64 => super::Guest::new(abi, settings),
        abi => with_kernel(abi, settings),
    }
}

/// A small number, an address, or a value from memory, sometimes slightly changed.
fn value(random: &mut Random, memory: &[u8]) -> u64 {
    let at = random.below(512) & !3;
    let long = u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
    let base = match random.below(8) {
        0 => random.below(5) as u64,
        1 => 1 << random.below(64),
        2 | 3 => at as u64,
        4 => long,
        5 | 6 => long & 0xffff_ffff,
        _ => random.next(),
    };
    match random.below(6) {
        0 => base.wrapping_add(random.below(64) as u64),
        1 => base.wrapping_sub(1),
        _ => base,
    }
}
