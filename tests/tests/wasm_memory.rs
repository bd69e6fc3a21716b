//! Memory use of serving: bodies of any size stream through, and all processes share one copy of the code.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;

use faas_wasm_tests::http::{Response, connect};
use faas_wasm_tests::{Backend, Guest, Runner, Work};

/// Larger than any buffer, so that buffering the whole body would show.
const BODY: usize = 256 << 20;
/// Memory that the runner may use for the body, in KiB.
const ROOM: u64 = 16 << 10;

/// A value from the process's status file, in KiB.
fn status(runner: &Runner, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", runner.pid())).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.trim_start_matches(':').trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .expect("the kernel tells")
}

#[test]
fn bodies_of_any_size_take_little_memory() {
    let runner = Guest::fixture("echo").serve().start();
    // The first request allocates what later requests reuse.
    assert_eq!(runner.post("/", "hello").text(), "hello");
    let before = status(&runner, "VmRSS");
    let piece: Vec<u8> = (0..1 << 20).map(|at: u32| ((at * 7) >> 3) as u8).collect();
    let mut stream = connect(runner.address()).expect("it listens");
    let mut reader =
        BufReader::with_capacity(1 << 16, stream.try_clone().expect("a second handle"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            write!(
                stream,
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\nConnection: close\r\n\r\n"
            )
            .expect("it reads");
            for _ in 0..BODY / piece.len() {
                stream.write_all(&piece).expect("it reads");
            }
        });
        // Read the head and then the chunks, without keeping them.
        let mut answer = Chunks::after_head(&mut reader);
        let mut buffer = vec![0; piece.len()];
        for number in 0..BODY / piece.len() {
            answer.read_exact(&mut buffer);
            assert!(buffer == piece, "piece {number} comes back as it was");
        }
        assert!(answer.is_at_end(), "and nothing behind it");
    });
    let most = status(&runner, "VmHWM");
    assert!(
        most <= before + ROOM,
        "{before} KiB before, {most} KiB at most"
    );
    runner.stop();
}

/// Exceptions stay allocated until their run ends. An exception's cost grows with its parameters, and does not depend
/// on the depth at which it is thrown.
#[test]
fn exceptions_stay_within_the_memory_limit() {
    let (types, values) = ("i64 ".repeat(500), "(i64.const 1)".repeat(500));
    let text = format!(
        r#"(module (memory (export "memory") 1)
          (tag $small) (tag $large (param {types}))
          (func $throw_small (loop $forever
            (block $caught (try_table (catch_all $caught) (throw $small)))
            (br $forever)))
          (func $throw_large (loop $forever
            (block $caught (try_table (catch_all $caught) {values} (throw $large)))
            (br $forever)))
          (func $descend (param $left i32)
            (if (local.get $left)
              (then (call $descend (i32.sub (local.get $left) (i32.const 1))))
              (else (call $THROW))))
          (func (export "_start") (call $descend (i32.const DEPTH))))"#
    );
    for backend in Backend::all() {
        for (function, depth) in [("throw_large", "0"), ("throw_small", "5000")] {
            let text = text.replace("THROW", function).replace("DEPTH", depth);
            let guest = Guest::compiled(&Work::new().write("guest.wat", text), backend);
            let command = guest.serve().env("wasm_memory_limit", "16Mi");
            let mut runner = command.start();
            let before = status(&runner, "VmHWM");
            assert_eq!(runner.get("/").status, 500, "{}", runner.log());
            runner.wait_for_log("the host is out of memory");
            let used = status(&runner, "VmHWM") - before;
            assert!(
                used <= (16 << 10) + ROOM,
                "{backend:?}, {function}: {used} KiB"
            );
        }
    }
}

/// A chunked response body.
struct Chunks<'a, R> {
    reader: &'a mut BufReader<R>,
    left: usize,
}

impl<'a, R: Read> Chunks<'a, R> {
    fn after_head(reader: &'a mut BufReader<R>) -> Self {
        let head = Response::read_head(reader).expect("it is answered");
        let coding = head.header("Transfer-Encoding");
        assert_eq!((head.status, coding), (200, Some("chunked")));
        Self { reader, left: 0 }
    }

    /// Starts the next chunk. Returns `false` at the last one, which is empty.
    fn next(&mut self) -> bool {
        self.left = usize::from_str_radix(&line(self.reader), 16).expect("a size");
        self.left > 0
    }

    fn read_exact(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            assert!(self.left > 0 || self.next(), "it is all there");
            let count = self.left.min(buffer.len());
            let (now, later) = buffer.split_at_mut(count);
            self.reader.read_exact(now).expect("it is sent");
            buffer = later;
            self.left -= count;
            if self.left == 0 {
                assert_eq!(line(self.reader), "", "behind each chunk");
            }
        }
    }

    fn is_at_end(&mut self) -> bool {
        self.left == 0 && !self.next() && line(self.reader).is_empty()
    }
}

fn line<R: Read>(reader: &mut BufReader<R>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("it is sent");
    line.trim_end().to_owned()
}

/// Sums up these fields of smaps over a process's executable mappings of a file, in KiB.
fn code(runner: &Runner, artifact: &Path, wanted: &[&str]) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{}/smaps", runner.pid())).expect("it runs");
    let (mut inside, mut sum) = (false, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            let is_code = words.next().is_some_and(|access| access.starts_with("r-x"));
            inside = is_code && line.ends_with(&*artifact.to_string_lossy());
        } else if inside && wanted.contains(&first) {
            let size = words.next().and_then(|size| size.parse::<u64>().ok());
            sum += size.expect("a size");
        }
    }
    sum
}

/// Two runners that have served the same request share the pages of its code and have no private copies.
#[test]
fn processes_share_code_pages() {
    let guest = Guest::fixture("hello-http");
    let runners = [guest.serve().start(), guest.serve().start()];
    for runner in &runners {
        assert_eq!(runner.post("/", "some text").status, 200);
    }
    for runner in &runners {
        let code = |wanted: &[&str]| code(runner, guest.artifact(), wanted);
        let resident = code(&["Rss:"]);
        let shared = code(&["Shared_Clean:", "Shared_Dirty:"]);
        let changed = code(&["Private_Dirty:"]);
        assert!(resident > 0, "it has run");
        assert_eq!((shared, changed), (resident, 0), "in KiB");
    }
}
