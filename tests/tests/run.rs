//! `faas-wasm run`: one run on the terminal's standard streams.

use std::fs;
use std::process::Command;

use faas_wasm_tests::{Backend, Guest, Outcome, Work, runner_program, tool};

fn run(work: &Work, arguments: &[&str]) -> Command {
    let mut command = tool();
    command
        .arg("run")
        .args(arguments)
        .current_dir(work.path())
        .env("FAAS_WASM_CACHE_DIR", work.join("cache"))
        .env("FAAS_WASM_RUNNER", runner_program());
    command
}

fn quick(work: &Work, arguments: &[&str]) -> Command {
    run(
        work,
        &[&["--quiet", "--backend", "cranelift"], arguments].concat(),
    )
}

#[test]
fn runs_a_module_and_an_artifact() {
    for backend in Backend::all() {
        let work = Work::new();
        work.fixture("hello");
        let module = ["--quiet", "--backend", backend.name(), "hello.wasm"];
        assert_eq!(
            Outcome::of(&mut run(&work, &module)).success(),
            "hello, world\n"
        );
        let guest = Guest::fixture_by("hello", backend);
        let artifact = guest.artifact().display().to_string();
        let outcome = Outcome::of(&mut run(&work, &[&artifact]));
        assert_eq!(outcome.success(), "hello, world\n");
        assert_eq!(outcome.stderr, "", "nothing is compiled");
    }
}

#[test]
fn the_guest_uses_the_standard_streams() {
    let work = Work::new();
    work.fixture("echo");
    let input: Vec<u8> = (0..3_000_000_u32)
        .map(|index| ((index * 7) >> 4) as u8)
        .collect();
    let outcome = Outcome::with_input(&mut quick(&work, &["echo.wasm"]), &input);
    assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
    assert!(outcome.stdout == input, "{} bytes", outcome.stdout.len());
    work.fixture("output");
    let outcome = Outcome::of(&mut quick(&work, &["output.wasm", "stderr", "64"]));
    assert_eq!(outcome.success(), "");
    assert_eq!(outcome.stderr.len(), 64);
}

#[test]
fn the_guests_exit_code_is_returned() {
    let work = Work::new();
    work.fixture("exit");
    for code in [0, 1, 3, 42, 125, 255] {
        let outcome = Outcome::of(&mut quick(&work, &["exit.wasm", &code.to_string()]));
        assert_eq!(outcome.code(), code);
        assert_eq!(outcome.text(), "before the end\n");
        assert_eq!(outcome.stderr, "");
    }
    work.fixture("features");
    assert_eq!(
        Outcome::of(&mut quick(&work, &["features.wasm"])).code(),
        42
    );
}

#[test]
fn a_trap_exits_with_134_and_a_report() {
    for backend in Backend::all() {
        let work = Work::new();
        work.fixture("trap");
        for (kind, message) in [
            ("unreachable", "unreachable"),
            ("divide", "integer divide by zero"),
            ("overflow", "integer overflow"),
            ("bounds", "out of bounds"),
            ("indirect", "indirect call"),
            ("stack", "call stack exhausted"),
        ] {
            let arguments = ["--quiet", "--backend", backend.name(), "trap.wasm", kind];
            let outcome = Outcome::of(&mut run(&work, &arguments));
            assert_eq!(
                outcome.code(),
                134,
                "{backend:?}, {kind}: {}",
                outcome.stderr
            );
            assert_eq!(outcome.text(), "before the trap\n");
            assert!(
                outcome.stderr.contains(message),
                "{kind}: {}",
                outcome.stderr
            );
            // A report shows only the deepest frames, so `_start` is missing if there are many.
            let function = if kind == "stack" { "descend" } else { "_start" };
            assert!(
                outcome.stderr.contains(function),
                "{kind}: {}",
                outcome.stderr
            );
        }
    }
}

#[test]
fn a_report_stays_short_however_deep_the_stack_was() {
    let work = Work::new();
    work.fixture("trap");
    let outcome = Outcome::of(&mut quick(&work, &["trap.wasm", "stack"]));
    assert_eq!(outcome.code(), 134);
    assert!(
        outcome.stderr.lines().count() < 200,
        "{}",
        outcome.stderr.len()
    );
}

#[test]
fn arguments_and_environment() {
    let work = Work::new();
    work.fixture("env");
    let arguments = [
        "--env", "A=1", "--env", "B=x=y", "env.wasm", "one", "--env", "-v",
    ];
    let mut command = quick(&work, &arguments);
    let text = Outcome::of(command.env("SECRET", "of the host")).success();
    let mut lines: Vec<_> = text.lines().filter(|line| *line != "PWD=/").collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "A=1",
            "B=x=y",
            "argument --env",
            "argument -v",
            "argument env.wasm",
            "argument one"
        ]
    );
    let outcome = Outcome::of(&mut quick(&work, &["--argv0", "other", "env.wasm"]));
    assert!(outcome.success().contains("argument other\n"));
}

#[test]
fn directories_have_their_access() {
    let work = Work::new();
    work.fixture("store");
    fs::create_dir(work.join("data")).expect("it can be made");
    let note = work.join("data/note");
    let store = |directory: &str| {
        let arguments = ["--dir", directory, "store.wasm", "/d/note", "text"];
        Outcome::of(&mut quick(&work, &arguments))
    };
    assert_eq!(
        store("data::/d").code(),
        1,
        "read-only unless said otherwise"
    );
    assert_eq!(store("data::/d:ro").code(), 1);
    assert_eq!(store("data::/d:cow").success(), "new\ntext\n");
    assert!(!note.exists());
    assert_eq!(store("data::/d:rw").success(), "new\ntext\n");
    assert_eq!(fs::read_to_string(&note).expect("it is there"), "text");
    assert_eq!(store("data::/d:cow").success(), "there already\ntext\n");
    let outcome = store("none::/d");
    assert_eq!(outcome.code(), 125, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("none"), "{}", outcome.stderr);
}

/// As in wasmtime, the guest sees a directory under the host's name for it, unless the option gives another name.
#[test]
fn directories_keep_their_host_names() {
    let work = Work::new();
    for name in ["cat", "store"] {
        work.fixture(name);
    }
    for directory in ["here/sub", "beside"] {
        fs::create_dir_all(work.join(directory)).expect("it can be made");
    }
    work.write("here/note", "in here");
    work.write("here/sub/note", "in sub");
    work.write("beside/note", "beside");
    let run = |arguments: &[&str]| {
        let mut command = quick(&work, arguments);
        Outcome::of(command.current_dir(work.join("here")))
    };
    let beside = work.join("beside").display().to_string();
    let absolute = format!("{beside}/note");
    let colon = format!("{beside}::sub");
    for (directory, path, text) in [
        (".", "note", "in here"),
        (".", "./note", "in here"),
        (".", "/note", "in here"),
        (".", "sub/note", "in sub"),
        ("./sub", "sub/note", "in sub"),
        ("sub/", "sub/note", "in sub"),
        ("sub", "/sub/note", "in sub"),
        ("../beside", "../beside/note", "beside"),
        (beside.as_str(), absolute.as_str(), "beside"),
        (colon.as_str(), "sub/note", "beside"),
    ] {
        let outcome = run(&["--dir", directory, "../cat.wasm", path]);
        assert_eq!(outcome.success(), text, "{directory} {path}");
    }
    // No other paths exist.
    for (directory, path) in [
        ("sub", "note"),
        ("sub", "sub/../note"),
        (".", "../beside/note"),
        ("../beside", "../here/note"),
        ("../beside", "../beside/../here/note"),
    ] {
        let outcome = run(&["--dir", directory, "../cat.wasm", path]);
        assert_eq!(outcome.code(), 1, "{directory} {path}");
    }
    let store = |directory: &str, path: &str| {
        run(&["--dir", directory, "../store.wasm", path, "text"]).code()
    };
    assert_eq!(store(".", "new"), 1, "read-only unless said otherwise");
    assert_eq!(store(".:cow", "new"), 0);
    assert!(!work.join("here/new").exists());
    assert_eq!(store(".:rw", "new"), 0);
    assert_eq!(store("../beside:rw", "../beside/new"), 0);
    for made in ["here/new", "beside/new"] {
        let text = fs::read_to_string(work.join(made));
        assert_eq!(text.expect("it was made"), "text");
    }
    let outcome = run(&["--dir", ".", "--dir", "sub::/", "../cat.wasm"]);
    assert_eq!(outcome.code(), 125);
    assert!(
        outcome
            .stderr
            .contains("both . and sub are the guest's `/`"),
        "{}",
        outcome.stderr
    );
    let outcome = run(&["--dir", "none", "../cat.wasm"]);
    assert_eq!(outcome.code(), 125);
    assert!(outcome.stderr.contains("none"), "{}", outcome.stderr);
}

/// A program that looks for its directories among its preopens finds them, by the names that were given.
#[test]
fn relative_directories_are_preopened() {
    let work = Work::new();
    fs::create_dir_all(work.join("data")).expect("it can be made");
    // Prints the name of each preopen from descriptor 3 on, a line each.
    work.write(
        "preopens.wat",
        r#"(module
          (import "wasi_snapshot_preview1" "fd_prestat_get"
            (func $get (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_prestat_dir_name"
            (func $name (param i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "_start") (local $fd i32) (local $length i32)
            (local.set $fd (i32.const 3))
            (loop $next
              (if (i32.eqz (call $get (local.get $fd) (i32.const 0)))
                (then
                  (local.set $length (i32.load (i32.const 4)))
                  (if (call $name (local.get $fd) (i32.const 100) (local.get $length))
                    (then unreachable))
                  (i32.store8 (i32.add (i32.const 100) (local.get $length)) (i32.const 10))
                  (i32.store (i32.const 16) (i32.const 100))
                  (i32.store (i32.const 20) (i32.add (local.get $length) (i32.const 1)))
                  (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8)))
                  (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
                  (br $next))))))"#,
    );
    for (directories, names) in [
        (&[][..], "/\n"),
        (&["data::/d"], "/\n"),
        (&["."], "/\n.\n"),
        (&["./data", "data::/d", ".."], "/\n./data\n..\n"),
    ] {
        let mut arguments = Vec::new();
        for directory in directories {
            arguments.extend(["--dir", *directory]);
        }
        arguments.push("preopens.wat");
        let outcome = Outcome::of(&mut quick(&work, &arguments));
        assert_eq!(outcome.success(), names, "{directories:?}");
    }
}

#[test]
fn without_a_directory_no_host_file_is_visible() {
    let work = Work::new();
    work.fixture("cat");
    let outcome = Outcome::of(&mut quick(&work, &["cat.wasm", "/etc/passwd"]));
    assert_eq!((outcome.code(), outcome.text().as_str()), (1, ""));
}

#[test]
fn runner_errors_exit_with_125() {
    let work = Work::new();
    work.write("bad.wasm", "not wasm");
    for arguments in [&["bad.wasm"][..], &["none.wasm"]] {
        let outcome = Outcome::of(&mut quick(&work, arguments));
        assert_eq!(outcome.code(), 125, "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("error: "), "{}", outcome.stderr);
    }
}

#[test]
fn compiled_modules_are_cached() {
    let work = Work::new();
    work.fixture("hello");
    // Artifacts are in directories named by the first byte of their name.
    let cached = || -> Vec<_> {
        let directories = fs::read_dir(work.join("cache/artifacts")).expect("it is there");
        let directories = directories.map(|entry| entry.expect("it can be read").path());
        let entries = directories.flat_map(|path| fs::read_dir(path).expect("it is there"));
        let mut entries: Vec<_> = entries
            .map(|entry| entry.expect("it can be read"))
            .map(|entry| {
                let modified = entry.metadata().expect("it is there").modified().ok();
                (entry.path(), modified)
            })
            .collect();
        entries.sort();
        entries
    };
    Outcome::of(&mut quick(&work, &["hello.wasm"])).success();
    let first = cached();
    assert_eq!(first.len(), 1);
    Outcome::of(&mut quick(&work, &["hello.wasm"])).success();
    assert_eq!(cached(), first, "it is used again");
    // A damaged artifact is rebuilt.
    fs::write(&first[0].0, "damaged").expect("it can be written");
    let outcome = Outcome::of(&mut quick(&work, &["hello.wasm"]));
    assert_eq!(outcome.success(), "hello, world\n");
}

#[test]
fn imported_functions_can_be_called_through_tables() {
    for backend in Backend::all() {
        let work = Work::new();
        let guest = Guest::fixture_by("indirect_import", backend);
        let artifact = guest.artifact().display().to_string();
        assert_eq!(
            Outcome::of(&mut run(&work, &[&artifact])).code(),
            7,
            "{backend:?}"
        );
    }
}

/// Segments of `externref` have only null elements, for which wasmer-vm would write null function references: a panic
/// in a function that cannot unwind.
#[test]
fn null_host_references_from_segments_reach_tables() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (table $t 4 externref)
        (elem (table $t) (i32.const 1) externref (ref.null extern) (ref.null extern))
        (elem $passive externref (ref.null extern) (ref.null extern))
        (func (export "_start")
            (table.init $t $passive (i32.const 2) (i32.const 0) (i32.const 2))
            (elem.drop $passive)
            (table.init $t $passive (i32.const 0) (i32.const 0) (i32.const 0))
            (if (ref.is_null (table.get $t (i32.const 3))) (then (call $exit (i32.const 7))))
            (table.init $t $passive (i32.const 0) (i32.const 0) (i32.const 1))))"#;
    let beyond = text.replace(
        "(i32.const 2) (i32.const 0) (i32.const 2)",
        "(i32.const 3) (i32.const 0) (i32.const 2)",
    );
    for backend in Backend::all() {
        let work = Work::new();
        work.write("inside.wat", text);
        work.write("beyond.wat", &beyond);
        let arguments = |file| ["--quiet", "--backend", backend.name(), file];
        let inside = Outcome::of(&mut run(&work, &arguments("inside.wat")));
        assert_eq!(inside.code(), 7, "{}", inside.stderr);
        let beyond = Outcome::of(&mut run(&work, &arguments("beyond.wat")));
        assert_eq!(beyond.code(), 134, "{}", beyond.stderr);
        assert!(
            beyond.stderr.contains("out of bounds table access"),
            "{}",
            beyond.stderr
        );
    }
}

/// A module that dispatches by a table with so many entries: entry `i` leads to label `i % 3`, everything else to the
/// default label. Each label has some hundred instructions. It exits with the number of the first wrong answer, or 0.
fn dispatcher(entries: usize) -> String {
    let labels: String = (0..entries)
        .map(|entry| format!(" {}", entry % 3))
        .collect();
    let work = "(local.set 0 (i32.mul (local.get 0) (i32.const 7)))".repeat(200);
    let cases: String = [10, 11, 12]
        .map(|answer| format!(") {work} (return (i32.const {answer}))"))
        .concat();
    let last = entries as i64 - 1;
    let asked = [
        0,
        1,
        2,
        last / 2,
        last - 1,
        last,
        last + 1,
        last + 2,
        -1,
        0x7fff_ffff,
    ];
    let checks: String = (1..)
        .zip(asked)
        .map(|(number, index)| {
            let inside = (0..=last).contains(&index);
            let answer = if inside { 10 + index % 3 } else { 99 };
            format!(
                "(if (i32.ne (call $dispatch (i32.const {index})) (i32.const {answer}))
                    (then (call $exit (i32.const {number}))))"
            )
        })
        .collect();
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func $dispatch (param i32) (result i32)
                (block (block (block (block (br_table{labels} 3 (local.get 0))
                {cases}) {work} (i32.const 99))
            (func (export "_start") {checks}))"#
    )
}

/// The largest that are compiled everywhere, and what others make of more.
#[test]
fn tables_of_labels_lead_where_they_should() {
    const MOST: usize = 131_072;
    for backend in Backend::all() {
        for entries in [1, 1000, MOST - 1, MOST] {
            let work = Work::new();
            work.write("a.wat", dispatcher(entries));
            let arguments = ["--quiet", "--backend", backend.name(), "a.wat"];
            let outcome = Outcome::of(&mut run(&work, &arguments));
            assert_eq!(
                outcome.code(),
                0,
                "{backend:?}, {entries}: {}",
                outcome.stderr
            );
        }
    }
}

/// Instantiation traps: no instance can be made.
#[test]
fn a_segment_that_does_not_fit_exits_with_134_and_the_trap() {
    for (fields, message, trap) in [
        (
            r#"(memory 1) (data (i32.const 65533) "four")"#,
            "data segment 0 of a.wat writes 4 bytes at 65533, but memory 0 has 65536 bytes",
            "wasm trap: out of bounds memory access",
        ),
        (
            "(table 2 funcref) (elem (i32.const 1) $f $f)",
            "element segment 0 of a.wat writes 2 elements at 1, but table 0 has 2",
            "wasm trap: out of bounds table access",
        ),
        // Element segments come before data segments.
        (
            r#"(memory 0) (table 0 funcref) (data (i32.const 0) "x") (elem (i32.const 0) $f)"#,
            "element segment 0 of a.wat writes 1 elements at 0, but table 0 has 0",
            "wasm trap: out of bounds table access",
        ),
    ] {
        let work = Work::new();
        work.write(
            "a.wat",
            format!(r#"(module {fields} (func $f (export "_start")))"#),
        );
        Outcome::of(&mut quick(&work, &["a.wat"])).fails(134, &[message, trap]);
        for options in [&[][..], &["--preinit=_start"]] {
            let build = ["build", "--backend", "cranelift"];
            let arguments = [&build[..], options, &["a.wat"]].concat();
            let mut command = tool();
            let outcome = Outcome::of(command.args(arguments).current_dir(work.path()));
            outcome.fails(1, &[message, trap]);
        }
        let mut command = tool();
        command
            .args(["check", "--backend", "cranelift", "a.wat"])
            .current_dir(work.path());
        let check = Outcome::of(&mut command);
        assert_eq!(check.code(), 1);
        assert!(check.text().contains(message), "{}", check.text());
        assert_eq!(work.names(), ["a.wat", "cache"]);
    }
}

/// A maximum is an upper bound, which nothing has to be able to reach.
#[test]
fn a_table_may_have_any_maximum() {
    for backend in Backend::all() {
        for maximum in ["1000001", "134217729", "4294967295"] {
            let work = Work::new();
            work.write(
                "a.wat",
                format!(
                    r#"(module (table 1 {maximum} funcref)
                        (func (export "_start")
                            (if (i32.ne (table.grow (ref.null func) (i32.const 9)) (i32.const 1))
                                (then unreachable))
                            (if (i32.ne (table.grow (ref.null func) (i32.const 134217720)) (i32.const -1))
                                (then unreachable))
                            (if (i32.ne (table.size) (i32.const 10)) (then unreachable))))"#
                ),
            );
            let arguments = ["--quiet", "--backend", backend.name(), "a.wat"];
            Outcome::of(&mut run(&work, &arguments)).success();
        }
    }
}

#[test]
fn throwing_a_null_reference_is_a_trap() {
    for backend in Backend::all() {
        for (thrown, message) in [
            (
                "(throw_ref (ref.null exn))",
                "wasm trap: null exception reference",
            ),
            // A trap is caught by nothing.
            (
                "(block $caught (try_table (catch_all $caught) (throw_ref (ref.null exn)) (unreachable)))",
                "wasm trap: null exception reference",
            ),
            ("(throw $tag)", "wasm trap: uncaught exception"),
        ] {
            let work = Work::new();
            work.write(
                "a.wat",
                format!(r#"(module (tag $tag) (func $throws {thrown}) (func (export "_start") (call $throws)))"#),
            );
            let arguments = ["--quiet", "--backend", backend.name(), "a.wat"];
            let outcome = Outcome::of(&mut run(&work, &arguments));
            outcome.fails(134, &[message, "throws"]);
        }
    }
}
