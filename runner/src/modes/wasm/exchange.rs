//! What a connection's task and a worker thread share of one request: input one way, output the other.
//!
//! ```text
//! client -> feeder task -> input  -> worker thread (guest's stdin)
//! client <- response    <- output <- worker thread (guest's stdout)
//! ```
//!
//! The head of the response is the guest's too: lines for it, or a CGI head before the output, are taken until it is
//! sent.
//!
//! Both directions are bounded; whoever is too fast waits, the worker no longer than its deadline. Output is *held*
//! until there is enough of it, until it has waited long enough, or until the guest has ended, whichever comes first;
//! until then the answer can still become an error. Then it is *released* and streams.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use faas_wasm_engine::{Canceler, Interruption};
use faas_wasm_wasi::StreamError;
use http::StatusCode;

use super::head::{self, Head, HeadError};
use crate::config::ResponseFormat;

/// Input that waits for the guest; a request takes a replica when so much of its body, or all of it, is here.
pub(super) const INPUT_BUFFER: usize = 64 * 1024;
/// Output that waits for a slow client before the guest has to.
pub(super) const OUTPUT_BUFFER: usize = 1024 * 1024;

/// How the guest's run looks to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    Timeout,
    /// It ended well, and what it wrote is no response.
    BadResponse,
}

/// When held output is released.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub bytes: usize,
    pub time: Duration,
}

#[derive(Debug, Default)]
struct State {
    input: VecDeque<Bytes>,
    input_size: usize,
    input_ended: bool,
    input_broken: bool,
    feeder: Option<Waker>,

    head: Head,
    /// That of the head when it is sent.
    status: StatusCode,
    /// The CGI head as far as it has come; `None` once there is no more to come.
    cgi: Option<BytesMut>,
    /// Why there will be no response.
    bad_head: Option<HeadError>,
    output: BytesMut,
    written: u64,
    first_output: Option<Instant>,
    released: bool,
    reader: Option<Waker>,
    /// The reader wants to know of the first byte; else only of what releases the output.
    wake_at_first: bool,

    /// The worker waits for a change.
    worker_waits: bool,
    begun: bool,
    canceler: Option<Canceler>,
    abandoned: bool,
    trial: Option<Trial>,
    ran: Option<Ran>,
    outcome: Option<Outcome>,
}

/// When a run was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    /// From its beginning to its end.
    pub length: Duration,
    pub end: Instant,
}

impl Ran {
    /// A run that began then and ends now.
    pub(super) fn since(began: Instant) -> Self {
        let end = Instant::now();
        Self {
            length: end - began,
            end,
        }
    }
}

/// What is kept of a run of which nothing is to be seen if it does not end well at once.
#[derive(Debug)]
struct Trial {
    /// The input at the beginning.
    input: VecDeque<Bytes>,
    failed: bool,
}

impl State {
    fn add_input(&mut self, data: Bytes) {
        self.input_size += data.len();
        self.input.push_back(data);
    }

    fn take_complete(&mut self) -> Option<Held> {
        let outcome = self.outcome?;
        Some(Held::Complete(
            std::mem::take(&mut self.output).freeze(),
            outcome,
        ))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Exchange {
    state: Mutex<State>,
    changed: Condvar,
    hold: Hold,
    output_limit: Option<u64>,
    format: ResponseFormat,
}

/// What the log says of an exchange that has ended, and who waits for that.
#[derive(Debug)]
pub(super) struct Finished {
    /// The status that the client gets.
    pub status: StatusCode,
    /// Bytes of the guest's output, without a CGI head.
    pub written: u64,
    waiting: [Option<Waker>; 2],
}

impl Finished {
    /// Wakes the connection's tasks; says whether there were some.
    pub(super) fn tell(self) -> bool {
        let told = self.waiting.iter().any(Option::is_some);
        self.waiting.into_iter().flatten().for_each(Waker::wake);
        told
    }
}

/// What the reader learns about held output.
#[derive(Debug, PartialEq)]
pub(super) enum Held {
    /// The guest has ended, and this is all of its output.
    Complete(Bytes, Outcome),
    /// Output was released; more may come.
    Released,
    /// Nothing yet; look again at this time, if one is given.
    Wait(Option<Instant>),
}

impl Outcome {
    /// What a client gets that has got nothing yet.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Success => StatusCode::OK,
            Self::Failure => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BadResponse => StatusCode::BAD_GATEWAY,
        }
    }
}

impl State {
    /// Takes output that belongs to a CGI head, and says how much of it did.
    fn take_cgi(&mut self, bytes: &[u8]) -> usize {
        let Some(text) = &mut self.cgi else { return 0 };
        let before = text.len();
        text.extend_from_slice(&bytes[..bytes.len().min(head::MAX_BYTES + 1 - before)]);
        let (parsed, taken) = match head::end_of_head(text) {
            Some(end) => (self.head.add_cgi(&text[..end]), end - before),
            None if text.len() > head::MAX_BYTES => (Err(HeadError::TooLong), bytes.len()),
            None => return bytes.len(),
        };
        self.cgi = None;
        self.bad_head = parsed.err();
        taken
    }
}

/// Where a CGI head is to be put, if one is to come.
fn cgi_head(format: ResponseFormat) -> Option<BytesMut> {
    (format == ResponseFormat::Cgi).then(BytesMut::new)
}

impl Exchange {
    pub(super) fn new(hold: Hold, output_limit: Option<u64>, format: ResponseFormat) -> Self {
        let state = State {
            cgi: cgi_head(format),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            hold,
            output_limit,
            format,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two related changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> Result<MutexGuard<'a, State>, StreamError> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(StreamError::TimedOut);
        }
        if state.trial.is_some() {
            return Err(StreamError::Canceled);
        }
        state.worker_waits = true;
        let mut state = match left {
            None => (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                let waited = self.changed.wait_timeout(state, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.worker_waits = false;
        Ok(state)
    }

    /// Lets the worker look again. Telling a condition variable is a system call even if nobody waits, and the worker
    /// of a small request never does.
    fn tell_worker(&self, state: MutexGuard<'_, State>) {
        let waits = state.worker_waits;
        drop(state);
        if waits {
            self.changed.notify_all();
        }
    }

    // The connection's side.

    /// Adds input that is already here, whatever its size.
    pub(super) fn preload(&self, data: Bytes) -> usize {
        let mut state = self.lock();
        state.add_input(data);
        state.input_size
    }

    /// Waits for room for more input. `Err` if nobody reads any more.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let mut state = self.lock();
        if state.abandoned || state.outcome.is_some() {
            return Poll::Ready(Err(()));
        }
        if state.input_size < INPUT_BUFFER {
            return Poll::Ready(Ok(()));
        }
        state.feeder = Some(context.waker().clone());
        Poll::Pending
    }

    pub(super) fn feed(&self, data: Bytes) {
        let mut state = self.lock();
        state.add_input(data);
        self.tell_worker(state);
    }

    /// No more input comes; `broken` if it should have.
    pub(super) fn end_input(&self, broken: bool) {
        let mut state = self.lock();
        state.input_ended = true;
        state.input_broken = broken;
        self.tell_worker(state);
    }

    /// The client is gone: the run ends, or never begins. Tells whether it has begun.
    pub(super) fn abandon(&self) -> bool {
        let mut state = self.lock();
        state.abandoned = true;
        let canceler = state.canceler.take();
        let begun = state.begun;
        self.tell_worker(state);
        if let Some(canceler) = canceler {
            canceler.cancel(Interruption::Canceled);
        }
        begun
    }

    /// How long output may be held.
    pub(super) fn hold_time(&self) -> Duration {
        self.hold.time
    }

    /// All of the output, if the guest has ended before any of it was released.
    pub(super) fn take_complete(&self) -> Option<Held> {
        self.lock().take_complete()
    }

    /// Looks at held output, and releases it if it is time. If not, the reader is woken when it is released or at its
    /// end, and with `wake_at_first` also when there is the first of it.
    pub(super) fn poll_held(
        &self,
        context: &mut Context<'_>,
        now: Instant,
        wake_at_first: bool,
    ) -> Held {
        let mut state = self.lock();
        if let Some(complete) = state.take_complete() {
            return complete;
        }
        let due = state.first_output.map(|first| first + self.hold.time);
        if state.output.len() >= self.hold.bytes.max(1) || due.is_some_and(|due| due <= now) {
            state.released = true;
            state.status = state.head.status.unwrap_or(StatusCode::OK);
            return Held::Released;
        }
        state.reader = Some(context.waker().clone());
        state.wake_at_first = wake_at_first;
        Held::Wait(due)
    }

    /// The head that the guest wants, once there is output to be sent or the run has ended well.
    pub(super) fn take_head(&self) -> Head {
        std::mem::take(&mut self.lock().head)
    }

    /// When the run was, once it has ended.
    pub(super) fn ran(&self) -> Option<Ran> {
        self.lock().ran
    }

    /// Whether a replica has taken the job.
    pub(super) fn has_begun(&self) -> bool {
        self.lock().begun
    }

    /// The next piece of released output; `None` at the end of a successful run.
    pub(super) fn poll_output(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Outcome>>> {
        let mut state = self.lock();
        if !state.output.is_empty() {
            let data = state.output.split().freeze();
            self.tell_worker(state);
            return Poll::Ready(Some(Ok(data)));
        }
        match state.outcome {
            Some(Outcome::Success) => Poll::Ready(None),
            Some(failure) => Poll::Ready(Some(Err(failure))),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    // The worker's side.

    /// Begins the run, unless nobody waits for it any more.
    pub(super) fn begin(&self, canceler: Canceler) -> bool {
        let mut state = self.lock();
        state.begun = true;
        state.canceler = Some(canceler);
        !state.abandoned
    }

    pub(super) fn read(
        &self,
        buffer: &mut [u8],
        deadline: Option<Instant>,
    ) -> Result<usize, StreamError> {
        let mut state = self.lock();
        while state.input.is_empty() {
            if state.abandoned || state.input_broken {
                return Err(StreamError::Canceled);
            }
            if state.input_ended {
                return Ok(0);
            }
            state = self.wait(state, deadline)?;
        }
        let mut copied = 0;
        while copied < buffer.len()
            && let Some(piece) = state.input.front_mut()
        {
            let length = piece.len().min(buffer.len() - copied);
            buffer[copied..copied + length].copy_from_slice(&piece.split_to(length));
            copied += length;
            if piece.is_empty() {
                state.input.pop_front();
            }
        }
        state.input_size -= copied;
        let feeder = (state.input_size < INPUT_BUFFER).then(|| state.feeder.take());
        drop(state);
        if let Some(Some(feeder)) = feeder {
            feeder.wake();
        }
        Ok(copied)
    }

    pub(super) fn wait_readable(&self, until: Option<Instant>) -> Result<bool, StreamError> {
        let mut state = self.lock();
        loop {
            if state.abandoned || state.input_broken {
                return Err(StreamError::Canceled);
            }
            if !state.input.is_empty() || state.input_ended {
                return Ok(true);
            }
            state = match self.wait(state, until) {
                Ok(state) => state,
                Err(_timed_out) => return Ok(false),
            };
        }
    }

    pub(super) fn write(
        &self,
        bytes: &[u8],
        deadline: Option<Instant>,
    ) -> Result<usize, StreamError> {
        let mut state = self.writable(deadline)?;
        if state.cgi.is_some() {
            return Ok(state.take_cgi(bytes));
        }
        if state.bad_head.is_some() {
            return Ok(bytes.len());
        }
        let room = OUTPUT_BUFFER - state.output.len();
        let taken = &bytes[..bytes.len().min(room)];
        let written = state.written + taken.len() as u64;
        if self.output_limit.is_some_and(|limit| written > limit) {
            return Err(StreamError::LimitReached);
        }
        state.written = written;
        state.output.extend_from_slice(taken);
        if state.trial.is_some() && state.output.len() >= self.hold.bytes {
            // It would go out now.
            return Err(StreamError::Canceled);
        }
        // What a trial has written waits for its end.
        let first = state.first_output.is_none() && state.trial.is_none() && !taken.is_empty();
        if first {
            state.first_output = Some(Instant::now());
        }
        let wake = state.released
            || state.output.len() >= self.hold.bytes
            || (first && state.wake_at_first);
        let reader = if wake { state.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(taken.len())
    }

    fn writable(&self, deadline: Option<Instant>) -> Result<MutexGuard<'_, State>, StreamError> {
        let mut state = self.lock();
        loop {
            if state.abandoned {
                return Err(StreamError::Canceled);
            }
            if state.output.len() < OUTPUT_BUFFER {
                return Ok(state);
            }
            state = self.wait(state, deadline)?;
        }
    }

    pub(super) fn wait_writable(&self, until: Option<Instant>) -> Result<bool, StreamError> {
        match self.writable(until) {
            Ok(_) => Ok(true),
            Err(StreamError::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a line of the response's head.
    ///
    /// # Errors
    /// What is wrong with it; `Ok(false)` if the head has been sent.
    pub(super) fn add_head_line(&self, line: &[u8]) -> Result<bool, HeadError> {
        let mut state = self.lock();
        if state.released {
            return Ok(false);
        }
        let added = state.head.add_line(line);
        if let (Err(_), Some(trial)) = (&added, &mut state.trial) {
            trial.failed = true;
        }
        added.map(|()| true)
    }

    /// Begins a run on the thread of the connection, of which nothing is to be seen if it does not end well. All of the
    /// input is here, and the run ends where the guest would have to wait or could be seen.
    pub(super) fn begin_trial(&self) {
        let mut state = self.lock();
        state.trial = Some(Trial {
            input: state.input.clone(),
            failed: false,
        });
    }

    /// Whether this is a trial.
    pub(super) fn is_trial(&self) -> bool {
        self.lock().trial.is_some()
    }

    /// Ends a trial of which the guest `ended_well`. Whether all of it is well; if not, it was never run.
    pub(super) fn end_trial(&self, ended_well: bool) -> bool {
        let mut state = self.lock();
        let Some(trial) = state.trial.take() else {
            return false;
        };
        let has_response = state.cgi.is_none() && state.bad_head.is_none();
        if ended_well && has_response && !trial.failed {
            return true;
        }
        *state = State {
            input_size: trial.input.iter().map(Bytes::len).sum(),
            input: trial.input,
            input_ended: state.input_ended,
            input_broken: state.input_broken,
            abandoned: state.abandoned,
            cgi: cgi_head(self.format),
            ..State::default()
        };
        false
    }

    /// The end of the guest's run: what became of its response, and why it has none although it ended well.
    pub(super) fn conclude(&self, outcome: Outcome, ran: Ran) -> (Outcome, Option<HeadError>) {
        let mut state = self.lock();
        state.ran = Some(ran);
        if state.cgi.take().is_some() {
            state.bad_head = Some(HeadError::NoEnd);
        }
        match state.bad_head {
            Some(error) if outcome == Outcome::Success => (Outcome::BadResponse, Some(error)),
            _ => (outcome, None),
        }
    }

    /// Ends the exchange. Nobody is woken before [`Finished::tell`].
    pub(super) fn finish(&self, outcome: Outcome) -> Finished {
        let mut state = self.lock();
        if !state.released {
            state.status = state.head.status.unwrap_or(StatusCode::OK);
        }
        state.outcome = Some(outcome);
        state.canceler = None;
        let sent = state.released || outcome == Outcome::Success;
        Finished {
            status: if sent { state.status } else { outcome.status() },
            written: if sent { state.written } else { 0 },
            waiting: [state.reader.take(), state.feeder.take()],
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        let state = self.lock();
        state.abandoned || state.input_broken
    }

    /// Whether the input broke off.
    pub(super) fn is_input_broken(&self) -> bool {
        self.lock().input_broken
    }
}
