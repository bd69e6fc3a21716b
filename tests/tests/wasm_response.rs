//! Wasm mode: a function sets the status and the headers of its response.

use faas_wasm_tests::http::Response;
use faas_wasm_tests::{Guest, Runner};

fn runner(format: &str) -> Runner {
    let guest = Guest::fixture("respond");
    guest.serve().env("wasm_response", format).start()
}

fn all<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
    let found = response.headers.iter();
    found
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect()
}

#[test]
fn the_response_file_sets_the_head() {
    let mut runner = runner("raw");
    let response = runner.post(
        "/file",
        "Status: 418 short and stout\nX-One: 1\nSet-Cookie: a=1\r\nset-cookie: b=2\n\n\
         Content-Type: text/x-test\nConnection: keep-alive\nTransfer-Encoding: chunked\nContent-Length: 1\nX-Last: no end",
    );
    assert_eq!(response.status, 418, "{}", runner.log());
    assert_eq!(response.text(), "ok\n");
    assert!(response.complete);
    for (name, values) in [
        ("X-One", &["1"][..]),
        ("Set-Cookie", &["a=1", "b=2"]),
        ("Content-Type", &["text/x-test"]),
        ("X-Last", &["no end"]),
        ("Content-Length", &["3"]),
        ("Transfer-Encoding", &[]),
        ("Connection", &["close"]),
    ] {
        assert_eq!(all(&response, name), values, "{name}");
    }
    assert_eq!(all(&response, "X-Duration-Seconds").len(), 1);
    runner.wait_for_log("POST /file - 418 - ContentLength: 3B");
    assert_eq!(
        runner.metric("http_requests_total{code=\"418\",method=\"post\"}"),
        Some(1.0)
    );
    // The next request must not see any of it.
    let next = runner.post("/file", "");
    assert_eq!((next.status, all(&next, "X-One").len()), (200, 0));
    assert_eq!(
        all(&next, "Content-Type"),
        ["application/octet-stream"],
        "the default"
    );
}

#[test]
fn bodiless_statuses_have_no_body() {
    let runner = runner("raw");
    for status in [204, 304] {
        let response = runner.post("/file", format!("Status: {status}\nETag: \"1\"\n"));
        assert_eq!((response.status, response.body.len()), (status, 0));
        assert_eq!(all(&response, "ETag"), ["\"1\""]);
        assert!(all(&response, "Content-Type").is_empty());
    }
}

#[test]
fn malformed_header_lines_are_refused() {
    let mut runner = runner("raw");
    for (lines, log) in [
        ("no colon\n", "line 1 is no `Name: value`"),
        ("X: fine\nb ad: x\n", "line 2 is no `Name: value`"),
        ("X: cr\rlf\n", "line 1 has a value with a character"),
        ("X: nul\0\n", "line 1 has a value with a character"),
        ("Status: 101\n", "the status in line 1"),
        ("Status: abc\n", "the status in line 1"),
    ] {
        let response = runner.post("/file", lines);
        assert_eq!(response.status, 200, "{lines:?}");
        assert_eq!(response.text(), "Invalid argument\n", "{lines:?}");
        runner.wait_for_log(&format!("line for /dev/faas/response was refused: {log}"));
    }
    // Lines before the bad one still count.
    assert_eq!(all(&runner.post("/file", "X: a\nbad\n"), "X"), ["a"]);
}

#[test]
fn a_response_head_is_limited() {
    let mut runner = runner("raw");
    let many: String = (0..100).map(|number| format!("X-{number}: y\n")).collect();
    let response = runner.post("/file", many.clone());
    assert_eq!(
        (response.text().as_str(), all(&response, "X-99")),
        ("ok\n", vec!["y"])
    );
    let response = runner.post("/file", many + "One: more\n");
    assert_eq!(response.text(), "Invalid argument\n");
    assert!(all(&response, "One").is_empty());
    runner.wait_for_log("more than 100 fields");
    let response = runner.post("/file", format!("X: {}\n", "y".repeat(70_000)));
    assert_eq!(response.text(), "Invalid argument\n");
    runner.wait_for_log("longer than 65536 bytes");
}

/// A change of the head after it has been sent is an error.
#[test]
fn a_head_that_was_sent_cannot_be_changed() {
    let runner = runner("raw");
    let response = runner.post("/late", "Status: 404\nX: y\n");
    assert_eq!(response.status, 200);
    assert!(response.complete);
    assert_eq!(&response.body[2 << 20..], b"Broken pipe\n");
    assert!(all(&response, "X").is_empty());
}

/// If the run fails, the file has no effect.
#[test]
fn failures_keep_their_status() {
    let guest = Guest::fixture("respond");
    let runner = guest.serve().env("wasm_output_limit", "1").start();
    let response = runner.post("/file", "Status: 201\nX: y\n");
    assert_eq!((response.status, all(&response, "X").len()), (500, 0));
}

#[test]
fn cgi_heads_are_taken_from_the_output() {
    let mut runner = runner("cgi");
    let response = runner.post(
        "/print",
        "Status: 404 Not Found\r\nContent-Type: text/plain\r\nSet-Cookie: 1\r\nSet-Cookie: 2\r\n\r\nno such thing\n",
    );
    assert_eq!(response.status, 404);
    assert_eq!(response.text(), "no such thing\n");
    assert_eq!(all(&response, "Content-Type"), ["text/plain"]);
    assert_eq!(all(&response, "Set-Cookie"), ["1", "2"]);
    assert_eq!(all(&response, "Content-Length"), ["14"]);
    runner.wait_for_log("POST /print - 404 - ContentLength: 14B");
    let response = runner.post("/print", "Location: /elsewhere\n\n");
    assert_eq!((response.status, response.body.len()), (302, 0));
    assert_eq!(all(&response, "Location"), ["/elsewhere"]);
    // A long body is streamed.
    let body = "x".repeat(900_000);
    let response = runner.post("/print", format!("Content-Type: a/b\n\n{body}"));
    assert_eq!((response.status, response.complete), (200, true));
    assert!(response.text() == body);
}

#[test]
fn malformed_cgi_heads_are_a_bad_gateway() {
    let mut runner = runner("cgi");
    for (output, log) in [
        ("", "the output ends before an empty line"),
        (
            "Content-Type: a/b\n",
            "the output ends before an empty line",
        ),
        ("X: y\n\nbody", "there is neither Content-Type nor Location"),
        ("what\n\nbody", "line 1 is no `Name: value`"),
        ("Content-Type: a\nStatus: 7\n\n", "the status in line 2"),
    ] {
        let response = runner.post("/print", output);
        assert_eq!(response.status, 502, "{output:?}: {}", response.text());
        runner.wait_for_log(&format!("CGI response is not valid: {log}"));
    }
    let response = runner.post("/print", "X: y\n".repeat(20_000));
    assert_eq!(response.status, 502);
    runner.wait_for_log("CGI response is not valid: it is longer than 65536 bytes");
    runner.wait_for_log("POST /print - 502 - ContentLength: 0B");
    assert!(
        runner
            .metrics()
            .contains("http_requests_total{code=\"502\",method=\"post\"} 6\n"),
        "{}",
        runner.metrics()
    );
}
