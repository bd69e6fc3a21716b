//! Wasm mode: limits, and guests that exceed them.

use std::io::{BufReader, Write as _};
use std::time::{Duration, Instant};

use faas_wasm_tests::http::{Request, Response, connect, reset};
use faas_wasm_tests::{Backend, Guest, Runner, RunnerCommand, Work};

/// Long enough to tell a stopped guest from one that ends by itself, and short enough to wait for.
const LIMIT: &str = "300ms";

#[track_caller]
fn is_stopped(runner: &Runner, request: &Request) {
    let start = Instant::now();
    let response = runner.send(request);
    assert_eq!(
        response.status,
        504,
        "{}\n{}",
        response.text(),
        runner.log()
    );
    assert!(response.complete);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(290), "{took:?}");
    // A loaded machine causes delays, but a guest that is not stopped runs forever.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn every_kind_of_guest_is_stopped_at_the_deadline() {
    for backend in Backend::all() {
        for (guest, arguments) in [
            ("spin", &[][..]),
            ("fill", &[]),
            ("copy", &[]),
            ("sleep", &["100000"]),
            ("descend-spin", &["10"]),
        ] {
            let guest = Guest::fixture_by(guest, backend);
            let runner = guest
                .serve_with(arguments)
                .env("exec_timeout", LIMIT)
                .start();
            for _ in 0..3 {
                is_stopped(&runner, &Request::get("/"));
            }
            runner.stop();
        }
    }
}

#[test]
fn a_guest_that_waits_for_input_is_stopped() {
    let guest = Guest::fixture("count");
    let runner = guest.serve().env("exec_timeout", LIMIT).start();
    let mut stream = connect(runner.address()).expect("it listens");
    // Enough input that the guest starts, and then nothing more.
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    )
    .and_then(|()| stream.write_all(&[b'x'; 200_000]))
    .expect("it can be written");
    let response = Response::read(&mut BufReader::new(stream), false).expect("it is answered");
    assert_eq!(response.status, 504, "{}", runner.log());
}

#[test]
fn a_guest_whose_output_is_not_read_is_stopped() {
    let guest = Guest::fixture("output");
    let mut runner = guest
        .serve_with(&["stdout", "1000000000"])
        .env("exec_timeout", LIMIT)
        .env("max_scale", "1")
        .start();
    let mut stream = connect(runner.address()).expect("it listens");
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("it can be written");
    runner.wait_for_log("time limit");
    drop(stream);
    assert_eq!(runner.get("/_/health").status, 200);
}

/// At each depth around the end of the stack, the guest is stopped or overflows its stack, and the runner survives.
#[test]
fn spinning_at_the_stacks_end_is_stopped() {
    for backend in Backend::all() {
        let guest = Guest::fixture_by("descend-spin", backend);
        // Find the depth at which the stack ends, because it depends on the backend's frames.
        let ends = |depth: u32| {
            let depth = depth.to_string();
            let command = guest.serve_with(&[&depth]).env("exec_timeout", "20ms");
            let runner = command.start();
            let status = runner.get("/").status;
            assert!([500, 504].contains(&status), "{depth}: {status}");
            assert_eq!(runner.get("/_/health").status, 200, "{depth}");
            status == 500
        };
        let (mut fits, mut overflows) = (0, 1 << 22);
        assert!(
            ends(overflows),
            "a stack of 1 MiB has no room for 4 Mi calls"
        );
        while overflows - fits > 1 {
            let middle = fits + (overflows - fits) / 2;
            if ends(middle) {
                overflows = middle
            } else {
                fits = middle
            }
        }
        for depth in fits.saturating_sub(8)..overflows + 8 {
            ends(depth);
        }
    }
}

#[test]
fn x_timeout_shortens_the_limit_and_never_lengthens_it() {
    let guest = Guest::fixture("spin");
    let runner = guest.serve().env("exec_timeout", "20s").start();
    is_stopped(&runner, &Request::get("/").header("X-Timeout", LIMIT));
    let runner = guest.serve().env("exec_timeout", LIMIT).start();
    for ignored in ["20s", "0s", "-1s", "junk", "5"] {
        is_stopped(&runner, &Request::get("/").header("X-Timeout", ignored));
    }
}

#[test]
fn a_deadline_after_the_head_cuts_the_stream() {
    let runner = Guest::fixture("output")
        .serve_with(&["stdout", "4000000", "spin"])
        .env("exec_timeout", LIMIT)
        .start();
    let response = runner.get("/");
    assert_eq!(response.status, 200);
    assert!(!response.complete, "a client must see that this is not all");
}

#[test]
fn good_requests_follow_bad_ones() {
    let guest = Guest::fixture("output");
    let runner = guest
        .serve_with(&["stdout", "10", "return"])
        .env("exec_timeout", "5s")
        .start();
    let spinning = Guest::fixture("spin");
    let other = spinning.serve().env("exec_timeout", "10ms").start();
    for _ in 0..50 {
        assert_eq!(other.get("/").status, 504);
    }
    assert_eq!(runner.get("/").text(), "aaaaaaaaaa");
    assert_eq!(other.get("/_/health").status, 200);
}

/// With one replica and one place in the queue, the third request is refused at once.
#[test]
fn a_full_queue_refuses() {
    let guest = Guest::fixture("sleep");
    let runner = guest
        .serve_with(&["1500"])
        .env("max_scale", "1")
        .env("wasm_queue_limit", "1")
        .start();
    let mut open = Vec::new();
    for count in [1.0, 2.0] {
        let mut stream = connect(runner.address()).expect("it listens");
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .expect("written");
        runner.wait_for_metric("http_requests_in_flight", count);
        open.push(stream);
    }
    let start = Instant::now();
    let refused = runner.get("/");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(start.elapsed() < Duration::from_secs(1), "at once");
    for stream in open {
        let response = Response::read(&mut BufReader::new(stream), false).expect("it is answered");
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "slept\n")
        );
    }
}

#[test]
fn a_timeout_while_waiting_for_a_replica_is_504() {
    let guest = Guest::fixture("sleep");
    let runner = guest
        .serve_with(&["5000"])
        .env("max_scale", "1")
        .env("exec_timeout", "400ms")
        .start();
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let send = || scope.spawn(|| runner.get("/").status);
        let sent: Vec<_> = (0..4).map(|_| send()).collect();
        sent.into_iter()
            .map(|one| one.join().expect("it is answered"))
            .collect()
    });
    assert_eq!(statuses, [504; 4]);
}

#[test]
fn max_inflight_applies_to_wasm_mode() {
    let guest = Guest::fixture("sleep");
    let runner = guest.serve_with(&["1500"]).env("max_inflight", "1").start();
    let mut stream = connect(runner.address()).expect("it listens");
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    runner.wait_for_metric("http_requests_in_flight", 1.0);
    let refused = runner.get("/");
    assert_eq!(refused.status, 429);
    assert!(
        refused.text().contains("Max concurrent requests: 1"),
        "{}",
        refused.text()
    );
    assert_eq!(runner.get("/_/ready").status, 429);
}

#[test]
fn memory_grows_to_its_limit_and_no_further() {
    for backend in Backend::all() {
        let guest = Guest::fixture_by("grow", backend);
        let runner = guest
            .serve_with(&["100"])
            .env("wasm_memory_limit", "64Mi")
            .start();
        for _ in 0..3 {
            let text = runner.get("/").text();
            let grown: u32 = text.trim_end_matches(" MiB\n").parse().expect("a number");
            assert!((60..64).contains(&grown), "{backend:?}: {text}");
        }
    }
}

#[test]
fn a_larger_initial_memory_is_refused_at_start() {
    let guest = Guest::fixture("fill");
    let outcome = guest.serve().env("wasm_memory_limit", "64Mi").run_to_end();
    assert_ne!(outcome.code(), 0);
    assert!(
        outcome.stderr.contains("wasm_memory_limit"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn output_is_limited() {
    let guest = Guest::fixture("output");
    let serve = |bytes: &str| {
        guest
            .serve_with(&["stdout", bytes])
            .env("wasm_output_limit", "10000")
            .start()
    };
    let response = serve("10000").get("/");
    assert_eq!((response.status, response.body.len()), (200, 10000));
    let response = serve("10001").get("/");
    assert_eq!(response.status, 500, "{}", response.text());
}

#[test]
fn a_missing_artifact_is_reported_by_name() {
    let guest = Guest::fixture("nop");
    std::fs::remove_file(guest.artifact()).expect("it is there");
    let module = guest.work().fixture("nop");
    let outcome = RunnerCommand::new(&module.display().to_string()).run_to_end();
    outcome.fails(1, &["nop.wasm", "hint: run `faas-wasm build ", "nop.wasm`"]);
}

/// A guest that writes these bytes `count` times in one call to its standard error, and makes `times` such calls.
fn complains(bytes: &str, count: usize, times: u32) -> Guest {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 20)
        (data (i32.const 0x1000) "{bytes}")
        (func (export "_start") (local $left i32)
          (local.set $left (i32.const {times}))
          (i32.store (i32.const 0) (i32.const 0x1000))
          (i32.store (i32.const 4) (i32.const {size}))
          ;; The bytes, one after the other, {count} times.
          (call $spread)
          (loop $again
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
            (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
        (func $spread (local $at i32)
          (loop $next
            (i32.store8 (i32.add (i32.const {then}) (local.get $at))
              (i32.load8_u (i32.add (i32.const 0x1000) (local.get $at))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const {size}))))))"#,
        size = bytes.replace("\\n", "\n").len() * count,
        then = 0x1000 + bytes.replace("\\n", "\n").len(),
    );
    Guest::compiled(
        &Work::new().write("complains.wat", text),
        Backend::Cranelift,
    )
}

/// A guest blocks on the log no longer than its deadline. The cases are short lines, a line that no pipe takes at
/// once, and the error for a line that is too long.
#[test]
fn an_unread_log_keeps_no_guest_beyond_its_deadline() {
    let long = format!("{}\\n", "y".repeat(10_000));
    for (bytes, count, limit) in [
        ("\\n", 1 << 20, "65536"),
        (long.as_str(), 100, "65536"),
        ("yyyyy\\n", 1 << 17, "4"),
    ] {
        let guest = complains(bytes, count, u32::MAX);
        let command = guest.serve().env("exec_timeout", LIMIT);
        let mut runner = command.env("log_buffer_size", limit).start();
        let unread = runner.leave_log_unread();
        is_answered(&runner, 504);
        drop(unread);
        // A line that was cut off must not merge with the next one.
        let line = runner.wait_for_log("stopped at its time limit");
        let end = line.lines().find(|line| line.contains("stopped at its"));
        assert!(end.is_some_and(|end| !end.contains('y')), "{end:?}");
        is_answered(&runner, 504);
    }
}

#[track_caller]
fn is_answered(runner: &Runner, status: u16) {
    // Does not print the log on failure, because the log may be unread.
    let response = Request::get("/").send(runner.address());
    assert_eq!(response.expect("it is answered").status, status);
}

/// A guest that blocks on the log ends when its client leaves.
#[test]
fn a_guest_that_waits_for_the_log_ends_with_its_client() {
    let guest = complains("\\n", 1 << 12, u32::MAX);
    let runner = guest.serve().env("exec_timeout", "0").start();
    let unread = runner.leave_log_unread();
    let stream = runner.begin("/", "");
    runner.wait_for_metric("wasm_instances_running", 1.0);
    reset(stream);
    runner.wait_for_metric("wasm_instances_running", 0.0);
    drop(unread);
}

/// A log reader that is only late gets every line.
#[test]
fn a_late_log_reader_misses_nothing() {
    let line = format!("{}\\n", "y".repeat(99));
    let guest = complains(&line, 10_000, 1);
    let runner = guest.serve().env("exec_timeout", "60s").start();
    let unread = runner.leave_log_unread();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| is_answered(&runner, 200));
        runner.wait_for_metric("wasm_instances_running", 1.0);
        drop(unread);
        answer.join().expect("it is answered");
    });
    let log = runner.stop();
    let suffix = format!(" stderr: {}", "y".repeat(99));
    let lines = log.lines().filter(|line| line.ends_with(&suffix));
    assert_eq!(lines.count(), 10_000);
}

/// The runner keeps a line until its end, which a guest may never write.
#[test]
fn an_endless_line_takes_bounded_memory() {
    let guest = complains("y", 1 << 20, 100);
    let command = guest.serve().env("log_buffer_size", "-1");
    let mut runner = command.start();
    is_answered(&runner, 200);
    runner.wait_for_log("Error reading stderr: bufio.Scanner: token too long");
}
