//! What the runner needs to know of a module to load and instantiate it.
//!
//! These are wire types: plain data, kept apart from the compiler's and the engine's own. Large
//! arrays of numbers are not here but in [`crate::Tables`], which is read without decoding.

use serde::{Deserialize, Serialize};

use crate::header::Range;

/// A type of a WebAssembly number or reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the specification's names")]
pub enum ValueType {
    I32,
    I64,
    F32,
    F64,
    V128,
    FuncRef,
    ExternRef,
    ExnRef,
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::V128 => "v128",
            Self::FuncRef => "funcref",
            Self::ExternRef => "externref",
            Self::ExnRef => "exnref",
        })
    }
}

/// A function type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FunctionType {
    /// Parameter types.
    pub params: Vec<ValueType>,
    /// Result types.
    pub results: Vec<ValueType>,
    /// The hash by which compiled code compares types at indirect calls.
    pub hash: u32,
}

/// A table type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableType {
    /// Type of the elements.
    pub element: ValueType,
    /// Initial number of elements.
    pub minimum: u32,
    /// Largest number of elements.
    pub maximum: Option<u32>,
    /// Whether the module never changes the table; compiled code then reads it in place.
    pub readonly: bool,
}

/// A memory type. Sizes are in pages of 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryType {
    /// Initial size.
    pub minimum: u32,
    /// Largest size.
    pub maximum: Option<u32>,
    /// Whether it may be shared between threads.
    pub shared: bool,
}

/// A global's type and, unless it is imported, its initial value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Global {
    /// Type of its value.
    pub value: ValueType,
    /// Whether it can change.
    pub mutable: bool,
    /// `None` for an imported global.
    pub init: Option<GlobalInit>,
}

/// Initial value of a global. Floats are kept as bits so that every NaN survives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the specification's names")]
pub enum GlobalInit {
    I32Const(i32),
    I64Const(i64),
    F32Const(u32),
    F64Const(u64),
    V128Const([u8; 16]),
    GlobalGet(u32),
    RefNull,
    RefFunc(u32),
    Expression(ConstantExpression),
}

/// A constant expression in postfix order.
pub type ConstantExpression = Vec<ConstantOp>;

/// One operator of a constant expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the specification's names")]
pub enum ConstantOp {
    I32Const(i32),
    I64Const(i64),
    GlobalGetI32(u32),
    GlobalGetI64(u32),
    I32Add,
    I32Sub,
    I32Mul,
    I64Add,
    I64Sub,
    I64Mul,
}

/// An import, in the order of the module's import section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleImport {
    /// Module name.
    pub module: String,
    /// Field name.
    pub field: String,
    /// What is imported.
    pub kind: ImportKind,
}

/// What an import is. Numbers are indices into the arrays of [`ModuleMetadata`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImportKind {
    /// A function of the type with this index.
    Function(u32),
    /// The table with this index.
    Table(u32),
    /// The memory with this index.
    Memory(u32),
    /// The global with this index.
    Global(u32),
    /// The tag with this index.
    Tag(u32),
}

/// An export that the runner may call or use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a name and an index")]
pub enum Export {
    Function { name: String, index: u32 },
    Memory { name: String, index: u32 },
}

/// An active element segment; its functions lie in [`crate::Tables`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementSegment {
    /// Index of the table.
    pub table: u32,
    /// First element to write.
    pub offset: ConstantExpression,
    /// Number of elements. They follow those of the segments before it.
    pub length: u32,
}

/// A passive element segment; its functions lie in [`crate::Tables`], behind all active ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassiveElements {
    /// Index of the segment.
    pub segment: u32,
    /// Number of elements.
    pub length: u32,
}

/// A passive data segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassiveData {
    /// Index of the segment.
    pub segment: u32,
    /// Its bytes in the file, in [`crate::section::DATA`].
    pub bytes: Range,
}

/// A run of the memory image: it is mapped private at `address` of the memory. Both offsets and the
/// length are multiples of [`crate::IMAGE_ALIGNMENT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRun {
    /// Index of the memory.
    pub memory: u32,
    /// First byte in the memory.
    pub address: u64,
    /// Bytes in the file, in [`crate::section::IMAGE`].
    pub bytes: Range,
}

/// Access to a mapped segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// Constants and tables.
    Read,
    /// Words that relocation changes.
    ReadWrite,
    /// Code.
    ReadExecute,
}

/// A segment to map, as in the ELF program headers. Addresses count from the load address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// First byte in the address space.
    pub address: u64,
    /// Bytes in the file. `bytes.offset` and `address` are equal modulo the page size.
    pub bytes: Range,
    /// Size in the address space; what lies behind the file's bytes is zero.
    pub memory_size: u64,
    /// Access.
    pub protection: Protection,
}

/// A word of eight bytes to fill in before the code runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a place and a value")]
pub enum Relocation {
    /// The address of a library call, plus `addend`.
    Libcall {
        address: u64,
        name: String,
        addend: i64,
    },
    /// The load address plus `addend`.
    Base { address: u64, addend: i64 },
}

/// How to bring the native code into the address space.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoadPlan {
    /// Segments in ascending order of their addresses.
    pub segments: Vec<Segment>,
    /// Words to fill in.
    pub relocations: Vec<Relocation>,
    /// Addresses of the code, trampolines included: offset is an address here.
    pub code: Range,
    /// Unwind information (`.eh_frame`) for backtraces: offset is an address here.
    pub eh_frame: Option<Range>,
}

/// Everything of a module but its code, names and data.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModuleMetadata {
    /// How to map the code.
    pub plan: LoadPlan,
    /// Function types.
    pub types: Vec<FunctionType>,
    /// Imports.
    pub imports: Vec<ModuleImport>,
    /// Number of imported functions.
    pub imported_functions: u32,
    /// Number of functions that the module defines.
    pub local_functions: u32,
    /// Exports that the runner can use: `_start`, `_initialize` and memories.
    pub exports: Vec<Export>,
    /// The function that runs at instantiation.
    pub start: Option<u32>,
    /// Tables, imported ones first.
    pub tables: Vec<TableType>,
    /// Memories, imported ones first.
    pub memories: Vec<MemoryType>,
    /// Globals, imported ones first.
    pub globals: Vec<Global>,
    /// Type index of each exception tag, imported ones first.
    pub tags: Vec<u32>,
    /// Active element segments.
    pub elements: Vec<ElementSegment>,
    /// Passive element segments.
    pub passive_elements: Vec<PassiveElements>,
    /// Passive data segments.
    pub passive_data: Vec<PassiveData>,
    /// The memory image.
    pub image: Vec<ImageRun>,
    /// Where [`FunctionNames`] lie in the file.
    pub names: Range,
    /// Where the trap table lies in the file, see [`crate::section::TRAPS`].
    pub traps: Range,
    /// Where source lines lie in the file, see [`crate::section::LINES`]; empty if there are none.
    pub lines: Range,
}

/// Why an instruction of compiled code traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the specification's names")]
#[repr(u8)]
pub enum TrapCode {
    StackOverflow = 0,
    MemoryOutOfBounds,
    UnalignedAtomic,
    TableOutOfBounds,
    IndirectCallToNull,
    BadSignature,
    IntegerOverflow,
    IntegerDivisionByZero,
    BadConversionToInteger,
    Unreachable,
    UncaughtException,
}

impl TrapCode {
    /// The code with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::StackOverflow,
            1 => Self::MemoryOutOfBounds,
            2 => Self::UnalignedAtomic,
            3 => Self::TableOutOfBounds,
            4 => Self::IndirectCallToNull,
            5 => Self::BadSignature,
            6 => Self::IntegerOverflow,
            7 => Self::IntegerDivisionByZero,
            8 => Self::BadConversionToInteger,
            9 => Self::Unreachable,
            10 => Self::UncaughtException,
            _ => return None,
        })
    }
}

/// Names and positions of functions, for backtraces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionNames {
    /// Function index (imported ones counted) and name, ascending.
    pub names: Vec<(u32, String)>,
    /// Offset of each defined function's body in the WebAssembly file. Functions that the build
    /// added come last and have none.
    pub offsets: Vec<u32>,
}

impl FunctionNames {
    /// Decodes the bytes at [`ModuleMetadata::names`], which are outside of the load set: damage
    /// there costs the names, nothing else.
    pub fn decode(bytes: &[u8]) -> Self {
        postcard::from_bytes(bytes).unwrap_or_default()
    }
}

/// Why the instruction at `address` traps, if the bytes at [`ModuleMetadata::traps`] say so.
pub fn trap_at(traps: &[u8], address: u32) -> Option<TrapCode> {
    let (entries, _) = traps.as_chunks::<8>();
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let index = entries
        .binary_search_by_key(&address, |entry| number(&entry[..4]))
        .ok()?;
    TrapCode::from_number(number(&entries[index][4..]))
}
