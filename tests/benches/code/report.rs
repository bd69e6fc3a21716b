//! The tables, and the ratios that decide whether the benchmark passes.

use std::process::ExitCode;

use faas_wasm_tests::Backend;
use faas_wasm_tests::results::{Better, Bound, Results, Row, Rule, Table};

use crate::contestant::{self, Contestant};
use crate::measure::Times;
use crate::rival;
use crate::selection::Selection;

const SIMD: [bool; 2] = [true, false];

fn llvm(simd: bool) -> Contestant {
    ours(Backend::Llvm, simd)
}

fn cranelift(simd: bool) -> Contestant {
    ours(Backend::Cranelift, simd)
}

fn ours(backend: Backend, simd: bool) -> Contestant {
    Contestant::Ours {
        tool: 0,
        backend,
        simd,
    }
}

fn wasmtime(simd: bool) -> Contestant {
    Contestant::Wasmtime { simd }
}

/// Prints and stores the results.
pub(crate) fn conclude(selection: &Selection, times: &Times) -> ExitCode {
    Results {
        name: "code".to_owned(),
        title: "Speed of compiled code".to_owned(),
        about: about(selection),
        tables: vec![means(times), ratios(selection, times), clang(times)],
        rules: match selection.is_whole() {
            true => rules(times),
            false => Vec::new(),
        },
    }
    .conclude()
}

fn about(selection: &Selection) -> Vec<String> {
    vec![
        format!(
            "{} kernels in C ([tests/benches/code/kernels](tests/benches/code/kernels)), compiled by clang 22 with `-O3` \
             to native code and to WebAssembly, with and without `-msimd128`; native code and ours for {}",
            selection.kernels.len(),
            selection.cpu
        ),
        rival::SETTINGS.to_owned(),
        format!(
            "programs measure themselves, without start-up and compilation, and must compute the same bits; all take \
             turns, and the shortest of {} rounds of 5 runs counts",
            selection.rounds
        ),
    ]
}

fn table(title: &str, unit: &str, columns: Vec<String>, rows: Vec<Row>) -> Table {
    Table {
        title: title.to_owned(),
        unit: unit.to_owned(),
        better: Better::Lower,
        columns,
        rows,
        chart: false,
    }
}

fn mean(times: &Times, one: Contestant, other: Contestant) -> Option<f64> {
    times.mean(|kernel| kernel.ratio(one, other))
}

fn means(times: &Times) -> Table {
    let rows = SIMD.map(|simd| {
        let contestants = [llvm(simd), cranelift(simd), wasmtime(simd)];
        Row {
            name: match simd {
                true => "modules with SIMD",
                false => "modules without SIMD",
            }
            .to_owned(),
            values: contestants
                .map(|one| mean(times, one, Contestant::Clang))
                .into(),
        }
    });
    let columns = ["faas-wasm, LLVM", "faas-wasm, Cranelift", "wasmtime"];
    Table {
        chart: true,
        ..table(
            "time of compiled code, geometric mean of all kernels",
            "times clang's",
            columns.map(str::to_owned).into(),
            rows.into(),
        )
    }
}

fn ratios(selection: &Selection, times: &Times) -> Table {
    let rivals: Vec<_> = contestant::all(selection)
        .into_iter()
        .filter(|one| *one != Contestant::Clang)
        .collect();
    let rows = times.kernels().iter().map(|kernel| Row {
        name: kernel.kernel.clone(),
        values: rivals
            .iter()
            .map(|one| kernel.ratio(*one, Contestant::Clang))
            .collect(),
    });
    table(
        "time of each kernel",
        "times clang's",
        rivals.iter().map(|one| one.name()).collect(),
        rows.collect(),
    )
}

fn clang(times: &Times) -> Table {
    let rows = times.kernels().iter().map(|kernel| Row {
        name: kernel.kernel.clone(),
        values: vec![kernel.of(Contestant::Clang)],
    });
    table(
        "time of clang's code",
        "ms",
        vec!["clang".to_owned()],
        rows.collect(),
    )
}

/// Judges only contestants that took part, because a tool may have only one backend.
fn rules(times: &Times) -> Vec<Rule> {
    let rule = |what: &str, one, other, target, gate| {
        mean(times, one, other).map(|measured| Rule {
            what: what.to_owned(),
            measured: Some(measured),
            target: Bound::AtMost(target),
            gate: Some(Bound::AtMost(gate)),
        })
    };
    let clang = Contestant::Clang;
    [
        rule(
            "code of LLVM with SIMD, to clang's",
            llvm(true),
            clang,
            1.4,
            2.1,
        ),
        rule(
            "code of LLVM without SIMD, to clang's",
            llvm(false),
            clang,
            1.6,
            2.4,
        ),
        rule(
            "code of Cranelift with SIMD, to clang's",
            cranelift(true),
            clang,
            1.6,
            2.4,
        ),
        rule(
            "code of Cranelift without SIMD, to clang's",
            cranelift(false),
            clang,
            2.0,
            3.0,
        ),
        rule(
            "code of LLVM with SIMD, to wasmtime's",
            llvm(true),
            wasmtime(true),
            1.0,
            1.3,
        ),
        rule(
            "code of Cranelift with SIMD, to wasmtime's",
            cranelift(true),
            wasmtime(true),
            1.05,
            1.3,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
