//! Many mixed requests to one runner: every response is checked, and nothing may be left behind.
//!
//! `make test` sends a few thousand requests, `make soak` a million (`make soak N=20000` for fewer), in slices. A
//! slice starts with short runs only, so that the runner starts to run them on the I/O thread and guards their
//! memory. It continues with requests of all kinds, which ends both. After each slice, the test waits until the
//! runner is idle and counts its resources, because only counts of an idle runner compare exactly. The counts after
//! the last tenth of the requests must not exceed those after the first tenth.

mod census;
mod kinds;

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::time::{Duration, Instant};

use faas_wasm_tests::{Guest, Runner, Work};

use census::Census;
use kinds::{Client, Kind};

/// Environment variable with the number of requests.
const REQUESTS: &str = "FAAS_WASM_SOAK_REQUESTS";
/// Number of requests in `make test`.
const FEW: usize = 4000;
/// Number of slices; two of them are a tenth.
const SLICES: usize = 20;
/// One in this many requests belongs to the short ones at the start of a slice.
const SHORT: usize = 7;
/// Number of requests before the first count, so that caches fill and every replica has served every kind.
const WARM_UP: usize = 1000;
/// Number of concurrent clients.
const CLIENTS: usize = 8;
/// Minimum share of each group of kinds.
const LEAST_SHARE: f64 = 0.05;
/// Runs that started on the I/O thread.
const TRIALS: [&str; 2] = [
    "wasm_trials_total{outcome=\"ended\"}",
    "wasm_trials_total{outcome=\"repeated\"}",
];
/// Time per request that no working machine exceeds.
const SLOWEST: Duration = Duration::from_millis(20);

#[test]
#[expect(clippy::print_stdout, reason = "the result of a soak")]
fn mixed_requests_leave_nothing_behind() {
    let requests = env::var(REQUESTS).map_or(FEW, |number| {
        number.parse().expect("the number of requests is a number")
    });
    let guest = Guest::fixture("soak");
    let root = Work::new();
    let runner = kinds::settings(guest.serve())
        .env("wasm_root", root.path())
        .log_to_file()
        .start();
    let slice = requests.div_ceil(SLICES);
    let mut counts = BTreeMap::new();
    send(&runner, 0..WARM_UP, Kind::of, &mut BTreeMap::new());
    runner.warm_up("/short");

    let trials = || TRIALS.map(|series| runner.metric(series).expect("it is counted"));
    let before = trials();
    let start = Instant::now();
    let mut censuses = Vec::new();
    for number in 0..SLICES {
        let first = WARM_UP + number * slice;
        let short = slice / SHORT;
        send(&runner, first..first + short, |_| Kind::Short, &mut counts);
        send(&runner, first + short..first + slice, Kind::of, &mut counts);
        censuses.push(Census::take(&runner));
        let limit =
            Duration::from_secs(60) + SLOWEST * u32::try_from(slice * (number + 1)).unwrap();
        assert!(
            start.elapsed() < limit,
            "{counts:?} in {:?}",
            start.elapsed()
        );
    }
    let took = start.elapsed();
    let [ended, repeated] = [0, 1].map(|outcome| trials()[outcome] - before[outcome]);
    report(&counts, &censuses, took);
    println!("trials: {ended} ended well, {repeated} were repeated by a replica");

    let sent: usize = counts.values().sum();
    assert_eq!(sent, slice * SLICES);
    for (group, count) in &counts {
        assert!(
            *count as f64 >= LEAST_SHARE * sent as f64,
            "{group}: {count}"
        );
    }
    let tenth = SLICES / 10;
    Census::compare(&censuses[..tenth], &censuses[SLICES - tenth..]);
    // It has logged the failures, and still stops normally.
    runner.stop();
}

/// Sends the requests with these numbers from several clients, each with its own connections, and counts them by
/// group.
fn send(
    runner: &Runner,
    numbers: Range<usize>,
    kind: fn(usize) -> Kind,
    counts: &mut BTreeMap<&'static str, usize>,
) {
    let done: Vec<_> = std::thread::scope(|scope| {
        let client = |index| {
            let numbers = numbers.clone();
            scope.spawn(move || {
                let mut client = Client::new(runner.address());
                let mut done = BTreeMap::new();
                for number in (numbers.start + index..numbers.end).step_by(CLIENTS) {
                    let kind = kind(number);
                    client.ask(kind, number);
                    *done.entry(kind.group()).or_insert(0) += 1;
                }
                done
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let ended = clients.into_iter().map(|client| client.join());
        ended.collect()
    });
    for done in done {
        let Ok(done) = done else {
            let log = runner.log();
            let tail = log.len().saturating_sub(4000);
            panic!(
                "a client has failed, see above; the log's end:\n{}",
                &log[log.ceil_char_boundary(tail)..]
            );
        };
        for (group, count) in done {
            *counts.entry(group).or_insert(0) += count;
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result of a soak")]
fn report(counts: &BTreeMap<&'static str, usize>, censuses: &[Census], took: Duration) {
    let sent: usize = counts.values().sum();
    let rate = sent as f64 / took.as_secs_f64();
    println!(
        "{sent} requests in {:.1} s, {rate:.0} a second",
        took.as_secs_f64()
    );
    for (group, count) in counts {
        println!(
            "{count:>9} {:5.1} %  {group}",
            *count as f64 * 100.0 / sent as f64
        );
    }
    println!("{}", Census::HEADING);
    for (number, census) in censuses.iter().enumerate() {
        println!("{:>4} % {census}", (number + 1) * 100 / censuses.len());
    }
}
