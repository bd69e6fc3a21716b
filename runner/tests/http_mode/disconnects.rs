//! Clients that close their sending side, and clients that disconnect.

use super::*;

#[test]
fn probes_may_close_their_sending_side() {
    let runner = start_http("http://127.0.0.1:1", &[]);
    for _ in 0..50 {
        let mut connection = runner.connect();
        connection
            .write_all(b"GET /_/health HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("sent");
        connection.shutdown(Shutdown::Write).expect("shut down");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).expect("read");
        assert_eq!(parse(&answer).text(), "OK");
    }
}

/// Of streams, too, which go another way.
#[test]
fn clients_may_close_their_sending_side() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    let plain = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let stream = plain.replacen("\r\n\r\n", "\r\nAccept: text/event-stream\r\n\r\n", 1);
    let body = "x".repeat(300_000);
    let length = body.len();
    let sized = format!("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
    let chunked = format!(
        "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
    );
    for requests in [
        vec![&plain],
        vec![&stream],
        vec![&sized],
        vec![&chunked],
        vec![&sized, &plain, &stream],
    ] {
        for _ in 0..10 {
            let mut connection = runner.connect();
            for request in &requests {
                connection.write_all(request.as_bytes()).expect("sent");
            }
            connection.shutdown(Shutdown::Write).expect("shut down");
            let mut answers = Vec::new();
            connection.read_to_end(&mut answers).expect("read");
            let answers = String::from_utf8_lossy(&answers);
            assert_eq!(
                answers.matches("HTTP/1.1 200 OK").count(),
                requests.len(),
                "{answers}"
            );
        }
    }
    assert!(!runner.log().contains("context canceled"));
}

/// Having closed its sending side, a client can still go away, which only a reset shows.
#[test]
fn a_reset_after_the_end_of_the_request_cancels() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    for (number, accept) in [(1, "text/plain"), (2, "text/event-stream")] {
        let mut connection = runner.connect();
        write!(
            connection,
            "GET /hang HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"
        )
        .expect("sent");
        connection.shutdown(Shutdown::Write).expect("shut down");
        wait_until("the request", || {
            upstream.hanging.load(Ordering::SeqCst) == number
        });
        reset(connection);
        wait_until("the cancellation", || {
            upstream.cancelled.load(Ordering::SeqCst) == number
        });
    }
    wait_until("nothing in flight", || {
        runner.metrics().contains("http_requests_in_flight 0\n")
    });
}

#[test]
fn a_request_that_ends_within_its_body_cancels() {
    let upstream = Upstream::new();
    let runner = start_http(&upstream.url(), &[]);
    for framing in ["Content-Length: 20", "Transfer-Encoding: chunked"] {
        let mut connection = runner.connect();
        write!(
            connection,
            "POST /a HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n4\r\nsome\r\n"
        )
        .expect("sent");
        connection.shutdown(Shutdown::Write).expect("shut down");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).expect("read");
        assert_eq!(parse(&answer).status, 504, "{framing}");
    }
}
