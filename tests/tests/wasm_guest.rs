//! Wasm mode: what a guest sees of its request and of the host.

use std::fs;

use faas_wasm_tests::http::Request;
use faas_wasm_tests::{Backend, Guest, Work};

#[test]
fn the_environment_is_the_request_and_nothing_else() {
    let guest = Guest::fixture("env");
    let runner = guest
        .serve_with(&["two", "", "words"])
        .env("SECRET", "of the host")
        .start();
    let request = Request::post("/a%20b/c?x=1&y=2", "body")
        .header("X-Call-Id", "42")
        .header("foo_bar", "under")
        .header("X-a.b", "dot")
        .header("Proxy", "http://evil")
        .header("X-Twice", "first")
        .header("X-Twice", "second");
    let text = runner.send(&request).text();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let argv0 = format!("argument {}", guest.artifact().display());
    let mut expected = [
        argv0.as_str(),
        "argument ",
        "argument two",
        "argument words",
        "Http_Connection=close",
        "Http_Content_Length=4",
        "Http_Foo_bar=under",
        "Http_Method=POST",
        "Http_Path=/a b/c",
        "Http_Proxy=http://evil",
        "Http_Query=x=1&y=2",
        "Http_X_A.b=dot",
        "Http_X_Call_Id=42",
        "Http_X_Twice=first",
        "PWD=/",
        "FAAS_RESPONSE=/dev/faas/response",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn chunked_requests_have_no_content_length_variable() {
    let runner = Guest::fixture("env").serve().start();
    let text = runner
        .send(&Request::post_chunks("/", vec![b"x".to_vec()]))
        .text();
    assert!(text.contains("Http_Transfer_Encoding=chunked\n"), "{text}");
    assert!(!text.contains("Http_Content_Length"), "{text}");
    let text = runner.get("/").text();
    assert!(
        !text.contains("Http_Query"),
        "absent without a query: {text}"
    );
}

#[test]
fn named_variables_are_passed_on() {
    let guest = Guest::fixture("env");
    let runner = guest
        .serve()
        .env("SECRET", "hidden")
        .env("REGION", "north")
        .env("wasm_env", "REGION,NOT_SET")
        .start();
    let text = runner.get("/").text();
    assert!(text.contains("REGION=north\n"), "{text}");
    assert!(
        !text.contains("SECRET") && !text.contains("NOT_SET"),
        "{text}"
    );
}

#[test]
fn files_of_the_root_can_be_read() {
    let root = Work::new();
    root.write("page.txt", "from the host\n");
    let guest = Guest::fixture("cat");
    let runner = guest
        .serve_with(&["/page.txt", "page.txt"])
        .env("wasm_root", root.path())
        .start();
    assert_eq!(runner.get("/").text(), "from the host\nfrom the host\n");
    let mut runner = guest
        .serve_with(&["/../../etc/passwd"])
        .env("wasm_root", root.path())
        .start();
    assert_eq!(runner.get("/").status, 500, "the root is not left");
    runner.wait_for_log("stderr: cat: /../../etc/passwd: ");
}

#[test]
fn files_of_a_guest_stay_private() {
    for backend in Backend::all() {
        let root = Work::new();
        let guest = Guest::fixture_by("store", backend);
        let runner = guest
            .serve_with(&["/note.txt", "remember"])
            .env("wasm_root", root.path())
            .start();
        for _ in 0..5 {
            assert_eq!(
                runner.get("/").text(),
                "new\nremember\n",
                "each request starts afresh"
            );
        }
        let entries = fs::read_dir(root.path()).expect("it is there").count();
        assert_eq!(entries, 0, "the host's directory is as it was");
    }
}

#[test]
fn a_read_only_root_refuses_changes() {
    let root = Work::new();
    let guest = Guest::fixture("store");
    let mut runner = guest
        .serve_with(&["/note.txt", "remember"])
        .env("wasm_root", root.path())
        .env("wasm_root_readonly", "true")
        .start();
    assert_eq!(runner.get("/").status, 500);
    runner.wait_for_log("exit");
}

#[test]
fn mounts_have_their_own_access() {
    let (root, data) = (Work::new(), Work::new());
    let guest = Guest::fixture("store");
    let mount = |access: &str| format!("/data={}{access}", data.path().display());
    let serve = |access: &str| {
        guest
            .serve_with(&["/data/note.txt", "kept"])
            .env("wasm_root", root.path())
            .env("wasm_mounts", mount(access))
            .start()
    };
    let note = data.join("note.txt");
    assert_eq!(
        serve("").get("/").status,
        500,
        "read-only unless said otherwise"
    );
    assert_eq!(serve(":cow").get("/").text(), "new\nkept\n");
    assert!(!note.exists());
    let runner = serve(":rw");
    assert_eq!(runner.get("/").text(), "new\nkept\n");
    assert_eq!(runner.get("/").text(), "there already\nkept\n");
    assert_eq!(fs::read_to_string(note).expect("it is there"), "kept");
}

#[test]
fn webassembly_features_beyond_c_work() {
    for backend in Backend::all() {
        let runner = Guest::fixture_by("start-function", backend).serve().start();
        assert_eq!(runner.get("/").text(), "\nok\n", "{backend:?}");
        let runner = Guest::fixture_by("unstable", backend).serve().start();
        assert_eq!(runner.get("/").text(), "unstable\n", "{backend:?}");
        // It exits with 42 on success, and traps on failure.
        let mut runner = Guest::fixture_by("features", backend).serve().start();
        assert_eq!(runner.get("/").status, 500, "{backend:?}");
        let line = runner.wait_for_log("exit");
        assert!(line.contains("42"), "{backend:?}: {line}");
    }
}

#[test]
fn guests_can_sleep() {
    let runner = Guest::fixture("sleep").serve_with(&["300"]).start();
    let start = std::time::Instant::now();
    assert_eq!(runner.get("/").text(), "slept\n");
    assert!(start.elapsed().as_millis() >= 300);
}

/// Host calls use addresses in the memory that is exported as `memory`, even if it is not the first memory.
#[test]
fn calls_work_on_the_exported_memory() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
        (memory $other 1)
        (memory $m (export "memory") 1)
        (data (memory $m) (i32.const 0) "\08\00\00\00\03\00\00\00hi\n")
        (func (export "_start")
          (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))))"#;
    for backend in Backend::all() {
        let guest = Guest::compiled(&Work::new().write("two.wat", text), backend);
        let runner = guest.serve().start();
        // Often enough for the runner to guard the first memory.
        for _ in 0..50 {
            assert_eq!(runner.get("/").text(), "hi\n", "{backend:?}");
        }
    }
}
