//! A runner process: it listens on free ports, is ready when its handle exists, and ends when the handle is dropped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::http::{Request, Response, connect};
use crate::surroundings::runner_program;
use crate::{Outcome, Work};

/// Far longer than any step of a test takes on a working machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A runner that has not started. It inherits only PATH from the tests' environment.
#[derive(Debug)]
pub struct RunnerCommand {
    work: Work,
    environment: BTreeMap<String, OsString>,
    log_to_file: bool,
    /// KiB.
    address_space: Option<u64>,
}

impl RunnerCommand {
    /// A runner with this `fprocess`, on ports that the kernel picks, with a separate directory for the lock file.
    pub fn new(fprocess: &str) -> Self {
        let work = Work::new();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let environment = BTreeMap::from([
            ("PATH".into(), path),
            ("TMPDIR".into(), work.path().into()),
            ("fprocess".into(), fprocess.into()),
            ("port".into(), "0".into()),
            ("metrics_port".into(), "0".into()),
            ("healthcheck_interval".into(), "1ms".into()),
        ]);
        Self {
            work,
            environment,
            log_to_file: false,
            address_space: None,
        }
    }

    /// Sets several variables.
    #[must_use]
    pub fn envs(self, settings: &[(&str, &str)]) -> Self {
        let set = |command: Self, (name, value): &(&str, &str)| command.env(name, *value);
        settings.iter().fold(self, set)
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Sends the log to a file instead of a pipe. With a million requests, reading a pipe would be a large part of
    /// the load.
    #[must_use]
    pub fn log_to_file(mut self) -> Self {
        self.log_to_file = true;
        self
    }

    /// Limits its address space to so many KiB, as `ulimit -v` does.
    #[must_use]
    pub fn address_space(mut self, kibibytes: u64) -> Self {
        self.address_space = Some(kibibytes);
        self
    }

    fn command(&self) -> Command {
        let mut command = match self.address_space {
            None => Command::new(runner_program()),
            Some(kibibytes) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -v {kibibytes}; exec \"$0\"");
                shell.args(["-c", &script]).arg(runner_program());
                shell
            }
        };
        command
            .env_clear()
            .envs(&self.environment)
            .current_dir(self.work.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts the runner and waits until it is healthy.
    pub fn start(self) -> Runner {
        let mut command = self.command();
        let file = self.log_to_file.then(|| self.work.join("log"));
        let stderr = match &file {
            None => Stdio::piped(),
            Some(path) => File::create(path).expect("the log can be made").into(),
        };
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the runner can be started");
        let log = Log {
            file,
            ..Log::default()
        };
        if let Some(pipe) = child.stderr.take() {
            log.follow(pipe);
        }
        let stdout = Log::default();
        stdout.follow(child.stdout.take().expect("it is a pipe"));
        let mut runner = Runner {
            child,
            log,
            stdout,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            metrics: (Ipv4Addr::LOCALHOST, 0).into(),
            work: self.work,
        };
        runner.metrics = runner.listening("Metrics listening on address: ");
        runner.address = runner.listening("Listening on address: ");
        // The runner responds only after it accepts connections.
        let health = runner.send(&Request::get("/_/health"));
        assert_eq!(health.status, 200, "{}", runner.log());
        runner
    }

    /// Starts the runner and waits until it ends without being asked to.
    pub fn run_to_end(self) -> Outcome {
        Outcome::of(&mut self.command())
    }
}

/// A running runner.
#[derive(Debug)]
pub struct Runner {
    child: Child,
    log: Log,
    stdout: Log,
    address: SocketAddr,
    metrics: SocketAddr,
    work: Work,
}

impl Runner {
    fn listening(&mut self, before: &str) -> SocketAddr {
        let line = self.wait_for_log(before);
        let (_, address) = line.split_once(before).expect("the line has been found");
        // In a JSON log, a quote and more fields follow the address.
        let address = address.split('"').next().unwrap_or(address);
        let address: SocketAddr = address.trim().parse().expect("it is an address");
        (Ipv4Addr::LOCALHOST, address.port()).into()
    }

    /// The address that the runner listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of its metrics listener.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The runner's temporary directory, which is also its working directory.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The runner's process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request on a new connection and reads the response.
    #[track_caller]
    pub fn send(&self, request: &Request) -> Response {
        request
            .send(self.address)
            .unwrap_or_else(|error| panic!("{request:?}: {error}\nlog:\n{}", self.log()))
    }

    /// Sends a GET request with these header lines, and returns the connection without reading the response.
    #[track_caller]
    pub fn begin(&self, target: &str, headers: &str) -> TcpStream {
        let mut stream = connect(self.address).expect("it listens");
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
        )
        .expect("written");
        stream
    }

    /// Sends a GET request.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.send(&Request::get(target))
    }

    /// Sends a POST request.
    #[track_caller]
    pub fn post(&self, target: &str, body: impl Into<Vec<u8>>) -> Response {
        self.send(&Request::post(target, body))
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let response = Request::get("/metrics").send(self.metrics);
        response.expect("metrics can be read").text()
    }

    /// Waits until a metric has this value. The runner counts a request when it has finished with it, which may be
    /// after the client has received the response.
    #[track_caller]
    pub fn wait_for_metric(&self, series: &str, value: f64) {
        let start = Instant::now();
        while self.metric(series) != Some(value) {
            assert!(
                start.elapsed() < PATIENCE,
                "{series} is not {value}\n{}",
                self.metrics()
            );
        }
    }

    /// Sends requests with short runs to `target` until the runner starts such runs on the I/O thread. On a busy
    /// machine, no run looks short for a while.
    #[track_caller]
    pub fn warm_up(&self, target: &str) {
        let tried = || self.metric("wasm_trials_total{outcome=\"ended\"}");
        let before = tried();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            for _ in 0..100 {
                assert_eq!(self.get(target).status, 200);
            }
            if tried() != before {
                return;
            }
        }
        panic!("no run has started on the I/O thread\n{}", self.metrics());
    }

    /// The value of a metric, labels included: `metric("http_requests_in_flight")`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let (_, value) = lines.find(|(name, _)| *name == series)?;
        value.parse().ok()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Stops reading the log, so that its pipe fills up, until the returned guard is dropped.
    pub fn leave_log_unread(&self) -> impl Drop {
        let (lines, _) = &*self.log.collected;
        lines.lock().expect("no thread panics")
    }

    /// Waits for a log line that contains this text.
    #[track_caller]
    pub fn wait_for_log(&mut self, part: &str) -> String {
        self.log.wait_for(part)
    }

    /// Waits for a line on standard output that contains this text.
    #[track_caller]
    pub fn wait_for_stdout(&mut self, part: &str) -> String {
        self.stdout.wait_for(part)
    }

    /// Sends a signal to the runner.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.expect("a child has a number"), signal)
            .expect("the runner is there");
    }

    /// Waits until the runner has ended. Returns its status and the whole log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("the runner can be waited for");
        self.log.wait_for_end();
        (status, self.log.text())
    }

    /// Asks the runner to stop, asserts that it exits with 0, and returns the whole log.
    #[track_caller]
    pub fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (status, log) = self.wait();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{log}");
        log
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines collected by a thread, or stored in a file.
#[derive(Debug, Clone, Default)]
struct Log {
    collected: Arc<(Mutex<Lines>, Condvar)>,
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(&self, source: impl Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            let (lines, changed) = &*log.collected;
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.lock().expect("no thread panics").lines.push(line);
                changed.notify_all();
            }
            lines.lock().expect("no thread panics").ended = true;
            changed.notify_all();
        });
    }

    #[track_caller]
    fn wait_for(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        if self.file.is_some() {
            return self.wait_for_in_file(part, deadline);
        }
        let (lines, changed) = &*self.collected;
        let mut lines = lines.lock().expect("no thread panics");
        loop {
            if let Some(line) = lines.lines.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                let all = lines.lines.join("\n");
                drop(lines);
                panic!("no line has `{part}`:\n{all}");
            }
            let waited = changed.wait_timeout(lines, left);
            (lines, _) = waited.expect("no thread panics");
        }
    }

    #[track_caller]
    fn wait_for_in_file(&self, part: &str, deadline: Instant) -> String {
        loop {
            let text = self.text();
            let mut lines = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            if let Some(line) = lines.find(|line| line.contains(part)) {
                return line.trim_end().to_owned();
            }
            assert!(Instant::now() < deadline, "no line has `{part}`:\n{text}");
            // A file gives no notification when it grows, so poll it.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_for_end(&self) {
        if self.file.is_some() {
            return;
        }
        let (lines, changed) = &*self.collected;
        let lines = lines.lock().expect("no thread panics");
        let waited = changed.wait_timeout_while(lines, PATIENCE, |lines| !lines.ended);
        drop(waited.expect("no thread panics"));
    }

    fn text(&self) -> String {
        if let Some(file) = &self.file {
            let text = std::fs::read(file).expect("the log can be read");
            return String::from_utf8_lossy(&text).into_owned();
        }
        let lines = self.collected.0.lock().expect("no thread panics");
        lines.lines.join("\n")
    }
}
