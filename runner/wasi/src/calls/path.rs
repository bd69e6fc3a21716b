//! Operations on a path, relative to a directory.

use super::{Call, fd, flags, path};
use crate::context::WasiContext;
use crate::errno::{Errno, Outcome};
use crate::fs::{At, Device, Dir, Moved, OpenOptions, Opened};
use crate::rights;
use crate::table::{Descriptor, Object, OpenDirectory, OpenFile, Table};

/// The directory of `fd`, if it has `rights`.
fn directory(table: &Table, fd: u32, rights: u64) -> Outcome<Dir> {
    Ok(table.get(fd)?.directory(rights)?.dir.clone())
}

/// The only lookup flag: follow a symlink at the end.
fn follow(given: u32) -> Outcome<bool> {
    Ok(flags(given, 1)? != 0)
}

pub(crate) fn path_create_directory(call: &mut Call, fd: u32, at: u32, length: u32) -> Outcome {
    let base = directory(&call.wasi.table, fd, rights::PATH_CREATE_DIRECTORY)?;
    let path = path(call.memory, at, length)?;
    Ok(call.wasi.fs.create_directory(&base, path)?)
}

pub(crate) fn path_filestat_get(
    call: &mut Call,
    fd: u32,
    lookup: u32,
    at: u32,
    length: u32,
    stat: u32,
) -> Outcome {
    let base = directory(&call.wasi.table, fd, rights::PATH_FILESTAT_GET)?;
    let path = path(call.memory, at, length)?;
    let fs = &mut call.wasi.fs;
    let entry = fs.walk(&base, path, follow(lookup)?)?.found()?;
    let metadata = fs.metadata(&entry)?;
    call.write_filestat(stat, &metadata)
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn path_filestat_set_times(
    call: &mut Call,
    fd: u32,
    lookup: u32,
    at: u32,
    length: u32,
    accessed: u64,
    modified: u64,
    which: u32,
) -> Outcome {
    let base = directory(&call.wasi.table, fd, rights::PATH_FILESTAT_SET_TIMES)?;
    let path = path(call.memory, at, length)?;
    let (accessed, modified) = fd::new_times(accessed, modified, which)?;
    let fs = &mut call.wasi.fs;
    let entry = fs.walk(&base, path, follow(lookup)?)?.found()?;
    Ok(fs.set_entry_times(entry, accessed, modified)?)
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn path_link(
    call: &mut Call,
    fd: u32,
    lookup: u32,
    at: u32,
    length: u32,
    new_fd: u32,
    new_at: u32,
    new_length: u32,
) -> Outcome {
    let base = directory(&call.wasi.table, fd, rights::PATH_LINK_SOURCE)?;
    let new_base = directory(&call.wasi.table, new_fd, rights::PATH_LINK_TARGET)?;
    let old = path(call.memory, at, length)?;
    let new = path(call.memory, new_at, new_length)?;
    let from = (&base, old, follow(lookup)?);
    Ok(call.wasi.fs.hard_link(from, (&new_base, new))?)
}

const CREATE: u16 = 1;
const DIRECTORY: u16 = 2;
const EXCLUSIVE: u16 = 4;
const TRUNCATE: u16 = 8;

#[allow(clippy::too_many_arguments)]
pub(crate) fn path_open(
    call: &mut Call,
    fd: u32,
    lookup: u32,
    at: u32,
    length: u32,
    open_flags: u32,
    base_rights: u64,
    _inheriting: u64,
    fd_flags: u32,
    opened: u32,
) -> Outcome {
    let WasiContext { table, fs, .. } = &mut *call.wasi;
    let parent = table.get(fd)?;
    let base = match &parent.object {
        Object::Directory(open) => open.dir.clone(),
        Object::File(_) | Object::Device(_) => return Err(Errno::Notdir.into()),
        _ => return Err(Errno::Badf.into()),
    };
    let open_flags = flags(open_flags, CREATE | DIRECTORY | EXCLUSIVE | TRUNCATE)?;
    let fd_flags = flags(fd_flags, rights::ALL_FLAGS)?;
    let has = |flag| open_flags & flag != 0;
    let path = path(call.memory, at, length)?;
    if has(DIRECTORY) && open_flags != DIRECTORY {
        return Err(Errno::Inval.into());
    }
    let mut needed = rights::PATH_OPEN;
    if has(CREATE) {
        needed |= rights::PATH_CREATE_FILE;
    }
    if has(TRUNCATE) {
        needed |= rights::PATH_FILESTAT_SET_SIZE;
    }
    parent.require(needed)?;
    let inheriting = parent.inheriting;
    let write = base_rights & rights::FD_WRITE != 0;
    let options = OpenOptions {
        follow: follow(lookup)?,
        create: has(CREATE),
        exclusive: has(EXCLUSIVE),
        truncate: has(TRUNCATE),
        directory: has(DIRECTORY),
        // A file opened for neither reading nor writing is opened for reading, as wasmtime does.
        read: base_rights & rights::FD_READ != 0 || !write,
        write,
    };
    if write && inheriting & rights::FD_WRITE == 0 {
        return Err(Errno::Notcapable.into());
    }
    if !table.make_room() {
        return Err(Errno::Mfile.into());
    }
    // Check for a free descriptor first: opening may create or truncate a file.
    call.memory.slice(opened, 4)?;

    let descriptor = match fs.open(&base, path, options)? {
        Opened::Directory(dir) => Descriptor {
            object: Object::Directory(OpenDirectory {
                dir,
                preopen: None,
                listing: None,
            }),
            rights: rights::DIRECTORY & inheriting,
            inheriting,
            flags: fd_flags,
        },
        Opened::Device(device) => device_descriptor(device, options, inheriting, fd_flags),
        Opened::File(file) => {
            fs.set_append(&file, fd_flags & rights::APPEND != 0)?;
            Descriptor {
                object: Object::File(OpenFile {
                    file,
                    position: 0,
                    read: options.read,
                    write: options.write,
                }),
                rights: file_rights(options) & inheriting,
                inheriting: file_rights(options) & inheriting,
                flags: fd_flags,
            }
        }
    };
    match table.insert(descriptor) {
        Ok(number) => Ok(call.memory.write(opened, number)?),
        Err(descriptor) => {
            fd::close(fs, descriptor);
            Err(Errno::Mfile.into())
        }
    }
}

fn file_rights(options: OpenOptions) -> u64 {
    let mut rights = rights::FILE;
    if !options.read {
        rights &= !rights::FD_READ;
    }
    if !options.write {
        rights &= !rights::FD_WRITE;
    }
    rights
}

fn device_descriptor(
    device: Device,
    options: OpenOptions,
    inheriting: u64,
    flags: u16,
) -> Descriptor {
    let stream = |object| Descriptor {
        flags,
        ..Descriptor::stream(object)
    };
    match device {
        Device::Stdin => stream(Object::Stdin),
        Device::Stdout => stream(Object::Stdout),
        Device::Stderr => stream(Object::Stderr),
        Device::Null | Device::Zero | Device::Urandom | Device::Side => {
            let rights = file_rights(options) & inheriting;
            Descriptor {
                object: Object::Device(device),
                rights,
                inheriting: rights,
                flags,
            }
        }
    }
}

pub(crate) fn path_readlink(
    call: &mut Call,
    fd: u32,
    at: u32,
    length: u32,
    buffer: u32,
    buffer_length: u32,
    used: u32,
) -> Outcome {
    let base = directory(&call.wasi.table, fd, rights::PATH_READLINK)?;
    let path = path(call.memory, at, length)?;
    let content = call.wasi.fs.read_link(&base, path)?;
    // Truncate silently, as readlink(2) does.
    let length = content.len().min(buffer_length as usize);
    let target = call.memory.slice_mut(buffer, length as u32)?;
    target.copy_from_slice(&content[..length]);
    Ok(call.memory.write(used, length as u32)?)
}

pub(crate) fn path_remove_directory(call: &mut Call, fd: u32, at: u32, length: u32) -> Outcome {
    let base = directory(&call.wasi.table, fd, rights::PATH_REMOVE_DIRECTORY)?;
    let path = path(call.memory, at, length)?;
    Ok(call.wasi.fs.remove_directory(&base, path)?)
}

pub(crate) fn path_rename(
    call: &mut Call,
    fd: u32,
    at: u32,
    length: u32,
    new_fd: u32,
    new_at: u32,
    new_length: u32,
) -> Outcome {
    let base = directory(&call.wasi.table, fd, rights::PATH_RENAME_SOURCE)?;
    let new_base = directory(&call.wasi.table, new_fd, rights::PATH_RENAME_TARGET)?;
    let old = path(call.memory, at, length)?;
    let new = path(call.memory, new_at, new_length)?;
    if let Some(moved) = call.wasi.fs.rename((&base, old), (&new_base, new))? {
        for descriptor in call.wasi.table.iter_mut() {
            if let Object::Directory(open) = &mut descriptor.object {
                correct(&mut open.dir, &moved);
            }
        }
    }
    Ok(())
}

/// Updates descriptors of a moved directory in a tree where descriptors hold paths.
fn correct(dir: &mut Dir, moved: &Moved) {
    let At::Lower(path) = &mut dir.at else {
        return;
    };
    if dir.tree != moved.tree || !path.starts_with(&moved.from) {
        return;
    }
    if matches!(path.get(moved.from.len()), None | Some(b'/')) {
        path.splice(..moved.from.len(), moved.to.iter().copied());
    }
}

pub(crate) fn path_symlink(
    call: &mut Call,
    content_at: u32,
    content_length: u32,
    fd: u32,
    at: u32,
    length: u32,
) -> Outcome {
    let base = directory(&call.wasi.table, fd, rights::PATH_SYMLINK)?;
    let content = path(call.memory, content_at, content_length)?;
    let path = path(call.memory, at, length)?;
    Ok(call.wasi.fs.symlink(content, &base, path)?)
}

pub(crate) fn path_unlink_file(call: &mut Call, fd: u32, at: u32, length: u32) -> Outcome {
    let base = directory(&call.wasi.table, fd, rights::PATH_UNLINK_FILE)?;
    let path = path(call.memory, at, length)?;
    Ok(call.wasi.fs.unlink(&base, path)?)
}
