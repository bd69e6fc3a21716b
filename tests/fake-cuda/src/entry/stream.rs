//! Streams, and capture of their work.

use crate::abi::{Code, Host, Out, Result, Stream};
use crate::device::Work;
use crate::driver::{Call, StreamObject};
use crate::entry::entries;

/// `CU_STREAM_NON_BLOCKING`: does not wait for the legacy default stream.
const NON_BLOCKING: u32 = 1;
/// `CU_GRAPH_NODE_TYPE_EMPTY`.
const NODE_EMPTY: u32 = 5;

fn create(call: &mut Call<'_>, out: Out<u64>, flags: u32, priority: i32) -> Result {
    let out = out.required()?;
    let driver = call.driver();
    let context = driver.context()?;
    if flags > NON_BLOCKING {
        return Err(Code::INVALID_VALUE);
    }
    let lane = driver.add_lane(context, false, flags & NON_BLOCKING == 0);
    out.put(driver.streams.insert(StreamObject {
        context,
        lane,
        flags,
        // Clamp a priority to the valid range.
        priority: priority.clamp(-5, 0),
    }));
    Ok(())
}

/// The flags and priority that a stream was created with. The default streams have neither.
fn traits(call: &mut Call<'_>, stream: Stream) -> Result<(u32, i32)> {
    call.driver().lane(stream)?;
    let object = call.driver().streams.get(stream.0);
    Ok(object.map_or((0, 0), |object| (object.flags, object.priority)))
}

/// `CUstreamCaptureStatus` of a lane (none, active or invalidated), and the number and graph of its capture.
fn status(call: &mut Call<'_>, stream: Stream) -> Result<(u32, u64, u64)> {
    let lane = call.driver().lane(stream)?;
    Ok(match call.driver().capture(lane) {
        None => (0, 0, 0),
        Some(capture) => (
            if capture.invalid { 2 } else { 1 },
            capture.graph,
            capture.graph,
        ),
    })
}

entries! {
    fn cuStreamCreate(stream: Out<u64>, flags: u32) |call| {
        create(call, stream, flags, 0)
    }

    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: u32, priority: i32) |call| {
        create(call, stream, flags, priority)
    }

    fn cuStreamDestroy_v2(stream: u64) |call| {
        let driver = call.driver();
        driver.check(stream, |driver| &driver.streams)?;
        if let Some(object) = driver.streams.remove(stream) {
            driver.close_lane(object.lane);
        }
        Ok(())
    }

    fn cuStreamSynchronize / cuStreamSynchronize_ptsz(stream: Stream) |call| {
        let lane = call.driver().lane(stream)?;
        call.driver().not_captured(lane)?;
        let entry = call.driver().lanes.get(&lane).map(|lane| (lane.legacy, lane.context));
        match entry {
            Some((true, context)) => call.drain_blocking(context),
            _ => call.drain(lane),
        }
    }

    fn cuStreamQuery / cuStreamQuery_ptsz(stream: Stream) |call| {
        let driver = call.driver();
        let lane = driver.lane(stream)?;
        driver.not_captured(lane)?;
        let entry = driver.lanes.get(&lane).map(|lane| (lane.legacy, lane.context));
        let idle = match entry {
            Some((true, context)) => driver.lanes.values().all(|lane| {
                lane.context != context || !lane.blocking || lane.pending() == 0
            }),
            _ => driver.is_idle(lane),
        };
        if idle { Ok(()) } else { Err(Code::NOT_READY) }
    }

    fn cuStreamWaitEvent / cuStreamWaitEvent_ptsz(stream: Stream, event: u64, flags: u32) |call| {
        let driver = call.driver();
        let lane = driver.lane_for_work(stream)?;
        driver.check(event, |driver| &driver.events)?;
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        let object = driver.events.get(event).ok_or(Code::INVALID_HANDLE)?;
        let (number, captured) = (object.recorded, object.captured.clone());
        if let Some((graph, nodes)) = captured {
            return driver.join_capture(lane, graph, &nodes);
        }
        if driver.capture(lane).is_some() {
            return Err(Code::STREAM_CAPTURE_ISOLATION);
        }
        // An event that was never recorded needs no wait.
        driver.queue(lane, NODE_EMPTY, Work::Wait { event, number })
    }

    fn cuStreamGetFlags / cuStreamGetFlags_ptsz(stream: Stream, flags: Out<u32>) |call| {
        let out = flags.required()?;
        out.put(traits(call, stream)?.0);
        Ok(())
    }

    fn cuStreamGetPriority / cuStreamGetPriority_ptsz(stream: Stream, priority: Out<i32>) |call| {
        let out = priority.required()?;
        out.put(traits(call, stream)?.1);
        Ok(())
    }

    fn cuStreamGetCtx / cuStreamGetCtx_ptsz(stream: Stream, context: Out<u64>) |call| {
        let out = context.required()?;
        let driver = call.driver();
        let lane = driver.lane(stream)?;
        let lane = driver.lanes.get(&lane).ok_or(Code::INVALID_HANDLE)?;
        out.put(lane.context);
        Ok(())
    }

    fn cuStreamGetId / cuStreamGetId_ptsz(stream: Stream, id: Out<u64>) |call| {
        let out = id.required()?;
        out.put(call.driver().lane(stream)?);
        Ok(())
    }

    fn cuStreamBeginCapture_v2 / cuStreamBeginCapture_v2_ptsz(stream: Stream, mode: u32) |call| {
        let lane = call.driver().lane_for_work(stream)?;
        call.driver().begin_capture(lane, mode)
    }

    fn cuStreamEndCapture / cuStreamEndCapture_ptsz(stream: Stream, graph: Out<u64>) |call| {
        let out = graph.required()?;
        let lane = call.driver().lane(stream)?;
        let ended = call.driver().end_capture(lane);
        out.put(*ended.as_ref().unwrap_or(&0));
        ended.map(|_| ())
    }

    fn cuStreamIsCapturing / cuStreamIsCapturing_ptsz(stream: Stream, out: Out<u32>) |call| {
        let out = out.required()?;
        out.put(status(call, stream)?.0);
        Ok(())
    }

    fn cuStreamGetCaptureInfo_v2 / cuStreamGetCaptureInfo_v2_ptsz(
        stream: Stream,
        state: Out<u32>,
        id: Out<u64>,
        graph: Out<u64>,
        _dependencies: Out<u64>,
        count: Out<usize>,
    ) |call| {
        let state = state.required()?;
        let (now, number, handle) = status(call, stream)?;
        state.put(now);
        if now == 1 {
            id.put(number);
            graph.put(handle);
            count.put(0);
        }
        Ok(())
    }

    fn cuThreadExchangeStreamCaptureMode(mode: Host) |call| {
        if mode.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        let wanted = mode.word32() as u32;
        if wanted > 2 {
            return Err(Code::INVALID_VALUE);
        }
        let modes = &mut call.driver().capture_modes;
        let before = modes.insert(std::thread::current().id(), wanted).unwrap_or(0);
        mode.write(&before.to_le_bytes());
        Ok(())
    }
}
