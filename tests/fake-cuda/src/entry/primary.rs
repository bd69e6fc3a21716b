//! Primary contexts: one per device, shared and reference-counted.

use super::context::destroy;
use crate::abi::{Code, Out};
use crate::driver::Call;
use crate::entry::entries;

fn end(call: &mut Call<'_>, device: usize) {
    if let Some(context) = call.driver().devices[device].primary.take() {
        destroy(call, context);
    }
}

fn release(call: &mut Call<'_>, device: i32) -> crate::abi::Result {
    let device = call.driver().device(device)?;
    let users = &mut call.driver().devices[device].primary_users;
    *users = users.checked_sub(1).ok_or(Code::INVALID_CONTEXT)?;
    if *users == 0 {
        end(call, device);
    }
    Ok(())
}

entries! {
    fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: i32) |call| {
        let out = context.required()?;
        let driver = call.driver();
        let device = driver.device(device)?;
        let handle = match driver.devices[device].primary {
            Some(handle) => handle,
            None => {
                let flags = driver.devices[device].primary_flags;
                let handle = driver.new_context(device, flags, true);
                driver.devices[device].primary = Some(handle);
                handle
            }
        };
        driver.devices[device].primary_users += 1;
        out.put(handle);
        Ok(())
    }

    fn cuDevicePrimaryCtxRelease_v2(device: i32) |call| {
        release(call, device)
    }

    fn cuDevicePrimaryCtxRelease(device: i32) |call| {
        release(call, device)
    }

    fn cuDevicePrimaryCtxReset_v2(device: i32) |call| {
        let device = call.driver().device(device)?;
        end(call, device);
        call.driver().devices[device].primary_users = 0;
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) |call| {
        let (flags, active) = (flags.required()?, active.required()?);
        let device = call.driver().device(device)?;
        let device = &call.driver().devices[device];
        flags.put(device.primary_flags);
        active.put(i32::from(device.primary.is_some()));
        Ok(())
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) |call| {
        let device = call.driver().device(device)?;
        call.driver().devices[device].primary_flags = flags;
        Ok(())
    }
}
