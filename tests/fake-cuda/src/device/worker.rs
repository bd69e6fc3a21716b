//! The thread behind a lane. It runs one item after the other, without the driver's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::lane::{Next, Work};
use super::range;
use crate::abi::Code;
use crate::driver::{Driver, SHARED, trace};
use crate::exec::{Launch, Progress, Run};

/// Time after which an idle worker ends.
const IDLE: Duration = Duration::from_millis(200);
/// Maximum delay until a worker notices a changed setting.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Number of instructions between two checks for cancellation.
const SLICE: u64 = 20_000;

/// Why work ended early.
enum Stop {
    /// The context is being destroyed.
    Cancelled,
    Fault(Code, String),
}

/// Starts the thread of a lane. Returns `false` if the system refuses.
pub(crate) fn start(lane: u64) -> bool {
    let thread = thread::Builder::new().name("fake-cuda".to_owned());
    thread.spawn(move || run(lane)).is_ok()
}

fn run(lane: u64) {
    range::block_signals();
    let mut driver = SHARED.driver.lock();
    loop {
        match driver.next(lane) {
            Next::Gone => break,
            Next::Later => {
                SHARED.changed.wait_for(&mut driver, LOOK_AGAIN);
            }
            Next::Idle => {
                let timed_out = SHARED.changed.wait_for(&mut driver, IDLE).timed_out();
                let idle = driver
                    .lanes
                    .get(&lane)
                    .is_some_and(|lane| lane.queue.is_empty() && !lane.closing);
                if timed_out && idle {
                    if let Some(lane) = driver.lanes.get_mut(&lane) {
                        lane.worker = false;
                    }
                    break;
                }
            }
            Next::Run(item) => {
                let Some(entry) = driver.lanes.get(&lane) else {
                    break;
                };
                let (cancel, context) = (Arc::clone(&entry.cancel), entry.context);
                let delay = driver.settings.work_delay;
                let result = MutexGuard::unlocked(&mut driver, || {
                    if !delay.is_zero() {
                        thread::sleep(delay);
                    }
                    perform(&item.work, &cancel)
                });
                finish(&mut driver, lane, context, result);
            }
        }
    }
    SHARED.changed.notify_all();
    driver.publish();
}

fn finish(driver: &mut Driver, lane: u64, context: u64, result: Result<(), Stop>) {
    if let Some(lane) = driver.lanes.get_mut(&lane) {
        lane.running = None;
    }
    match result {
        Ok(()) => {}
        Err(Stop::Cancelled) => driver.records.kernels.cancelled += 1,
        Err(Stop::Fault(code, text)) => {
            trace(driver, &format!("fault {code:?}: {text}\n"));
            driver.records.kernels.faulted += 1;
            driver.records.kernels.last_fault = Some(text);
            driver.poison(context, code);
        }
    }
    SHARED.changed.notify_all();
    driver.publish();
}

fn perform(work: &Work, cancel: &AtomicBool) -> Result<(), Stop> {
    match work {
        Work::Nothing | Work::Wait { .. } => Ok(()),
        Work::Kernel(launch) => kernel(launch, cancel),
        Work::Copy(copy) => copy.perform().map_err(illegal),
        Work::Set(set) => set.perform().map_err(illegal),
        Work::Record { event, number } => {
            let mut driver = SHARED.driver.lock();
            if let Some(event) = driver.events.get_mut(*event) {
                event.reached = event.reached.max(*number);
                event.time = Some(Instant::now());
            }
            Ok(())
        }
        Work::Free { base } => {
            SHARED.memory.lock().free(*base);
            Ok(())
        }
        Work::Batch(batch) => batch.iter().try_for_each(|work| perform(work, cancel)),
    }
}

/// An access to memory that was freed after the work was queued.
fn illegal(misuse: super::Misuse) -> Stop {
    SHARED
        .driver
        .lock()
        .violation(format!("queued work: {misuse}"));
    Stop::Fault(Code::ILLEGAL_ADDRESS, misuse.to_string())
}

fn kernel(launch: &Launch, cancel: &AtomicBool) -> Result<(), Stop> {
    let started = Instant::now();
    let name = launch.name();
    SHARED.driver.lock().records.kernels.launched += 1;
    let mut run = Run::new(launch);
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(Stop::Cancelled);
        }
        let mut driver = SHARED.driver.lock();
        if let Some(code) = driver.settings.fault(name) {
            return Err(Stop::Fault(code, format!("{name} fails by order")));
        }
        let limit = driver.settings.launch_timeout;
        if limit.is_some_and(|limit| started.elapsed() > limit) {
            return Err(Stop::Fault(
                Code::LAUNCH_TIMEOUT,
                format!("{name} ran too long"),
            ));
        }
        if driver.settings.hangs(name) {
            SHARED.changed.wait_for(&mut driver, LOOK_AGAIN);
            continue;
        }
        drop(driver);
        let progress = run.advance(SLICE, &mut SHARED.memory.lock());
        let mut driver = SHARED.driver.lock();
        driver.records.kernels.instructions += run.take_count();
        match progress {
            Ok(Progress::Running) => {}
            Ok(Progress::Finished) => {
                driver.records.kernels.finished += 1;
                return Ok(());
            }
            Err(fault) => return Err(Stop::Fault(fault.code, format!("{name}: {fault}"))),
        }
    }
}
