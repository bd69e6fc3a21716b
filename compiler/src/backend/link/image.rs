//! The file: what is loaded, then sections for tools and for [`crate::convert`].

use std::ops::Range;

use object::elf::{self, Machine};

use super::layout::{HEADER, Layout, PROGRAM_HEADER, PROGRAM_HEADERS};
use super::relocate::dynamic_kinds;
use super::{Program, units};
use crate::backend::object::{Kind, Unit};

/// Flags of the ELF header of a RISC-V file with compressed instructions and doubles in registers.
const RISCV_FLAGS: u32 = 5;

/// The file while it is written. Addresses of what is loaded are offsets in it.
#[derive(Debug)]
pub(super) struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// All units at their places, and nothing else.
    pub(super) fn new(program: &Program<'_>, layout: &Layout) -> Self {
        let mut bytes = vec![0; layout.write.end as usize];
        if program.machine == elf::EM_X86_64 {
            // What lies between functions is never run; these stop whoever gets there.
            bytes[range(&layout.execute)].fill(0xcc);
        }
        for (number, unit) in units(program) {
            for (index, section) in unit.sections.iter().enumerate() {
                if layout.is_first(number, index) && section.kind != Kind::Debug {
                    let start = layout.address(number, index) as usize;
                    bytes[start..start + section.bytes.len()].copy_from_slice(&section.bytes);
                }
            }
        }
        Self { bytes }
    }

    /// What lies at an address and behind it.
    pub(super) fn at(&mut self, address: u64) -> &mut [u8] {
        let start = (address as usize).min(self.bytes.len());
        &mut self.bytes[start..]
    }

    /// Adds everything that is not code or data.
    pub(super) fn finish(
        mut self,
        program: &Program<'_>,
        layout: &Layout,
        debug: &[(String, Vec<u8>)],
    ) -> Vec<u8> {
        self.dynamic(program.machine, layout);
        let mut table = SectionTable::new(layout);
        let (symbols, locals, names) = symbols(program, layout);
        table.append(&mut self.bytes, ".symtab", elf::SHT_SYMTAB, &symbols, 8);
        let strings = table.headers.len() as u32;
        if let Some(header) = table.headers.last_mut() {
            (header.link, header.info, header.entry) = (strings, locals, 24);
        }
        table.append(&mut self.bytes, ".strtab", elf::SHT_STRTAB, &names, 1);
        let (traps, lists) = traps(program);
        let lists_of = |words: Vec<u64>| bytes_of(words.into_iter().map(u64::to_le_bytes));
        for (name, content) in [
            (".w.fn_offsets", lists_of(addresses(program, layout))),
            (".w.traps", traps),
            (".w.trap_fnoffs", lists_of(lists)),
        ] {
            table.append(&mut self.bytes, name, elf::SHT_PROGBITS, &content, 8);
        }
        for (name, content) in debug {
            table.append(&mut self.bytes, name, elf::SHT_PROGBITS, content, 1);
        }
        let sections = table.write(&mut self.bytes);
        self.headers(program.machine, layout, &sections);
        self.bytes
    }

    fn dynamic(&mut self, machine: Machine, layout: &Layout) {
        let mut strings = vec![0];
        let mut symbols = vec![0; 24];
        for name in &layout.symbol_names {
            // Undefined, global, of no type.
            symbols.extend((strings.len() as u32).to_le_bytes());
            symbols.push(elf::STB_GLOBAL.0 << 4);
            symbols.extend([0; 19]);
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        let (relative, absolute) = dynamic_kinds(machine);
        let mut relocations = Vec::new();
        for word in &layout.loaded {
            let info = match word.symbol {
                Some(symbol) => (u64::from(symbol) + 1) << 32 | u64::from(absolute),
                None => u64::from(relative),
            };
            relocations.extend(word.place.to_le_bytes());
            relocations.extend(info.to_le_bytes());
            relocations.extend(word.addend.to_le_bytes());
        }
        let length = |range: &Range<u64>| range.end - range.start;
        let entries = [
            (elf::DT_SYMTAB, layout.dynamic_symbols.start),
            (elf::DT_STRTAB, layout.dynamic_strings.start),
            (elf::DT_STRSZ, length(&layout.dynamic_strings)),
            (elf::DT_RELA, layout.dynamic_relocations.start),
            (elf::DT_RELASZ, length(&layout.dynamic_relocations)),
            (elf::DT_RELAENT, 24),
            (elf::DT_NULL, 0),
        ];
        let entries = entries
            .iter()
            .flat_map(|(tag, value)| [tag.0 as u64, *value]);
        let entries = bytes_of(entries.map(u64::to_le_bytes));
        for (place, content) in [
            (&layout.dynamic_symbols, symbols),
            (&layout.dynamic_strings, strings),
            (&layout.dynamic_relocations, relocations),
            (&layout.dynamic, entries),
        ] {
            self.bytes[range(place)].copy_from_slice(&content);
        }
    }

    fn headers(&mut self, machine: Machine, layout: &Layout, sections: &Written) {
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend([0x7f, b'E', b'L', b'F', 2, 1, 1]);
        header.extend([0; 9]);
        header.extend(elf::ET_DYN.0.to_le_bytes());
        header.extend(machine.0.to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        // Entry, program headers, section headers.
        header.extend(bytes_of([0, HEADER, sections.start].map(u64::to_le_bytes)));
        let flags = if machine == elf::EM_RISCV {
            RISCV_FLAGS
        } else {
            0
        };
        header.extend(flags.to_le_bytes());
        let numbers = [
            HEADER as u16,
            PROGRAM_HEADER as u16,
            PROGRAM_HEADERS as u16,
            64,
            sections.count,
            sections.names,
        ];
        header.extend(bytes_of(numbers.map(u16::to_le_bytes)));
        let (read, write, execute) = (elf::PF_R.0, elf::PF_W.0, elf::PF_X.0);
        let segments = [
            (elf::PT_LOAD, read, &layout.read, layout.page),
            (elf::PT_LOAD, read | execute, &layout.execute, layout.page),
            (elf::PT_LOAD, read | write, &layout.write, layout.page),
            (elf::PT_DYNAMIC, read | write, &layout.dynamic, 8),
            (elf::PT_GNU_RELRO, read, &layout.write, 1),
            (elf::PT_GNU_STACK, read | write, &(0..0), 16),
        ];
        for (kind, flags, range, alignment) in segments {
            header.extend(kind.0.to_le_bytes());
            header.extend(flags.to_le_bytes());
            let size = range.end - range.start;
            let words = [range.start, range.start, range.start, size, size, alignment];
            header.extend(bytes_of(words.map(u64::to_le_bytes)));
        }
        self.bytes[..header.len()].copy_from_slice(&header);
    }
}

/// A section header, names apart.
#[derive(Debug, Clone, Default)]
struct Header {
    name: u32,
    kind: u32,
    flags: u64,
    place: Range<u64>,
    /// 0 if it is not loaded.
    address: u64,
    link: u32,
    info: u32,
    alignment: u64,
    entry: u64,
}

/// Where the section headers are.
struct Written {
    start: u64,
    count: u16,
    names: u16,
}

struct SectionTable {
    headers: Vec<Header>,
    names: Vec<u8>,
}

impl SectionTable {
    /// The loaded sections, by address.
    fn new(layout: &Layout) -> Self {
        let mut table = Self {
            headers: vec![Header::default()],
            names: vec![0],
        };
        let part = |kind| layout.parts.get(&kind).cloned().unwrap_or_default();
        let (write, execute) = (elf::SHF_WRITE.0, elf::SHF_EXECINSTR.0);
        let (bits, alloc) = (elf::SHT_PROGBITS, elf::SHF_ALLOC.0);
        for (name, kind, flags, place, alignment) in [
            (
                ".dynsym",
                elf::SHT_DYNSYM,
                0,
                layout.dynamic_symbols.clone(),
                8,
            ),
            (
                ".dynstr",
                elf::SHT_STRTAB,
                0,
                layout.dynamic_strings.clone(),
                1,
            ),
            (
                ".rela.dyn",
                elf::SHT_RELA,
                0,
                layout.dynamic_relocations.clone(),
                8,
            ),
            (".rodata", bits, 0, part(Kind::Constants), 1),
            (".gcc_except_table", bits, 0, part(Kind::ExceptionTable), 1),
            (".eh_frame", bits, 0, part(Kind::UnwindTable), 1),
            (".text", bits, execute, part(Kind::Code), 1),
            (
                ".dynamic",
                elf::SHT_DYNAMIC,
                write,
                layout.dynamic.clone(),
                8,
            ),
            (".data.rel.ro", bits, write, part(Kind::Data), 1),
            (".got", bits, write, layout.words.clone(), 8),
        ] {
            // The dynamic ones are named by others; the rest is there if it has content.
            if place.is_empty() && !name.starts_with(".dyn") && name != ".rela.dyn" {
                continue;
            }
            let name = table.name(name);
            table.headers.push(Header {
                name,
                kind: kind.0,
                flags: flags | alloc,
                address: place.start,
                place,
                alignment,
                ..Header::default()
            });
        }
        for header in &mut table.headers {
            let (link, info, entry) = match elf::SectionType(header.kind) {
                elf::SHT_DYNSYM => (2, 1, 24),
                elf::SHT_RELA => (1, 0, 24),
                elf::SHT_DYNAMIC => (2, 0, 16),
                _ => continue,
            };
            (header.link, header.info, header.entry) = (link, info, entry);
        }
        table
    }

    fn name(&mut self, name: &str) -> u32 {
        let start = self.names.len() as u32;
        self.names.extend(name.as_bytes());
        self.names.push(0);
        start
    }

    /// Appends a section that is not loaded.
    fn append(
        &mut self,
        bytes: &mut Vec<u8>,
        name: &str,
        kind: elf::SectionType,
        content: &[u8],
        alignment: u64,
    ) {
        let name = self.name(name);
        let start = (bytes.len() as u64).next_multiple_of(alignment);
        bytes.resize(start as usize, 0);
        bytes.extend(content);
        self.headers.push(Header {
            name,
            kind: kind.0,
            place: start..bytes.len() as u64,
            alignment,
            ..Header::default()
        });
    }

    fn write(mut self, bytes: &mut Vec<u8>) -> Written {
        self.name(".shstrtab");
        let names = self.names.clone();
        self.append(bytes, ".shstrtab", elf::SHT_STRTAB, &names, 1);
        if let Some(last) = self.headers.last_mut() {
            // Its name is in the copy that was written.
            last.name = (names.len() - ".shstrtab".len() - 1) as u32;
        }
        let start = bytes.len().next_multiple_of(8);
        bytes.resize(start, 0);
        for header in &self.headers {
            bytes.extend(header.name.to_le_bytes());
            bytes.extend(header.kind.to_le_bytes());
            let size = header.place.end - header.place.start;
            let words = [header.flags, header.address, header.place.start, size];
            bytes.extend(bytes_of(words.map(u64::to_le_bytes)));
            bytes.extend(header.link.to_le_bytes());
            bytes.extend(header.info.to_le_bytes());
            bytes.extend(bytes_of(
                [header.alignment, header.entry].map(u64::to_le_bytes),
            ));
        }
        Written {
            start: start as u64,
            count: self.headers.len() as u16,
            names: self.headers.len() as u16 - 1,
        }
    }
}

/// The symbol table, the number of its local symbols, and the names.
fn symbols(program: &Program<'_>, layout: &Layout) -> (Vec<u8>, u32, Vec<u8>) {
    let code = SectionTable::new(layout)
        .headers
        .iter()
        .position(|header| header.flags & elf::SHF_EXECINSTR.0 != 0)
        .unwrap_or_default() as u16;
    let mut symbols = vec![0; 24];
    let mut names = vec![0];
    let mut count = 1;
    for (number, unit) in units(program) {
        let name = match number.checked_sub(program.functions.len()) {
            None => format!("f{number}"),
            Some(ty) => format!("t{ty}"),
        };
        symbols.extend((names.len() as u32).to_le_bytes());
        symbols.extend([elf::STB_LOCAL.0 << 4 | elf::STT_FUNC.0, 0]);
        symbols.extend(code.to_le_bytes());
        symbols.extend(layout.address(number, 0).to_le_bytes());
        symbols.extend(code_size(unit).to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
        count += 1;
    }
    (symbols, count, names)
}

fn code_size(unit: &Unit) -> u64 {
    unit.sections
        .first()
        .map_or(0, |code| code.bytes.len() as u64)
}

/// Addresses of all functions, then of all trampolines.
fn addresses(program: &Program<'_>, layout: &Layout) -> Vec<u64> {
    units(program)
        .map(|(number, _)| layout.address(number, 0))
        .collect()
}

/// All lists of traps, and where each function's begins.
fn traps(program: &Program<'_>) -> (Vec<u8>, Vec<u64>) {
    let mut traps = Vec::new();
    let mut lists = Vec::new();
    for unit in program.functions {
        lists.push(traps.len() as u64);
        if unit.traps.is_empty() {
            traps.extend(0_u32.to_le_bytes());
        } else {
            traps.extend(&unit.traps);
        }
    }
    (traps, lists)
}

fn range(range: &Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

fn bytes_of<const N: usize>(words: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
    words.into_iter().flatten().collect()
}
