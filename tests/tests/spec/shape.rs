//! The information about a module that a linker needs.

use std::collections::HashMap;

use wasm_encoder::ValType;
use wasm_encoder::reencode::{Reencode as _, RoundtripReencoder};
use wasmparser::types::Types;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef, Validator, WasmFeatures};

/// A valid module's imports, exports and types.
pub(crate) struct Shape {
    types: Types,
    /// Module, name and kind, in order.
    pub(crate) imports: Vec<(String, String, ExternalKind)>,
    pub(crate) exports: HashMap<String, (ExternalKind, u32)>,
    pub(crate) start: Option<u32>,
    /// Whether the module can hold references that only a host can create.
    pub(crate) keeps_host_references: bool,
}

/// Parameters and results of a function.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) params: Vec<ValType>,
    pub(crate) results: Vec<ValType>,
}

impl Shape {
    /// # Errors
    ///
    /// Why the module is not valid with any proposals enabled.
    pub(crate) fn new(wasm: &[u8]) -> Result<Self, String> {
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        let types = validator
            .validate_all(wasm)
            .map_err(|error| error.to_string())?;
        let mut shape = Self {
            types,
            imports: Vec::new(),
            exports: HashMap::new(),
            start: None,
            keeps_host_references: false,
        };
        for payload in Parser::new(0).parse_all(wasm) {
            shape.add(payload).map_err(|error| error.to_string())?;
        }
        let types = shape.types.as_ref();
        let is_host = |ty: wasmparser::RefType| !ty.is_func_ref();
        shape.keeps_host_references = (0..types.table_count())
            .any(|table| is_host(types.table_at(table).element_type))
            || (0..types.global_count()).any(|global| {
                let ty = types.global_at(global);
                ty.mutable && ty.content_type.as_reference_type().is_some_and(is_host)
            });
        Ok(shape)
    }

    fn add(&mut self, payload: wasmparser::Result<Payload<'_>>) -> wasmparser::Result<()> {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let kind = match import.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => ExternalKind::Func,
                        TypeRef::Table(_) => ExternalKind::Table,
                        TypeRef::Memory(_) => ExternalKind::Memory,
                        TypeRef::Global(_) => ExternalKind::Global,
                        TypeRef::Tag(_) => ExternalKind::Tag,
                    };
                    let (module, name) = (import.module.to_owned(), import.name.to_owned());
                    self.imports.push((module, name, kind));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    let target = (export.kind, export.index);
                    self.exports.insert(export.name.to_owned(), target);
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            _ => {}
        }
        Ok(())
    }

    /// Number of types.
    pub(crate) fn types(&self) -> u32 {
        self.types.as_ref().core_type_count_in_module()
    }

    /// Number of items of a kind, including imported ones.
    pub(crate) fn count(&self, kind: ExternalKind) -> u32 {
        let types = self.types.as_ref();
        match kind {
            ExternalKind::Func | ExternalKind::FuncExact => types.function_count(),
            ExternalKind::Table => types.table_count(),
            ExternalKind::Memory => types.memory_count(),
            ExternalKind::Global => types.global_count(),
            ExternalKind::Tag => types.tag_count(),
        }
    }

    /// Number of element segments.
    pub(crate) fn elements(&self) -> u32 {
        self.types.as_ref().element_count()
    }

    /// The type of an exported function, or of the getter of an exported global.
    pub(crate) fn signature(&self, kind: ExternalKind, index: u32) -> Result<Signature, String> {
        let types = self.types.as_ref();
        let encode = |types: &[wasmparser::ValType]| {
            let types = types.iter().map(|ty| RoundtripReencoder.val_type(*ty));
            let types = types.collect::<Result<Vec<_>, _>>();
            types.map_err(|error| error.to_string())
        };
        match kind {
            ExternalKind::Func | ExternalKind::FuncExact => {
                let ty = types[types.core_function_at(index)].unwrap_func();
                Ok(Signature {
                    params: encode(ty.params())?,
                    results: encode(ty.results())?,
                })
            }
            ExternalKind::Global => Ok(Signature {
                params: Vec::new(),
                results: encode(&[types.global_at(index).content_type])?,
            }),
            _ => Err("the export is neither a function nor a global".into()),
        }
    }
}
