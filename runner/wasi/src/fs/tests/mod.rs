//! Tests of the file system as a whole.

mod escape;
mod isolation;
mod model;
mod mounts;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::Root;
use super::entry::Dir;
use super::namespace::{Access, Namespace};
use super::open::{File, OpenOptions, Opened};
use super::tree::FileSystem;
use crate::errno::Errno;

/// A copy-on-write view of a directory, as an instance gets it.
fn view(path: &Path) -> FileSystem {
    let root = Root::open(path).unwrap();
    FileSystem::new(
        Arc::new(Namespace::new(root, Access::CopyOnWrite)),
        64 << 20,
    )
}

const READ: OpenOptions = OpenOptions {
    follow: true,
    create: false,
    exclusive: false,
    truncate: false,
    directory: false,
    read: true,
    write: false,
};
const WRITE: OpenOptions = OpenOptions {
    write: true,
    ..READ
};
const CREATE: OpenOptions = OpenOptions {
    create: true,
    ..WRITE
};

fn open(fs: &mut FileSystem, path: &str, options: OpenOptions) -> Result<File, Errno> {
    match fs.open(&Dir::ROOT, path.as_bytes(), options)? {
        Opened::File(file) => Ok(file),
        other => panic!("{path} is {other:?}"),
    }
}

fn read(fs: &mut FileSystem, path: &str) -> Result<Vec<u8>, Errno> {
    let file = open(fs, path, READ)?;
    let mut bytes = vec![0; fs.file_metadata(&file)?.size as usize];
    let count = fs.read_at(&file, &mut bytes, 0)?;
    assert_eq!(count, bytes.len());
    fs.close(file);
    Ok(bytes)
}

fn write(fs: &mut FileSystem, path: &str, bytes: &[u8]) -> Result<(), Errno> {
    let options = OpenOptions {
        truncate: true,
        ..CREATE
    };
    let mut file = open(fs, path, options)?;
    assert_eq!(fs.write_at(&mut file, bytes, 0)?, bytes.len());
    fs.close(file);
    Ok(())
}

fn names(fs: &mut FileSystem, path: &str) -> Result<Vec<String>, Errno> {
    let options = OpenOptions {
        directory: true,
        ..READ
    };
    let Opened::Directory(dir) = fs.open(&Dir::ROOT, path.as_bytes(), options)? else {
        panic!("{path} is no directory");
    };
    let names = fs.list(&dir)?.into_iter();
    Ok(names
        .map(|name| String::from_utf8(name.name).unwrap())
        .collect())
}

/// Everything below a directory of the host that a guest could have changed.
fn snapshot(path: &Path) -> BTreeMap<String, (u64, u32, i64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    add_to_snapshot(path, &mut all);
    all
}

fn add_to_snapshot(path: &Path, all: &mut BTreeMap<String, (u64, u32, i64, i64, Vec<u8>)>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let content = if metadata.is_symlink() {
        fs::read_link(path)
            .unwrap()
            .into_os_string()
            .into_encoded_bytes()
    } else if metadata.is_file() {
        fs::read(path).unwrap()
    } else {
        Vec::new()
    };
    let state = (
        metadata.ino(),
        metadata.mode(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        content,
    );
    all.insert(path.to_str().unwrap().to_owned(), state);
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            add_to_snapshot(&entry.unwrap().path(), all);
        }
    }
}
