//! A container as an orchestrator would run it: read-only, unprivileged, and with limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use faas_wasm_tests::Outcome;
use faas_wasm_tests::http::{Request, Response};

use crate::engine::{docker, inspect, run};

/// Far longer than any step of a test takes on a working machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between polls.
const PERIOD: Duration = Duration::from_millis(20);

/// Polls until this returns a value.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(PERIOD);
    }
}

/// A running container, removed on drop.
#[derive(Debug)]
pub(crate) struct Container {
    id: String,
}

impl Container {
    /// Starts a container with a read-only root, a writable /tmp, no capabilities, 256 MiB and one CPU.
    #[track_caller]
    pub(crate) fn start(image: &str) -> Self {
        Self::start_with(image, &[])
    }

    /// The same with more options.
    #[track_caller]
    pub(crate) fn start_with(image: &str, options: &[&str]) -> Self {
        let mut arguments = vec![
            "run",
            "--detach",
            "--read-only",
            "--tmpfs=/tmp",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--memory=256m",
            "--cpus=1",
            "--pids-limit=200",
            "--publish=127.0.0.1::8080",
            "--publish=127.0.0.1::8081",
        ];
        arguments.extend(options);
        arguments.push(image);
        let container = Self {
            id: run(&arguments),
        };
        wait_for("the function is ready", || {
            assert_eq!(
                container.inspect("{{.State.Running}}"),
                "true",
                "{}",
                container.logs()
            );
            let answer = Request::get("/_/ready").send(container.address(8080)?);
            answer.ok().filter(|answer| answer.status == 200)
        });
        container
    }

    /// A field of the engine's description of the container.
    #[track_caller]
    pub(crate) fn inspect(&self, field: &str) -> String {
        inspect(&self.id, field)
    }

    /// The address at which a port is published, or `None` if it is not published yet.
    pub(crate) fn address(&self, port: u16) -> Option<SocketAddr> {
        let field = format!(
            "{{{{with index .NetworkSettings.Ports \"{port}/tcp\"}}}}{{{{(index . 0).HostPort}}}}{{{{end}}}}"
        );
        let port = self.inspect(&field).parse().ok()?;
        Some((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Sends a request to the function.
    #[track_caller]
    pub(crate) fn send(&self, request: &Request) -> Response {
        let address = self.address(8080).expect("the port is published");
        request
            .send(address)
            .unwrap_or_else(|error| panic!("{request:?}: {error}\nlog:\n{}", self.logs()))
    }

    /// Sends a GET request.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Response {
        self.send(&Request::get(target))
    }

    /// Sends a POST request.
    #[track_caller]
    pub(crate) fn post(&self, target: &str, body: impl Into<Vec<u8>>) -> Response {
        self.send(&Request::post(target, body))
    }

    /// The text of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        let address = self.address(8081).expect("the port is published");
        let response = Request::get("/metrics").send(address);
        response.expect("metrics can be read").text()
    }

    /// The container's output on both streams.
    pub(crate) fn logs(&self) -> String {
        let outcome = Outcome::of(docker().args(["logs", &self.id]));
        outcome.text() + &outcome.stderr
    }

    /// Waits until the image's health check reports the container as healthy.
    #[track_caller]
    pub(crate) fn wait_until_healthy(&self) {
        wait_for("the health check passes", || {
            let health = self.inspect("{{.State.Health.Status}}");
            assert_ne!(health, "unhealthy", "{}", self.logs());
            (health == "healthy").then_some(())
        });
    }

    /// Runs a program in the container.
    pub(crate) fn exec(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(docker().args(["exec", &self.id]).args(arguments))
    }

    /// The kernel's view of the container's first process: the lines of `/proc/PID/status`.
    pub(crate) fn process_status(&self) -> String {
        let path = format!("/proc/{}/status", self.inspect("{{.State.Pid}}"));
        std::fs::read_to_string(path).expect("the engine runs on this machine")
    }

    /// Asks the container to stop, waits for its end, and returns the exit code. The engine kills it after a minute,
    /// which gives 137.
    #[track_caller]
    pub(crate) fn stop(&self) -> i32 {
        run(&["stop", "--time=60", &self.id]);
        let code = self.inspect("{{.State.ExitCode}}");
        code.parse().expect("it is a number")
    }

    /// Asserts the properties of every container: not root, no capabilities, the default seccomp profile, and a
    /// passing health check.
    #[track_caller]
    pub(crate) fn is_confined_and_healthy(&self) {
        let status = self.process_status();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} is not in\n{status}"))
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        assert_ne!(field("Uid:")[1], "0", "it runs as root");
        assert_ne!(field("Gid:")[1], "0", "it runs in root's group");
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
        assert_eq!(field("Seccomp:"), ["2"], "a seccomp profile is in force");
        let check = self.inspect("{{json .Config.Healthcheck.Test}}");
        assert_eq!(check, r#"["CMD","/usr/bin/fwatchdog","--run-healthcheck"]"#);
        let ports = self.inspect("{{json .Config.ExposedPorts}}");
        assert_eq!(ports, r#"{"8080/tcp":{},"8081/tcp":{}}"#);
        self.wait_until_healthy();
    }

    /// Asserts that the container exits with 0 when asked to stop, and logs that.
    #[track_caller]
    pub(crate) fn ends_well(&self) {
        assert_eq!(self.stop(), 0, "{}", self.logs());
        let logs = self.logs();
        for line in [
            "SIGTERM: no new connections",
            "Exiting. Active connections: 0",
        ] {
            assert!(logs.contains(line), "`{line}` is not in\n{logs}");
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A failure here cannot be handled, and must not hide the test's own failure.
        let _ = docker().args(["rm", "--force", &self.id]).output();
    }
}
