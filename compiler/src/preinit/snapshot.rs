//! The module as it is after its initializer: other data, other initial values, the same code.
//!
//! Code, types, names and debug information stay byte for byte, so that offsets into them stay
//! right. Segments keep their numbers: an active one has been applied, and becomes an empty passive
//! one, which is what it is to `memory.init` and `data.drop` after instantiation. The start function
//! has run and is gone.

use wasm_encoder::reencode::{Reencode as _, RoundtripReencoder};
use wasm_encoder::{
    ConstExpr, DataCountSection, DataSection, ExportKind, ExportSection, GlobalSection, GlobalType,
    MemorySection, MemoryType, RawSection, SectionId, ValType,
};
use wasmparser::DataKind;

use super::RESUME;
use super::recorder::{Dump, mutable_globals};
use crate::entry::{INITIALIZE, START, exports_but};
use crate::module::Module;

/// Zeros between two segments that are worth another segment.
const GAP: usize = 1024;

/// The module with this state.
pub(super) fn apply(module: &Module<'_>, dump: &Dump) -> Vec<u8> {
    let segments = segments(&dump.memory);
    let kept = if module.has_data_count {
        module.data.len()
    } else {
        // Nothing can refer to them.
        0
    };
    let count = (kept + segments.len()) as u32;
    let mut data = DataSection::new();
    for segment in &module.data[..kept] {
        match segment.kind {
            DataKind::Passive => data.passive(segment.data.iter().copied()),
            DataKind::Active { .. } => data.passive([]),
        };
    }
    for (offset, bytes) in segments {
        // Below 4 GiB, as all of the memory is.
        let offset = ConstExpr::i32_const(offset as u32 as i32);
        data.active(0, &offset, bytes.iter().copied());
    }

    let mut out = wasm_encoder::Module::new();
    let mut data_due = true;
    for (id, content) in module.all_sections() {
        if id == SectionId::Memory as u8 {
            out.section(&memories(module, dump.pages));
        } else if id == SectionId::Global as u8 {
            out.section(&globals(module, dump));
        } else if id == SectionId::Export as u8 {
            out.section(&exports(module));
        } else if id == SectionId::Start as u8 {
        } else if id == SectionId::DataCount as u8 {
            out.section(&DataCountSection { count });
        } else if id == SectionId::Data as u8 {
            out.section(&data);
            data_due = false;
        } else {
            out.section(&RawSection { id, data: content });
            if id == SectionId::Code as u8 && !has_data(module) {
                out.section(&data);
                data_due = false;
            }
        }
    }
    if data_due {
        out.section(&data);
    }
    out.finish()
}

fn has_data(module: &Module<'_>) -> bool {
    let data = SectionId::Data as u8;
    module.sections.iter().any(|(id, _)| *id == data)
}

fn memories(module: &Module<'_>, pages: u64) -> MemorySection {
    let mut memories = MemorySection::new();
    for memory in &module.memories {
        memories.memory(MemoryType {
            minimum: pages,
            maximum: memory.maximum,
            memory64: memory.memory64,
            shared: memory.shared,
            page_size_log2: memory.page_size_log2,
        });
    }
    memories
}

fn globals(module: &Module<'_>, dump: &Dump) -> GlobalSection {
    let mut section = GlobalSection::new();
    let values: std::collections::BTreeMap<_, _> = mutable_globals(module)
        .into_iter()
        .map(|(index, _)| index)
        .zip(dump.globals.iter().copied())
        .collect();
    for (index, global) in (0..).zip(module.globals.iter().flatten()) {
        let initial = match values.get(&index) {
            Some(value) => constant(global.ty.content_type, *value),
            None => RoundtripReencoder.const_expr(global.init_expr.clone()).ok(),
        };
        let ty = RoundtripReencoder.global_type(global.ty).ok();
        // A valid module's types and expressions can be encoded again.
        let ty = ty.unwrap_or(GlobalType {
            val_type: ValType::I32,
            mutable: false,
            shared: false,
        });
        section.global(ty, &initial.unwrap_or_else(ConstExpr::empty));
    }
    section
}

/// The constant with these bits; nothing for references, which have been refused.
fn constant(ty: wasmparser::ValType, bits: u128) -> Option<ConstExpr> {
    Some(match ty {
        wasmparser::ValType::I32 => ConstExpr::i32_const(bits as u32 as i32),
        wasmparser::ValType::I64 => ConstExpr::i64_const(bits as u64 as i64),
        wasmparser::ValType::F32 => ConstExpr::f32_const(wasm_encoder::Ieee32::new(bits as u32)),
        wasmparser::ValType::F64 => ConstExpr::f64_const(wasm_encoder::Ieee64::new(bits as u64)),
        wasmparser::ValType::V128 => ConstExpr::v128_const(bits as i128),
        wasmparser::ValType::Ref(_) => return None,
    })
}

/// What resumes becomes what a request runs. A reactor's start has been called.
fn exports(module: &Module<'_>) -> ExportSection {
    let mut exports = module.exports.iter();
    match exports.find(|(name, ..)| *name == RESUME) {
        Some((_, _, resume)) => {
            let mut exports = exports_but(module, &[INITIALIZE, START, RESUME]);
            exports.export(START, ExportKind::Func, *resume);
            exports
        }
        None => exports_but(module, &[INITIALIZE]),
    }
}

/// The parts of memory that are not zero, split at long runs of zeros.
fn segments(memory: &[u8]) -> Vec<(usize, &[u8])> {
    let mut segments = Vec::new();
    let mut at = 0;
    while let Some(start) = first(memory, at, |byte| byte != 0) {
        let mut end = start;
        // The end is behind the last byte that is not zero before a long run of zeros.
        loop {
            let zeros = first(memory, end, |byte| byte == 0).unwrap_or(memory.len());
            let next = first(memory, zeros, |byte| byte != 0);
            match next {
                Some(next) if next - zeros < GAP => end = next,
                _ => {
                    end = zeros;
                    break;
                }
            }
        }
        segments.push((start, &memory[start..end]));
        at = end;
    }
    segments
}

fn first(memory: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let found = memory[from..].iter().position(|byte| wanted(*byte));
    found.map(|place| from + place)
}
