//! `faas-wasm build`: its output files, its messages, and its errors.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use faas_wasm_tests::{Backend, Outcome, Work, fixture, tool};

fn build(work: &Work, arguments: &[&str]) -> Outcome {
    Outcome::of(tool().arg("build").args(arguments).current_dir(work.path()))
}

fn quick(work: &Work, arguments: &[&str]) -> Outcome {
    build(work, &[&["--backend", "cranelift"], arguments].concat())
}

#[test]
fn writes_the_artifact_beside_the_module_and_a_summary() {
    for backend in Backend::all() {
        let work = Work::new();
        work.fixture("hello");
        let outcome = build(
            &work,
            &[
                "--backend",
                backend.name(),
                "--cpu",
                "x86-64-v2",
                "hello.wasm",
            ],
        );
        let summary = outcome.success();
        let keys: Vec<_> = summary
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(
            keys,
            [
                "artifact",
                "functions",
                "code",
                "image",
                "size",
                "target",
                "features",
                "backend",
                "time"
            ]
        );
        assert!(summary.contains("artifact   hello.so\n"), "{summary}");
        assert!(summary.contains(backend.name()), "{summary}");
        assert_eq!(work.names(), ["hello.so", "hello.wasm"]);
        let size = fs::metadata(work.join("hello.so"))
            .expect("it is there")
            .len();
        assert!(
            summary.contains(&format!("size       {size} bytes")),
            "{summary}"
        );
    }
}

#[test]
fn quiet_prints_nothing() {
    let work = Work::new();
    work.fixture("nop");
    let outcome = quick(&work, &["--quiet", "nop.wasm"]);
    assert_eq!(
        (outcome.success(), outcome.stderr.as_str()),
        (String::new(), "")
    );
}

#[test]
fn progress_without_a_terminal_is_plain_lines() {
    let work = Work::new();
    work.fixture("cat");
    let outcome = quick(&work, &["cat.wasm"]);
    outcome.success();
    assert!(
        !outcome.stderr.contains(['\x1b', '\r']),
        "{:?}",
        outcome.stderr
    );
}

#[test]
fn native_builds_report_the_cpus_that_can_run_them() {
    let work = Work::new();
    work.fixture("nop");
    let native = quick(&work, &["nop.wasm"]);
    native.success();
    assert!(
        native.stderr.contains("--cpu x86-64-v2"),
        "{}",
        native.stderr
    );
    let portable = quick(&work, &["--cpu", "x86-64-v2", "nop.wasm"]);
    portable.success();
    assert!(!portable.stderr.contains("note:"), "{}", portable.stderr);
}

#[test]
fn same_input_and_options_give_the_same_bytes() {
    for backend in Backend::all() {
        let work = Work::new();
        let module = work.fixture("cat");
        let moved = work.join("elsewhere.wasm");
        fs::copy(module, moved).expect("it can be copied");
        let make = |module: &str, output: &str, jobs: &str| {
            let backend = ["--backend", backend.name(), "--jobs", jobs];
            build(&work, &[&backend[..], &["-o", output, module]].concat()).success();
            fs::read(work.join(output)).expect("it is there")
        };
        let first = make("cat.wasm", "1.so", "1");
        for (module, output, jobs) in [
            ("cat.wasm", "2.so", "1"),
            ("cat.wasm", "3.so", "4"),
            ("elsewhere.wasm", "4.so", "2"),
        ] {
            let again = make(module, output, jobs);
            assert!(first == again, "{backend:?}: {module} with {jobs} jobs");
        }
    }
}

#[test]
fn opt_level_and_backend_change_the_artifact() {
    let work = Work::new();
    work.fixture("cat");
    let mut artifacts = Vec::new();
    for backend in Backend::all() {
        for level in ["0", "3"] {
            build(
                &work,
                &["--backend", backend.name(), "-O", level, "cat.wasm"],
            )
            .success();
            artifacts.push(fs::read(work.join("cat.so")).expect("it is there"));
        }
    }
    for (index, artifact) in artifacts.iter().enumerate() {
        assert!(!artifacts[..index].contains(artifact), "{index}");
    }
}

#[test]
fn readelf_understands_the_artifact() {
    for backend in Backend::all() {
        let work = Work::new();
        work.fixture("hello");
        build(&work, &["--backend", backend.name(), "hello.wasm"]).success();
        let outcome = Outcome::of(
            Command::new("readelf")
                .args(["--all", "--wide", "hello.so"])
                .env("LC_ALL", "C")
                .current_dir(work.path()),
        );
        let text = outcome.success();
        assert_eq!(outcome.stderr, "", "readelf has nothing to complain about");
        for part in [
            "DYN (Shared object file)",
            "Advanced Micro Devices X86-64",
            ".text",
            ".faaswasm.header",
        ] {
            assert!(text.contains(part), "{backend:?}: no {part} in {text}");
        }
        // Writable code or executable data would help an attacker.
        assert!(!text.contains("RWE"), "{text}");
    }
}

#[test]
fn rejects_bad_input_and_leaves_nothing_behind() {
    let module = |text: &str| wat::parse_str(text).expect("the text is correct");
    let hello = fs::read(fixture("hello")).expect("it can be read");
    let half = hello.len() / 2;
    let cases: [(&str, Vec<u8>, &[&str]); 12] = [
        ("empty", vec![], &["error: bad.wasm is empty", "hint:"]),
        (
            "text",
            b"just text".to_vec(),
            &[
                "error: bad.wasm is not a WebAssembly module",
                "6a 75 73 74",
                "hint:",
            ],
        ),
        (
            "a script",
            b"#!/bin/sh\n".to_vec(),
            &["error:", "not a WebAssembly module", "script"],
        ),
        (
            "a component",
            b"\0asm\x0d\0\x01\0".to_vec(),
            &["component, not a core module", "hint:", "wasm32-wasip1"],
        ),
        (
            "WebAssembly text",
            b"(module (func nop2))".to_vec(),
            &["error:", "cannot be assembled", "bad.wasm:1:"],
        ),
        (
            "cut off",
            hello[..half].to_vec(),
            &[
                "error:",
                "not a valid WebAssembly module",
                "at offset 0x",
                "cut off",
            ],
        ),
        (
            "ill-typed",
            module(r#"(module (func (export "_start") (result i32)))"#),
            &["error:", "not a valid WebAssembly module", "at offset 0x"],
        ),
        (
            "without _start",
            module("(module)"),
            &["has no function `_start`", "hint:", "command"],
        ),
        (
            "a reactor",
            module(r#"(module (func (export "_initialize")))"#),
            &["has no function `_start`", "hint: this is a reactor"],
        ),
        (
            "64-bit memory",
            module(r#"(module (memory i64 1) (func (export "_start")))"#),
            &["memory64", "cranelift backend does not support", "hint:"],
        ),
        (
            "an import of another platform",
            module(r#"(module (import "env" "system" (func)) (func (export "_start")))"#),
            &["imports what no host provides", "env.system: func", "hint:"],
        ),
        (
            "data outside of the memory",
            module(r#"(module (memory 1) (data (i32.const 65535) "xy") (func (export "_start")))"#),
            &["data segment 0", "65536 bytes"],
        ),
    ];
    for (name, content, parts) in cases {
        let work = Work::new();
        work.write("bad.wasm", content);
        let outcome = quick(&work, &["bad.wasm"]);
        eprintln_case(name, &outcome);
        outcome.fails(1, parts);
        assert_eq!(work.names(), ["bad.wasm"], "{name}");
    }
}

/// Printed if the test fails.
#[expect(clippy::print_stderr, reason = "tells which case failed")]
fn eprintln_case(name: &str, outcome: &Outcome) {
    eprintln!("{name}:\n{}", outcome.stderr);
}

#[test]
fn rejects_a_missing_module() {
    let work = Work::new();
    quick(&work, &["none.wasm"]).fails(1, &["error: cannot read none.wasm", "No such file"]);
    quick(&work, &["."]).fails(1, &["error: cannot read ."]);
}

#[test]
fn rejects_compiled_input() {
    let work = Work::new();
    work.fixture("nop");
    quick(&work, &["nop.wasm"]).success();
    quick(&work, &["nop.so", "-o", "again.so"]).fails(
        1,
        &[
            "error: nop.so is an artifact already",
            "hint: ",
            "faas-wasm inspect nop.so",
        ],
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    let work = Work::new();
    work.fixture("nop");
    for (arguments, parts) in [
        (
            &["nop.wasm", "--no-such-option"][..],
            &["--no-such-option"][..],
        ),
        (&[], &["MODULE.wasm"]),
        (&["nop.wasm", "--jobs", "0"], &["--jobs"]),
        (&["nop.wasm", "-O", "4"], &["--opt-level"]),
        (
            &["nop.wasm", "--target", "pdp11-dec-unix"],
            &[
                "unknown target `pdp11-dec-unix`",
                "hint:",
                "amd64, arm64, riscv64",
            ],
        ),
        (
            &["nop.wasm", "--cpu-features", "sse4.2,mmx2"],
            &[
                "unknown CPU feature `mmx2`; known for x86_64: ",
                "avx2",
                "hint:",
            ],
        ),
        (&["nop.wasm", "--cpu", "pentium"], &["pentium", "x86-64-v2"]),
        (
            &["nop.wasm", "-o", "nop.wasm"],
            &["the output nop.wasm is the input"],
        ),
    ] {
        quick(&work, arguments).fails(2, parts);
    }
    build(&work, &["nop.wasm", "--backend", "gcc"]).fails(2, &["gcc", "llvm, cranelift"]);
    assert_eq!(work.names(), ["nop.wasm"]);
}

#[test]
fn variables_set_the_defaults_of_options() {
    let work = Work::new();
    work.fixture("nop");
    let with = |name: &str, value: &str, arguments: &[&str]| {
        Outcome::of(
            tool()
                .args(["build", "--backend", "cranelift"])
                .args(arguments)
                .env(name, value)
                .current_dir(work.path()),
        )
    };
    with("wasm_c_target", "pdp11", &["nop.wasm"]).fails(2, &["unknown target `pdp11`"]);
    with("wasm_c_target", "pdp11", &["--target", "amd64", "nop.wasm"]).success();
    with("wasm_c_cpu_features", "nonsense", &["nop.wasm"])
        .fails(2, &["unknown CPU feature `nonsense`"]);
    let summary = with("wasm_c_cpu_features", "avx2\tpopcnt, bmi1\n", &["nop.wasm"]).success();
    let features = summary.lines().find(|line| line.starts_with("features"));
    let features = features.expect("the summary has them");
    for name in ["avx2", "popcnt", "bmi1"] {
        assert!(features.contains(name), "{features}");
    }
    assert!(!features.contains("bmi2"), "{features}");
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let work = Work::new();
    work.fixture("nop");
    fs::create_dir(work.join("directory.so")).expect("it can be made");
    quick(&work, &["nop.wasm", "-o", "directory.so"])
        .fails(1, &["error: directory.so is a directory", "hint:"]);
    quick(&work, &["nop.wasm", "-o", "none/nop.so"]).fails(
        1,
        &[
            "error: cannot write none/nop.so",
            "No such file or directory",
            "hint:",
        ],
    );
    quick(&work, &["nop.wasm", "-o", "/dev/full"]).fails(1, &["error: /dev/full"]);
}

#[test]
fn a_failed_build_keeps_the_old_artifact() {
    let work = Work::new();
    work.fixture("nop");
    quick(&work, &["nop.wasm"]).success();
    let before = fs::read(work.join("nop.so")).expect("it is there");
    work.write("nop.wasm", b"\0asm\x01\0\0\0\x01");
    quick(&work, &["nop.wasm"]).fails(1, &["error:"]);
    assert!(before == fs::read(work.join("nop.so")).expect("it is there"));
    assert_eq!(work.names(), ["nop.so", "nop.wasm"]);
}

#[test]
fn an_artifact_in_use_is_replaced_not_overwritten() {
    let work = Work::new();
    work.fixture("nop");
    quick(&work, &["nop.wasm"]).success();
    let old = fs::File::open(work.join("nop.so")).expect("it is there");
    let before = inode(&work.join("nop.so"));
    quick(&work, &["nop.wasm"]).success();
    // A process that has mapped the old file keeps using it.
    assert_ne!(before, inode(&work.join("nop.so")));
    assert_eq!(
        before,
        std::os::unix::fs::MetadataExt::ino(&old.metadata().expect("it is open"))
    );
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("it is there"))
}

#[test]
fn output_files_have_the_usual_mode() {
    let work = Work::new();
    work.fixture("nop");
    quick(&work, &["nop.wasm"]).success();
    let reference = fs::metadata(work.write("reference", "")).expect("it is there");
    let artifact = fs::metadata(work.join("nop.so")).expect("it is there");
    let bits = |permissions: Permissions| permissions.mode() & 0o666;
    assert_eq!(bits(artifact.permissions()), bits(reference.permissions()));
}

#[test]
fn version_names_backends_and_licenses() {
    let text = Outcome::of(tool().args(["--version", "-v"])).success();
    for part in [
        "faas-wasm ",
        "llvm",
        "BUSL-1.1",
        "cranelift",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn help_documents_exit_codes_and_variables() {
    let text = Outcome::of(tool().arg("--help")).success();
    for part in [
        "Exit codes",
        "134",
        "125",
        "wasm_c_target",
        "wasm_c_cpu_features",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
