//! The cost of a load and of an instance, compared with wasmtime. `make bench` runs this.
//!
//! The sides take turns. Each runs in a separate process, because both install signal handlers and reserve much
//! address space, and is pinned to one core. The benchmark compares the medians of the turns. Ratios decide whether
//! it passes. Absolute times are only reported, because they depend on the machine.

mod experiments;
mod measure;
mod ours;
mod report;
mod rival;
mod trusted;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use measure::{Measurement, Side};

/// Number of turns of each side.
const TURNS: usize = 5;
/// Selects the side that a child process measures.
const SIDE_FLAG: &str = "--side";
/// Selects the experiment that a child process runs.
const EXPERIMENT_FLAG: &str = "--experiment";

/// The measured files, built once for all turns.
struct Inputs {
    directory: PathBuf,
}

impl Inputs {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Guests whose instances are measured.
const FIXTURES: [&str; 4] = ["nop", "hello", "echo", "spin"];

/// Measured runs of one guest.
struct Workload {
    name: &'static str,
    fixture: &'static str,
    /// Sizes of the inputs in bytes, which the runs take in turn.
    reads: &'static [usize],
}

/// The last workload alternates between inputs that make it write different pages.
const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "nop",
        fixture: "nop",
        reads: &[0],
    },
    Workload {
        name: "hello",
        fixture: "hello",
        reads: &[0],
    },
    Workload {
        name: "echo",
        fixture: "echo",
        reads: &[1024],
    },
    Workload {
        name: "echo of 1 and 48 KiB in turns",
        fixture: "echo",
        reads: &[1024, 48 << 10],
    },
];

impl Workload {
    fn inputs(&self) -> impl Iterator<Item = Arc<[u8]>> {
        self.reads.iter().map(|length| vec![b'x'; *length].into())
    }

    fn output<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        match self.fixture {
            "hello" => b"hello, world\n",
            _ => input,
        }
    }

    fn row(&self) -> String {
        format!("instance, call and drop of {}", self.name)
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let flag = arguments.next();
    if flag.as_deref() == Some(EXPERIMENT_FLAG) {
        let name = arguments.next().expect("the parent passes a name");
        let directory = arguments.next().map(PathBuf::from);
        let directory = directory.expect("the parent passes both");
        experiments::make(&name, &Inputs { directory });
        return ExitCode::SUCCESS;
    }
    if flag.as_deref() == Some(SIDE_FLAG) {
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
    let found = experiments::NAMES.map(|name| experiments::in_child(name, &inputs.directory));
    report::report(&turns, &found.concat())
}
