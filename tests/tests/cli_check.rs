//! `faas-wasm check`, text modules, unresolved imports, and machine-readable output.

use std::fs;
use std::path::Path;
use std::process::Command;

use faas_wasm_tests::{Backend, Outcome, Work, tool};
use serde_json::Value;

const UNKNOWN: &str = r#"(module
    (import "env" "called" (func $called (param i32) (result i32)))
    (import "env" "other" (func $other))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 3 9)
    (func (export "_start")
        (drop (call $args (i32.const 0) (i32.const 4)))
        (if (i32.gt_u (i32.load (i32.const 0)) (i32.const 1)) (then (drop (call $called (i32.const 1)))))
        (memory.fill (i32.const 0) (i32.const 0) (i32.const 1))
        (call $exit (i32.const 3))))"#;

fn in_work(work: &Work, arguments: &[&str]) -> Outcome {
    let mut command = tool();
    command.args(arguments).current_dir(work.path());
    Outcome::of(&mut command)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_good_module_is_described() {
    let work = Work::new();
    work.fixture("echo");
    let text = in_work(&work, &["check", "--backend", "cranelift", "echo.wasm"]).success();
    for part in [
        "entry      _start\n",
        " from wasi, 0 from cuda, 0 from nobody\n",
        "  wasi     wasi_snapshot_preview1.fd_write: func (param i32 i32 i32 i32) (result i32)\n",
        "result     can be built and served\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let work = Work::new();
    work.write(
        "a.wat",
        r#"(module (import "env" "f" (func)) (memory 65536) (data (i32.const -4) "outside"))"#,
    );
    let outcome = in_work(
        &work,
        &["check", "--json", "--backend", "cranelift", "a.wat"],
    );
    assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
    let report = json(&outcome.text());
    assert_eq!(report["imports"][0]["provider"], "nobody");
    assert_eq!(report["memories"][0]["minimum"], 1_u64 << 32);
    let refusals = report["refusals"].as_array().expect("a list");
    let refusals: Vec<_> = refusals.iter().filter_map(Value::as_str).collect();
    for part in ["no function `_start`", "env.f: func", "data segment 0"] {
        let found = refusals.iter().any(|refusal| refusal.contains(part));
        assert!(found, "{part}: {refusals:?}");
    }
}

#[test]
fn build_rejects_what_check_rejects() {
    let work = Work::new();
    work.write("a.wat", UNKNOWN);
    let check = in_work(&work, &["check", "--backend", "cranelift", "a.wat"]);
    assert_eq!(check.code(), 1);
    assert!(
        check
            .text()
            .contains("2 from wasi, 0 from cuda, 2 from nobody"),
        "{}",
        check.text()
    );
    assert!(
        check.text().contains("features   bulk memory\n"),
        "{}",
        check.text()
    );
    let parts = [
        "error: a.wat imports what no host provides",
        "env.called",
        "--allow-unknown-imports",
    ];
    in_work(&work, &["build", "--backend", "cranelift", "a.wat"]).fails(1, &parts);
    assert!(!work.join("a.so").exists());
}

/// A reactor. `handle` prints the bytes that `_initialize` stored.
const REACTOR: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\03\00\00\00")
    (func (export "_initialize")
        (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 0x0a6b6f))))
    (func (export "handle") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "takes") (param i32)))"#;

#[test]
fn a_reactor_runs_the_named_function() {
    for backend in Backend::all() {
        let work = Work::new();
        work.write("a.wat", REACTOR);
        let with = |command: &str, options: &[&str]| {
            let all = [
                &[command, "--backend", backend.name()][..],
                options,
                &["a.wat"],
            ];
            in_work(&work, &all.concat())
        };
        with("build", &[]).fails(
            1,
            &[
                "no function `_start`",
                "`--entry handle`",
                "could be handle",
            ],
        );
        with("build", &["--entry", "other"]).fails(1, &["exports no `other`", "could be handle"]);
        with("build", &["--entry", "takes"]).fails(1, &["`takes`", "is func (param i32), not"]);
        with("build", &["--entry", "memory"]).fails(1, &["`memory`", "is a memory, not"]);
        assert!(!work.join("a.so").exists());
        assert_eq!(with("check", &["--entry", "other"]).code(), 1);
        let check = with("check", &["--entry", "handle"]).success();
        assert!(check.contains("entry      handle\n"), "{check}");

        with("build", &["--entry", "handle"]).success();
        assert_eq!(in_work(&work, &["run", "a.so"]).success(), "ok\n");
        // `_initialize` runs once, at build time.
        with("build", &["--entry", "handle", "--preinit=_initialize"]).success();
        assert_eq!(in_work(&work, &["run", "a.so"]).success(), "ok\n");
        assert_eq!(
            with(
                "run",
                &["--quiet", "--cache-dir", "cache", "--entry", "handle"]
            )
            .success(),
            "ok\n"
        );
    }
}

#[test]
fn a_command_can_run_another_function() {
    let work = Work::new();
    let text = REACTOR.replace("_initialize", "_start");
    work.write("a.wat", text);
    let quick = ["--backend", "cranelift", "a.wat"];
    in_work(
        &work,
        &[&["build", "--entry", "handle"][..], &quick].concat(),
    )
    .success();
    assert_eq!(in_work(&work, &["run", "a.so"]).success(), "\0\0\0");
    in_work(
        &work,
        &[&["build", "--entry", "_start"][..], &quick].concat(),
    )
    .success();
    assert_eq!(in_work(&work, &["run", "a.so"]).success(), "");
}

#[test]
fn function_offsets_refer_to_the_given_file() {
    let work = Work::new();
    let functions =
        r#"(func (export "_start")) (func (export "_initialize")) (func (export "a") nop)"#;
    work.write(
        "a.wat",
        format!(r#"(module (import "none" "f" (func)) {functions})"#),
    );
    let offsets = |options: &[&str]| {
        let build = ["build", "--backend", "cranelift", "--allow-unknown-imports"];
        in_work(&work, &[&build[..], options, &["a.wat"]].concat()).success();
        let list = in_work(&work, &["inspect", "--functions", "--json", "a.so"]).success();
        let mut offsets: Vec<_> = json(&list)["variants"][0]["function_list"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|function| function["wasm_offset"].as_u64())
            .collect();
        offsets.sort_unstable();
        offsets
    };
    let wasm = wat::parse_file(work.join("a.wat")).expect("the text is correct");
    let bodies: Vec<_> = wasmparser::Parser::new(0)
        .parse_all(&wasm)
        .filter_map(|payload| match payload.expect("it is valid") {
            wasmparser::Payload::CodeSectionEntry(body) => Some(body.range().start),
            _ => None,
        })
        .collect();
    assert_eq!(offsets(&[]), bodies);
    assert_eq!(offsets(&["--entry", "a"]), bodies);
}

#[test]
fn unknown_imports_become_traps_on_request() {
    for backend in Backend::all() {
        let work = Work::new();
        work.write("a.wat", UNKNOWN);
        let options = [
            "--allow-unknown-imports",
            "--backend",
            backend.name(),
            "a.wat",
        ];
        assert_eq!(
            in_work(&work, &[&["check"][..], &options].concat()).code(),
            0
        );
        let build = in_work(&work, &[&["build"][..], &options].concat());
        build.success();
        assert!(
            build.stderr.contains("a trap: env.called, env.other"),
            "{}",
            build.stderr
        );
        assert_eq!(
            in_work(&work, &["run", "a.so"]).code(),
            3,
            "it is not called"
        );
        let trapped = in_work(&work, &["run", "a.so", "argument"]);
        assert_eq!(trapped.code(), 134);
        assert!(trapped.stderr.contains("called"), "{}", trapped.stderr);
    }
}

#[test]
fn text_modules_are_accepted_everywhere() {
    let work = Work::new();
    work.write("a.wat", r#"(module (func (export "_start")))"#);
    for arguments in [
        &["check", "--backend", "cranelift", "a.wat"][..],
        &["build", "--backend", "cranelift", "a.wat"],
        &[
            "run",
            "--backend",
            "cranelift",
            "--cache-dir",
            "cache",
            "a.wat",
        ],
    ] {
        assert_eq!(in_work(&work, arguments).code(), 0, "{arguments:?}");
    }
    assert!(work.join("a.so").exists());
    work.write("bad.wat", "(module\n  (func (nop3)))");
    let parts = [
        "error: the WebAssembly text of bad.wat cannot be assembled",
        "bad.wat:2:",
    ];
    in_work(&work, &["build", "bad.wat"]).fails(1, &parts);
}

#[test]
fn json_messages_are_one_object_per_line() {
    let work = Work::new();
    work.write("a.wat", r#"(module (func (export "_start")))"#);
    let json_format = ["--message-format", "json"];
    let build = ["build", "--backend", "cranelift", "a.wat"];
    let outcome = in_work(&work, &[&json_format[..], &build].concat());
    let artifact = json(&outcome.success());
    assert_eq!(artifact["reason"], "artifact");
    assert_eq!(artifact["path"], "a.so");
    let file = fs::read(work.join("a.so")).expect("it was written");
    assert_eq!(artifact["size"], file.len());
    let sum = Command::new("sha256sum")
        .arg(work.join("a.so"))
        .output()
        .expect("coreutils");
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    assert_eq!(artifact["sha256"].as_str(), sum.split(' ').next());
    for line in outcome.stderr.lines() {
        assert_eq!(json(line)["reason"], "note");
    }
    let failed = in_work(&work, &["build", "--message-format=json", "missing.wasm"]);
    assert_eq!(failed.code(), 1);
    let error = json(&failed.stderr);
    assert_eq!(error["reason"], "error");
    assert_eq!(error["code"], "read");
    assert!(error["causes"][0].is_string(), "{error}");
    work.write("b.wat", UNKNOWN);
    let error = json(&in_work(&work, &["build", "--message-format=json", "b.wat"]).stderr);
    assert_eq!(error["code"], "unknown-imports");
    assert!(error["hint"].is_string(), "{error}");
}

/// Checks the CycloneDX 1.5 properties that a reader relies on.
fn check_sbom(path: &Path, artifact: &Path) -> Value {
    let document = json(&fs::read_to_string(path).expect("it was written"));
    assert_eq!(document["bomFormat"], "CycloneDX");
    assert_eq!(document["specVersion"], "1.5");
    let serial = document["serialNumber"].as_str().expect("a text");
    let uuid = serial.strip_prefix("urn:uuid:").expect("a URN");
    let lengths: Vec<_> = uuid.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    let sum = Command::new("sha256sum")
        .arg(artifact)
        .output()
        .expect("coreutils");
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    let hash = &document["metadata"]["component"]["hashes"][0];
    assert_eq!(hash["alg"], "SHA-256");
    assert_eq!(hash["content"].as_str(), sum.split(' ').next());
    let references: Vec<_> = document["components"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|component| {
            assert!(
                component["type"].is_string() && component["name"].is_string(),
                "{component}"
            );
            component["bom-ref"].clone()
        })
        .collect();
    let depends = document["dependencies"][0]["dependsOn"]
        .as_array()
        .expect("a list");
    assert_eq!(depends, &references);
    document
}

#[test]
fn the_sbom_lists_the_components_of_the_artifact() {
    let work = Work::new();
    work.fixture("echo");
    let options = [
        "build",
        "--backend",
        "cranelift",
        "--emit-sbom",
        "echo.wasm",
    ];
    in_work(&work, &options).success();
    let document = check_sbom(&work.join("echo.cdx.json"), &work.join("echo.so"));
    assert_eq!(document["metadata"]["timestamp"], Value::Null);
    let text = document.to_string();
    assert!(text.contains("wasmer-compiler-cranelift"), "{text}");
    assert!(
        text.contains("wasm:producers:processed-by"),
        "clang says so: {text}"
    );
    assert!(
        !text.contains(&*work.path().to_string_lossy()),
        "no path of this machine: {text}"
    );
}

#[test]
fn source_date_epoch_sets_all_timestamps() {
    let work = Work::new();
    work.fixture("nop");
    let mut command = tool();
    command
        .args([
            "build",
            "--backend",
            "cranelift",
            "--emit-sbom=sbom.json",
            "nop.wasm",
        ])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .current_dir(work.path());
    Outcome::of(&mut command).success();
    for name in ["nop.so", "sbom.json"] {
        let modified = work.join(name).metadata().expect("it is there").modified();
        let since = modified
            .expect("a time")
            .duration_since(std::time::UNIX_EPOCH);
        assert_eq!(
            since.expect("after 1970").as_secs(),
            1_700_000_000,
            "{name}"
        );
    }
    let document = check_sbom(&work.join("sbom.json"), &work.join("nop.so"));
    assert_eq!(document["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
}

#[test]
fn manual_and_completions_cover_every_command() {
    let work = Work::new();
    in_work(&work, &["man", "pages"]).success();
    let page = |name: &str| fs::read_to_string(work.join("pages").join(name)).expect(name);
    assert!(
        page("faas-wasm.1").starts_with(".ie"),
        "{}",
        page("faas-wasm.1")
    );
    for command in ["build", "check", "run", "serve", "inspect", "verify"] {
        let page = page(&format!("faas-wasm-{command}.1"));
        assert!(page.contains(&format!("faas\\-wasm\\-{command}")), "{page}");
    }
    assert!(page("faas-wasm-build.1").contains("\\-\\-cache\\-dir"));
    assert!(page("faas-wasm.1").contains("the guest trapped"));
    for (shell, part) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef"),
        ("fish", "complete -c"),
    ] {
        let script = in_work(&work, &["completions", shell]).success();
        assert!(script.contains(part), "{shell}");
        assert!(script.contains("allow-unknown-imports"), "{shell}");
    }
    let bash = in_work(&work, &["completions", "bash"]).success();
    work.write("completions", bash);
    let check = Command::new("bash")
        .arg("-n")
        .arg(work.join("completions"))
        .status();
    assert!(check.expect("bash").success());
}

/// What no instance has room for, and what runners refuse unless they are told otherwise.
#[test]
fn sizes_are_those_of_all_tables_and_memories_together() {
    let work = Work::new();
    let both = |fields: &str| {
        work.write(
            "a.wat",
            format!(r#"(module {fields} (func (export "_start")))"#),
        );
        let with = |command| in_work(&work, &[command, "--backend", "cranelift", "a.wat"]);
        let (check, build) = (with("check"), with("build"));
        assert_eq!(check.code(), 1, "{fields}");
        (check.text() + &check.stderr, build)
    };
    for (fields, noted) in [
        (
            "(memory 40000) (memory 40000)",
            "all 2 memories together begin with 5242880000 bytes (4.9 GiB), the runner's wasm_memory_limit is",
        ),
        (
            "(table 600000 funcref) (table 600000 externref)",
            "all 2 tables together begin with 1200000 elements, the runner's wasm_table_limit is 1000000",
        ),
        (
            "(table 1000001 1000001 funcref)",
            "table 0 begins with 1000001 elements",
        ),
    ] {
        let (check, build) = both(fields);
        assert!(check.contains(noted), "{check}");
        build.success();
        assert!(build.stderr.contains(noted), "{}", build.stderr);
        fs::remove_file(work.join("a.so")).expect("it was written");
    }
    for tables in [
        "(table 33554432 funcref) (table 1 funcref)",
        "(table 134217728 134217728 funcref)",
        "(table 4294967295 4294967295 funcref)",
        "(table 4294967295 externref)",
    ] {
        let (check, build) = both(tables);
        let message = "the tables of a.wat begin with";
        assert!(check.contains(message), "{tables}: {check}");
        build.fails(
            1,
            &["error: ", message, "an instance has room for 33554432"],
        );
        assert!(!work.join("a.so").exists());
    }
}

#[test]
fn memories_of_64_bits_are_called_by_their_name() {
    let work = Work::new();
    for fields in [
        "(memory i64 1)",
        "(memory i64 0x1_0000_0000)",
        "(memory i64 1 0x1_0000_0000)",
        "(table i64 1 0x1_0000_0000 funcref)",
    ] {
        work.write(
            "a.wat",
            format!(r#"(module {fields} (func (export "_start")))"#),
        );
        for backend in Backend::all() {
            for command in ["build", "check"] {
                let arguments = [command, "--backend", backend.name(), "a.wat"];
                in_work(&work, &arguments).fails(
                    1,
                    &[
                        "error: a.wat uses 64-bit memory (memory64), which the",
                        "hint: build the module without 64-bit memory",
                    ],
                );
            }
        }
    }
}
