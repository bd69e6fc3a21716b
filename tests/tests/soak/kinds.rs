//! The kinds of requests and the responses that the runner must give.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use faas_wasm_tests::RunnerCommand;
use faas_wasm_tests::http::{Response, connect, reset};

/// Deadline for guests that must be stopped.
const TIMEOUT: &str = "3ms";
/// More than a replica waits for, but less than the runner buffers of a response, so that a client may write the
/// whole body before it reads.
const BIG: usize = 200_000;
const MEMORY_LIMIT_MIB: usize = 16;
const QUOTA: usize = 1 << 20;
const DESCRIPTORS: usize = 32;

/// The limits that some kinds exceed, far above what the other kinds need.
pub(crate) fn settings(runner: RunnerCommand) -> RunnerCommand {
    runner
        .env("min_scale", "4")
        .env("max_scale", "4")
        .env("wasm_memory_limit", format!("{MEMORY_LIMIT_MIB}Mi"))
        .env("wasm_fs_quota", QUOTA.to_string())
        .env("wasm_fd_limit", DESCRIPTORS.to_string())
        .env("wasm_output_limit", (BIG * 2).to_string())
        // A guest that waits for a core between its output and its trap must not change the response.
        .env("wasm_output_hold_time", "60s")
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ok,
    /// Ends within a few microseconds.
    Short,
    Trap,
    /// Stopped in guest code.
    Spin,
    /// Stopped in a host call.
    Sleep,
    /// The client disconnects in the middle of its request body.
    CutBody,
    /// The client disconnects while the guest runs.
    CutRun,
    /// The client disconnects in the middle of the response.
    CutResponse,
    Big,
    Memory,
    Quota,
    Descriptors,
    Output,
    Stack,
}

/// The number of requests of each kind in a hundred.
const MIX: [(Kind, usize); 13] = [
    (Kind::Ok, 46),
    (Kind::Trap, 8),
    (Kind::Spin, 4),
    (Kind::Sleep, 4),
    (Kind::CutBody, 5),
    (Kind::CutRun, 3),
    (Kind::CutResponse, 2),
    (Kind::Big, 8),
    (Kind::Memory, 5),
    (Kind::Quota, 4),
    (Kind::Descriptors, 4),
    (Kind::Output, 3),
    (Kind::Stack, 4),
];

impl Kind {
    /// The kind of a request. Follows the mix, in an order that is the same in every run and has no period shorter
    /// than a hundred.
    pub(crate) fn of(number: usize) -> Self {
        // 37 and 100 are coprime, so every hundred requests include every kind as often as the mix says.
        let mut place = (number * 37 + number / 100 * 61) % 100;
        for (kind, share) in MIX {
            if place < share {
                return kind;
            }
            place -= share;
        }
        unreachable!("the shares add up to a hundred")
    }

    /// The group under which the kind is counted.
    pub(crate) fn group(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Short => "short",
            Self::Trap => "trap",
            Self::Spin | Self::Sleep => "deadline",
            Self::CutBody | Self::CutRun | Self::CutResponse => "cut connection",
            Self::Big => "big body",
            Self::Memory | Self::Quota | Self::Descriptors | Self::Output | Self::Stack => {
                "limit hit"
            }
        }
    }
}

/// A client that keeps its connection as long as it can.
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Sends a request of this kind and asserts the right response.
    pub(crate) fn ask(&mut self, kind: Kind, number: usize) {
        match kind {
            Kind::Ok => self.ok("/ok", number, number % 2000),
            Kind::Short => self.ok("/short", number, number % 20),
            Kind::Big => self.big(number),
            // Output from before the trap is not sent.
            Kind::Trap => self.expect("/trap", "", 500, "the function failed\n"),
            Kind::Stack => self.expect("/stack", "", 500, "the function failed\n"),
            Kind::Spin => self.timed_out("/spin"),
            Kind::Sleep => self.timed_out("/sleep"),
            Kind::Memory => self.memory(),
            Kind::Quota => self.quota(),
            Kind::Descriptors => self.descriptors(),
            Kind::Output => self.output(),
            Kind::CutBody => self.cut("/ok", 100_000, &[b'x'; 70_000], false),
            Kind::CutRun => self.cut("/sleep", 0, b"", false),
            Kind::CutResponse => self.cut("/begin", 0, b"", true),
        }
    }

    fn ok(&mut self, path: &str, number: usize, length: usize) {
        let body = text(number, length);
        let sum = body.iter().fold(0_u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
        });
        let expected = format!("request-{number} {} bytes {sum:016x}\n", body.len());
        let response = self.exchange(&format!("{path}?request-{number}"), "", &body);
        require(&response, 200, expected.as_bytes(), path);
    }

    fn big(&mut self, number: usize) {
        let body = text(number, BIG);
        let response = self.exchange("/big", "", &body);
        require(&response, 200, &body, "/big");
    }

    fn timed_out(&mut self, path: &str) {
        let header = format!("X-Timeout: {TIMEOUT}\r\n");
        self.expect(path, &header, 504, "the function timed out\n");
    }

    fn memory(&mut self) {
        let response = self.exchange("/memory", "", b"");
        let grown = number_before(&response, " MiB\n");
        // All pages except the module's initial ones.
        assert!(
            (MEMORY_LIMIT_MIB - 2..MEMORY_LIMIT_MIB).contains(&grown),
            "{response:?}"
        );
    }

    fn quota(&mut self) {
        let response = self.exchange("/quota", "", b"");
        let written = number_before(&response, " bytes, No space left on device\n");
        assert!((QUOTA / 2..=QUOTA).contains(&written), "{response:?}");
    }

    fn descriptors(&mut self) {
        let response = self.exchange("/descriptors", "", b"");
        let opened = number_before(&response, " files, No file descriptors available\n");
        assert!(
            (DESCRIPTORS / 2..DESCRIPTORS).contains(&opened),
            "{response:?}"
        );
    }

    /// Beyond the limit the response is cut off, because its head was sent long before.
    fn output(&mut self) {
        let response = self.exchange("/flood", "", b"");
        match response.status {
            200 => assert!(
                !response.complete && response.body.len() <= 2 * BIG,
                "{}",
                response.body.len()
            ),
            status => assert_eq!(
                (status, response.text().as_str()),
                (500, "the function failed\n")
            ),
        }
    }

    fn expect(&mut self, path: &str, header: &str, status: u16, body: &str) {
        let response = self.exchange(path, header, b"");
        require(&response, status, body.as_bytes(), path);
    }

    /// Sends a request and reads the response.
    fn exchange(&mut self, target: &str, header: &str, body: &[u8]) -> Response {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(connect(self.address).expect("it listens")),
        };
        let stream = connection.get_mut();
        stream
            .write_all(&head(target, header, body.len()))
            .and_then(|()| stream.write_all(body))
            .unwrap_or_else(|error| panic!("{target}: {error}"));
        let response = Response::read(&mut connection, false);
        let response = response.unwrap_or_else(|error| panic!("{target}: {error}"));
        if response.complete && response.header("Connection") != Some("close") {
            self.connection = Some(connection);
        }
        response
    }

    /// Sends a request and disconnects.
    fn cut(&self, target: &str, length: usize, body: &[u8], after_the_head: bool) {
        let mut stream = connect(self.address).expect("it listens");
        stream
            .write_all(&head(target, "", length))
            .and_then(|()| stream.write_all(body))
            .unwrap_or_else(|error| panic!("{target}: {error}"));
        if after_the_head {
            let mut some = [0; 1000];
            stream.read_exact(&mut some).expect("a response begins");
            assert!(some.starts_with(b"HTTP/1.1 200 OK\r\n"), "{some:?}");
        }
        reset(stream);
    }
}

fn head(target: &str, header: &str, length: usize) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\nHost: soak\r\nContent-Length: {length}\r\n{header}\r\n")
        .into()
}

/// Bytes that differ for every request.
fn text(number: usize, length: usize) -> Vec<u8> {
    let mut state = number as u32 | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn require(response: &Response, status: u16, body: &[u8], what: &str) {
    let right = response.status == status && response.complete && response.body == body;
    assert!(
        right,
        "{what}: {} of {} bytes, complete: {}, instead of {status} of {} bytes: {:?}",
        response.status,
        response.body.len(),
        response.complete,
        body.len(),
        response.text().get(..response.body.len().min(200))
    );
}

fn number_before(response: &Response, rest: &str) -> usize {
    let text = response.text();
    let number = text
        .strip_suffix(rest)
        .and_then(|number| number.parse().ok());
    assert_eq!(response.status, 200, "{text}");
    number.unwrap_or_else(|| panic!("`{text}` is not a number followed by `{rest}`"))
}
