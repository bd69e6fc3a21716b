//! Tests of the calls as a guest makes them: numbers and memory only.

mod files;
mod hostile;
mod waits;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_wasm_engine::{GuestMemory, Stop};

use super::{Abi, Call, answer, fd, path, process, transfer};
use crate::context::{WasiContext, WasiContextBuilder};
use crate::errno::{Errno, Outcome};
use crate::fs::{Access, Namespace, Root};
use crate::rights;

/// A guest without code: its memory, and what it can reach.
struct Guest {
    wasi: WasiContext,
    memory: Vec<u8>,
    deadline: Option<Instant>,
    abi: Abi,
}

/// Where tests put paths, buffers, lists of buffers and results.
const PATH: u32 = 0x100;
const LIST: u32 = 0x1000;
const RESULT: u32 = 0x1800;
const DATA: u32 = 0x2000;
const MEMORY: usize = 0x10000;

/// The preopened directory.
const ROOT: u32 = 3;
const ALL: u64 = u64::MAX;

fn builder(root: &Path) -> WasiContextBuilder {
    let root = Root::open(root).unwrap();
    WasiContext::builder(Arc::new(Namespace::new(root, Access::CopyOnWrite)))
}

impl Guest {
    fn new(builder: WasiContextBuilder) -> Self {
        Self {
            wasi: builder.build(),
            memory: vec![0; MEMORY],
            deadline: None,
            abi: Abi::Preview1,
        }
    }

    fn at(root: &Path) -> Self {
        Self::new(builder(root))
    }

    fn within(mut self, timeout: Duration) -> Self {
        self.deadline = Some(Instant::now() + timeout);
        self
    }

    /// Makes a call and gives what the guest would get.
    fn call(&mut self, function: impl FnOnce(&mut Call) -> Outcome) -> Result<i32, Stop> {
        let mut memory = GuestMemory::from_slice(&mut self.memory);
        answer(function(&mut Call {
            wasi: &mut self.wasi,
            memory: &mut memory,
            deadline: self.deadline,
            abi: self.abi,
        }))
    }

    /// As `call`, with the number that it left at `RESULT`.
    fn ask(&mut self, function: impl FnOnce(&mut Call) -> Outcome) -> Result<u32, i32> {
        match self.call(function).expect("the run goes on") {
            0 => Ok(self.number(RESULT)),
            errno => Err(errno),
        }
    }

    fn put(&mut self, at: u32, bytes: &[u8]) -> u32 {
        self.memory[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        bytes.len() as u32
    }

    fn bytes(&self, at: u32, length: u32) -> &[u8] {
        &self.memory[at as usize..(at + length) as usize]
    }

    fn number(&self, at: u32) -> u32 {
        u32::from_le_bytes(self.bytes(at, 4).try_into().unwrap())
    }

    fn long(&self, at: u32) -> u64 {
        u64::from_le_bytes(self.bytes(at, 8).try_into().unwrap())
    }

    /// A list of one buffer.
    fn one_buffer(&mut self, at: u32, length: u32) {
        self.put(LIST, &at.to_le_bytes());
        self.put(LIST + 4, &length.to_le_bytes());
    }

    fn open(&mut self, name: &str, open_flags: u32, rights: u64) -> Result<u32, i32> {
        self.open_with(ROOT, name, open_flags, rights, 0)
    }

    fn open_with(
        &mut self,
        base: u32,
        name: &str,
        open_flags: u32,
        rights: u64,
        fd_flags: u32,
    ) -> Result<u32, i32> {
        let length = self.put(PATH, name.as_bytes());
        self.ask(|call| {
            path::path_open(
                call, base, 1, PATH, length, open_flags, rights, rights, fd_flags, RESULT,
            )
        })
    }

    fn write(&mut self, fd: u32, bytes: &[u8]) -> Result<u32, i32> {
        let length = self.put(DATA, bytes);
        self.one_buffer(DATA, length);
        self.ask(|call| transfer::fd_write(call, fd, LIST, 1, RESULT))
    }

    fn read(&mut self, fd: u32, length: u32) -> Result<Vec<u8>, i32> {
        self.one_buffer(DATA, length);
        let count = self.ask(|call| transfer::fd_read(call, fd, LIST, 1, RESULT))?;
        Ok(self.bytes(DATA, count).to_vec())
    }
}

const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const READ: u64 = rights::FD_READ;
const WRITE: u64 = rights::FD_WRITE;

fn number(errno: Errno) -> i32 {
    errno as i32
}

#[test]
fn arguments_and_environment_are_laid_out() {
    let tmp = tempfile::tempdir().unwrap();
    let builder = builder(tmp.path())
        .arguments(vec![b"guest".to_vec(), b"".to_vec(), b"x y".to_vec()])
        .environment(vec![b"A=1".to_vec()])
        .own_environment(|| vec![b"B=".to_vec()]);
    let mut guest = Guest::new(builder);
    let count = guest.ask(|call| process::args_sizes_get(call, RESULT, RESULT + 4));
    assert_eq!((count, guest.number(RESULT + 4)), (Ok(3), 11));
    guest
        .ask(|call| process::args_get(call, LIST, DATA))
        .unwrap();
    assert_eq!(guest.bytes(DATA, 11), b"guest\0\0x y\0");
    assert_eq!(
        [0, 4, 8].map(|at| guest.number(LIST + at) - DATA),
        [0, 6, 7]
    );

    let count = guest.ask(|call| process::environ_sizes_get(call, RESULT, RESULT + 4));
    assert_eq!((count, guest.number(RESULT + 4)), (Ok(2), 7));
    guest
        .ask(|call| process::environ_get(call, LIST, DATA))
        .unwrap();
    assert_eq!(guest.bytes(DATA, 7), b"A=1\0B=\0");
    let end = MEMORY as u32 - 3;
    assert_eq!(
        guest.ask(|call| process::args_get(call, LIST, end)),
        Err(number(Errno::Fault))
    );
}

#[test]
fn the_root_is_the_only_preopen() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::at(tmp.path());
    guest
        .ask(|call| fd::fd_prestat_get(call, ROOT, RESULT))
        .unwrap();
    assert_eq!((guest.number(RESULT), guest.number(RESULT + 4)), (0, 1));
    guest
        .ask(|call| fd::fd_prestat_dir_name(call, ROOT, DATA, 1))
        .unwrap();
    assert_eq!(guest.bytes(DATA, 1), b"/");
    let short = guest.ask(|call| fd::fd_prestat_dir_name(call, ROOT, DATA, 0));
    assert_eq!(short, Err(number(Errno::Nametoolong)));
    for fd in [0, 2, 4, u32::MAX] {
        let prestat = guest.ask(|call| fd::fd_prestat_get(call, fd, RESULT));
        assert_eq!(prestat, Err(number(Errno::Badf)), "{fd}");
    }
}

#[test]
fn there_are_no_sockets_and_no_signals() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::at(tmp.path());
    for (fd, errno) in [
        (0, Errno::Notsock),
        (ROOT, Errno::Notsock),
        (9, Errno::Badf),
    ] {
        let expected = Err(number(errno));
        assert_eq!(
            guest.ask(|call| process::sock_accept(call, fd, 0, RESULT)),
            expected
        );
        assert_eq!(
            guest.ask(|call| process::sock_shutdown(call, fd, 0)),
            expected
        );
        let received = guest.ask(|call| process::sock_recv(call, fd, LIST, 1, 0, DATA, DATA));
        assert_eq!(received, expected);
        let sent = guest.ask(|call| process::sock_send(call, fd, LIST, 1, 0, DATA));
        assert_eq!(sent, expected);
    }
    let raised = guest.ask(|call| process::proc_raise(call, 9));
    assert_eq!(raised, Err(number(Errno::Notsup)));
    assert_eq!(process::proc_exit(7), Stop::Exit(7));
}
