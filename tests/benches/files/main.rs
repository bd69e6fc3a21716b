//! The cost of calls on files and standard output for a guest. `make bench` runs this.
//!
//! One program (`files.c`) is compiled both natively and as a guest that the runner serves, and measures itself. Each
//! request runs in a fresh instance.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use faas_wasm_tests::results::{Better, Bound, Results, Row, Rule, Table};
use faas_wasm_tests::{Backend, Guest, Outcome, Runner, Work};

/// Number of runs of each side.
const TURNS: usize = 21;
const SMALL: u64 = 64 << 10;
const LARGE: u64 = 1 << 30;

fn main() -> ExitCode {
    let work = Work::new();
    let native = compile(&work, "files", &["-O2"]);
    let module = compile(
        &work,
        "files.wasm",
        &["-O2", "--target=wasm32-wasi", "-Wno-deprecated"],
    );
    let root = make_root(&work);
    let guest = Guest::compiled(&module, Backend::Cranelift);
    let runner = guest.serve().env("wasm_root", &root).start();

    let mut times = Times::default();
    for _ in 0..TURNS {
        times.host_read.push(on_host(&native, &root, "read"));
        times.read.push(request(&runner, "read"));
        times.changed.push(request(&runner, "read-beside-changes"));
        times.small.push(request(&runner, "write-small"));
        times.large.push(request(&runner, "write-large"));
        times.line.push(request(&runner, "line"));
        times.nothing.push(request(&runner, "nothing"));
    }
    report(times)
}

fn compile(work: &Work, name: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/files/files.c");
    let output = work.join(name);
    let mut clang = Command::new("clang-22");
    clang.args(["-std=gnu17", "-Wall", "-Wextra", "-Werror"]);
    clang.args(flags).arg("-o").arg(&output).arg(source);
    Outcome::of(&mut clang).success();
    output
}

/// Makes the directory that both sides work in.
fn make_root(work: &Work) -> PathBuf {
    let root = work.join("root");
    fs::create_dir_all(root.join("some/directory")).expect("directories can be made");
    fs::write(root.join("some/directory/file"), [7; 4096]).expect("a file can be written");
    for (name, length) in [("small", SMALL), ("large", LARGE)] {
        let file = File::create(root.join(name)).expect("a file can be made");
        file.set_len(length).expect("a file may have holes");
    }
    root
}

/// Time on the host in nanoseconds.
fn on_host(native: &Path, root: &Path, what: &str) -> f64 {
    let mut command = Command::new(native);
    command.arg(what).current_dir(root);
    last_line(&Outcome::of(&mut command).success())
}

/// Time in a guest in nanoseconds.
fn request(runner: &Runner, what: &str) -> f64 {
    let response = runner.get(&format!("/{what}"));
    assert_eq!(response.status, 200, "{}", response.text());
    last_line(&response.text())
}

fn last_line(output: &str) -> f64 {
    let line = output.lines().next_back().unwrap_or_default();
    line.parse()
        .unwrap_or_else(|_| panic!("`{line}` is not a number of nanoseconds"))
}

/// Nanoseconds of each run.
#[derive(Default)]
struct Times {
    host_read: Vec<f64>,
    read: Vec<f64>,
    changed: Vec<f64>,
    small: Vec<f64>,
    large: Vec<f64>,
    line: Vec<f64>,
    nothing: Vec<f64>,
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

fn report(times: Times) -> ExitCode {
    let host_read = median(times.host_read);
    let read = median(times.read);
    let small = median(times.small);
    let large = median(times.large);
    let line = median(times.line);
    let nothing = median(times.nothing);
    let row = |name: &str, guest: f64, host: Option<f64>| Row {
        name: name.to_owned(),
        values: vec![Some(guest / 1e3), host.map(|host| host / 1e3)],
    };
    let rule = |what: &str, measured: f64, target: f64, gate: Option<f64>| Rule {
        what: what.to_owned(),
        measured: Some(measured),
        target: Bound::AtMost(target),
        gate: gate.map(Bound::AtMost),
    };
    Results {
        name: "files".to_owned(),
        title: "Calls on files and standard output".to_owned(),
        about: vec![
            "a C program that measures itself, natively and as a guest of the runner over a copy-on-write root; each \
             request is a fresh instance"
                .to_owned(),
            format!(
                "medians of {TURNS} turns, each the best of 50 batches; of first writes there is one in an instance"
            ),
        ],
        tables: vec![Table {
            title: "time of a step".to_owned(),
            unit: "us".to_owned(),
            better: Better::Lower,
            columns: vec!["faas-wasm".to_owned(), "host".to_owned()],
            rows: vec![
                row("open, read 4 KiB, close", read, Some(host_read)),
                row("the same beside changed files", median(times.changed), Some(host_read)),
                row("open and first write, file of 64 KiB", small, None),
                row("open and first write, file of 1 GiB", large, None),
                row("a line on standard output", line, None),
                row("a call that does nothing", nothing, None),
            ],
            chart: false,
        }],
        rules: vec![
            rule("opening, reading and closing a file of 4 KiB, to the host's", read / host_read, 3.0, Some(4.0)),
            rule("first write into a file of 1 GiB, to one of 64 KiB", large / small, 2.0, Some(4.0)),
            rule("a line on standard output beyond a call that does nothing, us", (line - nothing) / 1e3, 1.0, None),
        ],
    }
    .conclude()
}
