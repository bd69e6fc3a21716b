//! `/metrics`: every declared metric changes, and a request is counted before its response ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Write as _};
use std::net::TcpStream;

use faas_wasm_tests::http::{Request, Response, connect, reset};
use faas_wasm_tests::{Guest, Runner, RunnerCommand};

/// Metrics above zero that do not change while a process lives.
const CONSTANT: [&str; 4] = [
    "process_max_fds",
    "process_start_time_seconds",
    "process_virtual_memory_max_bytes",
    "wasm_artifact_load_seconds",
];

/// Labels for which every possible value must occur.
const LABELED: [(&str, &str, &[&str]); 3] = [
    (
        "wasm_instances_ended_total",
        "cause",
        &[
            "canceled",
            "cpu_time",
            "deadline",
            "exit",
            "input",
            "output_limit",
            "returned",
            "trap",
        ],
    ),
    (
        "wasm_limit_reached_total",
        "limit",
        &[
            "cpu_timeout",
            "exec_timeout",
            "fd_limit",
            "fs_quota",
            "max_inflight",
            "memory_limit",
            "output_limit",
            "queue_limit",
            "queue_wait",
            "stack_size",
            "table_limit",
            "x_timeout",
        ],
    ),
    ("wasm_trials_total", "outcome", &["ended", "repeated"]),
];

/// The values of each series over several scrapes.
#[derive(Default)]
struct Seen {
    series: BTreeMap<String, BTreeSet<String>>,
    families: BTreeSet<String>,
}

impl Seen {
    fn look(&mut self, runner: &Runner) {
        for line in runner.metrics().lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, _) = family.split_once(' ').expect("a name and a type");
                self.families.insert(name.to_owned());
            } else if !line.starts_with('#') && !line.is_empty() {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                let values = self.series.entry(series.to_owned()).or_default();
                values.insert(value.to_owned());
            }
        }
    }

    /// Whether any series of a family has changed, or has appeared with a value above zero.
    fn has_moved(&self, family: &str) -> bool {
        self.series.iter().any(|(series, values)| {
            let name = series.split('{').next().unwrap_or_default();
            let name = ["_count", "_sum", "_bucket"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|name| *name == family)
                .unwrap_or(name);
            let moved = values.len() > 1
                || (series.contains('{') && !series.contains("le=") && !values.contains("0"));
            name == family && moved
        })
    }

    fn has_counted(&self, series: &str) -> bool {
        self.series
            .get(series)
            .is_some_and(|values| values.iter().any(|value| value != "0"))
    }
}

fn obey(settings: &[(&str, &str)]) -> Runner {
    Guest::fixture("obey").serve().envs(settings).start()
}

fn begin(runner: &Runner, head: &str) -> TcpStream {
    let mut stream = connect(runner.address()).expect("it listens");
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    )
    .expect("written");
    stream
}

fn answer(stream: TcpStream) -> u16 {
    let response = Response::read(&mut BufReader::new(stream), false);
    response.expect("it is answered").status
}

/// Triggers everything that one runner can count.
fn drive(seen: &mut Seen) {
    let runner = obey(&[
        ("exec_timeout", "30s"),
        ("read_timeout", "500ms"),
        ("max_scale", "1"),
        ("wasm_queue_limit", "1"),
        ("wasm_cpu_timeout", "300ms"),
        ("wasm_memory_limit", "16Mi"),
        ("wasm_stack_size", "128Ki"),
        ("wasm_fd_limit", "10"),
        ("wasm_fs_quota", "64Ki"),
        ("wasm_output_limit", "1000"),
    ]);
    seen.look(&runner);
    for (target, status) in [
        ("/ok", 200),
        ("/exit/3", 500),
        ("/trap", 500),
        ("/stack", 500),
        ("/grow/100", 200),
        ("/open/100", 200),
        ("/write/100", 200),
        ("/print/2000", 500),
        // A spinning guest reaches the limit on CPU time first.
        ("/spin", 504),
    ] {
        assert_eq!(runner.get(target).status, status, "{target}");
        seen.look(&runner);
    }
    let request = Request::get("/sleep/60000").header("X-Timeout", "50ms");
    assert_eq!(runner.send(&request).status, 504);

    // The first request runs, the second waits too long, and the third exceeds the queue.
    let mut running = begin(&runner, "GET /sleep/60000");
    running.write_all(b"\r\n").expect("written");
    runner.wait_for_metric("wasm_instances_running", 1.0);
    let mut waiting = begin(&runner, "GET /ok");
    waiting
        .write_all(b"X-Timeout: 3s\r\n\r\n")
        .expect("written");
    runner.wait_for_metric("wasm_queue_length", 1.0);
    seen.look(&runner);
    assert_eq!(runner.get("/ok").status, 429);
    assert_eq!(answer(waiting), 504);
    // This client disconnects.
    reset(running);
    runner.wait_for_metric("wasm_instances_ended_total{cause=\"canceled\"}", 1.0);
    // This client stops in the middle of its body.
    let mut slow = begin(&runner, "POST /read/1");
    slow.write_all(b"Content-Length: 1000000\r\n\r\n")
        .and_then(|()| slow.write_all(&[b'x'; 100_000]))
        .expect("written");
    assert_eq!(answer(slow), 504);
    runner.wait_for_metric("wasm_instances_ended_total{cause=\"input\"}", 1.0);
    seen.look(&runner);
}

#[test]
fn every_declared_metric_moves() {
    let mut seen = Seen::default();
    drive(&mut seen);

    let runner = obey(&[("max_inflight", "1"), ("max_scale", "3")]);
    let more = Request::post("/scale-updater", r#"{"replicas":3}"#);
    assert_eq!(runner.send(&more).status, 200);
    runner.wait_for_metric("wasm_replicas", 3.0);
    seen.look(&runner);
    let mut running = begin(&runner, "GET /sleep/500");
    running.write_all(b"\r\n").expect("written");
    runner.wait_for_metric("http_requests_in_flight", 1.0);
    assert_eq!(runner.get("/ok").status, 429);
    assert_eq!(answer(running), 200);
    seen.look(&runner);

    // Such a run starts on the I/O thread, and soon moves to a replica.
    for _ in 0..20 {
        runner.warm_up("/ok");
        assert_eq!(runner.get("/sleep/1").status, 200);
        if runner.metric("wasm_trials_total{outcome=\"repeated\"}") > Some(0.0) {
            break;
        }
    }
    seen.look(&runner);

    let guest = Guest::fixture("grow-table");
    let runner = guest.serve().env("wasm_table_limit", "100").start();
    assert_eq!(runner.get("/").status, 200);
    seen.look(&runner);

    let guest = Guest::fixture("spin");
    let runner = guest.serve().env("exec_timeout", "50ms").start();
    assert_eq!(runner.get("/").status, 504);
    seen.look(&runner);

    // Resident memory and CPU time grow only over a longer time, so burn both.
    let burn = RunnerCommand::new("sh -c :").start();
    for _ in 0..50 {
        burn.get("/");
    }
    seen.look(&burn);

    for family in &seen.families {
        if CONSTANT.contains(&family.as_str()) {
            let value = runner.metric(family).or_else(|| burn.metric(family));
            assert!(value.is_some_and(|value| value != 0.0), "{family}");
        } else {
            assert!(seen.has_moved(family), "{family} never moves");
        }
    }
    for (name, label, values) in LABELED {
        for value in values {
            let series = format!("{name}{{{label}=\"{value}\"}}");
            assert!(seen.has_counted(&series), "{series} never counts");
        }
    }
    let declared: BTreeSet<_> = seen
        .series
        .keys()
        .filter_map(|series| series.strip_prefix("wasm_limit_reached_total{limit=\""))
        .filter_map(|rest| rest.strip_suffix("\"}"))
        .collect();
    let known: BTreeSet<_> = LABELED[1].2.iter().copied().collect();
    assert_eq!(declared, known, "a limit without a test");
}

/// A client that has read the last byte of a response finds the request counted and no longer in flight.
#[test]
fn a_request_is_counted_before_its_response_ends() {
    let wasm = Guest::fixture("obey");
    let files = faas_wasm_tests::Work::new();
    files.write("large", vec![b'x'; 3_000_000]);
    for (command, target, size) in [
        (wasm.serve(), "/ok", 5),
        (wasm.serve(), "/print/3000000", 3_000_000),
        (
            RunnerCommand::new("head -c 3000000 /dev/zero"),
            "/",
            3_000_000,
        ),
        (RunnerCommand::new("echo hello"), "/", 6),
        (
            RunnerCommand::new("head -c 3000000 /dev/zero").env("mode", "serializing"),
            "/",
            3_000_000,
        ),
        (
            RunnerCommand::new("none")
                .env("mode", "static")
                .env("static_path", files.path()),
            "/large",
            3_000_000,
        ),
    ] {
        let runner = command.start();
        for count in 1..=20 {
            let response = runner.get(target);
            assert_eq!((response.status, response.body.len()), (200, size));
            let text = runner.metrics();
            let counted = format!("http_requests_total{{code=\"200\",method=\"get\"}} {count}\n");
            assert!(text.contains(&counted), "{counted}{text}");
            assert!(text.contains("http_requests_in_flight 0\n"), "{text}");
        }
    }
}
