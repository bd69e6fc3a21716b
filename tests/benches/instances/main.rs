//! What a load and an instance cost, beside wasmtime. `make bench` runs this.
//!
//! Each side runs in a process of its own (both install signal handlers and reserve much address
//! space), pinned to one core, in turns; the medians of the turns are compared. Ratios decide
//! whether the benchmark passes, absolute times are for reading: they depend on the machine.

mod measure;
mod ours;
mod report;
mod rival;
mod trusted;

use std::path::PathBuf;
use std::process::ExitCode;

use measure::{Measurement, Side};

/// How often each side has its turn.
const TURNS: usize = 5;
/// Names the side that a child process is to measure.
const SIDE_FLAG: &str = "--side";

/// The files that are measured, made once for all turns.
struct Inputs {
    directory: PathBuf,
}

impl Inputs {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Guests whose instances are measured, and what they read.
const GUESTS: [(&str, usize); 3] = [("nop", 0), ("hello", 0), ("echo", 1024)];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(SIDE_FLAG) {
        let side = arguments.next().and_then(|name| Side::parse(&name));
        let directory = arguments.next().map(PathBuf::from);
        let (side, directory) = side.zip(directory).expect("the parent passes both");
        measure::pin_to_one_core();
        let inputs = Inputs { directory };
        let measurements = match side {
            Side::Ours => ours::measure(&inputs),
            Side::Rival => rival::measure(&inputs, rival::Reset::Remap),
            Side::RivalResident => rival::measure(&inputs, rival::Reset::KeepResident),
        };
        measure::print(&measurements);
        return ExitCode::SUCCESS;
    }
    let work = faas_wasm_tests::Work::new();
    let inputs = Inputs {
        directory: work.path().into(),
    };
    ours::make_inputs(&inputs);
    rival::make_inputs(&inputs);
    let mut turns: Vec<(Side, Vec<Measurement>)> = Vec::new();
    for _ in 0..TURNS {
        for side in Side::ALL {
            turns.push((side, measure::in_child(side, &inputs.directory)));
        }
    }
    report::report(&turns)
}
