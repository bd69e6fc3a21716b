//! A loaded artifact: mapped code and everything that instances of it share.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faas_wasm_artifact::{
    Artifact, ConstantOp, Cuda, Export, FunctionNames, GlobalInit, ModuleMetadata, NULL_FUNCTION,
    ReadError, ValueType,
};
use rustix::io::Errno;
use wasmer_types::entity::packed_option::ReservedValue;
use wasmer_types::entity::{BoxedSlice, PrimaryMap};
use wasmer_types::{
    ElemIndex, FunctionIndex, FunctionType, GlobalIndex, GlobalType, InitExpr, InitExprOp,
    LocalFunctionIndex, MemoryType, ModuleInfo, Mutability, Pages, SignatureIndex, TableIndex,
    TableInitializer, TableType, Type, VMOffsets,
};
use wasmer_vm::{FunctionBodyPtr, VMSignatureHash, VMTrampoline};

use crate::image::MemoryImage;
use crate::libcalls;
use crate::map::{CodeMapping, FileMapping, MapError, UnwindTables};
use crate::names;
use crate::slot::WASM_PAGE;

/// Version of the interface between compiled code and the engine. The build tool writes the same
/// into the manifest.
pub const ENGINE_VERSION: &str = wasmer_vm::VERSION;

/// Most elements of a table of wasmer-vm, which takes no larger maximum (`TABLE_MAX_SIZE`). A maximum is an upper bound:
/// `table.grow` may fail before it.
const MOST_ELEMENTS: u32 = 128 << 20;

/// Why an artifact cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened or mapped.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not a regular file.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is no artifact, damaged, or for another host.
    #[error("{}: {source}", path.display())]
    Artifact {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ReadError,
    },
    /// Its code calls what this engine does not have.
    #[error(
        "{}: the code calls `{name}`, which this program does not have: build the artifact with the \
         `faas-wasm` of the same release", path.display()
    )]
    UnknownLibcall {
        /// The file.
        path: PathBuf,
        /// The call.
        name: String,
    },
}

/// A loaded artifact. Cheap to share; unmapped when the last owner is gone.
pub struct Module {
    pub(crate) info: Arc<ModuleInfo>,
    pub(crate) metadata: ModuleMetadata,
    pub(crate) functions: BoxedSlice<LocalFunctionIndex, FunctionBodyPtr>,
    pub(crate) trampolines: BoxedSlice<SignatureIndex, VMTrampoline>,
    pub(crate) signatures: BoxedSlice<SignatureIndex, VMSignatureHash>,
    pub(crate) offsets: VMOffsets,
    pub(crate) code: std::ops::Range<usize>,
    /// What its memories begin with.
    pub(crate) images: Box<[Arc<MemoryImage>]>,
    cuda: Option<Cuda>,
    // Dropped before the mapping that it points into.
    #[expect(dead_code, reason = "held for its destructor")]
    unwind: Option<UnwindTables>,
    mapping: CodeMapping,
    file: Arc<FileMapping>,
    path: PathBuf,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Module {
    /// Loads the artifact at `path`: checks it, maps its code and decodes its metadata.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if it is no intact artifact for this host and engine.
    ///
    /// # Safety
    ///
    /// The code in the artifact will run with the rights of this process: whoever can write the
    /// file is trusted. The file must not shrink or change while the module lives (replace it by
    /// renaming a new one over it).
    pub unsafe fn load(path: &Path) -> Result<Arc<Self>, LoadError> {
        let io = |source| LoadError::Io {
            path: path.to_owned(),
            source,
        };
        let errno = |errno: Errno| io(errno.into());
        let not_artifact = |source| LoadError::Artifact {
            path: path.to_owned(),
            source,
        };
        // Opening a fifo or a device must not wait.
        let flags =
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
        let file: File = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map_err(errno)?
            .into();
        let facts = rustix::fs::fstat(&file).map_err(errno)?;
        if !rustix::fs::FileType::from_raw_mode(facts.st_mode).is_file() {
            return Err(LoadError::NotAFile {
                path: path.to_owned(),
            });
        }
        let size = usize::try_from(facts.st_size).unwrap_or(0);
        if size == 0 {
            return Err(not_artifact(ReadError::Empty));
        }
        // SAFETY: the caller promises that the file stays as it is.
        let file = Arc::new(unsafe { FileMapping::new(file, size) }.map_err(errno)?);
        let artifact = Artifact::parse(file.bytes()).map_err(not_artifact)?;
        artifact.check_host(ENGINE_VERSION).map_err(not_artifact)?;
        // SAFETY: `Artifact::parse` has checked the plan, and the caller trusts the code.
        let mapping =
            unsafe { CodeMapping::new(&artifact.module.plan, &file, libcalls::address_of) }
                .map_err(|error| match error {
                    MapError::System(source) => errno(source),
                    MapError::UnknownLibcall(name) => LoadError::UnknownLibcall {
                        path: path.to_owned(),
                        name,
                    },
                })?;

        let functions: PrimaryMap<LocalFunctionIndex, _> = artifact
            .tables
            .code()
            .map(|address| {
                FunctionBodyPtr(std::ptr::with_exposed_provenance(mapping.address(address)))
            })
            .collect();
        let trampolines: PrimaryMap<SignatureIndex, _> = artifact
            .tables
            .trampolines()
            .map(|address| {
                // SAFETY: the address lies in the mapped code (`Artifact::parse`), where the
                // artifact, which is trusted, says that a trampoline of this type begins.
                unsafe { std::mem::transmute::<usize, VMTrampoline>(mapping.address(address)) }
            })
            .collect();
        let signatures: PrimaryMap<SignatureIndex, _> = artifact
            .module
            .types
            .iter()
            .map(|ty| VMSignatureHash::new(ty.hash))
            .collect();
        let info = module_info(&artifact);
        let offsets = VMOffsets::new(size_of::<usize>() as u8, &info);
        let code = artifact.module.plan.code;
        let code = mapping.address(code.offset as u32)
            ..mapping.address((code.offset + code.length) as u32);
        // Only a module that has exception tags can throw.
        let unwind = artifact.module.plan.eh_frame;
        let unwind = unwind.filter(|_| !artifact.module.tags.is_empty());
        // SAFETY: these are the records of the mapped code, which is trusted; the mapping is
        // dropped after them.
        let unwind = unwind.map(|range| unsafe { UnwindTables::register(mapping.bytes(range)) });
        let images = images(&artifact.module, &file);
        let Artifact {
            manifest,
            module: metadata,
            ..
        } = artifact;
        Ok(Arc::new(Self {
            info: Arc::new(info),
            metadata,
            functions: functions.into_boxed_slice(),
            trampolines: trampolines.into_boxed_slice(),
            signatures: signatures.into_boxed_slice(),
            offsets,
            code,
            images,
            cuda: manifest.cuda,
            unwind,
            mapping,
            file,
            path: path.to_owned(),
        }))
    }

    /// What it wants of CUDA, if it imports the driver's functions.
    pub fn cuda(&self) -> Option<&Cuda> {
        self.cuda.as_ref()
    }

    /// The file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Imports by module and field name.
    pub fn imports(&self) -> impl Iterator<Item = (&str, &str)> {
        let imports = self.metadata.imports.iter();
        imports.map(|import| (import.module.as_str(), import.field.as_str()))
    }

    pub(crate) fn exported_function(&self, wanted: &str) -> Option<FunctionIndex> {
        self.metadata
            .exports
            .iter()
            .find_map(|export| match export {
                Export::Function { name, index } if name == wanted => {
                    Some(FunctionIndex::from_u32(*index))
                }
                _ => None,
            })
    }

    /// Index of the memory that addresses in calls of the host refer to: that which is exported as
    /// `memory`, as the specification of WASI's preview1 has it, or the first.
    pub(crate) fn host_memory(&self) -> usize {
        let exports = self.metadata.exports.iter();
        let mut memories = exports.filter_map(|export| match export {
            Export::Memory { name, index } if name == "memory" => Some(*index as usize),
            _ => None,
        });
        memories.next().unwrap_or(0)
    }

    /// Defined functions by ascending address, as the artifact counts them, each with its number.
    /// Call trampolines lie between and behind them and have none.
    pub(crate) fn functions_by_address(&self) -> Vec<(u32, Option<u32>)> {
        let mut functions: Vec<_> = self
            .code_addresses()
            .zip((0..).map(Some))
            .chain(self.trampoline_addresses().map(|address| (address, None)))
            .collect();
        functions.sort_unstable();
        functions
    }

    /// The functions as `perf` wants them in a map file: a line for each with address and size in
    /// hexadecimal, and its name.
    pub fn perf_map(&self) -> String {
        let names = self.metadata.names.within(self.file().len());
        let names = names.map(|range| FunctionNames::decode(&self.file()[range]));
        let names = names.unwrap_or_default();
        let functions = self.functions_by_address();
        let end = (self.code.end - self.mapping.address(0)) as u32;
        let ends = functions.iter().skip(1).map(|(start, _)| *start);
        let mut text = String::new();
        for ((start, local), end) in functions.iter().zip(ends.chain([end])) {
            let address = self.mapping.address(*start);
            let name = match local {
                Some(local) => {
                    names::function_name(&names, local + self.metadata.imported_functions)
                }
                None => "wasm trampoline".into(),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{address:x} {:x} {name}", end - start);
        }
        text
    }

    /// Addresses of the defined functions as the artifact counts them.
    pub(crate) fn code_addresses(&self) -> impl Iterator<Item = u32> {
        let base = self.mapping.address(0);
        let functions = self.functions.values();
        functions.map(move |function| (function.0.addr() - base) as u32)
    }

    /// Addresses of the call trampolines as the artifact counts them.
    pub(crate) fn trampoline_addresses(&self) -> impl Iterator<Item = u32> {
        let base = self.mapping.address(0);
        let trampolines = self.trampolines.values();
        trampolines.map(move |trampoline| (*trampoline as usize - base) as u32)
    }

    pub(crate) fn file(&self) -> &[u8] {
        self.file.bytes()
    }

    /// Address of a program counter as the artifact counts it.
    pub(crate) fn relative(&self, pc: usize) -> Option<u32> {
        self.code
            .contains(&pc)
            .then(|| (pc - self.mapping.address(0)) as u32)
    }
}

fn images(module: &ModuleMetadata, file: &Arc<FileMapping>) -> Box<[Arc<MemoryImage>]> {
    let memories = module.memories.iter().enumerate();
    let image = |(index, memory): (usize, &faas_wasm_artifact::MemoryType)| {
        let runs = module.image.iter();
        let runs = runs.filter(|run| run.memory as usize == index);
        let initial = memory.minimum as usize * WASM_PAGE;
        Arc::new(MemoryImage::new(initial, runs, file))
    };
    memories.map(image).collect()
}

/// wasmer's description of the module, without what we keep elsewhere: names, custom sections and
/// data. The start function is left out too, as it must run under the request's deadline.
fn module_info(artifact: &Artifact<'_>) -> ModuleInfo {
    let module = &artifact.module;
    let mut info = ModuleInfo::new();
    let imported = |kind: fn(&faas_wasm_artifact::ImportKind) -> bool| {
        module
            .imports
            .iter()
            .filter(|import| kind(&import.kind))
            .count()
    };
    use faas_wasm_artifact::ImportKind;
    info.num_imported_functions = module.imported_functions as usize;
    info.num_imported_tables = imported(|kind| matches!(kind, ImportKind::Table(_)));
    info.num_imported_memories = imported(|kind| matches!(kind, ImportKind::Memory(_)));
    info.num_imported_globals = imported(|kind| matches!(kind, ImportKind::Global(_)));
    info.num_imported_tags = imported(|kind| matches!(kind, ImportKind::Tag(_)));
    info.signatures = module
        .types
        .iter()
        .map(|ty| FunctionType::new(types(&ty.params), types(&ty.results)))
        .collect();
    info.functions = artifact
        .tables
        .signatures()
        .map(SignatureIndex::from_u32)
        .collect();
    info.tables = module
        .tables
        .iter()
        .map(|table| TableType {
            ty: value_type(table.element),
            minimum: table.minimum,
            maximum: table.maximum.map(|most| most.min(MOST_ELEMENTS)),
            readonly: table.readonly,
        })
        .collect();
    info.memories = module
        .memories
        .iter()
        .map(|memory| {
            MemoryType::new(
                Pages(memory.minimum),
                memory.maximum.map(Pages),
                memory.shared,
            )
        })
        .collect();
    info.globals = module
        .globals
        .iter()
        .map(|global| {
            let mutability = if global.mutable {
                Mutability::Var
            } else {
                Mutability::Const
            };
            GlobalType::new(value_type(global.value), mutability)
        })
        .collect();
    info.global_initializers = module
        .globals
        .iter()
        .filter_map(|global| global.init.as_ref().map(global_init))
        .collect();
    info.tags = module
        .tags
        .iter()
        .copied()
        .map(SignatureIndex::from_u32)
        .collect();

    let mut elements = artifact.tables.elements().map(|function| match function {
        NULL_FUNCTION => FunctionIndex::reserved_value(),
        function => FunctionIndex::from_u32(function),
    });
    let mut take =
        |length: u32| -> Box<[FunctionIndex]> { elements.by_ref().take(length as usize).collect() };
    info.table_initializers = module
        .elements
        .iter()
        .map(|segment| {
            let table_index = TableIndex::from_u32(segment.table);
            let elements = take(segment.length);
            let has_functions = info
                .tables
                .get(table_index)
                .is_some_and(|table| table.ty == Type::FuncRef);
            TableInitializer {
                table_index,
                offset_expr: expression(&segment.offset),
                // The elements of other tables are null, as they are without a segment. wasmer-vm panics
                // on null function references for them.
                elements: if has_functions {
                    elements
                } else {
                    Box::default()
                },
            }
        })
        .collect();
    info.passive_elements = module
        .passive_elements
        .iter()
        .map(|segment| (ElemIndex::from_u32(segment.segment), take(segment.length)))
        .collect::<HashMap<_, _>>();
    info
}

fn types(types: &[ValueType]) -> Vec<Type> {
    types.iter().copied().map(value_type).collect()
}

fn value_type(ty: ValueType) -> Type {
    match ty {
        ValueType::I32 => Type::I32,
        ValueType::I64 => Type::I64,
        ValueType::F32 => Type::F32,
        ValueType::F64 => Type::F64,
        ValueType::V128 => Type::V128,
        ValueType::FuncRef => Type::FuncRef,
        ValueType::ExternRef => Type::ExternRef,
        ValueType::ExnRef => Type::ExceptionRef,
    }
}

fn global_init(init: &GlobalInit) -> wasmer_types::GlobalInit {
    use wasmer_types::GlobalInit as Wasmer;
    match init {
        GlobalInit::I32Const(value) => Wasmer::I32Const(*value),
        GlobalInit::I64Const(value) => Wasmer::I64Const(*value),
        GlobalInit::F32Const(bits) => Wasmer::F32Const(f32::from_bits(*bits)),
        GlobalInit::F64Const(bits) => Wasmer::F64Const(f64::from_bits(*bits)),
        GlobalInit::V128Const(bytes) => Wasmer::V128Const(wasmer_types::V128::from(*bytes)),
        GlobalInit::GlobalGet(index) => Wasmer::GetGlobal(GlobalIndex::from_u32(*index)),
        GlobalInit::RefNull => Wasmer::RefNullConst,
        GlobalInit::RefFunc(index) => Wasmer::RefFunc(FunctionIndex::from_u32(*index)),
        GlobalInit::Expression(ops) => Wasmer::Expr(expression(ops)),
    }
}

fn expression(ops: &[ConstantOp]) -> InitExpr {
    let ops = ops.iter().map(|op| match op {
        ConstantOp::I32Const(value) => InitExprOp::I32Const(*value),
        ConstantOp::I64Const(value) => InitExprOp::I64Const(*value),
        ConstantOp::GlobalGetI32(index) => InitExprOp::GlobalGetI32(GlobalIndex::from_u32(*index)),
        ConstantOp::GlobalGetI64(index) => InitExprOp::GlobalGetI64(GlobalIndex::from_u32(*index)),
        ConstantOp::I32Add => InitExprOp::I32Add,
        ConstantOp::I32Sub => InitExprOp::I32Sub,
        ConstantOp::I32Mul => InitExprOp::I32Mul,
        ConstantOp::I64Add => InitExprOp::I64Add,
        ConstantOp::I64Sub => InitExprOp::I64Sub,
        ConstantOp::I64Mul => InitExprOp::I64Mul,
    });
    InitExpr::new(ops.collect::<Vec<_>>())
}
