//! Error numbers of WASI calls, compared with the output of the same guest under wasmtime.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use faas_wasm_tests::{Backend, Guest, Outcome, Work, tool, wasi_errno_guest};

/// Cases that differ deliberately; `runner/wasi/COMPATIBILITY.md` gives the reasons.
const DELIBERATE: [&str; 3] = [
    "open symlink to /file",
    "open symlink to ../file",
    "link follow",
];

#[test]
fn error_numbers_match_wasmtime() {
    let (source, recorded) = wasi_errno_guest();
    let work = Work::new();
    let module = work.join("errno.wasm");
    let compiled = Command::new("clang-22")
        .args(["--target=wasm32", "-O1", "-nostdlib"])
        .arg("-Wl,--export-memory,-zstack-size=65536")
        .arg(source)
        .arg("-o")
        .arg(&module)
        .status()
        .expect("clang-22 is there: `make setup` installs it");
    assert!(compiled.success());
    let guest = Guest::compiled(&module, Backend::Cranelift);

    let root = Work::new();
    root.write("file", "12345");
    fs::create_dir(root.join("dir")).expect("a directory");
    fs::create_dir(root.join("empty")).expect("a directory");
    root.write("dir/inner", "");
    let links = [
        ("file", "link"),
        ("missing", "dangling"),
        ("loop", "loop"),
        ("/file", "absolute"),
        ("../file", "up"),
    ];
    for (target, name) in links {
        symlink(target, root.join(name)).expect("a link");
    }
    let directory = format!("{}::/:cow", root.path().display());
    let printed = Outcome::of(
        tool()
            .args(["run", "--dir", &directory])
            .arg(guest.artifact()),
    )
    .success();
    let recorded = fs::read_to_string(recorded).expect("the recording is there");
    assert_eq!(
        printed.lines().count(),
        recorded.lines().count(),
        "{printed}"
    );
    for (ours, theirs) in printed.lines().zip(recorded.lines()) {
        let case = ours.rsplit_once(' ').map_or(ours, |(case, _)| case);
        assert!(theirs.starts_with(case), "{ours:?} against {theirs:?}");
        let differs = ours != theirs;
        assert_eq!(
            differs,
            DELIBERATE.contains(&case),
            "{ours:?} against {theirs:?}"
        );
    }
}
