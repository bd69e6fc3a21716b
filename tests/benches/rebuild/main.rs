//! The time of a rebuild after a small edit of a large guest with the LLVM backend. It compares a build that uses the
//! cache of compiled functions with a clean build, and requires the same bytes. `make bench-build` runs this.

mod edit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use edit::Edit;
use faas_wasm_tests::results::{Better, Bound, Results, Row, Rule, Table};
use faas_wasm_tests::{Outcome, Work, guests, tool};

/// Environment variable with another module to edit.
const MODULE: &str = "FAAS_WASM_REBUILD_MODULE";
/// The default module: an interpreter written in C, with 6 MB of code.
const DEFAULT: &str = "ruby.wasm";
/// Environment variable with the backend to measure. Cranelift is useful for testing the benchmark itself.
const BACKEND: &str = "FAAS_WASM_REBUILD_BACKEND";

fn main() -> ExitCode {
    let module = std::env::var_os(MODULE).map(PathBuf::from);
    let module = module.or_else(|| Some(guests()?.join(DEFAULT)));
    let module = module.expect("`make bench-build` fetches the module");
    let name = module.file_stem().expect("a module has a name");
    let name = name.to_string_lossy().into_owned();
    let original = fs::read(&module).expect("the module can be read");
    // Re-encode the unchanged module, so that the edited ones differ only by the edits.
    let base = edit::apply(&original, None);
    let bench = Bench {
        work: Work::new(),
        backend: std::env::var(BACKEND).unwrap_or_else(|_| "llvm".to_owned()),
    };

    let clean = bench.clean(&base);
    let cold = bench.cached(&base);
    assert!(
        cold.artifact == clean.artifact,
        "the cache changes the bytes"
    );
    let mut rows = vec![
        row("no edit, cache empty", &cold, &clean),
        row("no edit", &bench.cached(&base), &clean),
    ];
    let mut rules = vec![Rule {
        what: "cold build with the cache, to one without".to_owned(),
        measured: Some(cold.seconds / clean.seconds),
        target: Bound::AtMost(1.2),
        gate: Some(Bound::AtMost(1.5)),
    }];
    for edit in Edit::ALL {
        let wasm = edit::apply(&base, Some(edit));
        assert!(wasm != base, "{edit:?} changes nothing");
        let cached = bench.cached(&wasm);
        let clean = bench.clean(&wasm);
        assert!(
            cached.artifact == clean.artifact,
            "{edit:?}: not the bytes of a clean build"
        );
        rows.push(row(edit.name(), &cached, &clean));
        rules.push(Rule {
            what: format!("rebuild after an edit ({}), to a clean build", edit.name()),
            measured: Some(cached.seconds / clean.seconds),
            target: Bound::AtMost(0.1),
            gate: Some(Bound::AtMost(0.2)),
        });
    }
    Results {
        name: "rebuild".to_owned(),
        title: "Building again".to_owned(),
        about: vec![
            format!(
                "{name} ({:.1} MiB of WebAssembly), the {} backend, with all cores",
                base.len() as f64 / f64::from(1 << 20),
                bench.backend
            ),
            "each artifact from the cache has the bytes of the clean build beside it".to_owned(),
        ],
        tables: vec![Table {
            title: "time of a build".to_owned(),
            unit: "s".to_owned(),
            better: Better::Lower,
            columns: vec!["with the cache".to_owned(), "clean".to_owned()],
            rows,
            chart: false,
        }],
        rules,
    }
    .conclude()
}

fn row(name: &str, cached: &Built, clean: &Built) -> Row {
    Row {
        name: name.to_owned(),
        values: vec![Some(cached.seconds), Some(clean.seconds)],
    }
}

struct Built {
    seconds: f64,
    artifact: Vec<u8>,
}

struct Bench {
    work: Work,
    backend: String,
}

impl Bench {
    fn clean(&self, wasm: &[u8]) -> Built {
        self.build(wasm, &["--no-cache"])
    }

    fn cached(&self, wasm: &[u8]) -> Built {
        self.build(wasm, &["--cache-dir", "cache"])
    }

    fn build(&self, wasm: &[u8], options: &[&str]) -> Built {
        let module: &Path = &self.work.write("guest.wasm", wasm);
        let mut command = tool();
        command
            .args([
                "build",
                "--quiet",
                "--cpu",
                "x86-64-v2",
                "--backend",
                &self.backend,
            ])
            .args(options)
            .arg(module)
            .current_dir(self.work.path());
        let start = Instant::now();
        Outcome::of(&mut command).success();
        let seconds = start.elapsed().as_secs_f64();
        let artifact = fs::read(self.work.join("guest.so")).expect("it was written");
        Built { seconds, artifact }
    }
}
