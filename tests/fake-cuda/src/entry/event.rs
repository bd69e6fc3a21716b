//! Events.

use crate::abi::{Code, Out, Result, Stream};
use crate::device::Work;
use crate::driver::{Call, Event};
use crate::entry::entries;

/// `CU_EVENT_BLOCKING_SYNC` and `CU_EVENT_DISABLE_TIMING`.
const FLAGS: u32 = 3;
const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`.
const INTERPROCESS: u32 = 4;
/// `CU_GRAPH_NODE_TYPE_EVENT_RECORD`.
const NODE_RECORD: u32 = 7;

fn record(call: &mut Call<'_>, event: u64, stream: Stream) -> Result {
    let driver = call.driver();
    driver.check(event, |driver| &driver.events)?;
    let owner = driver.events.get(event).map_or(0, |event| event.context);
    driver.same_context("event", event, owner)?;
    let lane = driver.lane_for_work(stream)?;
    let captured = driver
        .capture(lane)
        .map(|capture| (capture.graph, capture.frontier.clone()));
    let object = driver.events.get_mut(event).ok_or(Code::INVALID_HANDLE)?;
    object.captured = captured;
    if object.captured.is_some() {
        return Ok(());
    }
    object.recorded += 1;
    let number = object.recorded;
    driver.queue(lane, NODE_RECORD, Work::Record { event, number })
}

/// The event, if the caller may query it.
fn asked<'a>(call: &'a mut Call<'_>, event: u64) -> Result<&'a Event> {
    let driver = call.driver();
    driver.check(event, |driver| &driver.events)?;
    let owner = driver.events.get(event).map_or(0, |event| event.context);
    driver.sound(owner)?;
    let event = driver.events.get(event).ok_or(Code::INVALID_HANDLE)?;
    match event.captured {
        Some(_) => Err(Code::CAPTURED_EVENT),
        None => Ok(event),
    }
}

fn elapsed(call: &mut Call<'_>, out: Out<f32>, start: u64, end: u64) -> Result {
    let out = out.required()?;
    let mut times = [None; 2];
    for (time, event) in times.iter_mut().zip([start, end]) {
        let event = asked(call, event)?;
        if !event.timing || event.recorded == 0 {
            return Err(Code::INVALID_HANDLE);
        }
        if event.reached < event.recorded {
            return Err(Code::NOT_READY);
        }
        *time = event.time;
    }
    let [Some(start), Some(end)] = times else {
        return Err(Code::NOT_READY);
    };
    out.put(end.saturating_duration_since(start).as_secs_f32() * 1000.0);
    Ok(())
}

entries! {
    fn cuEventCreate(event: Out<u64>, flags: u32) |call| {
        let out = event.required()?;
        let context = call.driver().context()?;
        if flags & INTERPROCESS != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        if flags & !FLAGS != 0 {
            return Err(Code::INVALID_VALUE);
        }
        out.put(call.driver().events.insert(Event {
            context,
            timing: flags & DISABLE_TIMING == 0,
            recorded: 0,
            reached: 0,
            time: None,
            captured: None,
        }));
        Ok(())
    }

    fn cuEventDestroy_v2(event: u64) |call| {
        call.driver().check(event, |driver| &driver.events)?;
        call.driver().events.remove(event);
        Ok(())
    }

    fn cuEventRecord / cuEventRecord_ptsz(event: u64, stream: Stream) |call| {
        record(call, event, stream)
    }

    fn cuEventRecordWithFlags / cuEventRecordWithFlags_ptsz(
        event: u64,
        stream: Stream,
        flags: u32,
    ) |call| {
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        record(call, event, stream)
    }

    fn cuEventQuery(event: u64) |call| {
        let event = asked(call, event)?;
        if event.reached < event.recorded {
            return Err(Code::NOT_READY);
        }
        Ok(())
    }

    fn cuEventSynchronize(event: u64) |call| {
        let (number, context) = {
            let event = asked(call, event)?;
            (event.recorded, event.context)
        };
        call.wait(|driver| {
            let sound = driver.sound(context);
            (sound.is_err() || driver.is_reached(event, number)).then_some(sound)
        })
    }

    fn cuEventElapsedTime(milliseconds: Out<f32>, start: u64, end: u64) |call| {
        elapsed(call, milliseconds, start, end)
    }

    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: u64, end: u64) |call| {
        elapsed(call, milliseconds, start, end)
    }
}
