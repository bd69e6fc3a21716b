//! Wasm mode: a client that closes its sending side after a complete request gets a response. If the connection was
//! reset, or was closed within a request, the run ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use faas_wasm_tests::http::{Request, Response, answer, connect, reset};
use faas_wasm_tests::{Backend, Guest, Runner, Work};
use rustix::process::Signal;

const CANCELED: &str = "wasm_instances_ended_total{cause=\"canceled\"}";
const RETURNED: &str = "wasm_instances_ended_total{cause=\"returned\"}";
const INPUT: &str = "wasm_instances_ended_total{cause=\"input\"}";
const RUNNING: &str = "wasm_instances_running";

fn obey(settings: &[(&str, &str)]) -> Runner {
    let guest = Guest::fixture("obey");
    let command = guest.serve().env("exec_timeout", "20s");
    command.envs(settings).start()
}

/// Sends these bytes and closes the sending side.
#[track_caller]
fn half_closed(runner: &Runner, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(runner.address()).expect("it listens");
    stream.write_all(bytes).expect("written");
    stream.shutdown(Shutdown::Write).expect("shut down");
    stream
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into()
}

fn chunked(target: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    for chunk in body.chunks(10_000) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

fn sized(target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Reads responses until the connection ends, which must happen cleanly.
#[track_caller]
fn answers(stream: TcpStream) -> Vec<Response> {
    let mut reader = BufReader::new(stream);
    let mut answers = Vec::new();
    while !reader.fill_buf().expect("the end is no reset").is_empty() {
        answers.push(Response::read(&mut reader, false).expect("an answer"));
    }
    answers
}

#[track_caller]
fn is_answered(runner: &Runner, request: &[u8], body: &str) {
    let answers = answers(half_closed(runner, request));
    let seen: Vec<_> = answers.iter().map(|a| (a.status, a.complete)).collect();
    assert_eq!(seen, [(200, true)], "{}", runner.log());
    assert!(answers[0].text().ends_with(body), "{}", answers[0].text());
}

fn open_files(runner: &Runner) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", runner.pid()));
    entries.expect("it lives").count()
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first request runs in a replica, and later ones run on the I/O thread.
#[test]
fn a_complete_request_is_answered() {
    let runner = obey(&[]);
    let large = vec![b'x'; 3_000_000];
    for round in 0..2 {
        for _ in 0..20 {
            is_answered(&runner, &get("/ok"), "done\n");
            is_answered(&runner, &sized("/read/1", b"some input"), "done\n");
            is_answered(&runner, &chunked("/read/1", b"some input"), "done\n");
        }
        is_answered(&runner, &get("/sleep/300"), "done\n");
        is_answered(&runner, &sized("/read/1", &large), "done\n");
        is_answered(&runner, &chunked("/read/1", &large), "done\n");
        is_answered(&runner, &get("/print/5000000"), "xxx");
        if round == 0 {
            runner.warm_up("/ok");
        }
    }
    assert_eq!(runner.metric(CANCELED), None, "{}", runner.metrics());
    assert_eq!(runner.metric(INPUT), None);
}

/// HTTP/1.0, an unusual number of header lines, and an upgrade request each take a separate code path.
#[test]
fn requests_of_other_forms_are_answered() {
    let runner = obey(&[]);
    let many = "X-Line: 1\r\n".repeat(500);
    for (version, lines) in [
        ("1.0", ""),
        ("1.0", "Connection: keep-alive\r\n"),
        ("1.1", "Connection: close\r\n"),
        ("1.1", many.as_str()),
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ] {
        for target in ["/ok", "/sleep/100"] {
            let request = format!("GET {target} HTTP/{version}\r\nHost: x\r\n{lines}\r\n");
            let mut stream = half_closed(&runner, request.as_bytes());
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("it is answered");
            assert!(
                text.starts_with("HTTP/1.") && text.contains(" 200 ") && text.contains("done\n"),
                "{lines:?}: {text}"
            );
        }
    }
}

#[test]
fn pipelined_requests_are_answered() {
    let runner = obey(&[]);
    let three = [
        get("/sleep/100"),
        sized("/read/1", &[b'x'; 100_000]),
        get("/ok"),
    ]
    .concat();
    let incomplete = [
        &b""[..],
        b"GET /ok HT",
        b"POST /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n",
    ];
    for rest in incomplete {
        let stream = half_closed(&runner, &[&three, rest].concat());
        let answers: Vec<_> = answers(stream).iter().map(|a| a.status).collect();
        assert_eq!(answers, [200; 3], "{rest:?}");
    }
}

#[test]
fn probes_and_metrics_are_answered() {
    let runner = obey(&[]);
    for target in ["/_/health", "/_/ready", "/scale-reader"] {
        for _ in 0..20 {
            is_answered(&runner, &get(target), "");
        }
    }
    for _ in 0..20 {
        let mut stream = connect(runner.metrics_address()).expect("it listens");
        stream.write_all(&get("/metrics")).expect("written");
        stream.shutdown(Shutdown::Write).expect("shut down");
        let answers = answers(stream);
        assert_eq!((answers.len(), answers[0].status), (1, 200));
        assert!(answers[0].text().contains("wasm_replicas"));
    }
}

/// The time limit applies as to any other client, and a waiting request keeps its place in the queue.
#[test]
fn limits_apply() {
    let runner = obey(&[
        ("max_scale", "1"),
        ("exec_timeout", "3s"),
        ("max_inflight", "2"),
    ]);
    let spinning = half_closed(&runner, &get("/spin"));
    runner.wait_for_metric(RUNNING, 1.0);
    let waiting = half_closed(&runner, &get("/ok"));
    runner.wait_for_metric("wasm_queue_length", 1.0);
    assert_eq!(runner.get("/ok").status, 429);
    assert_eq!(answer(spinning).status, 504);
    // The request has waited until its own deadline, or has run at the last moment.
    assert!([200, 504].contains(&answer(waiting).status));
}

#[test]
fn a_reset_ends_the_run() {
    let runner = obey(&[("max_scale", "1")]);
    for (count, is_half_closed) in [(1.0, false), (2.0, true)] {
        let running = connect(runner.address()).expect("it listens");
        (&running).write_all(&get("/spin")).expect("written");
        if is_half_closed {
            running.shutdown(Shutdown::Write).expect("shut down");
        }
        runner.wait_for_metric(RUNNING, 1.0);
        let waiting = half_closed(&runner, &get("/ok"));
        runner.wait_for_metric("wasm_queue_length", 1.0);
        reset(waiting);
        runner.wait_for_metric("wasm_queue_length", 0.0);
        reset(running);
        runner.wait_for_metric(CANCELED, count);
        runner.wait_for_metric("http_requests_in_flight", 0.0);
    }
}

/// Until something is sent to it, a client that has closed its whole connection looks like one that waits for its
/// response.
#[test]
fn closed_clients_are_noticed_when_output_is_sent() {
    let runner = obey(&[]);
    drop(half_closed(&runner, &get("/sleep/300")));
    runner.wait_for_metric(RETURNED, 1.0);
    let mut stream = connect(runner.address()).expect("it listens");
    stream.write_all(&get("/sleep/300")).expect("written");
    drop(stream);
    runner.wait_for_metric(RETURNED, 2.0);
    assert_eq!(runner.metric(CANCELED), None);

    drop(half_closed(&runner, &get("/print-spin/100000")));
    runner.wait_for_metric(CANCELED, 1.0);
    runner.wait_for_metric("http_requests_in_flight", 0.0);
}

#[test]
fn an_incomplete_request_ends() {
    let runner = obey(&[("read_timeout", "1h")]);
    let partly = |target: &str, framing: &str, body: &[u8]| {
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let (length, chunks) = ("Content-Length: 1000000", "Transfer-Encoding: chunked");
    let chunk = [b"186a0\r\n", &[b'x'; 100_000][..], b"\r\n"].concat();
    // The guest has not started.
    for (framing, body) in [
        (length, &b"some"[..]),
        (chunks, b""),
        (chunks, b"4\r\nso"),
        (chunks, b"4\r\nsome\r\n"),
        (chunks, b"4\r\nsome\r\n0\r\n"),
    ] {
        let answers = answers(half_closed(&runner, &partly("/spin", framing, body)));
        let statuses: Vec<_> = answers.iter().map(|a| a.status).collect();
        assert_eq!(statuses, [504], "{framing} {body:?}");
    }
    runner.wait_for_metric("http_requests_in_flight", 0.0);
    assert_eq!(runner.metric(RETURNED), None, "{}", runner.metrics());
    assert_eq!(runner.metric(INPUT), None);
    // A replica has the request. One guest waits for the rest of the body, and the other one does not read on.
    let spins = Guest::compiled(&Work::new().write("spins.wat", SPINS), Backend::Cranelift);
    let spinning = spins.serve().env("exec_timeout", "1h").start();
    for runner in [runner, spinning] {
        let mut ended = 0.0;
        for (framing, body) in [(length, &[b'x'; 100_000][..]), (chunks, &chunk)] {
            for resets in [false, true] {
                let mut stream = connect(runner.address()).expect("it listens");
                let begun = partly("/read/1", framing, body);
                stream.write_all(&begun).expect("written");
                runner.wait_for_metric(RUNNING, 1.0);
                if resets {
                    reset(stream);
                } else {
                    stream.shutdown(Shutdown::Write).expect("shut down");
                    assert_eq!(answer(stream).status, 504);
                }
                ended += 1.0;
                runner.wait_for_metric(INPUT, ended);
                runner.wait_for_metric(RUNNING, 0.0);
            }
        }
        runner.wait_for_metric("http_requests_in_flight", 0.0);
    }
}

/// Reads at least 50,000 bytes and never ends.
const SPINS: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start") (local $read i32)
    (i32.store (i32.const 0) (i32.const 100))
    (i32.store (i32.const 4) (i32.const 50000))
    (loop $more
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $read (i32.add (local.get $read) (i32.load (i32.const 8))))
      (br_if $more (i32.lt_u (local.get $read) (i32.const 50000))))
    (loop $again (br $again))))"#;

#[test]
fn half_closed_clients_do_not_hold_up_the_end() {
    let runner = obey(&[("healthcheck_interval", "1ms")]);
    let running = half_closed(&runner, &get("/sleep/1000"));
    runner.wait_for_metric(RUNNING, 1.0);
    // This client has its response and keeps its side open.
    let mut idle = connect(runner.address()).expect("it listens");
    idle.write_all(&get("/ok")).expect("written");
    let mut reader = BufReader::new(idle);
    assert_eq!(
        Response::read(&mut reader, false).expect("answered").status,
        200
    );
    runner.signal(Signal::TERM);
    assert_eq!(answers(running)[0].status, 200);
    let (status, log) = runner.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("Exiting. Active connections: 0"), "{log}");
}

/// If the client closes its side between two requests, the connection ends.
#[test]
fn idle_connections_are_closed_with_the_clients_side() {
    let runner = obey(&[("read_timeout", "1h")]);
    let answered = || {
        let mut stream = connect(runner.address()).expect("it listens");
        stream.write_all(&get("/ok")).expect("written");
        let mut reader = BufReader::new(stream);
        let response = Response::read(&mut reader, false).expect("answered");
        assert_eq!(response.status, 200);
        reader
    };
    drop(answered());
    wait_until("the first is closed", || {
        runner.metric("http_requests_in_flight") == Some(0.0)
    });
    let before = open_files(&runner);
    for how in [None, Some(Shutdown::Write), Some(Shutdown::Both)] {
        let clients: Vec<_> = (0..50).map(|_| answered()).collect();
        // Scrapes that had not finished may be part of the earlier count.
        wait_until("they are open", || open_files(&runner) >= before + 40);
        for client in &clients {
            if let Some(how) = how {
                client.get_ref().shutdown(how).expect("shut down");
            }
        }
        if how == Some(Shutdown::Write) {
            for mut client in clients {
                let rest = client.read(&mut [0]).expect("the end is no reset");
                assert_eq!(rest, 0);
            }
        } else {
            drop(clients);
        }
        wait_until("they are closed", || open_files(&runner) <= before + 2);
    }
    // A connection that was half-closed during its request does not remain either.
    let clients: Vec<_> = (0..50)
        .map(|_| half_closed(&runner, &get("/sleep/200")))
        .collect();
    for client in clients {
        assert_eq!(answers(client).len(), 1);
    }
    wait_until("they are closed", || open_files(&runner) <= before + 2);
    assert_eq!(runner.send(&Request::get("/ok")).status, 200);
}
