//! Wasm mode: requests and responses.

use std::io::{BufReader, Read as _, Write as _};

use faas_wasm_tests::http::{Request, Response, answer, connect, write_chunk};
use faas_wasm_tests::{Backend, Guest, Work};

/// More than all buffers between the client and the guest hold.
const LARGE: usize = 20 << 20;

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| ((index * 31) >> 3) as u8).collect()
}

#[test]
fn a_short_response_has_a_content_length() {
    for backend in Backend::all() {
        let guest = Guest::fixture_by("hello", backend);
        let runner = guest.serve().start();
        let response = runner.get("/");
        assert_eq!(response.status, 200);
        assert_eq!(response.text(), "hello, world\n");
        assert_eq!(response.header("Content-Length"), Some("13"));
        assert_eq!(
            response.header("Content-Type"),
            Some("application/octet-stream")
        );
        assert!(response.complete);
        runner.stop();
    }
}

#[test]
fn an_empty_response_is_200() {
    let runner = Guest::fixture("nop").serve().start();
    let response = runner.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    assert_eq!(response.header("Content-Length"), Some("0"));
}

#[test]
fn the_mode_is_chosen_by_the_file() {
    let guest = Guest::fixture("hello");
    // First without the extension, and then with the module's name.
    let artifact = guest.artifact().display().to_string();
    let stem = artifact.strip_suffix(".so").expect("it has it");
    for command in [stem.to_owned(), format!("{stem}.wasm"), artifact.clone()] {
        let runner = faas_wasm_tests::RunnerCommand::new(&command).start();
        assert_eq!(runner.get("/").text(), "hello, world\n", "{command}");
        assert!(
            runner.log().contains("Watchdog mode: wasm"),
            "{}",
            runner.log()
        );
    }
}

#[test]
fn content_type_is_configurable() {
    let guest = Guest::fixture("hello");
    let runner = guest.serve().env("content_type", "text/plain").start();
    assert_eq!(runner.get("/").header("Content-Type"), Some("text/plain"));
}

#[test]
fn head_runs_the_guest_and_sends_no_body() {
    let runner = Guest::fixture("hello").serve().start();
    let response = runner.send(&Request::new("HEAD", "/"));
    assert_eq!((response.status, response.body.len()), (200, 0));
}

/// A guest whose client does not read the output still runs to its end.
#[test]
fn guests_keep_running_when_no_body_is_sent() {
    let mut runner = Guest::fixture("obey")
        .serve()
        .env("wasm_output_hold_bytes", "1")
        .start();
    let response = runner.send(&Request::new("HEAD", "/print/50000000"));
    assert_eq!((response.status, response.body.len()), (200, 0));
    runner.wait_for_log("HEAD /print/50000000 - 200 - ContentLength: 50MB");

    let work = Work::new();
    let module = work.write("no-content.wat", NO_CONTENT);
    let mut runner = Guest::compiled(&module, Backend::Cranelift)
        .serve()
        .env("wasm_output_hold_bytes", "1")
        .env("wasm_response", "cgi")
        .start();
    let response = runner.get("/");
    assert_eq!((response.status, response.body.len()), (204, 0));
    runner.wait_for_log("GET / - 204 - ContentLength: ");
    assert_eq!(
        runner.metric("wasm_instances_ended_total{cause=\"returned\"}"),
        Some(1.0),
        "{}",
        runner.metrics()
    );
}

/// Sets status 204 and keeps writing.
const NO_CONTENT: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 3)
  (data (i32.const 0) "\10\00\00\00\0d\00\00\00\00\00\01\00\00\00\01\00")
  (data (i32.const 16) "Status: 204\n\n")
  (func (export "_start") (local $left i32)
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))
    (local.set $left (i32.const 1000))
    (loop $more
      (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 32)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left)))))"#;

/// Malformed chunks are the client's error, both before the guest starts and after.
#[test]
fn malformed_chunks_are_refused() {
    let runner = Guest::fixture("obey").serve().start();
    for first in [0, 1000, 200_000] {
        let mut stream = runner.begin("/read", "Transfer-Encoding: chunked\r\n");
        write_chunk(&mut stream, &pattern(first)).expect("it can be written");
        if first > 65536 {
            runner.wait_for_metric("wasm_instances_started_total", 1.0);
        }
        stream.write_all(b"zz\r\n").expect("it can be written");
        let response = answer(stream);
        assert_eq!(response.status, 400, "{first}: {}", runner.log());
    }
}

#[test]
fn any_method_and_path_reaches_the_guest() {
    let runner = Guest::fixture("hello").serve().start();
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FROB"] {
        let response = runner.send(&Request::new(method, "/any/path?x=1"));
        assert_eq!(response.text(), "hello, world\n", "{method}");
    }
}

#[test]
fn bodies_are_echoed_completely() {
    for backend in Backend::all() {
        let runner = Guest::fixture_by("echo", backend).serve().start();
        for size in [0, 1, 65535, 65536, 65537, 1 << 20, LARGE] {
            let body = pattern(size);
            let response = runner.post("/", body.clone());
            assert_eq!(response.status, 200, "{size}");
            assert!(response.complete, "{size}");
            assert!(
                response.body == body,
                "{size}: {} came back",
                response.body.len()
            );
        }
    }
}

#[test]
fn chunked_bodies_are_echoed_completely() {
    let runner = Guest::fixture("echo").serve().start();
    let body = pattern(3 << 20);
    for size in [1 << 16, 1000, 1 << 20] {
        let chunks = body.chunks(size).map(<[u8]>::to_vec).collect();
        let response = runner.send(&Request::post_chunks("/", chunks));
        assert!(
            response.complete && response.body == body,
            "chunks of {size}"
        );
    }
}

#[test]
fn many_requests_on_one_connection() {
    let runner = Guest::fixture("echo").serve().start();
    let mut stream = connect(runner.address()).expect("it listens");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
    // These sizes span the range in which reading the body while writing the response is known to go wrong.
    for size in (0..40).map(|index| index * 7919) {
        let body = pattern(size);
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        )
        .and_then(|()| stream.write_all(&body))
        .expect("the connection stays open");
        let response = Response::read(&mut reader, false).expect("there is an answer");
        assert_eq!(response.status, 200, "{size}");
        assert!(
            response.body == body,
            "{size}: {} came back",
            response.body.len()
        );
    }
}

#[test]
fn input_and_output_flow_at_the_same_time() {
    let guest = Guest::fixture("echo");
    let runner = guest
        .serve()
        .env("wasm_output_hold_time", "1ms")
        .env("read_timeout", "50s")
        .start();
    let mut stream = connect(runner.address()).expect("it listens");
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .expect("it can be written");
    // More than a replica waits for before it starts the guest.
    let first = pattern(200_000);
    write_chunk(&mut stream, &first).expect("it can be written");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
    let head = Response::read_head(&mut reader).expect("the answer begins before the body ends");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Transfer-Encoding"), Some("chunked"));
    stream.write_all(b"0\r\n\r\n").expect("it can be written");
    let mut rest = Vec::new();
    let mut raw = String::new();
    while std::io::BufRead::read_line(&mut reader, &mut raw).expect("it can be read") > 2 {
        let size = usize::from_str_radix(raw.trim(), 16).expect("a chunk's size");
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).expect("a whole chunk");
        rest.extend_from_slice(&chunk[..size]);
        raw.clear();
        if size == 0 {
            break;
        }
    }
    assert!(rest == first, "{} bytes", rest.len());
}

#[test]
fn unread_input_is_no_failure() {
    let runner = Guest::fixture("hello").serve().start();
    for size in [100, 100_000, LARGE] {
        let response = runner.post("/", pattern(size));
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "hello, world\n"),
            "{size}"
        );
    }
    assert_eq!(runner.get("/").status, 200, "it serves on");
}

#[test]
fn a_truncated_body_does_not_hang_the_guest() {
    let guest = Guest::fixture("count");
    let runner = guest.serve().env("max_scale", "1").start();
    let mut stream = connect(runner.address()).expect("it listens");
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    )
    .and_then(|()| stream.write_all(&pattern(300_000)))
    .expect("it can be written");
    drop(stream);
    // The only replica must be free again.
    let response = runner.post("/", b"abc".to_vec());
    assert!(response.text().starts_with("3 "), "{}", response.text());
}

#[test]
fn exit_code_0_is_success() {
    let runner = Guest::fixture("exit").serve_with(&["0"]).start();
    let response = runner.get("/");
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "before the end\n")
    );
}

#[test]
fn failures_are_500_without_details() {
    let kinds = [
        "unreachable",
        "divide",
        "overflow",
        "bounds",
        "indirect",
        "stack",
    ];
    let mut bodies = Vec::new();
    for backend in Backend::all() {
        let guest = Guest::fixture_by("trap", backend);
        for kind in kinds {
            // The guest's first output is held back until it traps, however long that takes.
            let mut runner = guest
                .serve_with(&[kind])
                .env("wasm_output_hold_time", "60s")
                .start();
            for _ in 0..3 {
                let response = runner.get("/");
                assert_eq!(response.status, 500, "{backend:?}, {kind}");
                assert!(response.complete);
                assert!(response.header("Content-Length").is_some());
                bodies.push(response.text());
            }
            runner.wait_for_log("trap");
        }
    }
    let runner = Guest::fixture("exit").serve_with(&["3"]).start();
    bodies.push(runner.get("/").text());
    // All failures share one text, which reveals neither details of the guest nor its output.
    let first = &bodies[0];
    assert!(!first.is_empty() && first.len() < 100, "{first}");
    for body in &bodies {
        assert_eq!(body, first);
    }
    assert!(!first.contains("before the"), "{first}");
}

#[test]
fn the_log_gives_the_cause() {
    let mut runner = Guest::fixture("exit").serve_with(&["3"]).start();
    runner.get("/");
    let line = runner.wait_for_log("exit");
    assert!(line.contains('3'), "{line}");
    let mut runner = Guest::fixture("trap").serve_with(&["divide"]).start();
    runner.get("/");
    runner.wait_for_log("integer divide by zero");
}

#[test]
fn traps_are_reported_with_the_guests_functions() {
    let mut runner = Guest::fixture("trap").serve_with(&["unreachable"]).start();
    runner.get("/");
    runner.wait_for_log("unreachable");
    runner.get("/");
    let log = runner.stop();
    assert!(log.contains("_start"), "{log}");
}

#[test]
fn a_failure_after_the_head_cuts_the_stream() {
    let guest = Guest::fixture("output");
    for end in [&["trap"][..], &["exit", "7"]] {
        // More than the runner buffers for a slow reader, so that the head is sent before the end.
        let runner = guest
            .serve_with(&[&["stdout", "4000000"], end].concat())
            .start();
        let response = runner.get("/");
        assert_eq!(response.status, 200, "{end:?}");
        assert!(
            !response.complete,
            "{end:?}: a client must see that this is not all"
        );
        assert!(response.body.len() <= 4_000_000, "{end:?}");
        assert_eq!(runner.get("/").status, 200, "it serves on");
    }
    let runner = guest.serve_with(&["stdout", "4000000"]).start();
    let response = runner.get("/");
    assert!(response.complete && response.body.len() == 4_000_000);
}

#[test]
fn a_failure_before_output_is_sent_is_a_clean_500() {
    let guest = Guest::fixture("output");
    for end in [&["trap"][..], &["exit", "7"]] {
        let runner = guest
            .serve_with(&[&["stdout", "60000"], end].concat())
            // Rules out the time limit, because this test is about the limit in bytes.
            .env("wasm_output_hold_time", "20s")
            .start();
        let response = runner.get("/");
        assert_eq!((response.status, response.complete), (500, true), "{end:?}");
        assert!(response.body.len() < 100, "{end:?}: {}", response.text());
    }
}

#[test]
fn output_goes_out_after_the_hold_time() {
    // The guest writes a line and then spins: the line arrives long before the end.
    let runner = Guest::fixture("output")
        .serve_with(&["stdout", "64", "spin"])
        .env("exec_timeout", "5s")
        .start();
    let mut stream = connect(runner.address()).expect("it listens");
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("it can be written");
    let mut reader = BufReader::new(stream);
    let head = Response::read_head(&mut reader).expect("there is a head");
    assert_eq!(head.status, 200);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).expect("there is a chunk");
    assert_eq!(line, "40\r\n");
    let mut rest = Vec::new();
    // The deadline cuts the response off; how the rest arrives does not matter.
    let _ = reader.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the stream must look cut");
}

#[test]
fn stderr_is_logged_line_by_line() {
    let mut runner = Guest::fixture("output")
        .serve_with(&["stderr", "192"])
        .start();
    let response = runner.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    runner.wait_for_log("stderr: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    runner.wait_for_log("stderr: cccccccccccccccccccccccccccccccc");
}

#[test]
fn much_stderr_output_blocks_nothing() {
    let runner = Guest::fixture("output")
        .serve_with(&["stderr", "4000000"])
        .start();
    assert_eq!(runner.get("/").status, 200);
}

#[test]
fn requests_are_logged_and_measured() {
    let mut runner = Guest::fixture("hello").serve().start();
    runner.get("/some/path?q=1");
    let line = runner.wait_for_log("GET /some/path?q=1 - 200");
    assert!(line.contains("ContentLength: 13B"), "{line}");
    runner.wait_for_metric(r#"http_requests_total{code="200",method="get"}"#, 1.0);
    runner.wait_for_metric("http_requests_in_flight", 0.0);
}

#[test]
fn ready_asks_the_guest() {
    let guest = Guest::fixture("env");
    let runner = guest.serve().env("ready_path", "/are/you").start();
    let response = runner.get("/_/ready");
    assert_eq!(response.status, 200);
    assert!(
        response.text().contains("Http_Path=/are/you\n"),
        "{}",
        response.text()
    );
}

#[test]
fn termination_waits_for_requests() {
    let runner = Guest::fixture("sleep").serve_with(&["1000"]).start();
    let mut stream = connect(runner.address()).expect("it listens");
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .expect("written");
    runner.wait_for_metric("http_requests_in_flight", 1.0);
    let log = std::thread::scope(|scope| {
        let stopped = scope.spawn(|| runner.stop());
        let response = Response::read(&mut BufReader::new(stream), false);
        let response = response.expect("it is answered");
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "slept\n")
        );
        stopped.join().expect("it stops")
    });
    assert!(log.contains("draining: 1 requests"), "{log}");
}
