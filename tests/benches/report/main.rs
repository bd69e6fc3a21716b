//! Makes `BENCHMARKS.md` and its chart of the results that the benchmarks have left. `make bench`
//! runs this at its end.

mod chart;
mod document;
mod machine;

use std::path::Path;
use std::{fs, io};

use faas_wasm_tests::results::Results;

fn main() -> io::Result<()> {
    let results = Results::kept()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::write(root.join("benchmarks.svg"), chart::draw(&results))?;
    let document = document::write(&results, &machine::describe()?);
    fs::write(root.join("BENCHMARKS.md"), document)
}
