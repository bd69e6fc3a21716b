//! The tables and the ratios.

use faas_wasm_tests::results::{Better, Bound, Results, Row, Rule, Table};

use crate::contestants::{Classic, Contestant, Request};
use crate::wrk::{Load, Wrk};
use crate::{CONNECTIONS, TURNS, Turn};

const MIB: f64 = (1 << 20) as f64;

/// Absolute times have no gate, and the gate for ratios is wide, because other work on the machine slows the runner's
/// threads more than a server with one thread per connection.
const GATE: f64 = 0.6;

/// The turns of all contestants.
struct Turns<'a>(&'a [Turn]);

impl Turns<'_> {
    fn of<'t>(&'t self, contestant: &'t Contestant) -> impl Iterator<Item = &'t Turn> {
        self.0
            .iter()
            .filter(move |turn| turn.contestant == *contestant)
    }

    /// The median over the turns.
    fn middle(
        &self,
        contestant: &Contestant,
        connections: usize,
        number: impl Fn(&Load) -> f64,
    ) -> Option<f64> {
        middle(
            self.of(contestant)
                .map(|turn| number(&turn.loads[connections]))
                .collect(),
        )
    }

    /// The median over the turns of a comparison of two contestants within a turn.
    fn compared(
        &self,
        one: &Contestant,
        other: &Contestant,
        connections: usize,
        compare: impl Fn(&Load, &Load) -> f64,
    ) -> Option<f64> {
        let pairs = self.of(one).zip(self.of(other));
        middle(
            pairs
                .map(|(one, other)| compare(&one.loads[connections], &other.loads[connections]))
                .collect(),
        )
    }

    fn throughput(&self, one: &Contestant, other: &Contestant, connections: usize) -> Option<f64> {
        self.compared(one, other, connections, |one, other| {
            one.requests_per_second / other.requests_per_second
        })
    }

    fn idle(&self, contestant: &Contestant) -> Option<f64> {
        middle(
            self.of(contestant)
                .map(|turn| turn.idle_rss as f64 / MIB)
                .collect(),
        )
    }
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// All measurements and promises.
pub(crate) fn results(contestants: &[Contestant], turns: &[Turn], wrk: &Wrk) -> Results {
    let turns = Turns(turns);
    let mut tables = vec![
        overview(contestants, &turns),
        by_connections(
            contestants,
            "throughput",
            "requests/s",
            Better::Higher,
            |one, index| turns.middle(one, index, |load| load.requests_per_second),
        ),
        by_connections(
            contestants,
            "median latency",
            "us",
            Better::Lower,
            |one, index| turns.middle(one, index, |load| load.median),
        ),
        by_connections(
            contestants,
            "99th percentile",
            "us",
            Better::Lower,
            |one, index| turns.middle(one, index, |load| load.slow),
        ),
    ];
    tables.push(Table {
        title: "resident memory, idle".to_owned(),
        unit: "MiB".to_owned(),
        better: Better::Lower,
        columns: vec!["idle".to_owned()],
        rows: contestants
            .iter()
            .map(|one| Row {
                name: one.name(),
                values: vec![turns.idle(one)],
            })
            .collect(),
        chart: false,
    });
    Results {
        name: "load".to_owned(),
        title: "Requests over HTTP".to_owned(),
        about: vec![
            format!(
                "{} on loopback, sharing the machine with the server; medians of {TURNS} turns",
                wrk.version()
            ),
            "default settings, the access log into a file; every answer checked by its status, and its \
             body before and after"
                .to_owned(),
            "bare hyper: the same hyper on the same tokio, which answers and does nothing else; it is \
             also the upstream of http mode"
                .to_owned(),
        ],
        tables,
        rules: rules(contestants, &turns),
    }
}

/// The table for the chart: each mode's throughput, of-watchdog's, and the bare server's as the ceiling.
fn overview(contestants: &[Contestant], turns: &Turns<'_>) -> Table {
    let last = CONNECTIONS.len() - 1;
    let throughput = |one: &Contestant| turns.middle(one, last, |load| load.requests_per_second);
    let row = |one: &Contestant| {
        let original = match one {
            Contestant::Ours(mode) => throughput(&Contestant::Original(*mode)),
            _ => None,
        };
        Row {
            name: one.name(),
            values: vec![
                throughput(one),
                original,
                throughput(&Contestant::Bare(one.request())),
            ],
        }
    };
    Table {
        title: format!("requests at {} connections", CONNECTIONS[last]),
        unit: "1/s".to_owned(),
        better: Better::Higher,
        columns: ["faas-wasm", "of-watchdog", "bare hyper server"]
            .map(str::to_owned)
            .into(),
        rows: contestants
            .iter()
            .filter(|one| matches!(one, Contestant::Wasm(_) | Contestant::Ours(_)))
            .map(row)
            .collect(),
        chart: true,
    }
}

fn by_connections(
    contestants: &[Contestant],
    title: &str,
    unit: &str,
    better: Better,
    value: impl Fn(&Contestant, usize) -> Option<f64>,
) -> Table {
    let row = |one: &Contestant| Row {
        name: one.name(),
        values: (0..CONNECTIONS.len())
            .map(|index| value(one, index))
            .collect(),
    };
    Table {
        title: format!("{title} by connections"),
        unit: unit.to_owned(),
        better,
        columns: CONNECTIONS.map(|count| count.to_string()).into(),
        rows: contestants.iter().map(row).collect(),
        chart: false,
    }
}

fn rules(contestants: &[Contestant], turns: &Turns<'_>) -> Vec<Rule> {
    let bare = Contestant::Bare(Request::Get);
    let mut rules = Vec::new();
    let at_least = |what: String, measured, target: f64| Rule {
        what,
        measured,
        target: Bound::AtLeast(target),
        gate: Some(Bound::AtLeast(target * GATE)),
    };
    for guest in ["nop", "hello"] {
        let wasm = Contestant::Wasm(guest);
        for index in [1, 2] {
            rules.push(at_least(
                format!(
                    "wasm {guest}, {} connections, to the bare server's requests/s",
                    CONNECTIONS[index]
                ),
                turns.throughput(&wasm, &bare, index),
                0.7,
            ));
        }
        rules.push(Rule {
            what: format!("wasm {guest}, one connection, median above the bare server's, us"),
            measured: turns.compared(&wasm, &bare, 0, |one, other| one.median - other.median),
            target: Bound::AtMost(30.0),
            gate: None,
        });
    }
    for (mode, target) in [(Classic::Http, 0.2), (Classic::Static, 0.35)] {
        rules.push(at_least(
            format!(
                "{}, 32 connections, to the bare server's requests/s",
                mode.name()
            ),
            turns.throughput(&Contestant::Ours(mode), &bare, 2),
            target,
        ));
    }
    rules.push(Rule {
        what: "idle runner in wasm mode, resident MiB".to_owned(),
        measured: turns.idle(&Contestant::Wasm("nop")),
        target: Bound::AtMost(8.0),
        gate: Some(Bound::AtMost(8.0)),
    });
    for mode in Classic::ALL {
        let original = Contestant::Original(mode);
        if contestants.contains(&original) {
            rules.push(at_least(
                format!(
                    "{}, 32 connections, to of-watchdog's requests/s",
                    mode.name()
                ),
                turns.throughput(&Contestant::Ours(mode), &original, 2),
                1.0,
            ));
        }
    }
    rules
}
