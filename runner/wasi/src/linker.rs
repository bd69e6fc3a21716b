//! The names under which guests import the functions.

use faas_wasm_engine::{Caller, Linker, Stop};

use crate::calls::{Abi, Call, answer, clock, fd, path, poll, process, transfer};
use crate::context::WasiHost;

macro_rules! functions {
    ($linker:ident, $module:literal, $abi:expr, {
        $($name:ident($($argument:ident: $ty:ty),*) => $function:path;)*
    }) => {$({
        #[allow(clippy::too_many_arguments)]
        fn $name<T: WasiHost + 'static>(
            caller: &mut Caller<'_, T>,
            $($argument: $ty),*
        ) -> Result<i32, Stop> {
            let deadline = caller.deadline();
            let mut call = Call {
                wasi: caller.data.wasi(),
                memory: &mut caller.memory,
                deadline,
                abi: $abi,
            };
            answer($function(&mut call, $($argument),*))
        }
        $linker.function($module, stringify!($name), $name::<T>);
    })*};
}

macro_rules! module {
    ($linker:ident, $module:literal, $abi:expr) => {
        functions!($linker, $module, $abi, {
            args_get(pointers: u32, bytes: u32) => process::args_get;
            args_sizes_get(count: u32, size: u32) => process::args_sizes_get;
            environ_get(pointers: u32, bytes: u32) => process::environ_get;
            environ_sizes_get(count: u32, size: u32) => process::environ_sizes_get;
            clock_res_get(id: u32, resolution: u32) => clock::clock_res_get;
            clock_time_get(id: u32, precision: u64, time: u32) => clock::clock_time_get;
            fd_advise(fd: u32, offset: u64, length: u64, advice: u32) => fd::fd_advise;
            fd_allocate(fd: u32, offset: u64, length: u64) => fd::fd_allocate;
            fd_close(fd: u32) => fd::fd_close;
            fd_datasync(fd: u32) => fd::fd_datasync;
            fd_fdstat_get(fd: u32, stat: u32) => fd::fd_fdstat_get;
            fd_fdstat_set_flags(fd: u32, flags: u32) => fd::fd_fdstat_set_flags;
            fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64)
                => fd::fd_fdstat_set_rights;
            fd_filestat_get(fd: u32, stat: u32) => fd::fd_filestat_get;
            fd_filestat_set_size(fd: u32, size: u64) => fd::fd_filestat_set_size;
            fd_filestat_set_times(fd: u32, accessed: u64, modified: u64, which: u32)
                => fd::fd_filestat_set_times;
            fd_pread(fd: u32, buffers: u32, count: u32, offset: u64, read: u32)
                => transfer::fd_pread;
            fd_prestat_dir_name(fd: u32, name: u32, length: u32) => fd::fd_prestat_dir_name;
            fd_prestat_get(fd: u32, prestat: u32) => fd::fd_prestat_get;
            fd_pwrite(fd: u32, buffers: u32, count: u32, offset: u64, written: u32)
                => transfer::fd_pwrite;
            fd_read(fd: u32, buffers: u32, count: u32, read: u32) => transfer::fd_read;
            fd_readdir(fd: u32, buffer: u32, length: u32, cookie: u64, used: u32)
                => fd::fd_readdir;
            fd_renumber(from: u32, to: u32) => fd::fd_renumber;
            fd_seek(fd: u32, offset: i64, whence: u32, position: u32) => fd::fd_seek;
            fd_sync(fd: u32) => fd::fd_sync;
            fd_tell(fd: u32, position: u32) => fd::fd_tell;
            fd_write(fd: u32, buffers: u32, count: u32, written: u32) => transfer::fd_write;
            path_create_directory(fd: u32, path: u32, length: u32)
                => path::path_create_directory;
            path_filestat_get(fd: u32, lookup: u32, path: u32, length: u32, stat: u32)
                => path::path_filestat_get;
            path_filestat_set_times(
                fd: u32, lookup: u32, path: u32, length: u32,
                accessed: u64, modified: u64, which: u32
            ) => path::path_filestat_set_times;
            path_link(
                fd: u32, lookup: u32, path: u32, length: u32,
                new_fd: u32, new_path: u32, new_length: u32
            ) => path::path_link;
            path_open(
                fd: u32, lookup: u32, path: u32, length: u32, flags: u32,
                rights: u64, inheriting: u64, fd_flags: u32, opened: u32
            ) => path::path_open;
            path_readlink(fd: u32, path: u32, length: u32, buffer: u32, size: u32, used: u32)
                => path::path_readlink;
            path_remove_directory(fd: u32, path: u32, length: u32)
                => path::path_remove_directory;
            path_rename(
                fd: u32, path: u32, length: u32, new_fd: u32, new_path: u32, new_length: u32
            ) => path::path_rename;
            path_symlink(target: u32, target_length: u32, fd: u32, path: u32, length: u32)
                => path::path_symlink;
            path_unlink_file(fd: u32, path: u32, length: u32) => path::path_unlink_file;
            poll_oneoff(subscriptions: u32, events: u32, count: u32, stored: u32)
                => poll::poll_oneoff;
            proc_raise(signal: u32) => process::proc_raise;
            random_get(buffer: u32, length: u32) => transfer::random_get;
            sched_yield() => process::sched_yield;
            sock_recv(
                fd: u32, buffers: u32, count: u32, flags: u32, length: u32, result_flags: u32
            ) => process::sock_recv;
            sock_send(fd: u32, buffers: u32, count: u32, flags: u32, length: u32)
                => process::sock_send;
            sock_shutdown(fd: u32, how: u32) => process::sock_shutdown;
        });
        $linker.function($module, "proc_exit", proc_exit::<T>);
    };
}

/// Provides all of `wasi_snapshot_preview1` and of the older `wasi_unstable`.
pub fn add_to_linker<T: WasiHost + 'static>(linker: &mut Linker<T>) {
    module!(linker, "wasi_snapshot_preview1", Abi::Preview1);
    functions!(linker, "wasi_snapshot_preview1", Abi::Preview1, {
        sock_accept(fd: u32, flags: u32, accepted: u32) => process::sock_accept;
    });
    module!(linker, "wasi_unstable", Abi::Unstable);
}

fn proc_exit<T: WasiHost + 'static>(_: &mut Caller<'_, T>, status: u32) -> Result<(), Stop> {
    Err(process::proc_exit(status))
}
