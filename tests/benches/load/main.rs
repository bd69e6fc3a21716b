//! The runner under load, compared with a bare HTTP server and, if available, of-watchdog. `make bench` runs this.
//!
//! ```text
//! wrk --> contestant        one at a time, in turns, each with the same requests
//! ```
//!
//! The bare server uses the same hyper and tokio as the runner and does nothing else, so the difference in throughput
//! is the cost of the runner. The load generator and the server share the machine, so only ratios within one turn are
//! compared. With `OF_WATCHDOG=path`, of-watchdog runs in each mode that it supports.

mod bare;
mod contestants;
mod report;
mod wrk;

use std::process::ExitCode;

use contestants::{Contestant, Server};
use wrk::Wrk;

/// Number of turns of each contestant.
const TURNS: usize = 3;
/// Numbers of connections, each measured separately.
const CONNECTIONS: [usize; 3] = [1, 8, 32];

/// The measurements of one contestant in one turn.
struct Turn {
    contestant: Contestant,
    /// Resident memory before the first counted request, in bytes.
    idle_rss: u64,
    /// One for each of [`CONNECTIONS`].
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
    // It must still work.
    server.check(contestant);
    Turn {
        contestant: contestant.clone(),
        idle_rss,
        loads,
    }
}

#[expect(clippy::print_stderr, reason = "shown to the user of the benchmark")]
fn complain(what: &str) {
    eprintln!("error: {what}");
}
