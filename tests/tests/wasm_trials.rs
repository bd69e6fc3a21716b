//! Wasm mode: trials. A trial starts a run on the I/O thread because earlier runs were short. If the run turns out to
//! be long, it is repeated in a replica, and no effect of the trial may remain.

use std::io::BufReader;

use faas_wasm_tests::http::{Request, Response, answer, reset};
use faas_wasm_tests::{Guest, Runner, Work};

const REPEATED: &str = "wasm_trials_total{outcome=\"repeated\"}";

fn obey(settings: &[(&str, &str)]) -> Runner {
    let guest = Guest::fixture("obey");
    let command = guest.serve().env("exec_timeout", "20s");
    command.envs(settings).start()
}

/// Repeats an action after short runs until one of its runs is repeated in a replica. Returns how often it did.
#[track_caller]
fn until_tried(runner: &Runner, mut act: impl FnMut()) -> usize {
    for count in 1..=20 {
        runner.warm_up("/ok");
        let before = runner.metric(REPEATED);
        act();
        if runner.metric(REPEATED) != before {
            return count;
        }
    }
    panic!("never tried\n{}", runner.metrics());
}

fn count(text: &str, part: &str) -> usize {
    text.lines().filter(|line| line.contains(part)).count()
}

#[test]
fn every_outcome_of_a_trial_is_reported_once() {
    for (target, status, line) in [
        ("/spin", 504, "(exec_timeout)"),
        ("/sleep/50", 200, "GET /sleep/50 - 200"),
        ("/trap", 500, "wasm trap: unreachable"),
        ("/stack", 500, "wasm trap: out of bounds memory access"),
        ("/exit/3", 500, "exit status 3"),
        ("/open/1000", 200, "fd_limit"),
        ("/grow/100000", 200, "memory_limit"),
    ] {
        let mut runner = obey(&[("exec_timeout", "300ms"), ("wasm_memory_limit", "16Mi")]);
        let times = until_tried(&runner, || {
            assert_eq!(runner.get(target).status, status, "{target}");
        });
        runner.wait_for_log(line);
        let log = runner.stop();
        assert_eq!(count(&log, line), times, "{target}: {line}\n{log}");
        assert_eq!(count(&log, &format!("GET {target} - {status}")), times);
    }
}

#[test]
fn a_repeated_run_sees_nothing_of_its_trial() {
    let runner = obey(&[]);
    let body = vec![b'x'; 50_000];
    let times = until_tried(&runner, || {
        let response = runner.post("/log", body.clone());
        assert_eq!(response.status, 200, "{}", runner.log());
        // It read the whole body, started with an empty head, and did not find its own file.
        assert_eq!(response.text(), "50000\n");
        let heads = response.headers.iter();
        let heads = heads.filter(|(name, _)| name.eq_ignore_ascii_case("x-read"));
        assert_eq!(heads.count(), 1);
    });
    let log = runner.stop();
    assert_eq!(count(&log, "read 50000"), times, "{log}");
}

#[test]
fn a_trial_streams_output_before_its_end() {
    let runner = obey(&[("wasm_output_hold_bytes", "1000")]);
    until_tried(&runner, || {
        let stream = runner.begin("/print-spin/5000", "X-Timeout: 500ms\r\n");
        let mut reader = BufReader::new(stream);
        // The head arrives although the guest never ends.
        let head = Response::read_head(&mut reader).expect("it is answered");
        assert_eq!(head.status, 200);
        assert_eq!(head.header("Content-Length"), None);
    });
    until_tried(&runner, || {
        let response = runner.get("/print/100000");
        assert!(response.complete && response.body.len() == 100_000);
    });
}

#[test]
fn other_requests_are_served_while_a_guest_spins() {
    let runner = obey(&[("max_scale", "2")]);
    until_tried(&runner, || {
        let spinning = runner.begin("/spin", "X-Timeout: 3s\r\n");
        runner.wait_for_metric("wasm_instances_running", 1.0);
        for _ in 0..100 {
            assert_eq!(runner.get("/ok").status, 200);
            assert_eq!(runner.send(&Request::get("/_/health")).status, 200);
        }
        assert_eq!(runner.metric("wasm_instances_running"), Some(1.0));
        reset(spinning);
        runner.wait_for_metric("wasm_instances_running", 0.0);
    });
}

/// A trial counts as a replica.
#[test]
fn trials_count_toward_max_scale() {
    let mut runner = obey(&[("max_scale", "1")]);
    until_tried(&runner, || {
        let spinning = runner.begin("/spin", "X-Timeout: 500ms\r\n");
        runner.wait_for_metric("wasm_instances_running", 1.0);
        let waiting = runner.begin("/ok?waiting", "");
        assert_eq!(answer(waiting).status, 200);
        assert_eq!(answer(spinning).status, 504);
    });
    runner.wait_for_log("GET /ok?waiting");
    let log = runner.stop();
    let place = |part: &str| log.find(part).unwrap_or_else(|| panic!("{part}\n{log}"));
    assert!(place("(X-Timeout)") < place("GET /ok?waiting"), "{log}");
}

/// A write to the host's files cannot be undone.
#[test]
fn guests_that_can_change_the_host_are_not_tried() {
    let data = Work::new();
    let mount = |access: &str| format!("/data={}:{access}", data.path().display());
    obey(&[("wasm_mounts", &mount("cow"))]).warm_up("/ok");
    let runner = obey(&[("wasm_mounts", &mount("rw"))]);
    for _ in 0..500 {
        assert_eq!(runner.get("/ok").status, 200);
    }
    let ended = runner.metric("wasm_trials_total{outcome=\"ended\"}");
    assert_eq!((ended, runner.metric(REPEATED)), (Some(0.0), Some(0.0)));
}
