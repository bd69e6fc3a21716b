//! Reads the linker's output: what is loaded, how, and the symbols of functions.

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{LittleEndian as LE, Object, RelocationFlags, RelocationTarget, U32, pod};

use super::WriteError;
use super::output::OutputSection;
use crate::header::Range;
use crate::module::{LoadPlan, Protection, Relocation, Segment};

/// What unwinding reads of the code.
const UNWIND_SECTIONS: [&[u8]; 2] = [b".eh_frame", b".gcc_except_table"];

/// The linker's output.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    header: &'a elf::FileHeader64<LE>,
    segments: &'a [elf::ProgramHeader64<LE>],
    sections: object::read::elf::SectionTable<'a, elf::FileHeader64<LE>>,
}

impl<'a> Input<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, WriteError> {
        let header = elf::FileHeader64::<LE>::parse(bytes)?;
        Ok(Self {
            bytes,
            header,
            segments: header.program_headers(LE, bytes)?,
            sections: header.sections(LE, bytes)?,
        })
    }

    fn load_segments(&self) -> impl Iterator<Item = &'a elf::ProgramHeader64<LE>> {
        self.segments
            .iter()
            .filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
    }

    /// ELF header and program headers, of an object that begins at `origin` in the file.
    pub(super) fn headers(&self, origin: u64) -> Range {
        let program_headers = size_of_val(self.segments);
        Range {
            offset: origin,
            length: self.header.e_phoff(LE) + program_headers as u64,
        }
    }

    /// The sections that unwinding reads, and what lies between them.
    pub(super) fn unwind_information(&self, origin: u64) -> Range {
        let sections = UNWIND_SECTIONS.iter().filter_map(|name| {
            let (_, section) = self.sections.section_by_name(LE, name)?;
            let start = section.sh_offset(LE);
            Some((start, start + section.sh_size(LE)))
        });
        let hull = sections.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let (start, end) = hull.unwrap_or_default();
        Range {
            offset: origin + start,
            length: end - start,
        }
    }

    /// Sections with DWARF, decompressed.
    pub(super) fn debug_sections(&self) -> Result<Vec<(String, Vec<u8>)>, WriteError> {
        let mut found = Vec::new();
        for section in self.sections.iter() {
            let name = self.sections.section_name(LE, section)?;
            if name.starts_with(b".debug_") && !section.sh_flags(LE).contains(elf::SHF_ALLOC) {
                let bytes = section.data(LE, self.bytes)?;
                found.push((String::from_utf8_lossy(name).into_owned(), bytes.to_vec()));
            }
        }
        Ok(found)
    }

    /// The part of the file that is kept as it is, without the old section header table.
    pub(super) fn loaded_bytes(&self) -> Vec<u8> {
        let end = self
            .load_segments()
            .map(|segment| segment.p_offset(LE) + segment.p_filesz(LE))
            .max()
            .unwrap_or(0)
            .max(self.headers(0).length) as usize;
        let mut bytes = self.bytes[..end.min(self.bytes.len())].to_vec();
        let table = self.header.e_shoff(LE) as usize;
        let table_size = self.sections.len() * size_of::<elf::SectionHeader64<LE>>();
        let table = table.min(bytes.len())..(table + table_size).min(bytes.len());
        bytes[table].fill(0);
        bytes
    }

    /// The load plan of an object that begins at `origin` in the file.
    pub(super) fn load_plan(&self, origin: u64) -> Result<LoadPlan, WriteError> {
        let mut plan = LoadPlan::default();
        for segment in self.load_segments() {
            let flags = segment.p_flags(LE);
            let protection = match (flags.contains(elf::PF_W), flags.contains(elf::PF_X)) {
                (false, false) => Protection::Read,
                (true, false) => Protection::ReadWrite,
                (false, true) => Protection::ReadExecute,
                (true, true) => return Err(WriteError::WritableCode),
            };
            plan.segments.push(Segment {
                address: segment.p_vaddr(LE),
                bytes: Range {
                    offset: origin + segment.p_offset(LE),
                    length: segment.p_filesz(LE),
                },
                memory_size: segment.p_memsz(LE),
                protection,
            });
        }
        plan.segments.sort_by_key(|segment| segment.address);
        let code = || {
            plan.segments
                .iter()
                .filter(|segment| segment.protection == Protection::ReadExecute)
        };
        let start = code().map(|segment| segment.address).min();
        let end = code()
            .map(|segment| segment.address + segment.memory_size)
            .max();
        let (Some(start), Some(end)) = (start, end) else {
            return Err(WriteError::NoCode);
        };
        plan.code = Range {
            offset: start,
            length: end - start,
        };
        plan.eh_frame = self
            .sections
            .section_by_name(LE, b".eh_frame")
            .map(|(_, section)| Range {
                offset: section.sh_addr(LE),
                length: section.sh_size(LE),
            });
        plan.relocations = self.relocations()?;
        Ok(plan)
    }

    fn relocations(&self) -> Result<Vec<Relocation>, WriteError> {
        use object::ObjectSymbol;
        let file = object::read::elf::ElfFile64::<LE>::parse(self.bytes)?;
        let symbols = file.dynamic_symbol_table();
        let mut relocations = Vec::new();
        for (address, relocation) in file.dynamic_relocations().into_iter().flatten() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else {
                continue;
            };
            let addend = relocation.addend();
            let machine = self.header.e_machine(LE);
            let relative = [
                (elf::EM_X86_64, elf::R_X86_64_RELATIVE),
                (elf::EM_AARCH64, elf::R_AARCH64_RELATIVE),
                (elf::EM_RISCV, elf::R_RISCV_RELATIVE),
            ];
            let absolute = [
                (elf::EM_X86_64, elf::R_X86_64_64),
                (elf::EM_X86_64, elf::R_X86_64_GLOB_DAT),
                (elf::EM_X86_64, elf::R_X86_64_JUMP_SLOT),
                (elf::EM_AARCH64, elf::R_AARCH64_ABS64),
                (elf::EM_AARCH64, elf::R_AARCH64_GLOB_DAT),
                (elf::EM_AARCH64, elf::R_AARCH64_JUMP_SLOT),
                (elf::EM_RISCV, elf::R_RISCV_64),
                (elf::EM_RISCV, elf::R_RISCV_JUMP_SLOT),
            ];
            let unexpected = WriteError::Relocation {
                address,
                kind: r_type.0,
            };
            if relative.contains(&(machine, r_type)) {
                relocations.push(Relocation::Base { address, addend });
            } else if absolute.contains(&(machine, r_type)) {
                use object::ObjectSymbolTable;
                let RelocationTarget::Symbol(index) = relocation.target() else {
                    return Err(unexpected);
                };
                let symbol = match &symbols {
                    Some(symbols) => symbols.symbol_by_index(index)?,
                    None => return Err(unexpected),
                };
                relocations.push(if symbol.is_undefined() {
                    Relocation::Libcall {
                        address,
                        name: symbol.name()?.to_owned(),
                        addend,
                    }
                } else {
                    Relocation::Base {
                        address,
                        addend: addend + symbol.address() as i64,
                    }
                });
            } else {
                return Err(unexpected);
            }
        }
        Ok(relocations)
    }

    /// Sections that are part of the loaded image. Their numbers stay, so that symbols need not
    /// change; the linker puts them first.
    pub(super) fn loaded_sections(&self) -> Result<Vec<OutputSection>, WriteError> {
        let mut loaded = Vec::new();
        for (index, section) in self.sections.enumerate().skip(1) {
            if !section.sh_flags(LE).contains(elf::SHF_ALLOC) {
                continue;
            }
            if index.0 != loaded.len() + 1 {
                return Err(WriteError::SectionOrder(index.0));
            }
            let name = self.sections.section_name(LE, section)?;
            loaded.push(OutputSection {
                name: String::from_utf8_lossy(name).into_owned(),
                header: *section,
            });
        }
        Ok(loaded)
    }

    /// Symbols of functions in loaded sections with new names, the number of local ones (null
    /// symbol included), and their string table.
    pub(super) fn symbols(
        &self,
        loaded_sections: usize,
        rename: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Result<(Vec<u8>, u32, Vec<u8>), WriteError> {
        let table = self.sections.symbols(LE, self.bytes, elf::SHT_SYMTAB)?;
        let mut kept: Vec<(&[u8], elf::Sym64<LE>)> = Vec::new();
        for symbol in table.iter() {
            let section = usize::from(symbol.st_shndx(LE).0);
            let defined = (1..=loaded_sections).contains(&section);
            if defined && symbol.st_type() == elf::STT_FUNC {
                kept.push((table.symbol_name(LE, symbol)?, *symbol));
            }
        }
        kept.sort_by_key(|(_, symbol)| (symbol.st_bind() != elf::STB_LOCAL, symbol.st_value(LE)));
        let locals = kept
            .iter()
            .filter(|(_, symbol)| symbol.st_bind() == elf::STB_LOCAL)
            .count();
        let mut symbols = vec![0; size_of::<elf::Sym64<LE>>()];
        let mut strings = vec![0];
        for (name, mut symbol) in kept {
            symbol.st_name = U32::new(LE, strings.len() as u32);
            symbols.extend_from_slice(pod::bytes_of(&symbol));
            strings.extend_from_slice(&rename(name));
            strings.push(0);
        }
        Ok((symbols, locals as u32 + 1, strings))
    }
}
