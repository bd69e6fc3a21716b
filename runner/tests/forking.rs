//! Streaming and serializing mode.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use support::{Runner, start, wait_until};

const STREAMING: (&str, &str) = ("mode", "streaming");
const SERIALIZING: (&str, &str) = ("mode", "serializing");

/// The log without times.
fn lines(runner: &Runner) -> Vec<String> {
    runner
        .log()
        .lines()
        .map(|line| line.get(20..).unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn bodies_come_back() {
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    for mode in [STREAMING, SERIALIZING] {
        let runner = start(&[("fprocess", "cat"), mode], &[]);
        for (body, chunked) in [
            (&b""[..], false),
            (&large[..2048], false),
            (&large[..2049], true),
            (&large, true),
        ] {
            let answer = runner.send("POST", "/", &[], body);
            assert_eq!(answer.status, 200);
            assert_eq!(
                answer.header("content-type"),
                Some("application/octet-stream")
            );
            assert_eq!(
                answer.header("transfer-encoding").is_some(),
                chunked,
                "{} bytes",
                body.len()
            );
            assert!(answer.body == body, "{mode:?}: {} bytes", body.len());
            assert_eq!(
                answer.header("x-duration-seconds").is_some(),
                mode == SERIALIZING
            );
        }
    }
}

#[test]
fn kept_alive_connections_lose_nothing() {
    let runner = start(&[("fprocess", "cat")], &[]);
    let mut connection = runner.connect();
    for round in 0..10_u8 {
        let body = vec![round; 200_000];
        let mut sender = connection.try_clone().expect("cloned");
        let sent = body.clone();
        let thread = std::thread::spawn(move || {
            sender
                .write_all(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n")
                .expect("sent");
            sender.write_all(&sent).expect("sent");
        });
        let mut answer = Vec::new();
        let mut buffer = [0; 65536];
        while !answer.ends_with(b"0\r\n\r\n") {
            let count = connection.read(&mut buffer).expect("read");
            assert!(count > 0, "closed in round {round}");
            answer.extend_from_slice(&buffer[..count]);
        }
        thread.join().expect("sent");
        assert!(support::parse(&answer).body == body, "round {round}");
    }
}

#[test]
fn functions_learn_of_the_request() {
    let runner = start(&[("fprocess", "env"), ("own", "variable")], &[]);
    let headers = [
        ("x-call-id", "7"),
        ("foo_bar", "é"),
        ("Path", "fake"),
        ("Accept", "a"),
        ("Accept", "b"),
    ];
    let text = runner
        .send("FROB", "/a%20b/%2e?q=%20", &headers, b"body")
        .text();
    for line in [
        "own=variable",
        "Http_X_Call_Id=7",
        "Http_Foo_bar=é",
        "Http_Accept=a",
        "Http_Method=FROB",
        "Http_Path=/a b/.",
        "Http_Query=q=%20",
        "Http_Content_Length=4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("Http_Host"), "{text}");
    let chunked = b"POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let text = support::parse(&runner.exchange(chunked)).text();
    assert!(
        text.contains("Http_Transfer_Encoding=chunked\n") && !text.contains("Http_Content_Length"),
        "{text}"
    );
}

#[test]
fn commands_are_split_at_every_space() {
    let runner = start(
        &[("fprocess", "sh a.sh a  'b c'")],
        &[("a.sh", "for a in \"$@\"; do echo \"<$a>\"; done")],
    );
    assert_eq!(runner.get("/").text(), "<a>\n<>\n<'b>\n<c'>\n");
}

#[test]
fn failures_are_told() {
    let script = [("f.sh", "echo output; exit 3")];
    for (fprocess, failure, output) in [
        ("sh f.sh", "exit status 3", "output\n"),
        (
            "/nonexistent",
            "fork/exec /nonexistent: no such file or directory",
            "",
        ),
        (
            "nonexistent",
            "exec: \"nonexistent\": executable file not found in $PATH",
            "",
        ),
        ("./f.sh", "fork/exec ./f.sh: permission denied", ""),
        (" cat", "exec: no command", ""),
    ] {
        let runner = start(&[("fprocess", fprocess)], &script);
        let answer = runner.get("/");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, output),
            "{fprocess}"
        );
        runner.wait_for_log("GET / - 500 - ContentLength: ");
        let lines = lines(&runner);
        assert_eq!(lines[lines.len() - 2], failure, "{lines:?}");
        assert!(
            runner
                .metrics()
                .contains("http_requests_total{code=\"200\",method=\"get\"} 1"),
            "{fprocess}"
        );

        let runner = start(&[("fprocess", fprocess), SERIALIZING], &script);
        let answer = runner.get("/");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (500, failure),
            "{fprocess}"
        );
        assert!(answer.header("x-duration-seconds").is_some());
    }
}

#[test]
fn what_no_environment_can_hold_is_a_failure() {
    const FAILURE: &str = "exec: environment variable contains NUL";
    let runner = start(&[("fprocess", "env")], &[]);
    let answer = runner.get("/a%00b");
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    runner.wait_for_log("GET /a%00b - 500 - ContentLength: 0B");
    runner.wait_for_log(FAILURE);
    let runner = start(&[("fprocess", "env"), SERIALIZING], &[]);
    let answer = runner.get("/a%00b");
    assert_eq!((answer.status, answer.text().as_str()), (500, FAILURE));
}

#[test]
fn the_time_limit_kills() {
    let script = [("f.sh", "echo begun; exec sleep 30")];
    let variables = [("fprocess", "sh f.sh"), ("exec_timeout", "200ms")];
    let runner = start(&variables, &script);
    let answer = runner.send("GET", "/", &[("X-Timeout", "1ms")], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "begun\n"));
    runner.wait_for_log("signal: killed");
    let runner = start(&[variables[0], variables[1], SERIALIZING], &script);
    let answer = runner.get("/");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (500, "signal: killed")
    );
}

#[test]
fn a_client_that_leaves_does_not_stop_the_function() {
    let script = [(
        "f.sh",
        "while [ ! -e go ]; do sleep 0.05; done; echo x; touch finished",
    )];
    for mode in [STREAMING, SERIALIZING] {
        let runner = start(&[("fprocess", "sh f.sh"), mode], &script);
        let mut connection = runner.connect();
        connection
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            .expect("sent");
        runner.wait_for_log("Started logging");
        drop(connection);
        std::fs::write(runner.directory().join("go"), "").expect("written");
        wait_until("the function's end", || {
            runner.directory().join("finished").exists()
        });
        runner.wait_for_log("GET / - 200 - ContentLength: 2B");
    }
}

#[test]
fn clients_may_close_their_sending_side() {
    for mode in [STREAMING, SERIALIZING] {
        let runner = start(
            &[("fprocess", "sh f.sh"), mode],
            &[("f.sh", "sleep 0.1; cat")],
        );
        let bodies = ["some".to_owned(), "x".repeat(300_000)];
        for body in &bodies {
            let mut connection = runner.connect();
            let length = body.len();
            write!(
                connection,
                "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .expect("sent");
            connection.shutdown(Shutdown::Write).expect("shut down");
            let mut answer = Vec::new();
            connection.read_to_end(&mut answer).expect("read");
            let answer = support::parse(&answer);
            assert_eq!(answer.status, 200);
            assert!(answer.text() == *body, "{} bytes", answer.body.len());
        }
    }
}

#[test]
fn unread_input_is_no_failure() {
    for mode in [STREAMING, SERIALIZING] {
        let runner = start(&[("fprocess", "echo fine"), mode], &[]);
        for _ in 0..5 {
            let answer = runner.send("POST", "/", &[], &vec![b'x'; 500_000]);
            assert_eq!((answer.status, answer.text().as_str()), (200, "fine\n"));
        }
    }
}

#[test]
fn slow_and_cut_bodies_end() {
    let slow = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc";
    let runner = start(&[("fprocess", "cat"), ("read_timeout", "300ms")], &[]);
    let answer = support::parse(&runner.exchange(slow));
    assert_eq!((answer.status, answer.text().as_str()), (200, "abc"));
    runner.wait_for_log(": i/o timeout");
    runner.wait_for_log("POST / - 500");
    let runner = start(
        &[
            ("fprocess", "touch started"),
            ("read_timeout", "300ms"),
            SERIALIZING,
        ],
        &[],
    );
    let answer = support::parse(&runner.exchange(slow));
    assert!(
        answer.status == 500 && answer.text().ends_with(": i/o timeout"),
        "{answer:?}"
    );
    assert!(!runner.directory().join("started").exists());
}

#[test]
fn output_of_functions_is_logged() {
    let script = [(
        "f.sh",
        "echo one >&2; echo 1234567890 >&2; printf 'two\\r\\n' >&2; printf last >&2",
    )];
    let variables = [("fprocess", "sh f.sh"), ("log_buffer_size", "10")];
    let runner = start(&variables, &script);
    runner.get("/");
    runner.wait_for_log("GET / - 200");
    let found = lines(&runner);
    let begin = found
        .iter()
        .position(|line| line == "Started logging: stderr from function.")
        .expect("logged");
    assert_eq!(
        found[begin + 1..begin + 5],
        [
            "stderr: one",
            "Error reading stderr: bufio.Scanner: token too long",
            "stderr: two",
            "stderr: last"
        ]
    );
    let runner = start(&[variables[0], ("prefix_logs", "false")], &script);
    runner.get("/");
    runner.wait_for_log("GET / - 200");
    assert!(
        runner.log().contains("\none\n1234567890\ntwo\nlast\n"),
        "{}",
        runner.log()
    );
}

#[test]
fn kube_probes_are_not_logged() {
    let runner = start(&[("fprocess", "cat")], &[]);
    runner.send("GET", "/probe", &[("User-Agent", "kube-probe/1.2")], b"");
    runner.send("GET", "/other", &[("User-Agent", "x kube-probe")], b"");
    runner.wait_for_log("GET /other - 200 - ContentLength: 0B (0.");
    assert!(!runner.log().contains("GET /probe"), "{}", runner.log());
}

#[test]
fn json_logs_are_one_object_a_line() {
    let script = [("f.sh", "echo 'a \"quoted\" line' >&2; echo fine")];
    let runner = start(
        &[
            ("fprocess", "sh f.sh"),
            ("log_format", "json"),
            ("port", "0"),
        ],
        &script,
    );
    runner.send(
        "POST",
        "/x?y",
        &[("X-Call-Id", "7"), ("Traceparent", "00-t")],
        b"",
    );
    runner.wait_for_log("\"traceparent\"");
    let log = runner.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "a \"quoted\" line" && line["stream"] == "stderr"),
        "{log}"
    );
    let access = lines
        .iter()
        .find(|line| line["method"] == "POST")
        .expect("an access line");
    for (field, value) in [
        ("path", "/x?y"),
        ("call_id", "7"),
        ("traceparent", "00-t"),
        ("level", "info"),
    ] {
        assert_eq!(access[field], value, "{access}");
    }
    assert_eq!(
        (access["status"].as_u64(), access["bytes"].as_u64()),
        (Some(200), Some(5))
    );
    assert!(access["seconds"].is_f64() && access["time"].is_string());
}
