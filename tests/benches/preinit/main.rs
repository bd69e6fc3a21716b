//! The time of a request to a JavaScript function, with the script run per request and with the script run at build
//! time. `make bench` runs this.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use faas_wasm_tests::results::{Better, Bound, Results, Row, Rule, Table};
use faas_wasm_tests::{Outcome, Runner, RunnerCommand, Work, tool};

/// Environment variable with the interpreter's module.
const QUICKJS: &str = "FAAS_WASM_QUICKJS";
const SCRIPT: &str = include_str!("script.js");
const REQUEST: &str = "/section150/wordabc";
const ANSWER: &str = "{\"number\":13368,\"name\":\"wordabc\",\"even\":true}\n";
const REQUESTS: usize = 200;
/// Number of turns of each side.
const TURNS: usize = 3;

fn main() -> ExitCode {
    let module = std::env::var_os(QUICKJS).map(PathBuf::from);
    let module = module.expect("`make bench` builds the module and names it");
    let work = Work::new();
    let script = work.write("script.js", SCRIPT);
    let before = serve(&build(&work, &module, None), &work);
    let after = serve(&build(&work, &module, Some(&script)), &work);
    let turns: Vec<_> = (0..TURNS)
        .map(|_| (median(&before), median(&after)))
        .collect();
    let middle = |mut values: Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        Some(values[values.len() / 2])
    };
    let after = middle(turns.iter().map(|turn| turn.1).collect());
    let before = middle(turns.iter().map(|turn| turn.0).collect());
    Results {
        name: "preinit".to_owned(),
        title: "A JavaScript function, initialized at build time".to_owned(),
        about: vec![
            "QuickJS with a script that fills tables; one request at a time over HTTP, each in a \
             fresh instance"
                .to_owned(),
            "without `--preinit` each request starts the interpreter and runs the script"
                .to_owned(),
        ],
        tables: vec![Table {
            title: "median time of a request".to_owned(),
            unit: "us".to_owned(),
            better: Better::Lower,
            columns: vec!["with --preinit".to_owned(), "without".to_owned()],
            rows: vec![Row {
                name: "QuickJS".to_owned(),
                values: vec![after, before],
            }],
            chart: true,
        }],
        rules: vec![Rule {
            what: "request with --preinit, to one without".to_owned(),
            measured: middle(turns.iter().map(|turn| turn.1 / turn.0).collect()),
            target: Bound::AtMost(0.2),
            gate: Some(Bound::AtMost(0.5)),
        }],
    }
    .conclude()
}

fn build(work: &Work, module: &Path, script: Option<&Path>) -> PathBuf {
    let name = if script.is_some() {
        "after.so"
    } else {
        "before.so"
    };
    let artifact = work.join(name);
    let mut command = tool();
    command
        .args(["build", "--quiet", "--backend", "cranelift", "-o"])
        .args([&artifact, module]);
    if let Some(script) = script {
        command.arg("--preinit").arg("--preinit-stdin").arg(script);
    }
    Outcome::of(&mut command).success();
    artifact
}

fn serve(artifact: &Path, work: &Work) -> Runner {
    RunnerCommand::new(&artifact.display().to_string())
        .env("wasm_root", work.path())
        .log_to_file()
        .start()
}

/// Median time from connecting to the last byte, in microseconds.
fn median(runner: &Runner) -> f64 {
    let mut times: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let start = Instant::now();
            let response = runner.post("/", REQUEST);
            let took = start.elapsed().as_secs_f64() * 1e6;
            assert_eq!((response.status, response.text().as_str()), (200, ANSWER));
            took
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}
