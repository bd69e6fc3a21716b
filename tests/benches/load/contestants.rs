//! The contestants: the runner in its modes, the bare server, and of-watchdog if available.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use faas_wasm_tests::http::{Request as HttpRequest, Response};
use faas_wasm_tests::{Guest, Runner, RunnerCommand, Work};

use crate::bare;

/// Environment variable with the path of of-watchdog.
const OF_WATCHDOG: &str = "OF_WATCHDOG";
/// Far longer than any start takes on a working machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Size of the body of [`Request::Echo`] in bytes.
const ECHO: usize = 1024;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// A GET without a body.
    Get,
    /// A POST whose response repeats the body.
    Echo,
}

impl Request {
    pub(crate) const ALL: [Self; 2] = [Self::Get, Self::Echo];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Echo => "echo",
        }
    }

    pub(crate) fn body_length(self) -> Option<usize> {
        match self {
            Self::Get => None,
            Self::Echo => Some(ECHO),
        }
    }

    fn send(self, address: SocketAddr) -> std::io::Result<Response> {
        match self {
            Self::Get => HttpRequest::get("/"),
            Self::Echo => HttpRequest::post("/", vec![b'x'; ECHO]),
        }
        .send(address)
    }
}

/// The modes that of-watchdog has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Classic {
    Http,
    Static,
    Streaming,
    Serializing,
}

impl Classic {
    pub(crate) const ALL: [Self; 4] =
        [Self::Http, Self::Static, Self::Streaming, Self::Serializing];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Static => "static",
            Self::Streaming => "streaming",
            Self::Serializing => "serializing",
        }
    }
}

/// A kind of server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// hyper alone.
    Bare(Request),
    /// The runner in wasm mode.
    Wasm(&'static str),
    /// The runner in another mode.
    Ours(Classic),
    /// of-watchdog.
    Original(Classic),
}

impl Contestant {
    /// All contestants that are available here.
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<_> = Request::ALL.map(Self::Bare).into();
        all.extend(["nop", "hello", "echo"].map(Self::Wasm));
        all.extend(Classic::ALL.map(Self::Ours));
        if env::var_os(OF_WATCHDOG).is_some() {
            all.extend(Classic::ALL.map(Self::Original));
        }
        all
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Bare(Request::Get) => "bare hyper".to_owned(),
            Self::Bare(Request::Echo) => "bare hyper, echo of 1 KiB".to_owned(),
            Self::Wasm("echo") => "wasm, echo of 1 KiB".to_owned(),
            Self::Wasm(guest) => format!("wasm, {guest}"),
            Self::Ours(mode) => mode.name().to_owned(),
            Self::Original(mode) => format!("of-watchdog, {}", mode.name()),
        }
    }

    pub(crate) fn request(&self) -> Request {
        match self {
            Self::Bare(request) => *request,
            Self::Wasm("echo") => Request::Echo,
            _ => Request::Get,
        }
    }

    fn expected(&self) -> Vec<u8> {
        match self {
            Self::Wasm("nop") => Vec::new(),
            _ if self.request() == Request::Echo => vec![b'x'; ECHO],
            _ => bare::GREETING.into(),
        }
    }
}

/// The function or files that the runner serves.
pub(crate) enum Served {
    /// An artifact.
    Guest(#[expect(dead_code, reason = "kept for its files")] Guest),
    /// Files of another mode.
    Files(#[expect(dead_code, reason = "kept for its files")] Work),
}

/// A running contestant, ended on drop.
pub(crate) enum Server {
    /// The runner.
    Runner(
        Runner,
        #[expect(dead_code, reason = "kept for its files")] Served,
    ),
    /// Another program.
    Process(Process),
}

impl Server {
    pub(crate) fn start(contestant: &Contestant) -> Self {
        match contestant {
            Contestant::Bare(_) => {
                let port = free_port();
                let program = env::current_exe().expect("a program has a file");
                let mut command = Command::new(program);
                command.args([bare::FLAG, &port.to_string()]);
                Self::Process(Process::start(&mut command, port, Work::new()))
            }
            Contestant::Wasm(guest) => {
                let guest = Guest::fixture(guest);
                let runner = guest.serve().log_to_file().start();
                Self::Runner(runner, Served::Guest(guest))
            }
            Contestant::Ours(mode) => {
                let work = Work::new();
                let settings = settings(*mode, &work);
                let mut command = RunnerCommand::new("").log_to_file();
                for (name, value) in settings {
                    command = command.env(name, value);
                }
                Self::Runner(command.start(), Served::Files(work))
            }
            Contestant::Original(mode) => {
                let work = Work::new();
                let port = free_port();
                let program = env::var_os(OF_WATCHDOG).expect("it is a contestant");
                let mut command = Command::new(program);
                command
                    .env_clear()
                    .env("PATH", env::var_os("PATH").unwrap_or_default())
                    .env("TMPDIR", work.path())
                    .env("port", port.to_string())
                    .envs(settings(*mode, &work));
                Self::Process(Process::start(&mut command, port, work))
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Runner(runner, _) => runner.address(),
            Self::Process(process) => process.address,
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let pid = match self {
            Self::Runner(runner, _) => runner.pid(),
            Self::Process(process) => process.child.id(),
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("a process has memory") << 10
    }

    /// Asserts that it responds correctly. Retries, because the upstream of http mode may still be starting.
    pub(crate) fn check(&self, contestant: &Contestant) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let response = contestant.request().send(self.address());
            match response {
                Ok(response) if response.status == 200 => {
                    assert_eq!(response.body, contestant.expected(), "{contestant:?}");
                    return;
                }
                other => assert!(Instant::now() < deadline, "{contestant:?}: {other:?}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The settings, which are the same for the runner and of-watchdog.
fn settings(mode: Classic, work: &Work) -> Vec<(&'static str, String)> {
    let mut settings = vec![("mode", mode.name().to_owned())];
    match mode {
        Classic::Http => {
            let port = free_port();
            let program = env::current_exe().expect("a program has a file");
            let flag = bare::FLAG;
            settings.push(("fprocess", format!("{} {flag} {port}", program.display())));
            settings.push(("upstream_url", format!("http://127.0.0.1:{port}")));
        }
        Classic::Static => {
            let page = work.join("public");
            fs::create_dir_all(&page).expect("the directory can be made");
            fs::write(page.join("index.html"), bare::GREETING).expect("the page can be written");
            settings.push(("static_path", page.display().to_string()));
        }
        Classic::Streaming | Classic::Serializing => {
            // `cat` is one of the smallest programs on every system.
            let file: PathBuf = work.write("greeting", bare::GREETING);
            settings.push(("fprocess", format!("cat {}", file.display())));
        }
    }
    settings
}

/// A port that is free at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A program that listens on a given port.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    #[expect(dead_code, reason = "kept for its files")]
    work: Work,
}

impl Process {
    fn start(command: &mut Command, port: u16, work: Work) -> Self {
        let log = fs::File::create(work.join("log")).expect("the log can be made");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self {
            child,
            address,
            work,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
