//! `wasm_perf_map`: tells `perf` the names of the guest's functions.
//!
//! Compiled code is mapped from the artifact in a way that `perf` does not follow, so that it looks
//! for a file that is named after the process, as it does for just-in-time compilers.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use faas_wasm_engine::Module;

/// Writes the map of this process; returns its path.
///
/// # Errors
///
/// What the file system says.
pub(super) fn write(module: &Module) -> io::Result<PathBuf> {
    let path = PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()));
    write_to(&path, &module.perf_map())?;
    Ok(path)
}

/// Replaces a file that an earlier process of this number has left. A link that somebody else has
/// put there is not followed: the file is always a new one.
fn write_to(path: &Path, map: &str) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(map.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_is_there_and_follows_no_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, other) = (directory.path().join("map"), directory.path().join("other"));
        std::fs::write(&other, "untouched").expect("it can be written");
        std::os::unix::fs::symlink(&other, &path).expect("a link");
        for content in ["1000 10 a\n", "2000 10 b\n"] {
            write_to(&path, content).expect("it can be written");
            assert_eq!(
                std::fs::read_to_string(&path).expect("it is there"),
                content
            );
        }
        assert_eq!(
            std::fs::read_to_string(&other).expect("it is there"),
            "untouched"
        );
    }
}
