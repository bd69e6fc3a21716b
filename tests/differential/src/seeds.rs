//! Random modules: `seeds --count N --start SEED`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

use crate::compare::{self, Difference, Verdict};
use crate::driver;
use crate::generate;
use crate::known::{About, Known};
use crate::oracle::Oracle;
use crate::reduce;
use crate::subject::{Backend, Programs};

/// Maximum number of differences to minimize, because more would take long and add little information.
const MOST_REDUCED: usize = 5;

/// Results of the seeds.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) modules: u64,
    pub(crate) calls: u64,
    pub(crate) traps: u64,
    /// Comparisons with each backend that found no difference.
    pub(crate) same: [u64; 2],
    pub(crate) stack_overflows: u64,
    /// Findings that are not known.
    pub(crate) findings: Vec<String>,
}

/// The data that all threads need.
pub(crate) struct Campaign<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) known: &'a Known,
    /// The directory for minimized modules.
    pub(crate) found: &'a Path,
    pub(crate) threads: usize,
}

impl Campaign<'_> {
    /// Runs the modules of `count` seeds from `start` on.
    ///
    /// # Errors
    ///
    /// A program cannot be started, or wasmtime or wasm-smith fails.
    pub(crate) fn run(&self, start: u64, count: u64) -> Result<Counts> {
        let next = AtomicU64::new(start);
        let counts = Mutex::new(Counts::default());
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..self.threads)
                .map(|_| scope.spawn(|| self.work(&next, start + count, &counts)))
                .collect();
            for thread in threads {
                match thread.join() {
                    Ok(done) => done?,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(())
        })?;
        let mut counts = counts
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        counts.findings.sort();
        Ok(counts)
    }

    fn work(&self, next: &AtomicU64, end: u64, counts: &Mutex<Counts>) -> Result<()> {
        let oracle = Oracle::new()?;
        let directory = Directory::new()?;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(());
            }
            self.seed(seed, &oracle, &directory.0, counts)
                .with_context(|| format!("seed {seed}"))?;
        }
    }

    fn seed(
        &self,
        seed: u64,
        oracle: &Oracle,
        directory: &Path,
        counts: &Mutex<Counts>,
    ) -> Result<()> {
        let generated = generate::module(seed)?;
        let driven = driver::add(&generated.wasm, Some(generated.fuel), seed)?;
        let expected = compare::expected(oracle, &driven)?;
        let mut verdicts = Vec::new();
        for backend in Backend::ALL {
            verdicts.push((
                backend,
                compare::verdict(self.programs, backend, &driven, &expected, directory)?,
            ));
        }
        let mut reduced = Vec::new();
        {
            let mut counts = counts
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            counts.modules += 1;
            counts.calls += expected.returned as u64;
            counts.traps += expected.traps as u64;
            if counts.modules.is_multiple_of(1000) {
                println!(
                    "{} modules, {} findings",
                    counts.modules,
                    counts.findings.len()
                );
            }
            for (backend, verdict) in verdicts {
                match verdict {
                    Verdict::Same => counts.same[backend as usize] += 1,
                    Verdict::StackOverflow => counts.stack_overflows += 1,
                    Verdict::Refused(why) => {
                        if self.known.reason(About::Refusal, backend, &why).is_none() {
                            counts.findings.push(format!(
                                "seed {seed}: {backend} refuses a valid module: {why}"
                            ));
                        }
                    }
                    Verdict::Different(difference) => {
                        if self
                            .known
                            .reason(About::Difference, backend, &difference.kind.to_string())
                            .is_none()
                        {
                            println!("seed {seed}: {difference}");
                            counts.findings.push(format!("seed {seed}: {difference}"));
                            if counts.findings.len() <= MOST_REDUCED {
                                reduced.push(difference);
                            }
                        }
                    }
                }
            }
        }
        for difference in reduced {
            self.reduce(seed, &generated, &difference, directory)?;
        }
        Ok(())
    }

    fn reduce(
        &self,
        seed: u64,
        generated: &generate::Generated,
        difference: &Difference,
        directory: &Path,
    ) -> Result<()> {
        let reducer = reduce::Reducer::new(self.programs, directory)?;
        let name = format!("seed-{seed}-{}", difference.backend);
        let smallest = reducer.reduce(generated, seed, difference)?;
        let path = self.found.join(format!("{name}.wat"));
        std::fs::create_dir_all(self.found)?;
        let text = wasmprinter::print_bytes(&smallest.wasm)?;
        let how = if smallest.alone {
            ""
        } else {
            ";; The difference does not show in a module of its own; this is the whole one.\n"
        };
        std::fs::write(&path, format!(";; Seed {seed}: {difference}\n{how}{text}"))?;
        println!(
            "seed {seed}: minimised to {}; as a test: mv {} tests/differential/cases/",
            path.display(),
            path.display()
        );
        Ok(())
    }
}

/// A temporary directory that is removed with this value.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "faas-wasm-differential-{}-{number}",
            std::process::id()
        ));
        std::fs::create_dir(&path)
            .with_context(|| format!("{} cannot be created", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
