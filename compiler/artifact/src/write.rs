//! Writes artifacts: the linker's ELF shared object, rewritten with our sections behind it.
//!
//! Everything that the ELF's program headers load stays at its offset, section header table apart,
//! which moves to the end. Behind it follow, in this order: symbols, what is read lazily, the
//! memory image, what every load reads, the section headers, the header.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{LittleEndian as LE, Object, RelocationFlags, RelocationTarget, U16, U32, U64, pod};
use sha2::{Digest, Sha256};

use crate::header::{HEADER_SIZE, Header, Range, Region};
use crate::manifest::Manifest;
use crate::module::{
    FunctionNames, ImageRun, LoadPlan, ModuleMetadata, PassiveData, Protection, Relocation,
    Segment, TrapCode,
};
use crate::tables::TablesBuilder;
use crate::{IMAGE_ALIGNMENT, section};

/// Zeros of at least this many bytes become holes in the file, if the file system can.
const HOLE: usize = 4096;

/// A part of a memory's initial content. Zero pages between images need not be given.
#[derive(Debug, Clone)]
pub struct Image {
    /// Index of the memory.
    pub memory: u32,
    /// First byte in the memory, a multiple of [`crate::IMAGE_ALIGNMENT`].
    pub address: u64,
    /// Content; its length is padded with zeros to a multiple of [`crate::IMAGE_ALIGNMENT`].
    pub bytes: Vec<u8>,
}

/// What an artifact is made of.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The linked shared object of the backend (64-bit little-endian ELF).
    pub elf: &'a [u8],
    /// The manifest. `code_size` and `image_size` are filled in while writing.
    pub manifest: Manifest,
    /// The module. Where things lie in the file (`plan`, `image`, `passive_data`, `names`, `traps`)
    /// is filled in while writing.
    pub module: ModuleMetadata,
    /// Its large arrays. Addresses are those of the ELF file.
    pub tables: TablesBuilder,
    /// Names for backtraces.
    pub names: FunctionNames,
    /// Addresses of instructions that trap and why, where the instruction itself does not tell.
    pub traps: Vec<(u32, TrapCode)>,
    /// The memory image.
    pub images: Vec<Image>,
    /// Passive data segments by index.
    pub passive_data: Vec<(u32, Vec<u8>)>,
}

/// Why no artifact could be made of a backend's output. All of them are our own failures.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum WriteError {
    #[error("the linked object is not an ELF file as expected: {0}")]
    Elf(#[from] object::Error),
    #[error("the linked object has a loaded section (number {0}) behind one that is not loaded")]
    SectionOrder(usize),
    #[error("the linked object has an unexpected relocation of type {kind} at {address:#x}")]
    Relocation { address: u64, kind: u32 },
    #[error("the linked object has a segment that is both writable and executable")]
    WritableCode,
    #[error("the linked object has no code")]
    NoCode,
    #[error("could not encode a section: {0}")]
    Encode(#[from] postcard::Error),
}

/// A finished artifact: its bytes, with long runs of zeros left out.
#[derive(Debug)]
pub struct Written {
    chunks: Vec<(u64, Vec<u8>)>,
    /// Size of the file in bytes.
    pub size: u64,
    /// The header, with its sums.
    pub header: Header,
    /// The manifest as it was written.
    pub manifest: Manifest,
}

impl Written {
    /// Writes the artifact to an empty file, leaving holes where it is zero.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn save(&self, file: &File) -> io::Result<()> {
        file.set_len(self.size)?;
        self.chunks
            .iter()
            .try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
    }

    /// The whole file in memory, zeros included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = vec![0; self.size as usize];
        for (offset, bytes) in &self.chunks {
            let start = *offset as usize;
            file[start..start + bytes.len()].copy_from_slice(bytes);
        }
        file
    }
}

/// Writes an artifact.
///
/// # Errors
///
/// [`WriteError`] if the ELF file is not as the linker is expected to make it.
pub fn write(contents: Contents<'_>) -> Result<Written, WriteError> {
    let Contents {
        elf,
        mut manifest,
        mut module,
        tables,
        names,
        traps,
        images,
        passive_data,
    } = contents;
    let input = Input::parse(elf)?;
    module.plan = input.load_plan()?;
    manifest.code_size = module.plan.code.length;

    let mut out = Output::new(input.loaded_bytes());
    out.sections.extend(input.loaded_sections()?);
    let (symbols, locals, strings) = input.symbols(out.sections.len())?;
    out.symbols(symbols, locals, strings);
    module.names = out.section(section::NAMES, 8, &postcard::to_stdvec(&names)?);
    let traps: Vec<u8> = traps
        .iter()
        .flat_map(|(address, code)| [*address, *code as u32])
        .flat_map(u32::to_le_bytes)
        .collect();
    module.traps = out.section(section::TRAPS, 8, &traps);

    let data = out.begin(section::DATA, 8);
    for (segment, bytes) in passive_data {
        let bytes = out.append(&bytes);
        module.passive_data.push(PassiveData { segment, bytes });
    }
    out.end(data);
    let image = out.begin(section::IMAGE, IMAGE_ALIGNMENT);
    for Image {
        memory,
        address,
        bytes,
    } in images
    {
        out.align(IMAGE_ALIGNMENT);
        let mut bytes = out.append(&bytes);
        out.align(IMAGE_ALIGNMENT);
        bytes.length = bytes.length.next_multiple_of(IMAGE_ALIGNMENT);
        manifest.image_size += bytes.length;
        module.image.push(ImageRun {
            memory,
            address,
            bytes,
        });
    }
    out.end(image);

    let manifest_bytes = postcard::to_stdvec(&manifest)?;
    let regions = [
        (Region::ElfHeaders, input.headers()),
        (
            Region::Manifest,
            out.section(section::MANIFEST, 8, &manifest_bytes),
        ),
        (
            Region::Module,
            out.section(section::MODULE, 8, &postcard::to_stdvec(&module)?),
        ),
        (
            Region::Tables,
            out.section(section::TABLES, 8, &tables.encode()),
        ),
    ];
    Ok(out.finish(elf, manifest, &regions))
}

/// The linker's output.
struct Input<'a> {
    bytes: &'a [u8],
    header: &'a elf::FileHeader64<LE>,
    segments: &'a [elf::ProgramHeader64<LE>],
    sections: object::read::elf::SectionTable<'a, elf::FileHeader64<LE>>,
}

impl<'a> Input<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, WriteError> {
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

    /// ELF header and program headers.
    fn headers(&self) -> Range {
        let program_headers = self.segments.len() * size_of::<elf::ProgramHeader64<LE>>();
        Range {
            offset: 0,
            length: self.header.e_phoff(LE) + program_headers as u64,
        }
    }

    /// The part of the file that is kept as it is, without the old section header table.
    fn loaded_bytes(&self) -> Vec<u8> {
        let end = self
            .load_segments()
            .map(|segment| segment.p_offset(LE) + segment.p_filesz(LE))
            .max()
            .unwrap_or(0)
            .max(self.headers().length) as usize;
        let mut bytes = self.bytes[..end.min(self.bytes.len())].to_vec();
        let table = self.header.e_shoff(LE) as usize;
        let table_size = self.sections.len() * size_of::<elf::SectionHeader64<LE>>();
        let table = table.min(bytes.len())..(table + table_size).min(bytes.len());
        bytes[table].fill(0);
        bytes
    }

    fn load_plan(&self) -> Result<LoadPlan, WriteError> {
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
                    offset: segment.p_offset(LE),
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
    fn loaded_sections(&self) -> Result<Vec<OutputSection>, WriteError> {
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

    /// Symbols of functions in loaded sections, the number of local ones (null symbol included),
    /// and their string table.
    fn symbols(&self, loaded_sections: usize) -> Result<(Vec<u8>, u32, Vec<u8>), WriteError> {
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
            strings.extend_from_slice(name);
            strings.push(0);
        }
        Ok((symbols, locals as u32 + 1, strings))
    }
}

struct OutputSection {
    name: String,
    header: elf::SectionHeader64<LE>,
}

/// The file being made. Chunks are in ascending order and do not overlap.
struct Output {
    chunks: Vec<(u64, Vec<u8>)>,
    position: u64,
    sections: Vec<OutputSection>,
}

impl Output {
    fn new(loaded: Vec<u8>) -> Self {
        let mut out = Self {
            chunks: Vec::new(),
            position: 0,
            sections: Vec::new(),
        };
        out.append(&loaded);
        out
    }

    fn align(&mut self, alignment: u64) {
        self.position = self.position.next_multiple_of(alignment);
    }

    /// Appends bytes, leaving out zero blocks.
    fn append(&mut self, bytes: &[u8]) -> Range {
        let range = Range {
            offset: self.position,
            length: bytes.len() as u64,
        };
        for block in bytes.chunks(HOLE) {
            let zero = block.len() == HOLE && block.iter().all(|byte| *byte == 0);
            match self.chunks.last_mut() {
                _ if zero => {}
                Some((offset, chunk)) if *offset + chunk.len() as u64 == self.position => {
                    chunk.extend_from_slice(block);
                }
                _ => self.chunks.push((self.position, block.to_vec())),
            }
            self.position += block.len() as u64;
        }
        range
    }

    /// Begins a section that is not part of the loaded image; returns its number.
    fn begin(&mut self, name: &str, alignment: u64) -> usize {
        self.align(alignment);
        self.sections.push(OutputSection {
            name: name.to_owned(),
            header: elf::SectionHeader64 {
                sh_name: U32::default(),
                sh_type: U32::new(LE, elf::SHT_PROGBITS),
                sh_flags: U64::default(),
                sh_addr: U64::default(),
                sh_offset: U64::new(LE, self.position),
                sh_size: U64::default(),
                sh_link: U32::default(),
                sh_info: U32::default(),
                sh_addralign: U64::new(LE, alignment),
                sh_entsize: U64::default(),
            },
        });
        self.sections.len()
    }

    fn end(&mut self, number: usize) -> Range {
        let header = &mut self.sections[number - 1].header;
        let offset = header.sh_offset.get(LE);
        let length = self.position - offset;
        header.sh_size = U64::new(LE, length);
        Range { offset, length }
    }

    fn section(&mut self, name: &str, alignment: u64, bytes: &[u8]) -> Range {
        let number = self.begin(name, alignment);
        self.append(bytes);
        self.end(number)
    }

    fn symbols(&mut self, symbols: Vec<u8>, locals: u32, strings: Vec<u8>) {
        self.section(".symtab", 8, &symbols);
        let number = self.sections.len() as u32;
        let header = &mut self.sections[number as usize - 1].header;
        header.sh_type = U32::new(LE, elf::SHT_SYMTAB);
        header.sh_link = U32::new(LE, number + 1);
        header.sh_info = U32::new(LE, locals);
        header.sh_entsize = U64::new(LE, size_of::<elf::Sym64<LE>>() as u64);
        self.section(".strtab", 1, &strings);
        if let Some(strings) = self.sections.last_mut() {
            strings.header.sh_type = U32::new(LE, elf::SHT_STRTAB);
        }
    }

    fn finish(mut self, elf: &[u8], manifest: Manifest, regions: &[(Region, Range)]) -> Written {
        // Section names: our own header's section is named too, though it is written last.
        let table = self.begin(".shstrtab", 1);
        let header_section = self.begin(section::HEADER, 8);
        let mut names = vec![0];
        for section in &mut self.sections {
            section.header.sh_name = U32::new(LE, names.len() as u32);
            names.extend_from_slice(section.name.as_bytes());
            names.push(0);
        }
        self.sections[table - 1].header.sh_type = U32::new(LE, elf::SHT_STRTAB);
        self.append(&names);
        self.end(table);

        self.align(8);
        let section_headers = self.position;
        let count = self.sections.len() + 1;
        let file_header_at =
            section_headers + (count * size_of::<elf::SectionHeader64<LE>>()) as u64;
        let ours = &mut self.sections[header_section - 1].header;
        ours.sh_offset = U64::new(LE, file_header_at);
        ours.sh_size = U64::new(LE, HEADER_SIZE as u64);
        let mut headers = vec![0; size_of::<elf::SectionHeader64<LE>>()];
        for section in &self.sections {
            headers.extend_from_slice(pod::bytes_of(&section.header));
        }
        self.append(&headers);
        // `append` leaves out zero blocks only, so the position is always the end of the table.
        debug_assert_eq!(self.position, file_header_at);

        self.patch_elf_header(elf, section_headers, count as u16, table as u16);
        let mut header = Header::new(file_header_at + HEADER_SIZE as u64);
        for (region, range) in regions {
            header.set_region(*region, *range);
        }
        self.append(&header.encode());
        self.sum(header, manifest)
    }

    /// Points the ELF header at the new section header table.
    fn patch_elf_header(&mut self, elf: &[u8], at: u64, count: u16, names: u16) {
        let Ok((header, _)) = pod::from_bytes::<elf::FileHeader64<LE>>(elf) else {
            return; // `Input::parse` has read the same header.
        };
        let mut header = *header;
        header.e_shoff = U64::new(LE, at);
        header.e_shnum = U16::new(LE, count);
        header.e_shstrndx = U16::new(LE, elf::SymbolSection(names));
        if let Some((0, first)) = self.chunks.first_mut() {
            let bytes = pod::bytes_of(&header);
            first[..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Computes both sums and puts them into the header at the end of the last chunk.
    fn sum(mut self, mut header: Header, manifest: Manifest) -> Written {
        let size = header.file_size;
        header.fast_sum = header
            .sum_parts(|range| self.read(range))
            .unwrap_or_default();
        self.put_header(&header);
        let mut sha256 = Sha256::new();
        let zeros = vec![0; 1 << 20];
        let mut position = 0;
        for (offset, bytes) in &self.chunks {
            while position < *offset {
                let length = (*offset - position).min(zeros.len() as u64);
                sha256.update(&zeros[..length as usize]);
                position += length;
            }
            sha256.update(bytes);
            position += bytes.len() as u64;
        }
        header.sha256 = sha256.finalize().into();
        self.put_header(&header);
        Written {
            chunks: self.chunks,
            size,
            header,
            manifest,
        }
    }

    fn put_header(&mut self, header: &Header) {
        if let Some((_, last)) = self.chunks.last_mut() {
            let start = last.len() - HEADER_SIZE;
            last[start..].copy_from_slice(&header.encode());
        }
    }

    fn read(&self, range: Range) -> Vec<u8> {
        let mut bytes = vec![0; range.length as usize];
        let end = range.offset + range.length;
        for (offset, chunk) in &self.chunks {
            let from = range.offset.max(*offset);
            let to = end.min(*offset + chunk.len() as u64);
            if from < to {
                bytes[(from - range.offset) as usize..(to - range.offset) as usize]
                    .copy_from_slice(&chunk[(from - *offset) as usize..(to - *offset) as usize]);
            }
        }
        bytes
    }
}
