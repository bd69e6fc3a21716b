//! Random damage to the programs' input: modules, artifacts, requests. Every test run does a few rounds, and `make
//! test-random` does many. Every input gets an answer, and nothing crashes or hangs. `tests/fuzz` has fuzz targets for
//! single parsers, guided by coverage.
//!
//! The rounds are the same in every run unless `FAAS_WASM_RANDOM_SEED` changes them; a failing test prints its seed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use faas_wasm_tests::http::connect;
use faas_wasm_tests::random::{Random, rounds};
use faas_wasm_tests::{Guest, Outcome, Work, fixture, runner_program, tool};

#[test]
fn damaged_modules_are_built_or_rejected() {
    let work = Work::new();
    let originals =
        ["features", "nop", "hello"].map(|name| fs::read(fixture(name)).expect("built"));
    for seed in rounds() {
        let mut random = Random::new(seed);
        let mut module = originals[random.below(originals.len())].clone();
        random.damage(&mut module);
        let path = work.write("damaged.wasm", &module);
        let outcome = Outcome::of(
            tool()
                .args(["build", "-q", "--backend", "cranelift"])
                .arg(path),
        );
        let code = outcome.code();
        assert!([0, 1].contains(&code), "seed {seed}: {outcome:#?}");
        assert_eq!(
            code == 1,
            outcome.stderr.starts_with("error: "),
            "seed {seed}: {outcome:#?}"
        );
        assert!(
            !outcome.stderr.contains("panicked"),
            "seed {seed}: {outcome:#?}"
        );
    }
}

#[test]
fn damaged_artifacts_are_rejected() {
    let guest = Guest::fixture("nop");
    let original = fs::read(guest.artifact()).expect("it is there");
    let work = Work::new();
    for seed in rounds() {
        let mut random = Random::new(seed);
        let mut artifact = original.clone();
        random.damage(&mut artifact);
        if artifact == original {
            continue;
        }
        let path = work.write("damaged.so", &artifact);
        let outcome = Outcome::of(tool().arg("verify").arg(&path));
        assert_eq!(outcome.code(), 1, "seed {seed}: {outcome:#?}");
        let inspected = Outcome::of(tool().arg("inspect").arg(&path));
        assert!(
            [0, 1].contains(&inspected.code()),
            "seed {seed}: {inspected:#?}"
        );
        // A load does not verify code and memory image, and running damaged code is not safe. So run only artifacts
        // that the load must reject.
        if inspected.code() == 1 {
            let mut command = Command::new(runner_program());
            let outcome = Outcome::of(command.args(["--one-shot", "--"]).arg(&path));
            assert_eq!(outcome.status.signal(), None, "seed {seed}: {outcome:#?}");
            assert_eq!(outcome.code(), 125, "seed {seed}: {outcome:#?}");
        }
    }
}

#[test]
fn damaged_requests_do_not_end_the_runner() {
    let guest = Guest::fixture("echo");
    let runner = guest.serve().env("read_timeout", "2s").start();
    let originals = [
        "POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world".as_bytes(),
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET /scale-reader HTTP/1.1\r\nHost: x\r\nX-Timeout: 1s\r\n\r\n",
        b"POST /scale-updater HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"replicas\":1}",
    ];
    for seed in rounds() {
        let mut random = Random::new(seed);
        let mut request = originals[random.below(originals.len())].to_vec();
        random.damage(&mut request);
        let mut stream = connect(runner.address()).expect("it listens");
        // The runner may close the connection at any byte.
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "seed {seed}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(runner.post("/", "still there").text(), "still there");
    let log = runner.stop();
    assert!(!log.contains("panicked"), "{log}");
}
