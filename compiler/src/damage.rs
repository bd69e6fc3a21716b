//! Feeds damaged modules to the whole build: whatever they are, the answer is an artifact that
//! reads back or an error of the input's, never a panic or an error of ours.
//!
//! The damages are the same each time. A module that is still valid is compiled with Cranelift,
//! which takes milliseconds.

use std::path::Path;

use faas_wasm_artifact::{Artifact, Backend};

use crate::build::{self, Options};
use crate::error::{Error, Exit};
use crate::input;

/// Takes a second or two.
const ROUNDS: usize = 600;

/// Something in every section that the pipeline rewrites.
const TEXT: &str = r#"(module
    (type $callback (func (param i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (type $callback)))
    (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
    (memory (export "memory") 2 9)
    (table $fixed 3 3 funcref)
    (table $open 2 funcref)
    (global $count (mut i64) (i64.const 3))
    (global $callback (mut funcref) (ref.func $exit))
    (elem (table $fixed) (i32.const 1) func $exit $own)
    (elem $passive funcref (ref.func $yield) (ref.null func))
    (data (i32.const 16) "low")
    (data (i32.const 65530) "across two pages")
    (data $kept "passive")
    (func $own (type $callback) (i32.store (local.get 0) (call $yield)))
    (func (export "_start") (local i64 f64)
        (table.init $open $passive (i32.const 0) (i32.const 0) (i32.const 2))
        (memory.init $kept (i32.const 0) (i32.const 0) (i32.const 7))
        (data.drop $kept)
        (table.set $open (i32.const 1) (ref.func $own))
        (block $done (loop $again
            (br_if $done (i64.eqz (local.get 0)))
            (local.set 0 (i64.div_u (local.get 0) (i64.const 3)))
            (br $again)))
        (call_indirect $fixed (type $callback) (i32.const 8) (i32.const 2))
        (call_indirect $open (type $callback) (i32.const 7) (i32.const 1))))"#;

/// Numbers without order, the same ones each time (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// Changes, removes, repeats or inserts a few bytes behind the magic number and version.
    fn damage(&mut self, wasm: &mut Vec<u8>) {
        for _ in 0..1 + self.below(3) {
            let at = 8 + self.below(wasm.len() - 8);
            let byte = self.below(256) as u8;
            match self.below(8) {
                0 => drop(wasm.remove(at)),
                1 => wasm.insert(at, byte),
                2 => wasm.truncate(at.max(9)),
                3 => {
                    let end = (at + self.below(16)).min(wasm.len());
                    let copy = wasm[at..end].to_vec();
                    wasm.splice(at..at, copy);
                }
                // Small changes are likelier to leave a valid module.
                4 | 5 => wasm[at] ^= 1,
                _ => wasm[at] = byte,
            }
        }
    }
}

fn build(directory: &Path, wasm: &[u8], options: &Options) -> Result<Vec<u8>, Error> {
    let input = directory.join("a.wasm");
    let output = directory.join("a.so");
    std::fs::write(&input, wasm).expect("it can be written");
    let wasm = input::read(&input)?;
    build::build_from(
        &input,
        &wasm,
        &output,
        options,
        &build::Extras::default(),
        true,
    )?;
    Ok(std::fs::read(&output).expect("it was written"))
}

#[test]
fn damaged_modules_are_rejected_or_become_artifacts() {
    let wasm = wat::parse_str(TEXT).expect("the text is correct");
    let options = build::tests::options(Backend::Cranelift, 1);
    let directory = tempfile::tempdir().expect("a directory");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    build(directory.path(), &wasm, &options).unwrap_or_else(|error| panic!("{}", error.report()));
    let mut built = 0;
    for round in 0..ROUNDS {
        let mut damaged = wasm.clone();
        random.damage(&mut damaged);
        match build(directory.path(), &damaged, &options) {
            Ok(file) => {
                built += 1;
                Artifact::parse(&file).unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
            Err(error) => {
                let failed = matches!(error.exit(), Exit::Failed);
                assert!(failed, "round {round}: {}", error.report());
            }
        }
    }
    // Otherwise the test would see one side only.
    assert!(
        (10..ROUNDS).contains(&built),
        "{built} of {ROUNDS} were built"
    );
}
