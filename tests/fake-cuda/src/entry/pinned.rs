//! Page-locked memory of the caller.

use crate::abi::{Code, Host, Out, Result};
use crate::driver::{Call, Pinned};
use crate::entry::entries;

const PAGE: usize = 4096;

fn allocate(call: &mut Call<'_>, out: Out<usize>, size: usize, flags: u32) -> Result {
    let out = out.required()?;
    let context = call.driver().context()?;
    if size == 0 || flags & !7 != 0 {
        return Err(Code::INVALID_VALUE);
    }
    let total = call.driver().settings.memory;
    let length = size
        .checked_add(PAGE)
        .filter(|length| *length as u64 <= total);
    let bytes = vec![0u8; length.ok_or(Code::OUT_OF_MEMORY)?];
    let address = (bytes.as_ptr() as usize).next_multiple_of(PAGE);
    call.driver().pinned.insert(
        address,
        Pinned {
            context,
            length: size,
            flags,
            bytes: Some(bytes),
        },
    );
    out.put(address);
    Ok(())
}

entries! {
    fn cuMemAllocHost_v2(address: Out<usize>, bytes: usize) |call| {
        allocate(call, address, bytes, 0)
    }

    fn cuMemHostAlloc(address: Out<usize>, bytes: usize, flags: u32) |call| {
        allocate(call, address, bytes, flags)
    }

    fn cuMemFreeHost(address: Host) |call| {
        let driver = call.driver();
        let owned = driver.pinned.get(&address.0).is_some_and(|region| region.bytes.is_some());
        if !owned {
            driver.violation(format!("{:#x} is no page-locked memory of the driver", address.0));
            return Err(Code::INVALID_VALUE);
        }
        if let Ok(context) = call.driver().context() {
            call.drain_context(context)?;
        }
        call.driver().pinned.remove(&address.0);
        Ok(())
    }

    fn cuMemHostRegister_v2(address: Host, bytes: usize, flags: u32) |call| {
        let driver = call.driver();
        let context = driver.context()?;
        if address.is_null() || bytes == 0 || flags & !15 != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let end = address.0.checked_add(bytes).ok_or(Code::INVALID_VALUE)?;
        let before = driver.pinned.range(..end).next_back();
        if before.is_some_and(|(base, region)| base + region.length > address.0) {
            return Err(Code::HOST_MEMORY_ALREADY_REGISTERED);
        }
        driver.pinned.insert(
            address.0,
            Pinned {
                context,
                length: bytes,
                flags,
                bytes: None,
            },
        );
        Ok(())
    }

    fn cuMemHostUnregister(address: Host) |call| {
        let driver = call.driver();
        let registered = driver.pinned.get(&address.0).is_some_and(|region| region.bytes.is_none());
        if !registered {
            driver.violation(format!("{:#x} is not registered", address.0));
            return Err(Code::HOST_MEMORY_NOT_REGISTERED);
        }
        driver.pinned.remove(&address.0);
        Ok(())
    }

    fn cuMemHostGetFlags(flags: Out<u32>, address: Host) |call| {
        let out = flags.required()?;
        let region = call.driver().pinned.range(..=address.0).next_back();
        let region = region.filter(|(base, region)| address.0 - **base < region.length);
        out.put(region.ok_or(Code::INVALID_VALUE)?.1.flags);
        Ok(())
    }
}
