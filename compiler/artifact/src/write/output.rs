//! Lays out the artifact: appends sections, then the section headers and our header, and sums.

use object::elf;
use object::{LittleEndian as LE, U16, U32, U64, pod};
use sha2::{Digest, Sha256};

use super::Written;
use crate::header::{HEADER_SIZE, Header, Range, Region};
use crate::manifest::Manifest;
use crate::section;

/// Zeros of at least this many bytes become holes in the file, if the file system can.
const HOLE: usize = 4096;

/// A section of the file being made; the name's offset is filled in at the end.
pub(super) struct OutputSection {
    pub(super) name: String,
    pub(super) header: elf::SectionHeader64<LE>,
}

/// The file being made. Chunks are in ascending order and do not overlap.
pub(super) struct Output {
    chunks: Vec<(u64, Vec<u8>)>,
    position: u64,
    pub(super) sections: Vec<OutputSection>,
}

impl Output {
    pub(super) fn new(loaded: Vec<u8>) -> Self {
        let mut out = Self {
            chunks: Vec::new(),
            position: 0,
            sections: Vec::new(),
        };
        out.append(&loaded);
        out
    }

    pub(super) fn align(&mut self, alignment: u64) {
        self.position = self.position.next_multiple_of(alignment);
    }

    /// Appends bytes, leaving out zero blocks.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Range {
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
    pub(super) fn begin(&mut self, name: &str, alignment: u64) -> usize {
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

    pub(super) fn end(&mut self, number: usize) -> Range {
        let header = &mut self.sections[number - 1].header;
        let offset = header.sh_offset.get(LE);
        let length = self.position - offset;
        header.sh_size = U64::new(LE, length);
        Range { offset, length }
    }

    pub(super) fn section(&mut self, name: &str, alignment: u64, bytes: &[u8]) -> Range {
        let number = self.begin(name, alignment);
        self.append(bytes);
        self.end(number)
    }

    pub(super) fn symbols(&mut self, symbols: Vec<u8>, locals: u32, strings: Vec<u8>) {
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

    pub(super) fn finish(
        mut self,
        elf: &[u8],
        manifest: Manifest,
        regions: &[(Region, Range)],
    ) -> Written {
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
