//! Attributes, names, and parameters of kernels.

use std::sync::Arc;

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::handles::Handle;
use crate::objects::FunctionObject;
use crate::outcome::{CallResult, fail};
use crate::parameters::{self, Layout};
use crate::settings::Level;

use super::library;

/// Longest declaration of parameter kinds in bytes.
const LONGEST_DECLARATION: u64 = 4096;

/// The kernel of a handle, from a module or a library. Makes its context current on the thread.
pub(crate) fn find(call: &mut Call<'_>, handle: Handle) -> CallResult<(Handle, FunctionObject)> {
    let handle = match call.state.kernels.get(handle) {
        Some(_) => library::function_of(call, handle)?,
        None => handle,
    };
    let Some(object) = call.state.functions.get(handle).cloned() else {
        return fail(Code::INVALID_HANDLE);
    };
    call.enter_context(object.context)?;
    Ok((handle, object))
}

/// The layout of a kernel's parameters, resolved on first use.
pub(crate) fn layout(
    call: &mut Call<'_>,
    handle: Handle,
    object: &FunctionObject,
) -> CallResult<Arc<Layout>> {
    if let Some(layout) = &object.layout {
        return Ok(Arc::clone(layout));
    }
    let backend = call.backend()?;
    let Some(module) = call.state.modules.get(object.module) else {
        return fail(Code::INVALID_HANDLE);
    };
    let declared = object
        .declared
        .as_ref()
        .or_else(|| call.imports.declared.get(&*object.name));
    let declared = declared.map(|declared| &**declared);
    let layout = parameters::resolve(
        &backend.driver,
        object.function,
        module.image.bytes(),
        &object.name,
        declared,
    )?;
    let layout = Arc::new(layout);
    if call.abi.device_pointer == faas_wasm_artifact::Width::Four && layout.is_uncertain() {
        let name = format!("parameters of {}", object.name);
        let strict = call.cuda.settings().strict_params;
        call.cuda.log_once(&name, Level::Warning, || {
            let consequence = if strict {
                "its launches are refused (cuda_strict_params)"
            } else {
                "a value that is an address of the guest's device memory is taken for a pointer"
            };
            format!(
                "kernel {}: nothing tells which parameters are pointers, so {consequence}; \
                 faasCuFuncSetParamKinds or eight-byte device pointers make it certain",
                object.name
            )
        });
    }
    if let Some(object) = call.state.functions.get_mut(handle) {
        object.layout = Some(Arc::clone(&layout));
    }
    Ok(layout)
}

/// `cuFuncGetAttribute`.
pub(crate) fn get_attribute(
    call: &mut Call<'_>,
    value: Pointer,
    attribute: u32,
    function: Handle,
) -> CallResult {
    let out = call.out(value, Kind::Int)?;
    let (_, object) = find(call, function)?;
    let value = call
        .backend()?
        .driver
        .function_attribute(attribute, object.function)?;
    call.store_int(out, value)
}

/// `cuFuncSetAttribute`.
pub(crate) fn set_attribute(
    call: &mut Call<'_>,
    function: Handle,
    attribute: u32,
    value: i32,
) -> CallResult {
    let (_, object) = find(call, function)?;
    Ok(call
        .backend()?
        .driver
        .function_set_attribute(object.function, attribute, value)?)
}

/// `cuFuncSetCacheConfig`.
pub(crate) fn set_cache_config(call: &mut Call<'_>, function: Handle, config: u32) -> CallResult {
    let (_, object) = find(call, function)?;
    Ok(call
        .backend()?
        .driver
        .function_set_cache_config(object.function, config)?)
}

/// `cuFuncGetModule`.
pub(crate) fn get_module(call: &mut Call<'_>, module: Pointer, function: Handle) -> CallResult {
    let out = call.out(module, Kind::Handle)?;
    let (_, object) = find(call, function)?;
    call.store(out, object.module.0)
}

/// `cuFuncGetName` and `cuKernelGetName`.
pub(crate) fn get_name(call: &mut Call<'_>, name: Pointer, function: Handle) -> CallResult {
    let out = call.out(name, Kind::Pointer)?;
    let (_, object) = find(call, function)?;
    let address = call.state.guest_strings.of(call.host, &object.name)?;
    call.store(out, address)
}

/// `cuFuncGetParamInfo` and `cuKernelGetParamInfo`, in the layout of the device.
pub(crate) fn parameter(
    call: &mut Call<'_>,
    function: Handle,
    index: crate::arguments::Size,
    offset: Pointer,
    size: Pointer,
) -> CallResult {
    let outs = (
        call.out(offset, Kind::Size)?,
        call.optional_out(size, Kind::Size)?,
    );
    let (handle, object) = find(call, function)?;
    let layout = layout(call, handle, &object)?;
    let index = usize::try_from(index.0).unwrap_or(usize::MAX);
    match layout.parameters.get(index) {
        Some(parameter) => {
            call.store(outs.0, parameter.offset as u64)?;
            call.store_optional(outs.1, parameter.size as u64)
        }
        None => fail(Code::INVALID_VALUE),
    }
}

/// `cuFuncLoad`.
pub(crate) fn load(call: &mut Call<'_>, function: Handle) -> CallResult {
    let (_, object) = find(call, function)?;
    match call.backend()?.driver.function_load(object.function) {
        // An old driver loads functions with the module or at the first launch.
        Err(Code::NOT_SUPPORTED) => Ok(()),
        result => Ok(result?),
    }
}

/// `faasCuFuncSetParamKinds`: declares which parameters are device pointers.
pub(crate) fn set_parameter_kinds(
    call: &mut Call<'_>,
    function: Handle,
    kinds: Pointer,
) -> CallResult {
    let (handle, _) = find(call, function)?;
    let kinds = call.string(kinds, LONGEST_DECLARATION)?;
    let declared = crate::imports::declaration(&kinds);
    if let Some(object) = call.state.functions.get_mut(handle) {
        object.declared = Some(declared);
        object.layout = None;
    }
    Ok(())
}
