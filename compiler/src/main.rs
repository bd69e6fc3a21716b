//! The program `faas-wasm`. Everything is in the library, so that it can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    faas_wasm::main()
}
