//! `poll_oneoff`: waits for clocks and descriptors.
//!
//! Files are always ready. Only stdin, stdout, stderr and clocks can make a call wait, at most until the
//! run's deadline, which ends the run.

use std::time::{Duration, Instant};

use faas_wasm_engine::Stop;

use super::clock::Clock;
use super::{Abi, Call, checkpoint, element};
use crate::context::WasiContext;
use crate::errno::{Errno, Outcome};
use crate::rights;
use crate::stream::StreamError;
use crate::table::Object;

const EVENT: u32 = 32;
/// Time to wait for one stream while another may become ready, too.
const SLICE: Duration = Duration::from_millis(1);

/// Time that a guest sleeps between two checks whether the client is still there.
const NAP: Duration = Duration::from_millis(20);

/// A subscription of the guest.
#[derive(Debug, Clone, Copy)]
struct Subscription {
    user: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// `None` if the time is beyond the range of the host's clock.
    Clock(Option<Instant>),
    Read(u32),
    Write(u32),
}

/// The streams to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Streams {
    fn count(self) -> u32 {
        u32::from(self.stdin) + u32::from(self.stdout) + u32::from(self.stderr)
    }
}

pub(crate) fn poll_oneoff(
    call: &mut Call,
    subscriptions: u32,
    events: u32,
    count: u32,
    stored: u32,
) -> Outcome {
    if count == 0 {
        return Err(Errno::Inval.into());
    }
    let size = subscription_size(call.abi);
    let bytes = count.checked_mul(size).ok_or(Errno::Inval)?;
    call.memory.slice(subscriptions, bytes)?;
    call.memory.slice(events, count * EVENT)?;
    let start = Instant::now();
    loop {
        let mut ready = 0;
        let mut waited = Streams::default();
        let mut earliest: Option<Instant> = None;
        let now = Instant::now();
        for index in 0..count {
            if index % 4096 == 4095 {
                call.checkpoint()?;
            }
            let at = element(subscriptions, index, size)?;
            let subscription = read_subscription(call, at, start, now)?;
            if let What::Clock(at) = subscription.what
                && at.is_none_or(|at| at > now)
            {
                earliest = earliest.into_iter().chain(at).min();
                continue;
            }
            let Some(state) = state(call, subscription.what, &mut waited)? else {
                continue;
            };
            // Events may overwrite subscriptions that are still to be read. That affects only the guest.
            write_event(call, element(events, ready, EVENT)?, &subscription, state)?;
            ready += 1;
        }
        if ready > 0 {
            return Ok(call.memory.write(stored, ready)?);
        }
        wait(call, waited, earliest)?;
    }
}

fn subscription_size(abi: Abi) -> u32 {
    match abi {
        Abi::Preview1 => 48,
        Abi::Unstable => 56,
    }
}

/// Reads a subscription. Relative times count from `start`; absolute times are compared with `now`.
fn read_subscription(call: &Call, at: u32, start: Instant, now: Instant) -> Outcome<Subscription> {
    let memory = &call.memory;
    // `poll_oneoff` has checked that the whole array is in memory.
    let user = memory.read(at)?;
    let what = match memory.read::<u8>(at + 8)? {
        0 => {
            // The older layout starts with another identifier.
            let clock = match call.abi {
                Abi::Preview1 => at + 16,
                Abi::Unstable => at + 24,
            };
            let id = memory.read::<u32>(clock)?;
            let timeout = memory.read::<u64>(clock + 8)?;
            let absolute = match memory.read::<u8>(clock + 24)? {
                0 => false,
                1 => true,
                _ => return Err(Errno::Inval.into()),
            };
            let kind = Clock::from_number(id)?;
            if kind == Clock::Cpu {
                return Err(Errno::Inval.into());
            }
            let timeout = Duration::from_nanos(timeout);
            What::Clock(match absolute {
                false => start.checked_add(timeout),
                true => now.checked_add(timeout.saturating_sub(kind.now())),
            })
        }
        1 => What::Read(memory.read(at + 16)?),
        2 => What::Write(memory.read(at + 16)?),
        _ => return Err(Errno::Inval.into()),
    };
    Ok(Subscription { user, what })
}

/// The event of a ready subscription.
#[derive(Debug, Clone, Copy)]
struct State {
    error: Option<Errno>,
    bytes: u64,
    hangup: bool,
}

impl State {
    const READY: Self = Self {
        error: None,
        bytes: 1,
        hangup: false,
    };
}

/// The event of a subscription that is ready. A stream that is not ready is recorded in `waited`.
fn state(call: &mut Call, what: What, waited: &mut Streams) -> Outcome<Option<State>> {
    let WasiContext {
        table,
        fs,
        stdin,
        stdout,
        stderr,
        ..
    } = &mut *call.wasi;
    let (fd, reads) = match what {
        What::Clock(_) => {
            return Ok(Some(State {
                bytes: 0,
                ..State::READY
            }));
        }
        What::Read(fd) => (fd, true),
        What::Write(fd) => (fd, false),
    };
    let descriptor = table.get(fd)?;
    if descriptor.require(rights::POLL_FD_READWRITE).is_err() && !descriptor.is_directory() {
        return Ok(Some(State {
            error: Some(Errno::Notcapable),
            ..State::READY
        }));
    }
    let now = Some(Instant::now());
    let ready = match (&descriptor.object, reads) {
        (Object::Device(_), _) => return Ok(Some(State::READY)),
        (Object::File(open), _) => {
            let size = fs.file_metadata(&open.file)?.size;
            let left = size.saturating_sub(open.position);
            return Ok(Some(State {
                error: None,
                bytes: if reads { left } else { 1 },
                hangup: reads && left == 0,
            }));
        }
        (Object::Stdin, true) => {
            waited.stdin = true;
            stdin.wait_readable(now)
        }
        (Object::Stdout, false) => {
            waited.stdout = true;
            stdout.wait_writable(now)
        }
        (Object::Stderr, false) => {
            waited.stderr = true;
            stderr.wait_writable(now)
        }
        _ => return Err(Errno::Badf.into()),
    };
    match ready {
        Ok(true) => Ok(Some(State::READY)),
        Ok(false) | Err(StreamError::TimedOut) => Ok(None),
        Err(StreamError::Closed) => Ok(Some(State {
            hangup: true,
            ..State::READY
        })),
        Err(StreamError::Io(_)) => Ok(Some(State {
            error: Some(Errno::Io),
            ..State::READY
        })),
        Err(error) => Err(error.into()),
    }
}

fn write_event(call: &mut Call, at: u32, subscription: &Subscription, state: State) -> Outcome {
    let kind = match subscription.what {
        What::Clock(_) => 0,
        What::Read(_) => 1,
        What::Write(_) => 2,
    };
    let bytes = call.memory.slice_mut(at, EVENT)?;
    bytes.fill(0);
    bytes[0..8].copy_from_slice(&subscription.user.to_le_bytes());
    let error = state.error.map_or(0, |errno| errno as u16);
    bytes[8..10].copy_from_slice(&error.to_le_bytes());
    bytes[10] = kind;
    bytes[16..24].copy_from_slice(&state.bytes.to_le_bytes());
    bytes[24..26].copy_from_slice(&u16::from(state.hangup).to_le_bytes());
    Ok(())
}

/// Waits until a subscription may be ready, or ends the run at its deadline.
fn wait(call: &mut Call, waited: Streams, earliest: Option<Instant>) -> Outcome {
    let until = earliest.into_iter().chain(call.deadline).min();
    checkpoint(call.deadline)?;
    let slice = match waited.count() {
        0 => {
            if call.wasi.stdin.is_canceled() {
                return Err(StreamError::Canceled.into());
            }
            let nap = until.map_or(NAP, |until| until.saturating_duration_since(Instant::now()));
            std::thread::sleep(nap.min(NAP));
            return Ok(checkpoint_after(call.deadline, earliest)?);
        }
        1 => until,
        _ => Some(Instant::now() + SLICE),
    };
    let slice = slice.into_iter().chain(until).min();
    let wasi = &mut *call.wasi;
    let mut outcome = Ok(false);
    if waited.stdin {
        outcome = wasi.stdin.wait_readable(slice);
    }
    if waited.stdout && !matches!(outcome, Ok(true)) {
        outcome = wasi.stdout.wait_writable(slice);
    }
    if waited.stderr && !matches!(outcome, Ok(true)) {
        outcome = wasi.stderr.wait_writable(slice);
    }
    match outcome {
        Ok(true) => Ok(()),
        Err(error @ (StreamError::Canceled | StreamError::LimitReached)) => Err(error.into()),
        // A stream repeats any other error when its state is read.
        _ => Ok(checkpoint_after(call.deadline, earliest)?),
    }
}

/// Ends the run if its deadline has passed, unless the guest's wait ended earlier.
fn checkpoint_after(deadline: Option<Instant>, earliest: Option<Instant>) -> Result<(), Stop> {
    match (deadline, earliest) {
        (Some(deadline), Some(earliest)) if earliest <= deadline => Ok(()),
        _ => checkpoint(deadline),
    }
}
