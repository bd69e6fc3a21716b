//! The driver as a whole: initialization, version, names of errors, and addresses of functions. Also two functions
//! for a program that has loaded the library: they return the census and show that the driver is the stand-in.

use crate::abi::{CText, Code, Host, NAMES, Out};
use crate::driver::{Device, Pool, SHARED};
use crate::entry::entries;

/// The newest version of functions with several versions, with the driver version that introduced it.
const NEWER: [(&str, i32); 5] = [
    ("cuCtxCreate_v4", 12050),
    ("cuCtxCreate_v3", 11040),
    ("cuGraphInstantiateWithFlags", 11040),
    ("cuStreamGetCaptureInfo_v3", 12030),
    ("cuEventElapsedTime_v2", 12080),
];

entries! {
    fn cuInit(flags: u32) |call| {
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let driver = call.driver();
        if driver.settings.devices == 0 {
            return Err(Code::NO_DEVICE);
        }
        if !driver.initialized {
            driver.initialized = true;
            for device in 0..driver.settings.devices as usize {
                let pool = driver.pools.insert(Pool {
                    device,
                    default: true,
                    attributes: Default::default(),
                    maximum: 0,
                });
                driver.devices.push(Device {
                    primary: None,
                    primary_users: 0,
                    primary_flags: 0,
                    default_pool: pool,
                    pool,
                });
            }
        }
        Ok(())
    }

    fn cuDriverGetVersion(version: Out<i32>) |call| {
        version.required()?.put(call.driver().settings.driver_version);
        Ok(())
    }

    fn cuGetErrorName(error: i32, name: Out<usize>) |_call| {
        let known = NAMES.iter().find(|(code, _)| *code == error);
        name.required()?.put(known.map_or(0, |(_, text)| text.as_ptr() as usize));
        known.map(|_| ()).ok_or(Code::INVALID_VALUE)
    }

    fn cuGetErrorString(error: i32, text: Out<usize>) |_call| {
        // The stand-in has no error descriptions, so it returns the name.
        let known = NAMES.iter().find(|(code, _)| *code == error);
        text.required()?.put(known.map_or(0, |(_, text)| text.as_ptr() as usize));
        known.map(|_| ()).ok_or(Code::INVALID_VALUE)
    }

    fn cuGetProcAddress_v2(
        symbol: CText,
        function: Out<usize>,
        version: i32,
        flags: u64,
        status: Out<i32>,
    ) |_call| {
        let address = address(&symbol.get()?, version, flags);
        function.required()?.put(address.unwrap_or(0));
        // CU_GET_PROC_ADDRESS_SUCCESS, _SYMBOL_NOT_FOUND.
        status.put(if address.is_some() { 0 } else { 1 });
        address.map(|_| ()).ok_or(Code::NOT_FOUND)
    }

    fn cuGetProcAddress(symbol: CText, function: Out<usize>, version: i32, flags: u64) |_call| {
        let address = address(&symbol.get()?, version, flags);
        function.required()?.put(address.unwrap_or(0));
        address.map(|_| ()).ok_or(Code::NOT_FOUND)
    }
}

/// The function that a base name means for a version of the interface. Flag 2 selects the variants in which stream 0
/// is the per-thread default.
fn address(name: &str, version: i32, flags: u64) -> Option<usize> {
    let exported = super::exported();
    let find = |name: &str| {
        let entry = exported.iter().find(|(exported, _)| *exported == name);
        entry.map(|(_, address)| *address)
    };
    let fits = |name: &str| {
        let newer = NEWER.iter().find(|(newer, _)| *newer == name);
        newer.is_none_or(|(_, since)| version >= *since)
    };
    let versions = ["_v4", "_v3", "_v2", ""].map(|suffix| format!("{name}{suffix}"));
    let threads: &[&str] = if flags & 2 != 0 {
        &["_ptsz", "_ptds", ""]
    } else {
        &[""]
    };
    versions
        .iter()
        .filter(|name| fits(name))
        .flat_map(|name| threads.iter().map(move |suffix| format!("{name}{suffix}")))
        .find_map(|name| find(&name))
}

/// Writes the census as zero-terminated JSON into a buffer and returns its length. Writes nothing if the buffer is
/// too small. Not a driver call: it is not counted and always works.
#[unsafe(no_mangle)]
extern "C" fn fakecuda_census(buffer: Host, length: usize) -> usize {
    let text = SHARED.driver.lock().census_text();
    if !buffer.is_null() && text.len() < length {
        buffer.write(text.as_bytes());
        buffer.plus(text.len()).write(&[0]);
    }
    text.len()
}
