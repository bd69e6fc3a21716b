//! Support for finding faults in a guest: source lines, symbols, sizes, and names for profilers.

use std::fs;
use std::path::Path;
use std::process::Command;

use faas_wasm_tests::{
    Backend, Guest, Outcome, RunnerCommand, Work, fixture, runner_program, tool,
};

/// Builds the fixture that was compiled with DWARF.
fn build(work: &Work, arguments: &[&str]) -> std::path::PathBuf {
    let artifact = work.join("trap.so");
    Outcome::of(
        tool()
            .args(["build", "-q", "-o"])
            .arg(&artifact)
            .args(arguments)
            .arg(fixture("trap-debug")),
    )
    .success();
    artifact
}

fn trap(artifact: &Path, kind: &str) -> String {
    let outcome = Outcome::of(
        Command::new(runner_program())
            .args(["--one-shot", "--"])
            .arg(artifact)
            .arg(kind),
    );
    assert_eq!(outcome.code(), 134, "{}", outcome.stderr);
    outcome.stderr
}

/// The number of the line in the fixture's source that contains this text.
fn line(text: &str) -> usize {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/trap.c");
    let source = fs::read_to_string(source).expect("the source is there");
    let line = source.lines().position(|line| line.contains(text));
    line.expect("the source has such a line") + 1
}

#[test]
fn traps_have_file_and_line_with_debug_only() {
    for backend in Backend::all() {
        let work = Work::new();
        let artifact = build(&work, &["--backend", backend.name(), "--debug"]);
        // In LLVM's output, checked traps of one function share code and therefore the source line.
        let divide = Some(("divide", "sink = one / zero"));
        let divide = divide.filter(|_| backend == Backend::Cranelift);
        for (kind, text) in [("bounds", "0xfffffff0u")].into_iter().chain(divide) {
            let report = trap(&artifact, kind);
            let place = format!("trap.c:{}", line(text));
            let first = report.lines().find(|line| line.contains(" 0: "));
            let first = first.unwrap_or_else(|| panic!("no frames in {report}"));
            assert!(
                first.contains(&place),
                "{backend:?}: no {place} in {report}"
            );
            let caller = format!("trap.c:{}", line("trap(argv[1]);"));
            assert!(
                report.contains(&caller),
                "{backend:?}: no {caller} in {report}"
            );
            assert!(!report.contains("<module>"), "{report}");
        }
        Outcome::of(tool().arg("verify").arg(&artifact)).success();
        // A rewritten module keeps its source lines.
        let same = build(
            &work,
            &["--backend", backend.name(), "--debug", "--entry", "_start"],
        );
        assert!(trap(&same, "bounds").contains("trap.c:"));
        let with = fs::metadata(&artifact).expect("it is there").len();

        let artifact = build(&work, &["--backend", backend.name()]);
        let report = trap(&artifact, "divide");
        assert!(!report.contains("trap.c"), "{report}");
        assert!(
            report.contains("trap+0x"),
            "names are always there: {report}"
        );
        assert!(fs::metadata(&artifact).expect("it is there").len() < with);
    }
}

#[test]
fn unavailable_source_lines_are_reported() {
    let work = Work::new();
    // One more function makes the function count of the code section one byte longer.
    let functions = "(func)".repeat(125);
    let reactor = r#"(func (export "_initialize")) (func (export "a"))"#;
    let moved = format!(r#"(module {functions} {reactor} (@custom ".debug_info" "x"))"#);
    for (name, text, options, note) in [
        (
            "none",
            r#"(module (func (export "_start")))"#,
            &[][..],
            "the module has no DWARF",
        ),
        (
            "moved",
            &moved,
            &["--entry", "a"],
            "has moved the module's functions",
        ),
    ] {
        let module = work.write(&format!("{name}.wat"), text);
        let mut command = tool();
        command.args(["build", "--backend", "cranelift", "--debug"]);
        let outcome = Outcome::of(command.args(options).arg(module));
        outcome.success();
        let found = outcome
            .stderr
            .contains("`--debug` has found no source lines")
            && outcome.stderr.contains(note);
        assert!(found, "{}", outcome.stderr);
    }
}

#[test]
fn debug_sections_are_not_loaded() {
    let work = Work::new();
    let artifact = build(&work, &["--backend", "cranelift", "--debug"]);
    let sections = Outcome::of(Command::new("readelf").args(["-SW"]).arg(&artifact)).success();
    for name in [".debug_info", ".debug_line", ".faaswasm.lines"] {
        assert!(sections.contains(name), "{name} is not in {sections}");
    }
    let lines = Outcome::of(
        Command::new("readelf")
            .args(["--debug-dump=decodedline"])
            .arg(&artifact),
    );
    assert!(lines.success().contains("trap.c"), "readelf finds no lines");
    // The debug sections belong to no segment.
    let segments = Outcome::of(Command::new("readelf").args(["-lW"]).arg(&artifact)).success();
    assert!(!segments.contains(".debug_"), "{segments}");
}

#[test]
fn symbols_and_sizes_describe_the_guests_functions() {
    let guest = Guest::fixture("trap");
    let code = Outcome::of(
        Command::new("objdump")
            .args(["-d", "--no-show-raw-insn"])
            .arg(guest.artifact()),
    )
    .success();
    for symbol in ["<descend>:", "<_start>:", "<trampoline[0]>:"] {
        assert!(code.contains(symbol), "no {symbol}");
    }
    let json = Outcome::of(
        tool()
            .args(["inspect", "--json", "--functions"])
            .arg(guest.artifact()),
    )
    .success();
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let list = json["variants"][0]["function_list"].as_array();
    let list = list.expect("a list");
    assert!(list.len() as u64 >= json["functions"].as_u64().expect("a number"));
    let size = |entry: &serde_json::Value| entry["size"].as_u64().expect("a number");
    assert!(list.iter().map(size).all(|size| size > 0));
    assert!(list.windows(2).all(|pair| size(&pair[0]) >= size(&pair[1])));
    let total: u64 = list.iter().map(size).sum();
    assert!(total <= json["code_size"].as_u64().expect("a number"));
    assert!(list.iter().any(|entry| entry["name"] == "descend"));
    let text = Outcome::of(
        tool()
            .args(["inspect", "--functions"])
            .arg(guest.artifact()),
    );
    assert!(text.success().contains("  descend\n"));
    let plain = Outcome::of(tool().arg("inspect").arg(guest.artifact())).success();
    assert!(!plain.contains("descend"), "{plain}");
}

#[test]
fn perf_map_is_written_on_request() {
    let guest = Guest::fixture("hello");
    let map = |runner: &faas_wasm_tests::Runner| format!("/tmp/perf-{}.map", runner.pid());
    let runner = guest.serve().env("wasm_perf_map", "true").start();
    let path = map(&runner);
    let text = fs::read_to_string(&path).expect("it was written");
    fs::remove_file(&path).expect("it is there");
    let functions: Vec<_> = text
        .lines()
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let mut number = || u64::from_str_radix(words.next()?, 16).ok();
            let (address, size) = (number().expect("an address"), number().expect("a size"));
            (address, size, words.next().expect("a name"))
        })
        .collect();
    assert!(
        functions.iter().any(|(_, _, name)| *name == "_start"),
        "{text}"
    );
    for pair in functions.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
    }
    drop(runner);

    let runner = guest.serve().start();
    assert!(!Path::new(&map(&runner)).exists());
    drop(runner);
    let outcome = RunnerCommand::new(&guest.artifact().display().to_string())
        .env("wasm_perf_map", "perhaps")
        .run_to_end();
    assert_eq!(outcome.code(), 2);
    assert!(
        outcome.stderr.contains("wasm_perf_map"),
        "{}",
        outcome.stderr
    );
}

/// Each function of the module has one file, named by its index; only the requested kinds of file exist.
#[test]
fn intermediate_files_of_the_backend_can_be_kept() {
    if !Backend::llvm_or_skip("intermediate_files_of_the_backend_can_be_kept") {
        return;
    }
    let plain = Work::new();
    let expected = build(&plain, &["--cpu", "x86-64-v2"]);
    let expected = fs::read(expected).expect("it was written");
    for (kind, suffix, content) in [
        ("llvm-ir", ".postopt.ll", "define "),
        ("asm", ".s", ".text"),
        ("obj", ".o", "\x7fELF"),
    ] {
        let work = Work::new();
        let artifact = build(&work, &["--cpu", "x86-64-v2", "--emit", kind]);
        assert!(
            fs::read(&artifact).expect("it was written") == expected,
            "{kind}"
        );
        let mut list = tool();
        list.args(["inspect", "--json", "--functions"])
            .arg(&artifact);
        let json: serde_json::Value =
            serde_json::from_str(&Outcome::of(&mut list).success()).expect("it is JSON");
        let functions = json["variants"][0]["function_list"].as_array();
        let directory = work.join(&format!("trap.{kind}"));
        for function in functions.expect("a list") {
            let name = format!("function_{}{suffix}", function["index"]);
            let text = fs::read(directory.join(&name)).expect("there is one for each function");
            let text = String::from_utf8_lossy(&text);
            assert!(text.contains(content), "{kind}: {name}");
        }
        let files = fs::read_dir(&directory).expect("it is there");
        for file in files {
            let name = file.expect("it can be read").file_name();
            assert!(name.to_string_lossy().ends_with(suffix), "{kind}: {name:?}");
        }
    }
    let work = Work::new();
    let mut command = tool();
    command
        .args(["build", "--backend", "cranelift", "--emit", "asm", "-o"])
        .arg(work.join("a.so"))
        .arg(fixture("nop"));
    Outcome::of(&mut command).fails(2, &["nothing for `--emit`", "hint: ", "objdump"]);
}
