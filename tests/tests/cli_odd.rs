//! `faas-wasm` with unusual inputs, outputs and environments: modules that try to mislead the user or exhaust
//! resources, standard input, empty variables, colliding outputs, and interrupted builds.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use faas_wasm_tests::{Backend, Outcome, Work, tool, tool_program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const NOP: &str = r#"(module (func (export "_start")))"#;

fn in_work(work: &Work, arguments: &[&str]) -> Outcome {
    let mut command = tool();
    command.args(arguments).current_dir(work.path());
    Outcome::of(&mut command)
}

fn quick(work: &Work, arguments: &[&str]) -> Outcome {
    let command = ["build", "--no-cache", "--backend", "cranelift"];
    in_work(work, &[&command[..], arguments].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn names_in_a_module_cannot_pass_for_output() {
    let work = Work::new();
    // The name clears the screen and prints a line that looks like the tool's.
    let name = r"\1b[2J\0dx\0aresult     can be built and served\0a\e2\80\ae\c2\9b1m";
    let import = format!(r#"(import "wasi_unstable" "{name}" (func $f (param i32)))"#);
    let text = format!(r#"(module {import} (func (export "_start") (call $f (i32.const 1))))"#);
    work.write("a.wat", &text);
    work.write(
        "b.wat",
        text.replace("(func (export", "(func $\"f\\1b[1m\\0a0\" (export"),
    );
    let check = ["check", "--backend", "cranelift", "a.wat"];
    let shown = [
        in_work(&work, &check),
        quick(&work, &["a.wat"]),
        quick(&work, &["--allow-unknown-imports", "b.wat"]),
        in_work(&work, &["inspect", "--functions", "b.so"]),
    ];
    for outcome in &shown {
        let text = outcome.text() + &outcome.stderr;
        let hidden = |c: &char| c.is_control() && *c != '\n' || *c == '\u{202e}';
        assert_eq!(text.chars().find(hidden), None, "{text:?}");
        assert!(!text.contains("\nresult     can"), "{text}");
    }
    assert!(
        shown[1].stderr.contains(r"\u{1b}[2J\rx\nresult"),
        "{}",
        shown[1].stderr
    );
    assert!(
        shown[3].text().contains(r"f\u{1b}[1m\n0"),
        "{}",
        shown[3].text()
    );
}

#[test]
fn non_utf8_file_names_work() {
    let work = Work::new();
    let module = OsStr::from_bytes(b"\xff\x1b[1m.wat");
    fs::write(work.path().join(module), NOP).expect("it can be written");
    for format in ["human", "json"] {
        for command in [&["build", "--cpu", "x86-64-v2"][..], &["check"]] {
            let mut tool = tool();
            tool.args(command)
                .args(["--backend", "cranelift", "--message-format", format])
                .arg(module)
                .current_dir(work.path());
            let text = Outcome::of(&mut tool).success();
            assert!(
                text.contains('\u{fffd}') && !text.contains('\x1b'),
                "{text:?}"
            );
        }
    }
    assert!(
        work.path()
            .join(OsStr::from_bytes(b"\xff\x1b[1m.so"))
            .exists()
    );
}

#[test]
fn a_module_can_come_from_standard_input() {
    let work = Work::new();
    let wasm = wat::parse_str(NOP).expect("the text is correct");
    let with_input = |arguments: &[&str], input: &[u8]| {
        let mut command = tool();
        command.args(arguments).current_dir(work.path());
        Outcome::with_input(&mut command, input)
    };
    for backend in Backend::all() {
        for (module, input) in [
            ("-", &wasm[..]),
            ("/dev/stdin", &wasm),
            ("-", NOP.as_bytes()),
        ] {
            let arguments = [
                "build",
                "-q",
                "--backend",
                backend.name(),
                module,
                "-o",
                "a.so",
            ];
            with_input(&arguments, input).success();
            Outcome::of(tool().args(["verify"]).arg(work.join("a.so"))).success();
            fs::remove_file(work.join("a.so")).expect("it was written");
        }
    }
    let text = with_input(&["check", "--backend", "cranelift", "-"], &wasm).success();
    assert!(text.starts_with("module     -\n"), "{text}");
    with_input(&["build", "-"], &wasm).fails(2, &["error: ", "has no name", "hint: ", "-o"]);
    work.write("a.wat", NOP);
    quick(&work, &["a.wat", "-o", "-"]).fails(2, &["error: ", "standard output", "hint: ", "-o"]);
    assert_eq!(work.names(), ["a.wat"]);
}

#[test]
fn an_endless_file_is_rejected() {
    let work = Work::new();
    let parts = [
        "error: /dev/zero is not a WebAssembly module",
        "bytes 00 00 00 00",
    ];
    quick(&work, &["/dev/zero", "-o", "a.so"]).fails(1, &parts);
    for command in ["inspect", "verify"] {
        let parts = ["error: /dev/zero is not a regular file"];
        in_work(&work, &[command, "/dev/zero"]).fails(1, &parts);
    }
}

#[test]
fn empty_variables_count_as_unset() {
    let work = Work::new();
    work.write("a.wat", NOP);
    let mut command = tool();
    command
        .args(["build", "-q", "--backend", "cranelift", "a.wat"])
        .current_dir(work.path());
    for name in [
        "wasm_c_target",
        "wasm_c_cpu_features",
        "FAAS_WASM_CACHE_DIR",
        "FAAS_WASM_CACHE_LIMIT",
        "SOURCE_DATE_EPOCH",
    ] {
        command.env(name, "");
    }
    Outcome::of(&mut command).success();
    assert_eq!(work.names(), ["a.so", "a.wat"]);
    // A variable that is not empty still counts.
    Outcome::of(command.env("SOURCE_DATE_EPOCH", "soon")).fails(2, &["soon"]);
}

#[test]
fn two_outputs_must_be_different_files() {
    let work = Work::new();
    work.write("a.wat", NOP);
    fs::create_dir(work.join("d")).expect("it can be made");
    for sbom in ["a.so", "./a.so", "d/../a.so"] {
        let option = format!("--emit-sbom={sbom}");
        quick(&work, &["a.wat", &option]).fails(2, &["error: two outputs are", sbom, "hint: "]);
    }
    // The error comes before anything is built.
    quick(&work, &["a.wat", "--emit-sbom=none/a.json"]).fails(1, &["none/a.json", "hint: "]);
    assert_eq!(work.names(), ["a.wat", "d"]);
}

#[test]
fn concurrent_builds_of_one_output_leave_one_complete_file() {
    let work = Work::new();
    work.fixture("cat");
    quick(&work, &["-q", "cat.wasm", "-o", "expected.so"]).success();
    let builds: Vec<_> = (0..4)
        .map(|_| {
            let mut command = tool();
            let arguments = [
                "build",
                "-q",
                "--backend",
                "cranelift",
                "cat.wasm",
                "-o",
                "a.so",
            ];
            command.args(arguments).current_dir(work.path());
            command.spawn().expect("it can be started")
        })
        .collect();
    for mut build in builds {
        assert!(build.wait().expect("it can be waited for").success());
    }
    let read = |name: &str| fs::read(work.join(name)).expect("it was written");
    assert!(read("a.so") == read("expected.so"));
    assert_eq!(work.names(), ["a.so", "cat.wasm", "expected.so"]);
}

/// An interrupted build ends together with all of its processes, because they hold its standard error open.
#[test]
fn an_interrupted_build_leaves_nothing() {
    const ENDLESS: &str = r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\08\00\00\00") (data (i32.const 16) "started\0a")
        (func (export "wizer.initialize")
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
            (loop $forever (br $forever)))
        (func (export "_start")))"#;
    for (backend, signal) in [
        (Backend::Cranelift, Signal::INT),
        (Backend::Cranelift, Signal::TERM),
        (Backend::Llvm, Signal::INT),
        (Backend::Llvm, Signal::TERM),
        (Backend::Llvm, Signal::HUP),
        // The killed process itself cannot clean up.
        (Backend::Llvm, Signal::KILL),
    ] {
        if !Backend::all().contains(&backend) {
            continue;
        }
        let work = Work::new();
        work.write("a.wat", ENDLESS);
        let mut command = tool();
        command
            .args([
                "build",
                "-q",
                "--backend",
                backend.name(),
                "--preinit",
                "a.wat",
            ])
            .env("TMPDIR", work.path())
            .current_dir(work.path())
            .stderr(Stdio::piped());
        let mut build = command.spawn().expect("it can be started");
        let mut log = BufReader::new(build.stderr.take().expect("it is a pipe"));
        let mut line = String::new();
        log.read_line(&mut line).expect("it can be read");
        assert_eq!(line, "started\n");
        kill_process(Pid::from_child(&build), signal).expect("it is there");
        let status = build.wait().expect("it ends");
        assert_eq!(
            status.signal(),
            Some(signal.as_raw()),
            "{backend:?}, {signal:?}"
        );
        log.read_to_string(&mut line)
            .expect("the pipe is closed at its other end");
        assert_eq!(work.names(), ["a.wat"], "{backend:?}, {signal:?}");
    }
}

/// A module with one function that has this body, no parameters and no results.
fn module_of(body: &[u8]) -> Vec<u8> {
    let mut wasm = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".to_vec();
    wasm.extend(b"\x07\x0a\x01\x06_start\0\0\x0a");
    let body_size = number(body.len());
    wasm.extend(number(1 + body_size.len() + body.len()));
    wasm.push(1);
    wasm.extend(body_size);
    wasm.extend(body);
    wasm
}

/// Encodes a number in LEB128.
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[test]
fn large_functions_are_built() {
    const BLOCK: [u8; 2] = [0x02, 0x40];
    const LOOP: [u8; 2] = [0x03, 0x40];
    const END: u8 = 0x0b;
    let nested = |kind: [u8; 2], depth: usize| {
        [&[0][..], &kind.repeat(depth), &vec![END; depth + 1]].concat()
    };
    let table = {
        let entries = number(100_000);
        // Each of these branches goes to the end of the block.
        [
            &b"\0\x02\x40\x41\0\x0e"[..],
            &entries,
            &vec![0; 100_001],
            &[END, END],
        ]
        .concat()
    };
    let locals = [&b"\x01"[..], &number(50_000), b"\x7f", &[END]].concat();
    let stack = [
        &b"\0"[..],
        &b"\x41\x01".repeat(20_000),
        &vec![0x1a; 20_000],
        &[END],
    ]
    .concat();
    for (name, body) in [
        ("blocks", nested(BLOCK, 50_000)),
        ("loops", nested(LOOP, 5000)),
        ("table", table),
        ("locals", locals),
        ("stack", stack),
    ] {
        let work = Work::new();
        work.write("a.wasm", module_of(&body));
        for backend in Backend::all() {
            let arguments = ["build", "-q", "--backend", backend.name(), "a.wasm"];
            let outcome = in_work(&work, &arguments);
            assert_eq!(outcome.code(), 0, "{name}, {backend:?}: {}", outcome.stderr);
            assert_eq!(
                in_work(&work, &["run", "a.so"]).code(),
                0,
                "{name}, {backend:?}"
            );
        }
    }
}

#[test]
fn many_functions_are_built() {
    let work = Work::new();
    let functions: String = (0..20_000)
        .map(|value| format!("(func (result i32) (i32.const {value}))"))
        .collect();
    work.write(
        "a.wat",
        format!(r#"(module {functions} (func (export "_start")))"#),
    );
    let summary = quick(&work, &["a.wat"]).success();
    assert!(summary.contains("functions  20001\n"), "{summary}");
    assert_eq!(in_work(&work, &["run", "a.so"]).code(), 0);
}

#[test]
fn limits_that_need_a_runner_setting_are_reported() {
    let work = Work::new();
    work.write(
        "a.wat",
        r#"(module (table 1000001 funcref) (func (export "_start")))"#,
    );
    let outcome = quick(&work, &["a.wat"]);
    outcome.success();
    assert!(
        outcome
            .stderr
            .contains("note: table 0 begins with 1000001 elements"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("wasm_table_limit"),
        "{}",
        outcome.stderr
    );
    assert_eq!(
        in_work(&work, &["check", "--backend", "cranelift", "a.wat"]).code(),
        1
    );
}

#[test]
fn every_outcome_has_a_json_message() {
    let work = Work::new();
    work.write("a.wat", NOP);
    quick(&work, &["-q", "a.wat"]).success();
    for (arguments, code, reason) in [
        (&["--version"][..], 0, "version"),
        (&["check", "--backend", "cranelift", "a.wat"], 0, "check"),
        (&["inspect", "a.so"], 0, "inspect"),
        (&["inspect", "--json", "--functions", "a.so"], 0, "inspect"),
        (&["verify", "a.so"], 0, "intact"),
        (&["verify", "a.wat"], 1, "error"),
        (&["check", "none.wasm"], 1, "error"),
        (&["build", "none.wasm"], 1, "error"),
        (
            &["build", "--backend", "cranelift", "none.wasm"],
            1,
            "error",
        ),
        (&["build", "--target", "vax", "a.wat"], 2, "error"),
        (&["build"], 2, "error"),
        (&["build", "--nonsense", "a.wat"], 2, "error"),
        (&["nonsense"], 2, "error"),
        (&["run", "none.wasm"], 125, "error"),
        (&["serve", "none.wasm"], 1, "error"),
        (&["man", "a.wat"], 1, "error"),
    ] {
        let outcome = in_work(&work, &[&["--message-format", "json"], arguments].concat());
        assert_eq!(outcome.code(), code, "{arguments:?}: {outcome:?}");
        let (said, silent) = match code {
            0 => (outcome.text(), outcome.stderr.clone()),
            _ => (outcome.stderr.clone(), outcome.text()),
        };
        assert_eq!(silent, "", "{arguments:?}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        let message = json(&said);
        assert_eq!(message["reason"], reason, "{arguments:?}: {said}");
        if reason == "error" {
            assert!(message["code"].is_string(), "{said}");
            assert!(message["message"].is_string(), "{said}");
            assert!(message["causes"].is_array(), "{said}");
        }
    }
}

#[test]
fn a_fresh_artifact_runs_even_if_it_exceeds_the_cache_limit() {
    let work = Work::new();
    work.fixture("hello");
    for _ in 0..2 {
        let arguments = [
            "run",
            "-q",
            "--backend",
            "cranelift",
            "--cache-dir",
            "cache",
        ];
        let limit = ["--cache-limit", "1Ki", "hello.wasm"];
        let text = in_work(&work, &[&arguments[..], &limit].concat()).success();
        assert_eq!(text, "hello, world\n");
    }
}

#[test]
fn artifacts_of_run_count_toward_the_cache_limit() {
    let work = Work::new();
    // With --debug, the cache keeps only artifacts and no functions.
    for number in 0..4 {
        let name = format!("{number}.wat");
        work.write(
            &name,
            format!(r#"(module (func (export "_start") (drop (i32.const {number}))))"#),
        );
        let arguments = [
            "run",
            "-q",
            "--debug",
            "--backend",
            "cranelift",
            "--cache-dir",
            "cache",
        ];
        in_work(
            &work,
            &[&arguments[..], &["--cache-limit", "1Ki", &name]].concat(),
        )
        .success();
    }
    let kept = walk(&work.join("cache/artifacts"));
    assert_eq!(kept, 1, "the last one");
}

/// Number of files below a directory.
fn walk(directory: &std::path::Path) -> usize {
    let entries = fs::read_dir(directory).expect("it is there");
    let count = |path: std::path::PathBuf| if path.is_dir() { walk(&path) } else { 1 };
    entries
        .map(|entry| count(entry.expect("it can be read").path()))
        .sum()
}

#[test]
fn the_exit_codes_are_documented() {
    let text = Outcome::of(tool().arg("--help")).success();
    for code in [0, 1, 2, 3, 125, 134] {
        assert!(text.contains(&format!("\n  {code:<4} ")), "{code}: {text}");
    }
}

#[test]
fn terminal_output_is_colored_unless_disabled() {
    let on_terminal = |variable: &str, value: &str| {
        let mut script = std::process::Command::new("script");
        script
            .args(["--quiet", "--command"])
            .arg(format!("{} nonsense", tool_program().display()))
            .arg("/dev/null")
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env(variable, value);
        Outcome::of(&mut script).text()
    };
    let colored = on_terminal("UNRELATED", "1");
    assert!(colored.contains("\x1b["), "{colored:?}");
    let plain = on_terminal("NO_COLOR", "1");
    assert!(
        plain.contains("nonsense") && !plain.contains('\x1b'),
        "{plain:?}"
    );
}
