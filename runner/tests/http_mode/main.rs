//! Http mode against an upstream of our own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod disconnects;
#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{Runner, launch, parse, require_the_only_connection, reset, start, wait_until};

/// An HTTP server that tells what it was sent, or does what the path says.
struct Upstream {
    port: u16,
    connections: Arc<AtomicUsize>,
    /// Requests that it has and will not answer.
    hanging: Arc<AtomicUsize>,
    /// Connections that ended while an answer was being waited for.
    cancelled: Arc<AtomicUsize>,
}

impl Upstream {
    fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let [connections, hanging, cancelled] = [(); 3].map(|()| Arc::<AtomicUsize>::default());
        let upstream = Self {
            port,
            connections: Arc::clone(&connections),
            hanging: Arc::clone(&hanging),
            cancelled: Arc::clone(&cancelled),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (hanging, cancelled) = (Arc::clone(&hanging), Arc::clone(&cancelled));
                std::thread::spawn(move || serve(stream, &hanging, &cancelled));
            }
        });
        upstream
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Serves the requests of a connection; `None` when it has ended.
fn serve(stream: TcpStream, hanging: &AtomicUsize, cancelled: &AtomicUsize) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    for answered in 0.. {
        let (head, body) = read_request(&mut reader)?;
        let path = head.split(' ').nth(1)?.to_owned();
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        match path.as_str() {
            "/hang" => {
                hanging.fetch_add(1, Ordering::SeqCst);
                let _ = reader.read(&mut [0]);
                cancelled.fetch_add(1, Ordering::SeqCst);
                return None;
            }
            "/late" => {
                writer
                    .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .ok()?;
                hanging.fetch_add(1, Ordering::SeqCst);
                let _ = reader.read(&mut [0]);
                return None;
            }
            "/endless" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 1000000000000\r\n\r\n";
                writer.write_all(head.as_bytes()).ok()?;
                while writer.write_all(&[b'x'; 65536]).is_ok() {}
                cancelled.fetch_add(1, Ordering::SeqCst);
                return None;
            }
            "/close" => return None,
            "/once" if answered > 0 => return None,
            "/cut" => return writer.write_all(chunk.as_bytes()).ok(),
            "/trickle" => {
                writer.write_all(chunk.as_bytes()).ok()?;
                let _ = reader.read(&mut [0]);
                return None;
            }
            "/half" => {
                writer
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                    .ok()?;
                let _ = reader.read(&mut [0]);
                return None;
            }
            "/chunked" => writer
                .write_all(format!("{chunk}0\r\n\r\n").as_bytes())
                .ok()?,
            "/both" => writer
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n")
                .ok()?,
            "/redirect" => {
                writer.write_all(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n").ok()?;
            }
            "/trailed" => writer
                .write_all(
                    format!(
                        "{}0\r\nX-Sum: 5\r\n\r\n",
                        chunk.replacen("\r\n\r\n", "\r\nTrailer: X-Sum\r\n\r\n", 1)
                    )
                    .as_bytes(),
                )
                .ok()?,
            "/odd" => writer
                .write_all(b"HTTP/1.1 299 Odd Enough\r\nContent-Length: 0\r\n\r\n")
                .ok()?,
            "/socket" => {
                writer.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").ok()?;
                let mut buffer = [0; 100];
                loop {
                    let count = reader.read(&mut buffer).ok().filter(|count| *count > 0)?;
                    writer.write_all(&buffer[..count]).ok()?;
                }
            }
            _ => {
                let text = [head.as_bytes(), &body].concat();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nX-Duration-Seconds: mine\r\nServer: up\r\nContent-Length: {}\r\n\r\n",
                    text.len()
                );
                writer.write_all(&[head.as_bytes(), &text].concat()).ok()?;
            }
        }
    }
    None
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if let Some((_, after)) = lower.split_once("content-length: ") {
        body.resize(after.split("\r\n").next()?.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    } else if lower.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"\r\n0\r\n\r\n") && body != b"0\r\n\r\n" {
            let mut byte = [0];
            reader.read_exact(&mut byte).ok()?;
            body.push(byte[0]);
        }
    }
    Some((head, body))
}

/// The child is one that ends with the runner, as its standard input does.
fn start_http(upstream: &str, more: &[(&str, &str)]) -> Runner {
    let variables = [
        ("mode", "http"),
        ("fprocess", "cat"),
        ("upstream_url", upstream),
    ];
    start(&[&variables, more].concat(), &[])
}

#[test]
fn requests_are_passed_on() {
    let upstream = Upstream::new();
    let runner = start_http(
        &format!("{}/base", upstream.url()),
        &[("log_callid", "true")],
    );
    let headers = [
        ("X-Twice", "a"),
        ("X-Twice", "b"),
        ("X-Timeout", "5s"),
        ("X-Call-Id", "77"),
        ("Accept-Encoding", "gzip"),
    ];
    let answer = runner.send("POST", "/a%2fb?q=%20", &headers, b"body");
    assert_eq!((answer.status, answer.header("server")), (200, Some("up")));
    let seconds = answer.header("x-duration-seconds").expect("there");
    assert!(
        seconds.len() == 8 && seconds.parse::<f64>().is_ok(),
        "{seconds}"
    );
    let sent = answer.text().to_ascii_lowercase();
    assert!(
        sent.starts_with("post /base/a%2fb?q=%20 http/1.1\r\n") && sent.ends_with("\r\n\r\nbody"),
        "{sent}"
    );
    for line in [
        "x-twice: a",
        "x-twice: b",
        "x-timeout: 5s",
        "host: test",
        "content-length: 4",
        "accept-encoding: gzip",
    ] {
        assert!(sent.lines().any(|found| found == line), "{line} in {sent}");
    }
    assert!(
        !sent.contains("forwarded") && !sent.contains("connection: close"),
        "{sent}"
    );
    runner.wait_for_log(&format!(
        "POST /a%2fb?q=%20 - 200 OK - ContentLength: {}B (0.0",
        answer.body.len()
    ));
    assert!(
        support::last_line(&runner.log()).ends_with("s) [77]"),
        "{}",
        runner.log()
    );
}

#[test]
fn answers_are_passed_on() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    let redirect = runner.get("/redirect");
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (302, Some("/elsewhere"))
    );
    assert_eq!(
        redirect
            .head
            .to_ascii_lowercase()
            .matches("set-cookie: ")
            .count(),
        2
    );
    let chunked = runner.get("/chunked");
    assert_eq!(
        (chunked.text().as_str(), chunked.header("content-length")),
        ("hello", Some("5"))
    );
    assert_eq!(
        chunked.header("content-type"),
        Some("text/plain; charset=utf-8"),
        "sniffed"
    );
    assert_eq!(runner.get("/odd").status, 299);
    runner.wait_for_log("GET /odd - 299 Odd Enough - ContentLength: 0B (");
    let before = upstream.connections.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(runner.get("/").status, 200);
    }
    assert!(
        upstream.connections.load(Ordering::SeqCst) <= before + 1,
        "connections are kept"
    );
}

#[test]
fn dead_connections_are_replaced() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    assert_eq!(runner.get("/").status, 200);
    // The upstream closes this connection instead of answering, and answers on a new one.
    assert_eq!(runner.get("/once").status, 200);
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 2);
    // What may not be repeated is not.
    assert_eq!(runner.send("POST", "/once", &[], b"x").status, 500);
}

#[test]
fn bodies_are_buffered_on_demand() {
    let upstream = Upstream::new();
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (variable, expected) in [
        ("false", "transfer-encoding: chunked"),
        ("true", "content-length: 3"),
    ] {
        let runner = start_http(
            &upstream.url(),
            &[
                ("http_buffer_req_body", variable),
                ("ready_path", "/ready?x"),
            ],
        );
        let sent = parse(&runner.exchange(request)).text().to_ascii_lowercase();
        assert!(sent.contains(expected), "{sent}");
        assert!(
            runner
                .get("/_/ready")
                .text()
                .starts_with("GET /ready?x HTTP/1.1")
        );
    }
}

#[test]
fn failures_are_told() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    let answer = runner.send("DELETE", "/close", &[], b"");
    assert_eq!(
        (
            answer.status,
            answer.header("x-openfaas-internal"),
            answer.text().as_str()
        ),
        (500, Some("of-watchdog"), "")
    );
    runner.wait_for_log(&format!(
        "Upstream HTTP request error: Delete \"{}/close\": ",
        upstream.url()
    ));
    let runner = start_http("http://127.0.0.1:1", &[]);
    assert_eq!(runner.get("/").status, 500);
    runner.wait_for_log("Upstream HTTP request error: Get \"http://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused");
    assert!(
        runner
            .metrics()
            .contains("http_requests_total{code=\"500\",method=\"get\"} 1")
    );
    assert_eq!(
        runner
            .send("GET", "/", &[("Accept", "text/event-stream")], b"")
            .status,
        502
    );
}

#[test]
fn the_own_question_for_readiness_has_no_body_and_no_foreign_host() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[("ready_path", "/is-it?x")]);
    for accept in ["text/plain", "text/event-stream"] {
        let answer = runner.send("GET", "/_/ready", &[("Accept", accept)], b"probe");
        let asked = answer.text().to_ascii_lowercase();
        assert!(asked.starts_with("get /is-it?x http/1.1\r\n"), "{asked}");
        assert!(
            asked.contains(&format!("host: 127.0.0.1:{}\r\n", upstream.port)),
            "{asked}"
        );
        assert!(!asked.contains("content-length"), "{asked}");
    }
}

#[test]
fn targets_that_are_no_uris_are_escaped() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    for accept in ["text/plain", "text/event-stream"] {
        let answer = runner.send("GET", "/<ä>?`<", &[("Accept", accept)], b"");
        let asked = answer.text();
        assert!(
            asked.starts_with("GET /%3C%C3%A4%3E?%60%3C HTTP/1.1\r\n"),
            "{asked}"
        );
    }
}

#[test]
fn time_limits_apply() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[("exec_timeout", "1s")]);
    for (header, at_most) in [("100ms", 900), ("0s", 5000), ("10s", 5000)] {
        let began = Instant::now();
        let answer = runner.send("GET", "/hang", &[("X-Timeout", header)], b"");
        assert_eq!(
            (answer.status, answer.header("x-openfaas-internal")),
            (504, Some("of-watchdog")),
            "{header}"
        );
        assert!(
            began.elapsed() < Duration::from_millis(at_most),
            "{header}: {:?}",
            began.elapsed()
        );
    }
    runner.wait_for_log("/hang\": context deadline exceeded");
    runner.wait_for_log("Upstream HTTP killed due to exec_timeout: 1s");
    wait_until("the upstream connections are closed", || {
        upstream.cancelled.load(Ordering::SeqCst) == 3
    });
}

#[test]
fn cut_answers_look_cut() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[("exec_timeout", "300ms")]);
    for (path, cause) in [
        ("/cut", "unexpected EOF"),
        ("/trickle", "context deadline exceeded"),
        ("/half", "context deadline exceeded"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let bytes = runner.exchange(request.as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.starts_with("HTTP/1.1 200") && text.contains("hello"),
            "{path}: {text}"
        );
        assert!(
            !text.ends_with("0\r\n\r\n"),
            "{path} looks complete: {text}"
        );
        runner.wait_for_log(&format!("Error copying response body: {cause}"));
        runner.wait_for_log(&format!("GET {path} - 200 OK - "));
    }
}

#[test]
fn a_client_that_leaves_cancels() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    let mut connection = runner.connect();
    connection
        .write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    wait_until("the request", || {
        upstream.hanging.load(Ordering::SeqCst) == 1
    });
    reset(connection);
    wait_until("the cancellation", || {
        upstream.cancelled.load(Ordering::SeqCst) == 1
    });
    runner.wait_for_log("context canceled");
    wait_until("the count", || {
        runner
            .metrics()
            .contains("http_requests_total{code=\"504\",method=\"get\"} 1")
    });
}

#[test]
fn streams_follow_a_proxys_rules() {
    let upstream = Upstream::new();
    let runner = start_http(
        &format!("{}/base", upstream.url()),
        &[("exec_timeout", "200ms")],
    );
    let headers = [
        ("Accept", "application/x-ndjson"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("Keep-Alive", "x"),
    ];
    let answer = runner.send("GET", "/lines?x", &headers, b"");
    assert_eq!(
        answer.header("x-duration-seconds"),
        Some("mine"),
        "not ours"
    );
    let sent = answer.text().to_ascii_lowercase();
    assert!(
        sent.starts_with("get /lines?x http/1.1\r\n"),
        "without the base path: {sent}"
    );
    assert!(
        sent.contains("x-forwarded-for: 10.0.0.1, 127.0.0.1\r\n") && !sent.contains("keep-alive"),
        "{sent}"
    );
    runner.wait_for_log("GET /lines?x - 200 - Bytes: ");

    let trailed = runner.exchange(
        b"GET /trailed HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nTE: trailers\r\nConnection: close\r\n\r\n",
    );
    let trailed = String::from_utf8_lossy(&trailed);
    assert!(
        trailed.contains("Trailer: X-Sum\r\n") && trailed.ends_with("\r\n0\r\nX-Sum: 5\r\n\r\n"),
        "{trailed}"
    );
    let plain = [("Accept", "text/event-stream"), ("Upgrade", "websocket")];
    let sent = runner.send("GET", "/lines", &plain, b"").text();
    assert!(
        !sent.to_ascii_lowercase().contains("upgrade"),
        "Connection does not name it: {sent}"
    );

    let mut connection = runner.connect();
    connection
        .write_all(b"GET /trickle HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        .expect("sent");
    let mut received = Vec::new();
    while !received.ends_with(b"hello\r\n") {
        let mut byte = [0];
        assert_eq!(connection.read(&mut byte).expect("read"), 1);
        received.push(byte[0]);
    }
    std::thread::sleep(Duration::from_millis(400));
    connection
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("set");
    assert!(
        connection.read(&mut [0]).is_err(),
        "still open after exec_timeout"
    );
}

#[test]
fn websockets_are_tunneled() {
    let upstream = Upstream::new();
    let variables = [
        ("exec_timeout", "100ms"),
        ("read_timeout", "100ms"),
        ("write_timeout", "100ms"),
        ("max_inflight", "1"),
    ];
    let runner = start_http(&upstream.url(), &variables);
    let mut connection = runner.connect();
    connection.write_all(WEBSOCKET.as_bytes()).expect("sent");
    assert!(read_head(&mut connection).starts_with("HTTP/1.1 101 "));
    for text in [&b"first"[..], b"second"] {
        connection.write_all(text).expect("sent");
        let mut echo = vec![0; text.len()];
        connection.read_exact(&mut echo).expect("read");
        assert_eq!(echo, text);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(runner.get("/").status, 429, "the tunnel has the only place");
    drop(connection);
    runner.wait_for_log("GET /socket - 200 - Bytes: ");
    wait_until("the place is free", || runner.get("/").status == 200);
}

#[test]
fn the_childs_output_and_end_are_logged() {
    let variables = [
        ("mode", "http"),
        ("fprocess", "sh f.sh"),
        ("upstream_url", "http://127.0.0.1:1"),
    ];
    // What it wrote last is logged, also if it is much.
    let script = "seq 20000 >&2; echo err >&2; echo out; exit 3";
    let mut runner = launch(&variables, &[("f.sh", script)]);
    assert_eq!(runner.wait(), Some(1));
    assert!(runner.stdout().ends_with(" stdout: out\n"));
    let log = runner.log();
    assert!(log.contains(" stderr: 20000\n") && log.contains(" stderr: err\n"));
    assert!(log.contains(" Forking: sh, arguments: [f.sh]\n"), "{log}");
    assert!(
        log.contains(" Forked function has terminated: exit status 3\n"),
        "{log}"
    );

    let runner = start(&variables, &[("f.sh", "echo out; echo err >&2; exit 0")]);
    runner.wait_for_log(" stderr: err\n");
    wait_until("stdout", || runner.stdout().ends_with(" stdout: out\n"));
    assert_eq!(
        runner.get("/").status,
        500,
        "a child that ended well is not missed"
    );
    assert_eq!(runner.get("/_/health").status, 200);

    let mut runner = launch(
        &[variables[0], ("fprocess", "nonexistent"), variables[2]],
        &[],
    );
    assert_eq!(runner.wait(), Some(1));
    assert!(
        runner
            .log()
            .contains("Forked function has terminated: exec: not started"),
        "{}",
        runner.log()
    );
}

#[test]
fn termination_reaches_the_child_at_once() {
    let upstream = Upstream::new();
    let mut runner = start_http(&upstream.url(), &[]);
    runner.signal("TERM");
    assert_eq!(runner.wait(), Some(1));
    assert!(
        runner
            .log()
            .contains("Forked function has terminated: signal: terminated"),
        "{}",
        runner.log()
    );

    let variables = [
        ("mode", "http"),
        ("fprocess", "sh f.sh"),
        ("upstream_url", "http://127.0.0.1:1"),
        ("healthcheck_interval", "100ms"),
    ];
    let script = "trap 'touch told; exit 0' TERM; touch waiting; while true; do sleep 0.05; done";
    let mut runner = start(&variables, &[("f.sh", script)]);
    wait_until("the trap", || runner.directory().join("waiting").exists());
    runner.signal("TERM");
    assert_eq!(runner.wait(), Some(0));
    assert!(runner.directory().join("told").exists());
}

/// What is chunked is as long as its chunks say; a length beside them would let a client take the rest of one answer
/// for the next one.
#[test]
fn a_length_beside_chunks_is_not_passed_on() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    for accept in ["*/*", "text/event-stream"] {
        let request =
            |more: &str| format!("GET /both HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n{more}\r\n");
        let two = request("") + &request("Connection: close\r\n");
        let received = runner.exchange(two.as_bytes());
        let received = String::from_utf8_lossy(&received).to_ascii_lowercase();
        let answers: Vec<_> = received.split("http/1.1 200 ok").skip(1).collect();
        assert_eq!(answers.len(), 2, "{accept}: {received}");
        for answer in answers {
            assert!(answer.contains("hello world"), "{accept}: {answer}");
            assert!(!answer.contains("content-length: 5\r\n"), "{answer}");
        }
    }
}

/// They would be appended to the upstream's host, and become part of it.
#[test]
fn targets_that_are_no_paths_are_refused() {
    let runner = start_http("http://127.0.0.1", &[]);
    for target in ["0://x/", "http://a/", "9://x"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = parse(&runner.exchange(request.as_bytes()));
        assert!(matches!(answer.status, 400 | 500), "{target}: {answer:?}");
    }
    for target in ["0://x/", "http://a/"] {
        runner.wait_for_log(&format!("{target}\": the target is no path"));
    }
    assert!(!runner.log().contains("dial"), "{}", runner.log());
}

const WEBSOCKET: &str =
    "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Reads the head of an answer.
fn read_head(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(connection.read(&mut byte).expect("read"), 1);
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

/// What comes right behind the request is the tunnel's, whatever it looks like.
#[test]
fn websockets_may_begin_before_they_are_answered() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    let early =
        "GET /<a> HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n\0\u{1}";
    let mut connection = runner.connect();
    connection
        .write_all(format!("{WEBSOCKET}{early}").as_bytes())
        .expect("sent");
    assert!(read_head(&mut connection).starts_with("HTTP/1.1 101 "));
    let mut echo = vec![0; early.len()];
    connection.read_exact(&mut echo).expect("read");
    assert_eq!(echo, early.as_bytes());
    for text in [&b"later"[..], b"\0"] {
        connection.write_all(text).expect("sent");
        let mut echo = vec![0; text.len()];
        connection.read_exact(&mut echo).expect("read");
        assert_eq!(echo, text);
    }
}

#[test]
fn tunnels_count_as_connections_and_are_not_drained() {
    let upstream = Upstream::new();
    let variables = [
        ("max_connections", "1"),
        ("healthcheck_interval", "0"),
        ("write_timeout", "1h"),
    ];
    let runner = start_http(&upstream.url(), &variables);
    let mut tunnel = runner.connect();
    tunnel.write_all(WEBSOCKET.as_bytes()).expect("sent");
    read_head(&mut tunnel);
    require_the_only_connection(&runner, tunnel);

    let mut tunnel = runner.connect();
    tunnel.write_all(WEBSOCKET.as_bytes()).expect("sent");
    read_head(&mut tunnel);
    runner.signal("TERM");
    runner.wait_for_log("Exiting. Active connections: 1");
}

#[test]
fn a_client_that_leaves_after_the_head_is_logged() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    let mut connection = runner.connect();
    connection
        .write_all(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    wait_until("the request", || {
        upstream.hanging.load(Ordering::SeqCst) == 1
    });
    reset(connection);
    runner.wait_for_log("Error copying response body: client closed the connection");
    runner.wait_for_log("GET /late - 200 OK - ");
}

/// The limit is the function's, whether or not the client takes what it writes.
#[test]
fn a_client_that_does_not_read_lengthens_no_time_limit() {
    let upstream = Upstream::new();
    let runner = start_http(
        &upstream.url(),
        &[("exec_timeout", "500ms"), ("write_timeout", "1h")],
    );
    let mut connection = runner.connect();
    connection
        .write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    runner.wait_for_log("Error copying response body: context deadline exceeded");
    wait_until("the end of the upstream's connection", || {
        upstream.cancelled.load(Ordering::SeqCst) == 1
    });
}
