//! The binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    faas_wasm_runner::app::main()
}
