//! Files that no damage makes: their sums are right, their parts contradict each other.

use super::*;

type Change = fn(&mut Parts<'_>);

/// What the reader says about an artifact with a change that its sum includes.
fn complaint(file: &[u8], change: Change) -> String {
    match Artifact::parse(&forge(file, change)) {
        Err(ReadError::Inconsistent { what }) => what.into(),
        Err(other) => panic!("{other}"),
        Ok(_) => "accepted".into(),
    }
}

fn check(what: &str, changes: &[Change]) {
    let file = artifact();
    for (number, change) in changes.iter().enumerate() {
        assert_eq!(complaint(&file, *change), what, "change {number}");
    }
}

#[test]
fn unchanged_forgeries_are_accepted() {
    check("accepted", &[|_| {}]);
}

#[test]
fn rejects_segments_that_do_not_fit() {
    check(
        "a segment lies outside of the file or overlaps another",
        &[
            |parts| parts.module.plan.segments[0].bytes.offset = u64::MAX,
            |parts| parts.module.plan.segments[1].bytes.length = u64::MAX,
            |parts| parts.module.plan.segments[1].bytes.offset = 1 << 40,
            |parts| parts.module.plan.segments[1].address = 0,
            |parts| parts.module.plan.segments[0].memory_size = elf::CODE + 1,
            |parts| parts.module.plan.segments[2].memory_size = 15,
            |parts| parts.module.plan.segments.swap(0, 1),
        ],
    );
    check(
        "a segment cannot be mapped: its address does not fit its place in the file",
        &[|parts| parts.module.plan.segments[2].address += 8],
    );
    check(
        "a segment lies outside of the address space",
        &[|parts| {
            parts.module.plan.segments[2].memory_size = u64::MAX;
        }],
    );
    check(
        "the code is larger than 4 GiB",
        &[
            |parts| parts.module.plan.segments[2].memory_size = 1 << 32,
            |parts| parts.module.plan.segments[2].address = 1 << 32,
        ],
    );
}

#[test]
fn rejects_addresses_outside_of_their_segments() {
    use Relocation::{Base, Libcall};
    check(
        "a relocation lies outside of the writable segments",
        &[
            |parts| {
                parts.module.plan.relocations.push(Base {
                    address: elf::CODE,
                    addend: 0,
                });
            },
            |parts| {
                parts.module.plan.relocations.push(Base {
                    address: elf::DATA + 25,
                    addend: 0,
                });
            },
            |parts| {
                parts.module.plan.relocations.push(Libcall {
                    address: u64::MAX - 3,
                    name: "x".into(),
                    addend: i64::MAX,
                });
            },
        ],
    );
    check(
        "the code lies outside of the executable segment",
        &[
            |parts| parts.module.plan.code.offset = 0,
            |parts| parts.module.plan.code.offset = u64::MAX,
            |parts| parts.module.plan.code.length += 1,
            |parts| parts.module.plan.code.length = u64::MAX,
            |parts| {
                parts.module.plan.segments.remove(1);
            },
        ],
    );
    check(
        "a function lies outside of the code",
        &[
            |parts| parts.tables.code[0] = 0,
            |parts| parts.tables.code[1] = (elf::CODE + elf::CODE_SIZE) as u32,
            |parts| parts.tables.trampolines[1] = u32::MAX,
            |parts| parts.module.plan.code.length = 0,
        ],
    );
    check(
        "the unwind information lies outside of the constants",
        &[
            |parts| {
                parts.module.plan.eh_frame = Some(Range {
                    offset: elf::CODE,
                    length: 4,
                });
            },
            |parts| {
                parts.module.plan.eh_frame = Some(Range {
                    offset: 8,
                    length: u64::MAX,
                });
            },
        ],
    );
}

#[test]
fn rejects_unwind_information_that_is_not_summed() {
    check(
        "the unwind information is not under the checksum",
        &[
            |parts| {
                parts.module.plan.eh_frame = Some(Range {
                    offset: 0,
                    length: 4,
                });
            },
            |parts| {
                let frames = parts.module.plan.eh_frame.as_mut().expect("there is some");
                frames.offset -= 1;
                frames.length += 1;
            },
        ],
    );
    // What cannot throw never reads it.
    check(
        "accepted",
        &[|parts| {
            parts.module.tags.clear();
            parts.module.imports.pop();
            parts.module.plan.eh_frame = Some(Range {
                offset: 0,
                length: 4,
            });
        }],
    );
}

#[test]
fn rejects_images_that_cannot_be_mapped() {
    check(
        "the memory image does not fit the memory or the file",
        &[
            |parts| parts.module.image[0].address = 1,
            |parts| parts.module.image[0].address = 4096,
            |parts| parts.module.image[0].bytes.offset += 4096,
            |parts| parts.module.image[0].bytes.length -= 1,
            |parts| parts.module.image[0].bytes.offset = 1 << 32,
            |parts| parts.module.image[0].address = 2 << 16,
            |parts| parts.module.image[0].address = u64::MAX << 16,
            |parts| parts.module.image[0].memory = 2,
            |parts| parts.module.memories[0].minimum = 1,
        ],
    );
}

#[test]
fn rejects_limits_that_contradict_each_other() {
    check(
        "the limits of a memory or a table contradict each other",
        &[
            |parts| parts.module.memories[0].maximum = Some(1),
            |parts| parts.module.memories[1].minimum = 65537,
            |parts| parts.module.tables[0].maximum = Some(3),
        ],
    );
}

#[test]
fn rejects_indices_outside_of_their_arrays() {
    check(
        "an index points outside of its array",
        &[
            |parts| parts.tables.signatures[0] = 2,
            |parts| parts.tables.elements[0] = 3,
            |parts| parts.module.start = Some(3),
            |parts| parts.module.elements[0].table = 2,
            |parts| parts.module.tags[0] = 2,
            |parts| {
                parts.module.imports.pop();
                parts.module.imports.remove(0);
            },
            |parts| parts.module.imports[0].kind = ImportKind::Function(2),
            |parts| parts.module.imports[1].kind = ImportKind::Table(2),
            |parts| parts.module.imports[2].kind = ImportKind::Global(10),
            |parts| parts.module.imports[3].kind = ImportKind::Memory(2),
            |parts| parts.module.imports[4].kind = ImportKind::Tag(1),
            |parts| {
                parts.module.exports[0] = Export::Function {
                    name: "_start".into(),
                    index: 3,
                };
            },
            |parts| {
                parts.module.exports[1] = Export::Memory {
                    name: "memory".into(),
                    index: 2,
                };
            },
            |parts| parts.module.globals[8].init = Some(GlobalInit::RefFunc(3)),
        ],
    );
}

#[test]
fn rejects_constant_expressions_that_cannot_be_computed() {
    check(
        "a constant expression cannot be computed",
        &[
            |parts| parts.module.globals[6].init = Some(GlobalInit::GlobalGet(6)),
            |parts| parts.module.globals[6].init = Some(GlobalInit::GlobalGet(u32::MAX)),
            |parts| parts.module.globals[9].init = Some(GlobalInit::Expression(vec![])),
            |parts| {
                parts.module.globals[9].init =
                    Some(GlobalInit::Expression(vec![ConstantOp::GlobalGetI64(9)]));
            },
            |parts| parts.module.elements[0].offset = vec![ConstantOp::I32Const(1); 2],
            |parts| parts.module.elements[0].offset = vec![ConstantOp::I32Sub],
            |parts| parts.module.elements[0].offset[0] = ConstantOp::GlobalGetI32(10),
        ],
    );
}

#[test]
fn rejects_counts_that_are_not_those_of_the_tables() {
    check(
        "the tables have another size than the module says",
        &[
            |parts| parts.module.local_functions = u32::MAX,
            |parts| {
                parts.module.imported_functions = u32::MAX;
                parts.module.local_functions = u32::MAX;
            },
            |parts| parts.module.imported_functions = 2,
            |parts| parts.module.types.truncate(1),
            |parts| parts.module.elements[0].length = u32::MAX,
            |parts| parts.module.passive_elements[0].length = 0,
            |parts| parts.tables.elements.push(0),
        ],
    );
}

#[test]
fn rejects_lazy_parts_outside_of_the_file() {
    check(
        "lazily read bytes lie outside of the file",
        &[
            |parts| parts.module.names.offset = u64::MAX,
            |parts| parts.module.traps.length = u64::MAX,
            |parts| parts.module.lines.offset = 1 << 40,
            |parts| parts.module.passive_data[1].bytes.offset = 1 << 40,
        ],
    );
}
