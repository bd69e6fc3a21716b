//! What happens around every function: routing, protocol errors, time-outs, limits, metrics.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, TcpStream};
use std::time::{Duration, Instant};

use support::{parse, require_the_only_connection, start, wait_until};

#[test]
fn unclean_paths_are_redirected() {
    let runner = start(&[("fprocess", "env")], &[]);
    for (target, location) in [
        ("//a?x=1", "/a?x=1"),
        ("/a/./b/", "/a/b/"),
        ("/a/../b", "/b"),
        ("/a/.", "/a"),
    ] {
        for method in ["GET", "POST"] {
            let answer = runner.send(method, target, &[], b"");
            assert_eq!(
                (answer.status, answer.header("location")),
                (307, Some(location)),
                "{method} {target}"
            );
            assert_eq!(answer.body.is_empty(), method == "POST", "{target}");
        }
    }
    for (target, path) in [
        ("/%2e%2e/x", "/../x"),
        ("/a%2f%2fb", "/a//b"),
        ("/_/health/", "/_/health/"),
    ] {
        let text = runner.get(target).text();
        assert!(
            text.contains(&format!("Http_Path={path}\n")),
            "{target}: {text}"
        );
    }
    assert_eq!(
        runner.get("//<a>").header("location"),
        Some("/%3Ca%3E"),
        "a place is a URI"
    );
    assert!(!runner.log().contains("//a"), "redirects are not logged");
    assert!(
        !runner.metrics().contains("code=\"307\""),
        "redirects are not counted"
    );
}

#[test]
fn special_targets() {
    let filler = "x".repeat(3000);
    let runner = start(&[("fprocess", "env"), ("filler", &filler)], &[]);
    let answer = |head: &str| {
        parse(&runner.exchange(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()))
    };
    assert_eq!(answer("OPTIONS * HTTP/1.1\r\nHost: a").status, 200);
    assert_eq!(answer("CONNECT a:80 HTTP/1.1\r\nHost: a").status, 404);
    assert_eq!(answer("CONNECT /x HTTP/1.1\r\nHost: a").status, 200);
    runner.wait_for_log("CONNECT /x - 200");
    assert_eq!(answer("GET / HTTP/1.0").status, 200);
    let kept = parse(&runner.exchange(b"POST / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    assert_eq!(
        (kept.status, kept.header("connection")),
        (200, Some("close")),
        "no length, so no further request"
    );
    let absolute = answer("GET http://other/x/y?z HTTP/1.1\r\nHost: a").text();
    assert!(
        absolute.contains("Http_Path=/x/y\n") && absolute.contains("Http_Query=z\n"),
        "{absolute}"
    );
}

#[test]
fn targets_need_not_be_uris() {
    let runner = start(&[("fprocess", "env")], &[]);
    let path = "/<a>`\"#ä|^{}[]\\";
    // The second head does not come in one piece with the first, nor in one itself.
    let mut connection = runner.connect();
    for (number, piece) in [2, 8, 1000].into_iter().enumerate() {
        let query = format!("{number}=<b>&\"c\"");
        let close = if number == 2 {
            "Connection: close\r\n"
        } else {
            ""
        };
        let head = format!("GET {path}?{query} HTTP/1.1\r\nHost: a\r\n{close}\r\n");
        for piece in head.as_bytes().chunks(head.len().min(piece * 4)) {
            connection.write_all(piece).expect("sent");
        }
        let log = format!("GET {path}?{query} - 200");
        runner.wait_for_log(&log);
    }
    let mut answers = Vec::new();
    connection.read_to_end(&mut answers).expect("read");
    let answers = String::from_utf8_lossy(&answers);
    for number in 0..3 {
        assert!(answers.contains(&format!("Http_Query={number}=<b>&\"c\"\n")));
    }
    assert_eq!(answers.matches(&format!("Http_Path={path}\n")).count(), 3);
    let no_text = parse(&runner.exchange(b"GET /\xe4 HTTP/1.0\r\n\r\n"));
    assert!(
        no_text
            .body
            .windows(13)
            .any(|found| found == b"Http_Path=/\xe4\n")
    );
}

#[test]
fn hostile_requests_are_refused() {
    let runner = start(&[("fprocess", "touch ran")], &[]);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(1_200_000)
    );
    for (request, status) in [
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417),
        (&long, 431),
    ] {
        let answer = runner.exchange(request.as_bytes());
        let shown = &request[..request.len().min(120)];
        assert_eq!(parse(&answer).status, status, "{shown}");
        assert_eq!(
            String::from_utf8_lossy(&answer)
                .matches("HTTP/1.1 ")
                .count(),
            1,
            "{shown}: closed afterwards"
        );
    }
    assert!(!runner.directory().join("ran").exists());
    assert_eq!(runner.get("/").status, 200, "later requests are fine");
}

#[test]
fn large_heads_pass() {
    let runner = start(&[("fprocess", "true")], &[]);
    let values = "x".repeat(100_000);
    let answer = runner.send("GET", "/", &[("A", &values), ("B", &values)], b"");
    assert_eq!(answer.status, 200);
    let names: Vec<String> = (0..2000).map(|i| format!("X-{i}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    assert_eq!(runner.send("GET", "/", &headers, b"").status, 200);
}

/// Requests on one connection, some with more header lines than the parser takes at first, in one piece and in several.
#[test]
fn heads_of_any_size_follow_each_other() {
    // A mode whose bodies come in one piece.
    let mode = ("mode", "serializing");
    let runner = start(&[("fprocess", "cat"), mode], &[]);
    let request = |lines: usize, body: &str| {
        let lines: String = (0..lines).map(|i| format!("X-{i}: v\r\n")).collect();
        let length = body.len();
        format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {length}\r\n\r\n{body}")
    };
    let close = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\n<end>";
    let large = format!("<{}>", "large".repeat(1 << 20));
    for (sent, bodies) in [
        (
            vec![request(2, "<a>"), request(500, "<b>"), request(2, "<c>")],
            "<a><b><c>",
        ),
        (
            vec![request(500, "<a>") + &request(2, "<b>") + &request(500, "<c>")],
            "<a><b><c>",
        ),
        (vec![request(2, "<a>") + &request(500, "<b>")], "<a><b>"),
        (
            vec![request(2, &large) + &request(500, "<b>") + &request(0, "<c>")],
            &*(large.clone() + "<b><c>"),
        ),
        // The end that was asked for is the end, whatever came along.
        (
            vec![request(2, "<a>") + close + &request(500, "<b>")],
            "<a><end>",
        ),
        (vec![close.to_owned() + &request(2, "<b>")], "<end>"),
    ] {
        for piece in [usize::MAX, 1000, 7] {
            if piece == 7 && sent[0].len() > 1 << 20 {
                continue;
            }
            let mut stream = runner.connect();
            let mut reader = stream.try_clone().expect("a second handle");
            let received = std::thread::spawn(move || {
                let mut received = Vec::new();
                // It may be cut off when it has answered what it wanted to.
                let _ = reader.read_to_end(&mut received);
                received
            });
            for bytes in sent.iter().flat_map(|text| text.as_bytes().chunks(piece)) {
                if stream.write_all(bytes).is_err() {
                    break;
                }
            }
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let received = received.join().expect("read");
            let received = String::from_utf8_lossy(&received);
            assert_eq!(
                received.matches("HTTP/1.1 200").count(),
                bodies.matches('<').count()
            );
            let answers = received.split("HTTP/1.1 200").skip(1);
            for (answer, body) in answers.zip(bodies.split_inclusive('>')) {
                assert!(answer.contains(body), "{} bytes", answer.len());
            }
        }
    }
    assert_eq!(runner.get("/").status, 200);
}

#[test]
fn slow_and_idle_connections_are_closed() {
    let runner = start(&[("fprocess", "true"), ("read_timeout", "300ms")], &[]);
    for (sent, answers) in [
        ("", 0),
        ("GET / HT", 0),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
    ] {
        let began = Instant::now();
        let received = runner.exchange(sent.as_bytes());
        assert_eq!(
            String::from_utf8_lossy(&received)
                .matches("HTTP/1.1 200")
                .count(),
            answers,
            "{sent:?}"
        );
        assert!(began.elapsed() >= Duration::from_millis(290), "{sent:?}");
    }
}

#[test]
fn late_answers_are_not_written() {
    let runner = start(
        &[("fprocess", "sleep 0.5"), ("write_timeout", "200ms")],
        &[],
    );
    assert_eq!(runner.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), b"");
    runner.wait_for_log("GET / - 200");
    wait_until("the metrics", || {
        runner
            .metrics()
            .contains("http_requests_total{code=\"200\",method=\"get\"} 1")
    });
}

#[test]
fn continue_is_sent_when_the_body_is_read() {
    let runner = start(&[("fprocess", "cat")], &[]);
    let mut connection = runner.connect();
    connection
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .expect("sent");
    let mut interim = [0; 25];
    connection.read_exact(&mut interim).expect("read");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection.write_all(b"abc").expect("sent");
    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).expect("read");
    assert_eq!(parse(&rest).text(), "abc");
}

#[test]
fn more_requests_than_allowed_are_refused() {
    let runner = start(&[("fprocess", "cat"), ("max_inflight", "1")], &[]);
    let mut first = runner.connect();
    first
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\n")
        .expect("sent");
    runner.wait_for_log("Started logging");
    // With a body that nobody reads.
    let answer = runner.send("POST", "/", &[], &vec![b'x'; 2_000_000]);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (429, Some("text/plain"))
    );
    assert_eq!(
        answer.text(),
        "Concurrent request limit exceeded. Max concurrent requests: 1\n"
    );
    assert_eq!(
        answer.header("x-openfaas-internal"),
        Some("faas-middleware")
    );
    assert_eq!(runner.get("/_/ready").status, 429);
    assert!(runner.metrics().contains("http_requests_in_flight 1\n"));
    first.write_all(b"y").expect("sent");
    first.read_to_end(&mut Vec::new()).expect("read");
    wait_until("the place is free", || runner.get("/_/ready").status == 200);
    assert_eq!(runner.get("/").status, 200);
    let metrics = runner.metrics();
    for line in [
        "http_requests_total{code=\"429\",method=\"post\"} 1\n",
        "http_requests_in_flight 0\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn connections_beyond_the_limit_wait() {
    let runner = start(&[("fprocess", "true"), ("max_connections", "1")], &[]);
    let held = runner.connect();
    require_the_only_connection(&runner, held);
}

#[test]
fn both_address_families_are_served() {
    let runner = start(&[("fprocess", "true")], &[]);
    let Ok(mut connection) = TcpStream::connect((Ipv6Addr::LOCALHOST, runner.port())) else {
        println!("SKIP both_address_families_are_served: no IPv6 here");
        return;
    };
    connection
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("read");
    assert_eq!(parse(&answer).status, 200);
}

#[test]
fn every_metric_moves() {
    let runner = start(&[("fprocess", "cat")], &[]);
    let value = |metrics: &str, name: &str| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let before = runner.metrics();
    assert_eq!(value(&before, "http_requests_in_flight"), Some(0.0));
    let connections: Vec<TcpStream> = (0..20).map(|_| runner.connect()).collect();
    for _ in 0..20 {
        runner.send("POST", "/", &[], &vec![b'x'; 100_000]);
    }
    let mut metrics = String::new();
    wait_until("the counter", || {
        metrics = runner.metrics();
        value(
            &metrics,
            "http_requests_total{code=\"200\",method=\"post\"}",
        ) == Some(20.0)
    });
    assert_eq!(
        value(
            &metrics,
            "http_request_duration_seconds_count{code=\"200\",method=\"post\"}"
        ),
        Some(20.0)
    );
    for name in ["process_open_fds", "process_cpu_seconds_total"] {
        wait_until(name, || {
            runner.send("POST", "/", &[], &vec![b'x'; 100_000]);
            value(&runner.metrics(), name) > value(&before, name)
        });
    }
    for name in [
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(value(&metrics, name) > Some(0.0), "{name}");
    }
    drop(connections);
}

#[test]
fn metrics_are_compressed_on_demand() {
    let runner = start(&[("fprocess", "cat")], &[]);
    let plain = runner.scrape("Accept-Encoding: identity\r\n");
    assert_eq!(plain.header("content-encoding"), None);
    let packed = runner.scrape("Accept-Encoding: deflate, gzip\r\n");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.header("content-type"), plain.header("content-type"));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]), "gzip's magic");
    assert!(packed.body.len() < plain.body.len() / 2);
}

/// Reads one answer of a connection that stays open: its status, and its body as it is announced.
fn next_answer(connection: &mut TcpStream) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(connection.read(&mut byte).expect("read"), 1, "{head:?}");
        head.push(byte[0]);
    }
    let answer = parse(&head);
    let length = answer.header("content-length").expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    connection.read_exact(&mut body).expect("read");
    (answer.status, body)
}

/// Who asks for another protocol and does not get it is a client as any other.
#[test]
fn a_refused_upgrade_changes_nothing() {
    let runner = start(
        &[
            ("mode", "serializing"),
            ("fprocess", "cat"),
            ("read_timeout", "1s"),
        ],
        &[],
    );
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let posted = "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\n{}";
    let ambiguous = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let stalling = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc";
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: 1\r\n".repeat(500)
    );
    for (first, body) in [(upgrade, ""), (posted, "{}")] {
        for (second, status) in [(ambiguous, 400), (stalling, 500), (&many, 200)] {
            for at_once in [false, true] {
                let mut connection = runner.connect();
                let answered = |connection: &mut TcpStream| {
                    assert_eq!(next_answer(connection), (200, body.into()));
                };
                if at_once {
                    let both = format!("{first}{second}");
                    connection.write_all(both.as_bytes()).expect("sent");
                    answered(&mut connection);
                } else {
                    connection.write_all(first.as_bytes()).expect("sent");
                    answered(&mut connection);
                    connection.write_all(second.as_bytes()).expect("sent");
                }
                let (found, _) = next_answer(&mut connection);
                assert_eq!(found, status, "{second} after {first}, {at_once}");
            }
        }
    }
}

/// The parser must not wait for more of a head of which the end was taken from it.
#[test]
fn heads_in_pieces_are_refused_at_once_too() {
    let runner = start(&[("fprocess", "cat"), ("read_timeout", "1h")], &[]);
    let mut connection = runner.connect();
    for piece in [
        "POST / HTTP/1.1\r\n",
        "Host: a\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\n\r\n",
    ] {
        connection.write_all(piece.as_bytes()).expect("sent");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
}

/// The time for writing an answer counts for each anew, also for one to what is no request.
#[test]
fn errors_are_told_on_old_connections_too() {
    let runner = start(&[("fprocess", "true"), ("write_timeout", "300ms")], &[]);
    for pieces in [&["BAD\r\n\r\n"][..], &["BA", "D\r\n\r\n"]] {
        let mut connection = runner.connect();
        connection
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("sent");
        assert_eq!(next_answer(&mut connection).0, 200);
        for piece in pieces {
            std::thread::sleep(Duration::from_millis(400));
            connection.write_all(piece.as_bytes()).expect("sent");
        }
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).expect("read");
        assert!(rest.starts_with(b"HTTP/1.1 400 "), "{pieces:?}: {rest:?}");
    }
}

/// A client that is gone without a word is found out, also where no time-out applies.
#[test]
fn connections_are_kept_alive() {
    let runner = start(&[("fprocess", "true")], &[]);
    let connection = runner.connect();
    let peer = connection.local_addr().expect("an address").port();
    let ends = (format!(":{:04X}", runner.port()), format!(":{peer:04X}"));
    wait_until("the connection's timer", || {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
        let tables = tables.map(Result::unwrap_or_default).concat();
        // Number, both ends, state, queues, and the timer that runs: 02 is that for keeping alive.
        tables.lines().any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&ends.0))
                && fields.get(2).is_some_and(|peer| peer.ends_with(&ends.1))
                && fields.get(5).is_some_and(|timer| timer.starts_with("02:"))
        })
    });
}
