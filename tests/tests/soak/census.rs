//! The resources that an idle runner holds.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use faas_wasm_tests::Runner;

/// The runner closes abandoned connections sooner than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Only a reservation for a guest's memory is this large.
const SLOT: u64 = 4 << 30;

/// Counts of resources while the runner is idle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Census {
    descriptors: usize,
    threads: usize,
    mappings: usize,
    slots: usize,
    resident_kib: u64,
}

impl Census {
    pub(crate) const HEADING: &str = "       descriptors threads mappings slots resident";

    /// Waits until the runner is idle, and counts.
    pub(crate) fn take(runner: &Runner) -> Self {
        for idle in [
            "http_requests_in_flight",
            "wasm_instances_running",
            "wasm_queue_length",
        ] {
            runner.wait_for_metric(idle, 0.0);
        }
        // The clients have closed their connections, but the runner may not have noticed yet.
        let deadline = Instant::now() + PATIENCE;
        let mut census = Self::now(runner.pid());
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let again = Self::now(runner.pid());
            let settled = again == census && connections(runner) == 0;
            census = again;
            if settled || Instant::now() > deadline {
                return census;
            }
        }
    }

    fn now(pid: u32) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it runs");
        let entries = |name: &str| {
            fs::read_dir(format!("/proc/{pid}/{name}"))
                .expect("it runs")
                .count()
        };
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
        let maps = read("maps");
        let sizes = maps.lines().map(|line| {
            let (start, rest) = line.split_once('-').expect("it is a range");
            let (end, _) = rest.split_once(' ').expect("more follows");
            let number = |hex| u64::from_str_radix(hex, 16).expect("it is a number");
            number(end) - number(start)
        });
        Self {
            descriptors: entries("fd"),
            threads: entries("task"),
            mappings: maps.lines().count(),
            slots: sizes.filter(|size| *size >= SLOT).count(),
            resident_kib: resident.expect("a process has memory"),
        }
    }

    /// Asserts that the last counts are no higher than the first ones.
    pub(crate) fn compare(first: &[Self], last: &[Self]) {
        let most = |censuses: &[Self], count: fn(&Self) -> u64| {
            censuses.iter().map(count).max().expect("there is one")
        };
        let flat = |what: &str, count: fn(&Self) -> u64, slack: u64| {
            let (first, last) = (most(first, count), most(last, count));
            assert!(
                last <= first + slack,
                "{what}: {first} at first, {last} at last"
            );
        };
        flat("descriptors", |census| census.descriptors as u64, 0);
        flat("threads", |census| census.threads as u64, 0);
        flat("slots", |census| census.slots as u64, 0);
        // The allocator adds and removes arenas in pieces.
        flat("mappings", |census| census.mappings as u64, 8);
        let resident = most(first, |census| census.resident_kib);
        flat(
            "resident KiB",
            |census| census.resident_kib,
            2048 + resident / 10,
        );
    }
}

/// Number of client connections that the runner still has open.
fn connections(runner: &Runner) -> usize {
    let port = format!(":{:04X} ", runner.address().port());
    let tables = ["tcp", "tcp6"]
        .map(|name| fs::read_to_string(format!("/proc/{}/net/{name}", runner.pid())));
    let rows = tables.iter().flatten().flat_map(|table| table.lines());
    rows.filter(|row| {
        let mut columns = row.split_whitespace().skip(1);
        let local = columns.next().unwrap_or_default();
        let state = columns.nth(1).unwrap_or_default();
        // Established, or closed only by the client.
        format!("{local} ").ends_with(&port) && (state == "01" || state == "08")
    })
    .count()
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            descriptors,
            threads,
            mappings,
            slots,
            resident_kib,
        } = self;
        write!(
            f,
            "{descriptors:>11} {threads:>7} {mappings:>8} {slots:>5} {resident_kib:>7} KiB"
        )
    }
}
