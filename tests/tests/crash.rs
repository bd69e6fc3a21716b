//! Builds that end abnormally: a crash of the code generator is an ordinary error, and leaves nothing behind.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Output, Stdio};

use faas_wasm_tests::{Backend, Work, esbuild, skip, tool};

/// Starts a build that takes minutes unless it is ended. Returns it, and the process ID of its code generator.
fn long_build(work: &Work, test: &str) -> Option<(Child, String)> {
    if !Backend::llvm_or_skip(test) {
        return None;
    }
    let Some(module) = esbuild() else {
        skip(test, "esbuild's module could not be had");
        return None;
    };
    let tool = tool()
        .args(["build", "--backend", "llvm", "-q", "-o"])
        .arg(work.join("esbuild.so"))
        .arg(module)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool can be started");
    let pid = tool.id();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let child = loop {
        let children = fs::read_to_string(&children).expect("the tool runs");
        if let Some(child) = children.split_whitespace().next() {
            break child.to_owned();
        }
        std::thread::yield_now();
    };
    Some((tool, child))
}

fn kill(signal: &str, pid: &str) {
    let status = Command::new("kill").args([signal, pid]).status();
    assert!(status.expect("kill is there").success());
}

fn ended(tool: Child) -> Output {
    tool.wait_with_output().expect("it can be waited for")
}

#[track_caller]
fn assert_empty(work: &Work) {
    let entries = fs::read_dir(work.path()).expect("it is there");
    let names: Vec<_> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_crash_of_the_code_generator_is_an_error() {
    let work = Work::new();
    let test = "a_crash_of_the_code_generator_is_an_error";
    for (signal, hint) in [("ABRT", "--backend cranelift"), ("KILL", "--jobs 1")] {
        let Some((tool, child)) = long_build(&work, test) else {
            return;
        };
        kill(&format!("-{signal}"), &child);
        let output = ended(tool);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{text}");
        let first = format!("error: the code generator crashed (SIG{signal})\n");
        assert!(text.starts_with(&first), "{text}");
        assert!(text.contains(hint), "{text}");
        assert_empty(&work);
    }
}

#[test]
fn a_signal_ends_the_tool_and_its_code_generator() {
    let work = Work::new();
    let Some((tool, child)) = long_build(&work, "a_signal_ends_the_tool_and_its_code_generator")
    else {
        return;
    };
    kill("-TERM", &tool.id().to_string());
    let output = ended(tool);
    assert_eq!(output.status.signal(), Some(15), "{output:?}");
    // The tool has reaped its child.
    assert!(!std::path::Path::new(&format!("/proc/{child}")).exists());
    assert_empty(&work);
}
