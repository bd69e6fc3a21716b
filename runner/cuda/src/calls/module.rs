//! Modules: loading images, and looking up functions and variables.
//!
//! Loading may compile code, which takes long, so it runs on a separate thread while the call waits within its
//! deadline. Device code compiled from PTX is cached (`compiled.rs`).

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::addresses::Origin;
use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::compiled;
use crate::driver::{self, CStrImage, clear_current, set_current};
use crate::handles::Handle;
use crate::host::FileProblem;
use crate::image::{self, Format};
use crate::objects::{Current, FunctionObject, ModuleObject};
use crate::outcome::{CallResult, Failure, fail};
use crate::settings::Level;

/// Longest path, and longest name of a symbol, in bytes.
const LONGEST_PATH: u64 = 4096;
const LONGEST_NAME: u64 = 64 << 10;
/// Most functions that are listed.
const MOST_FUNCTIONS: u32 = 65_536;
/// Most options of one load.
const MOST_OPTIONS: u32 = 64;
/// `CU_JIT_INFO_LOG_BUFFER` and its size, `CU_JIT_ERROR_LOG_BUFFER` and its size.
const LOG_BUFFERS: [(u32, u32); 2] = [(3, 4), (5, 6)];

/// Loads an image into a context of the guest.
pub(crate) fn load_image(
    call: &mut Call<'_>,
    current: Current,
    image: Vec<u8>,
) -> CallResult<Handle> {
    load_with_log(call, current, image).map_err(|(failure, _)| failure)
}

/// The same, with the messages of the compiler on failure.
fn load_with_log(
    call: &mut Call<'_>,
    current: Current,
    image: Vec<u8>,
) -> Result<Handle, (Failure, String)> {
    let silent = |failure| (failure, String::new());
    if !call.state.modules.has_room() {
        return Err((Code::OUT_OF_MEMORY.into(), String::new()));
    }
    let backend = call.backend().map_err(silent)?;
    let image = Arc::new(CStrImage::new(image));
    let (cuda, loaded) = (Arc::clone(call.cuda), Arc::clone(&image));
    let capability = backend.devices[current.device].capability;
    let (worker, undoer) = (Arc::clone(&backend), Arc::clone(&backend));
    let work = move || {
        set_current(&worker.driver, current.context)
            .map_err(|code| (code, String::new()))
            .and_then(|()| compiled::load(&cuda, &worker, capability, &loaded))
    };
    let undo = move |result: Result<driver::Module, _>| {
        if let Ok(module) = result
            && set_current(&undoer.driver, current.context).is_ok()
        {
            // Destroying the context would unload it as well, but a shared context stays.
            let _ = undoer.driver.module_unload(module);
            clear_current(&undoer.driver);
        }
    };
    let result = call
        .offload("cuda-load", &backend, work, undo)
        .map_err(silent)?;
    let module = result.map_err(|(code, log)| {
        if !log.is_empty() {
            let name = format!("load {:x?}", Sha256::digest(image.bytes()));
            call.cuda.log_once(&name, Level::Warning, || {
                format!("the driver rejected a guest's module: {code}: {log}")
            });
        }
        (code.into(), log)
    })?;
    let object = ModuleObject {
        context: current.handle,
        module,
        image,
        functions: Default::default(),
        globals: Default::default(),
    };
    match call.state.modules.insert(object) {
        Ok(handle) => Ok(handle),
        // Not reached: there was room above.
        Err(_) => Err((Code::OUT_OF_MEMORY.into(), String::new())),
    }
}

/// `cuModuleLoad`. Reads the file from the guest's file system; the driver never gets the path.
pub(crate) fn load(call: &mut Call<'_>, module: Pointer, path: Pointer) -> CallResult {
    let out = call.out(module, Kind::Handle)?;
    let current = call.current()?;
    let path = call.string(path, LONGEST_PATH)?;
    let limit = call.cuda.settings().max_module_size;
    let mut contents = match call.host.read_file(&path, limit) {
        Ok(contents) => contents,
        Err(FileProblem::NotFound) => return fail(Code::FILE_NOT_FOUND),
        Err(FileProblem::TooLarge) => return fail(Code::INVALID_VALUE),
    };
    if image::format(&contents) == Format::Text {
        // Text ends at the first NUL, as in memory.
        let end = contents
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(contents.len());
        contents.truncate(end);
    }
    image::check(&contents)?;
    let handle = load_image(call, current, contents)?;
    call.store(out, handle.0)
}

/// `cuModuleLoadData` and `cuModuleLoadFatBinary`.
pub(crate) fn load_data(call: &mut Call<'_>, module: Pointer, image: Pointer) -> CallResult {
    let out = call.out(module, Kind::Handle)?;
    let current = call.current()?;
    let image = call.image(image)?;
    let handle = load_image(call, current, image)?;
    call.store(out, handle.0)
}

/// `cuModuleLoadDataEx`. Supports only the options for message buffers. Options for the compiler are ignored, as the
/// result is cached for all instances.
pub(crate) fn load_data_ex(
    call: &mut Call<'_>,
    module: Pointer,
    image: Pointer,
    count: u32,
    options: Pointer,
    values: Pointer,
) -> CallResult {
    let out = call.out(module, Kind::Handle)?;
    let current = call.current()?;
    if count > MOST_OPTIONS {
        return fail(Code::INVALID_VALUE);
    }
    let mut given = Vec::new();
    for index in 0..u64::from(count) {
        let option = call.load_element(options, index, Kind::Int)? as u32;
        given.push((
            option,
            call.load_element(values, index, Kind::Pointer)?,
            index,
        ));
    }
    let value = |wanted: u32| given.iter().find(|(option, ..)| *option == wanted);
    let mut buffers = Vec::new();
    for (buffer, size) in LOG_BUFFERS {
        if let (Some((_, address, _)), Some((_, length, at))) = (value(buffer), value(size)) {
            call.bytes(Pointer(*address), *length & 0xffff_ffff)?;
            buffers.push((buffer, Pointer(*address), *length & 0xffff_ffff, *at));
        }
    }
    let image = call.image(image)?;
    let (result, log) = match load_with_log(call, current, image) {
        Ok(handle) => (Ok(handle), String::new()),
        Err((failure, log)) => (Err(failure), log),
    };
    for (buffer, address, length, at) in buffers {
        // The buffer for information messages stays empty.
        let text = if buffer == LOG_BUFFERS[1].0 {
            log.as_bytes()
        } else {
            &[]
        };
        let Some(room) = (length as usize).checked_sub(1) else {
            continue;
        };
        let kept = text.len().min(room);
        let bytes = call.bytes_mut(address, length)?;
        bytes[..kept].copy_from_slice(&text[..kept]);
        bytes[kept] = 0;
        let written = call.out_element(values, at, Kind::Pointer)?;
        call.store(written, kept as u64 + u64::from(kept > 0))?;
    }
    let handle = result?;
    call.store(out, handle.0)
}

/// Unloads a module and invalidates the handles of its functions and variables.
pub(crate) fn unload(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let Some(object) = call.state.modules.get(handle) else {
        return fail(Code::INVALID_HANDLE);
    };
    let module = object.module;
    call.backend()?.driver.module_unload(module)?;
    let state = &mut *call.state;
    state.modules.remove(handle);
    state
        .functions
        .take_if(|function| function.module == handle);
    state
        .addresses
        .take_if(|range| range.origin == Origin::Global(handle));
    Ok(())
}

/// `cuModuleUnload`. Waits for running kernels first, as the driver would block on them.
pub(crate) fn module_unload(call: &mut Call<'_>, handle: Handle) -> CallResult {
    let (current, _) = find(call, handle)?;
    if call
        .state
        .libraries
        .iter()
        .any(|(_, library)| library.modules.values().any(|module| *module == handle))
    {
        return fail(Code::INVALID_HANDLE);
    }
    let backend = call.backend()?;
    if call.state.has_graphs() {
        // A graph may still launch its kernels, so it is unloaded with its context.
        let state = &mut *call.state;
        state
            .functions
            .take_if(|function| function.module == handle);
        return Ok(());
    }
    call.wait_all(&backend.driver, current)?;
    unload(call, handle)
}

/// The module of a handle. Makes its context current on the thread.
pub(crate) fn find(call: &mut Call<'_>, handle: Handle) -> CallResult<(Current, driver::Module)> {
    let Some(object) = call.state.modules.get(handle) else {
        return fail(Code::INVALID_HANDLE);
    };
    let (context, module) = (object.context, object.module);
    Ok((call.enter_context(context)?, module))
}

/// The handle of a kernel of a module. Every lookup of a name returns the same handle.
pub(crate) fn function(call: &mut Call<'_>, module: Handle, name: &str) -> CallResult<Handle> {
    let (current, raw) = find(call, module)?;
    let known = call
        .state
        .modules
        .get(module)
        .and_then(|object| object.functions.get(name).copied());
    if let Some(handle) = known.filter(|handle| call.state.functions.get(*handle).is_some()) {
        return Ok(handle);
    }
    let function = call.backend()?.driver.module_function(raw, name)?;
    let object = FunctionObject {
        module,
        context: current.handle,
        function,
        name: name.into(),
        layout: None,
        declared: None,
    };
    let handle = call
        .state
        .functions
        .insert(object)
        .map_err(|_| Code::OUT_OF_MEMORY)?;
    if let Some(object) = call.state.modules.get_mut(module) {
        object.functions.insert(name.to_owned(), handle);
    }
    Ok(handle)
}

/// `cuModuleGetFunction`.
pub(crate) fn get_function(
    call: &mut Call<'_>,
    out: Pointer,
    module: Handle,
    name: Pointer,
) -> CallResult {
    let out = call.out(out, Kind::Handle)?;
    find(call, module)?;
    let name = call.string(name, LONGEST_NAME)?;
    let handle = function(call, module, &name)?;
    call.store(out, handle.0)
}

/// `cuModuleGetGlobal_v2`.
pub(crate) fn get_global(
    call: &mut Call<'_>,
    address: Pointer,
    size: Pointer,
    module: Handle,
    name: Pointer,
) -> CallResult {
    let outs = (
        call.optional_out(address, Kind::Device)?,
        call.optional_out(size, Kind::Size)?,
    );
    let (current, raw) = find(call, module)?;
    let name = call.string(name, LONGEST_NAME)?;
    let known = call
        .state
        .modules
        .get(module)
        .and_then(|object| object.globals.get(&name).copied());
    let (address, size) = match known {
        Some(known) => known,
        None => {
            let (real, size) = call.backend()?.driver.module_global(raw, &name)?;
            let count = call.state.addresses.len();
            if count >= call.cuda.settings().max_allocations as usize {
                return fail(Code::OUT_OF_MEMORY);
            }
            let origin = Origin::Global(module);
            let address = call
                .state
                .addresses
                .insert(real, size as u64, current.handle, origin);
            let known = (address.ok_or(Code::OUT_OF_MEMORY)?, size as u64);
            if let Some(object) = call.state.modules.get_mut(module) {
                object.globals.insert(name, known);
            }
            known
        }
    };
    call.store_optional(outs.0, address)?;
    call.store_optional(outs.1, size)
}

/// `cuModuleGetFunctionCount`.
pub(crate) fn function_count(call: &mut Call<'_>, count: Pointer, module: Handle) -> CallResult {
    let out = call.out(count, Kind::Int)?;
    let (_, raw) = find(call, module)?;
    let count = call.backend()?.driver.module_function_count(raw)?;
    call.store(out, u64::from(count))
}

/// `cuModuleEnumerateFunctions`.
pub(crate) fn functions(
    call: &mut Call<'_>,
    functions: Pointer,
    count: u32,
    module: Handle,
) -> CallResult {
    let (_, raw) = find(call, module)?;
    let backend = call.backend()?;
    let there = backend.driver.module_function_count(raw)?;
    let count = count.min(there).min(MOST_FUNCTIONS);
    if count > 0 {
        let _last = call.out_element(functions, u64::from(count) - 1, Kind::Handle)?;
    }
    let names = backend
        .driver
        .module_functions(raw, count as usize)?
        .into_iter();
    let names = names
        .map(|function| backend.driver.function_name(function))
        .collect::<Result<Vec<_>, _>>()?;
    for (index, name) in names.iter().enumerate() {
        let handle = function(call, module, name)?;
        let out = call.out_element(functions, index as u64, Kind::Handle)?;
        call.store(out, handle.0)?;
    }
    Ok(())
}

/// `cuModuleGetLoadingMode`.
pub(crate) fn loading_mode(call: &mut Call<'_>, mode: Pointer) -> CallResult {
    let out = call.out(mode, Kind::Int)?;
    let mode = call.backend()?.driver.module_loading_mode()?;
    call.store(out, u64::from(mode))
}

impl Call<'_> {
    /// Copies an image out of guest memory.
    pub(crate) fn image(&self, at: Pointer) -> CallResult<Vec<u8>> {
        let magic = self.bytes(at, 4).or_else(|_| self.bytes(at, 1))?;
        let limit = self.cuda.settings().max_module_size;
        let length = match image::format(magic) {
            Format::Text => self.until_nul(at, limit)?.len() as u64,
            Format::Elf => image::elf_length(self.bytes(at, 64)?).ok_or(Code::INVALID_IMAGE)?,
            Format::Fatbin => {
                image::fatbin_length(self.bytes(at, 16)?).ok_or(Code::INVALID_IMAGE)?
            }
            Format::Wrapper => {
                let fatbin = Pointer(self.load(at.plus(8), Kind::Pointer)?);
                if image::format(self.bytes(fatbin, 4)?) != Format::Fatbin {
                    return fail(Code::INVALID_IMAGE);
                }
                return self.image(fatbin);
            }
        };
        if length > limit {
            return fail(Code::INVALID_VALUE);
        }
        let image = self.bytes(at, length)?.to_vec();
        image::check(&image)?;
        Ok(image)
    }
}
