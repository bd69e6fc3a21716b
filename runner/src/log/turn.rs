//! Whose turn it is to write to stderr: lines of different threads do not mix, and nobody who has a deadline waits for
//! one who has none.

use std::io::Write as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;

/// What a pipe surely takes in one piece once it is writable (PIPE_BUF, pipe(7)).
pub(super) const PIECE: usize = 4096;

/// How long to wait for the log before the question is asked again; `None` to give up.
pub type Patience<'a> = &'a dyn Fn() -> Option<Duration>;

/// The way to stderr.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    given_back: Condvar,
    /// Stderr is a pipe or socket, whose reader can make a writer wait.
    has_reader: bool,
}

#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    waiting: usize,
    /// The last line has no end, as somebody gave up in the middle of it.
    is_torn: bool,
}

/// The right to write whole lines. Dropping it lets the next one write.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    is_torn: bool,
}

impl Turns {
    pub(super) fn new() -> Self {
        let stat = rustix::fs::fstat(std::io::stderr());
        let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
        Self {
            state: Mutex::default(),
            given_back: Condvar::new(),
            has_reader: matches!(kind, Ok(FileType::Fifo | FileType::Socket)),
        }
    }

    /// Waits for a turn.
    pub(super) fn take(&self) -> Turn<'_> {
        let mut state = self.lock();
        while state.is_taken {
            state.waiting += 1;
            let waited = self.given_back.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        self.begin(state)
    }

    /// Waits for a turn, as long as the patience lasts.
    pub(super) fn take_patiently(&self, patience: Patience<'_>) -> Option<Turn<'_>> {
        let mut state = self.lock();
        while state.is_taken {
            // Not asked under the lock: it may take others.
            drop(state);
            let nap = patience()?;
            state = self.lock();
            if state.is_taken {
                state.waiting += 1;
                let waited = self.given_back.wait_timeout(state, nap);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.waiting -= 1;
            }
        }
        Some(self.begin(state))
    }

    fn begin(&self, mut state: MutexGuard<'_, State>) -> Turn<'_> {
        state.is_taken = true;
        Turn {
            turns: self,
            is_torn: state.is_torn,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Writes whole lines, however long that takes.
    pub(super) fn write(&mut self, lines: &[u8]) {
        // A log that cannot be written must not disturb anything.
        let mut stderr = std::io::stderr();
        if std::mem::take(&mut self.is_torn) {
            let _ = stderr.write_all(b"\n");
        }
        let _ = stderr.write_all(lines);
    }

    /// The same, as long as the patience lasts; whether it did. What has not been written then is not written at all,
    /// but for the beginning of a line that is longer than [`PIECE`].
    pub(super) fn write_patiently(&mut self, mut lines: &[u8], patience: Patience<'_>) -> bool {
        if !self.turns.has_reader {
            self.write(lines);
            return true;
        }
        let mut was_begun = false;
        while !lines.is_empty() {
            while !takes_lines(Duration::ZERO) {
                let Some(nap) = patience() else {
                    self.is_torn |= was_begun;
                    return false;
                };
                takes_lines(nap);
            }
            // The end of a torn line takes one byte.
            let (piece, rest) = lines.split_at(lines.len().min(PIECE - 1));
            self.write(piece);
            was_begun = true;
            lines = rest;
        }
        true
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.is_taken = false;
        state.is_torn = self.is_torn;
        if state.waiting > 0 {
            self.turns.given_back.notify_one();
        }
    }
}

/// Whether stderr takes [`PIECE`] without making the writer wait, now or within this time.
pub(super) fn takes_lines(within: Duration) -> bool {
    let stderr = std::io::stderr();
    let mut asked = [PollFd::new(&stderr, PollFlags::OUT)];
    let within = Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: within.subsec_nanos().into(),
    };
    // Where it cannot be asked, writing fails too.
    poll(&mut asked, Some(&within)).map_or(true, |ready| ready > 0)
}
