//! The CUDA imports of a module: which data model its `cuda.h` had, and whether their types fit it.
//!
//! Most functions have one WebAssembly type in all models, as they take addresses of what differs. So the model is
//! derived from the imports that tell, unless the module says it (custom section `faas.cuda`) or the user
//! (`--cuda-abi`); then every import is checked against the table of `cuda_functions.tsv`.

use std::path::Path;

use faas_wasm_artifact::{Cuda, CudaAbi, KernelParameters, Width};
use wasmparser::{FuncType, Import, Parser, Payload, TypeRef, ValType};

use crate::error::Error;
use crate::module::{Module, describe_function};

/// Where the CUDA driver API is imported from.
const MODULE: &str = "env";
/// The driver's functions: name, and parameters in three data models.
const FUNCTIONS: &str = include_str!("cuda_functions.tsv");
/// Custom sections: the data model's name, and a line `KERNEL KINDS` for each kernel.
const ABI_SECTION: &str = "faas.cuda";
const PARAMETERS_SECTION: &str = "faas.cuda.params";

/// Functions of ours beside the driver's: parameters as letters (`d` device pointer, `h` handle, `p` pointer), result.
const EXTENSIONS: [(&str, &str, ValType); 2] = [
    ("faasCuDevicePtrToU64", "d", ValType::I64),
    ("faasCuFuncSetParamKinds", "hp", ValType::I32),
];

/// The imports that tell: name and parameter.
const DEVICE_POINTER: &[(&str, usize)] = &[
    ("cuMemFree_v2", 0),
    ("cuMemcpyHtoD_v2", 0),
    ("cuMemcpyDtoH_v2", 1),
    ("cuMemcpyDtoD_v2", 0),
    ("cuMemsetD8_v2", 0),
    ("cuMemsetD16_v2", 0),
    ("cuMemsetD32_v2", 0),
    ("cuMemFreeAsync", 0),
    ("cuPointerGetAttribute", 2),
];
const SIZE: &[(&str, usize)] = &[
    ("cuMemAlloc_v2", 1),
    ("cuMemcpyHtoD_v2", 2),
    ("cuMemcpyDtoH_v2", 2),
];
const HANDLE: &[(&str, usize)] = &[
    ("cuLaunchKernel", 0),
    ("cuModuleUnload", 0),
    ("cuModuleGetFunction", 1),
    ("cuCtxDestroy_v2", 0),
    ("cuStreamSynchronize", 0),
];

/// What was found out.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) cuda: Cuda,
    /// Imports that the driver API does not have; calls of them fail.
    pub(crate) unknown: Vec<String>,
}

/// Whether an import is one of the driver's functions or of our extensions.
pub(crate) fn is_cuda(import: &Import<'_>) -> bool {
    let rest = import
        .name
        .strip_prefix("cu")
        .or_else(|| import.name.strip_prefix("faasCu"));
    import.module == MODULE
        && rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
        && matches!(import.ty, TypeRef::Func(_))
}

/// What is wrong with the type of an import, if it cannot be right in any data model.
pub(crate) fn remark(module: &Module<'_>, import: &Import<'_>) -> Option<String> {
    let TypeRef::Func(index) = import.ty else {
        return None;
    };
    let ty = module.function_type(index)?;
    let Some(expected) = Expected::of(import.name) else {
        return match ty.results() {
            [ValType::I32] => None,
            _ => Some("functions of the CUDA driver API have one i32 result".into()),
        };
    };
    if expected.fits(ty) {
        return None;
    }
    let described = describe_function(&FuncType::new(
        expected.models[0].clone(),
        [expected.result],
    ));
    Some(format!(
        "CUDA has {described}, with i64 where the data model has eight bytes"
    ))
}

/// The types of a function in the models of wasm32, wasm32 with eight-byte device pointers, and wasm64.
struct Expected {
    models: [Vec<ValType>; 3],
    result: ValType,
}

impl Expected {
    fn of(name: &str) -> Option<Self> {
        if let Some((_, letters, result)) = EXTENSIONS.iter().find(|(known, ..)| *known == name) {
            let model = |wide: &str| {
                letters
                    .chars()
                    .map(|letter| integer(wide.contains(letter)))
                    .collect()
            };
            return Some(Self {
                models: [model(""), model("d"), model("dhp")],
                result: *result,
            });
        }
        let line = FUNCTIONS
            .lines()
            .find(|line| line.split('\t').next() == Some(name))?;
        let mut columns = line.split('\t').skip(1).map(|column| {
            let types = column
                .trim_matches(['(', ')'])
                .split(',')
                .filter(|ty| !ty.is_empty());
            types
                .map(|ty| {
                    if ty == "f32" {
                        ValType::F32
                    } else {
                        integer(ty == "i64")
                    }
                })
                .collect()
        });
        let models = [columns.next()?, columns.next()?, columns.next()?];
        Some(Self {
            models,
            result: ValType::I32,
        })
    }

    /// Whether each parameter is what some model has.
    fn fits(&self, ty: &FuncType) -> bool {
        let params = ty.params();
        let any = |(at, param): (usize, &ValType)| {
            self.models.iter().any(|model| model.get(at) == Some(param))
        };
        params.len() == self.models[0].len()
            && params.iter().enumerate().all(any)
            && ty.results() == [self.result]
    }

    /// Whether each parameter is what the widths say.
    fn fits_model(&self, ty: &FuncType, abi: CudaAbi) -> bool {
        ty.params().iter().enumerate().all(|(at, param)| {
            let [narrow, device, wide] = [0, 1, 2].map(|model| self.models[model][at]);
            // Fixed, a device pointer, or one of pointer, size and handle, which the table does not tell apart.
            match (narrow == wide, narrow == device) {
                (true, _) => *param == narrow,
                (false, false) => *param == integer(abi.device_pointer == Width::Eight),
                (false, true) => [abi.pointer, abi.size, abi.handle]
                    .iter()
                    .any(|width| *param == integer(*width == Width::Eight)),
            }
        })
    }
}

fn integer(wide: bool) -> ValType {
    if wide { ValType::I64 } else { ValType::I32 }
}

/// Derives what the runner has to know, if the module uses CUDA.
///
/// # Errors
///
/// [`Error::CudaAbi`] if imports contradict each other or the model that was asked for, [`Error::CudaSection`] if a
/// custom section makes no sense.
pub(crate) fn derive(
    path: &Path,
    module: &Module<'_>,
    asked: Option<CudaAbi>,
) -> Result<Option<Found>, Error> {
    let imports: Vec<_> = module
        .imports
        .iter()
        .filter(|import| is_cuda(import))
        .filter_map(|import| match import.ty {
            TypeRef::Func(index) => Some((import.name, module.function_type(index)?)),
            _ => None,
        })
        .collect();
    if imports.is_empty() {
        return Ok(None);
    }
    let sections = Sections::read(path, module)?;
    let abi = match asked.or(sections.abi) {
        Some(abi) => abi,
        None => {
            let wide = module
                .memories
                .first()
                .is_some_and(|memory| memory.memory64);
            let pointer = if wide { Width::Eight } else { Width::Four };
            let width = |what, telling| {
                evidence(path, &imports, what, telling).map(|found| found.unwrap_or(pointer))
            };
            CudaAbi {
                pointer,
                size: width("size_t", SIZE)?,
                handle: width("handles", HANDLE)?,
                device_pointer: width("CUdeviceptr", DEVICE_POINTER)?,
            }
        }
    };
    let mut unknown = Vec::new();
    for (name, ty) in imports {
        match Expected::of(name) {
            Some(expected) if expected.fits_model(ty, abi) => {}
            Some(_) => {
                return Err(Error::CudaAbi {
                    path: path.into(),
                    problem: format!(
                        "{name} is imported as {}, which is not its type with {abi}",
                        describe_function(ty)
                    ),
                });
            }
            None => unknown.push(name.to_owned()),
        }
    }
    let cuda = Cuda {
        abi,
        parameters: sections.parameters,
    };
    Ok(Some(Found { cuda, unknown }))
}

/// The width that imports tell, if any does.
fn evidence(
    path: &Path,
    imports: &[(&str, &FuncType)],
    what: &str,
    telling: &[(&str, usize)],
) -> Result<Option<Width>, Error> {
    let mut found: [Option<&str>; 2] = [None, None];
    for (name, parameter) in telling {
        let import = imports.iter().find(|(import, _)| import == name);
        match import.and_then(|(_, ty)| ty.params().get(*parameter)) {
            Some(ValType::I32) => found[0] = found[0].or(Some(name)),
            Some(ValType::I64) => found[1] = found[1].or(Some(name)),
            _ => {}
        }
    }
    match found {
        [Some(four), Some(eight)] => Err(Error::CudaAbi {
            path: path.into(),
            problem: format!("{what} has four bytes in the import {four} and eight in {eight}"),
        }),
        [_, Some(_)] => Ok(Some(Width::Eight)),
        [Some(_), _] => Ok(Some(Width::Four)),
        [None, None] => Ok(None),
    }
}

/// What custom sections say.
#[derive(Default)]
struct Sections {
    abi: Option<CudaAbi>,
    parameters: Vec<KernelParameters>,
}

impl Sections {
    fn read(path: &Path, module: &Module<'_>) -> Result<Self, Error> {
        let mut sections = Self::default();
        let bad = |section: &'static str, problem: String| Error::CudaSection {
            path: path.into(),
            section,
            problem,
        };
        for payload in Parser::new(0).parse_all(module.wasm) {
            let Ok(Payload::CustomSection(section)) = payload else {
                continue;
            };
            let text = || {
                std::str::from_utf8(section.data()).map(|text| text.trim_matches(['\0', '\n', ' ']))
            };
            match section.name() {
                ABI_SECTION => {
                    let name = text().map_err(|_| bad(ABI_SECTION, "it is not text".into()))?;
                    let abi = CudaAbi::from_name(name);
                    let abi = abi.ok_or_else(|| {
                        bad(
                            ABI_SECTION,
                            format!("{name:?} is none of w32, w32p64 and w64"),
                        )
                    })?;
                    sections.abi = Some(abi);
                }
                PARAMETERS_SECTION => {
                    let text =
                        text().map_err(|_| bad(PARAMETERS_SECTION, "it is not text".into()))?;
                    for line in text.lines().filter(|line| !line.trim().is_empty()) {
                        let mut words = line.split_whitespace();
                        match (words.next(), words.next(), words.next()) {
                            (Some(kernel), kinds, None) => {
                                sections.parameters.push(KernelParameters {
                                    kernel: kernel.into(),
                                    kinds: kinds.unwrap_or_default().into(),
                                })
                            }
                            _ => {
                                return Err(bad(
                                    PARAMETERS_SECTION,
                                    format!("{line:?} is not `KERNEL KINDS`"),
                                ));
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(sections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(imports: &str, asked: Option<CudaAbi>) -> Result<Option<Found>, String> {
        let wasm = wat::parse_str(format!("(module {imports})")).expect("the text is correct");
        let module = Module::parse(&wasm).expect("the module is valid");
        derive(Path::new("a.wasm"), &module, asked).map_err(|error| error.report())
    }

    fn import(name: &str, params: &str) -> String {
        format!(r#"(import "env" "{name}" (func (param {params}) (result i32)))"#)
    }

    fn abi(imports: &str) -> CudaAbi {
        found(imports, None)
            .expect("it fits")
            .expect("it uses CUDA")
            .cuda
            .abi
    }

    #[test]
    fn the_table_is_well_formed() {
        let mut names: Vec<&str> = Vec::new();
        for line in FUNCTIONS.lines().skip(1) {
            let name = line.split('\t').next().expect("a name");
            let expected = Expected::of(name).expect("three models");
            assert!(
                expected
                    .models
                    .iter()
                    .all(|model| model.len() == expected.models[0].len()),
                "{name}"
            );
            names.push(name);
        }
        assert_eq!(names.len(), 634);
        assert!(names.is_sorted());
        for (name, parameter) in DEVICE_POINTER.iter().chain(SIZE).chain(HANDLE) {
            let expected = Expected::of(name).expect("it is in the table");
            assert_ne!(
                expected.models[0][*parameter], expected.models[2][*parameter],
                "{name}"
            );
        }
    }

    #[test]
    fn imports_tell_the_data_model() {
        assert_eq!(found("", None), Ok(None));
        assert_eq!(abi(&import("cuInit", "i32")), CudaAbi::W32);
        let w32 = import("cuMemAlloc_v2", "i32 i32") + &import("cuMemFree_v2", "i32");
        assert_eq!(abi(&w32), CudaAbi::W32);
        let w32p64 = import("cuMemAlloc_v2", "i32 i32") + &import("cuMemFree_v2", "i64");
        assert_eq!(abi(&w32p64), CudaAbi::W32P64);
        let wide_handles = import("cuMemFree_v2", "i64") + &import("cuModuleUnload", "i64");
        assert_eq!(
            abi(&wide_handles),
            CudaAbi {
                handle: Width::Eight,
                ..CudaAbi::W32P64
            }
        );
        let w64 = import("cuMemAlloc_v2", "i64 i64") + "(memory i64 1)";
        assert_eq!(abi(&w64), CudaAbi::W64);
    }

    #[test]
    fn contradictions_name_both_imports() {
        let imports = import("cuMemFree_v2", "i64") + &import("cuMemsetD8_v2", "i32 i32 i32");
        let report = found(&imports, None).expect_err("they contradict each other");
        assert!(
            report.contains("four bytes in the import cuMemsetD8_v2 and eight in cuMemFree_v2"),
            "{report}"
        );
        assert!(report.contains("hint:"), "{report}");
        let report = found(&import("cuMemFree_v2", "i64"), Some(CudaAbi::W32))
            .expect_err("it was asked for another");
        assert!(
            report.contains("cuMemFree_v2 is imported as func (param i64) (result i32)"),
            "{report}"
        );
    }

    #[test]
    fn sections_decide_what_imports_do_not_tell() {
        let sections =
            r#"(@custom "faas.cuda" "w32p64") (@custom "faas.cuda.params" "vecadd pppi\nnone\n")"#;
        let both = found(&(import("cuInit", "i32") + sections), None)
            .expect("it fits")
            .expect("CUDA");
        assert_eq!(both.cuda.abi, CudaAbi::W32P64);
        let parameters: Vec<_> = both
            .cuda
            .parameters
            .iter()
            .map(|p| (&*p.kernel, &*p.kinds))
            .collect();
        assert_eq!(parameters, [("vecadd", "pppi"), ("none", "")]);
        let bad = import("cuInit", "i32") + r#"(@custom "faas.cuda" "w16")"#;
        assert!(
            found(&bad, None)
                .expect_err("no such model")
                .contains("w16")
        );
    }

    #[test]
    fn unknown_functions_are_listed() {
        let both = found(&import("cuFutureThing", "i64 f32"), None)
            .expect("it fits")
            .expect("CUDA");
        assert_eq!(both.unknown, ["cuFutureThing"]);
    }
}
