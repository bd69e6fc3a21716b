//! `faas-wasm inspect` and `faas-wasm verify`.

use std::fs;

use faas_wasm_tests::{Backend, Guest, Outcome, Work, tool};

fn run(arguments: &[&str], work: &Work) -> Outcome {
    Outcome::of(tool().args(arguments).current_dir(work.path()))
}

/// Masks the parts that differ between builds of the tool and of the fixtures' toolchain.
fn masked(text: &str) -> String {
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let mut masked = String::new();
    for line in text.lines() {
        let line = match line.split_whitespace().next() {
            Some(name @ ("size" | "code" | "module" | "functions")) => format!("{name:<10} N"),
            _ => line.to_owned(),
        };
        let words: Vec<_> = line
            .split(' ')
            .map(|word| if is_hash(word) { "HASH" } else { word })
            .collect();
        masked += &words.join(" ");
        masked.push('\n');
    }
    masked
}

#[test]
fn text_describes_the_artifact() {
    let work = Work::new();
    work.fixture("features");
    run(
        &[
            "build",
            "-q",
            "--backend",
            "cranelift",
            "--cpu",
            "x86-64-v2",
            "-O",
            "2",
            "features.wasm",
        ],
        &work,
    )
    .success();
    let text = run(&["inspect", "features.so"], &work).success();
    assert_eq!(
        masked(&text),
        "\
format     2
size       N
sha256     HASH
producer   faas-wasm 0.1.0
backend    cranelift 7.4.2, -O2 (Apache-2.0 WITH LLVM-exception)
engine     wasmer-vm 7.4.2
target     x86_64-unknown-linux-gnu
features   sse2, sse3, ssse3, sse4.1, sse4.2, popcnt
module     N
           sha256 HASH
entry      _start
functions  N
code       N
image      65536 bytes (64.0 KiB)
           memory 0 at 0x0: 65536 bytes (64.0 KiB)
memory 0   1 pages of 64 KiB, no maximum
cuda       not needed
imports    1
           wasi_snapshot_preview1.proc_exit: func (param i32)
"
    );
}

#[test]
fn json_agrees_with_the_files() {
    for backend in Backend::all() {
        let guest = Guest::fixture_by("hello", backend);
        let text = run(&["inspect", "--json", "hello.so"], guest.work()).success();
        let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let size = fs::metadata(guest.artifact()).expect("it is there").len();
        assert_eq!(json["file_size"], size);
        assert_eq!(json["backend"], backend.name());
        assert_eq!(json["entry"], "_start");
        assert_eq!(json["needs_cuda"], false);
        let sum = Outcome::of(
            std::process::Command::new("sha256sum").arg(faas_wasm_tests::fixture("hello")),
        );
        let sum = sum.success();
        assert_eq!(json["wasm_sha256"].as_str(), sum.split_whitespace().next());
    }
}

#[test]
fn non_artifacts_are_reported_by_kind() {
    let work = Work::new();
    work.fixture("nop");
    work.write("text.so", "text");
    for command in ["inspect", "verify"] {
        run(&[command, "nop.wasm"], &work).fails(
            1,
            &[
                "error: nop.wasm is not ",
                "WebAssembly module",
                "faas-wasm build",
            ],
        );
        run(&[command, "text.so"], &work).fails(1, &["error: text.so is not ", "ELF"]);
        run(&[command, "none.so"], &work).fails(1, &["error: cannot read none.so", "No such file"]);
        run(&[command, "/bin/true"], &work).fails(1, &["no artifact header", "faas-wasm build"]);
    }
}

#[test]
fn verify_accepts_what_build_wrote() {
    for backend in Backend::all() {
        let guest = Guest::fixture_by("cat", backend);
        run(&["verify", "cat.so"], guest.work()).success();
    }
}
