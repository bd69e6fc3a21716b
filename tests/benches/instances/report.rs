//! The table, and the ratios that decide.

use std::process::ExitCode;

use faas_wasm_tests::results::{Better, Bound, Results, Row, Rule, Table};

use crate::measure::{Measurement, Side};
use crate::rival::SETTINGS;

/// A number that is promised, and where it comes from.
struct Promise {
    what: &'static str,
    target: Bound,
    gate: Option<Bound>,
    number: fn(&Turns<'_>) -> f64,
}

const PROMISES: [Promise; 3] = [
    Promise {
        what: "load of esbuild, to load of nop",
        target: Bound::AtMost(3.0),
        gate: Some(Bound::AtMost(3.0)),
        number: |turns| turns.ratio((Side::Ours, "load esbuild"), (Side::Ours, "load nop")),
    },
    Promise {
        what: "instance, call and drop of nop, to wasmtime's",
        target: Bound::AtMost(0.8),
        gate: Some(Bound::AtMost(0.8)),
        number: |turns| {
            let name = "instance, call and drop of nop";
            turns.ratio((Side::Ours, name), (Side::Rival, name))
        },
    },
    Promise {
        what: "load of esbuild on one core of a current server, us",
        target: Bound::AtMost(80.0),
        gate: None,
        number: |turns| middle(turns.of((Side::Ours, "load esbuild"))),
    },
];

struct Turns<'a>(&'a [(Side, Vec<Measurement>)]);

impl Turns<'_> {
    /// The medians of the turns in microseconds, in their order.
    fn of(&self, (side, name): (Side, &str)) -> Vec<f64> {
        let own = self.0.iter().filter(|(turn, _)| *turn == side);
        own.flat_map(|(_, measurements)| measurements)
            .filter(|measurement| measurement.name == name)
            .map(|measurement| measurement.median.as_secs_f64() * 1e6)
            .collect()
    }

    /// The median of the ratios of each turn: what slows a turn down slows both down.
    fn ratio(&self, ours: (Side, &str), other: (Side, &str)) -> f64 {
        let ratios = self.of(ours).into_iter().zip(self.of(other));
        middle(ratios.map(|(ours, other)| ours / other).collect())
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

/// Prints and keeps everything; fails if a ratio is not kept.
pub(crate) fn report(turns: &[(Side, Vec<Measurement>)]) -> ExitCode {
    let turns = Turns(turns);
    let (_, first) = turns.0.first().expect("there was a turn");
    let rule = |promise: &Promise| Rule {
        what: promise.what.to_owned(),
        measured: Some((promise.number)(&turns)).filter(|number| number.is_finite()),
        target: promise.target,
        gate: promise.gate,
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
        tables: vec![Table {
            title: "median time".to_owned(),
            unit: "us".to_owned(),
            better: Better::Lower,
            columns: ["faas-wasm", "wasmtime", "wasmtime, resident"]
                .map(str::to_owned)
                .into(),
            rows: first.iter().map(|one| turns.row(&one.name)).collect(),
            chart: true,
        }],
        rules: PROMISES.iter().map(rule).collect(),
    }
    .conclude()
}
