//! Static mode.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use support::{Runner, start};

fn site() -> Runner {
    let files = [
        ("hello.txt", "hello world"),
        ("page.html", "<p>x"),
        ("script.js", "1"),
        ("data.json", "{}"),
        ("plain", "just text"),
        ("markup", "<!DOCTYPE html><p>x"),
        ("binary", "\0\x01\x02"),
        (".hidden", "dot"),
        ("module.wasm", "x"),
    ];
    let runner = start(&[("mode", "static"), ("static_path", ".")], &files);
    std::fs::create_dir(runner.directory().join("sub")).expect("made");
    std::fs::write(runner.directory().join("sub/index.html"), "<p>index").expect("written");
    runner
}

#[test]
fn files_are_served_with_their_type() {
    let runner = site();
    for (target, kind) in [
        ("/hello.txt", "text/plain; charset=utf-8"),
        ("/page.html", "text/html; charset=utf-8"),
        ("/script.js", "text/javascript; charset=utf-8"),
        ("/data.json", "application/json"),
        ("/module.wasm", "application/wasm"),
        ("/plain", "text/plain; charset=utf-8"),
        ("/markup", "text/html; charset=utf-8"),
        ("/binary", "application/octet-stream"),
        ("/.hidden", "text/plain; charset=utf-8"),
        ("/sub/", "text/html; charset=utf-8"),
    ] {
        let answer = runner.get(target);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(kind)),
            "{target}"
        );
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert_eq!(
            answer.header("content-length"),
            Some(answer.body.len().to_string().as_str())
        );
        assert!(answer.header("last-modified").is_some() && answer.header("etag").is_none());
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(
            runner.send(method, "/hello.txt", &[], b"").text(),
            "hello world",
            "{method}"
        );
    }
    let head = runner.send("HEAD", "/hello.txt", &[], b"");
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, Some("11"), 0)
    );
    assert!(
        !runner.log().contains("hello.txt"),
        "static mode has no access log"
    );
    assert!(
        runner
            .metrics()
            .contains("http_requests_total{code=\"200\",method=\"put\"} 1")
    );
}

#[test]
fn redirects_are_relative() {
    let runner = site();
    for (target, location) in [
        ("/sub?q", "sub/?q"),
        ("/sub/index.html", "./"),
        ("/hello.txt/", "../hello.txt"),
    ] {
        let answer = runner.get(target);
        assert_eq!(
            (answer.status, answer.header("location")),
            (301, Some(location)),
            "{target}"
        );
    }
}

#[test]
fn directories_are_listed() {
    let runner = site();
    let listing = runner.get("/").text();
    assert!(
        listing.starts_with("<!doctype html>\n<meta name=\"viewport\""),
        "{listing}"
    );
    for line in [
        "<a href=\"hello.txt\">hello.txt</a>",
        "<a href=\"sub/\">sub/</a>",
        "<a href=\".hidden\">.hidden</a>",
    ] {
        assert!(
            listing.lines().any(|found| found == line),
            "{line} in {listing}"
        );
    }
}

#[test]
fn ranges_and_conditions_apply() {
    let runner = site();
    let get = |name: &str, value: &str| runner.send("GET", "/hello.txt", &[(name, value)], b"");
    let part = get("Range", "bytes=6-");
    assert_eq!(
        (part.status, part.header("content-range")),
        (206, Some("bytes 6-10/11"))
    );
    assert_eq!(part.text(), "world");
    let parts = get("Range", "bytes=0-0,-1");
    assert!(
        parts
            .header("content-type")
            .expect("there")
            .starts_with("multipart/byteranges; boundary=")
    );
    assert_eq!(parts.text().matches("Content-Range: bytes ").count(), 2);
    let beyond = get("Range", "bytes=11-");
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */11"))
    );
    assert!(
        beyond
            .head
            .starts_with("HTTP/1.1 416 Requested Range Not Satisfiable\r\n")
    );
    let modified = runner
        .get("/hello.txt")
        .header("last-modified")
        .expect("there")
        .to_owned();
    let unchanged = get("If-Modified-Since", &modified);
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    assert_eq!(
        get("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT").status,
        412
    );
}

#[test]
fn the_root_is_not_left() {
    let runner = site();
    for target in [
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/sub/%2e%2e/%2e%2e/etc/passwd",
    ] {
        assert_eq!(runner.get(target).status, 404, "{target}");
    }
    let missing = runner.get("/missing");
    assert_eq!(
        (missing.status, missing.text().as_str()),
        (404, "404 page not found\n")
    );
    assert_eq!(missing.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn large_files_arrive_whole() {
    let runner = site();
    let data: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(runner.directory().join("large"), &data).expect("written");
    assert!(runner.get("/large").body == data);
    assert!(
        runner
            .send("GET", "/large", &[("Range", "bytes=1000000-3999999")], b"")
            .body
            == data[1_000_000..4_000_000]
    );
}

#[test]
fn clients_may_close_their_sending_side() {
    let runner = site();
    for _ in 0..20 {
        let mut connection = runner.connect();
        connection
            .write_all(b"GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("sent");
        connection.shutdown(Shutdown::Write).expect("shut down");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).expect("read");
        assert_eq!(support::parse(&answer).text(), "hello world");
    }
}

#[test]
fn a_missing_root_is_no_error() {
    let runner = start(&[("mode", "static"), ("static_path", "/nonexistent")], &[]);
    assert_eq!(runner.get("/").status, 404);
    runner.wait_for_log("Serving files at: /nonexistent");
}
