//! Compiled code that is kept for the next build.
//!
//! ```text
//! DIRECTORY/functions/ab/cdef...   code of a function or trampoline, see `store`
//! DIRECTORY/artifacts/ab/cdef...   whole artifacts, for `run` and `serve`
//! ```
//!
//! An entry is named by a hash of everything that its content depends on, this program's build
//! included, so that it never becomes wrong; it is only used or not. A file appears complete, has a
//! checksum, and is removed when it is damaged. Nothing locks: builds that run at once, on one
//! machine or in several containers with one mounted directory, at worst do the same work twice.
//! Whoever can write the directory decides what code comes out of a build.

mod build_id;
mod store;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use self::store::Store;
use crate::error::Error;

/// Names the directory if no option does.
pub(crate) const VARIABLE: &str = "FAAS_WASM_CACHE_DIR";
/// Name of our directory in the one for all programs' caches.
const NAME: &str = "faas-wasm";

/// Name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Makes a [`Key`] of parts; where one ends matters.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// For something that depends on this program.
    pub(crate) fn new() -> Self {
        let mut builder = Self::default();
        builder.add(build_id::get());
        builder
    }

    pub(crate) fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    pub(crate) fn finish(self) -> Key {
        Key(self.0.finalize().into())
    }
}

/// Where compiled code is kept, or that it is not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cache {
    open: Option<Arc<Open>>,
}

#[derive(Debug)]
struct Open {
    directory: PathBuf,
    limit: u64,
    functions: Store,
    artifacts: Store,
    written: AtomicU64,
}

/// How the cache was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) off: bool,
    /// Size in bytes that it may have.
    pub(crate) limit: u64,
}

impl Cache {
    /// Opens the cache that is wished for. Where there is no place for one there is none.
    ///
    /// # Errors
    ///
    /// The directory was named, and cannot be made.
    pub(crate) fn open(wish: &Wish) -> Result<Self, Error> {
        if wish.off {
            return Ok(Self::default());
        }
        let named = wish
            .directory
            .clone()
            .or_else(|| variable(VARIABLE).map(PathBuf::from));
        let Some(directory) = named.clone().or_else(|| default_directory(variable)) else {
            return Ok(Self::default());
        };
        match Self::at(&directory, wish.limit) {
            Ok(cache) => Ok(cache),
            Err(source) if named.is_some() => Err(Error::CacheDir {
                path: directory,
                source,
            }),
            // A home that cannot be written, as in many containers, is no reason to fail.
            Err(_) => Ok(Self::default()),
        }
    }

    /// The cache in a directory, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn at(directory: &Path, limit: u64) -> io::Result<Self> {
        let functions = Store::open(&directory.join("functions"))?;
        let artifacts = Store::open(&directory.join("artifacts"))?;
        Ok(Self {
            open: Some(Arc::new(Open {
                directory: directory.into(),
                limit,
                functions,
                artifacts,
                written: AtomicU64::new(0),
            })),
        })
    }

    /// Whether anything is kept.
    pub(crate) fn is_on(&self) -> bool {
        self.open.is_some()
    }

    /// The code of a function.
    pub(crate) fn function(&self, key: &Key) -> Option<Vec<u8>> {
        self.open.as_ref()?.functions.get(key)
    }

    /// Keeps the code of a function. That it cannot be kept is no reason to fail.
    pub(crate) fn keep_function(&self, key: &Key, code: &[u8]) {
        if let Some(open) = &self.open
            && open.functions.put(key, code).is_ok()
        {
            open.written.fetch_add(code.len() as u64, Ordering::Relaxed);
        }
    }

    /// Where an artifact lies if it is kept, and can be written.
    pub(crate) fn artifact_path(&self, key: &Key) -> Option<PathBuf> {
        Some(self.open.as_ref()?.artifacts.path_to_write(key))
    }

    /// Tells that an artifact is used.
    pub(crate) fn used_artifact(&self, path: &Path) {
        store::touch(path);
    }

    /// Tells that an artifact was added, which is used now and stays whatever its size.
    pub(crate) fn added_artifact(&self, path: &Path) {
        if let Some(open) = &self.open {
            open.written.fetch_add(1, Ordering::Relaxed);
        }
        self.prune(Some(path));
    }

    /// Removes what was not used for longest but for one file, if something was added and it is too
    /// much now.
    pub(crate) fn prune(&self, keep: Option<&Path>) {
        let Some(open) = &self.open else { return };
        if open.written.swap(0, Ordering::Relaxed) > 0 {
            store::prune(&open.directory, open.limit, keep);
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn default_directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let base = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        // Others are to be ignored, its specification says.
        .filter(|directory| directory.is_absolute())
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
    Some(base.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_follows_the_conventions() {
        let find = |set: &[(&str, &str)]| {
            let set = set.to_vec();
            default_directory(move |name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).into())
            })
        };
        let (xdg, home) = (("XDG_CACHE_HOME", "/x"), ("HOME", "/h"));
        assert_eq!(find(&[xdg, home]), Some("/x/faas-wasm".into()));
        assert_eq!(find(&[home]), Some("/h/.cache/faas-wasm".into()));
        let relative = ("XDG_CACHE_HOME", "x");
        assert_eq!(find(&[relative, home]), Some("/h/.cache/faas-wasm".into()));
        assert_eq!(find(&[]), None);
    }

    #[test]
    fn keys_know_where_parts_end() {
        let key = |parts: &[&[u8]]| {
            let mut builder = KeyBuilder::default();
            parts.iter().for_each(|part| builder.add(part));
            builder.finish()
        };
        assert_eq!(key(&[b"ab", b"c"]), key(&[b"ab", b"c"]));
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
