//! `docs/tiers.md` says which WebAssembly features each backend supports. The document must name every feature that
//! the tool knows, and must match the tool's behavior on every architecture.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use faas_wasm_tests::{Backend, Outcome, Work, builds_for_this_machine, tool};

const ARCHITECTURES: [&str; 3] = ["amd64", "arm64", "riscv64"];

/// A feature, and a module whose `_start` traps unless the feature works.
struct Feature {
    /// The name in the document.
    name: &'static str,
    /// The validator's name for the feature, as in the tool's source.
    flag: &'static str,
    module: &'static str,
}

const FEATURES: &[Feature] = &[
    Feature {
        name: "core (version 1.0)",
        flag: "FLOATS",
        module: r#"(memory 1) (data (i32.const 8) "\2a")
            (func (export "_start") (if (i32.ne (i32.load8_u (i32.const 8))
              (i32.trunc_f64_s (f64.mul (f64.const 10.5) (f64.const 4)))) (then unreachable)))"#,
    },
    Feature {
        name: "bulk memory",
        flag: "BULK_MEMORY",
        module: r#"(memory 1) (func (export "_start")
            (memory.fill (i32.const 4) (i32.const 7) (i32.const 4))
            (memory.copy (i32.const 16) (i32.const 4) (i32.const 4))
            (if (i32.ne (i32.load (i32.const 16)) (i32.const 0x07070707)) (then unreachable)))"#,
    },
    Feature {
        name: "exceptions",
        flag: "EXCEPTIONS",
        module: r#"(tag $t (param i32)) (func $throw (throw $t (i32.const 42)))
            (func (export "_start") (if (i32.ne (i32.const 42)
              (block $caught (result i32) (try_table (catch $t $caught) (call $throw)) (i32.const 0)))
              (then unreachable)))"#,
    },
    Feature {
        name: "extended constants",
        flag: "EXTENDED_CONST",
        module: r#"(global $g i32 (i32.add (i32.const 40) (i32.const 2)))
            (func (export "_start") (if (i32.ne (global.get $g) (i32.const 42)) (then unreachable)))"#,
    },
    Feature {
        name: "multiple values",
        flag: "MULTI_VALUE",
        module: r#"(func $two (result i32 i32) (i32.const 40) (i32.const 2))
            (func (export "_start")
              (if (i32.ne (i32.add (call $two)) (i32.const 42)) (then unreachable)))"#,
    },
    Feature {
        name: "reference types",
        flag: "REFERENCE_TYPES",
        module: r#"(table $t 1 externref) (func (export "_start")
            (if (i32.ne (table.grow $t (ref.null extern) (i32.const 2)) (i32.const 1)) (then unreachable))
            (if (i32.eqz (ref.is_null (table.get $t (i32.const 2)))) (then unreachable)))"#,
    },
    Feature {
        name: "relaxed SIMD",
        flag: "RELAXED_SIMD",
        module: r#"(func (export "_start") (if (i32.ne (i32.const 42) (i32x4.extract_lane 0
            (i32x4.relaxed_trunc_f32x4_s (f32x4.splat (f32.const 42.5))))) (then unreachable)))"#,
    },
    Feature {
        name: "saturating conversions",
        flag: "SATURATING_FLOAT_TO_INT",
        module: r#"(func (export "_start") (if (i32.ne (i32.const 0x7fffffff)
            (i32.trunc_sat_f64_s (f64.const 1e300))) (then unreachable)))"#,
    },
    Feature {
        name: "several memories",
        flag: "MULTI_MEMORY",
        module: r#"(memory $a 1) (memory $b 1) (func (export "_start")
            (i32.store $b (i32.const 0) (i32.const 42))
            (if (i32.ne (i32.load $a (i32.const 0)) (i32.const 0)) (then unreachable))
            (if (i32.ne (i32.load $b (i32.const 0)) (i32.const 42)) (then unreachable)))"#,
    },
    Feature {
        name: "sign extension",
        flag: "SIGN_EXTENSION",
        module: r#"(func (export "_start") (if (i32.ne (i32.const -1)
            (i32.extend8_s (i32.const 255))) (then unreachable)))"#,
    },
    Feature {
        name: "SIMD",
        flag: "SIMD",
        module: r#"(func (export "_start") (if (i32.ne (i32.const 42) (i32x4.extract_lane 3
            (i32x4.add (v128.const i32x4 1 2 3 40) (i32x4.splat (i32.const 2))))) (then unreachable)))"#,
    },
    Feature {
        name: "tail calls",
        flag: "TAIL_CALL",
        module: r#"(func $down (param i32) (result i32) (if (i32.eqz (local.get 0)) (then (return (i32.const 42))))
              (return_call $down (i32.sub (local.get 0) (i32.const 1))))
            (func (export "_start")
              (if (i32.ne (call $down (i32.const 1000000)) (i32.const 42)) (then unreachable)))"#,
    },
    Feature {
        name: "threads",
        flag: "THREADS",
        module: r#"(memory 1 1 shared) (func (export "_start")
            (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 42)))
            (if (i32.ne (i32.atomic.load (i32.const 0)) (i32.const 42)) (then unreachable)))"#,
    },
    Feature {
        name: "wide arithmetic",
        flag: "WIDE_ARITHMETIC",
        module: r#"(func (export "_start") (local $high i64)
            (i64.mul_wide_u (i64.const -1) (i64.const 43)) (local.set $high) (drop)
            (if (i64.ne (local.get $high) (i64.const 42)) (then unreachable)))"#,
    },
    Feature {
        name: "64-bit memory",
        flag: "MEMORY64",
        module: r#"(memory i64 1) (func (export "_start"))"#,
    },
    Feature {
        name: "custom page sizes",
        flag: "CUSTOM_PAGE_SIZES",
        module: r#"(memory 1 (pagesize 1)) (func (export "_start"))"#,
    },
    Feature {
        name: "function references",
        flag: "FUNCTION_REFERENCES",
        module: r#"(type $f (func)) (func $g (type $f)) (elem declare func $g)
            (func (export "_start") (call_ref $f (ref.func $g)))"#,
    },
    Feature {
        name: "garbage collection",
        flag: "GC",
        module: r#"(type $s (struct)) (func (export "_start") (drop (struct.new $s)))"#,
    },
    Feature {
        name: "legacy exceptions",
        flag: "LEGACY_EXCEPTIONS",
        module: r#"(tag $t) (func (export "_start") try throw $t catch $t end)"#,
    },
    Feature {
        name: "stack switching",
        flag: "STACK_SWITCHING",
        module: r#"(type $f (func)) (type $c (cont $f)) (func (export "_start"))"#,
    },
];

/// Validator flags that no test module can use alone: parts of other features, and proposals without a text format or
/// instructions in the validator.
const WITHOUT_ROW: [&str; 5] = [
    "GC_TYPES",
    "MEMORY_CONTROL",
    "MUTABLE_GLOBAL",
    "SHARED_EVERYTHING_THREADS",
    "empty",
];

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the document's second table: the feature, whether LLVM and Cranelift support it, and the evidence on
/// x86-64, aarch64, and riscv64.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let (_, table) = document.split_once("| feature |").expect("a table");
    table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let line = line
                .strip_prefix('|')
                .and_then(|line| line.strip_suffix('|'));
            let cells = line.expect("cells").split('|').map(str::trim);
            cells.collect()
        })
        .collect()
}

/// Whether the document claims that a backend supports a row's feature on an architecture.
fn support(row: &[&str], backend: Backend, architecture: &str) -> bool {
    let cell = match backend {
        Backend::Llvm => row[1],
        Backend::Cranelift => row[2],
    };
    match cell {
        "yes" => true,
        "no" => false,
        "not on riscv64" => architecture != "riscv64",
        _ => panic!("{row:?}: `{cell}` is not known here"),
    }
}

#[test]
fn every_feature_that_the_tool_knows_has_its_row() {
    let document = source("docs/tiers.md");
    let rows = rows(&document);
    let named: Vec<_> = rows.iter().map(|row| row[0]).collect();
    let known: Vec<_> = FEATURES.iter().map(|feature| feature.name).collect();
    assert_eq!(named, known);

    // The feature names that `check` prints.
    let features = source("compiler/src/features.rs");
    let (features, _) = features.split_once("#[cfg(test)]").expect("tests");
    let (_, list) = features.split_once("const PROPOSALS").expect("a list");
    let (list, code) = list.split_once("];").expect("its end");
    let pairs = list.lines().filter_map(|line| {
        let pair = line.trim().strip_prefix("(\"")?.strip_suffix("\"),")?;
        Some(pair.split_once("\", \"")?.1)
    });
    let inserted = code.split("insert(\"").skip(1);
    let inserted = inserted.filter_map(|rest| rest.split('"').next());
    let told: BTreeSet<_> = pairs.chain(inserted).collect();
    assert!(told.len() > 12, "{told:?}");
    let unnamed: Vec<_> = told.iter().filter(|name| !named.contains(name)).collect();
    assert!(unnamed.is_empty(), "no row for {unnamed:?}");

    // The features that the validator is told to accept, and those that the tool refuses by name.
    let input = source("compiler/src/input.rs");
    let flags = input.split("WasmFeatures::").skip(1);
    let flags = flags.filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        rest.get(..end?)
    });
    let flags: BTreeSet<_> = flags
        .filter(|flag| {
            flag.chars()
                .all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
        })
        .collect();
    assert!(flags.len() > 15, "{flags:?}");
    let unnamed: Vec<_> = flags
        .iter()
        .filter(|flag| !WITHOUT_ROW.contains(flag))
        .filter(|flag| !FEATURES.iter().any(|feature| feature.flag == **flag))
        .collect();
    assert!(unnamed.is_empty(), "no row for {unnamed:?}");
}

#[test]
fn only_supported_features_have_evidence() {
    for row in rows(&source("docs/tiers.md")) {
        for (evidence, architecture) in row[3..].iter().zip(ARCHITECTURES) {
            let supported = [Backend::Llvm, Backend::Cranelift]
                .iter()
                .any(|backend| support(&row, *backend, architecture));
            assert_eq!(!evidence.is_empty(), supported, "{row:?}");
        }
    }
}

/// Builds `a.so` from `a.wat`.
fn build(work: &Work, backend: Backend, option: &[&str]) -> Outcome {
    let mut command = tool();
    command
        .args(["build", "--quiet", "--no-cache", "a.wat"])
        .args(["--backend", backend.name()])
        .args(option)
        .current_dir(work.path());
    Outcome::of(&mut command)
}

#[test]
fn features_are_built_for_every_architecture_or_refused() {
    let document = source("docs/tiers.md");
    let mut wrong = Vec::new();
    for (feature, row) in FEATURES.iter().zip(rows(&document)) {
        let work = Work::new();
        work.write("a.wat", format!("(module {})", feature.module));
        for backend in Backend::all() {
            for architecture in ARCHITECTURES {
                let outcome = build(&work, backend, &["--target", architecture]);
                let expected = i32::from(!support(&row, backend, architecture));
                if outcome.code() != expected {
                    let (name, stderr) = (feature.name, outcome.stderr);
                    wrong.push(format!("{name}, {backend:?}, {architecture}: {stderr}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `.ci/test-aarch64` also runs this with a runner for aarch64.
#[test]
fn built_features_work() {
    let document = source("docs/tiers.md");
    // Backends choose other instructions for this CPU than for the baseline.
    let levels: &[&[&str]] = if cfg!(target_arch = "x86_64") && builds_for_this_machine() {
        &[&["--cpu", "x86-64-v1"], &["--cpu", "native"]]
    } else {
        &[&[]]
    };
    for (feature, row) in FEATURES.iter().zip(rows(&document)) {
        let work = Work::new();
        work.write("a.wat", format!("(module {})", feature.module));
        let backends = Backend::all().into_iter();
        for backend in backends.filter(|backend| support(&row, *backend, std::env::consts::ARCH)) {
            for level in levels {
                build(&work, backend, level).success();
                let outcome = Outcome::of(tool().arg("run").arg(work.join("a.so")));
                let (name, stderr) = (feature.name, &outcome.stderr);
                assert_eq!(
                    outcome.code(),
                    0,
                    "{name}, {backend:?}, {level:?}: {stderr}"
                );
            }
        }
    }
}
