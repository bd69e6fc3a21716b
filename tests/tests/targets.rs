//! Artifacts for other machines: other architectures and CPU levels, and several of them in one file.

use std::fs;
use std::path::Path;
use std::process::Command;

use faas_wasm_tests::{Backend, Outcome, Work, runner_program, tool};

/// Exit code of the one-shot mode if the run could not start.
const NOT_STARTED: i32 = 125;

fn build(work: &Work, arguments: &[&str]) -> Outcome {
    Outcome::of(
        tool()
            .args(["build", "-q"])
            .args(arguments)
            .current_dir(work.path()),
    )
}

fn one_shot(artifact: &Path) -> Outcome {
    Outcome::of(
        Command::new(runner_program())
            .args(["--one-shot", "--"])
            .arg(artifact),
    )
}

fn program(name: &str, arguments: &[&str], artifact: &Path) -> String {
    Outcome::of(Command::new(name).args(arguments).arg(artifact)).success()
}

fn inspect(artifact: &Path) -> serde_json::Value {
    let json = Outcome::of(tool().args(["inspect", "--json"]).arg(artifact)).success();
    serde_json::from_str(&json).expect("it is JSON")
}

/// This machine's architecture, as in a target triple.
fn host() -> &'static str {
    std::env::consts::ARCH
}

#[test]
fn builds_for_every_architecture_from_here() {
    let work = Work::new();
    work.fixture("hello");
    for (target, machine, triple) in [
        ("amd64", "X86-64", "x86_64-unknown-linux-gnu"),
        ("arm64", "AArch64", "aarch64-unknown-linux-gnu"),
        ("riscv64", "RISC-V", "riscv64gc-unknown-linux-gnu"),
    ] {
        for backend in Backend::all() {
            let arguments = ["--backend", backend.name(), "--target", target];
            let output = work.join("a.so");
            build(
                &work,
                &[&arguments[..], &["hello.wasm", "-o", "a.so"]].concat(),
            )
            .success();
            let header = program("readelf", &["-h"], &output);
            assert!(header.contains(machine), "{header}");
            assert_eq!(inspect(&output)["target"], triple);
            Outcome::of(tool().arg("verify").arg(&output)).success();
            let first = fs::read(&output).expect("it was written");
            build(
                &work,
                &[&arguments[..], &["hello.wasm", "-o", "b.so"]].concat(),
            )
            .success();
            let second = fs::read(work.join("b.so")).expect("it was written");
            assert!(first == second, "{target}, {backend:?}: the files differ");

            let outcome = one_shot(&output);
            if triple.starts_with(host()) {
                // A build for the default CPU of another architecture's triple also runs here.
                assert_eq!(outcome.success(), "hello, world\n");
            } else {
                outcome.fails(NOT_STARTED, &["the artifact is for", triple, "--target"]);
            }
        }
    }
    assert_eq!(work.names(), ["a.so", "b.so", "hello.wasm"]);
}

#[test]
fn a_fat_artifact_has_a_variant_for_each_target_and_level() {
    for backend in Backend::all() {
        let work = Work::new();
        work.fixture("hello");
        let arguments = [
            "--backend",
            backend.name(),
            "--target",
            "riscv64,arm64",
            "--target",
            "amd64",
            "--cpu",
            "x86-64-v1,x86-64-v2",
            "hello.wasm",
        ];
        build(&work, &arguments).success();
        let artifact = work.join("hello.so");
        assert_eq!(one_shot(&artifact).success(), "hello, world\n");
        Outcome::of(tool().arg("verify").arg(&artifact)).success();
        let json = inspect(&artifact);
        let variants = json["variants"].as_array().expect("a list");
        let found: Vec<_> = variants
            .iter()
            .map(|variant| {
                let features = variant["cpu_features"].as_array().expect("a list");
                (variant["target"].as_str().expect("text"), features.len())
            })
            .collect();
        assert_eq!(
            found,
            [
                ("riscv64gc-unknown-linux-gnu", 0),
                ("aarch64-unknown-linux-gnu", 1),
                ("x86_64-unknown-linux-gnu", 1),
                ("x86_64-unknown-linux-gnu", 6),
            ]
        );
        let text = Outcome::of(tool().arg("inspect").arg(&artifact)).success();
        assert!(text.contains("variants   4\n"), "{text}");

        let first = fs::read(&artifact).expect("it was written");
        build(&work, &arguments).success();
        let second = fs::read(&artifact).expect("it was written");
        assert!(first == second, "the files differ");
    }
}

#[test]
fn variants_share_one_memory_image() {
    const IMAGE: u64 = 1 << 20;
    let work = Work::new();
    let contents = "contents".repeat(IMAGE as usize / 8);
    let module = format!(
        r#"(module (memory (export "memory") 16) (data (i32.const 0) "{contents}") (func (export "_start")))"#
    );
    work.write("image.wat", &module);
    let arguments = ["--backend", "cranelift", "--target", "riscv64,arm64,amd64"];
    build(&work, &[&arguments[..], &["image.wat"]].concat()).success();
    let artifact = work.join("image.so");
    assert_eq!(inspect(&artifact)["image_size"], IMAGE);
    let whole = fs::metadata(&artifact).expect("it was written").len();
    assert!((IMAGE..2 * IMAGE).contains(&whole), "{whole} bytes");
}

#[test]
fn the_runner_loads_only_the_best_variant() {
    if host() != "x86_64" {
        return; // Only x86_64 has levels.
    }
    let work = Work::new();
    work.fixture("hello");
    let arguments = ["--backend", "cranelift", "--cpu", "x86-64-v1,x86-64-v2"];
    build(&work, &[&arguments[..], &["hello.wasm"]].concat()).success();
    let artifact = work.join("hello.so");
    let intact = fs::read(&artifact).expect("it was written");
    let json = inspect(&artifact);
    // Damage to the first variant does not matter. Damage to the second variant, which needs more CPU features, is
    // detected.
    for (variant, harmless) in [(0, true), (1, false)] {
        let place = &json["variants"][variant];
        let number = |key: &str| place[key].as_u64().expect("a number") as usize;
        let mut damaged = intact.clone();
        // The last bytes of a variant are its header.
        damaged[number("offset") + number("size") - 512 + 24] ^= 1;
        fs::write(&artifact, damaged).expect("it can be written");
        let outcome = one_shot(&artifact);
        if harmless {
            assert_eq!(outcome.success(), "hello, world\n");
        } else {
            outcome.fails(NOT_STARTED, &["the artifact is damaged"]);
        }
        Outcome::of(tool().arg("verify").arg(&artifact)).fails(1, &["is damaged"]);
    }
}

#[test]
fn artifacts_without_a_variant_for_this_host_are_refused() {
    let work = Work::new();
    work.fixture("hello");
    let others: Vec<_> = ["amd64", "arm64", "riscv64"]
        .into_iter()
        .zip(["x86_64", "aarch64", "riscv64"])
        .filter(|(_, architecture)| *architecture != host())
        .map(|(name, _)| name)
        .collect();
    let targets = others.join(",");
    let arguments = ["--backend", "cranelift", "--target", &targets, "hello.wasm"];
    build(&work, &arguments).success();
    one_shot(&work.join("hello.so")).fails(
        NOT_STARTED,
        &[
            "none of the artifact's variants runs on this host",
            "--target",
        ],
    );
}

#[test]
fn damaged_fat_artifacts_are_errors() {
    let work = Work::new();
    work.fixture("hello");
    let arguments = [
        "--backend",
        "cranelift",
        "--target",
        "amd64,arm64",
        "hello.wasm",
    ];
    build(&work, &arguments).success();
    let artifact = work.join("hello.so");
    let intact = fs::read(&artifact).expect("it was written");
    let json = inspect(&artifact);
    let end = |variant: usize| {
        let place = &json["variants"][variant];
        let number = |key: &str| place[key].as_u64().expect("a number") as usize;
        number("offset") + number("size")
    };
    let size = intact.len();
    // Also cut where a variant ends, so that the file looks like a complete artifact.
    for length in [
        0,
        1,
        511,
        512,
        end(0) - 1,
        end(0),
        end(0) + 1,
        end(1),
        size - 512,
        size - 1,
    ] {
        fs::write(&artifact, &intact[..length]).expect("it can be written");
        assert_eq!(one_shot(&artifact).code(), NOT_STARTED, "{length} bytes");
        let verify = Outcome::of(tool().arg("verify").arg(&artifact));
        assert_eq!(verify.code(), 1, "{length} bytes");
    }
    for place in (size - 512..size).step_by(7) {
        let mut damaged = intact.clone();
        damaged[place] ^= 0x41;
        fs::write(&artifact, damaged).expect("it can be written");
        let verify = Outcome::of(tool().arg("verify").arg(&artifact));
        assert_eq!(verify.code(), 1, "byte {place:#x}");
    }
}

/// Adds vectors, shifts and rounds: operations that use different instructions at each level.
const SIMD: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "_start") (local $i i32)
        (loop $again
            (v128.store (local.get $i) (f32x4.add
                (v128.load (local.get $i))
                (f32x4.ceil (v128.load offset=64 (local.get $i)))))
            (i64.store offset=128 (local.get $i) (i64.popcnt (i64.load offset=256 (local.get $i))))
            (br_if $again (i32.lt_u
                (local.tee $i (i32.add (local.get $i) (i32.const 16)))
                (i32.const 1024))))))"#;

#[test]
fn code_uses_only_instructions_of_its_level() {
    if host() != "x86_64" {
        return; // Only x86_64 has levels.
    }
    let work = Work::new();
    work.write("a.wat", SIMD);
    let assembled = Command::new("wat2wasm")
        .args(["a.wat", "-o", "a.wasm"])
        .current_dir(work.path())
        .status();
    assert!(assembled.expect("wat2wasm is there").success());
    for (level, with, without) in [
        (
            "x86-64-v1",
            &["addps"][..],
            &["vaddps", "roundps", "popcnt"][..],
        ),
        ("x86-64-v2", &["addps", "roundps", "popcnt"], &["vaddps"]),
        ("x86-64-v3", &["vaddps", "vroundps", "popcnt"], &[]),
        ("x86-64-v4", &["vaddps", "popcnt"], &[]),
    ] {
        for backend in Backend::all() {
            build(
                &work,
                &["--backend", backend.name(), "--cpu", level, "a.wasm"],
            )
            .success();
            let code = program("objdump", &["-d", "--no-show-raw-insn"], &work.join("a.so"));
            let instructions: Vec<_> = code
                .lines()
                .filter_map(|line| line.split_once(":\t")?.1.split_whitespace().next())
                .collect();
            let has = |name: &&&str| instructions.contains(*name);
            let missing: Vec<_> = with.iter().filter(|name| !has(name)).collect();
            // Cranelift need not use a wide instruction, but it must not use a forbidden one.
            if backend == Backend::Llvm {
                assert!(missing.is_empty(), "{level}: no {missing:?} in {code}");
            }
            let forbidden: Vec<_> = without.iter().filter(has).collect();
            assert!(forbidden.is_empty(), "{level}, {backend:?}: {forbidden:?}");
        }
    }
}

#[test]
fn invalid_targets_are_reported() {
    let work = Work::new();
    work.fixture("nop");
    for (arguments, parts) in [
        (
            &["--target", "arm64", "--cpu", "x86-64-v2"][..],
            &["CPU level `x86-64-v2` is of x86_64, the target is aarch64"][..],
        ),
        (
            &["--target", "riscv64", "--cpu", "native"],
            &["`native` is this machine's", "hint:"],
        ),
        (
            &["--target", "amd64,vax"],
            &["unknown target `vax`", "arm64"],
        ),
        (&["--target", "aarch64-apple-darwin"], &["for Linux only"]),
    ] {
        let outcome = build(&work, &[arguments, &["nop.wasm"]].concat());
        outcome.fails(2, parts);
        assert_eq!(work.names(), ["nop.wasm"]);
    }
}

/// More entries than a branch of aarch64 reaches over, see the tool's `jump_tables.rs`.
#[test]
fn tables_of_labels_that_cranelift_gets_wrong_are_refused() {
    let work = Work::new();
    let large = |entries: usize| {
        let labels = " 0".repeat(entries);
        format!(
            r#"(module (func (export "_start") (call $large (i32.const 1)))
                (func $large (param i32) (block (br_table{labels} 0 (local.get 0)))))"#
        )
    };
    for entries in [131_073, 262_140, 300_000] {
        work.write("a.wat", large(entries));
        let message = format!(
            "error: the cranelift backend cannot compile `br_table` with {entries} entries of a.wat for aarch64"
        );
        let parts = [
            message.as_str(),
            "function 1 (`large`), wasm offset 0x",
            ": 131072 entries are the most",
            "hint: ",
        ];
        for target in ["arm64", "amd64,arm64"] {
            let options = ["--backend", "cranelift", "--target", target, "a.wat"];
            build(&work, &options).fails(1, &parts);
            let mut check = tool();
            check.arg("check").args(options).current_dir(work.path());
            Outcome::of(&mut check).fails(1, &parts);
            assert_eq!(work.names(), ["a.wat"]);
        }
    }
    let options = ["--backend", "cranelift", "--target", "amd64,riscv64"];
    build(&work, &[&options[..], &["a.wat"]].concat()).success();
    work.write("b.wat", large(131_072));
    let options = ["--backend", "cranelift", "--target", "arm64"];
    build(&work, &[&options[..], &["b.wat"]].concat()).success();
}
