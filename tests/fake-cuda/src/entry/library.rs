//! Libraries, whose code belongs to no context and can be used in each, and the linker that builds images.

use std::collections::BTreeMap;

use super::module;
use crate::abi::{CText, Code, Host, In, Out, Result, image_bytes};
use crate::driver::{Call, Kernel, Library, Link};
use crate::entry::entries;
use crate::image::{self, Image};

/// `CU_JIT_INPUT_PTX`.
const INPUT_PTX: u32 = 1;

/// Kernels of an image, with their parameters.
fn kernels(image: &Image) -> Vec<(String, Vec<(usize, usize)>)> {
    match image {
        Image::Text(program) => program
            .entries()
            .map(|(_, function)| {
                let parameters = function.parameters.iter();
                let parameters = parameters.map(|one| (one.offset, one.size)).collect();
                (function.name.clone(), parameters)
            })
            .collect(),
        Image::Binary(cubin) => {
            let kernels = cubin.kernels.iter();
            kernels
                .map(|(name, parameters)| (name.clone(), parameters.clone()))
                .collect()
        }
    }
}

/// A library's module in the current context, loaded on first use.
fn module_of(call: &mut Call<'_>, library: u64) -> Result<u64> {
    let context = call.driver().context()?;
    call.driver().check(library, |driver| &driver.libraries)?;
    let object = call
        .driver()
        .libraries
        .get(library)
        .ok_or(Code::INVALID_HANDLE)?;
    if let Some(module) = object.modules.get(&context).copied()
        && call.driver().modules.get(module).is_some()
    {
        return Ok(module);
    }
    let image = call
        .driver()
        .libraries
        .get(library)
        .map(|library| library.image.clone());
    let module = module::load(call, image.ok_or(Code::INVALID_HANDLE)?, Some(library))?;
    if let Some(object) = call.driver().libraries.get_mut(library) {
        object.modules.insert(context, module);
    }
    Ok(module)
}

/// The function of a kernel in the current context.
pub(super) fn function(call: &mut Call<'_>, kernel: u64) -> Result<u64> {
    call.driver().check(kernel, |driver| &driver.kernels)?;
    let object = call
        .driver()
        .kernels
        .get(kernel)
        .ok_or(Code::INVALID_HANDLE)?;
    let (library, name) = (object.library, object.name.clone());
    let module = module_of(call, library)?;
    module::function(call, module, &name)
}

/// The handle of a library's kernel.
fn kernel(call: &mut Call<'_>, library: u64, name: &str) -> Result<u64> {
    call.driver().check(library, |driver| &driver.libraries)?;
    let object = call
        .driver()
        .libraries
        .get(library)
        .ok_or(Code::INVALID_HANDLE)?;
    if let Some(kernel) = object.kernels.get(name) {
        return Ok(*kernel);
    }
    let found = kernels(&object.image)
        .into_iter()
        .find(|(found, _)| found == name);
    let (name, parameters) = found.ok_or(Code::NOT_FOUND)?;
    let handle = call.driver().kernels.insert(Kernel {
        library,
        name: name.clone(),
        parameters,
    });
    if let Some(object) = call.driver().libraries.get_mut(library) {
        object.kernels.insert(name, handle);
    }
    Ok(handle)
}

fn link<'a>(call: &'a mut Call<'_>, handle: u64) -> Result<&'a mut Link> {
    call.driver().check(handle, |driver| &driver.links)?;
    call.driver()
        .links
        .get_mut(handle)
        .ok_or(Code::INVALID_HANDLE)
}

entries! {
    fn cuLibraryLoadData(
        library: Out<u64>,
        image: Host,
        _options: Host,
        _option_values: Host,
        _option_count: u32,
        _library_options: Host,
        _library_values: Host,
        _library_count: u32,
    ) |call| {
        let out = library.required()?;
        let bytes = image_bytes(image)?;
        let image = module::read(call, &bytes)?;
        out.put(call.driver().libraries.insert(Library {
            image,
            kernels: BTreeMap::new(),
            modules: BTreeMap::new(),
        }));
        Ok(())
    }

    fn cuLibraryUnload(library: u64) |call| {
        call.driver().check(library, |driver| &driver.libraries)?;
        let object = call.driver().libraries.remove(library).ok_or(Code::INVALID_HANDLE)?;
        call.driver().kernels.remove_where(|_, kernel| kernel.library == library);
        for (context, module) in object.modules {
            // A destroyed context has already destroyed its module.
            if call.driver().contexts.get(context).is_some() {
                let _ = call.drain_context(context);
                module::unload(call, module);
            }
        }
        Ok(())
    }

    fn cuLibraryGetModule(module: Out<u64>, library: u64) |call| {
        let out = module.required()?;
        out.put(module_of(call, library)?);
        Ok(())
    }

    fn cuLibraryGetKernel(out: Out<u64>, library: u64, name: CText) |call| {
        let out = out.required()?;
        out.put(kernel(call, library, &name.get()?)?);
        Ok(())
    }

    fn cuLibraryGetKernelCount(count: Out<u32>, library: u64) |call| {
        let out = count.required()?;
        call.driver().check(library, |driver| &driver.libraries)?;
        let object = call.driver().libraries.get(library).ok_or(Code::INVALID_HANDLE)?;
        out.put(kernels(&object.image).len() as u32);
        Ok(())
    }

    fn cuLibraryEnumerateKernels(out: Out<u64>, count: u32, library: u64) |call| {
        let out = out.required()?;
        call.driver().check(library, |driver| &driver.libraries)?;
        let object = call.driver().libraries.get(library).ok_or(Code::INVALID_HANDLE)?;
        let names = kernels(&object.image);
        for (index, (name, _)) in names.iter().take(count as usize).enumerate() {
            let handle = kernel(call, library, name)?;
            out.put_at(index, handle);
        }
        Ok(())
    }

    fn cuLibraryGetGlobal(
        address: Out<u64>,
        size: Out<usize>,
        library: u64,
        name: CText,
    ) |call| {
        let module = module_of(call, library)?;
        let (base, bytes) = module::global(call, module, &name.get()?)?;
        address.put(base);
        size.put(bytes);
        Ok(())
    }

    fn cuKernelGetFunction(out: Out<u64>, kernel: u64) |call| {
        let out = out.required()?;
        out.put(function(call, kernel)?);
        Ok(())
    }

    fn cuKernelGetParamInfo(
        kernel: u64,
        index: usize,
        offset: Out<usize>,
        size: Out<usize>,
    ) |call| {
        let offset = offset.required()?;
        call.driver().check(kernel, |driver| &driver.kernels)?;
        let object = call.driver().kernels.get(kernel).ok_or(Code::INVALID_HANDLE)?;
        let (start, bytes) = *object.parameters.get(index).ok_or(Code::INVALID_VALUE)?;
        offset.put(start);
        size.put(bytes);
        Ok(())
    }

    fn cuLinkCreate_v2(count: u32, options: In<i32>, values: In<usize>, state: Out<u64>) |call| {
        let out = state.required()?;
        if count > 0 && (options.is_null() || values.is_null()) {
            return Err(Code::INVALID_VALUE);
        }
        let context = call.driver().context()?;
        out.put(call.driver().links.insert(Link {
            context,
            texts: Vec::new(),
            output: Vec::new(),
        }));
        Ok(())
    }

    fn cuLinkAddData_v2(
        state: u64,
        kind: u32,
        data: Host,
        size: usize,
        _name: CText,
        _count: u32,
        _options: In<i32>,
        _values: In<usize>,
    ) |call| {
        link(call, state)?;
        if kind != INPUT_PTX || data.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        let bytes = data.bytes(size);
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let bytes = &bytes[..end];
        module::read(call, bytes)?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        let link = link(call, state)?;
        if !link.texts.is_empty() {
            // Programs that consist of several texts are not supported.
            return Err(Code::NOT_SUPPORTED);
        }
        link.texts.push(text);
        Ok(())
    }

    fn cuLinkComplete(state: u64, cubin: Out<usize>, size: Out<usize>) |call| {
        let cubin = cubin.required()?;
        let link = link(call, state)?;
        let text = link.texts.first().ok_or(Code::INVALID_VALUE)?;
        link.output = image::linked(text);
        cubin.put(link.output.as_ptr() as usize);
        size.put(link.output.len());
        Ok(())
    }

    fn cuLinkDestroy(state: u64) |call| {
        link(call, state)?;
        call.driver().links.remove(state);
        Ok(())
    }
}
