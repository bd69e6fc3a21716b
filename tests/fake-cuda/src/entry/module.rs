//! Modules.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::abi::{CText, Code, Host, In, Out, Result, image_bytes};
use crate::driver::{Call, Function, Module, Program, SHARED, trace};
use crate::entry::entries;
use crate::exec::Loaded;
use crate::image::{self, Image};

/// Reads an image, or records in the trace why it cannot be read.
pub(super) fn read(call: &mut Call<'_>, bytes: &[u8]) -> Result<Image> {
    image::load(bytes).map_err(|refused| {
        trace(call.driver(), &format!("image refused: {}\n", refused.text));
        refused.code
    })
}

/// Loads an image into the current context.
pub(super) fn load(call: &mut Call<'_>, image: Image, library: Option<u64>) -> Result<u64> {
    let driver = call.driver();
    let context = driver.context()?;
    let device = driver
        .contexts
        .get(context)
        .ok_or(Code::INVALID_CONTEXT)?
        .device;
    let program = match image {
        Image::Text(program) => {
            let total = driver.settings.memory;
            let mut memory = SHARED.memory.lock();
            let loaded = Loaded::new(program, &mut memory, (context, device), total);
            Program::Text(Arc::new(loaded.ok_or(Code::OUT_OF_MEMORY)?))
        }
        Image::Binary(cubin) => Program::Binary(cubin),
    };
    Ok(driver.modules.insert(Module {
        context,
        library,
        program,
        functions: BTreeMap::new(),
    }))
}

/// Unloads a module, together with its functions and variables.
pub(super) fn unload(call: &mut Call<'_>, module: u64) {
    let driver = call.driver();
    driver
        .functions
        .remove_where(|_, function| function.module == module);
    if let Some(module) = driver.modules.remove(module)
        && let Program::Text(loaded) = module.program
    {
        loaded.free(&mut SHARED.memory.lock());
    }
}

fn load_from(call: &mut Call<'_>, out: Out<u64>, image: Host) -> Result {
    let out = out.required()?;
    call.driver().context()?;
    let bytes = image_bytes(image)?;
    let image = read(call, &bytes)?;
    out.put(load(call, image, None)?);
    Ok(())
}

/// Checks that a module belongs to the current context.
pub(super) fn checked(call: &mut Call<'_>, module: u64) -> Result {
    let driver = call.driver();
    driver.check(module, |driver| &driver.modules)?;
    let owner = driver
        .modules
        .get(module)
        .map_or(0, |module| module.context);
    driver.same_context("module", module, owner)
}

/// The handle of a module's kernel, which is the same for each call.
pub(super) fn function(call: &mut Call<'_>, module: u64, name: &str) -> Result<u64> {
    let driver = call.driver();
    let object = driver.modules.get_mut(module).ok_or(Code::INVALID_HANDLE)?;
    if let Some(handle) = object.functions.get(name) {
        return Ok(*handle);
    }
    let parameters = match &object.program {
        Program::Text(loaded) => {
            let entry = loaded.entry(name).ok_or(Code::NOT_FOUND)?;
            let parameters = loaded.program.functions[entry].parameters.iter();
            parameters
                .map(|parameter| (parameter.offset, parameter.size))
                .collect()
        }
        Program::Binary(cubin) => cubin.kernels.get(name).ok_or(Code::NOT_FOUND)?.clone(),
    };
    let context = object.context;
    let handle = driver.functions.insert(Function {
        context,
        module,
        name: name.to_owned(),
        parameters,
        attributes: BTreeMap::new(),
    });
    if let Some(object) = driver.modules.get_mut(module) {
        object.functions.insert(name.to_owned(), handle);
    }
    Ok(handle)
}

/// Names of all kernels of a module.
fn names(call: &mut Call<'_>, module: u64) -> Result<Vec<String>> {
    checked(call, module)?;
    let object = call
        .driver()
        .modules
        .get(module)
        .ok_or(Code::INVALID_HANDLE)?;
    Ok(match &object.program {
        Program::Text(loaded) => loaded
            .program
            .entries()
            .map(|(_, function)| function.name.clone())
            .collect(),
        Program::Binary(cubin) => cubin.kernels.keys().cloned().collect(),
    })
}

/// Address and size of a module's variable.
pub(super) fn global(call: &mut Call<'_>, module: u64, name: &str) -> Result<(u64, usize)> {
    let object = call
        .driver()
        .modules
        .get(module)
        .ok_or(Code::INVALID_HANDLE)?;
    match &object.program {
        Program::Text(loaded) => loaded.variables.get(name).copied().ok_or(Code::NOT_FOUND),
        Program::Binary(_) => Err(Code::NOT_FOUND),
    }
}

entries! {
    fn cuModuleLoad(module: Out<u64>, path: CText) |call| {
        let out = module.required()?;
        call.driver().context()?;
        let bytes = std::fs::read(path.get()?).or(Err(Code::FILE_NOT_FOUND))?;
        let image = read(call, &bytes)?;
        out.put(load(call, image, None)?);
        Ok(())
    }

    fn cuModuleLoadData(module: Out<u64>, image: Host) |call| {
        load_from(call, module, image)
    }

    fn cuModuleLoadDataEx(
        module: Out<u64>,
        image: Host,
        count: u32,
        options: In<i32>,
        values: In<usize>,
    ) |call| {
        if count > 0 && (options.is_null() || values.is_null()) {
            return Err(Code::INVALID_VALUE);
        }
        load_from(call, module, image)
    }

    fn cuModuleLoadFatBinary(module: Out<u64>, image: Host) |call| {
        load_from(call, module, image)
    }

    fn cuModuleUnload(module: u64) |call| {
        let driver = call.driver();
        driver.check(module, |driver| &driver.modules)?;
        let object = driver.modules.get(module).ok_or(Code::INVALID_HANDLE)?;
        if object.library.is_some() {
            driver.violation(format!("module {module:#x} belongs to a library"));
            return Err(Code::INVALID_HANDLE);
        }
        let context = driver.modules.get(module).map_or(0, |module| module.context);
        driver.sound(context)?;
        // Its kernels may still be running.
        call.drain_context(context)?;
        unload(call, module);
        Ok(())
    }

    fn cuModuleGetFunction(out: Out<u64>, module: u64, name: CText) |call| {
        let out = out.required()?;
        checked(call, module)?;
        out.put(function(call, module, &name.get()?)?);
        Ok(())
    }

    fn cuModuleGetGlobal_v2(
        address: Out<u64>,
        size: Out<usize>,
        module: u64,
        name: CText,
    ) |call| {
        checked(call, module)?;
        let (base, bytes) = global(call, module, &name.get()?)?;
        address.put(base);
        size.put(bytes);
        Ok(())
    }

    fn cuModuleGetFunctionCount(count: Out<u32>, module: u64) |call| {
        let out = count.required()?;
        out.put(names(call, module)?.len() as u32);
        Ok(())
    }

    fn cuModuleEnumerateFunctions(functions: Out<u64>, count: u32, module: u64) |call| {
        let out = functions.required()?;
        let names = names(call, module)?;
        for (index, name) in names.iter().take(count as usize).enumerate() {
            let handle = function(call, module, name)?;
            out.put_at(index, handle);
        }
        Ok(())
    }

    fn cuModuleGetLoadingMode(mode: Out<u32>) |_call| {
        // CU_MODULE_LAZY_LOADING.
        mode.required()?.put(2);
        Ok(())
    }
}
