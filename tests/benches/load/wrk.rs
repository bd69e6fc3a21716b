//! The load generator, wrk. A script tells it what to send and how to print the results.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread::available_parallelism;

use faas_wasm_tests::{Outcome, Work};

use crate::contestants::Request;

/// Duration of one measurement in seconds.
const SECONDS: u32 = 2;
/// Start of the line that the script prints.
const MARK: &str = "measured";

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) requests_per_second: f64,
    /// Median and 99th percentile of the response time, in microseconds.
    pub(crate) median: f64,
    pub(crate) slow: f64,
}

/// wrk, found and ready to use.
pub(crate) struct Wrk {
    work: Work,
    version: String,
}

impl Wrk {
    /// # Errors
    ///
    /// If wrk is not installed, with a hint on how to install it.
    pub(crate) fn find() -> Result<Self, String> {
        // wrk prints its version, and then fails because the address is missing.
        let output = Command::new("wrk").arg("-v").output().map_err(|error| {
            format!("wrk: {error}\nhint: install it, for example with `apt-get install wrk`")
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().take(2).collect::<Vec<_>>();
        let version = version.join(" ");
        let work = Work::new();
        for request in Request::ALL {
            work.write(request.name(), script(request));
        }
        Ok(Self { work, version })
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Generates load without measuring it, to fill caches, train branch predictors, and start replicas.
    pub(crate) fn warm_up(&self, address: SocketAddr, request: Request) {
        self.run(address, request, 32, 1);
    }

    pub(crate) fn load(&self, address: SocketAddr, request: Request, connections: usize) -> Load {
        self.run(address, request, connections, SECONDS)
    }

    fn run(&self, address: SocketAddr, request: Request, connections: usize, seconds: u32) -> Load {
        // More threads would take cores from the server.
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = (cores / 2).clamp(1, 4).min(connections);
        let script: PathBuf = self.work.join(request.name());
        let outcome = Outcome::of(
            Command::new("wrk")
                .args(["--threads", &threads.to_string()])
                .args(["--connections", &connections.to_string()])
                .args(["--duration", &format!("{seconds}s")])
                .arg("--script")
                .arg(script)
                .arg(format!("http://{address}/")),
        );
        let text = outcome.success();
        let line = text.lines().find_map(|line| line.strip_prefix(MARK));
        let line = line.unwrap_or_else(|| panic!("wrk printed no measurement: {text}"));
        let numbers: Vec<f64> = line
            .split_whitespace()
            .map(|number| number.parse().expect("the script prints numbers"))
            .collect();
        let [requests, microseconds, errors, median, slow] = numbers[..] else {
            panic!("the script prints five numbers: {text}");
        };
        // Every response must be a success, because refusals are fast.
        assert_eq!(errors, 0.0, "{text}");
        assert!(requests > 0.0, "{text}");
        Load {
            requests_per_second: requests / microseconds * 1e6,
            median,
            slow,
        }
    }
}

fn script(request: Request) -> String {
    let mut script = String::new();
    if let Some(length) = request.body_length() {
        writeln!(
            script,
            "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {length})"
        )
        .expect("a string takes everything");
    }
    // wrk counts a response with a status of 400 or more as an error.
    script
        + &format!(
            "done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(\"{MARK} %d %d %d %d %d\\n\", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"
        )
}
