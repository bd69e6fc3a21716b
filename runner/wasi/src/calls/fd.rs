//! Operations on a descriptor except for data transfer.

use super::layout::{DIRENT, dirent};
use super::{Abi, Call, flags};
use crate::context::WasiContext;
use crate::errno::{Errno, Outcome};
use crate::fs::{Dir, FileSystem, Kind, Metadata, Name, Namespace, NewTime, device_metadata};
use crate::rights;
use crate::table::{Descriptor, Object, OpenDirectory, OpenFile};

pub(crate) fn fd_advise(
    call: &mut Call,
    fd: u32,
    _offset: u64,
    _length: u64,
    advice: u32,
) -> Outcome {
    let descriptor = call.wasi.table.get_mut(fd)?;
    descriptor.file(rights::FD_ADVISE)?;
    // Advice has no effect that a guest can see.
    if advice > 5 {
        Err(Errno::Inval.into())
    } else {
        Ok(())
    }
}

pub(crate) fn fd_allocate(call: &mut Call, fd: u32, offset: u64, length: u64) -> Outcome {
    let WasiContext { table, fs, .. } = &mut *call.wasi;
    let open = table.get_mut(fd)?.file(rights::FD_ALLOCATE)?;
    if !open.write {
        return Err(Errno::Badf.into());
    }
    Ok(fs.allocate(&mut open.file, offset, length)?)
}

pub(crate) fn fd_close(call: &mut Call, fd: u32) -> Outcome {
    let descriptor = call.wasi.table.remove(fd)?;
    close(&mut call.wasi.fs, descriptor);
    Ok(())
}

/// Releases the resources of a descriptor.
pub(crate) fn close(fs: &mut FileSystem, descriptor: Descriptor) {
    match descriptor.object {
        Object::File(open) => fs.close(open.file),
        Object::Directory(open) => {
            if let Some(listing) = open.listing {
                fs.forget(listing);
            }
            fs.close_directory(open.dir);
        }
        Object::Stdin | Object::Stdout | Object::Stderr | Object::Device(_) => {}
    }
}

pub(crate) fn fd_datasync(call: &mut Call, fd: u32) -> Outcome {
    sync(call, fd, rights::FD_DATASYNC)
}

pub(crate) fn fd_sync(call: &mut Call, fd: u32) -> Outcome {
    sync(call, fd, rights::FD_SYNC)
}

fn sync(call: &mut Call, fd: u32, right: u64) -> Outcome {
    let WasiContext { table, fs, .. } = &mut *call.wasi;
    let descriptor = table.get(fd)?;
    match &descriptor.object {
        Object::File(open) => {
            descriptor.require(right)?;
            Ok(fs.sync(&open.file, right == rights::FD_DATASYNC)?)
        }
        Object::Directory(_) => Ok(descriptor.require(right)?),
        _ => Err(Errno::Badf.into()),
    }
}

pub(crate) fn fd_fdstat_get(call: &mut Call, fd: u32, stat: u32) -> Outcome {
    let descriptor = call.wasi.table.get(fd)?;
    let kind = match &descriptor.object {
        Object::Stdin => stream_kind(call.wasi.stdin.is_terminal()),
        Object::Stdout => stream_kind(call.wasi.stdout.is_terminal()),
        Object::Stderr => stream_kind(call.wasi.stderr.is_terminal()),
        Object::Device(_) => Kind::CharacterDevice,
        Object::File(_) => Kind::RegularFile,
        Object::Directory(_) => Kind::Directory,
    };
    let fdstat = descriptor.into();
    call.write_fdstat(stat, kind as u8, &fdstat)
}

fn stream_kind(terminal: bool) -> Kind {
    if terminal {
        Kind::CharacterDevice
    } else {
        Kind::Unknown
    }
}

pub(crate) fn fd_fdstat_set_flags(call: &mut Call, fd: u32, given: u32) -> Outcome {
    let WasiContext { table, fs, .. } = &mut *call.wasi;
    let descriptor = table.get_mut(fd)?;
    let given = flags(given, rights::ALL_FLAGS)?;
    match &descriptor.object {
        Object::Directory(_) => return Err(Errno::Badf.into()),
        Object::File(open) => {
            descriptor.require(rights::FD_FDSTAT_SET_FLAGS)?;
            fs.set_append(&open.file, given & rights::APPEND != 0)?;
        }
        _ => descriptor.require(rights::FD_FDSTAT_SET_FLAGS)?,
    }
    descriptor.flags = given;
    Ok(())
}

pub(crate) fn fd_fdstat_set_rights(
    call: &mut Call,
    fd: u32,
    base: u64,
    inheriting: u64,
) -> Outcome {
    let descriptor = call.wasi.table.get_mut(fd)?;
    if base & !descriptor.rights != 0 || inheriting & !descriptor.inheriting != 0 {
        return Err(Errno::Notcapable.into());
    }
    descriptor.rights = base;
    descriptor.inheriting = inheriting;
    Ok(())
}

pub(crate) fn fd_filestat_get(call: &mut Call, fd: u32, stat: u32) -> Outcome {
    let wasi = &*call.wasi;
    let descriptor = wasi.table.get(fd)?;
    let stream = |terminal| Metadata {
        device: 0,
        inode: 0,
        kind: stream_kind(terminal),
        links: 0,
        size: 0,
        times: Default::default(),
    };
    let metadata = match &descriptor.object {
        Object::Stdin => stream(wasi.stdin.is_terminal()),
        Object::Stdout => stream(wasi.stdout.is_terminal()),
        Object::Stderr => stream(wasi.stderr.is_terminal()),
        Object::Device(device) => device_metadata(*device),
        Object::File(open) => wasi.fs.file_metadata(&open.file)?,
        Object::Directory(open) => wasi.fs.directory_metadata(&open.dir)?,
    };
    descriptor.require(rights::FD_FILESTAT_GET)?;
    call.write_filestat(stat, &metadata)
}

pub(crate) fn fd_filestat_set_size(call: &mut Call, fd: u32, size: u64) -> Outcome {
    let WasiContext { table, fs, .. } = &mut *call.wasi;
    let open = table.get_mut(fd)?.file(rights::FD_FILESTAT_SET_SIZE)?;
    if !open.write {
        return Err(Errno::Inval.into());
    }
    Ok(fs.set_length(&mut open.file, size)?)
}

pub(crate) fn fd_filestat_set_times(
    call: &mut Call,
    fd: u32,
    accessed: u64,
    modified: u64,
    which: u32,
) -> Outcome {
    let WasiContext { table, fs, .. } = &mut *call.wasi;
    let descriptor = table.get_mut(fd)?;
    let (accessed, modified) = new_times(accessed, modified, which)?;
    let capable = descriptor.require(rights::FD_FILESTAT_SET_TIMES);
    match &mut descriptor.object {
        Object::File(open) => {
            capable?;
            Ok(fs.set_file_times(&mut open.file, accessed, modified)?)
        }
        Object::Directory(open) => {
            capable?;
            Ok(fs.set_directory_times(&open.dir, accessed, modified)?)
        }
        _ => Err(Errno::Badf.into()),
    }
}

/// The changes of the two times that `fstflags` selects.
pub(crate) fn new_times(accessed: u64, modified: u64, which: u32) -> Outcome<(NewTime, NewTime)> {
    let which = flags(which, 0b1111)?;
    let time = |at, set: u16, now: u16| match (which & set != 0, which & now != 0) {
        (true, true) => Err(Errno::Inval),
        (true, false) => Ok(NewTime::At(at)),
        (false, true) => Ok(NewTime::Now),
        (false, false) => Ok(NewTime::Keep),
    };
    Ok((time(accessed, 1, 2)?, time(modified, 4, 8)?))
}

pub(crate) fn fd_prestat_get(call: &mut Call, fd: u32, prestat: u32) -> Outcome {
    let name =
        preopen_name(&call.wasi.fs.namespace, call.wasi.table.get(fd)?).ok_or(Errno::Badf)?;
    call.memory.write(prestat, 0u32)?;
    let length = prestat.checked_add(4).ok_or(Errno::Fault)?;
    Ok(call.memory.write(length, name.len() as u32)?)
}

pub(crate) fn fd_prestat_dir_name(call: &mut Call, fd: u32, at: u32, length: u32) -> Outcome {
    let name = preopen_name(&call.wasi.fs.namespace, call.wasi.table.get(fd)?);
    let name = name.ok_or(Errno::Notdir)?;
    if (length as usize) < name.len() {
        return Err(Errno::Nametoolong.into());
    }
    let target = call.memory.slice_mut(at, name.len() as u32)?;
    target.copy_from_slice(name);
    Ok(())
}

/// The name of a preopened directory, or `None` for another descriptor.
fn preopen_name<'a>(namespace: &'a Namespace, descriptor: &Descriptor) -> Option<&'a [u8]> {
    let Object::Directory(OpenDirectory { preopen, .. }) = &descriptor.object else {
        return None;
    };
    let preopen = namespace.preopens.get((*preopen)?)?;
    Some(preopen.name.as_bytes())
}

/// Fills the buffer with entries from `cookie` on. The last one may be truncated. Cookie 0 is `.`, 1 is
/// `..`, then the names follow.
pub(crate) fn fd_readdir(
    call: &mut Call,
    fd: u32,
    buffer: u32,
    length: u32,
    cookie: u64,
    used: u32,
) -> Outcome {
    let Call { wasi, memory, .. } = call;
    let WasiContext { table, fs, .. } = &mut **wasi;
    let descriptor = table.get_mut(fd)?;
    let capable = descriptor.require(rights::FD_READDIR);
    let Object::Directory(open) = &mut descriptor.object else {
        return Err(Errno::Badf.into());
    };
    capable?;
    let target = memory.slice_mut(buffer, length)?;
    let kept = open.listing.take().map(|listing| fs.forget(listing));
    let names = match kept {
        Some(names) if cookie > 0 => names,
        _ => fs.list(&open.dir)?,
    };
    let done = fill_entries(target, &names, cookie, |at| own_entries(fs, &open.dir, at))?;
    if done == target.len() {
        // The guest reads the rest with its next call.
        open.listing = fs.keep(names);
    }
    Ok(memory.write(used, done as u32)?)
}

/// `.` or `..`.
fn own_entries(fs: &FileSystem, dir: &Dir, at: u64) -> Result<Name, Errno> {
    let (name, inode) = match at {
        0 => (".", fs.directory_metadata(dir)?.inode),
        _ => {
            let above = fs.directory_metadata(&fs.parent_of(dir));
            ("..", above.map_or(0, |metadata| metadata.inode))
        }
    };
    Ok(Name {
        name: name.into(),
        inode,
        kind: Kind::Directory,
    })
}

fn fill_entries(
    target: &mut [u8],
    names: &[Name],
    cookie: u64,
    own: impl Fn(u64) -> Result<Name, Errno>,
) -> Result<usize, Errno> {
    let mut done = 0;
    let mut put = |bytes: &[u8]| {
        let count = bytes.len().min(target.len() - done);
        target[done..done + count].copy_from_slice(&bytes[..count]);
        done += count;
        done < target.len()
    };
    let mut at = cookie;
    loop {
        let own_entry;
        let name = match at {
            0 | 1 => {
                own_entry = own(at)?;
                &own_entry
            }
            _ => match usize::try_from(at - 2)
                .ok()
                .and_then(|index| names.get(index))
            {
                Some(name) => name,
                None => break,
            },
        };
        at += 1;
        let head: [u8; DIRENT] = dirent(at, name.inode, name.name.len(), name.kind as u8);
        if !put(&head) || !put(&name.name) {
            break;
        }
    }
    Ok(done)
}

pub(crate) fn fd_renumber(call: &mut Call, from: u32, to: u32) -> Outcome {
    if let Some(replaced) = call.wasi.table.renumber(from, to)? {
        close(&mut call.wasi.fs, replaced);
    }
    Ok(())
}

pub(crate) fn fd_seek(call: &mut Call, fd: u32, offset: i64, whence: u32, new: u32) -> Outcome {
    let from = match (call.abi, whence) {
        (Abi::Preview1, 0) | (Abi::Unstable, 2) => Whence::Start,
        (Abi::Preview1, 1) | (Abi::Unstable, 0) => Whence::Position,
        (Abi::Preview1, 2) | (Abi::Unstable, 1) => Whence::End,
        _ => return Err(Errno::Inval.into()),
    };
    let WasiContext { table, fs, .. } = &mut *call.wasi;
    let descriptor = table.get_mut(fd)?;
    // Reading the position needs fewer rights than changing it.
    let needed = match (from, offset) {
        (Whence::Position, 0) => rights::FD_TELL,
        _ => rights::FD_SEEK | rights::FD_TELL,
    };
    let position = match seekable(descriptor, needed)? {
        None => 0,
        Some(open) => {
            let base = match from {
                Whence::Start => 0,
                Whence::Position => open.position,
                Whence::End => fs.file_metadata(&open.file)?.size,
            };
            let position = base.checked_add_signed(offset).ok_or(Errno::Inval)?;
            if position > i64::MAX as u64 {
                return Err(Errno::Inval.into());
            }
            open.position = position;
            position
        }
    };
    Ok(call.memory.write(new, position)?)
}

pub(crate) fn fd_tell(call: &mut Call, fd: u32, offset: u32) -> Outcome {
    let descriptor = call.wasi.table.get_mut(fd)?;
    let position = seekable(descriptor, rights::FD_TELL)?.map_or(0, |open| open.position);
    Ok(call.memory.write(offset, position)?)
}

#[derive(Debug, Clone, Copy)]
enum Whence {
    Start,
    Position,
    End,
}

/// The file of a descriptor with a position, or `None` for a device, whose position is always 0.
fn seekable(descriptor: &mut Descriptor, needed: u64) -> Result<Option<&mut OpenFile>, Errno> {
    match descriptor.object {
        Object::Stdin | Object::Stdout | Object::Stderr => Err(Errno::Spipe),
        Object::Directory(_) => Err(Errno::Badf),
        Object::Device(_) => descriptor.require(needed).map(|()| None),
        Object::File(_) => descriptor.file(needed).map(Some),
    }
}
