//! `faas-wasm serve`: it builds, serves, watches, and ends every process that it started.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Stdio};

use faas_wasm_tests::http::Request;
use faas_wasm_tests::{Work, runner_program, tool};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// The runner logs this when it accepts connections.
const LISTENING: &str = " Listening on address: ";

/// A guest that responds with `text`.
fn guest(text: &str) -> String {
    let length = text.len();
    format!(
        r#"(module (import "wasi_snapshot_preview1" "fd_write"
                (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\{length:02x}\00\00\00") (data (i32.const 16) "{text}")
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    )
}

/// A running `faas-wasm serve`.
struct Serve {
    child: Child,
    log: BufReader<ChildStderr>,
    seen: String,
}

impl Serve {
    fn start(work: &Work, arguments: &[&str]) -> Self {
        let mut command = tool();
        command
            .args(["serve", "--port", "0", "--set", "metrics_port=0"])
            .args(arguments)
            .current_dir(work.path())
            .env("TMPDIR", work.path())
            .env("FAAS_WASM_RUNNER", runner_program())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        let log = BufReader::new(child.stderr.take().expect("it is a pipe"));
        Self {
            child,
            log,
            seen: String::new(),
        }
    }

    /// Reads lines until one contains this text.
    fn wait_for(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.log.read_line(&mut line).expect("it can be read");
            assert!(length > 0, "it ended without `{part}`:\n{}", self.seen);
            self.seen += &line;
            if line.contains(part) {
                return line;
            }
        }
    }

    fn address(&mut self) -> SocketAddr {
        loop {
            let line = self.wait_for(LISTENING);
            // The metrics listener logs a similar line.
            if let Some((_, address)) = line.split_once(LISTENING)
                && !line.contains("Metrics")
            {
                let address: SocketAddr = address.trim().parse().expect("an address");
                return ([127, 0, 0, 1], address.port()).into();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }

    /// The child processes that it started.
    fn children(&self) -> Vec<Pid> {
        let id = self.child.id();
        let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let list = list.expect("the kernel tells");
        let numbers = list
            .split_whitespace()
            .filter_map(|number| number.parse().ok());
        numbers.filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // Still running only if a test failed.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr) -> String {
    Request::get("/").send(address).expect("it answers").text()
}

#[test]
fn a_module_is_built_and_served_until_ctrl_c() {
    let work = Work::new();
    work.write("a.wat", guest("hello"));
    let mut serve = Serve::start(&work, &["--backend", "cranelift", "a.wat"]);
    let address = serve.address();
    assert_eq!(get(address), "hello");
    let children = serve.children();
    assert_eq!(children.len(), 1, "the runner");
    serve.signal(Signal::INT);
    let status = serve.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(
        test_kill_process(children[0]).is_err(),
        "the runner has ended too"
    );
    let left = fs::read_dir(work.path()).expect("it is there").count();
    assert_eq!(left, 1, "the artifact was removed");
}

#[test]
fn artifacts_and_arguments_are_passed_on() {
    let work = Work::new();
    work.fixture("echo");
    let mut build = tool();
    build.args(["build", "--quiet", "--backend", "cranelift", "echo.wasm"]);
    assert!(
        build
            .current_dir(work.path())
            .status()
            .expect("it runs")
            .success()
    );
    let mut serve = Serve::start(&work, &["echo.so", "--", "first", "second"]);
    let address = serve.address();
    let response = Request::post("/", "body")
        .send(address)
        .expect("it answers");
    assert_eq!(response.text(), "body");
    assert!(serve.seen.contains("first second"), "{}", serve.seen);
}

#[test]
fn changes_are_served_unless_they_fail_to_build() {
    let work = Work::new();
    let path = work.write("a.wat", guest("one"));
    let mut serve = Serve::start(&work, &["--watch", "--backend", "cranelift", "a.wat"]);
    let first = serve.address();
    assert_eq!(get(first), "one");
    // A broken module: the error is reported, and the old version is still served.
    fs::write(&path, "(module").expect("it can be written");
    serve.wait_for("error: the WebAssembly text of a.wat cannot be assembled");
    serve.wait_for("serve: the build failed; the version before is still served");
    assert_eq!(get(first), "one");
    // As compilers do it: write a new file and rename it over the old one.
    let new = work.write("new", guest("two"));
    fs::rename(new, &path).expect("it can be renamed");
    let second = serve.address();
    assert_eq!(get(second), "two");
    // A file that is written in two parts is read only when it is complete.
    let text = guest("three");
    let (start, rest) = text.split_at(text.len() / 2);
    let mut file = fs::File::create(&path).expect("it can be opened");
    std::io::Write::write_all(&mut file, start.as_bytes()).expect("it can be written");
    assert_eq!(get(second), "two");
    std::io::Write::write_all(&mut file, rest.as_bytes()).expect("it can be written");
    drop(file);
    let third = serve.address();
    assert_eq!(get(third), "three");
    let failures = serve.seen.matches("the build failed").count();
    assert_eq!(failures, 1, "{}", serve.seen);
    serve.signal(Signal::TERM);
    assert_eq!(serve.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_bad_module_ends_serve_without_watch() {
    let work = Work::new();
    work.write("a.wat", "(module)");
    let mut serve = Serve::start(&work, &["--backend", "cranelift", "a.wat"]);
    serve.wait_for("error: a.wat has no function `_start`");
    assert_eq!(serve.child.wait().expect("it ends").code(), Some(1));
}
