//! The two programs as files on disk.

use std::fs;
use std::process::Command;

use faas_wasm_tests::{Outcome, runner_program, tool_program};

/// Maximum size of the runner in bytes, because it is part of every function's image. CUDA takes a fifth: 220 calls,
/// whose arguments are checked one by one.
const RUNNER_LIMIT: u64 = 5_000_000;

#[test]
fn runner_is_stripped_and_small() {
    let program = runner_program();
    let size = fs::metadata(&program).expect("it is there").len();
    assert!(
        size <= RUNNER_LIMIT,
        "{size} bytes, more than {RUNNER_LIMIT}"
    );
    let sections = Command::new("readelf")
        .args(["-S", "-W"])
        .arg(&program)
        .output();
    let sections = Outcome::from(sections.expect("readelf is there")).success();
    for section in [".symtab", ".debug_info"] {
        assert!(!sections.contains(section), "{section}");
    }
}

#[test]
fn runner_links_only_the_c_library() {
    let program = runner_program();
    let dynamic = Command::new("readelf")
        .args(["-d", "-W"])
        .arg(&program)
        .output();
    let dynamic = Outcome::from(dynamic.expect("readelf is there")).success();
    let needed: Vec<_> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    for library in &needed {
        assert!(
            [
                "libc.so.6",
                "libm.so.6",
                "libgcc_s.so.1",
                "ld-linux-x86-64.so.2"
            ]
            .contains(library),
            "{needed:?}: an image for functions has no {library}"
        );
    }
}

#[test]
fn runner_contains_no_code_generator() {
    let runner = fs::read(runner_program()).expect("it can be read");
    let tool = fs::read(tool_program()).expect("it can be read");
    let has =
        |program: &[u8], name: &str| program.windows(name.len()).any(|w| w == name.as_bytes());
    // Panic messages contain paths of source files, so search for the crates' paths.
    for name in ["cranelift-codegen-", "wasmer-compiler-"] {
        assert!(has(&tool, name), "{name} is not how one sees it");
        assert!(!has(&runner, name), "{name}");
    }
}
