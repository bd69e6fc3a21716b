//! Finds the artifact that `fprocess` names.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use faas_wasm_artifact::HEADER_SIZE;

use crate::process::io_error_text;

/// What the first word of `fprocess` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A compiled artifact.
    Artifact(PathBuf),
    /// Only a WebAssembly module, which has to be compiled first.
    ModuleOnly(PathBuf),
    /// Neither.
    Nothing,
}

/// Looks for the first word of the command as given, with `.so` added, and with `.wasm` replaced by `.so`.
#[must_use]
pub fn find(fprocess: &str) -> Found {
    let word = fprocess.split(' ').next().unwrap_or_default();
    if word.is_empty() {
        return Found::Nothing;
    }
    let given = PathBuf::from(word);
    let replaced = word
        .strip_suffix(".wasm")
        .map(|stem| PathBuf::from(format!("{stem}.so")));
    let candidates = [
        Some(given),
        Some(PathBuf::from(format!("{word}.so"))),
        replaced,
    ];
    if let Some(artifact) = candidates.iter().flatten().find(|path| is_artifact(path)) {
        return Found::Artifact(artifact.clone());
    }
    [word.to_owned(), format!("{word}.wasm")]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| starts_with(path, b"\0asm"))
        .map_or(Found::Nothing, Found::ModuleOnly)
}

/// Why a command cannot be run if its first word has the name of an artifact or a module but [`find`] has found
/// neither. `None` if the word has another name, or is that of a program.
#[must_use]
pub fn complaint(fprocess: &str, search_path: &OsStr) -> Option<String> {
    let word = fprocess.split(' ').next().unwrap_or_default();
    let path = Path::new(word);
    let is_module = word.ends_with(".wasm");
    if !is_module && !word.ends_with(".so") {
        return None;
    }
    let is_program = if word.contains('/') {
        is_executable(path)
    } else {
        std::env::split_paths(search_path).any(|directory| is_executable(&directory.join(word)))
    };
    if is_program {
        return None;
    }
    let problem = match File::open(path) {
        Ok(_) => "it is neither an artifact nor a WebAssembly module".to_owned(),
        Err(error) => io_error_text(&error),
    };
    let place = match std::env::current_dir() {
        Ok(directory) if path.is_relative() => format!(" in {}", directory.display()),
        _ => String::new(),
    };
    let module = path.with_extension("wasm");
    let hint = if !is_module && module.is_file() {
        format!("run `faas-wasm build {}`", module.display())
    } else {
        "build it with `faas-wasm build MODULE.wasm`, or correct the path in fprocess".to_owned()
    };
    Some(format!(
        "no artifact \"{word}\"{place}: {problem}\nhint: {hint}"
    ))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

/// The message that says how to get an artifact for a module.
#[must_use]
pub fn build_hint(module: &Path) -> String {
    format!(
        "{module} is a WebAssembly module and has not been compiled\nhint: run `faas-wasm build {module}`",
        module = module.display()
    )
}

/// An ELF file that ends in an artifact's header, or one whose name says that it should: a damaged artifact must be
/// reported as such and not be run as a program.
fn is_artifact(path: &Path) -> bool {
    let named = path.extension().is_some_and(|extension| extension == "so");
    starts_with(path, b"\x7fELF") && (named || ends_in_header(path).unwrap_or(false))
}

fn ends_in_header(path: &Path) -> std::io::Result<bool> {
    let file = File::open(path)?;
    let Some(start) = file.metadata()?.len().checked_sub(HEADER_SIZE as u64) else {
        return Ok(false);
    };
    let mut end = [0; HEADER_SIZE];
    file.read_exact_at(&mut end, start)?;
    Ok(faas_wasm_artifact::is_artifact(b"\x7fELF", &end))
}

fn starts_with(path: &Path, magic: &[u8; 4]) -> bool {
    let mut found = [0; 4];
    path.is_file()
        && File::open(path)
            .and_then(|mut file| file.read_exact(&mut found))
            .is_ok()
        && found == *magic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_for_artifacts_before_modules() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("a.so"), b"\x7fELF...").expect("written");
        std::fs::write(path("a.wasm"), b"\0asm....").expect("written");
        std::fs::write(path("b.wasm"), b"\0asm....").expect("written");
        std::fs::write(path("text"), b"x").expect("written");
        let found = |name: &str| find(&format!("{} argument", path(name).display()));
        assert_eq!(found("a"), Found::Artifact(path("a.so")));
        assert_eq!(found("a.so"), Found::Artifact(path("a.so")));
        assert_eq!(found("a.wasm"), Found::Artifact(path("a.so")));
        assert_eq!(found("b"), Found::ModuleOnly(path("b.wasm")));
        assert_eq!(found("b.wasm"), Found::ModuleOnly(path("b.wasm")));
        for nothing in ["text", "missing", ""] {
            assert_eq!(found(nothing), Found::Nothing, "{nothing}");
        }
        assert_eq!(find(" cat"), Found::Nothing);
    }
}
