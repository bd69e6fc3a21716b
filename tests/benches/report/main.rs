//! Writes the stored results of the benchmarks to `BENCHMARKS.md` and its chart. `make bench` and the targets of
//! single benchmarks run this last. Sections of benchmarks that did not run stay unchanged.

use std::path::Path;
use std::{fs, io};

use faas_wasm_tests::results::{Kept, chart, document};

fn main() -> io::Result<()> {
    let kept = Kept::all()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    update(&root.join("benchmarks.svg"), |old| {
        chart::update(old, &kept)
    })?;
    update(&root.join("BENCHMARKS.md"), |old| {
        document::update(old, &kept)
    })
}

fn update(path: &Path, text: impl FnOnce(&str) -> String) -> io::Result<()> {
    let old = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    fs::write(path, text(&old))
}
