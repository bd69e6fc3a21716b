//! Contexts, and each thread's current context.

use std::collections::BTreeMap;
use std::thread;

use crate::abi::{Code, Host, Out, Result};
use crate::device::Purpose;
use crate::driver::{Call, Context, Driver, SHARED};
use crate::entry::entries;

/// `CUlimit` values and their initial settings.
const LIMITS: [(u32, usize); 4] = [(0, 1024), (1, 1 << 20), (2, 8 << 20), (3, 2)];
/// Scheduling, host mapping, local memory, and the later ones up to 0x80.
const FLAGS: u32 = 0xff;
const LEAST_PRIORITY: i32 = 0;
const GREATEST_PRIORITY: i32 = -5;

impl Driver {
    pub(super) fn new_context(&mut self, device: usize, flags: u32, primary: bool) -> u64 {
        let id = self.next_sequence();
        let handle = self.contexts.insert(Context {
            device,
            flags,
            primary,
            sticky: None,
            limits: LIMITS.into_iter().collect::<BTreeMap<_, _>>(),
            cache: 0,
            legacy_lane: 0,
            per_thread_lane: 0,
            id,
        });
        let legacy = self.add_lane(handle, true, true);
        let per_thread = self.add_lane(handle, false, true);
        if let Some(context) = self.contexts.get_mut(handle) {
            context.legacy_lane = legacy;
            context.per_thread_lane = per_thread;
        }
        handle
    }

    fn stack(&mut self) -> &mut Vec<u64> {
        self.current.entry(thread::current().id()).or_default()
    }

    /// Removes everything that a context still owns, and returns the number of objects.
    fn reap(&mut self, context: u64) -> usize {
        let mut left = self
            .streams
            .remove_where(|_, stream| stream.context == context);
        left += self
            .events
            .remove_where(|_, event| event.context == context);
        left += self.execs.remove_where(|_, exec| exec.context == context);
        left += self.links.remove_where(|_, link| link.context == context);
        left += self
            .modules
            .remove_where(|_, module| module.context == context && module.library.is_none());
        self.modules
            .remove_where(|_, module| module.context == context);
        self.functions
            .remove_where(|_, function| function.context == context);
        // Memory from cuMemAllocHost also belongs to the context, and must not be freed after the context is gone.
        let pinned = self.pinned.len();
        self.pinned
            .retain(|_, region| region.context != context || region.bytes.is_none());
        left += pinned - self.pinned.len();
        let mut memory = SHARED.memory.lock();
        left += memory.count(|one| one.context == context && one.purpose == Purpose::Linear);
        // Pool memory outlives contexts, even failed ones.
        memory
            .free_where(|one| one.context == context && !matches!(one.purpose, Purpose::Pooled(_)));
        left
    }
}

/// Destroys a context and everything in it.
pub(super) fn destroy(call: &mut Call<'_>, handle: u64) {
    if call.driver().settings.destroy_waits {
        // As in a driver that cannot stop a kernel, an endless kernel blocks the caller here.
        call.wait(|driver| {
            let busy = driver.lanes_of(handle).any(|lane| !driver.is_idle(lane));
            (!busy).then_some(())
        });
    }
    call.driver().abandon_lanes(handle);
    SHARED.changed.notify_all();
    call.wait(|driver| driver.lanes_of(handle).next().is_none().then_some(()));
    let left = call.driver().reap(handle);
    call.driver().records.left_to_context += left as u64;
    call.driver().contexts.remove(handle);
}

fn create(call: &mut Call<'_>, out: Out<u64>, flags: u32, device: i32) -> Result {
    let out = out.required()?;
    let driver = call.driver();
    let device = driver.device(device)?;
    if flags & !FLAGS != 0 {
        return Err(Code::INVALID_VALUE);
    }
    let context = driver.new_context(device, flags, false);
    driver.stack().push(context);
    out.put(context);
    Ok(())
}

entries! {
    fn cuCtxCreate_v2(context: Out<u64>, flags: u32, device: i32) |call| {
        create(call, context, flags, device)
    }

    fn cuCtxCreate_v3(
        context: Out<u64>,
        parameters: Host,
        count: i32,
        flags: u32,
        device: i32,
    ) |call| {
        if !parameters.is_null() || count != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        create(call, context, flags, device)
    }

    fn cuCtxCreate_v4(context: Out<u64>, parameters: Host, flags: u32, device: i32) |call| {
        if !parameters.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        create(call, context, flags, device)
    }

    fn cuCtxDestroy_v2(context: u64) |call| {
        let driver = call.driver();
        driver.check(context, |driver| &driver.contexts)?;
        if driver.contexts.get(context).is_some_and(|context| context.primary) {
            return Err(Code::INVALID_CONTEXT);
        }
        let stack = driver.stack();
        if stack.last() == Some(&context) {
            stack.pop();
        }
        destroy(call, context);
        Ok(())
    }

    fn cuCtxSetCurrent(context: u64) |call| {
        let driver = call.driver();
        if context == 0 {
            driver.stack().pop();
            return Ok(());
        }
        driver.check(context, |driver| &driver.contexts)?;
        let stack = driver.stack();
        stack.pop();
        stack.push(context);
        Ok(())
    }

    fn cuCtxGetCurrent(context: Out<u64>) |call| {
        context.required()?.put(call.driver().current_context().unwrap_or(0));
        Ok(())
    }

    fn cuCtxPushCurrent_v2(context: u64) |call| {
        let driver = call.driver();
        driver.check(context, |driver| &driver.contexts)?;
        driver.stack().push(context);
        Ok(())
    }

    fn cuCtxPopCurrent_v2(context: Out<u64>) |call| {
        let popped = call.driver().stack().pop().ok_or(Code::INVALID_CONTEXT)?;
        context.put(popped);
        Ok(())
    }

    fn cuCtxGetDevice(device: Out<i32>) |call| {
        let out = device.required()?;
        let driver = call.driver();
        let context = driver.current_context().ok_or(Code::INVALID_CONTEXT)?;
        let context = driver.contexts.get(context).ok_or(Code::CONTEXT_IS_DESTROYED)?;
        out.put(context.device as i32);
        Ok(())
    }

    fn cuCtxGetFlags(flags: Out<u32>) |call| {
        let out = flags.required()?;
        out.put(current(call)?.flags);
        Ok(())
    }

    fn cuCtxGetLimit(value: Out<usize>, limit: u32) |call| {
        let out = value.required()?;
        let value = current(call)?.limits.get(&limit).copied();
        out.put(value.ok_or(Code::INVALID_VALUE)?);
        Ok(())
    }

    fn cuCtxSetLimit(limit: u32, value: usize) |call| {
        let known = current(call)?.limits.get_mut(&limit);
        *known.ok_or(Code::INVALID_VALUE)? = value;
        Ok(())
    }

    fn cuCtxGetCacheConfig(config: Out<u32>) |call| {
        let out = config.required()?;
        out.put(current(call)?.cache);
        Ok(())
    }

    fn cuCtxSetCacheConfig(config: u32) |call| {
        if config > 3 {
            return Err(Code::INVALID_VALUE);
        }
        current(call)?.cache = config;
        Ok(())
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) |call| {
        current(call)?;
        least.put(LEAST_PRIORITY);
        greatest.put(GREATEST_PRIORITY);
        Ok(())
    }

    fn cuCtxGetApiVersion(context: u64, version: Out<u32>) |call| {
        let out = version.required()?;
        if context != 0 {
            call.driver().check(context, |driver| &driver.contexts)?;
        }
        out.put(3020);
        Ok(())
    }

    fn cuCtxGetId(context: u64, id: Out<u64>) |call| {
        let out = id.required()?;
        let handle = match context {
            0 => call.driver().context()?,
            context => context,
        };
        call.driver().check(handle, |driver| &driver.contexts)?;
        let context = call.driver().contexts.get(handle).ok_or(Code::INVALID_CONTEXT)?;
        out.put(context.id);
        Ok(())
    }

    fn cuCtxSynchronize() |call| {
        let context = call.driver().context()?;
        call.driver().no_capture_in(context)?;
        call.drain_context(context)
    }
}

fn current<'a>(call: &'a mut Call<'_>) -> Result<&'a mut Context> {
    let handle = call.driver().context()?;
    call.driver()
        .contexts
        .get_mut(handle)
        .ok_or(Code::INVALID_CONTEXT)
}
