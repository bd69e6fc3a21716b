//! Linking: combines a module with the host functions that it imports and the limits of its instances.
//!
//! Linking finds every reason why a module cannot run. Creating an instance afterwards fails only if the
//! system refuses a resource.

use std::sync::Arc;

use faas_wasm_artifact::{ImportKind, ModuleMetadata};
use wasmer_types::FunctionIndex;
use wasmer_types::entity::EntityRef;

use crate::host::{Entry, Linker};
use crate::module::Module;
use crate::slot::WASM_PAGE;

/// The export that a run calls.
const ENTRY: &str = "_start";

/// Limits of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory, all memories of an instance together.
    pub memory: u64,
    /// Elements, all tables of an instance together.
    pub table: u32,
    /// Bytes of stack for guest code.
    pub stack: usize,
}

impl Default for Limits {
    /// The defaults of the runner's settings (`runner/CONFIGURATION.md`).
    fn default() -> Self {
        Self {
            memory: 4 << 30,
            table: 1_000_000,
            stack: 1 << 20,
        }
    }
}

/// Why a module cannot run with these host functions and limits.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No host function has this name.
    #[error("the module imports `{module}.{field}` ({ty}), which nobody provides")]
    Missing {
        /// Module name.
        module: String,
        /// Field name.
        field: String,
        /// Its type.
        ty: String,
    },
    /// The host function has another type.
    #[error("the module imports `{module}.{field}` as {wanted}, but it is {provided}")]
    Signature {
        /// Module name.
        module: String,
        /// Field name.
        field: String,
        /// The type of the import.
        wanted: String,
        /// The type of the host function.
        provided: String,
    },
    /// The module imports a memory, table, global or tag.
    #[error(
        "the module imports `{module}.{field}`, which is no function; only functions are provided"
    )]
    NotAFunction {
        /// Module name.
        module: String,
        /// Field name.
        field: String,
    },
    /// The module has no entry function.
    #[error("the module exports no function `{ENTRY}` without parameters and results")]
    NoEntry,
    /// The initial memories together are larger than allowed.
    #[error(
        "the module's memory begins with {initial} bytes, more than the limit of {limit} (wasm_memory_limit)"
    )]
    MemoryLimit {
        /// Initial size in bytes.
        initial: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The initial tables together are larger than allowed.
    #[error(
        "the module's table begins with {initial} elements, more than the limit of {limit} (wasm_table_limit)"
    )]
    TableLimit {
        /// Initial number of elements.
        initial: u64,
        /// The limit.
        limit: u32,
    },
}

/// A module with resolved imports, from which instances are created.
pub struct Linked<T> {
    pub(crate) module: Arc<Module>,
    pub(crate) imports: Box<[Entry]>,
    pub(crate) limits: Limits,
    /// The start function, if there is one, and the entry.
    pub(crate) calls: Vec<FunctionIndex>,
    data: std::marker::PhantomData<fn(&mut T)>,
}

// SAFETY: the entries are addresses of functions; all other fields are `Send`.
unsafe impl<T> Send for Linked<T> {}
// SAFETY: as above, and it is immutable.
unsafe impl<T> Sync for Linked<T> {}

impl<T> std::fmt::Debug for Linked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linked")
            .field("module", &self.module)
            .finish_non_exhaustive()
    }
}

impl<T> Linked<T> {
    /// The module.
    pub fn module(&self) -> &Arc<Module> {
        &self.module
    }
}

impl<T: 'static> Linker<T> {
    /// Resolves the imports of a module.
    ///
    /// # Errors
    ///
    /// [`LinkError`] for the first reason why the module cannot run.
    pub fn link(&self, module: Arc<Module>, limits: Limits) -> Result<Arc<Linked<T>>, LinkError> {
        let metadata = &module.metadata;
        let mut imports = Vec::new();
        for import in &metadata.imports {
            let name = || (import.module.clone(), import.field.clone());
            let ImportKind::Function(ty) = import.kind else {
                let (module, field) = name();
                return Err(LinkError::NotAFunction { module, field });
            };
            let wanted = &metadata.types[ty as usize];
            let Some(entry) = self.get(&import.module, &import.field) else {
                let (module, field) = name();
                let ty = signature(&wanted.params, &wanted.results);
                return Err(LinkError::Missing { module, field, ty });
            };
            let expected = entry.parameters.as_deref().unwrap_or(&wanted.params);
            if wanted.params != expected || wanted.results != entry.results {
                let (module, field) = name();
                return Err(LinkError::Signature {
                    module,
                    field,
                    wanted: signature(&wanted.params, &wanted.results),
                    provided: signature(expected, entry.results),
                });
            }
            imports.push(entry);
        }
        check_limits(metadata, limits)?;
        let entry = module.exported_function(ENTRY).ok_or(LinkError::NoEntry)?;
        let calls: Vec<_> = metadata
            .start
            .map(FunctionIndex::from_u32)
            .into_iter()
            .chain([entry])
            .collect();
        let callable = |function: &FunctionIndex| {
            let ty = &metadata.types[module.info.functions[*function].index()];
            let local = module.info.local_func_index(*function).is_some();
            local && ty.params.is_empty() && ty.results.is_empty()
        };
        if !calls.iter().all(callable) {
            return Err(LinkError::NoEntry);
        }
        Ok(Arc::new(Linked {
            module,
            imports: imports.into(),
            limits,
            calls,
            data: std::marker::PhantomData,
        }))
    }
}

fn check_limits(metadata: &ModuleMetadata, limits: Limits) -> Result<(), LinkError> {
    let memories = metadata.memories.iter();
    let pages: u64 = memories.map(|memory| u64::from(memory.minimum)).sum();
    let (initial, limit) = (pages * WASM_PAGE as u64, limits.memory);
    if initial > limit {
        return Err(LinkError::MemoryLimit { initial, limit });
    }
    let tables = metadata.tables.iter();
    let initial: u64 = tables.map(|table| u64::from(table.minimum)).sum();
    if initial > u64::from(limits.table) {
        let limit = limits.table;
        return Err(LinkError::TableLimit { initial, limit });
    }
    Ok(())
}

fn signature(
    parameters: &[faas_wasm_artifact::ValueType],
    results: &[faas_wasm_artifact::ValueType],
) -> String {
    let list = |types: &[faas_wasm_artifact::ValueType]| {
        let names: Vec<_> = types.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    format!("({}) -> ({})", list(parameters), list(results))
}
