//! The table, and the ratios that decide whether the benchmark passes.

use std::process::ExitCode;

use faas_wasm_tests::results::{Better, Bound, Results, Row, Rule, Table};

use crate::experiments::Finding;
use crate::measure::{Measurement, Side};
use crate::rival::SETTINGS;

/// A promised number, and how to compute it.
struct Promise {
    what: &'static str,
    target: Bound,
    gate: Option<Bound>,
    number: fn(&Turns<'_>) -> f64,
}

const PROMISES: [Promise; 17] = [
    Promise {
        what: "load of esbuild, to load of nop",
        target: Bound::AtMost(3.0),
        gate: Some(Bound::AtMost(3.0)),
        number: |turns| turns.ratio((Side::Ours, "load esbuild"), (Side::Ours, "load nop")),
    },
    Promise {
        what: "instance, call and drop of nop, to wasmtime's",
        target: Bound::AtMost(0.3),
        gate: Some(Bound::AtMost(0.3)),
        number: |turns| turns.to_rival("nop"),
    },
    Promise {
        what: "instance, call and drop of hello, to wasmtime's",
        target: Bound::AtMost(0.3),
        gate: Some(Bound::AtMost(0.3)),
        number: |turns| turns.to_rival("hello"),
    },
    Promise {
        what: "instance, call and drop of echo, to wasmtime's",
        target: Bound::AtMost(0.7),
        gate: Some(Bound::AtMost(0.7)),
        number: |turns| turns.to_rival("echo"),
    },
    Promise {
        what: "the same with inputs that write different pages",
        target: Bound::AtMost(0.7),
        gate: Some(Bound::AtMost(0.7)),
        number: |turns| turns.to_rival("echo of 1 and 48 KiB in turns"),
    },
    Promise {
        what: "load of esbuild on one core of a current server, us",
        target: Bound::AtMost(80.0),
        gate: None,
        number: |turns| turns.ours("load esbuild"),
    },
    Promise {
        what: "what a request waits for, nop, us",
        target: Bound::AtMost(0.5),
        gate: None,
        number: |turns| turns.ours("what a request waits for, nop"),
    },
    Promise {
        what: "what a request waits for, hello, us",
        target: Bound::AtMost(0.5),
        gate: None,
        number: |turns| turns.ours("what a request waits for, hello"),
    },
    Promise {
        what: "what a request waits for, echo, us",
        target: Bound::AtMost(3.0),
        gate: None,
        number: |turns| turns.ours("what a request waits for, echo"),
    },
    Promise {
        what: "what a request waits for, echo of inputs that write different pages, us",
        target: Bound::AtMost(3.0),
        gate: None,
        number: |turns| turns.ours("what a request waits for, echo of 1 and 48 KiB in turns"),
    },
    Promise {
        what: "what a request waits for, esbuild before its start-up, us",
        target: Bound::AtMost(25.0),
        gate: None,
        number: |turns| turns.ours("what a request waits for, esbuild before its start-up"),
    },
    Promise {
        what: "instances made on two threads, to one",
        target: Bound::AtLeast(1.7),
        gate: None,
        number: |turns| {
            turns.found("hello on two threads, a second")
                / turns.found("hello on one thread, a second")
        },
    },
    Promise {
        what: "the same by CPU time, which other programs do not disturb",
        target: Bound::AtLeast(1.7),
        gate: Some(Bound::AtLeast(1.7)),
        number: |turns| {
            2.0 * turns.found("CPU time of hello on one thread, ns")
                / turns.found("CPU time of hello on two threads, ns")
        },
    },
    Promise {
        what: "mappings of an instance that waits",
        target: Bound::AtMost(2.0),
        gate: Some(Bound::AtMost(2.01)),
        number: |turns| turns.found("mappings of one that waits"),
    },
    Promise {
        what: "private memory of an instance beyond the pages it wrote, KiB",
        target: Bound::AtMost(16.0),
        gate: Some(Bound::AtMost(16.0)),
        number: |turns| turns.found("private KiB of one beyond that"),
    },
    Promise {
        what: "time from the deadline to the end of a spinning guest, median, ms",
        target: Bound::AtMost(0.2),
        gate: None,
        number: |turns| turns.found("ms behind its deadline, median"),
    },
    Promise {
        what: "the same in the worst of 10,000, ms",
        target: Bound::AtMost(2.0),
        gate: None,
        number: |turns| turns.found("ms behind its deadline, worst of 10,000"),
    },
];

struct Turns<'a>(&'a [(Side, Vec<Measurement>)], &'a [Finding]);

impl Turns<'_> {
    /// The medians of the turns in microseconds, in order.
    fn of(&self, measured: (Side, &str)) -> Vec<f64> {
        self.each(measured, |one| one.median.as_secs_f64() * 1e6)
    }

    fn each(&self, (side, name): (Side, &str), number: impl Fn(&Measurement) -> f64) -> Vec<f64> {
        let own = self.0.iter().filter(|(turn, _)| *turn == side);
        own.flat_map(|(_, measurements)| measurements)
            .filter(|measurement| measurement.name == name)
            .map(number)
            .collect()
    }

    fn ours(&self, name: &str) -> f64 {
        middle(self.of((Side::Ours, name)))
    }

    /// The ratio of instance, call and drop to the rival's.
    fn to_rival(&self, guest: &str) -> f64 {
        let name = format!("instance, call and drop of {guest}");
        self.ratio((Side::Ours, &name), (Side::Rival, &name))
    }

    /// A value that an experiment found.
    fn found(&self, name: &str) -> f64 {
        let found = self.1.iter().find(|finding| finding.name == name);
        found.map_or(f64::NAN, |finding| finding.value)
    }

    /// The median of the ratios of the turns: a disturbance of a turn slows both sides.
    fn ratio(&self, ours: (Side, &str), other: (Side, &str)) -> f64 {
        let ratios = self.of(ours).into_iter().zip(self.of(other));
        middle(ratios.map(|(ours, other)| ours / other).collect())
    }

    /// The number of consecutive operations per second.
    fn rate(&self, name: &str) -> Row {
        let rate = |side| middle(self.each((side, name), |one| 1.0 / one.mean.as_secs_f64()));
        let value = |side| Some(rate(side)).filter(|value| value.is_finite());
        Row {
            name: name.to_owned(),
            values: Side::ALL.map(value).into(),
        }
    }

    fn row(&self, name: &str) -> Row {
        let value = |side| Some(middle(self.of((side, name)))).filter(|value| value.is_finite());
        Row {
            name: name.to_owned(),
            values: Side::ALL.map(value).into(),
        }
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints and stores everything. Fails if a ratio is not kept.
pub(crate) fn report(turns: &[(Side, Vec<Measurement>)], found: &[Finding]) -> ExitCode {
    let turns = Turns(turns, found);
    let (_, first) = turns.0.first().expect("there was a turn");
    let rule = |promise: &Promise| Rule {
        what: promise.what.to_owned(),
        measured: Some((promise.number)(&turns)).filter(|number| number.is_finite()),
        target: promise.target,
        gate: promise.gate,
    };
    let columns: Vec<_> = ["faas-wasm", "wasmtime", "wasmtime, resident"]
        .map(str::to_owned)
        .into();
    let loops = first
        .iter()
        .filter(|one| one.name.starts_with("instance, call and drop"));
    let row = |finding: &Finding| Row {
        name: finding.name.clone(),
        values: vec![Some(finding.value)],
    };
    Results {
        name: "instances".to_owned(),
        title: "Loading an artifact, and an instance for each request".to_owned(),
        about: vec![
            format!("rival: {SETTINGS}"),
            "resident: with up to 1 MiB of each slot kept resident between instances".to_owned(),
            "ours: Cranelift too, every check of a load included, a deadline for each run"
                .to_owned(),
        ],
        tables: vec![
            Table {
                title: "median time".to_owned(),
                unit: "us".to_owned(),
                better: Better::Lower,
                columns: columns.clone(),
                rows: first.iter().map(|one| turns.row(&one.name)).collect(),
                chart: true,
            },
            Table {
                title: "one after the other on one core".to_owned(),
                unit: "instances a second".to_owned(),
                better: Better::Higher,
                columns,
                rows: loops.map(|one| turns.rate(&one.name)).collect(),
                chart: false,
            },
            Table {
                title: "threads, 10,000 live instances, deadlines".to_owned(),
                unit: "as named".to_owned(),
                better: Better::Lower,
                columns: vec!["faas-wasm".to_owned()],
                rows: found.iter().map(row).collect(),
                chart: false,
            },
        ],
        rules: PROMISES.iter().map(rule).collect(),
    }
    .conclude()
}
