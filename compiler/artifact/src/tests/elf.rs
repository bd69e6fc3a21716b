//! A tiny linked shared object, byte by byte: what a linker makes of two functions.
//!
//! ```text
//! 0x0000  read          ELF header, program headers, dynamic symbols, relocations, .eh_frame
//! 0x1000  read execute  .text, 64 bytes
//! 0x2000  read write    .data, 16 bytes in the file, 32 in memory
//!         not loaded    .symtab, .strtab, .shstrtab, section headers
//! ```

pub(super) const CODE: u64 = 0x1000;
pub(super) const CODE_SIZE: u64 = 64;
pub(super) const DATA: u64 = 0x2000;
pub(super) const LIBCALL: &str = "memory_grow";
pub(super) const EH_FRAME_SIZE: u64 = 4;

const PT_LOAD: u32 = 1;
const R: u32 = 4;
const W: u32 = 2;
const X: u32 = 1;
const SHF_WRITE: u64 = 1;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;

/// Relocation types of x86-64: symbol plus addend, load address plus addend.
const ABSOLUTE: u64 = 1;
const RELATIVE: u64 = 8;

struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    offset: u64,
    size: u64,
    link: u32,
    entry_size: u64,
}

/// The object, with code that can be mapped.
pub(super) fn linked() -> Vec<u8> {
    linked_with([R, R | X, R | W], ABSOLUTE)
}

/// The same with other segment flags and another type for the first relocation.
pub(super) fn linked_with(flags: [u32; 3], relocation: u64) -> Vec<u8> {
    let mut file = vec![0; 64 + 3 * 56];
    let mut sections = vec![Section {
        name: "",
        kind: 0,
        flags: 0,
        offset: 0,
        size: 0,
        link: 0,
        entry_size: 0,
    }];
    let mut add = |file: &mut Vec<u8>, name, kind, flags, link, entry_size, bytes: &[u8]| {
        file.resize(file.len().next_multiple_of(8), 0);
        sections.push(Section {
            name,
            kind,
            flags,
            offset: file.len() as u64,
            size: bytes.len() as u64,
            link,
            entry_size,
        });
        file.extend_from_slice(bytes);
    };

    let undefined = symbol(1, 0x12, 0, 0);
    let dynamic_symbols = [symbol(0, 0, 0, 0), undefined].concat();
    add(&mut file, ".dynsym", 11, SHF_ALLOC, 2, 24, &dynamic_symbols);
    let names = format!("\0{LIBCALL}\0");
    add(&mut file, ".dynstr", 3, SHF_ALLOC, 0, 0, names.as_bytes());
    let relocations = [
        words(&[DATA, 1 << 32 | relocation, 2]),
        words(&[DATA + 8, RELATIVE, CODE]),
    ]
    .concat();
    add(&mut file, ".rela.dyn", 4, SHF_ALLOC, 1, 24, &relocations);
    let frames = [0; EH_FRAME_SIZE as usize];
    add(&mut file, ".eh_frame", 1, SHF_ALLOC, 0, 0, &frames);
    let read_only = file.len() as u64;

    file.resize(CODE as usize, 0);
    let code = [0xc3; CODE_SIZE as usize];
    add(
        &mut file,
        ".text",
        1,
        SHF_ALLOC | SHF_EXECINSTR,
        0,
        0,
        &code,
    );
    file.resize(DATA as usize, 0);
    add(&mut file, ".data", 1, SHF_ALLOC | SHF_WRITE, 0, 0, &[0; 16]);
    let symbols = [
        symbol(0, 0, 0, 0),
        symbol(1, 0x02, 5, CODE + 16),
        symbol(4, 0x12, 5, CODE + 8),
        // Data: not kept.
        symbol(4, 0x11, 6, DATA),
    ]
    .concat();
    add(&mut file, ".symtab", 2, 0, 8, 24, &symbols);
    add(&mut file, ".strtab", 3, 0, 0, 0, b"\0t0\0f0\0");
    let own_names = 1 + 9 + [7, 7, 9, 9, 5, 5, 7, 7].iter().sum::<usize>() + 9;
    add(&mut file, ".shstrtab", 3, 0, 0, 0, &vec![0; own_names]);

    file.resize(file.len().next_multiple_of(8), 0);
    let table = file.len() as u64;
    let count = sections.len() as u16;
    let mut names = vec![];
    for section in &sections {
        let name = names.len() as u32;
        names.extend_from_slice(section.name.as_bytes());
        names.push(0);
        let alloc = section.flags & SHF_ALLOC != 0;
        file.extend_from_slice(&name.to_le_bytes());
        file.extend_from_slice(&section.kind.to_le_bytes());
        let address = if alloc { section.offset } else { 0 };
        file.extend_from_slice(&words(&[
            section.flags,
            address,
            section.offset,
            section.size,
        ]));
        file.extend_from_slice(&section.link.to_le_bytes());
        file.extend_from_slice(&1_u32.to_le_bytes());
        file.extend_from_slice(&words(&[8, section.entry_size]));
    }
    let at = sections.last().map_or(0, |section| section.offset as usize);
    file[at..at + names.len()].copy_from_slice(&names);

    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend_from_slice(&[3, 0, 62, 0, 1, 0, 0, 0]);
    header.extend_from_slice(&words(&[0, 64, table]));
    header.extend_from_slice(&[0, 0, 0, 0]);
    for number in [64, 56, 3, 64, count, count - 1] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    let segments = [
        (0, read_only, read_only),
        (CODE, CODE_SIZE, CODE_SIZE),
        (DATA, 16, 32),
    ];
    for ((address, size, memory), flags) in segments.into_iter().zip(flags) {
        header.extend_from_slice(&PT_LOAD.to_le_bytes());
        header.extend_from_slice(&flags.to_le_bytes());
        header.extend_from_slice(&words(&[address, address, address, size, memory, 0x1000]));
    }
    file[..header.len()].copy_from_slice(&header);
    file
}

fn symbol(name: u32, info: u8, section: u16, value: u64) -> Vec<u8> {
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[info, 0]);
    bytes.extend_from_slice(&section.to_le_bytes());
    bytes.extend_from_slice(&words(&[value, 4]));
    bytes
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
