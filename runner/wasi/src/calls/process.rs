//! Arguments, environment, the end of the process, and preview1's functions for signals and sockets.

use faas_wasm_engine::{GuestMemory, Stop};

use super::{Call, element};
use crate::errno::{Errno, Outcome};

pub(crate) fn args_sizes_get(call: &mut Call, count: u32, size: u32) -> Outcome {
    let Call { wasi, memory, .. } = call;
    write_sizes(memory, wasi.arguments.iter(), (count, size))
}

pub(crate) fn args_get(call: &mut Call, pointers: u32, bytes: u32) -> Outcome {
    let Call { wasi, memory, .. } = call;
    write_strings(memory, wasi.arguments.iter(), (pointers, bytes))
}

pub(crate) fn environ_sizes_get(call: &mut Call, count: u32, size: u32) -> Outcome {
    let Call { wasi, memory, .. } = call;
    let all = wasi.environment.iter().chain(wasi.own_environment.iter());
    write_sizes(memory, all, (count, size))
}

pub(crate) fn environ_get(call: &mut Call, pointers: u32, bytes: u32) -> Outcome {
    let Call { wasi, memory, .. } = call;
    let all = wasi.environment.iter().chain(wasi.own_environment.iter());
    write_strings(memory, all, (pointers, bytes))
}

fn write_sizes<'s>(
    memory: &mut GuestMemory<'_>,
    strings: impl Iterator<Item = &'s Vec<u8>>,
    (count_at, size_at): (u32, u32),
) -> Outcome {
    let (mut count, mut size) = (0, 0);
    for string in strings {
        count += 1;
        size += string.len() + 1;
    }
    memory.write(count_at, count)?;
    let size = u32::try_from(size).map_err(|_| Errno::Overflow)?;
    Ok(memory.write(size_at, size)?)
}

fn write_strings<'s>(
    memory: &mut GuestMemory<'_>,
    strings: impl Iterator<Item = &'s Vec<u8>>,
    (pointers, mut at): (u32, u32),
) -> Outcome {
    for (index, string) in (0..).zip(strings) {
        memory.write(element(pointers, index, 4)?, at)?;
        let length = u32::try_from(string.len()).map_err(|_| Errno::Overflow)?;
        memory.slice_mut(at, length)?.copy_from_slice(string);
        at = at.checked_add(length).ok_or(Errno::Fault)?;
        memory.write(at, 0u8)?;
        at = at.checked_add(1).ok_or(Errno::Fault)?;
    }
    Ok(())
}

pub(crate) fn proc_exit(status: u32) -> Stop {
    Stop::Exit(status)
}

/// There are no signals. wasmtime returns the same error.
pub(crate) fn proc_raise(_call: &mut Call, _signal: u32) -> Outcome {
    Err(Errno::Notsup.into())
}

pub(crate) fn sched_yield(_call: &mut Call) -> Outcome {
    std::thread::yield_now();
    Ok(())
}

/// No descriptor is a socket.
fn not_a_socket(call: &Call, fd: u32) -> Outcome {
    call.wasi.table.get(fd)?;
    Err(Errno::Notsock.into())
}

pub(crate) fn sock_accept(call: &mut Call, fd: u32, _flags: u32, _result: u32) -> Outcome {
    not_a_socket(call, fd)
}

pub(crate) fn sock_recv(
    call: &mut Call,
    fd: u32,
    _buffers: u32,
    _count: u32,
    _flags: u32,
    _length: u32,
    _result_flags: u32,
) -> Outcome {
    not_a_socket(call, fd)
}

pub(crate) fn sock_send(
    call: &mut Call,
    fd: u32,
    _buffers: u32,
    _count: u32,
    _flags: u32,
    _length: u32,
) -> Outcome {
    not_a_socket(call, fd)
}

pub(crate) fn sock_shutdown(call: &mut Call, fd: u32, _how: u32) -> Outcome {
    not_a_socket(call, fd)
}
