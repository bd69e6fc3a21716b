//! Lays out the file: appends sections, then the section headers and our header, for each variant;
//! at the end the directory of a fat artifact, and the sums.

use object::elf;
use object::{LittleEndian as LE, U16, U32, U64, pod};
use sha2::{Digest, Sha256};

use super::Written;
use crate::directory::{Directory, Entry};
use crate::header::{HEADER_SIZE, Header, Range, Region};
use crate::manifest::Manifest;
use crate::{IMAGE_ALIGNMENT, section};

/// Zeros of at least this many bytes become holes in the file, if the file system can.
const HOLE: usize = 4096;

/// A section of the file being made; the name's offset is filled in at the end.
pub(super) struct OutputSection {
    pub(super) name: String,
    pub(super) header: elf::SectionHeader64<LE>,
}

/// The file being made. Chunks are in ascending order and do not overlap. Positions count from the
/// start of the file, except in ELF structures, where they count from the variant's.
pub(super) struct Output {
    chunks: Vec<(u64, Vec<u8>)>,
    position: u64,
    /// Where the variant that is being written begins.
    origin: u64,
    pub(super) sections: Vec<OutputSection>,
    variants: Vec<(Entry, Header)>,
}

impl Output {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            position: 0,
            origin: 0,
            sections: Vec::new(),
            variants: Vec::new(),
        }
    }

    /// Begins a variant with what its ELF file loads; returns where.
    pub(super) fn begin_variant(&mut self, loaded: Vec<u8>) -> u64 {
        // Segments must be mapped where their addresses want them, with any page size.
        self.align(IMAGE_ALIGNMENT);
        self.origin = self.position;
        self.sections.clear();
        self.append(&loaded);
        self.origin
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
                sh_offset: U64::new(LE, self.position - self.origin),
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
        let offset = self.origin + header.sh_offset.get(LE);
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

    /// Ends a variant with its section headers and its header, which has no sums yet.
    pub(super) fn finish_variant(
        &mut self,
        elf: &[u8],
        regions: &[(Region, Range)],
        machine: u16,
        features: u64,
    ) {
        // Section names: our own header's section is named too, though it is written last.
        // Aligned as our header's, so that both begin here.
        let table = self.begin(".shstrtab", 8);
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
        let section_headers = self.position - self.origin;
        let count = self.sections.len() + 1;
        let header_at = section_headers + (count * size_of::<elf::SectionHeader64<LE>>()) as u64;
        let ours = &mut self.sections[header_section - 1].header;
        ours.sh_offset = U64::new(LE, header_at);
        ours.sh_size = U64::new(LE, HEADER_SIZE as u64);
        let mut headers = vec![0; size_of::<elf::SectionHeader64<LE>>()];
        for section in &self.sections {
            headers.extend_from_slice(pod::bytes_of(&section.header));
        }
        self.append(&headers);
        self.patch_elf_header(elf, section_headers, count as u16, table as u16);
        // In place of the header, which is never zero.
        self.append(&[1; HEADER_SIZE]);
        let place = Range {
            offset: self.origin,
            length: self.position - self.origin,
        };
        let mut header = Header::new(0);
        for (region, range) in regions {
            header.set_region(*region, *range);
        }
        let entry = Entry {
            place,
            machine,
            features,
        };
        self.variants.push((entry, header));
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
        self.overwrite(self.origin, pod::bytes_of(&header));
    }

    /// Replaces bytes that were written before.
    fn overwrite(&mut self, position: u64, bytes: &[u8]) {
        let behind = self
            .chunks
            .partition_point(|(offset, _)| *offset <= position);
        if let Some((offset, chunk)) = behind.checked_sub(1).map(|at| &mut self.chunks[at]) {
            let start = (position - *offset) as usize;
            chunk[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Ends the file: with a directory if there are several variants. Computes all sums.
    pub(super) fn finish(mut self, manifests: Vec<Manifest<'static>>) -> Written {
        let variants = std::mem::take(&mut self.variants);
        let fat = variants.len() > 1;
        let mut directory = Directory {
            file_size: 0,
            sha256: [0; 32],
            variants: variants.iter().map(|(entry, _)| *entry).collect(),
        };
        if fat {
            self.append(&directory.encode());
        }
        let size = self.position;
        directory.file_size = size;
        let end = size - HEADER_SIZE as u64;
        let mut last = Header::new(size);
        for (entry, mut header) in variants {
            header.file_size = size;
            header.fast_sum = header
                .sum_parts(|range| self.read(range))
                .unwrap_or_default();
            let at = entry.place.offset + entry.place.length - HEADER_SIZE as u64;
            self.overwrite(at, &header.encode());
            last = header;
        }
        if fat {
            self.overwrite(end, &directory.encode());
        }
        // The field itself is zero so far, as the sum wants it.
        let sha256 = self.sha256();
        if fat {
            directory.sha256 = sha256;
            self.overwrite(end, &directory.encode());
        } else {
            last.sha256 = sha256;
            self.overwrite(end, &last.encode());
        }
        Written {
            chunks: self.chunks,
            size,
            sha256,
            manifests,
        }
    }

    /// SHA-256 over the file as it is.
    fn sha256(&self) -> [u8; 32] {
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
        sha256.finalize().into()
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
