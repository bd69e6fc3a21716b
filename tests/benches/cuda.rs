//! The cost of CUDA for a guest over a native program: single calls, launches, copies, and a matrix product.
//!
//! `make bench` runs this over the stand-in driver, against the same C program compiled natively. The extra cost of a
//! call is then the host's, independent of any device. `make bench-gpu` runs it on a device, against a program that
//! uses the crate cust.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use faas_wasm_tests::results::{Better, Bound, Results, Row, Rule, Table};
use faas_wasm_tests::{
    Backend, Guest, Outcome, cuda_fixtures, fake_cuda, native_cuda_guest, runner_program, tool,
};

/// Environment variables of `make bench-gpu`: the native program, and the driver's library.
const RIVAL: &str = "FAAS_WASM_CUDA_RIVAL";
const DRIVER: &str = "FAAS_WASM_CUDA_DRIVER";
/// Number of alternating runs of each side; the best one counts.
const ROUNDS: usize = 3;
/// Calls that do little in the driver, and the number of calls in one iteration of each.
const SMALL: [(&str, f64); 3] = [
    ("cuDeviceGetCount", 1.0),
    ("cuMemGetInfo", 1.0),
    ("cuMemAlloc_cuMemFree", 2.0),
];
const LAUNCH: &str = "cuLaunchKernel_8";
const PRODUCT: &str = "matrix_product";

/// A program's measurements by name, with units.
type Findings = BTreeMap<String, (f64, String)>;

fn findings(text: &str) -> Findings {
    let lines = text.lines().map(|line| {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let value = words.next()?.parse().ok()?;
        Some((name, (value, words.next()?.to_owned())))
    });
    lines
        .collect::<Option<_>>()
        .unwrap_or_else(|| panic!("the output has no findings:\n{text}"))
}

/// The environment in which both sides run.
struct Setting {
    driver: PathBuf,
    /// The native program and its first arguments.
    rival: Vec<PathBuf>,
    /// Sizes of the copies in bytes, and the number of rows of the matrices.
    sizes: [String; 2],
    is_device: bool,
}

impl Setting {
    fn from_environment() -> Self {
        let sizes = |bytes: u64, rows: u64| [bytes.to_string(), rows.to_string()];
        match std::env::var_os(RIVAL) {
            Some(rival) => {
                let driver = std::env::var_os(DRIVER).expect("it comes with the rival");
                let driver = PathBuf::from(driver);
                let kernels = cuda_fixtures().join("kernels.ptx");
                let is_device = driver != fake_cuda();
                Self {
                    driver,
                    rival: vec![rival.into(), kernels],
                    sizes: if is_device {
                        sizes(256 << 20, 2048)
                    } else {
                        sizes(256 << 20, 32)
                    },
                    is_device,
                }
            }
            None => Self {
                driver: fake_cuda(),
                rival: vec![native_cuda_guest("bench")],
                sizes: sizes(256 << 20, 32),
                is_device: false,
            },
        }
    }

    fn native(&self) -> Findings {
        let mut command = Command::new(&self.rival[0]);
        command.args(&self.rival[1..]).args(&self.sizes).env_clear();
        if let Some(directory) = self.driver.parent().filter(|_| self.driver.is_absolute()) {
            command.env("LD_LIBRARY_PATH", directory);
        }
        findings(&Outcome::of(&mut command).success())
    }

    fn guest(&self, guest: &Guest) -> Findings {
        let mut command = tool();
        command
            .arg("run")
            .arg(guest.artifact())
            .args(&self.sizes)
            .env("FAAS_WASM_RUNNER", runner_program())
            .env("use_cuda", "required")
            .env("cuda_driver_library", &self.driver);
        findings(&Outcome::of(&mut command).success())
    }
}

/// Keeps the better of two measurements of each name.
fn best(found: &mut Findings, more: Findings) {
    for (name, (value, unit)) in more {
        let (known, unit) = found.entry(name).or_insert((value, unit));
        *known = if unit == "us" {
            known.min(value)
        } else {
            known.max(value)
        };
    }
}

fn main() -> ExitCode {
    let setting = Setting::from_environment();
    let guests = ["bench", "bench64"].map(|name| {
        let module = cuda_fixtures().join(format!("{name}.wasm"));
        Guest::compiled(&module, Backend::Llvm)
    });
    let mut sides = [Findings::new(), Findings::new(), Findings::new()];
    for _ in 0..ROUNDS {
        best(&mut sides[0], setting.guest(&guests[0]));
        best(&mut sides[1], setting.guest(&guests[1]));
        best(&mut sides[2], setting.native());
    }
    let table = |unit: &str, title: &str, better| Table {
        title: title.to_owned(),
        unit: unit.to_owned(),
        better,
        columns: ["guest", "guest, 8-byte pointers", "native"]
            .map(str::to_owned)
            .into(),
        rows: sides[0]
            .iter()
            .filter(|(_, (_, own))| own == unit)
            .map(|(name, _)| Row {
                name: name.clone(),
                values: sides
                    .iter()
                    .map(|side| side.get(name).map(|(value, _)| *value))
                    .collect(),
            })
            .collect(),
        chart: false,
    };
    let value = |side: usize, name: &str| sides[side].get(name).map(|(value, _)| *value);
    // The extra cost of a guest over the native program.
    let over = |name: &str, calls: f64| {
        let native = value(2, name)?;
        let slower = value(0, name)?.max(value(1, name)?);
        Some((slower - native) / calls)
    };
    let small = SMALL.iter().map(|(name, calls)| over(name, *calls));
    let worst = small.collect::<Option<Vec<_>>>();
    let worst = worst.and_then(|values| values.into_iter().reduce(f64::max));
    let product = value(2, PRODUCT)
        .zip(value(0, PRODUCT).zip(value(1, PRODUCT)))
        .map(|(native, (four, eight))| four.max(eight) / native);
    let rule = |what: &str, measured, target| Rule {
        what: what.to_owned(),
        measured,
        target: Bound::AtMost(target),
        gate: None,
    };
    let mut rules = vec![
        rule("a call like cuMemAlloc over native, us", worst, 1.0),
        rule(
            "a launch with 8 parameters over native, us",
            over(LAUNCH, 1.0),
            2.0,
        ),
    ];
    if setting.is_device {
        // On the CPU, this would measure the interpreter.
        rules.push(Rule {
            gate: Some(Bound::AtMost(1.02)),
            ..rule("a matrix product, times native", product, 1.02)
        });
    }
    Results {
        name: if setting.is_device { "cuda-device" } else { "cuda" }.into(),
        title: "CUDA calls of guests".into(),
        about: vec![
            if setting.is_device {
                "Over a device; native is a program that uses the crate cust.".into()
            } else {
                "Over the tests' stand-in for the driver, which computes on the CPU: what counts is the difference.".into()
            },
            "The best of three runs of each side by turns, each the best of 20 batches.".into(),
        ],
        tables: vec![
            table("us", "time of a call", Better::Lower),
            table("GB/s", "rate of copies of 256 MiB", Better::Higher),
        ],
        rules,
    }
    .conclude()
}
