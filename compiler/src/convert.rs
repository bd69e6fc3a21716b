//! From what a backend made to the parts of an artifact.
//!
//! wasmer's description of a module and the metadata sections of its ELF file become our own wire
//! types; nothing of wasmer's formats reaches the artifact.

use faas_wasm_artifact::{
    ConstantExpression, ConstantOp, ElementSegment, Export, FunctionType, Global, GlobalInit,
    ImportKind, MemoryType, ModuleImport, ModuleMetadata, PassiveElements, TableType,
    TablesBuilder, TrapCode, ValueType,
};
use object::LittleEndian;
use object::elf::{FileHeader64, SHF_ALLOC, SHF_EXECINSTR};
use object::read::elf::{FileHeader as _, SectionHeader as _, SectionTable};
use wasmer_types::entity::packed_option::ReservedValue as _;
use wasmer_types::{
    ExportIndex, FunctionIndex, ImportIndex, InitExpr, InitExprOp, ModuleInfo, Mutability, Type,
};

use crate::backend::Compiled;
use crate::entry::{INITIALIZE, START};
use crate::error::BackendOutput;

/// Exported functions that the runner may call.
const RUNNER_EXPORTS: [&str; 2] = [START, INITIALIZE];
/// The element that stands for `ref.null`, as in the artifact's tables.
const NULL_FUNCTION: u32 = u32::MAX;

/// Addresses of functions and trampolines: eight bytes each, not loaded. wasmer writes them.
const FUNCTION_OFFSETS: &str = ".w.fn_offsets";
/// Address of each function's list of traps, in the same form.
const TRAP_LISTS: &str = ".w.trap_fnoffs";
/// The lists: a count, then offset and code of each trap, four bytes each.
const TRAPS: &str = ".w.traps";

/// The parts of an artifact that come from the backend.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) module: ModuleMetadata,
    pub(crate) tables: TablesBuilder,
    pub(crate) traps: Vec<(u32, TrapCode)>,
    /// Size of the machine code in bytes.
    pub(crate) code_size: u64,
}

/// Converts a backend's output.
///
/// # Errors
///
/// [`BackendOutput`] if it is not as we expect; that would be a bug, not a property of the input.
pub(crate) fn convert(compiled: &Compiled) -> Result<Parts, BackendOutput> {
    let info = &compiled.module;
    let elf = Elf::parse(&compiled.elf)?;
    let functions = info.functions.len() - info.num_imported_functions;
    let (code, trampolines) = addresses(&elf, functions, info.signatures.len())?;
    let traps = traps(&elf, &code)?;
    let passive = passive_elements(info);
    let active = info
        .table_initializers
        .iter()
        .map(|segment| &*segment.elements);
    let elements = active
        .chain(passive.iter().map(|(_, elements)| *elements))
        .flatten()
        .map(|function| element(*function))
        .collect();
    Ok(Parts {
        module: metadata(info, &passive),
        tables: TablesBuilder {
            code,
            trampolines,
            signatures: info.functions.values().map(|ty| ty.as_u32()).collect(),
            elements,
        },
        traps,
        code_size: elf.code_size(),
    })
}

/// Passive element segments by ascending index, so that the output does not depend on a hash.
fn passive_elements(info: &ModuleInfo) -> Vec<(u32, &[FunctionIndex])> {
    let segments = info.passive_elements.iter();
    let mut segments: Vec<_> = segments
        .map(|(index, elements)| (index.as_u32(), &**elements))
        .collect();
    segments.sort_unstable_by_key(|(index, _)| *index);
    segments
}

fn element(function: FunctionIndex) -> u32 {
    // The reserved index of wasmer's entity maps is the null reference.
    if function == FunctionIndex::reserved_value() {
        NULL_FUNCTION
    } else {
        function.as_u32()
    }
}

fn metadata(info: &ModuleInfo, passive: &[(u32, &[FunctionIndex])]) -> ModuleMetadata {
    ModuleMetadata {
        types: info
            .signatures
            .values()
            .zip(info.signature_hashes.values())
            .map(|(ty, hash)| FunctionType {
                params: ty.params().iter().copied().map(value_type).collect(),
                results: ty.results().iter().copied().map(value_type).collect(),
                hash: hash.0,
            })
            .collect(),
        imports: imports(info),
        imported_functions: info.num_imported_functions as u32,
        local_functions: (info.functions.len() - info.num_imported_functions) as u32,
        exports: exports(info),
        start: info.start_function.map(|function| function.as_u32()),
        tables: info
            .tables
            .values()
            .map(|table| TableType {
                element: value_type(table.ty),
                minimum: table.minimum,
                maximum: table.maximum,
                readonly: table.readonly,
            })
            .collect(),
        memories: info
            .memories
            .values()
            .map(|memory| MemoryType {
                minimum: memory.minimum.0,
                maximum: memory.maximum.map(|pages| pages.0),
                shared: memory.shared,
            })
            .collect(),
        globals: globals(info),
        tags: info.tags.values().map(|ty| ty.as_u32()).collect(),
        elements: info
            .table_initializers
            .iter()
            .map(|segment| ElementSegment {
                table: segment.table_index.as_u32(),
                offset: expression(&segment.offset_expr),
                length: segment.elements.len() as u32,
            })
            .collect(),
        passive_elements: passive
            .iter()
            .map(|(segment, elements)| PassiveElements {
                segment: *segment,
                length: elements.len() as u32,
            })
            .collect(),
        ..ModuleMetadata::default()
    }
}

fn imports(info: &ModuleInfo) -> Vec<ModuleImport> {
    let imports = info.imports.iter();
    imports
        .map(|(key, index)| ModuleImport {
            module: key.module.clone(),
            field: key.field.clone(),
            kind: match index {
                ImportIndex::Function(index) => {
                    ImportKind::Function(info.functions[*index].as_u32())
                }
                ImportIndex::Table(index) => ImportKind::Table(index.as_u32()),
                ImportIndex::Memory(index) => ImportKind::Memory(index.as_u32()),
                ImportIndex::Global(index) => ImportKind::Global(index.as_u32()),
                ImportIndex::Tag(index) => ImportKind::Tag(index.as_u32()),
            },
        })
        .collect()
}

fn exports(info: &ModuleInfo) -> Vec<Export> {
    let exports = info.exports.iter();
    exports
        .filter_map(|(name, index)| match index {
            ExportIndex::Function(index) if RUNNER_EXPORTS.contains(&name.as_str()) => {
                Some(Export::Function {
                    name: name.clone(),
                    index: index.as_u32(),
                })
            }
            ExportIndex::Memory(index) => Some(Export::Memory {
                name: name.clone(),
                index: index.as_u32(),
            }),
            _ => None,
        })
        .collect()
}

fn globals(info: &ModuleInfo) -> Vec<Global> {
    let imported = std::iter::repeat_n(None, info.num_imported_globals);
    let defined = info.global_initializers.values().map(Some);
    info.globals
        .values()
        .zip(imported.chain(defined))
        .map(|(ty, init)| Global {
            value: value_type(ty.ty),
            mutable: ty.mutability == Mutability::Var,
            init: init.map(global_init),
        })
        .collect()
}

fn global_init(init: &wasmer_types::GlobalInit) -> GlobalInit {
    use wasmer_types::GlobalInit as Init;
    match init {
        Init::I32Const(value) => GlobalInit::I32Const(*value),
        Init::I64Const(value) => GlobalInit::I64Const(*value),
        Init::F32Const(value) => GlobalInit::F32Const(value.to_bits()),
        Init::F64Const(value) => GlobalInit::F64Const(value.to_bits()),
        Init::V128Const(value) => GlobalInit::V128Const(*value.bytes()),
        Init::GetGlobal(index) => GlobalInit::GlobalGet(index.as_u32()),
        Init::RefNullConst => GlobalInit::RefNull,
        Init::RefFunc(index) => GlobalInit::RefFunc(index.as_u32()),
        Init::Expr(init) => GlobalInit::Expression(expression(init)),
    }
}

fn expression(init: &InitExpr) -> ConstantExpression {
    let operators = init.ops().iter();
    operators
        .map(|operator| match operator {
            InitExprOp::GlobalGetI32(index) => ConstantOp::GlobalGetI32(index.as_u32()),
            InitExprOp::GlobalGetI64(index) => ConstantOp::GlobalGetI64(index.as_u32()),
            InitExprOp::I32Const(value) => ConstantOp::I32Const(*value),
            InitExprOp::I32Add => ConstantOp::I32Add,
            InitExprOp::I32Sub => ConstantOp::I32Sub,
            InitExprOp::I32Mul => ConstantOp::I32Mul,
            InitExprOp::I64Const(value) => ConstantOp::I64Const(*value),
            InitExprOp::I64Add => ConstantOp::I64Add,
            InitExprOp::I64Sub => ConstantOp::I64Sub,
            InitExprOp::I64Mul => ConstantOp::I64Mul,
        })
        .collect()
}

fn value_type(ty: Type) -> ValueType {
    match ty {
        Type::I32 => ValueType::I32,
        Type::I64 => ValueType::I64,
        Type::F32 => ValueType::F32,
        Type::F64 => ValueType::F64,
        Type::V128 => ValueType::V128,
        Type::FuncRef => ValueType::FuncRef,
        Type::ExternRef => ValueType::ExternRef,
        Type::ExceptionRef => ValueType::ExnRef,
    }
}

/// The linked file, as far as it is read here.
struct Elf<'a> {
    bytes: &'a [u8],
    sections: SectionTable<'a, FileHeader64<LittleEndian>>,
}

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, BackendOutput> {
        let header = FileHeader64::<LittleEndian>::parse(bytes)?;
        let sections = header.sections(LittleEndian, bytes)?;
        Ok(Self { bytes, sections })
    }

    /// Address and content of a section, if it is there.
    fn section(&self, name: &'static str) -> Result<Option<(u64, &'a [u8])>, BackendOutput> {
        let found = self.sections.section_by_name(LittleEndian, name.as_bytes());
        let Some((_, section)) = found else {
            return Ok(None);
        };
        let content = section.data(LittleEndian, self.bytes)?;
        Ok(Some((section.sh_addr(LittleEndian), content)))
    }

    /// A section of addresses.
    fn addresses(&self, name: &'static str) -> Result<Vec<u64>, BackendOutput> {
        let (_, content) = self
            .section(name)?
            .ok_or(BackendOutput::MissingSection(name))?;
        let (words, _) = content.as_chunks::<8>();
        Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    fn code_size(&self) -> u64 {
        let code = (SHF_ALLOC | SHF_EXECINSTR).0;
        let sections = self.sections.iter();
        sections
            .filter(|section| section.sh_flags(LittleEndian).0 & code == code)
            .map(|section| section.sh_size(LittleEndian))
            .sum()
    }
}

/// Addresses of the defined functions and of the call trampolines. The file lists trampolines for
/// calls from outside of WebAssembly into imports behind them; nothing of ours uses those.
fn addresses(
    elf: &Elf<'_>,
    functions: usize,
    types: usize,
) -> Result<(Vec<u32>, Vec<u32>), BackendOutput> {
    let all = elf.addresses(FUNCTION_OFFSETS)?;
    let wanted = all
        .get(..functions + types)
        .ok_or(BackendOutput::EntryCount {
            section: FUNCTION_OFFSETS,
            expected: functions + types,
            found: all.len(),
        })?;
    let mut code = wanted
        .iter()
        .map(|address| u32::try_from(*address).map_err(|_| BackendOutput::Address(*address)))
        .collect::<Result<Vec<_>, _>>()?;
    let trampolines = code.split_off(functions);
    Ok((code, trampolines))
}

/// Instructions that trap, ascending. LLVM's code calls the engine to trap and has none.
fn traps(elf: &Elf<'_>, code: &[u32]) -> Result<Vec<(u32, TrapCode)>, BackendOutput> {
    let Some((start, content)) = elf.section(TRAPS)? else {
        return Ok(Vec::new());
    };
    let lists = elf.addresses(TRAP_LISTS)?;
    if lists.len() != code.len() {
        return Err(BackendOutput::EntryCount {
            section: TRAP_LISTS,
            expected: code.len(),
            found: lists.len(),
        });
    }
    let mut traps = Vec::new();
    for (function, (list, body)) in lists.iter().zip(code).enumerate() {
        let damaged = || BackendOutput::TrapTable(function);
        let records = list
            .checked_sub(start)
            .and_then(|offset| trap_records(content, offset))
            .ok_or_else(damaged)?;
        for [offset, number] in records {
            let address = body.checked_add(offset).ok_or_else(damaged)?;
            traps.push((address, trap_code(number)?));
        }
    }
    traps.sort_unstable_by_key(|(address, _)| *address);
    Ok(traps)
}

fn trap_records(content: &[u8], offset: u64) -> Option<impl Iterator<Item = [u32; 2]>> {
    let list = content.get(usize::try_from(offset).ok()?..)?;
    let (count, records) = list.split_first_chunk::<4>()?;
    let size = (u32::from_le_bytes(*count) as usize).checked_mul(8)?;
    let (records, _) = records.get(..size)?.as_chunks::<8>();
    Some(records.iter().map(|record| {
        let [a, b, c, d, e, f, g, h] = *record;
        [
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        ]
    }))
}

/// The numbers are `wasmer_types::TrapCode`'s.
fn trap_code(number: u32) -> Result<TrapCode, BackendOutput> {
    Ok(match number {
        0 => TrapCode::StackOverflow,
        1 => TrapCode::MemoryOutOfBounds,
        2 | 10 => TrapCode::UnalignedAtomic,
        3 | 15 => TrapCode::TableOutOfBounds,
        4 => TrapCode::IndirectCallToNull,
        5 => TrapCode::BadSignature,
        6 => TrapCode::IntegerOverflow,
        7 => TrapCode::IntegerDivisionByZero,
        8 => TrapCode::BadConversionToInteger,
        9 => TrapCode::Unreachable,
        11 => TrapCode::UncaughtException,
        unknown => return Err(BackendOutput::TrapCode(unknown)),
    })
}
