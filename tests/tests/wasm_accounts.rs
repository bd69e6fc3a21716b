//! Wasm mode: each limit has its own outcome, is counted under its name, and logs one line.

use faas_wasm_tests::http::{Request, answer, reset};
use faas_wasm_tests::{Guest, Runner};

fn series(limit: &str) -> String {
    format!("wasm_limit_reached_total{{limit=\"{limit}\"}}")
}

/// Asserts that a request reached a limit: the metric has counted it before the response can be read, and the log has
/// exactly one line about it.
#[track_caller]
fn has_met(runner: &mut Runner, limit: &str, line: &str) {
    assert_eq!(
        runner.metric(&series(limit)),
        Some(1.0),
        "{}",
        runner.metrics()
    );
    runner.wait_for_log(line);
    let log = runner.log();
    let count = log.lines().filter(|found| found.contains(line)).count();
    assert_eq!(count, 1, "{line}\n{log}");
}

/// A runner with these settings and the fixture `obey`, which does what the request's path says.
fn obey(settings: &[(&str, &str)]) -> Runner {
    let guest = Guest::fixture("obey");
    let command = guest.serve().env("exec_timeout", "20s");
    command.envs(settings).start()
}

/// An unread log blocks the functions that write to it, but no probe, and no line is lost.
#[test]
fn an_unread_log_delays_no_probe() {
    // Test replicas, and the I/O thread, which also serves the probes.
    for is_warm in [false, true] {
        let runner = Guest::fixture("nop").serve().start();
        if is_warm {
            runner.warm_up("/");
        }
        // The pipe holds 64 KiB, and the thread that reads it a little more.
        let target = format!("/{}", "x".repeat(1000));
        let unread = runner.leave_log_unread();
        let begun: Vec<_> = (0..200).map(|_| runner.begin(&target, "")).collect();
        for _ in 0..100 {
            let health = Request::get("/_/health").send(runner.address());
            assert_eq!(health.expect("it is answered").status, 200);
        }
        drop(unread);
        let answers = begun.into_iter().map(answer);
        assert!(answers.into_iter().all(|answer| answer.status == 200));
        let log = runner.stop();
        let lines = log.lines().filter(|line| line.contains(&target));
        assert_eq!(lines.count(), 200);
    }
}

/// With `log_format=json`, each line is an object. An access line has the request's fields.
#[test]
fn json_lines_tell_the_request() {
    let mut runner = obey(&[("log_format", "json")]);
    let request = Request::get("/exit/3?x=%22")
        .header("X-Call-Id", "call 7")
        .header(
            "Traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    assert_eq!(runner.send(&request).status, 500);
    runner.wait_for_log("\"method\"");
    let log = runner.stop();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    assert!(lines.iter().all(|line| {
        ["time", "level", "message"]
            .iter()
            .all(|field| line[*field].is_string())
    }));
    let of_requests: Vec<_> = lines
        .iter()
        .filter(|line| line["method"].is_string())
        .collect();
    let [access] = of_requests.as_slice() else {
        panic!("one line for one request: {log}");
    };
    for (field, value) in [
        ("method", serde_json::json!("GET")),
        ("path", serde_json::json!("/exit/3?x=%22")),
        ("status", serde_json::json!(500)),
        ("bytes", serde_json::json!(0)),
        ("call_id", serde_json::json!("call 7")),
        (
            "traceparent",
            serde_json::json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ),
    ] {
        assert_eq!(access[field], value, "{field}");
    }
    assert!(access["seconds"].is_f64());
    let failure = lines
        .iter()
        .find(|line| line["message"] == "exit status 3")
        .expect("it is told");
    assert_eq!(failure["level"], "error");
}

#[test]
fn the_time_limit() {
    let mut runner = obey(&[("exec_timeout", "100ms")]);
    assert_eq!(runner.get("/spin").status, 504);
    has_met(
        &mut runner,
        "exec_timeout",
        "stopped at its time limit of 100ms (exec_timeout)",
    );
    runner.wait_for_log("GET /spin - 504 - ContentLength: 0B");
}

#[test]
fn the_time_limit_of_a_request() {
    let mut runner = obey(&[]);
    let request = Request::get("/spin").header("X-Timeout", "100ms");
    assert_eq!(runner.send(&request).status, 504);
    has_met(
        &mut runner,
        "x_timeout",
        "stopped at its time limit of 100ms (X-Timeout)",
    );
    assert_eq!(runner.metric(&series("exec_timeout")), Some(0.0));
}

#[test]
fn cpu_time_limit_is_counted() {
    let mut runner = obey(&[("wasm_cpu_timeout", "50ms")]);
    // A waiting guest uses no CPU time.
    assert_eq!(runner.get("/sleep/300").status, 200);
    assert_eq!(runner.metric(&series("cpu_timeout")), Some(0.0));
    assert_eq!(runner.get("/spin").status, 504);
    has_met(
        &mut runner,
        "cpu_timeout",
        "stopped at its CPU time limit of 50ms (wasm_cpu_timeout)",
    );
}

#[test]
fn a_limit_in_mid_stream_cuts_it() {
    let runner = obey(&[("exec_timeout", "300ms")]);
    let response = runner.get("/print-spin/200000");
    assert_eq!(response.status, 200);
    assert!(!response.complete, "a client must see that this is not all");
    runner.wait_for_metric(&series("exec_timeout"), 1.0);
}

/// The waiting request ends while the other one still runs, and its place in the queue becomes free.
#[test]
fn the_wait_for_a_replica() {
    let mut runner = obey(&[("max_scale", "1"), ("wasm_queue_limit", "1")]);
    let running = runner.begin("/sleep/3000", "");
    runner.wait_for_metric("wasm_instances_running", 1.0);
    let request = Request::get("/ok").header("X-Timeout", "100ms");
    for count in 1..=2 {
        let response = runner.send(&request);
        assert_eq!(response.status, 504, "{}", response.text());
        assert!(response.header("X-Duration-Seconds").is_some());
        assert_eq!(
            runner.metric(&series("queue_wait")),
            Some(f64::from(count)),
            "{}",
            runner.metrics()
        );
        assert_eq!(runner.metric("wasm_queue_length"), Some(0.0));
        assert_eq!(runner.metric("http_requests_in_flight"), Some(1.0));
        assert_eq!(runner.metric("wasm_instances_running"), Some(1.0));
    }
    runner.wait_for_log("no replica was free within its time limit of 100ms");
    runner.wait_for_log("GET /ok - 504 - ContentLength: 0B");
    assert_eq!(answer(running).status, 200);
}

#[test]
fn a_full_queue() {
    let mut runner = obey(&[("max_scale", "1"), ("wasm_queue_limit", "1")]);
    let running = runner.begin("/sleep/1500", "");
    runner.wait_for_metric("wasm_instances_running", 1.0);
    let waiting = runner.begin("/ok", "");
    runner.wait_for_metric("wasm_queue_length", 1.0);
    assert_eq!(runner.get("/ok").status, 429);
    has_met(
        &mut runner,
        "queue_limit",
        "1 requests wait for a replica already (wasm_queue_limit)",
    );
    assert_eq!([answer(running).status, answer(waiting).status], [200; 2]);
}

/// A client that leaves the queue frees its place at once.
#[test]
fn a_client_that_leaves_the_queue() {
    let runner = obey(&[("max_scale", "1"), ("wasm_queue_limit", "1")]);
    let running = runner.begin("/sleep/3000", "");
    runner.wait_for_metric("wasm_instances_running", 1.0);
    let leaving = runner.begin("/ok", "");
    runner.wait_for_metric("wasm_queue_length", 1.0);
    reset(leaving);
    runner.wait_for_metric("wasm_queue_length", 0.0);
    runner.wait_for_metric("http_requests_in_flight", 1.0);
    let waiting = runner.begin("/ok", "");
    runner.wait_for_metric("wasm_queue_length", 1.0);
    assert_eq!([answer(running).status, answer(waiting).status], [200; 2]);
}

#[test]
fn requests_in_flight() {
    let mut runner = obey(&[("max_inflight", "1")]);
    let running = runner.begin("/sleep/1000", "");
    runner.wait_for_metric("http_requests_in_flight", 1.0);
    assert_eq!(runner.get("/ok").status, 429);
    has_met(
        &mut runner,
        "max_inflight",
        "as many requests as allowed are in flight (max_inflight)",
    );
    assert_eq!(answer(running).status, 200);
}

/// Limits that fail a call of the guest but do not end its request.
#[test]
fn limits_that_do_not_end_a_run() {
    for (setting, value, target, label, line) in [
        (
            "wasm_memory_limit",
            "16Mi",
            "/grow/100",
            "memory_limit",
            "memory.grow refused: the limit is 16777216 bytes",
        ),
        (
            "wasm_fd_limit",
            "10",
            "/open/100",
            "fd_limit",
            "descriptor refused: the limit is 10",
        ),
        (
            "wasm_fs_quota",
            "64Ki",
            "/write/100",
            "fs_quota",
            "change of files refused: the limit is 65536 bytes",
        ),
    ] {
        let mut runner = obey(&[(setting, value)]);
        // Below the limit, nothing is counted or logged.
        let below = target.replace("100", "3");
        assert_eq!(runner.get(&below).text(), "done\n");
        assert_eq!(runner.metric(&series(label)), Some(0.0), "{label}");
        assert_eq!(runner.get(target).text(), "done\n");
        has_met(&mut runner, label, line);
    }
}

#[test]
fn the_limit_of_tables() {
    let guest = Guest::fixture("grow-table");
    let mut runner = guest.serve().env("wasm_table_limit", "100").start();
    assert_eq!(runner.get("/").status, 200, "{}", runner.log());
    has_met(
        &mut runner,
        "table_limit",
        "table.grow refused: the limit is 100 elements (wasm_table_limit)",
    );
}

#[test]
fn the_limit_of_the_stack() {
    let mut runner = obey(&[("wasm_stack_size", "128Ki")]);
    assert_eq!(runner.get("/stack").status, 500);
    has_met(
        &mut runner,
        "stack_size",
        "call stack exhausted: the limit is 131072 bytes (wasm_stack_size)",
    );
    // No other trap counts as a reached limit.
    assert_eq!(runner.get("/trap").status, 500);
    assert_eq!(runner.metric(&series("stack_size")), Some(1.0));
}

#[test]
fn the_limit_of_output() {
    let mut runner = obey(&[("wasm_output_limit", "1000")]);
    assert_eq!(runner.get("/print/1000").status, 200);
    assert_eq!(runner.get("/print/1001").status, 500);
    has_met(
        &mut runner,
        "output_limit",
        "its output is longer than 1000 bytes (wasm_output_limit)",
    );
    // The output exceeds what the runner buffers, so the response is already under way and must be cut off.
    let mut runner = obey(&[("wasm_output_limit", "3000000")]);
    let response = runner.get("/print/3000001");
    assert_eq!((response.status, response.complete), (200, false));
    runner.wait_for_metric(&series("output_limit"), 1.0);
    runner.wait_for_log("its output is longer than 3000000 bytes");
}

/// A request that waits for the only replica gets it after the deadline of the other request. The benchmark `release`
/// measures the delay.
#[test]
fn a_replica_is_free_after_a_deadline() {
    let runner = obey(&[("max_scale", "1")]);
    let spinning = runner.begin("/spin", "X-Timeout: 300ms\r\n");
    runner.wait_for_metric("wasm_instances_running", 1.0);
    let waiting = runner.begin("/ok", "");
    assert_eq!(answer(spinning).status, 504);
    let response = answer(waiting);
    assert_eq!((response.status, response.text().as_str()), (200, "done\n"));
}
