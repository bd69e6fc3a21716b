//! The limit of open files, and what connections and requests leave behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use support::{Runner, start, start_below, wait_until};

/// Prints its limits of open files, soft and hard.
const LIMITS: &[(&str, &str)] = &[("limits.sh", "ulimit -S -n; ulimit -H -n")];

fn max_fds(runner: &Runner) -> f64 {
    let metrics = runner.metrics();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_max_fds "));
    line.expect("it is there").parse().expect("a number")
}

#[test]
fn the_limit_is_raised_for_us_and_not_for_the_function() {
    for mode in ["streaming", "serializing"] {
        let runner = start_below(
            "ulimit -S -n 256; ulimit -H -n 2000",
            &[
                ("fprocess", "sh limits.sh"),
                ("mode", mode),
                ("max_connections", "300"),
            ],
            LIMITS,
        );
        assert_eq!(runner.get("/").text(), "256\n2000\n", "{mode}");
        // A request is a connection, three pipes and a process.
        let raised = max_fds(&runner);
        assert!(raised > 1500.0 && raised <= 2000.0, "{raised}");
        assert!(!runner.log().contains("Warning"), "{}", runner.log());
    }
}

#[test]
fn a_limit_that_is_high_enough_stays() {
    let runner = start_below(
        "ulimit -S -n 1500",
        &[("fprocess", "sh limits.sh"), ("max_connections", "200")],
        LIMITS,
    );
    assert!((max_fds(&runner) - 1500.0).abs() < 0.5);
    assert!(runner.get("/").text().starts_with("1500\n"));
}

#[test]
fn a_limit_that_cannot_be_raised_enough_is_told() {
    let runner = start_below(
        "ulimit -n 256",
        &[("fprocess", "cat"), ("max_connections", "1000")],
        &[],
    );
    runner.wait_for_log(
        "Warning: the limit of open files is 256, but max_connections=1000 can need 5128. \
         Raise it (ulimit -n 5128, docker run --ulimit nofile=5128) or lower these settings.",
    );
    assert_eq!(runner.send("POST", "/", &[], b"here").text(), "here");
}

/// More connections than there are descriptors: accepting goes on as soon as there are some again.
#[test]
fn running_out_of_descriptors_passes() {
    let runner = start_below("ulimit -n 64", &[("fprocess", "cat")], &[]);
    let connections: Vec<TcpStream> = (0..100).map(|_| runner.connect()).collect();
    runner.wait_for_log("http: Accept error: ");
    drop(connections);
    wait_until("an answer", || runner.get("/_/health").status == 200);
    assert_eq!(runner.send("POST", "/", &[], b"here").text(), "here");
}

/// Descriptors and threads of a process.
fn holdings(runner: &Runner) -> (usize, usize) {
    let count = |what: &str| {
        let entries = std::fs::read_dir(format!("/proc/{}/{what}", runner.pid()));
        entries.expect("it lives").count()
    };
    (count("fd"), count("task"))
}

/// What hostile, slow and impatient clients send; each is followed by a close, in one of two ways.
const INSULTS: &[&[u8]] = &[
    b"",
    b"G",
    b"GET / HTTP/1.1\r\nHost: x\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
];

#[test]
fn clients_that_leave_take_everything_along() {
    for mode in ["streaming", "serializing", "static"] {
        let runner = start(
            &[
                ("fprocess", "cat"),
                ("mode", mode),
                ("static_path", "."),
                ("read_timeout", "1s"),
                ("log_buffer_size", "1024"),
            ],
            &[],
        );
        let insult = |rounds: usize| {
            for round in 0..rounds {
                for bytes in INSULTS {
                    let mut stream = runner.connect();
                    // It may have been refused already.
                    let _ = stream.write_all(bytes);
                    if round % 2 == 0 {
                        let _ = stream.shutdown(Shutdown::Write);
                        let _ = stream.read_to_end(&mut Vec::new());
                    }
                }
            }
        };
        insult(2);
        wait_until("quiet", || holdings(&runner).0 < 40);
        let before = holdings(&runner);
        insult(20);
        // As many as before, give or take a worker of the runtime.
        wait_until("everything is given back", || {
            let now = holdings(&runner);
            now.0 <= before.0 + 2 && now.1 <= before.1 + 2
        });
        assert_eq!(runner.get("/").status, 200, "{mode}");
        wait_until("nothing in flight", || {
            runner.metrics().contains("http_requests_in_flight 0\n")
        });
    }
}

/// Ten thousand connections that say nothing, or half of something; others are served meanwhile.
#[test]
fn ten_thousand_idle_connections() {
    // The client's ends are descriptors too.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = 10_200;
    if limit.maximum.is_some_and(|hard| hard < wanted) {
        // Not silently: the run shows which test it was.
        panic!("this test needs {wanted} descriptors: raise the hard limit of open files");
    }
    let raised = rustix::process::Rlimit {
        current: Some(limit.current.unwrap_or(wanted).max(wanted)),
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("raised");

    let runner = start(
        &[
            ("fprocess", "cat"),
            ("read_timeout", "15s"),
            ("max_connections", "10050"),
        ],
        &[],
    );
    let before = holdings(&runner);
    let mut connections = Vec::new();
    for number in 0..10_000 {
        let mut stream = runner.connect();
        if number % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nHos").expect("sent");
        }
        connections.push(stream);
    }
    // Not counted from `before`: start-up may have held something more for a moment.
    wait_until("all of them", || holdings(&runner).0 >= 10_000);
    for _ in 0..10 {
        assert_eq!(runner.send("POST", "/", &[], b"here").text(), "here");
    }
    assert!(holdings(&runner).1 <= before.1 + 4, "no thread each");
    drop(connections);
    wait_until("everything is given back", || {
        holdings(&runner).0 <= before.0 + 4
    });
    assert_eq!(runner.get("/").status, 200);
}

/// Requests that are refused at `max_inflight` need nothing but their connection.
#[test]
fn each_mode_gets_what_its_requests_need() {
    for (settings, needed) in [
        (&[("mode", "static"), ("static_path", ".")][..], 2128.0),
        (
            &[
                ("mode", "http"),
                ("fprocess", "sleep 60"),
                ("upstream_url", "http://127.0.0.1:1"),
            ],
            2128.0,
        ),
        (&[("fprocess", "true"), ("max_inflight", "10")], 1168.0),
    ] {
        let mut variables = settings.to_vec();
        variables.push(("max_connections", "1000"));
        let runner = start_below("ulimit -S -n 256", &variables, &[]);
        let raised = max_fds(&runner);
        assert!((raised - needed).abs() < 0.5, "{settings:?}: {raised}");
    }
}
