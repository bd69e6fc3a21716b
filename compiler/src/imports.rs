//! Which imports a host provides: WASI preview1 under both of its names, and the CUDA driver API.
//!
//! An import that nobody provides would fail at the runner's start; here it fails at the build,
//! by name and type. The tool knows names and types only, not what they do.

use std::path::Path;

use wasmparser::{FuncType, Import, TypeRef, ValType};

use crate::cuda;
use crate::error::{Error, ImportList};
use crate::module::{Module, describe_function};
use crate::text;

/// Both spellings of preview1. Their functions have the same types.
const WASI_MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// The functions of preview1 with their parameters (`i` for i32, `I` for i64). All give an i32,
/// an errno, but `proc_exit`, which gives nothing.
///
/// From `wasi_snapshot_preview1.witx` of the WASI repository; `wasi_unstable` lacks `sock_accept`.
const WASI_FUNCTIONS: [(&str, &str); 46] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Who provides an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Provider {
    Wasi,
    Cuda,
    /// Nobody, with a remark where one helps.
    Nobody(Option<String>),
}

impl Provider {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Wasi => "wasi",
            Self::Cuda => "cuda",
            Self::Nobody(_) => "nobody",
        }
    }
}

/// Finds out who provides an import. Further hosts are added here.
pub(crate) fn provider(module: &Module<'_>, import: &Import<'_>) -> Provider {
    if cuda::is_cuda(import) {
        return match cuda::remark(module, import) {
            None => Provider::Cuda,
            Some(remark) => Provider::Nobody(Some(remark)),
        };
    }
    if !WASI_MODULES.contains(&import.module) {
        return Provider::Nobody(None);
    }
    let Some((name, params)) = WASI_FUNCTIONS.iter().find(|(name, _)| *name == import.name) else {
        return Provider::Nobody(Some("not a function of WASI preview1".into()));
    };
    let expected = wasi_type(name, params);
    let found = match import.ty {
        TypeRef::Func(ty) => module.function_type(ty),
        _ => None,
    };
    if found == Some(&expected) {
        return Provider::Wasi;
    }
    Provider::Nobody(Some(format!("WASI has {}", describe_function(&expected))))
}

/// Checks that there is a host for every import.
///
/// # Errors
///
/// [`Error::UnknownImports`] with all that nobody provides.
pub(crate) fn check(path: &Path, module: &Module<'_>) -> Result<(), Error> {
    let mut wrong = Vec::new();
    let mut functions_only = true;
    for import in &module.imports {
        if let Provider::Nobody(remark) = provider(module, import) {
            let ty = describe(module, import);
            let remark = remark
                .map(|remark| format!(" ({remark})"))
                .unwrap_or_default();
            let name = text::line(format_args!("{}.{}", import.module, import.name));
            wrong.push(format!("{name}: {ty}{remark}"));
            functions_only &= matches!(import.ty, TypeRef::Func(_));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let is_memory = |import: &Import<'_>| matches!(import.ty, TypeRef::Memory(_));
    Err(Error::UnknownImports {
        path: path.into(),
        source: ImportList(wrong),
        memory: module.imports.iter().any(is_memory),
        functions_only,
    })
}

/// An import's type in the text format.
pub(crate) fn describe(module: &Module<'_>, import: &Import<'_>) -> String {
    match import.ty {
        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => module
            .function_type(ty)
            .map_or("func".into(), describe_function),
        TypeRef::Table(table) => format!("table {} {}", table.initial, table.element_type),
        TypeRef::Memory(memory) => {
            let shared = if memory.shared { " shared" } else { "" };
            let maximum = memory.maximum.map(|pages| format!(" {pages}"));
            format!(
                "memory {}{}{shared}",
                memory.initial,
                maximum.unwrap_or_default()
            )
        }
        TypeRef::Global(global) if global.mutable => {
            format!("global (mut {})", global.content_type)
        }
        TypeRef::Global(global) => format!("global {}", global.content_type),
        TypeRef::Tag(_) => "tag".into(),
    }
}

fn wasi_type(name: &str, params: &str) -> FuncType {
    let params = params.chars().map(|param| match param {
        'I' => ValType::I64,
        _ => ValType::I32,
    });
    let result = (name != "proc_exit").then_some(ValType::I32);
    FuncType::new(params, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(imports: &str) -> Result<(), String> {
        let wasm = wat::parse_str(format!("(module {imports})")).expect("the text is correct");
        let module = Module::parse(&wasm).expect("the module is valid");
        check(Path::new("a.wasm"), &module).map_err(|error| error.report())
    }

    #[test]
    fn provided_imports_pass() {
        let write = r#""fd_write" (func (param i32 i32 i32 i32) (result i32))"#;
        for imports in [
            "",
            &*format!(r#"(import "wasi_snapshot_preview1" {write})"#),
            &*format!(r#"(import "wasi_unstable" {write})"#),
            r#"(import "wasi_unstable" "proc_exit" (func (param i32)))"#,
            r#"(import "env" "cuInit" (func (param i32) (result i32)))"#,
            r#"(import "env" "cuMemFree_v2" (func (param i64) (result i32)))"#,
            r#"(import "env" "cuNobodyKnowsThis" (func (param f64) (result i32)))"#,
            r#"(import "env" "faasCuDevicePtrToU64" (func (param i32) (result i64)))"#,
        ] {
            assert_eq!(check_text(imports), Ok(()), "{imports}");
        }
    }

    #[test]
    fn others_are_named_with_their_type() {
        for (imports, expected) in [
            (
                r#"(import "env" "system" (func (param i32) (result i32)))"#,
                "  env.system: func (param i32) (result i32)\n",
            ),
            (r#"(import "env" "custom" (func))"#, "  env.custom: func\n"),
            (
                r#"(import "env" "cuMemAlloc_v2" (func (param i32) (result i32)))"#,
                "env.cuMemAlloc_v2: func (param i32) (result i32) (CUDA has func (param i32 i32)",
            ),
            (
                r#"(import "env" "cuUnknown" (func (param i32)))"#,
                "env.cuUnknown: func (param i32) (functions of the CUDA driver API have one i32",
            ),
            (
                r#"(import "env" "memory" (memory 1 4 shared))"#,
                "  env.memory: memory 1 4 shared\nhint: link without `--import-memory`",
            ),
            (
                r#"(import "env" "g" (global (mut i32)))"#,
                "  env.g: global (mut i32)\n",
            ),
            (
                r#"(import "wasi_snapshot_preview1" "sock_open" (func (param i32)))"#,
                "sock_open: func (param i32) (not a function of WASI preview1)",
            ),
            (
                r#"(import "wasi_snapshot_preview1" "fd_close" (func (param i64) (result i32)))"#,
                "fd_close: func (param i64) (result i32) (WASI has func (param i32) (result i32))",
            ),
        ] {
            let report = check_text(imports).expect_err("nobody provides it");
            assert!(report.contains(expected), "{report}");
        }
    }
}
