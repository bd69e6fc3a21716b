//! The system refuses memory: the runner reports a clear error, and serves with the replicas that it has.

use std::process::Command;
use std::time::{Duration, Instant};

use faas_wasm_tests::http::Request;
use faas_wasm_tests::{Guest, Outcome, Runner, runner_program};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Runs the runner in a shell that limits its address space to this many KiB.
fn limited(kibibytes: u64, guest: &Guest, environment: &[(&str, &str)]) -> Outcome {
    Outcome::of(
        Command::new("sh")
            .args(["-c", &format!("ulimit -v {kibibytes}; exec \"$0\"")])
            .arg(runner_program())
            .env_clear()
            .env("fprocess", guest.artifact())
            .env("port", "0")
            .env("metrics_port", "0")
            .envs(environment.iter().copied()),
    )
}

#[test]
fn a_runner_without_address_space_exits_with_an_error() {
    let guest = Guest::fixture("hello");
    // Less than a slot needs, with room for everything else.
    let outcome = limited(6 << 20, &guest, &[]);
    assert_ne!(outcome.code(), 0);
    assert!(
        outcome
            .stderr
            .contains("the system refused 8 GiB of address space for a linear memory"),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("ulimit -v"), "{}", outcome.stderr);
    // Enough for one replica of two.
    let outcome = limited(12 << 20, &guest, &[("min_scale", "2"), ("max_scale", "2")]);
    assert_ne!(outcome.code(), 0);
    assert!(outcome.stderr.contains("8 GiB"), "{}", outcome.stderr);
}

/// Without `min_scale` one replica is enough to start, and load adds those that fit.
#[test]
fn a_runner_that_starts_with_little_address_space_serves_with_the_replicas_that_fit() {
    let guest = Guest::fixture("sleep");
    // Room for one and for two.
    for (gibibytes, most) in [(12_u64, 1.0), (20, 2.0)] {
        let command = guest.serve_with(&["50"]).env("max_scale", "8");
        let mut runner = command.address_space(gibibytes << 20).start();
        for _ in 0..3 {
            send_many(&runner);
        }
        runner.wait_for_log("the system refused 8 GiB of address space");
        runner.wait_for_metric("wasm_replicas", most);
        send_many(&runner);
        assert_eq!(runner.get("/_/ready").status, 200);
        let log = runner.stop();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn an_unavailable_guest_stack_is_an_error() {
    let guest = Guest::fixture("hello");
    let stack = [("wasm_stack_size", "64Gi")];
    let outcome = limited(20 << 20, &guest, &stack);
    assert_ne!(outcome.code(), 0);
    assert!(
        !outcome.stderr.contains("panicked"),
        "no panic: {}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("wasm_stack_size"),
        "{}",
        outcome.stderr
    );
}

/// A replica that cannot be created must not fail requests that others can serve. When memory is available again, the
/// runner creates more replicas.
#[test]
fn requests_are_served_by_the_replicas_that_exist() {
    let guest = Guest::fixture("sleep");
    let mut runner = guest
        .serve_with(&["50"])
        .env("min_scale", "1")
        .env("max_scale", "4")
        .start();
    assert_eq!(runner.get("/").status, 200);
    let limit = Limit::of(&runner);
    for _ in 0..3 {
        send_many(&runner);
    }
    assert_eq!(runner.metric("wasm_replicas"), Some(1.0));
    runner.wait_for_log("the system refused 8 GiB of address space");
    limit.lift();
    // The runner retries growth after a pause.
    let end = Instant::now() + Duration::from_secs(60);
    while runner.metric("wasm_replicas") < Some(2.0) {
        assert!(Instant::now() < end, "{}", runner.log());
        send_many(&runner);
    }
}

/// If no replica exists and none can be created, the runner says so at once, and retries.
#[test]
fn requests_do_not_wait_for_unavailable_replicas() {
    let mut runner = Guest::fixture("hello")
        .serve()
        .env("min_scale", "0")
        .env("exec_timeout", "1h")
        .start();
    let limit = Limit::of(&runner);
    assert_eq!(runner.get("/").status, 500, "{}", runner.log());
    runner.wait_for_log("the system refused 8 GiB of address space");
    limit.lift();
    assert_eq!(runner.get("/").text(), "hello, world\n", "{}", runner.log());
}

#[test]
fn unavailable_replicas_are_retried() {
    let mut runner = Guest::fixture("hello")
        .serve()
        .env("max_scale", "3")
        .start();
    let limit = Limit::of(&runner);
    let body = r#"{"replicas":3}"#;
    assert_eq!(runner.post("/scale-updater", body).status, 200);
    runner.wait_for_log("the system refused 8 GiB of address space");
    limit.lift();
    let end = Instant::now() + Duration::from_secs(60);
    while !runner
        .get("/scale-reader")
        .text()
        .contains(r#""availableReplicas":3"#)
    {
        assert!(Instant::now() < end, "{}", runner.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A limit on a runner's address space that leaves room for threads and responses, but not for a slot.
struct Limit {
    pid: Pid,
    before: Rlimit,
}

impl Limit {
    fn of(runner: &Runner) -> Self {
        let pid = Pid::from_raw(runner.pid() as i32).expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", runner.pid()));
        let status = status.expect("it runs");
        let size = status
            .lines()
            .find_map(|line| line.strip_prefix("VmSize:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .expect("the kernel says how large it is");
        let before = getrlimit(Resource::As);
        let limit = Rlimit {
            current: Some((size << 10) + (4 << 30)),
            maximum: before.maximum,
        };
        prlimit(Some(pid), Resource::As, limit).expect("it is ours");
        Self { pid, before }
    }

    fn lift(self) {
        prlimit(Some(self.pid), Resource::As, self.before).expect("it is ours");
    }
}

/// Sends more concurrent requests than one replica serves.
fn send_many(runner: &Runner) {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let response = runner.send(&Request::get("/"));
                assert_eq!(response.status, 200, "{}", runner.log());
                assert_eq!(response.text(), "slept\n");
            });
        }
    });
}
