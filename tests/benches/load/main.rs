//! What the runner serves under load, beside a bare HTTP server and, where there is one, of-watchdog.
//! `make bench` runs this.
//!
//! ```text
//! wrk --> contestant        one at a time, in turns, each with the same requests
//! ```
//!
//! The bare server is the same hyper on the same tokio as the runner's and does nothing else: what is
//! left of its throughput is what the runner takes for all it does. Load generator and server share
//! the machine, so only ratios of one turn are compared. With `OF_WATCHDOG=path` the original runs in
//! the modes that it has.

mod bare;
mod contestants;
mod report;
mod wrk;

use std::process::ExitCode;

use contestants::{Contestant, Server};
use wrk::Wrk;

/// How often each contestant has its turn.
const TURNS: usize = 3;
/// Connections of wrk, each with its own measurement.
const CONNECTIONS: [usize; 3] = [1, 8, 32];

/// What one contestant did in one turn.
struct Turn {
    contestant: Contestant,
    /// Resident memory before the first request that counts, in bytes.
    idle_rss: u64,
    /// For each of [`CONNECTIONS`].
    loads: Vec<wrk::Load>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(bare::FLAG) {
        let port = arguments.next().and_then(|port| port.parse().ok());
        bare::serve(port.expect("the parent passes a port"));
        return ExitCode::SUCCESS;
    }
    let wrk = match Wrk::find() {
        Ok(wrk) => wrk,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    let contestants = Contestant::all();
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        for contestant in &contestants {
            turns.push(turn(contestant, &wrk));
        }
    }
    report::results(&contestants, &turns, &wrk).conclude()
}

fn turn(contestant: &Contestant, wrk: &Wrk) -> Turn {
    let server = Server::start(contestant);
    server.check(contestant);
    let idle_rss = server.resident();
    wrk.warm_up(server.address(), contestant.request());
    let measure = |connections| wrk.load(server.address(), contestant.request(), connections);
    let loads = CONNECTIONS.into_iter().map(measure).collect();
    // It still does its work.
    server.check(contestant);
    Turn {
        contestant: contestant.clone(),
        idle_rss,
        loads,
    }
}

#[expect(clippy::print_stderr, reason = "for who runs the benchmark")]
fn complain(what: &str) {
    eprintln!("error: {what}");
}
