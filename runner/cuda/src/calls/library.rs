//! Libraries: images that are loaded as a module in each context on first use.

use std::sync::Arc;

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::driver::CStrImage;
use crate::handles::Handle;
use crate::objects::{KernelObject, LibraryObject};
use crate::outcome::{CallResult, fail};

use super::module;

const LONGEST_NAME: u64 = 64 << 10;
const MOST_OPTIONS: u32 = 64;

/// `cuLibraryLoadData`. Ignores the options, which only affect compilation.
#[expect(
    clippy::too_many_arguments,
    reason = "as many as the driver's function has"
)]
pub(crate) fn load_data(
    call: &mut Call<'_>,
    library: Pointer,
    image: Pointer,
    _jit_options: Pointer,
    _jit_values: Pointer,
    jit_count: u32,
    _options: Pointer,
    _values: Pointer,
    count: u32,
) -> CallResult {
    call.backend()?;
    let out = call.out(library, Kind::Handle)?;
    if jit_count > MOST_OPTIONS || count > MOST_OPTIONS {
        return fail(Code::INVALID_VALUE);
    }
    if !call.state.libraries.has_room() {
        return fail(Code::OUT_OF_MEMORY);
    }
    let image = Arc::new(CStrImage::new(call.image(image)?));
    let object = LibraryObject {
        image,
        modules: Default::default(),
    };
    let handle = call
        .state
        .libraries
        .insert(object)
        .map_err(|_| Code::OUT_OF_MEMORY)?;
    call.store(out, handle.0)
}

/// `cuLibraryUnload`.
pub(crate) fn unload(call: &mut Call<'_>, library: Handle) -> CallResult {
    let Some(object) = call.state.libraries.get(library) else {
        return fail(Code::INVALID_HANDLE);
    };
    let modules: Vec<_> = object.modules.values().copied().collect();
    for handle in modules {
        // The module of a destroyed context no longer exists.
        if call.state.modules.get(handle).is_some() {
            let (current, _) = module::find(call, handle)?;
            let backend = call.backend()?;
            call.wait_all(&backend.driver, current)?;
            if !call.state.has_graphs() {
                module::unload(call, handle)?;
            }
        }
    }
    call.state.libraries.remove(library);
    call.state
        .kernels
        .take_if(|kernel| kernel.library == library);
    Ok(())
}

/// The library's module in the current context.
fn module_here(call: &mut Call<'_>, library: Handle) -> CallResult<Handle> {
    let current = call.current()?;
    let Some(object) = call.state.libraries.get(library) else {
        return fail(Code::INVALID_HANDLE);
    };
    if let Some(handle) = object.modules.get(&current.handle).copied()
        && call.state.modules.get(handle).is_some()
    {
        return Ok(handle);
    }
    let image = object.image.bytes().to_vec();
    let handle = module::load_image(call, current, image)?;
    if let Some(object) = call.state.libraries.get_mut(library) {
        object.modules.insert(current.handle, handle);
    }
    Ok(handle)
}

/// `cuLibraryGetModule`.
pub(crate) fn get_module(call: &mut Call<'_>, module: Pointer, library: Handle) -> CallResult {
    let out = call.out(module, Kind::Handle)?;
    let handle = module_here(call, library)?;
    call.store(out, handle.0)
}

/// `cuLibraryGetKernel`.
pub(crate) fn get_kernel(
    call: &mut Call<'_>,
    kernel: Pointer,
    library: Handle,
    name: Pointer,
) -> CallResult {
    let out = call.out(kernel, Kind::Handle)?;
    let name = call.string(name, LONGEST_NAME)?;
    let module = module_here(call, library)?;
    module::function(call, module, &name)?;
    let object = KernelObject {
        library,
        name: name.into(),
    };
    let handle = call
        .state
        .kernels
        .insert(object)
        .map_err(|_| Code::OUT_OF_MEMORY)?;
    call.store(out, handle.0)
}

/// The kernel's function in the current context.
pub(crate) fn function_of(call: &mut Call<'_>, kernel: Handle) -> CallResult<Handle> {
    let Some(object) = call.state.kernels.get(kernel).cloned() else {
        return fail(Code::INVALID_HANDLE);
    };
    let module = module_here(call, object.library)?;
    module::function(call, module, &object.name)
}

/// `cuKernelGetFunction`.
pub(crate) fn get_function(call: &mut Call<'_>, function: Pointer, kernel: Handle) -> CallResult {
    let out = call.out(function, Kind::Handle)?;
    let handle = function_of(call, kernel)?;
    call.store(out, handle.0)
}
