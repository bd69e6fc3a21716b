//! What is written is read again, and lies where the format says.

use super::*;

#[test]
fn every_field_survives() {
    let file = artifact();
    let artifact = Artifact::parse(&file).expect("it is intact");
    let expected = Manifest {
        code_size: elf::CODE_SIZE,
        image_size: 4 * IMAGE_ALIGNMENT,
        ..manifest()
    };
    assert_eq!(artifact.manifest, expected);

    let found = artifact.module.clone();
    let placed = ModuleMetadata {
        plan: found.plan.clone(),
        passive_data: found.passive_data.clone(),
        image: found.image.clone(),
        names: found.names,
        traps: found.traps,
        lines: found.lines,
        ..module()
    };
    assert_eq!(found, placed);
    assert_eq!(artifact.file(), file);
    verify(&file).expect("both sums are right");

    let expected = tables();
    let tables = artifact.tables;
    assert_eq!(tables.code().collect::<Vec<_>>(), expected.code);
    assert_eq!(
        tables.trampolines().collect::<Vec<_>>(),
        expected.trampolines
    );
    assert_eq!(tables.signatures().collect::<Vec<_>>(), expected.signatures);
    assert_eq!(tables.elements().collect::<Vec<_>>(), expected.elements);
}

#[test]
fn load_plan_is_the_linkers() {
    let file = artifact();
    let plan = Artifact::parse(&file).expect("it is intact").module.plan;
    let segments: Vec<_> = plan
        .segments
        .iter()
        .map(|segment| (segment.address, segment.memory_size, segment.protection))
        .collect();
    assert_eq!(
        segments[1..],
        [
            (elf::CODE, elf::CODE_SIZE, Protection::ReadExecute),
            (elf::DATA, 32, Protection::ReadWrite),
        ]
    );
    assert_eq!(segments[0].2, Protection::Read);
    assert_eq!(plan.segments[2].bytes.length, 16);
    assert_eq!(
        plan.relocations,
        [
            Relocation::Libcall {
                address: elf::DATA,
                name: elf::LIBCALL.into(),
                addend: 2,
            },
            Relocation::Base {
                address: elf::DATA + 8,
                addend: elf::CODE as i64,
            },
        ]
    );
    assert_eq!(
        (plan.code.offset, plan.code.length),
        (elf::CODE, elf::CODE_SIZE)
    );
    assert_eq!(
        plan.eh_frame.map(|range| range.length),
        Some(elf::EH_FRAME_SIZE)
    );
}

#[test]
fn lazy_parts_are_found() {
    let file = artifact();
    let artifact = Artifact::parse(&file).expect("it is intact");
    let bytes = |range: Range| &file[range.within(file.len()).expect("it is inside")];
    let module = &artifact.module;
    assert_eq!(
        FunctionNames::decode(bytes(module.names)),
        contents(&[]).names
    );
    let lines = source_lines(bytes(module.lines), &[FUNCTION - 1, FUNCTION + 1]);
    assert_eq!(lines, [None, Some(source_line())]);
    let traps = bytes(module.traps);
    assert_eq!(trap_at(traps, FUNCTION + 1), Some(TrapCode::Unreachable));
    assert_eq!(
        trap_at(traps, FUNCTION + 5),
        Some(TrapCode::IntegerOverflow)
    );
    assert_eq!(trap_at(traps, FUNCTION), None);
    let data: Vec<_> = module
        .passive_data
        .iter()
        .map(|data| (data.segment, bytes(data.bytes)))
        .collect();
    assert_eq!(data, [(3, &b"passive"[..]), (5, b"data")]);
    let [first, second] = &module.image[..] else {
        panic!("{:?}", module.image);
    };
    assert_eq!(
        (first.memory, first.address, first.bytes.length),
        (0, 1 << 16, 1 << 16)
    );
    assert_eq!(
        (second.memory, second.address, second.bytes.length),
        (1, 0, 3 << 16)
    );
    assert!(bytes(first.bytes).starts_with(b"first\0"));
    assert!(bytes(second.bytes)[2 << 16..].starts_with(b"second\0"));
    for run in [first, second] {
        assert_eq!(run.bytes.offset % IMAGE_ALIGNMENT, 0);
    }
}

#[test]
fn tools_find_sections_and_symbols() {
    tools_find(&artifact());
    // With tables of a size that is no multiple of eight.
    let elf = elf::linked();
    let mut contents = contents(&elf);
    contents.variants[0].tables.elements.push(0);
    contents.variants[0].module.passive_elements[0].length += 1;
    tools_find(&write(contents).expect("it is as expected").to_bytes());
}

fn tools_find(file: &[u8]) {
    use object::{Object, ObjectSection, ObjectSymbol};
    let parsed = object::File::parse(file).expect("it is an ELF file");
    let names: Vec<_> = parsed
        .sections()
        .map(|section| section.name().expect("it has a name").to_owned())
        .collect();
    for name in [
        ".text",
        section::NAMES,
        section::LINES,
        section::TRAPS,
        section::DATA,
        section::IMAGE,
        section::MANIFEST,
        section::MODULE,
        section::TABLES,
        section::HEADER,
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    let symbols: Vec<_> = parsed
        .symbols()
        .map(|symbol| {
            (
                symbol.name().expect("it has a name").to_owned(),
                symbol.address(),
            )
        })
        .collect();
    assert_eq!(
        symbols,
        [
            ("trampoline[0]".into(), elf::CODE + 16),
            ("function[1]".into(), elf::CODE + 8)
        ]
    );
    // The code is where it was.
    let code = parsed.section_by_name(".text").expect("it is there");
    assert_eq!(
        code.data().expect("it is inside"),
        [0xc3; elf::CODE_SIZE as usize]
    );
}

#[test]
fn same_contents_give_the_same_bytes() {
    assert!(artifact() == artifact(), "the files differ");
}

#[test]
fn sparse_and_whole_files_are_equal() {
    let elf = elf::linked();
    let written = write(contents(&elf)).expect("it is as expected");
    let path = std::env::temp_dir().join(format!("faas-wasm-artifact-{}", std::process::id()));
    let file = std::fs::File::create(&path).expect("it can be created");
    let saved = written.save(&file);
    let bytes = std::fs::read(&path);
    std::fs::remove_file(&path).expect("it was created");
    saved.expect("it can be written");
    assert!(
        bytes.expect("it was written") == written.to_bytes(),
        "the files differ"
    );
}

#[test]
fn rejects_what_no_linker_of_ours_makes() {
    let report = |elf: &[u8]| write(contents(elf)).expect_err("it is wrong").to_string();
    for (elf, expected) in [
        (
            elf::linked_with([4, 5, 7], 1),
            "the linked object has a segment that is both writable and executable",
        ),
        (
            elf::linked_with([4, 4, 6], 1),
            "the linked object has no code",
        ),
        (
            elf::linked_with([4, 5, 6], 16),
            "the linked object has an unexpected relocation of type 16 at 0x2000",
        ),
    ] {
        assert_eq!(report(&elf), expected);
    }
    assert!(report(b"\x7fELF").starts_with("the linked object is not an ELF file as expected"));
}
