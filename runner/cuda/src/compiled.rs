//! A cache of device code compiled from PTX, keyed by the PTX, the driver version, and the compute capability.
//!
//! The cache is in memory, up to a size, and in the directory `cuda_module_cache` if that is set. Files in the
//! directory are trusted as much as the runner itself. They are written to a temporary name and renamed, so that they
//! are always complete.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::code::Code;
use crate::device::Backend;
use crate::driver::{CStrImage, Module};
use crate::image::{self, Format};
use crate::service::Cuda;
use crate::settings::Level;

/// Most bytes cached in memory.
const MOST: usize = 64 << 20;

/// Loads an image into the current context.
///
/// # Errors
///
/// The driver's code, and the messages of its compiler.
pub(crate) fn load(
    cuda: &Cuda,
    backend: &Backend,
    capability: (i32, i32),
    image: &CStrImage,
) -> Result<Module, (Code, String)> {
    let driver = &backend.driver;
    if image::format(image.bytes()) != Format::Text {
        return driver.module_load(image);
    }
    let key = key(backend.version, capability, image.bytes());
    if let Some(code) = find(cuda, &key)
        && let Ok(module) = driver.module_load(&CStrImage::new(code.to_vec()))
    {
        return Ok(module);
    }
    match driver.compile(image) {
        Ok(code) if !code.is_empty() && image::check(&code).is_ok() => {
            let code = Arc::new(code);
            keep(cuda, key, &code);
            driver.module_load(&CStrImage::new(code.to_vec()))
        }
        // The driver has no linker, or the text has an error. Loading it reports the error in more detail.
        _ => driver.module_load(image),
    }
}

fn key(version: i32, capability: (i32, i32), text: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for number in [version, capability.0, capability.1] {
        hash.update(number.to_le_bytes());
    }
    hash.update(text);
    hash.finalize().into()
}

fn file(cuda: &Cuda, key: &[u8; 32]) -> Option<PathBuf> {
    let directory = cuda.settings().module_cache.as_ref()?;
    let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(directory.join(name + ".cubin"))
}

fn find(cuda: &Cuda, key: &[u8; 32]) -> Option<Arc<Vec<u8>>> {
    let kept = cuda.compiled.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(code) = kept.get(key) {
        return Some(Arc::clone(code));
    }
    drop(kept);
    let code = std::fs::read(file(cuda, key)?).ok()?;
    image::check(&code).ok()?;
    let code = Arc::new(code);
    remember(cuda, *key, &code);
    Some(code)
}

fn remember(cuda: &Cuda, key: [u8; 32], code: &Arc<Vec<u8>>) {
    let mut kept = cuda.compiled.lock().unwrap_or_else(PoisonError::into_inner);
    let size: usize = kept.values().map(|code| code.len()).sum();
    if size + code.len() > MOST {
        // Guests that compile ever more code make others lose their entries, but do not use more memory.
        kept.clear();
    }
    kept.insert(key, Arc::clone(code));
}

fn keep(cuda: &Cuda, key: [u8; 32], code: &Arc<Vec<u8>>) {
    remember(cuda, key, code);
    let Some(path) = file(cuda, &key) else {
        return;
    };
    let partial = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = std::fs::File::create(&partial)
        .and_then(|mut file| file.write_all(code))
        .and_then(|()| std::fs::rename(&partial, &path));
    if let Err(cause) = written {
        let _ = std::fs::remove_file(&partial);
        cuda.log_once("module cache", Level::Warning, || {
            format!(
                "cuda_module_cache: cannot write {}: {cause}",
                path.display()
            )
        });
    }
}
