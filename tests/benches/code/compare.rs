//! A comparison of two builds of `faas-wasm`.

use std::process::ExitCode;

use faas_wasm_tests::Backend;
use faas_wasm_tests::results::{Better, Results, Row, Table};

use crate::contestant::Contestant;
use crate::measure::Times;
use crate::selection::Selection;

/// Prints how the code of the second build compares with that of the first. No result is a failure.
pub(crate) fn conclude(selection: &Selection, times: &Times) -> ExitCode {
    let mut kinds = Vec::new();
    for simd in [true, false] {
        kinds.extend(selection.backends.iter().map(|&backend| (backend, simd)));
    }
    let tools = selection
        .tools
        .iter()
        .map(|tool| tool.display().to_string());
    Results {
        name: "code-compared".to_owned(),
        title: "Speed of the code of two builds".to_owned(),
        about: ["before", "after"]
            .iter()
            .zip(tools)
            .map(|(name, tool)| format!("{name}: {tool}"))
            .chain(["processor time, the shortest of all rounds; all take turns".to_owned()])
            .collect(),
        tables: vec![
            change(&kinds, times),
            table("time before", "times clang's", &kinds, times, |kind| {
                (ours(0, kind), Contestant::Clang)
            }),
            table("time after", "times clang's", &kinds, times, |kind| {
                (ours(1, kind), Contestant::Clang)
            }),
        ],
        rules: Vec::new(),
    }
    .conclude()
}

/// A backend, and whether the modules use SIMD.
type Kind = (Backend, bool);

fn ours(tool: usize, (backend, simd): Kind) -> Contestant {
    Contestant::Ours {
        tool,
        backend,
        simd,
    }
}

/// In percent, because the differences of interest are a few percent.
fn change(kinds: &[Kind], times: &Times) -> Table {
    let mut table = table("change of time", "%", kinds, times, |kind| {
        (ours(1, kind), ours(0, kind))
    });
    let ratios = table.rows.iter_mut().flat_map(|row| &mut row.values);
    for ratio in ratios.flatten() {
        *ratio = (*ratio - 1.0) * 100.0;
    }
    table
}

fn table(
    title: &str,
    unit: &str,
    kinds: &[Kind],
    times: &Times,
    pair: impl Fn(Kind) -> (Contestant, Contestant),
) -> Table {
    let pairs: Vec<_> = kinds.iter().map(|kind| pair(*kind)).collect();
    let mut rows: Vec<_> = times
        .kernels()
        .iter()
        .map(|kernel| Row {
            name: kernel.kernel.clone(),
            values: pairs
                .iter()
                .map(|(one, other)| kernel.ratio(*one, *other))
                .collect(),
        })
        .collect();
    rows.push(Row {
        name: "geometric mean".to_owned(),
        values: pairs
            .iter()
            .map(|(one, other)| times.mean(|kernel| kernel.ratio(*one, *other)))
            .collect(),
    });
    Table {
        title: title.to_owned(),
        unit: unit.to_owned(),
        better: Better::Lower,
        columns: kinds.iter().map(|kind| ours(0, *kind).name()).collect(),
        rows,
        chart: false,
    }
}
