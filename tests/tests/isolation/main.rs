//! The proof of isolation. Each request looks for traces of earlier requests in its memories, tables, globals,
//! segments, files, environment and streams, and then leaves a pattern everywhere (`guest.wat`). All requests run in
//! one slot and end in every possible way.
//!
//! A proof is only as good as the faults it detects. With the features `fault-injection`, the engine and the file
//! system skip one part of the reset at a time, and the proof must fail each time.

mod requests;
mod storm;
mod trusted;

use faas_wasm_engine::fault_injection::{self, Fault};
use faas_wasm_tests::Backend;
use faas_wasm_wasi::keep_nodes;
use requests::{Found, Guests, Instruction};

/// Number of requests in the full proof.
const REQUESTS: usize = 100_000;
/// Number of requests within which the proof must detect a broken reset.
const FEW: usize = 200;

#[test]
fn no_request_finds_traces_of_another() {
    let mut guests = Guests::new(Backend::Cranelift);
    let endings = guests
        .run(REQUESTS)
        .expect("all is as for the first request");
    // The sequence must cover each ending and each change often, whatever the random numbers are.
    for (ending, count) in endings.iter().enumerate() {
        assert!(*count > REQUESTS / 100, "ending {ending}: {endings:?}");
    }
}

#[test]
fn code_of_the_best_backend_is_isolated() {
    let best = Backend::all().pop().expect("the tool has a backend");
    let mut guests = Guests::new(best);
    guests
        .run(REQUESTS / 20)
        .expect("all is as for the first request");
}

/// Runs a request of each kind, each followed by one that changes everything.
#[test]
fn every_change_is_reset_after_every_ending() {
    let mut guests = Guests::new(Backend::Cranelift);
    for before in Instruction::all() {
        guests.one(before).expect("as for the first request");
        guests
            .one(Instruction::everything())
            .expect("as for the first request");
    }
}

/// Sends requests that write the same few pages, so that the engine guards the rest, and then one that writes
/// everywhere. Repeats this, with twice as many requests each time.
fn lift_guards(guests: &mut Guests) -> Result<(), Box<Found>> {
    for times in 0..7 {
        for _ in 0..100 << times {
            guests.one(Instruction::nothing())?;
        }
        guests.one(Instruction::everything_in_place())?;
        guests.one(Instruction::nothing())?;
    }
    Ok(())
}

#[test]
fn writes_behind_a_lifted_guard_are_reset() {
    let mut guests = Guests::new(Backend::Cranelift);
    lift_guards(&mut guests).expect("all is as for the first request");
}

#[track_caller]
fn is_noticed(set_broken: impl Fn(bool), codes: std::ops::Range<u32>) {
    is_noticed_by(|guests| guests.run(FEW).map(|_| ()), set_broken, codes);
}

#[track_caller]
fn is_noticed_by(
    run: impl Fn(&mut Guests) -> Result<(), Box<Found>>,
    set_broken: impl Fn(bool),
    codes: std::ops::Range<u32>,
) {
    let mut guests = Guests::new(Backend::Cranelift);
    guests.run(FEW).expect("nothing is broken yet");
    set_broken(true);
    let found = run(&mut guests);
    set_broken(false);
    let found = found.expect_err("a broken reset must be noticed");
    let code = found.exit_code();
    assert!(
        code.is_some_and(|code| codes.contains(&code)),
        "noticed otherwise: {found}"
    );
}

fn forgets(fault: Fault) -> impl Fn(bool) {
    move |set| fault_injection::inject(set.then_some(fault))
}

#[test]
fn a_page_that_is_not_reset_is_detected() {
    is_noticed(forgets(Fault::HotPage), 103..105);
}

#[test]
fn a_leaked_memory_tail_is_detected() {
    is_noticed(forgets(Fault::GrownTail), 162..164);
}

#[test]
fn a_leaked_table_entry_is_detected() {
    is_noticed(forgets(Fault::TableEntry), 112..120);
}

#[test]
fn an_unrecorded_unprotect_is_detected() {
    is_noticed_by(lift_guards, forgets(Fault::LiftedProtection), 103..105);
}

#[test]
fn a_leaked_file_is_detected() {
    is_noticed(keep_nodes, 130..136);
}
