//! Entries as files.
//!
//! ```text
//! magic (8 bytes)   key (32)   XXH3-128 of the content (16, little-endian)   content
//! ```
//!
//! The modification time tells when an entry was last used, at most an hour late.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::xxh3_128;

use super::Key;

const MAGIC: &[u8; 8] = b"fwcache1";
const HEAD: usize = 8 + 32 + 16;
/// The use of an entry is noted no more often.
const TOUCH_INTERVAL: Duration = Duration::from_secs(3600);
/// A file of a build that did not finish is garbage after so long.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);
/// Start of the names of files that are being written.
const TEMPORARY: &str = ".tmp-";
/// Pruning leaves this part of the limit, so that not every build has to prune.
const KEEP: (u64, u64) = (9, 10);

/// A directory of entries.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.into(),
        })
    }

    /// The file of an entry: a directory for each first byte.
    fn path(&self, key: &Key) -> PathBuf {
        let name = key.hex();
        let (first, rest) = name.split_at(2);
        self.directory.join(first).join(rest)
    }

    /// The same, in a directory that is there if it can be made. Who writes there is told if not.
    pub(super) fn path_to_write(&self, key: &Key) -> PathBuf {
        let path = self.path(key);
        if let Some(directory) = path.parent() {
            let _ = std::fs::create_dir_all(directory);
        }
        path
    }

    /// The content of an entry. A damaged one is removed.
    pub(super) fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut file = std::fs::read(&path).ok()?;
        if check(&file, key) {
            touch(&path);
            file.drain(..HEAD);
            return Some(file);
        }
        // Somebody may have replaced it by now, who would have to do it again.
        let _ = std::fs::remove_file(path);
        None
    }

    /// Adds an entry, or replaces it.
    pub(super) fn put(&self, key: &Key, content: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let (temporary, mut file) = create(&path)?;
        let write = |file: &mut File| {
            let mut head = Vec::with_capacity(HEAD + content.len());
            head.extend(MAGIC);
            head.extend(key.as_bytes());
            head.extend(xxh3_128(content).to_le_bytes());
            head.extend(content);
            file.write_all(&head)
        };
        // Not synced: after a crash the checksum tells, and an entry is only work.
        let result = write(&mut file).and_then(|()| std::fs::rename(&temporary, &path));
        if result.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        result
    }
}

fn check(file: &[u8], key: &Key) -> bool {
    let Some((head, content)) = file.split_at_checked(HEAD) else {
        return false;
    };
    head.starts_with(MAGIC)
        && head[8..40] == *key.as_bytes()
        && head[40..] == xxh3_128(content).to_le_bytes()
}

/// A new file beside `path`, whose directory is made if need be.
fn create(path: &Path) -> io::Result<(PathBuf, File)> {
    loop {
        let random = RandomState::new().build_hasher().finish();
        let temporary = path.with_file_name(format!("{TEMPORARY}{random:016x}"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary);
        match file {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(Path::new("."));
                // An error here ends the loop; a directory that vanishes again is made again.
                std::fs::create_dir_all(directory)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Notes that a file is used now.
pub(super) fn touch(path: &Path) {
    let touch = || {
        let used = path.metadata()?.modified()?;
        if used.elapsed().unwrap_or(Duration::MAX) > TOUCH_INTERVAL {
            File::open(path)?.set_modified(SystemTime::now())?;
        }
        io::Result::Ok(())
    };
    // It would only be removed sooner; a cache may be mounted read-only.
    let _ = touch();
}

/// A file below a cache's directory.
struct Found {
    path: PathBuf,
    used: SystemTime,
    size: u64,
}

/// Removes what was not used for longest, but for `keep`, until everything below `directory` is
/// small enough.
pub(super) fn prune(directory: &Path, limit: u64, keep: Option<&Path>) {
    let mut files = Vec::new();
    walk(directory, &mut files);
    let mut size: u64 = files.iter().map(|file| file.size).sum();
    if size <= limit {
        return;
    }
    // By path where times are equal, so that builds which prune at once remove the same files.
    files.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let wanted = limit / KEEP.1 * KEEP.0;
    for file in files {
        if size <= wanted {
            break;
        }
        if keep == Some(&file.path) {
            continue;
        }
        // One that is gone already was removed by another build.
        if std::fs::remove_file(&file.path).is_ok() {
            size -= file.size;
        }
    }
}

/// Collects all entries; what cannot be read is somebody else's. Removes abandoned files.
fn walk(directory: &Path, files: &mut Vec<Found>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let path = entry.path();
        if metadata.is_dir() {
            walk(&path, files);
            continue;
        }
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let temporary = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
        if temporary {
            if used.elapsed().unwrap_or_default() > ABANDONED {
                let _ = std::fs::remove_file(path);
            }
            continue;
        }
        files.push(Found {
            path,
            used,
            size: metadata.len(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::KeyBuilder;
    use super::*;

    fn key(name: &str) -> Key {
        let mut key = KeyBuilder::default();
        key.add(name.as_bytes());
        key.finish()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&directory.path().join("s")).expect("it can be made");
        (directory, store)
    }

    #[test]
    fn every_damage_is_noticed_and_the_entry_removed() {
        let (_directory, store) = store();
        let key = key("a");
        assert_eq!(store.get(&key), None);
        store.put(&key, b"some code").expect("it can be written");
        let path = store.path(&key);
        let whole = std::fs::read(&path).expect("it is there");
        let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|n| whole[..n].to_vec()).collect();
        damaged.extend((0..whole.len()).map(|n| {
            let mut file = whole.clone();
            file[n] ^= 0x10;
            file
        }));
        for file in damaged {
            std::fs::write(&path, &file).expect("it can be written");
            assert_eq!(store.get(&key), None, "{file:?}");
            assert!(!path.exists(), "{file:?}");
        }
        store.put(&key, b"some code").expect("it can be written");
        assert_eq!(store.get(&key).as_deref(), Some(&b"some code"[..]));
    }

    #[test]
    fn an_entry_under_another_name_is_none() {
        let (_directory, store) = store();
        store.put(&key("a"), b"x").expect("it can be written");
        let other = store.path_to_write(&key("b"));
        std::fs::copy(store.path(&key("a")), other).expect("it can be copied");
        assert_eq!(store.get(&key("b")), None);
        assert_eq!(store.get(&key("a")).as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn pruning_removes_what_was_not_used_for_longest() {
        let (directory, store) = store();
        let day = Duration::from_secs(24 * 3600);
        for age in 0..10 {
            let key = key(&age.to_string());
            store.put(&key, &[0; 1000]).expect("it can be written");
            let file = File::open(store.path(&key)).expect("it is there");
            let used = SystemTime::now() - day * age;
            file.set_modified(used).expect("it is ours");
        }
        // Reading makes the oldest one the youngest.
        assert!(store.get(&key("9")).is_some());
        prune(directory.path(), 1 << 20, None);
        assert!((0..10).all(|age: i32| store.path(&key(&age.to_string())).exists()));
        prune(directory.path(), 5 * (1000 + HEAD as u64), None);
        let kept: Vec<_> = (0..10)
            .filter(|age: &i32| store.path(&key(&age.to_string())).exists())
            .collect();
        assert_eq!(kept, [0, 1, 2, 9], "nine tenths of five entries are four");
    }

    #[test]
    fn builds_at_once_do_not_disturb_each_other() {
        let (directory, store) = store();
        let content = |number: usize| vec![number as u8; 100 + number];
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (store, directory) = (&store, directory.path());
                scope.spawn(move || {
                    for round in 0..50 {
                        let number = (round * 7 + thread * 3) % 20;
                        let key = key(&number.to_string());
                        store
                            .put(&key, &content(number))
                            .expect("it can be written");
                        if let Some(found) = store.get(&key) {
                            assert_eq!(found, content(number));
                        }
                        if round % 10 == thread {
                            prune(directory, 1000, None);
                        }
                    }
                });
            }
        });
        let mut files = Vec::new();
        walk(directory.path(), &mut files);
        assert!(files.len() <= 20, "temporary files are left");
    }
}
