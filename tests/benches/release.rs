//! How soon a replica is free again after a deadline, measured by a client. `make bench` runs this.
//!
//! ```text
//! one spins     |---------------- X-Timeout ----------------|
//! other waits        |--------------------------------------|~~~|  answered
//! ```
//!
//! There is one replica. The deadline starts when the spinning request is sent, so that the time until the replica
//! receives it counts too. The waiting request needs almost no time once it runs.

use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use faas_wasm_tests::http::{Response, connect};
use faas_wasm_tests::results::{Better, Bound, Results, Row, Rule, Table};
use faas_wasm_tests::{Backend, Guest, Runner};

const ROUNDS: usize = 200;
const LIMIT: Duration = Duration::from_millis(50);

fn send(runner: &Runner, target: &str, header: &str) -> TcpStream {
    let mut stream = connect(runner.address()).expect("it listens");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n{header}\r\n").expect("it can be written");
    stream
}

fn status(stream: TcpStream) -> u16 {
    let response = Response::read(&mut BufReader::new(stream), false);
    response.expect("it is answered").status
}

/// Milliseconds from the deadline to the response of the waiting request, sorted.
fn measure(backend: Backend) -> Vec<f64> {
    let guest = Guest::fixture_by("obey", backend);
    let runner = guest.serve().env("max_scale", "1").start();
    let limit = format!("X-Timeout: {}ms\r\n", LIMIT.as_millis());
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let spinning = send(&runner, "/spin", &limit);
            // The spinning request is queued or running before the other one arrives.
            runner.wait_for_metric("http_requests_in_flight", 1.0);
            let waiting = send(&runner, "/ok", "");
            assert_eq!(status(waiting), 200);
            let late = start.elapsed().as_secs_f64() - LIMIT.as_secs_f64();
            assert_eq!(status(spinning), 504);
            late * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn main() -> ExitCode {
    let row = |name: &str, times: &[f64]| Row {
        name: name.to_owned(),
        values: [times.len() / 2, times.len() * 99 / 100, times.len() - 1]
            .map(|place| times.get(place).copied())
            .into(),
    };
    let times = measure(Backend::Cranelift);
    let median = times.get(times.len() / 2).copied();
    Results {
        name: "release".to_owned(),
        title: "A replica after a deadline".to_owned(),
        about: vec![format!(
            "One replica, a guest that spins until its deadline of {} ms, and a request that waits for it: from the \
             deadline to the answer of the one that waited, over HTTP, {ROUNDS} times.",
            LIMIT.as_millis()
        )],
        tables: vec![Table {
            title: "from a deadline to the next answer".to_owned(),
            unit: "ms".to_owned(),
            better: Better::Lower,
            columns: ["median", "99 %", "worst"].map(str::to_owned).into(),
            rows: vec![row("spin", &times)],
            chart: false,
        }],
        rules: vec![Rule {
            what: "milliseconds from a deadline to the next answer, median".to_owned(),
            measured: median,
            target: Bound::AtMost(10.0),
            gate: None,
        }],
    }
    .conclude()
}
