//! Streams and clocks: what waits, how long, and how it ends.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex};

use faas_wasm_engine::Interruption;

use super::*;
use crate::calls::{clock, poll};
use crate::stream::{HostStream, InputStream, OutputStream, StreamError};

/// Takes `room` bytes, then fails as told.
struct Narrow {
    taken: Arc<Mutex<Vec<u8>>>,
    room: usize,
    then: fn() -> StreamError,
}

impl OutputStream for Narrow {
    fn write(&mut self, bytes: &[u8], _: Option<Instant>) -> Result<usize, StreamError> {
        if self.room == 0 {
            return Err((self.then)());
        }
        let count = bytes.len().min(self.room).min(3);
        self.room -= count;
        self.taken
            .lock()
            .unwrap()
            .extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn wait_writable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(self.room > 0)
    }
}

/// Gives one piece after the other.
struct Pieces(VecDeque<&'static [u8]>);

impl InputStream for Pieces {
    fn read(&mut self, buffer: &mut [u8], _: Option<Instant>) -> Result<usize, StreamError> {
        let piece = self.0.pop_front().unwrap_or_default();
        buffer[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }

    fn wait_readable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(!self.0.is_empty())
    }
}

fn narrow(room: usize, then: fn() -> StreamError) -> (Guest, Arc<Mutex<Vec<u8>>>) {
    let tmp = tempfile::tempdir().unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let stream = Narrow {
        taken: Arc::clone(&taken),
        room,
        then,
    };
    (
        Guest::new(builder(tmp.path()).stdout(Box::new(stream))),
        taken,
    )
}

fn write_raw(guest: &mut Guest, bytes: &[u8]) -> Result<i32, Stop> {
    let length = guest.put(DATA, bytes);
    guest.one_buffer(DATA, length);
    guest.call(|call| transfer::fd_write(call, 1, LIST, 1, RESULT))
}

#[test]
fn output_is_written_whole_though_the_stream_takes_little() {
    let (mut guest, taken) = narrow(100, || StreamError::Canceled);
    assert_eq!(guest.write(1, b"hello world"), Ok(11));
    assert_eq!(*taken.lock().unwrap(), b"hello world");
}

#[test]
fn a_stream_that_gives_up_ends_the_run() {
    type Case = (fn() -> StreamError, Result<i32, Stop>);
    let cases: [Case; 5] = [
        (|| StreamError::TimedOut, Err(Stop::DEADLINE)),
        (
            || StreamError::Canceled,
            Err(Stop::Interrupted(Interruption::Canceled)),
        ),
        (
            || StreamError::LimitReached,
            Err(Stop::Interrupted(Interruption::OutputLimit)),
        ),
        (|| StreamError::Closed, Ok(Errno::Pipe as i32)),
        (
            || StreamError::Io(std::io::Error::other("x")),
            Ok(Errno::Io as i32),
        ),
    ];
    for (then, expected) in cases {
        let (mut guest, _) = narrow(0, then);
        assert_eq!(write_raw(&mut guest, b"x"), expected);
        // What was taken before an error counts; what ends the run ends it all the same.
        let (mut guest, _) = narrow(4, then);
        let partly = write_raw(&mut guest, b"hello");
        match expected {
            Ok(_) => assert_eq!((partly, guest.number(RESULT)), (Ok(0), 4)),
            Err(_) => assert_eq!(partly, expected),
        }
    }
}

#[test]
fn nonblocking_streams_say_again() {
    let (mut guest, _) = narrow(4, || StreamError::TimedOut);
    let nonblock = u32::from(rights::NONBLOCK);
    guest
        .ask(|call| fd::fd_fdstat_set_flags(call, 1, nonblock))
        .unwrap();
    assert_eq!(guest.write(1, b"hello"), Ok(4));
    assert_eq!(guest.write(1, b"o"), Err(number(Errno::Again)));

    let tmp = tempfile::tempdir().unwrap();
    let pieces = Pieces(VecDeque::from([&b"abc"[..]]));
    let mut guest = Guest::new(builder(tmp.path()).stdin(Box::new(pieces)));
    guest
        .ask(|call| fd::fd_fdstat_set_flags(call, 0, nonblock))
        .unwrap();
    assert_eq!(guest.read(0, 10).unwrap(), b"abc");
    assert_eq!(guest.read(0, 10), Err(number(Errno::Again)));
}

#[test]
fn stdin_gives_what_is_there() {
    let tmp = tempfile::tempdir().unwrap();
    let pieces = Pieces(VecDeque::from([&b"abc"[..], b"de"]));
    let mut guest = Guest::new(builder(tmp.path()).stdin(Box::new(pieces)));
    assert_eq!(guest.read(0, 10).unwrap(), b"abc");
    assert_eq!(guest.read(0, 10).unwrap(), b"de");
    assert_eq!(guest.read(0, 10).unwrap(), b"");
}

#[test]
fn a_silent_stdin_ends_at_the_deadline() {
    let tmp = tempfile::tempdir().unwrap();
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let stdin = Box::new(HostStream::new(reader));
    let mut guest = Guest::new(builder(tmp.path()).stdin(stdin)).within(Duration::from_millis(20));
    guest.one_buffer(DATA, 10);
    let stopped = guest.call(|call| transfer::fd_read(call, 0, LIST, 1, RESULT));
    assert_eq!(stopped, Err(Stop::DEADLINE));
}

/// Lays out a subscription to a clock.
fn clock_subscription(guest: &mut Guest, index: u32, id: u32, timeout: u64, absolute: bool) {
    let (size, skip) = match guest.abi {
        Abi::Preview1 => (48, 0),
        Abi::Unstable => (56, 8),
    };
    let at = LIST + index * size;
    guest.memory[at as usize..(at + size) as usize].fill(0);
    guest.put(at, &(100 + u64::from(index)).to_le_bytes());
    guest.put(at + 16 + skip, &id.to_le_bytes());
    guest.put(at + 24 + skip, &timeout.to_le_bytes());
    guest.put(at + 40 + skip, &[u8::from(absolute)]);
}

fn fd_subscription(guest: &mut Guest, index: u32, fd: u32, write: bool) {
    let size = if guest.abi == Abi::Preview1 { 48 } else { 56 };
    let at = LIST + index * size;
    guest.memory[at as usize..(at + size) as usize].fill(0);
    guest.put(at, &(100 + u64::from(index)).to_le_bytes());
    guest.put(at + 8, &[1 + u8::from(write)]);
    guest.put(at + 16, &fd.to_le_bytes());
}

/// What a poll gives: by event the user data, the error, and the number of bytes.
fn poll(guest: &mut Guest, count: u32) -> Result<Vec<(u64, u16, u64)>, i32> {
    let ready = guest.ask(|call| poll::poll_oneoff(call, LIST, DATA, count, RESULT))?;
    let event = |index| {
        let at = DATA + 32 * index;
        let error = u16::from_le_bytes(guest.bytes(at + 8, 2).try_into().unwrap());
        (guest.long(at), error, guest.long(at + 16))
    };
    Ok((0..ready).map(event).collect())
}

#[test]
fn clocks_wake_at_their_time() {
    let tmp = tempfile::tempdir().unwrap();
    for abi in [Abi::Preview1, Abi::Unstable] {
        let mut guest = Guest::at(tmp.path());
        guest.abi = abi;
        for id in [0, 1] {
            let start = Instant::now();
            clock_subscription(&mut guest, 0, id, 15_000_000, false);
            clock_subscription(&mut guest, 1, id, 60_000_000_000, false);
            assert_eq!(poll(&mut guest, 2), Ok(vec![(100, 0, 0)]));
            assert!(start.elapsed() >= Duration::from_millis(15));

            guest
                .ask(|call| clock::clock_time_get(call, id, 0, RESULT))
                .unwrap();
            let now = guest.long(RESULT);
            let start = Instant::now();
            clock_subscription(&mut guest, 0, id, now + 15_000_000, true);
            assert_eq!(poll(&mut guest, 1), Ok(vec![(100, 0, 0)]));
            assert!(start.elapsed() >= Duration::from_millis(10));
            clock_subscription(&mut guest, 0, id, now - 1, true);
            assert_eq!(poll(&mut guest, 1), Ok(vec![(100, 0, 0)]));
        }
    }
}

#[test]
fn sleeping_beyond_the_deadline_ends_the_run_there() {
    let tmp = tempfile::tempdir().unwrap();
    for timeout in [60_000_000_000, u64::MAX] {
        let mut guest = Guest::at(tmp.path()).within(Duration::from_millis(20));
        clock_subscription(&mut guest, 0, 1, timeout, false);
        let start = Instant::now();
        let stopped = guest.call(|call| poll::poll_oneoff(call, LIST, DATA, 1, RESULT));
        assert_eq!(stopped, Err(Stop::DEADLINE));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// A client that leaves after a while.
struct Leaving(Instant);

impl InputStream for Leaving {
    fn read(&mut self, _: &mut [u8], _: Option<Instant>) -> Result<usize, StreamError> {
        Ok(0)
    }

    fn wait_readable(&mut self, _: Option<Instant>) -> Result<bool, StreamError> {
        Ok(true)
    }

    fn is_canceled(&mut self) -> bool {
        Instant::now() >= self.0
    }
}

#[test]
fn a_client_that_leaves_ends_a_sleeping_guest() {
    let tmp = tempfile::tempdir().unwrap();
    let stdin = Box::new(Leaving(Instant::now() + Duration::from_millis(30)));
    let mut guest = Guest::new(builder(tmp.path()).stdin(stdin));
    clock_subscription(&mut guest, 0, 1, 60_000_000_000, false);
    let stopped = guest.call(|call| poll::poll_oneoff(call, LIST, DATA, 1, RESULT));
    assert_eq!(stopped, Err(Stop::Interrupted(Interruption::Canceled)));
}

#[test]
fn descriptors_and_clocks_are_waited_for_together() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("file"), "12345").unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let stdin = Box::new(HostStream::new(reader));
    let mut guest = Guest::new(builder(tmp.path()).stdin(stdin));
    fd_subscription(&mut guest, 0, 0, false);
    clock_subscription(&mut guest, 1, 1, 5_000_000, false);
    assert_eq!(
        poll(&mut guest, 2),
        Ok(vec![(101, 0, 0)]),
        "nothing to read yet"
    );

    let mut writer = std::fs::File::from(writer);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        writer.write_all(b"x").unwrap();
        writer
    });
    clock_subscription(&mut guest, 1, 1, 60_000_000_000, false);
    assert_eq!(poll(&mut guest, 2), Ok(vec![(100, 0, 1)]));
    drop(thread.join().unwrap());

    // Files are always ready; so is an output that takes everything.
    let file = guest.open("file", 0, READ).unwrap();
    fd_subscription(&mut guest, 0, file, false);
    fd_subscription(&mut guest, 1, 1, true);
    assert_eq!(poll(&mut guest, 2), Ok(vec![(100, 0, 5), (101, 0, 1)]));
}

#[test]
fn two_streams_are_waited_for_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let (full_reader, full) = rustix::pipe::pipe().unwrap();
    let mut full = HostStream::new(full);
    while full.wait_writable(Some(Instant::now())).unwrap() {
        full.write(&[0; 4096], None).unwrap();
    }
    let context = builder(tmp.path())
        .stdin(Box::new(HostStream::new(reader)))
        .stdout(Box::new(full));
    let mut guest = Guest::new(context);
    fd_subscription(&mut guest, 0, 0, false);
    fd_subscription(&mut guest, 1, 1, true);
    clock_subscription(&mut guest, 2, 1, 10_000_000, false);
    assert_eq!(poll(&mut guest, 3), Ok(vec![(102, 0, 0)]));
    let mut bytes = vec![0; 1 << 17];
    rustix::io::read(&full_reader, &mut bytes).unwrap();
    clock_subscription(&mut guest, 2, 1, 60_000_000_000, false);
    assert_eq!(poll(&mut guest, 3), Ok(vec![(101, 0, 1)]));
    drop(writer);
}

#[test]
fn polls_that_make_no_sense_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::at(tmp.path());
    assert_eq!(poll(&mut guest, 0), Err(number(Errno::Inval)));
    for (fd, write) in [(77, false), (0, true), (1, false), (ROOT, false)] {
        fd_subscription(&mut guest, 0, fd, write);
        assert_eq!(
            poll(&mut guest, 1),
            Err(number(Errno::Badf)),
            "{fd} {write}"
        );
    }
    for id in [2, 3, 4, u32::MAX] {
        clock_subscription(&mut guest, 0, id, 1, false);
        assert_eq!(poll(&mut guest, 1), Err(number(Errno::Inval)), "clock {id}");
    }
    clock_subscription(&mut guest, 0, 1, 1, false);
    guest.put(LIST + 8, &[3]);
    assert_eq!(
        poll(&mut guest, 1),
        Err(number(Errno::Inval)),
        "no such kind"
    );
    let many = guest.ask(|call| poll::poll_oneoff(call, LIST, DATA, u32::MAX, RESULT));
    assert_eq!(many, Err(number(Errno::Inval)));
    let many = guest.ask(|call| poll::poll_oneoff(call, LIST, DATA, 1 << 20, RESULT));
    assert_eq!(many, Err(number(Errno::Fault)));
}

#[test]
fn clocks_tell_time() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::at(tmp.path());
    let mut time = |id| {
        let asked = guest.ask(|call| clock::clock_time_get(call, id, 0, RESULT));
        asked.map(|_| guest.long(RESULT))
    };
    let epoch = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_nanos() as u64;
    assert!(time(0).unwrap().abs_diff(epoch) < 60_000_000_000);
    let first = time(1).unwrap();
    assert!(time(1).unwrap() >= first);
    assert_eq!(time(2), Ok(0), "CPU time begins when it is first asked for");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {}
    assert!(time(3).unwrap() > 100_000);
    assert_eq!(time(4), Err(number(Errno::Inval)));
    for id in 0..4 {
        guest
            .ask(|call| clock::clock_res_get(call, id, RESULT))
            .unwrap();
        assert!((1..1_000_000_000).contains(&guest.long(RESULT)), "{id}");
    }
}
