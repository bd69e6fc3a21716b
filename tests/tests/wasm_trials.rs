//! Wasm mode: a guest that is tried on the thread of its connection, and is not what the runs before it were, runs in a
//! replica as if nothing had been.

use std::io::BufReader;

use faas_wasm_tests::http::{Request, Response, answer, reset};
use faas_wasm_tests::{Guest, Runner, Work};

const REPEATED: &str = "wasm_trials_total{outcome=\"repeated\"}";

fn obey(settings: &[(&str, &str)]) -> Runner {
    let guest = Guest::fixture("obey");
    let command = guest.serve().env("exec_timeout", "20s");
    command.envs(settings).start()
}

/// Does something after short runs, until it was tried. Returns how often it was done.
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
fn whatever_a_guest_does_has_its_outcome_once() {
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
fn nothing_of_a_trial_is_left_to_the_run_that_repeats_it() {
    let runner = obey(&[]);
    let body = vec![b'x'; 50_000];
    let times = until_tried(&runner, || {
        let response = runner.post("/log", body.clone());
        assert_eq!(response.status, 200, "{}", runner.log());
        // It read all of its body, its head was empty, and the file was not there.
        assert_eq!(response.text(), "50000\n");
        let heads = response.headers.iter();
        let heads = heads.filter(|(name, _)| name.eq_ignore_ascii_case("x-read"));
        assert_eq!(heads.count(), 1);
    });
    let log = runner.stop();
    assert_eq!(count(&log, "read 50000"), times, "{log}");
}

#[test]
fn output_that_goes_out_before_the_end_does_so() {
    let runner = obey(&[("wasm_output_hold_bytes", "1000")]);
    until_tried(&runner, || {
        let stream = runner.begin("/print-spin/5000", "X-Timeout: 500ms\r\n");
        let mut reader = BufReader::new(stream);
        // The head is there although the guest will never end.
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
fn others_are_served_while_a_guest_spins() {
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

/// A trial takes the place of a replica.
#[test]
fn there_are_never_more_guests_than_max_scale() {
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

/// What is written there cannot be taken back.
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
