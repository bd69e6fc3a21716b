use object::elf;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::*;
use crate::backend::object::{Kind, Relocation, Section, Target};

fn section(kind: Kind, bytes: &[u8], relocations: Vec<Relocation>) -> Section {
    Section {
        kind,
        alignment: 16,
        bytes: bytes.to_vec(),
        relocations,
        shared: None,
        debug: None,
    }
}

fn relocation(offset: u32, kind: elf::RelocationType, target: Target) -> Relocation {
    Relocation {
        offset,
        kind: kind.0,
        addend: -4,
        target,
    }
}

fn unit(sections: Vec<Section>) -> Unit {
    Unit {
        sections,
        traps: Vec::new(),
    }
}

/// `call`s the first callee and a library call, and loads a constant.
fn caller() -> Unit {
    let constant = Target::Section {
        index: 1,
        offset: 0,
    };
    let symbol = Target::Symbol("wasmer_vm_f".into());
    let code = section(
        Kind::Code,
        &[0x90; 24],
        vec![
            relocation(1, elf::R_X86_64_PLT32, Target::Callee(0)),
            relocation(8, elf::R_X86_64_PLT32, symbol.clone()),
            relocation(12, elf::R_X86_64_PC32, constant),
            relocation(16, elf::R_X86_64_GOTPCRELX, symbol),
        ],
    );
    unit(vec![
        code,
        section(Kind::Constants, b"sixteen bytes...", vec![]),
    ])
}

fn program<'a>(functions: &'a [Unit], callees: &'a [Vec<u32>]) -> Program<'a> {
    Program {
        machine: elf::EM_X86_64,
        functions,
        callees,
        trampolines: vec![&functions[0]],
    }
}

/// The address that the four bytes at `place` lead to.
fn follow(file: &[u8], place: u64) -> u64 {
    let bytes = &file[place as usize..place as usize + 4];
    let distance = i32::from_le_bytes(bytes.try_into().expect("four bytes"));
    (place + 4).wrapping_add_signed(i64::from(distance))
}

#[test]
fn calls_constants_and_library_calls_arrive() {
    let functions = [caller(), caller()];
    let callees = [vec![1], vec![1], vec![0]];
    let file = link(&program(&functions, &callees)).expect("it can be linked");
    let parsed = object::File::parse(&*file).expect("it is ELF");
    let symbols: Vec<_> = parsed
        .symbols()
        .map(|symbol| (symbol.name().expect("a name").to_owned(), symbol.address()))
        .collect();
    let names: Vec<_> = symbols.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["f0", "f1", "t0"]);
    let (first, second) = (symbols[0].1, symbols[1].1);
    assert_eq!(follow(&file, first + 1), second);
    assert_eq!(follow(&file, second + 1), second);

    // Both use one constant.
    let constants = parsed.section_by_name(".rodata").expect("it is there");
    assert_eq!(constants.data().expect("bytes"), b"sixteen bytes...");
    for function in [first, second] {
        assert_eq!(follow(&file, function + 12), constants.address());
    }

    // The stub jumps to what the only word holds, which is the library call's.
    let words: Vec<_> = parsed.dynamic_relocations().expect("there are").collect();
    assert_eq!(words.len(), 1);
    let word = words[0].0;
    assert_eq!(follow(&file, first + 16), word);
    let stub = follow(&file, first + 8);
    assert_eq!(file[stub as usize..stub as usize + 2], [0xff, 0x25]);
    assert_eq!(follow(&file, stub + 2), word);
    assert_eq!(parsed.dynamic_symbols().count(), 1);
}

#[test]
fn words_with_addresses_are_shared_by_name() {
    let mut data = section(
        Kind::Data,
        &[0; 8],
        vec![Relocation {
            addend: 0,
            ..relocation(0, elf::R_X86_64_64, Target::Symbol("personality".into()))
        }],
    );
    data.shared = Some("DW.ref.personality".into());
    let functions = [0, 1].map(|_| unit(vec![section(Kind::Code, &[0x90], vec![]), data.clone()]));
    let callees = [vec![], vec![], vec![]];
    let file = link(&program(&functions, &callees)).expect("it can be linked");
    let parsed = object::File::parse(&*file).expect("it is ELF");
    let data = parsed.section_by_name(".data.rel.ro").expect("it is there");
    assert_eq!(data.size(), 8);
    // One for the section, one that a stub would use.
    assert_eq!(parsed.dynamic_relocations().expect("there are").count(), 2);
}

#[test]
fn what_is_not_understood_is_refused() {
    for (kind, target, expected) in [
        (elf::R_X86_64_TLSGD, Target::Callee(0), "unknown kind"),
        (elf::R_X86_64_PLT32, Target::Callee(7), "not there"),
        (elf::R_X86_64_GOTPCREL, Target::Callee(0), "not there"),
        (elf::R_X86_64_64, Target::Callee(0), "unknown kind"),
    ] {
        let code = section(Kind::Code, &[0; 8], vec![relocation(0, kind, target)]);
        let functions = [unit(vec![code])];
        let error = link(&program(&functions, &[vec![0], vec![0]])).expect_err("it is wrong");
        assert!(error.to_string().contains(expected), "{kind:?}: {error}");
    }
}
