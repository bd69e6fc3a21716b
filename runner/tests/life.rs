//! From start to end: flags, exit codes, start order, lock file and probes, shutdown.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{last_line, launch, start, start_by, wait_until};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_faas-wasm-runner"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("runs");
    assert_eq!(
        output.stdout, b"",
        "nothing of the runner's own goes to stdout"
    );
    (
        output.status.code(),
        String::from_utf8(output.stderr).expect("text"),
    )
}

#[test]
fn flags_follow_go() {
    let (code, text) = run(&["--version"], &[]);
    assert_eq!(code, Some(0));
    assert!(
        text.contains(" Version: ") && text.contains("\tSHA: "),
        "{text}"
    );
    let (code, text) = run(&["-h"], &[]);
    assert!(
        code == Some(0) && text.contains("-run-healthcheck") && !text.contains("Version:"),
        "{text}"
    );
    let (code, text) = run(&["-x"], &[]);
    assert!(
        code == Some(2) && text.starts_with("flag provided but not defined: -x\n"),
        "{text}"
    );
    let (code, text) = run(
        &["--run-healthcheck"],
        &[("fprocess", "cat"), ("TMPDIR", "/nonexistent")],
    );
    assert!(
        code == Some(1) && text.ends_with("unable to find lock file.\n"),
        "{text}"
    );
}

#[test]
fn health_check_looks_at_the_lock_file() {
    let runner = start(&[("fprocess", "cat")], &[]);
    let directory = runner.directory().to_str().expect("text").to_owned();
    let (code, _) = run(
        &["--run-healthcheck"],
        &[("fprocess", "cat"), ("TMPDIR", &directory)],
    );
    assert_eq!(code, Some(0));
}

#[test]
fn configuration_errors_end_the_start() {
    for (variables, code, text) in [
        (
            &[][..],
            1,
            "Error loading config: provide a \"function_process\" or \"fprocess\" environmental variable for your function",
        ),
        (
            &[("fprocess", "cat"), ("write_timeout", "0s")],
            1,
            "Error loading config: HTTP write timeout must be over 0s",
        ),
        (
            &[("fprocess", "cat"), ("log_buffer_size", "x")],
            1,
            "invalid log_buffer_size value: x, error: strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (
            &[("fprocess", "cat"), ("mode", "HTTP")],
            2,
            "unknown watchdog mode: 0",
        ),
        (
            &[("fprocess", "cat"), ("mode", "afterburn")],
            2,
            "unknown watchdog mode: 3",
        ),
        (&[("fprocess", "cat"), ("mode", "inproc")], 2, "mode=inproc"),
        (
            &[("fprocess", "cat"), ("mode", "http")],
            1,
            "For \"mode=http\" you must specify a valid URL for \"http_upstream_url\"",
        ),
        (
            &[("mode", "static"), ("static_path", "")],
            1,
            "For mode=static you must specify the \"static_path\" to serve",
        ),
        (
            &[("fprocess", "cat"), ("mode", "wasm")],
            1,
            "hint: run `faas-wasm build",
        ),
        (
            &[
                ("fprocess", "cat"),
                ("jwt_auth", "1"),
                ("OPENFAAS_NAMESPACE", "fn"),
            ],
            1,
            "Error: error creating JWTAuthMiddleware: failed to get function name: env variable 'OPENFAAS_NAME' not set",
        ),
    ] {
        let mut runner = launch(variables, &[]);
        assert_eq!(runner.wait(), Some(code), "{variables:?}: {}", runner.log());
        assert!(
            runner.log().contains(text),
            "{variables:?}: {}",
            runner.log()
        );
    }
}

#[test]
fn strict_errors_are_reported_together() {
    let variables = [
        ("fprocess", "cat"),
        ("wasm_fs_quota", "x"),
        ("max_scale", "0"),
        ("log_format", "xml"),
    ];
    let mut runner = launch(&variables, &[]);
    assert_eq!(runner.wait(), Some(2));
    for name in [
        "wasm_fs_quota=\"x\"",
        "max_scale=\"0\"",
        "log_format=\"xml\"",
    ] {
        assert!(runner.log().contains(name), "{}", runner.log());
    }
}

#[test]
fn a_missing_artifact_is_reported_by_name() {
    for mode in ["", "wasm"] {
        let mut runner = launch(
            &[("fprocess", "./f.wasm arg"), ("mode", mode)],
            &[("f.wasm", "\0asm\x01\0\0\0")],
        );
        assert_eq!(runner.wait(), Some(1));
        assert!(
            runner.log().contains("run `faas-wasm build ./f.wasm`"),
            "{}",
            runner.log()
        );
    }
}

#[test]
fn taken_ports_end_the_start() {
    let runner = start(&[("fprocess", "cat")], &[]);
    let port = runner.port().to_string();
    let mut second = launch(&[("fprocess", "cat"), ("port", &port)], &[]);
    assert_eq!(second.wait(), Some(1));
    let message = format!("Error ListenAndServe: listen tcp :{port}: bind: address already in use");
    assert!(
        last_line(&second.log()).ends_with(&message),
        "{}",
        second.log()
    );
    let mut third = launch(&[("fprocess", "cat"), ("metrics_port", &port)], &[]);
    assert_eq!(third.wait(), Some(2));
    assert!(
        third.log().contains("metrics error ListenAndServe"),
        "{}",
        third.log()
    );
}

#[test]
fn start_lines_are_the_originals() {
    let runner = start(
        &[
            ("fprocess", "cat \"x\""),
            ("read_timeout", "90"),
            ("exec_timeout", "1500ms"),
        ],
        &[],
    );
    let log = runner.log();
    let lock_file = format!("Writing lock-file to: {}", runner.lock_file().display());
    for text in [
        "Watchdog mode: streaming\tfprocess: \"cat \\\"x\\\"\"",
        "Timeouts: read: 1m30s write: 30s hard: 1.5s health: 30s",
        "Listening on port: 0",
        &lock_file,
    ] {
        assert!(
            log.lines().any(|line| line.get(20..) == Some(text)),
            "{text} in {log}"
        );
    }
}

#[test]
fn probes_follow_the_lock_file() {
    let runner = start(&[("fprocess", "cat")], &[]);
    assert_eq!(
        (
            runner.get("/_/health").text().as_str(),
            runner.get("/_/ready").status
        ),
        ("OK", 200)
    );
    for method in ["HEAD", "POST"] {
        assert_eq!(runner.send(method, "/_/health", &[], b"").status, 405);
        assert_eq!(runner.send(method, "/_/ready", &[], b"").status, 405);
    }
    std::fs::remove_file(runner.lock_file()).expect("removed");
    assert_eq!(
        (
            runner.get("/_/health").status,
            runner.get("/_/ready").status,
            runner.get("/").status
        ),
        (503, 503, 200)
    );
    std::fs::write(runner.lock_file(), "").expect("written");
    assert_eq!(runner.get("/_/health").status, 200);
}

#[test]
fn suppressed_locks_keep_the_probes_failing() {
    let mut runner = start(
        &[
            ("fprocess", "cat"),
            ("suppress_lock", "1"),
            ("healthcheck_interval", "0"),
        ],
        &[],
    );
    runner.wait_for_log("Warning: \"suppress_lock\" is enabled.");
    assert_eq!(
        (runner.get("/_/health").status, runner.get("/").status),
        (503, 200)
    );
    runner.signal("TERM");
    assert_eq!(runner.wait(), Some(0));
    assert!(
        runner
            .log()
            .contains("Unable to mark server as unhealthy: remove "),
        "{}",
        runner.log()
    );
}

#[test]
fn ready_asks_the_function() {
    let runner = start(&[("fprocess", "env"), ("ready_path", "/is/ready")], &[]);
    let answer = runner.send("GET", "/_/ready?x=1", &[("X-Probe", "p")], b"");
    let text = answer.text();
    for line in ["Http_Path=/is/ready", "Http_Method=GET", "Http_X_Probe=p"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("Http_Query"), "{text}");
    runner.wait_for_log("GET /is/ready - 200");
    assert!(
        !runner.metrics().contains("http_requests_total{"),
        "probes are not counted"
    );
}

#[test]
fn termination_drains() {
    let variables = [
        ("fprocess", "sh slow.sh"),
        ("healthcheck_interval", "500ms"),
        ("write_timeout", "10s"),
    ];
    let mut runner = start(
        &variables,
        &[(
            "slow.sh",
            "while [ ! -e go ]; do sleep 0.05; done; echo done",
        )],
    );
    let mut slow = runner.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        .expect("sent");
    runner.wait_for_log("Started logging");
    runner.signal("TERM");
    runner.signal("TERM");
    runner.wait_for_log("SIGTERM: no new connections in 500ms");
    runner.wait_for_log("Removing lock-file : ");
    assert_eq!(runner.get("/_/health").status, 503, "still served");
    runner.wait_for_log("No new connections allowed, draining: 1 requests");
    std::fs::write(runner.directory().join("go"), "").expect("written");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("read");
    assert!(answer.ends_with("done\n"), "{answer}");
    assert_eq!(runner.wait(), Some(0));
    let log = runner.log();
    assert!(
        last_line(&log).ends_with("Exiting. Active connections: 0"),
        "{log}"
    );
    assert_eq!(log.matches("SIGTERM: no new").count(), 1);
    assert!(!runner.lock_file().exists());
}

#[test]
fn a_drain_that_takes_too_long_is_given_up() {
    let variables = [
        ("fprocess", "sleep 30"),
        ("healthcheck_interval", "0"),
        ("write_timeout", "200ms"),
    ];
    let mut runner = start(&variables, &[]);
    let mut slow = runner.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        .expect("sent");
    runner.wait_for_log("Started logging");
    let began = Instant::now();
    runner.signal("TERM");
    assert_eq!(runner.wait(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(
        runner
            .log()
            .contains("Error in Shutdown: context deadline exceeded"),
        "{}",
        runner.log()
    );
    assert!(
        last_line(&runner.log()).ends_with("Exiting. Active connections: 1"),
        "{}",
        runner.log()
    );
}

#[test]
fn interrupts_are_not_handled() {
    let mut runner = start(&[("fprocess", "cat")], &[]);
    runner.signal("INT");
    assert_eq!(runner.wait(), None);
    assert!(runner.lock_file().exists());
}

/// Without `mode`, a command that has the name of an artifact and is none would be run as a program at each request.
#[test]
fn a_missing_artifact_is_told_at_the_start() {
    let unset = [
        ("./a.so", "no artifact \"./a.so\" in "),
        ("a.so --flag", "no such file or directory"),
        (
            "./missing.wasm",
            "hint: build it with `faas-wasm build MODULE.wasm`",
        ),
        ("./built.so", "hint: run `faas-wasm build ./built.wasm`"),
        ("./built.wasm", "hint: run `faas-wasm build ./built.wasm`"),
        (
            "./text.so",
            "it is neither an artifact nor a WebAssembly module",
        ),
        (
            "./text.wasm",
            "it is neither an artifact nor a WebAssembly module",
        ),
        (
            "/nonexistent/a.wasm",
            "no artifact \"/nonexistent/a.wasm\": ",
        ),
    ];
    let files = [
        ("built.wasm", "\0asm\x01\0\0\0"),
        ("text.so", "x"),
        ("text.wasm", "x"),
    ];
    for (fprocess, told) in unset {
        let mut runner = launch(&[("fprocess", fprocess)], &files);
        assert_eq!(runner.wait(), Some(1), "{}", runner.log());
        assert!(runner.log().contains(told), "{told}: {}", runner.log());
        assert!(!runner.lock_file().exists());
    }
    // Who asks for streaming mode gets it, and a program may have any name.
    let runner = start(&[("fprocess", "./a.so"), ("mode", "streaming")], &[]);
    assert_eq!(runner.get("/").status, 200);
    let programs = tempfile::tempdir().expect("a directory");
    let program = programs.path().join("program.so");
    std::fs::write(&program, "#!/bin/sh\necho ran\n").expect("written");
    let rights = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, rights).expect("set");
    let search_path = format!("{}:/usr/bin:/bin", programs.path().display());
    for fprocess in [program.to_str().expect("text"), "program.so"] {
        let runner = start(&[("fprocess", fprocess), ("PATH", &search_path)], &[]);
        assert_eq!(runner.get("/").text(), "ran\n", "{}", runner.log());
    }
}

/// With `log_format=json` not even a start that fails leaves JSON.
#[test]
fn failed_starts_are_told_in_json_too() {
    for (variables, text) in [
        (
            &[("mode", "streaming")][..],
            "Error loading config: provide a",
        ),
        (
            &[("fprocess", "cat"), ("mode", "nope")],
            "unknown watchdog mode: 0",
        ),
        (
            &[("fprocess", "cat"), ("max_scale", "x")],
            "max_scale=\"x\"",
        ),
        (
            &[("fprocess", "cat"), ("mode", "http")],
            "you must specify a valid URL",
        ),
        (
            &[("mode", "static"), ("static_path", "")],
            "you must specify the",
        ),
        (&[("fprocess", "cat"), ("mode", "wasm")], "no artifact for"),
    ] {
        let variables = [variables, &[("log_format", "json")]].concat();
        let mut runner = launch(&variables, &[]);
        assert_ne!(runner.wait(), Some(0));
        let log = runner.log();
        let mut found = false;
        for line in log.lines() {
            let line: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let message = line["message"].as_str().expect("a text");
            assert!(line["time"].is_string() && line["level"].is_string());
            found |= message.contains(text) && line["level"] == "error";
        }
        assert!(found, "{text} in {log}");
    }
}

/// The probe's request is the platform's and takes no place of a client's.
#[test]
fn asking_the_function_takes_no_place_under_the_limit() {
    let variables = [
        ("fprocess", "sh f.sh"),
        ("ready_path", "/ready"),
        ("max_inflight", "1"),
    ];
    let script =
        "[ \"$Http_Path\" != /ready ] || { touch asked; while [ ! -e go ]; do sleep 0.05; done; }";
    let runner = start(&variables, &[("f.sh", script)]);
    let mut probe = runner.connect();
    probe
        .write_all(b"GET /_/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("sent");
    wait_until("the question", || runner.directory().join("asked").exists());
    assert_eq!(runner.get("/").status, 200);
    std::fs::write(runner.directory().join("go"), "").expect("written");
    let mut answer = Vec::new();
    probe.read_to_end(&mut answer).expect("read");
    assert_eq!(support::parse(&answer).status, 200);
}

/// The kernel gives PID 1 no signal whose action is the default one; Go's programs end there all the same.
#[test]
fn interrupts_end_the_first_process() {
    const NAME: &str = "interrupts_end_the_first_process";
    let unshare = [
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
    ];
    let allowed = Command::new("unshare").args(unshare).arg("true").status();
    if !allowed.is_ok_and(|status| status.success()) {
        support::skip(NAME, "no PID namespaces here");
        return;
    }
    for signal in ["INT", "HUP", "QUIT"] {
        let mut command = Command::new("unshare");
        command.args(unshare);
        let mut runner = start_by(command, &[("fprocess", "cat")], &[]);
        let children = format!("/proc/{0}/task/{0}/children", runner.pid());
        let first = std::fs::read_to_string(children).expect("read");
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), first.trim()])
            .status();
        assert!(sent.expect("kill runs").success());
        assert_eq!(runner.wait(), Some(2), "{signal}");
    }
}
