//! Clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_getres, clock_gettime};

use super::Call;
use crate::errno::{Errno, Outcome};

/// The clocks of preview1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    Realtime,
    Monotonic,
    /// CPU time of the instance's only thread. It starts at 0 when the guest first asks, so that it reveals
    /// nothing about other instances.
    Cpu,
}

impl Clock {
    pub(crate) fn from_number(number: u32) -> Result<Self, Errno> {
        match number {
            0 => Ok(Self::Realtime),
            1 => Ok(Self::Monotonic),
            2 | 3 => Ok(Self::Cpu),
            _ => Err(Errno::Inval),
        }
    }

    fn host(self) -> ClockId {
        match self {
            Self::Realtime => ClockId::Realtime,
            Self::Monotonic => ClockId::Monotonic,
            Self::Cpu => ClockId::ThreadCPUTime,
        }
    }

    /// The time of the host's clock in nanoseconds since its epoch.
    pub(crate) fn now(self) -> Duration {
        duration(clock_gettime(self.host()))
    }
}

pub(crate) fn clock_res_get(call: &mut Call, id: u32, resolution: u32) -> Outcome {
    let clock = Clock::from_number(id)?;
    let nanoseconds = duration(clock_getres(clock.host())).as_nanos() as u64;
    Ok(call.memory.write(resolution, nanoseconds)?)
}

pub(crate) fn clock_time_get(call: &mut Call, id: u32, _precision: u64, time: u32) -> Outcome {
    let clock = Clock::from_number(id)?;
    let mut now = clock.now();
    if clock == Clock::Cpu {
        let start = *call.wasi.cpu_start.get_or_insert(now);
        now = now.saturating_sub(start);
    }
    // 2^64 ns are 584 years.
    Ok(call.memory.write(time, now.as_nanos() as u64)?)
}

fn duration(time: rustix::fs::Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}
