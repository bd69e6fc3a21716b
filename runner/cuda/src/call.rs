//! A call of a guest: access to its memory and state, and waits for the device.
//!
//! Every address and length is checked here before the driver is called. Only the thread that runs the guest accesses
//! guest memory; the device reads and writes a staging buffer of the host (`copy.rs`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_wasm_artifact::{CudaAbi, Width};
use faas_wasm_engine::Stop;

use crate::arguments::{Kind, Pointer};
use crate::code::Code;
use crate::device::Backend;
use crate::driver::{EntryPoints, Event, Stream, set_current};
use crate::handles::Handle;
use crate::host::GuestHost;
use crate::imports::Imports;
use crate::instance::State;
use crate::objects::Current;
use crate::outcome::{CallResult, Failure, fail};
use crate::service::Cuda;
use crate::settings::Level;

/// The location of a result in guest memory, checked before the driver is called.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Out {
    offset: u32,
    width: Width,
}

/// A call in progress; see the module documentation.
pub(crate) struct Call<'a> {
    pub(crate) cuda: &'a Arc<Cuda>,
    pub(crate) imports: &'a Imports,
    pub(crate) abi: CudaAbi,
    pub(crate) state: &'a mut State,
    pub(crate) host: &'a mut dyn GuestHost,
    /// Whether stream 0 is the per-thread default stream, as in functions whose names end in `_ptsz` and `_ptds`.
    pub(crate) per_thread: bool,
}

impl Call<'_> {
    /// The open driver with its devices.
    pub(crate) fn backend(&self) -> CallResult<Arc<Backend>> {
        match &self.state.backend {
            Some(backend) => Ok(Arc::clone(backend)),
            None => fail(Code::NOT_INITIALIZED),
        }
    }

    /// Makes the guest's current context current on the thread, and returns it.
    pub(crate) fn current(&mut self) -> CallResult<Current> {
        let Some(handle) = self.state.stack.last().copied() else {
            return fail(Code::INVALID_CONTEXT);
        };
        self.enter_context(handle)
    }

    /// Makes a context of the guest current on the thread, and returns it.
    pub(crate) fn enter_context(&mut self, handle: Handle) -> CallResult<Current> {
        let Some(object) = self.state.contexts.get(handle) else {
            return fail(Code::INVALID_CONTEXT);
        };
        let device = object.device;
        let Some(lease) = self.state.leases.get(device).and_then(Option::as_ref) else {
            return fail(Code::INVALID_CONTEXT);
        };
        let current = Current {
            handle,
            device,
            context: lease.context,
            stream: lease.default_stream(),
        };
        if let Some(backend) = &self.state.backend {
            set_current(&backend.driver, current.context)?;
        }
        Ok(current)
    }

    /// Checks a range of the guest's memory.
    fn range(&self, pointer: Pointer, length: u64) -> CallResult<(u32, u32)> {
        let end = pointer.0.checked_add(length);
        let inside = end.is_some_and(|end| end <= self.host.memory_size());
        match (u32::try_from(pointer.0), u32::try_from(length)) {
            (Ok(offset), Ok(length)) if offset != 0 && inside => Ok((offset, length)),
            _ => fail(Code::INVALID_VALUE),
        }
    }

    /// A range of the guest's memory.
    pub(crate) fn bytes(&self, pointer: Pointer, length: u64) -> CallResult<&[u8]> {
        let (offset, length) = self.range(pointer, length)?;
        self.host
            .bytes(offset, length)
            .ok_or(Failure::Code(Code::INVALID_VALUE))
    }

    /// A range of the guest's memory, for writing.
    pub(crate) fn bytes_mut(&mut self, pointer: Pointer, length: u64) -> CallResult<&mut [u8]> {
        let (offset, length) = self.range(pointer, length)?;
        self.host
            .bytes_mut(offset, length)
            .ok_or(Failure::Code(Code::INVALID_VALUE))
    }

    /// Checks the location of a result of this kind.
    pub(crate) fn out(&self, pointer: Pointer, kind: Kind) -> CallResult<Out> {
        let width = kind.width(self.abi);
        let (offset, _) = self.range(pointer, u64::from(width.bytes()))?;
        Ok(Out { offset, width })
    }

    /// The same for an optional result: `None` if the pointer is null.
    pub(crate) fn optional_out(&self, pointer: Pointer, kind: Kind) -> CallResult<Option<Out>> {
        if pointer.is_null() {
            return Ok(None);
        }
        self.out(pointer, kind).map(Some)
    }

    /// Writes a result. A value that does not fit is replaced by the largest one that does.
    pub(crate) fn store(&mut self, out: Out, value: u64) -> CallResult {
        let value = value.min(out.width.max()).to_le_bytes();
        let length = out.width.bytes();
        match self.host.bytes_mut(out.offset, length) {
            Some(bytes) => {
                bytes.copy_from_slice(&value[..length as usize]);
                Ok(())
            }
            None => fail(Code::INVALID_VALUE),
        }
    }

    /// Writes an optional result.
    pub(crate) fn store_optional(&mut self, out: Option<Out>, value: u64) -> CallResult {
        out.map_or(Ok(()), |out| self.store(out, value))
    }

    /// Writes an `int`, which is not sign-extended.
    pub(crate) fn store_int(&mut self, out: Out, value: i32) -> CallResult {
        self.store(out, u64::from(value as u32))
    }

    /// Reads a value of this kind.
    pub(crate) fn load(&self, pointer: Pointer, kind: Kind) -> CallResult<u64> {
        let mut value = [0; 8];
        let length = kind.width(self.abi).bytes();
        let bytes = self.bytes(pointer, u64::from(length))?;
        value[..length as usize].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(value))
    }

    /// Reads element `index` of an array.
    pub(crate) fn load_element(&self, array: Pointer, index: u64, kind: Kind) -> CallResult<u64> {
        let length = u64::from(kind.width(self.abi).bytes());
        self.load(array.plus(index * length), kind)
    }

    /// Checks the location of element `index` of an array.
    pub(crate) fn out_element(&self, array: Pointer, index: u64, kind: Kind) -> CallResult<Out> {
        let length = u64::from(kind.width(self.abi).bytes());
        self.out(array.plus(index * length), kind)
    }

    /// The bytes before the first NUL, which must lie within `limit` bytes.
    pub(crate) fn until_nul(&self, pointer: Pointer, limit: u64) -> CallResult<&[u8]> {
        let left = self.host.memory_size().saturating_sub(pointer.0);
        let bytes = self.bytes(
            pointer,
            left.min(limit.saturating_add(1)).min(u64::from(u32::MAX)),
        )?;
        match bytes.iter().position(|byte| *byte == 0) {
            Some(end) => Ok(&bytes[..end]),
            None => fail(Code::INVALID_VALUE),
        }
    }

    /// A string of the guest.
    pub(crate) fn string(&self, pointer: Pointer, limit: u64) -> CallResult<String> {
        match std::str::from_utf8(self.until_nul(pointer, limit)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => fail(Code::INVALID_VALUE),
        }
    }

    /// Waits until a stream is idle.
    pub(crate) fn wait_stream(&mut self, driver: &EntryPoints, stream: Stream) -> CallResult {
        self.wait(|| driver.stream_query(stream))
    }

    /// Waits for an event.
    pub(crate) fn wait_event(&mut self, driver: &EntryPoints, event: Event) -> CallResult {
        self.wait(|| driver.event_query(event))
    }

    /// Repeats a query until its result is not `NOT_READY`. The driver's own wait functions cannot be interrupted, so
    /// they are never called.
    fn wait(&mut self, ask: impl Fn() -> Result<(), Code>) -> CallResult {
        let mut began = None;
        loop {
            match ask() {
                Err(Code::NOT_READY) => {}
                // From a wait this means that earlier work failed in a way the driver cannot identify.
                Err(Code::UNKNOWN) => {
                    self.state.poison(Code::UNKNOWN);
                    return fail(Code::UNKNOWN);
                }
                Err(code) => return fail(code),
                Ok(()) => return Ok(()),
            }
            let began = *began.get_or_insert_with(Instant::now);
            if let Err(failure) = self.pause(began) {
                if matches!(failure, Failure::Stop(_)) {
                    self.state.overdue = true;
                    self.state.poison(Code::LAUNCH_TIMEOUT);
                }
                return Err(failure);
            }
        }
    }

    /// Aborts long work of the host if the run must end.
    pub(crate) fn checkpoint(&self) -> CallResult {
        match self.host.is_interrupted() {
            // The run ends when the call returns, whatever the code is.
            true => fail(Code::UNKNOWN),
            false => Ok(()),
        }
    }

    /// Pauses in a wait that began at `began`: first spins, then sleeps for increasing times of up to a millisecond.
    pub(crate) fn pause(&mut self, began: Instant) -> CallResult {
        const SPIN: Duration = Duration::from_micros(50);
        const LONGEST: Duration = Duration::from_millis(1);
        self.checkpoint()?;
        let waited = began.elapsed();
        let timeout = self.cuda.settings().kernel_timeout;
        let ended = self
            .host
            .deadline()
            .is_some_and(|deadline| deadline <= Instant::now());
        let device_ended = timeout.is_some_and(|timeout| waited >= timeout);
        if ended || device_ended {
            if device_ended {
                let message = format!(
                    "a wait for the device took longer than {waited:.1?} (cuda_kernel_timeout)"
                );
                self.cuda.log(Level::Error, &message);
            }
            return Err(Failure::Stop(Stop::DEADLINE));
        }
        if waited < SPIN {
            std::hint::spin_loop();
        } else {
            std::thread::sleep((waited / 8).clamp(SPIN, LONGEST));
        }
        Ok(())
    }

    /// Counts an operation that is enqueued in a stream. Enqueuing into a full queue of the driver blocks without a
    /// timeout, so all streams are drained, within the deadline, before a queue can be full.
    pub(crate) fn make_room(&mut self, driver: &EntryPoints, current: Current) -> CallResult {
        /// Half the capacity of a queue of the driver.
        const MOST: u32 = 512;
        if self.state.capturing > 0 {
            return Ok(());
        }
        if self.state.queued >= MOST {
            self.wait_all(driver, current)?;
        }
        self.state.queued += 1;
        Ok(())
    }

    /// Waits until all streams of the guest in a context of the driver are idle.
    pub(crate) fn wait_all(&mut self, driver: &EntryPoints, current: Current) -> CallResult {
        let streams = self.state.busy_streams(current);
        for stream in streams {
            self.wait_stream(driver, stream)?;
        }
        self.state.queued = 0;
        Ok(())
    }
}
