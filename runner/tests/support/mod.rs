//! A real runner on ports of its own, in a directory of its own, and a client that sees bytes.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "shared by test programs that use parts of it"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything here waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running runner; it is killed when dropped.
pub struct Runner {
    child: Child,
    directory: tempfile::TempDir,
    port: u16,
    metrics_port: u16,
}

/// What came back for a request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Starts a runner with `files` in its working directory and waits until it is healthy.
pub fn start(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Runner {
    healthy(launch(variables, files), variables)
}

/// As [`start`], from a shell that has set limits by these commands before.
pub fn start_below(limits: &str, variables: &[(&str, &str)], files: &[(&str, &str)]) -> Runner {
    let mut shell = Command::new("sh");
    let script = format!("{limits}; exec \"$0\"");
    shell.args(["-c", &script, RUNNER]);
    healthy(launch_by(shell, variables, files), variables)
}

/// As [`start`], from a command that starts the program of its last argument.
pub fn start_by(
    mut command: Command,
    variables: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Runner {
    command.arg(RUNNER);
    healthy(launch_by(command, variables, files), variables)
}

/// Requires that a runner with `max_connections=1` serves nobody else until what holds its connection is dropped.
pub fn require_the_only_connection(runner: &Runner, held: impl Sized) {
    let mut waiting = runner.connect();
    waiting
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("sent");
    waiting
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("set");
    let mut byte = [0];
    assert!(
        waiting.read(&mut byte).is_err(),
        "not served while another connection is open"
    );
    drop(held);
    waiting
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    assert_eq!(waiting.read(&mut byte).expect("read"), 1);
}

const RUNNER: &str = env!("CARGO_BIN_EXE_faas-wasm-runner");

fn healthy(mut runner: Runner, variables: &[(&str, &str)]) -> Runner {
    runner.port = runner.wait_for_port("Listening on address: ");
    runner.metrics_port = runner.wait_for_port("Metrics listening on address: ");
    let suppressed = variables.iter().any(|(name, _)| *name == "suppress_lock");
    wait_until("healthy", || {
        suppressed || runner.get("/_/health").status == 200
    });
    runner
}

/// Starts a runner that is expected to end by itself.
pub fn launch(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Runner {
    launch_by(Command::new(RUNNER), variables, files)
}

fn launch_by(mut command: Command, variables: &[(&str, &str)], files: &[(&str, &str)]) -> Runner {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("written");
    }
    let output = |name: &str| File::create(directory.path().join(name)).expect("created");
    let child = command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", directory.path())
        .env("port", "0")
        .env("metrics_port", "0")
        .envs(variables.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(output("stdout.log"))
        .stderr(output("stderr.log"))
        .spawn()
        .expect("the runner starts");
    Runner {
        child,
        directory,
        port: 0,
        metrics_port: 0,
    }
}

/// Tells that a test is left out, and why; `make test` counts these lines at the end.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}\n");
    print!("{line}");
    if let Some(path) = std::env::var_os("FAAS_WASM_SKIPPED") {
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the list of skipped tests can be written");
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Runner {
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn lock_file(&self) -> PathBuf {
        self.directory().join(".lock")
    }

    /// Everything on stderr so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory().join("stderr.log")).expect("read"))
            .into_owned()
    }

    /// Everything on stdout so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.directory().join("stdout.log")).expect("read")
    }

    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || {
            self.log().contains(text)
        });
    }

    fn wait_for_port(&mut self, what: &str) -> u16 {
        let mut port = None;
        wait_until(what, || {
            let log = self.log();
            port = log.lines().find_map(|line| {
                // Behind the time of a text line, or as the message of a JSON line.
                let begin = line
                    .find(what)
                    .filter(|at| *at == 20 || line[..*at].ends_with("\"message\":\""))?;
                let address = line[begin + what.len()..].split('"').next()?;
                address
                    .parse::<SocketAddr>()
                    .ok()
                    .map(|address| address.port())
            });
            let ended = self.child.try_wait().expect("waits");
            assert!(
                ended.is_none() || port.is_some(),
                "ended with {ended:?}:\n{log}"
            );
            port.is_some()
        });
        port.expect("waited for")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.port)
    }

    /// Sends bytes and reads until the connection ends.
    pub fn exchange(&self, request: &[u8]) -> Vec<u8> {
        exchange(self.port, request)
    }

    pub fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        parse(&self.exchange(&[request.as_bytes(), body].concat()))
    }

    pub fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    pub fn metrics(&self) -> String {
        let answer = self.scrape("");
        assert_eq!(answer.status, 200);
        answer.text()
    }

    /// `/metrics`, asked for with these header lines.
    pub fn scrape(&self, headers: &str) -> Answer {
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n");
        parse(&exchange(self.metrics_port, request.as_bytes()))
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .expect("kill runs")
                .success()
        );
    }

    /// Waits for the end; `None` for a signal.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the end of the runner", || {
            status = self.child.try_wait().expect("waits");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// Closes a connection so that the other side is told at once: by a reset.
pub fn reset(stream: TcpStream) {
    let linger = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    linger.expect("a socket has this option");
    drop(stream);
}

pub fn exchange(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    let mut writer = stream.try_clone().expect("cloned");
    let request = request.to_vec();
    // A server may answer, and close, before it has read everything.
    let sender = std::thread::spawn(move || drop(writer.write_all(&request)));
    let mut answer = Vec::new();
    // A reset after the answer does not take back what was read.
    let _ = stream.read_to_end(&mut answer);
    let _ = stream.shutdown(Shutdown::Both);
    sender.join().expect("sent");
    answer
}

/// Takes an answer apart, and its chunks together.
pub fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .expect("a status")
        .parse()
        .expect("a number");
    let mut answer = Answer {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunk(&answer.body).expect("complete chunks");
    }
    answer
}

/// The data of a chunked body; `None` if it is cut.
pub fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return (rest == b"\r\n").then_some(data);
        }
        data.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// A process that ends badly gives its text for the assertion's message.
pub fn last_line(log: &str) -> &str {
    log.trim_end().lines().last().unwrap_or_default()
}
