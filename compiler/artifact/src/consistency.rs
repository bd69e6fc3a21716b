//! Whether the parts of a decoded artifact agree: ranges lie in the file, addresses in their
//! segments, indices in their arrays.
//!
//! Sums find damage; this finds what a writer got wrong, or someone made by hand, so that nothing
//! behind the reader needs to check again. Numbers are hostile here: arithmetic is checked. It does
//! not look at machine code, nor whether initial values have the types that they are for.

use crate::IMAGE_ALIGNMENT;
use crate::error::ReadError;
use crate::header::{Header, Range, Region};
use crate::module::{
    ConstantOp, Export, GlobalInit, ImportKind, LoadPlan, ModuleMetadata, Protection, Relocation,
};
use crate::tables::{NULL_FUNCTION, Tables};

/// Size of a page of WebAssembly memory.
const WASM_PAGE: u64 = 65536;
/// Pages of the largest memory.
const MAX_PAGES: u32 = 65536;
/// The smallest page of the hosts we target, in bytes.
const HOST_PAGE: u64 = 4096;

/// Checks everything that [`Artifact::parse`](crate::Artifact::parse) promises beyond checksums and
/// decoding. `size` is that of the file.
///
/// # Errors
///
/// [`ReadError::Inconsistent`] with the first thing that is wrong.
pub(crate) fn check(
    header: &Header,
    module: &ModuleMetadata,
    tables: &Tables<'_>,
    size: usize,
) -> Result<(), ReadError> {
    check_segments(&module.plan, size)
        .and_then(|()| check_addresses(&module.plan, tables))
        .and_then(|()| check_unwind(header, module))
        .and_then(|()| check_limits(module))
        .and_then(|()| check_image(module, size))
        .and_then(|()| check_indices(module, tables))
        .and_then(|()| check_values(module))
        .and_then(|()| check_ranges(module, size))
        .map_err(|what| ReadError::Inconsistent { what })
}

type Check = Result<(), &'static str>;

fn ensure(fine: bool, what: &'static str) -> Check {
    fine.then_some(()).ok_or(what)
}

fn check_segments(plan: &LoadPlan, size: usize) -> Check {
    let mut end = 0;
    for segment in &plan.segments {
        ensure(
            segment.bytes.within(size).is_some()
                && segment.memory_size >= segment.bytes.length
                && segment.address >= end,
            "a segment lies outside of the file or overlaps another",
        )?;
        ensure(
            segment.address % HOST_PAGE == segment.bytes.offset % HOST_PAGE,
            "a segment cannot be mapped: its address does not fit its place in the file",
        )?;
        end = segment
            .address
            .checked_add(segment.memory_size)
            .ok_or("a segment lies outside of the address space")?;
    }
    // Keeps every address below in range of `u32` and far from overflow.
    ensure(end <= u64::from(u32::MAX), "the code is larger than 4 GiB")
}

fn check_addresses(plan: &LoadPlan, tables: &Tables<'_>) -> Check {
    let lies_in = |address: u64, length: u64, protection: Protection| {
        plan.segments.iter().any(|segment| {
            segment.protection == protection
                && address >= segment.address
                && address
                    .checked_add(length)
                    .is_some_and(|end| end <= segment.address + segment.memory_size)
        })
    };
    let words_in_place = plan.relocations.iter().all(|relocation| {
        let (Relocation::Base { address, .. } | Relocation::Libcall { address, .. }) = relocation;
        lies_in(*address, 8, Protection::ReadWrite)
    });
    ensure(
        words_in_place,
        "a relocation lies outside of the writable segments",
    )?;
    ensure(
        lies_in(plan.code.offset, plan.code.length, Protection::ReadExecute),
        "the code lies outside of the executable segment",
    )?;
    // They lie in a segment, so below 4 GiB.
    let (start, length) = (plan.code.offset as u32, plan.code.length as u32);
    // What lies before the code wraps around to far behind it.
    let from_start = |address: u32| address.wrapping_sub(start);
    ensure(
        all_below(length, tables.code().map(from_start))
            && all_below(length, tables.trampolines().map(from_start)),
        "a function lies outside of the code",
    )?;
    ensure(
        plan.eh_frame
            .is_none_or(|frames| lies_in(frames.offset, frames.length, Protection::Read)),
        "the unwind information lies outside of the constants",
    )
}

/// Whether all of many numbers are below a limit. Without a way out of its loop this takes several numbers at a time,
/// which a check of each one would not, and with operations that every processor has for that: the oldest compare no
/// unsigned numbers.
fn all_below(limit: u32, mut numbers: impl Iterator<Item = u32>) -> bool {
    const HIGHEST_BIT: u32 = 1 << 31;
    if limit > HIGHEST_BIT {
        return numbers.all(|number| number < limit);
    }
    // Both numbers are without the highest bit (or the limit is just that), so that it tells who is larger.
    let both = numbers.fold(HIGHEST_BIT, |all, number| {
        all & !number & number.wrapping_sub(limit)
    });
    both == HIGHEST_BIT
}

/// Whoever can throw reads unwind information at run time, so it must be under the sum.
fn check_unwind(header: &Header, module: &ModuleMetadata) -> Check {
    let Some(frames) = module.plan.eh_frame.filter(|_| !module.tags.is_empty()) else {
        return Ok(());
    };
    let summed = header.region(Region::Unwind);
    // Addresses are below 4 GiB and ranges inside of the file, so that nothing overflows.
    let covered = module.plan.segments.iter().any(|segment| {
        frames.offset >= segment.address
            && frames.offset + frames.length <= segment.address + segment.bytes.length
            && segment.bytes.offset + (frames.offset - segment.address) >= summed.offset
            && segment.bytes.offset + (frames.offset - segment.address) + frames.length
                <= summed.offset + summed.length
    });
    ensure(covered, "the unwind information is not under the checksum")
}

fn check_limits(module: &ModuleMetadata) -> Check {
    let memories = module.memories.iter().all(|memory| {
        memory.minimum <= MAX_PAGES && memory.maximum.is_none_or(|most| most >= memory.minimum)
    });
    let tables = module
        .tables
        .iter()
        .all(|table| table.maximum.is_none_or(|most| most >= table.minimum));
    ensure(
        memories && tables,
        "the limits of a memory or a table contradict each other",
    )
}

fn check_image(module: &ModuleMetadata, size: usize) -> Check {
    let fits = module.image.iter().all(|run| {
        let memory = module.memories.get(run.memory as usize);
        let limit = memory.map_or(0, |memory| u64::from(memory.minimum) * WASM_PAGE);
        let aligned = [run.address, run.bytes.offset, run.bytes.length]
            .iter()
            .all(|number| number % IMAGE_ALIGNMENT == 0);
        let end = run.address.checked_add(run.bytes.length);
        aligned && end.is_some_and(|end| end <= limit) && run.bytes.within(size).is_some()
    });
    ensure(fits, "the memory image does not fit the memory or the file")
}

fn check_indices(module: &ModuleMetadata, tables: &Tables<'_>) -> Check {
    // `Tables::new` has added them before.
    let functions = module
        .imported_functions
        .checked_add(module.local_functions);
    let is_function = |index: u32| functions.is_some_and(|functions| index < functions);
    let types = u32::try_from(module.types.len()).unwrap_or(u32::MAX);
    let is_type = |index: u32| index < types;
    let is_table = |index: u32| (index as usize) < module.tables.len();
    let is_memory = |index: u32| (index as usize) < module.memories.len();
    let is_global = |index: u32| (index as usize) < module.globals.len();
    let is_tag = |index: u32| (index as usize) < module.tags.len();

    let imports = module.imports.iter();
    let imported = imports.filter(|import| matches!(import.kind, ImportKind::Function(_)));
    // By one more than the index, null wraps around to nothing.
    const { assert!(NULL_FUNCTION == u32::MAX) };
    let after_element = tables.elements().map(|index| index.wrapping_add(1));
    let fine = all_below(types, tables.signatures())
        && functions.is_some_and(|functions| all_below(functions.saturating_add(1), after_element))
        && module.start.is_none_or(is_function)
        && module
            .elements
            .iter()
            .all(|segment| is_table(segment.table))
        && module.tags.iter().copied().all(is_type)
        && imported.count() == module.imported_functions as usize
        && module.imports.iter().all(|import| match import.kind {
            ImportKind::Function(index) => is_type(index),
            ImportKind::Table(index) => is_table(index),
            ImportKind::Memory(index) => is_memory(index),
            ImportKind::Global(index) => is_global(index),
            ImportKind::Tag(index) => is_tag(index),
        })
        && module.exports.iter().all(|export| match export {
            Export::Function { index, .. } => is_function(*index),
            Export::Memory { index, .. } => is_memory(*index),
        })
        && module.globals.iter().all(|global| match global.init {
            Some(GlobalInit::RefFunc(index)) => is_function(index),
            _ => true,
        });
    ensure(fine, "an index points outside of its array")
}

/// Initial values: of globals from earlier globals only, of offsets from all.
fn check_values(module: &ModuleMetadata) -> Check {
    let mut globals = module.globals.iter().enumerate();
    let fine = globals.all(|(index, global)| match &global.init {
        Some(GlobalInit::GlobalGet(other)) => (*other as usize) < index,
        Some(GlobalInit::Expression(operators)) => gives_one_value(operators, index),
        _ => true,
    }) && module
        .elements
        .iter()
        .all(|segment| gives_one_value(&segment.offset, module.globals.len()));
    ensure(fine, "a constant expression cannot be computed")
}

/// Whether an expression leaves one value and refers to the first `globals` globals only.
fn gives_one_value(operators: &[ConstantOp], globals: usize) -> bool {
    let mut depth = 0_usize;
    for operator in operators {
        match operator {
            ConstantOp::I32Const(_) | ConstantOp::I64Const(_) => depth += 1,
            ConstantOp::GlobalGetI32(index) | ConstantOp::GlobalGetI64(index) => {
                if *index as usize >= globals {
                    return false;
                }
                depth += 1;
            }
            ConstantOp::I32Add
            | ConstantOp::I32Sub
            | ConstantOp::I32Mul
            | ConstantOp::I64Add
            | ConstantOp::I64Sub
            | ConstantOp::I64Mul => {
                if depth < 2 {
                    return false;
                }
                depth -= 1;
            }
        }
    }
    depth == 1
}

fn check_ranges(module: &ModuleMetadata, size: usize) -> Check {
    let data = module.passive_data.iter().map(|data| data.bytes);
    let fine = data
        .chain([module.names, module.traps, module.lines])
        .all(|bytes: Range| bytes.within(size).is_some());
    ensure(fine, "lazily read bytes lie outside of the file")
}

#[cfg(test)]
mod tests {
    use super::all_below;

    #[test]
    fn limits_are_compared_as_unsigned_numbers() {
        let edge = 1 << 31;
        let numbers = [0, 1, 2, edge - 1, edge, edge + 1, u32::MAX - 1, u32::MAX];
        for limit in numbers {
            assert!(all_below(limit, [].into_iter()), "{limit}");
            for number in numbers {
                let fine = number < limit;
                assert_eq!(
                    all_below(limit, [number].into_iter()),
                    fine,
                    "{number} {limit}"
                );
                assert_eq!(all_below(limit, [0, number].into_iter()), fine && limit > 0);
                assert_eq!(all_below(limit, [number, 0].into_iter()), fine && limit > 0);
            }
        }
    }
}
