//! The table, and the ratios that decide.

use std::process::ExitCode;

use crate::measure::{Measurement, Side};
use crate::rival::SETTINGS;

/// A ratio that must hold, and where it comes from.
struct Rule {
    what: &'static str,
    limit: f64,
    ratio: fn(&Turns<'_>) -> f64,
}

const RULES: [Rule; 2] = [
    Rule {
        what: "load of esbuild, to load of nop",
        limit: 3.0,
        ratio: |turns| turns.ratio((Side::Ours, "load esbuild"), (Side::Ours, "load nop")),
    },
    Rule {
        what: "instance, call and drop of nop, to wasmtime's",
        limit: 0.8,
        ratio: |turns| {
            let name = "instance, call and drop of nop";
            turns.ratio((Side::Ours, name), (Side::Rival, name))
        },
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
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints everything; fails if a ratio is not kept.
#[expect(clippy::print_stdout, reason = "the result of the benchmark")]
pub(crate) fn report(turns: &[(Side, Vec<Measurement>)]) -> ExitCode {
    let turns = Turns(turns);
    println!("rival: {SETTINGS}");
    println!("       (resident: with up to 1 MiB of each slot kept resident between instances)");
    println!("ours:  Cranelift too, every check of a load included, a deadline for each run");
    println!();
    println!(
        "{:<40} {:>9} {:>9} {:>9}",
        "median, us", "ours", "wasmtime", "resident"
    );
    let (_, first) = turns.0.first().expect("there was a turn");
    for Measurement { name, .. } in first {
        print!("{name:<40}");
        for side in Side::ALL {
            match turns.of((side, name)).as_slice() {
                [] => print!(" {:>9}", "-"),
                values => print!(" {:>9.2}", middle(values.to_vec())),
            }
        }
        println!();
    }
    println!();
    let mut failed = 0;
    for Rule { what, limit, ratio } in RULES {
        let ratio = ratio(&turns);
        // A ratio that is not a number is not kept either.
        let kept = ratio <= limit;
        failed += i32::from(!kept);
        let verdict = if kept { "ok" } else { "FAILED" };
        println!("{verdict:<6} {what}: {ratio:.2}, at most {limit}");
    }
    println!("load of esbuild should take at most 80 us on one core of a current server");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
