//! Functions: the attributes and requirements of a module's kernels.

use std::ffi::CString;

use super::device::MAX_SHARED_OPT_IN;
use crate::abi::{Code, Out, Result};
use crate::driver::{Call, Function, Program};
use crate::entry::entries;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`, `_PREFERRED_SHARED_MEMORY_CARVEOUT`.
const MAX_DYNAMIC_SHARED: u32 = 8;
const CARVEOUT: u32 = 9;

/// The kernel for the handle of a function or of a library's kernel, in the current context.
pub(super) fn resolve(call: &mut Call<'_>, handle: u64) -> Result<u64> {
    if call.driver().kernels.get(handle).is_some() {
        return super::library::function(call, handle);
    }
    let driver = call.driver();
    driver.check(handle, |driver| &driver.functions)?;
    let owner = driver
        .functions
        .get(handle)
        .map_or(0, |function| function.context);
    driver.same_context("function", handle, owner)?;
    Ok(handle)
}

fn object<'a>(call: &'a mut Call<'_>, handle: u64) -> Result<&'a Function> {
    call.driver().check(handle, |driver| &driver.functions)?;
    call.driver()
        .functions
        .get(handle)
        .ok_or(Code::INVALID_HANDLE)
}

/// Sizes that a kernel's program declares: shared memory, local memory, and the maximum number of threads in a block.
fn needs(call: &mut Call<'_>, handle: u64) -> Result<(usize, usize, u64)> {
    let (module, name) = {
        let function = object(call, handle)?;
        (function.module, function.name.clone())
    };
    let module = call
        .driver()
        .modules
        .get(module)
        .ok_or(Code::INVALID_HANDLE)?;
    Ok(match &module.program {
        Program::Text(loaded) => {
            let entry = loaded.entry(&name).ok_or(Code::NOT_FOUND)?;
            let function = &loaded.program.functions[entry];
            let threads = function.max_threads.unwrap_or(1024).min(1024);
            (function.shared_size, function.local_size, threads)
        }
        Program::Binary(_) => (0, 0, 1024),
    })
}

entries! {
    fn cuFuncGetAttribute(value: Out<i32>, attribute: u32, function: u64) |call| {
        let out = value.required()?;
        let function = resolve(call, function)?;
        let (shared, local, threads) = needs(call, function)?;
        let capability = call.driver().settings.capability;
        let set = object(call, function)?.attributes.get(&attribute).copied();
        out.put(match attribute {
            0 => threads as i32,
            1 => shared as i32,
            3 => local as i32,
            4 => 32,
            5 | 6 => capability.0 * 10 + capability.1,
            2 | 7 | 10..=15 => set.unwrap_or(0),
            MAX_DYNAMIC_SHARED => set.unwrap_or(48 << 10),
            CARVEOUT => set.unwrap_or(-1),
            _ => return Err(Code::INVALID_VALUE),
        });
        Ok(())
    }

    fn cuFuncSetAttribute(function: u64, attribute: u32, value: i32) |call| {
        let function = resolve(call, function)?;
        let valid = match attribute {
            MAX_DYNAMIC_SHARED => (0..=MAX_SHARED_OPT_IN as i32).contains(&value),
            CARVEOUT => (-1..=100).contains(&value),
            10..=15 => true,
            _ => false,
        };
        if !valid {
            return Err(Code::INVALID_VALUE);
        }
        let object = call.driver().functions.get_mut(function).ok_or(Code::INVALID_HANDLE)?;
        object.attributes.insert(attribute, value);
        Ok(())
    }

    fn cuFuncSetCacheConfig(function: u64, config: u32) |call| {
        resolve(call, function)?;
        if config > 3 {
            return Err(Code::INVALID_VALUE);
        }
        Ok(())
    }

    fn cuFuncGetModule(module: Out<u64>, function: u64) |call| {
        let out = module.required()?;
        out.put(object(call, function)?.module);
        Ok(())
    }

    fn cuFuncGetName(name: Out<usize>, function: u64) |call| {
        let out = name.required()?;
        let text = object(call, function)?.name.clone();
        // Leaked on purpose, because callers may keep the pointer.
        let text = CString::new(text).or(Err(Code::UNKNOWN))?;
        out.put(text.into_raw() as usize);
        Ok(())
    }

    fn cuFuncGetParamInfo(
        function: u64,
        index: usize,
        offset: Out<usize>,
        size: Out<usize>,
    ) |call| {
        let offset = offset.required()?;
        let object = object(call, function)?;
        let (start, bytes) = *object.parameters.get(index).ok_or(Code::INVALID_VALUE)?;
        offset.put(start);
        size.put(bytes);
        Ok(())
    }

    fn cuFuncIsLoaded(state: Out<u32>, function: u64) |call| {
        let out = state.required()?;
        object(call, function)?;
        out.put(1);
        Ok(())
    }

    fn cuFuncLoad(function: u64) |call| {
        object(call, function)?;
        Ok(())
    }
}
