//! Runs the core test suite of the WebAssembly specification through the two programs: `make test-spec`.
//!
//! `faas-wasm check` checks every module of the suite unchanged. The actions on a module become a WASI command
//! (`guest`) that contains the module and the modules that it imports from (`link`). `faas-wasm build` compiles the
//! command, and `faas-wasm run` runs it. The harness compares results bit by bit (`value`), and traps by their kind
//! (`trap`).
//!
//! `known.txt` lists what may fail or be refused. Environment variables select what to run, see [`Selection`].

mod guest;
mod judge;
mod known;
mod limited;
mod link;
mod report;
mod script;
mod self_test;
mod shape;
mod spectest;
mod suite;
mod trap;
mod value;

use std::env;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use faas_wasm_tests::Backend;

use judge::{Variant, Verdict, Verdicts};
use known::Known;
use report::FileVerdicts;
use script::Item;
use suite::File;

/// Selects what to run.
struct Selection {
    /// `FAAS_WASM_SPEC_FILES`: words in names of files, such as `simd/ core/i32.wast`. Without words, all files run.
    files: Vec<String>,
    /// `FAAS_WASM_SPEC_BACKEND`: a backend. By default, all backends of the tool run.
    backends: Vec<Backend>,
    /// `FAAS_WASM_SPEC_CPU`: the CPU level to compile for. By default, it is that of this machine.
    cpu: Option<String>,
}

impl Selection {
    fn new() -> Self {
        let words = |name: &str| {
            let words = env::var(name).unwrap_or_default();
            words
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let named = words("FAAS_WASM_SPEC_BACKEND");
        let mut backends = Backend::all();
        backends
            .retain(|backend| named.is_empty() || named.iter().any(|name| name == backend.name()));
        assert!(!backends.is_empty(), "the tool has no backend {named:?}");
        Self {
            files: words("FAAS_WASM_SPEC_FILES"),
            backends,
            cpu: words("FAAS_WASM_SPEC_CPU").pop(),
        }
    }
}

#[test]
fn the_suite_passes_except_for_known_failures() {
    let selection = Selection::new();
    let known = Known::parse(include_str!("known.txt")).unwrap_or_else(|error| panic!("{error}"));
    let files = suite::files(&selection.files);
    assert!(!files.is_empty(), "no file of the suite has such a name");
    let scripts: Vec<_> = files.iter().map(parse).collect();
    let mut is_good = true;
    for backend in selection.backends {
        let variant = Variant {
            backend,
            cpu: selection.cpu.clone(),
        };
        let verdicts = run(&variant, &scripts);
        let names = files.iter().map(|file| file.name.clone());
        let results: Vec<FileVerdicts> = names.zip(verdicts).collect();
        let report = report::report(&variant, &results, &known, selection.files.is_empty());
        // `print!` would be captured if the test passes.
        let _ = write!(std::io::stdout(), "{}", report.text);
        is_good &= report.is_good;
    }
    assert!(
        is_good,
        "the suite's results are not those that known.txt has: see above"
    );
}

fn parse(file: &File) -> Vec<Item> {
    script::parse(file.text).unwrap_or_else(|error| vec![Item::Broken(1, error)])
}

/// Runs scripts on all processors. Returns the outcomes of each script's directives, in order.
fn run(variant: &Variant, scripts: &[Vec<Item>]) -> Vec<Verdicts> {
    let work: Vec<_> = (0..)
        .zip(scripts)
        .flat_map(|(script, items)| items.iter().map(move |item| (script, item)))
        .collect();
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(vec![Vec::new(); scripts.len()]);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((script, item)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let of_item = judge::judge(variant, item);
                    let mut verdicts = verdicts.lock().expect("no thread panics with it");
                    let of_script: &mut Vec<(usize, Verdict)> = &mut verdicts[*script];
                    of_script.extend(of_item);
                }
            });
        }
    });
    let mut verdicts = verdicts
        .into_inner()
        .expect("no thread has panicked with it");
    for of_script in &mut verdicts {
        of_script.sort_by_key(|(line, _)| *line);
    }
    verdicts
}
