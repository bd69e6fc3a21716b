//! Data transfer between descriptors and lists of buffers in guest memory.

use std::time::Instant;

use faas_wasm_engine::GuestMemory;

use super::{Call, checkpoint, element};
use crate::context::WasiContext;
use crate::errno::{Errno, Failure, Outcome};
use crate::fs::Device;
use crate::rights;
use crate::stream::OutputStream;
use crate::table::{Object, OpenFile};

/// Maximum number of buffers of one call. A longer list results in a short transfer.
const MOST_BUFFERS: u32 = 1024;
/// Maximum number of bytes to move between two checks of the clock.
const PIECE: usize = 1 << 20;

/// A list of buffers, all of them inside the memory.
#[derive(Debug, Clone, Copy)]
struct Buffers {
    at: u32,
    count: u32,
}

impl Buffers {
    fn check(memory: &GuestMemory<'_>, at: u32, count: u32) -> Outcome<Self> {
        let bytes = count.checked_mul(8).ok_or(Errno::Inval)?;
        memory.slice(at, bytes)?;
        let buffers = Self {
            at,
            count: count.min(MOST_BUFFERS),
        };
        let mut total = 0u32;
        for index in 0..buffers.count {
            let (at, length) = buffers.get(memory, index)?;
            memory.slice(at, length)?;
            total = total.checked_add(length).ok_or(Errno::Inval)?;
        }
        Ok(buffers)
    }

    fn get(self, memory: &GuestMemory<'_>, index: u32) -> Outcome<(u32, u32)> {
        let at = element(self.at, index, 8)?;
        Ok((memory.read(at)?, memory.read(at + 4)?))
    }

    /// Passes each piece of each buffer to `read` until one is filled only in part.
    fn fill(
        self,
        memory: &mut GuestMemory<'_>,
        deadline: Option<Instant>,
        mut read: impl FnMut(&mut [u8], u64) -> Outcome<usize>,
    ) -> Outcome<u32> {
        let mut done = 0u64;
        for index in 0..self.count {
            let (at, length) = self.get(memory, index)?;
            for piece in memory.slice_mut(at, length)?.chunks_mut(PIECE) {
                if is_long(index, done) {
                    checkpoint(deadline)?;
                }
                let wanted = piece.len();
                match read(piece, done) {
                    Ok(count) => {
                        done += count as u64;
                        if count < wanted {
                            return Ok(done as u32);
                        }
                    }
                    Err(Failure::Errno(_)) if done > 0 => return Ok(done as u32),
                    Err(failure) => return Err(failure),
                }
            }
        }
        // `check` has checked that the sum of the lengths fits 32 bits.
        Ok(done as u32)
    }

    /// Passes each piece of each buffer to `write` until one is accepted only in part.
    fn drain(
        self,
        memory: &GuestMemory<'_>,
        deadline: Option<Instant>,
        mut write: impl FnMut(&[u8], u64) -> Outcome<usize>,
    ) -> Outcome<u32> {
        let mut done = 0u64;
        for index in 0..self.count {
            let (at, length) = self.get(memory, index)?;
            for piece in memory.slice(at, length)?.chunks(PIECE) {
                if is_long(index, done) {
                    checkpoint(deadline)?;
                }
                match write(piece, done) {
                    Ok(count) => {
                        done += count as u64;
                        if count < piece.len() {
                            return Ok(done as u32);
                        }
                    }
                    Err(Failure::Errno(_)) if done > 0 => return Ok(done as u32),
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(done as u32)
    }
}

/// Whether a transfer must check the clock now. Checking takes longer than moving a small buffer.
fn is_long(index: u32, done: u64) -> bool {
    done >= PIECE as u64 || index % 16 == 15
}

/// The position of a transfer in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the descriptor's position, which then advances.
    Position,
    At(u64),
}

pub(crate) fn fd_read(call: &mut Call, fd: u32, iovs: u32, count: u32, read: u32) -> Outcome {
    let done = read_from(call, fd, (iovs, count), Place::Position)?;
    Ok(call.memory.write(read, done)?)
}

pub(crate) fn fd_pread(
    call: &mut Call,
    fd: u32,
    iovs: u32,
    count: u32,
    offset: u64,
    read: u32,
) -> Outcome {
    let done = read_from(call, fd, (iovs, count), Place::At(offset))?;
    Ok(call.memory.write(read, done)?)
}

pub(crate) fn fd_write(call: &mut Call, fd: u32, iovs: u32, count: u32, written: u32) -> Outcome {
    let done = write_to(call, fd, (iovs, count), Place::Position)?;
    Ok(call.memory.write(written, done)?)
}

pub(crate) fn fd_pwrite(
    call: &mut Call,
    fd: u32,
    iovs: u32,
    count: u32,
    offset: u64,
    written: u32,
) -> Outcome {
    let done = write_to(call, fd, (iovs, count), Place::At(offset))?;
    Ok(call.memory.write(written, done)?)
}

fn read_from(call: &mut Call, fd: u32, iovs: (u32, u32), place: Place) -> Outcome<u32> {
    let Call {
        wasi,
        memory,
        deadline,
        ..
    } = call;
    let WasiContext {
        table, fs, stdin, ..
    } = &mut **wasi;
    let descriptor = table.get_mut(fd)?;
    let nonblocking = descriptor.flags & rights::NONBLOCK != 0;
    let mut needed = rights::FD_READ;
    if place != Place::Position {
        needed |= rights::FD_SEEK;
    }
    let capable = descriptor.require(needed);
    let buffers = Buffers::check(memory, iovs.0, iovs.1);
    match &mut descriptor.object {
        Object::Stdout | Object::Stderr | Object::Directory(_) => Err(Errno::Badf.into()),
        Object::Stdin if place != Place::Position => Err(Errno::Spipe.into()),
        Object::Stdin => {
            capable?;
            // Read once: another read could wait for bytes that the guest does not need yet.
            let mut only = true;
            buffers?.fill(memory, *deadline, |piece, _| {
                if piece.is_empty() {
                    return Ok(0);
                }
                if !std::mem::take(&mut only) {
                    return Ok(0);
                }
                if nonblocking && !stdin.wait_readable(Some(Instant::now()))? {
                    return Err(Errno::Again.into());
                }
                Ok(stdin.read(piece, *deadline)?)
            })
        }
        Object::Device(device) => {
            capable?;
            let device = *device;
            buffers?.fill(memory, *deadline, |piece, _| read_device(device, piece))
        }
        Object::File(OpenFile {
            file,
            position,
            read,
            ..
        }) => {
            if !*read {
                return Err(Errno::Badf.into());
            }
            capable?;
            let start = match place {
                Place::Position => *position,
                Place::At(offset) => offset,
            };
            let done = buffers?.fill(memory, *deadline, |piece, done| {
                let offset = start.checked_add(done).ok_or(Errno::Inval)?;
                Ok(fs.read_at(file, piece, offset)?)
            })?;
            if place == Place::Position {
                *position = start.saturating_add(u64::from(done));
            }
            Ok(done)
        }
    }
}

fn write_to(call: &mut Call, fd: u32, iovs: (u32, u32), place: Place) -> Outcome<u32> {
    let Call {
        wasi,
        memory,
        deadline,
        ..
    } = call;
    let WasiContext {
        table,
        fs,
        stdout,
        stderr,
        response_control,
        ..
    } = &mut **wasi;
    let descriptor = table.get_mut(fd)?;
    let flags = descriptor.flags;
    let mut needed = rights::FD_WRITE;
    if place != Place::Position {
        needed |= rights::FD_SEEK;
    }
    let capable = descriptor.require(needed);
    let buffers = Buffers::check(memory, iovs.0, iovs.1);
    let stream = match &mut descriptor.object {
        Object::Stdin | Object::Directory(_) => return Err(Errno::Badf.into()),
        Object::Device(Device::Side) => {
            capable?;
            return buffers?.drain(memory, *deadline, |piece, _| {
                Ok(response_control.write(piece, *deadline)?)
            });
        }
        Object::Device(_) => {
            capable?;
            return buffers?.drain(memory, *deadline, |piece, _| Ok(piece.len()));
        }
        Object::File(OpenFile {
            file,
            position,
            write,
            ..
        }) => {
            if !*write {
                return Err(Errno::Badf.into());
            }
            capable?;
            let append = flags & rights::APPEND != 0;
            let start = match place {
                _ if append => fs.file_metadata(file)?.size,
                Place::Position => *position,
                Place::At(offset) => offset,
            };
            let done = buffers?.drain(memory, *deadline, |piece, done| {
                let offset = start.checked_add(done).ok_or(Errno::Fbig)?;
                Ok(fs.write_at(file, piece, offset)?)
            })?;
            if place == Place::Position {
                *position = match append {
                    true => fs.file_metadata(file)?.size,
                    false => start.saturating_add(u64::from(done)),
                };
            }
            if flags & (rights::SYNC | rights::DSYNC) != 0 {
                fs.sync(file, flags & rights::SYNC == 0)?;
            }
            return Ok(done);
        }
        Object::Stdout => stdout,
        Object::Stderr => stderr,
    };
    if place != Place::Position {
        return Err(Errno::Spipe.into());
    }
    capable?;
    let nonblocking = flags & rights::NONBLOCK != 0;
    buffers?.drain(memory, *deadline, |piece, _| {
        write_stream(&mut **stream, piece, nonblocking, *deadline)
    })
}

/// Writes all of `bytes`, or as many as possible without waiting.
fn write_stream(
    stream: &mut dyn OutputStream,
    bytes: &[u8],
    nonblocking: bool,
    deadline: Option<Instant>,
) -> Outcome<usize> {
    let mut done = 0;
    while done < bytes.len() {
        let ready = !nonblocking || stream.wait_writable(Some(Instant::now()))?;
        let taken = match ready {
            true => stream
                .write(&bytes[done..], deadline)
                .map_err(Failure::from),
            false => Err(Errno::Again.into()),
        };
        match taken {
            Ok(0) => break,
            Ok(count) => done += count.min(bytes.len() - done),
            Err(Failure::Errno(_)) if done > 0 => break,
            Err(failure) => return Err(failure),
        }
    }
    Ok(done)
}

fn read_device(device: Device, buffer: &mut [u8]) -> Outcome<usize> {
    match device {
        Device::Zero => buffer.fill(0),
        Device::Urandom => fill_random(buffer)?,
        // Streams are never opened as devices.
        Device::Null | Device::Side | Device::Stdin | Device::Stdout | Device::Stderr => {
            return Ok(0);
        }
    }
    Ok(buffer.len())
}

/// Fills `buffer` with random bytes from the host.
pub(crate) fn fill_random(buffer: &mut [u8]) -> Outcome {
    let mut done = 0;
    while done < buffer.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut buffer[done..], flags) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

pub(crate) fn random_get(call: &mut Call, at: u32, length: u32) -> Outcome {
    let deadline = call.deadline;
    for piece in call.memory.slice_mut(at, length)?.chunks_mut(PIECE) {
        fill_random(piece)?;
        checkpoint(deadline)?;
    }
    Ok(())
}
