//! Guests that use their stack up to its end and call the host from there.

use faas_wasm_tests::http::Request;
use faas_wasm_tests::{Backend, Guest};

/// Calls that the guest makes at every level of an endless recursion: a host function, and library calls for
/// memories, tables, segments, and floats.
const KINDS: [&str; 7] = ["0", "1", "2", "3", "4", "5", "6"];

#[test]
fn host_calls_at_the_end_of_the_stack_end_only_the_guest() {
    for backend in Backend::all() {
        let guest = Guest::fixture_by("stack-edge", backend);
        for kind in KINDS {
            let mut runner = guest.serve_with(&[kind]).start();
            for _ in 0..3 {
                let response = runner.send(&Request::get("/"));
                assert_eq!(response.status, 500, "{backend:?} {kind}\n{}", runner.log());
            }
            runner.wait_for_log("call stack exhausted");
            runner.stop();
        }
    }
}
