//! Shows how far a compilation is: a bar on a terminal, a line now and then otherwise, or nothing.
//!
//! The backends count bytes of WebAssembly, which is what the remaining time is guessed from, and
//! call once a function, which is what people want to see.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use wasmer_types::{CompilationProgress, CompilationProgressCallback};

/// Least time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The remaining time is not told in the first one part in so many.
const EARLY: u64 = 20;

/// A display of progress on standard error.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    display: Display,
    started: Instant,
    /// Functions compiled, and how many there are. Trampolines are counted by the backends too,
    /// after all functions.
    done: u64,
    functions: u64,
    /// The backend's own units.
    step: u64,
    steps: u64,
}

#[derive(Debug)]
enum Display {
    Quiet,
    Lines { last: Instant },
    Bar(ProgressBar),
}

impl Progress {
    /// Starts a display for a module with so many functions.
    pub(crate) fn start(quiet: bool, functions: usize) -> Self {
        let started = Instant::now();
        let display = if quiet {
            Display::Quiet
        } else if std::io::stderr().is_terminal() {
            Display::Bar(bar())
        } else {
            Display::Lines { last: started }
        };
        Self {
            shared: Arc::new(Mutex::new(Shared {
                display,
                started,
                done: 0,
                functions: functions as u64,
                step: 0,
                steps: 0,
            })),
        }
    }

    /// What the backend calls.
    pub(crate) fn callback(&self) -> CompilationProgressCallback {
        let shared = Arc::clone(&self.shared);
        CompilationProgressCallback::new(move |progress| {
            lock(&shared).advance(&progress);
            Ok(())
        })
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Display::Bar(bar) = &lock(&self.shared).display {
            bar.finish_and_clear();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    // A panic of a backend may pass through here; the numbers are still good.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn advance(&mut self, progress: &CompilationProgress) {
        self.done = (self.done + 1).min(self.functions);
        // Threads report out of order.
        self.step = self.step.max(progress.phase_step().unwrap_or(0));
        self.steps = progress.phase_step_count().unwrap_or(0);
        let text = match &self.display {
            Display::Quiet => return,
            Display::Lines { last } if last.elapsed() < LINE_INTERVAL => return,
            Display::Lines { .. } | Display::Bar(_) => self.text(self.started.elapsed()),
        };
        match &mut self.display {
            Display::Quiet => {}
            Display::Bar(bar) => {
                bar.set_length(self.steps);
                bar.set_position(self.step);
                bar.set_message(text);
            }
            Display::Lines { last } => {
                *last = Instant::now();
                // Progress that nobody can read is no reason to fail.
                let _ = writeln!(std::io::stderr(), "compiled {text}");
            }
        }
    }

    /// Functions done, rate and remaining time, after `elapsed`.
    fn text(&self, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64().max(0.001);
        let rate = self.done as f64 / seconds;
        let decimals = usize::from(rate < 10.0);
        let mut text = format!(
            "{}/{} functions, {rate:.decimals$}/s",
            self.done, self.functions
        );
        // The largest functions come first and take longer a byte, so that an early guess is wild.
        if self.step * EARLY >= self.steps && self.steps >= self.step && self.step > 0 {
            let remaining = seconds * (self.steps - self.step) as f64 / self.step as f64;
            text += &format!(", about {remaining:.0} s left");
        }
        text
    }
}

fn bar() -> ProgressBar {
    // The template is a constant and correct; without it the bar would only look plain.
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_tells_functions_rate_and_remaining_time() {
        let progress = Progress::start(true, 3);
        let callback = progress.callback();
        let text = |step, seconds| {
            let report = CompilationProgress::new(None, Some(400), Some(step));
            callback.notify(report).expect("it never aborts");
            lock(&progress.shared).text(Duration::from_secs(seconds))
        };
        assert_eq!(text(19, 10), "1/3 functions, 0.1/s");
        assert_eq!(text(100, 10), "2/3 functions, 0.2/s, about 30 s left");
        // Late reports of other threads, and trampolines, which are no functions.
        assert_eq!(text(50, 10), "3/3 functions, 0.3/s, about 30 s left");
        assert_eq!(text(400, 10), "3/3 functions, 0.3/s, about 0 s left");
    }
}
