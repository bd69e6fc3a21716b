//! Generates a random module from a seed with wasm-smith. Its loops end, and all engines must agree on its results.

use anyhow::{Context as _, Result};
use arbitrary::Unstructured;
use wasm_smith::{Config, Module};

use crate::determinize;
use crate::random::Random;

/// How often a driver's call may enter a function or a loop. The number is low, so that no recursion reaches the end
/// of a stack.
pub(crate) const FUEL: i32 = 300;

/// Number of random bytes that wasm-smith may use for a module.
const LEAST_ENTROPY: usize = 512;
const MOST_ENTROPY: usize = 6144;
const PAGE: u64 = 65536;

/// A module, and the global that limits its loops and recursion.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    pub(crate) wasm: Vec<u8>,
    /// Index of the global that the driver sets to [`FUEL`] before each call.
    pub(crate) fuel: u32,
}

/// The module for a seed, which is always the same for one version of wasm-smith.
///
/// # Errors
///
/// wasm-smith fails. No such seed is known.
pub(crate) fn module(seed: u64) -> Result<Generated> {
    let mut random = Random::new(seed);
    let config = config(&mut random);
    let entropy = LEAST_ENTROPY + random.below(MOST_ENTROPY - LEAST_ENTROPY);
    let entropy = random.bytes(entropy);
    let mut module = Module::new(config, &mut Unstructured::new(&entropy))
        .context("wasm-smith made no module")?;
    let fuel = module.ensure_termination(FUEL as u32)?;
    let wasm = determinize::rewrite(&module.to_bytes())?;
    Ok(Generated { wasm, fuel })
}

/// The features that a module may use. Each feature is omitted from some modules, because some faults show only if
/// few features are combined, and because a backend that refuses a feature must not refuse most modules.
fn config(random: &mut Random) -> Config {
    let traps = random.chance(1, 2);
    let simd = random.chance(3, 4);
    let reference_types = random.chance(3, 4);
    Config {
        // Features that the engine does not support.
        gc_enabled: false,
        memory64_enabled: false,
        compact_imports_enabled: false,
        max_imports: 0,
        // Values on which engines may differ.
        canonicalize_nans: true,
        // Growth that a host may refuse is bounded by the module.
        memory_max_size_required: true,
        table_max_size_required: true,
        max_memory32_bytes: 4 * PAGE,
        max_table_elements: 64,
        // The driver calls functions by index. Exporting them keeps `ref.func` valid.
        export_everything: true,
        disallow_traps: !traps,
        allow_floats: random.chance(7, 8),
        bulk_memory_enabled: reference_types || random.chance(3, 4),
        exceptions_enabled: random.chance(1, 4),
        extended_const_enabled: random.chance(1, 2),
        multi_value_enabled: random.chance(3, 4),
        reference_types_enabled: reference_types,
        relaxed_simd_enabled: simd && random.chance(1, 2),
        saturating_float_to_int_enabled: random.chance(7, 8),
        sign_extension_ops_enabled: random.chance(7, 8),
        simd_enabled: simd,
        tail_call_enabled: random.chance(1, 6),
        threads_enabled: random.chance(1, 4),
        wide_arithmetic_enabled: random.chance(1, 2),
        max_data_segments: 8,
        max_element_segments: 8,
        max_elements: 16,
        min_funcs: 2,
        max_funcs: 2 + random.below(9),
        min_types: 2,
        max_types: 12,
        max_globals: 8,
        max_instructions: *random.pick(&[20, 60, 100, 200]),
        min_memories: 1,
        max_memories: *random.pick(&[1, 1, 1, 2, 3]),
        max_tables: *random.pick(&[1, 1, 2]),
        max_tags: 4,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_valid_module() {
        for seed in 0..50 {
            let first = module(seed).expect("wasm-smith makes a module");
            let second = module(seed).expect("wasm-smith makes a module");
            assert_eq!(first.wasm, second.wasm);
            let features = wasmparser::WasmFeatures::all();
            let valid =
                wasmparser::Validator::new_with_features(features).validate_all(&first.wasm);
            assert!(valid.is_ok(), "seed {seed}: {:?}", valid.err());
        }
    }
}
