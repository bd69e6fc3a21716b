//! Module images: PTX text, cubin (ELF), fatbin.
//!
//! From a cubin, this module reads the kernels and the layout of their parameters, in the sections `.nv.info.KERNEL`,
//! and ignores the code. A fatbin is a list of both kinds:
//!
//! ```text
//! 0   u32 0xba55ed50, u16 version, u16 header size, u64 size of what follows
//! 16  entries: u16 kind (1 PTX, 2 ELF), u16 version, u32 header size, u64 payload size, ...
//!              u64 flags at 40 (of which some say that the payload is compressed); payload
//! ```
//!
//! The output of `cuLinkComplete` is an ELF file whose section `.fake.ptx` contains the text.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::abi::Code;
use crate::ptx::{self, Program, Reason};

const ELF: [u8; 4] = *b"\x7fELF";
const FATBIN: [u8; 4] = 0xba55_ed50_u32.to_le_bytes();
const ELF_HEADER: usize = 64;
const FATBIN_HEADER: usize = 16;
/// `EM_CUDA`.
const MACHINE: u64 = 190;
const TEXT_SECTION: &str = ".fake.ptx";
const INFO_SECTION: &str = ".nv.info.";
/// `EIATTR_KPARAM_INFO`: ordinal, offset and size of a parameter.
const PARAMETER_INFO: u8 = 0x17;
/// Flags of a fatbin entry that mean LZ4 or Zstandard.
const COMPRESSED: u64 = 0x2000 | 0x8000;
const MOST_BYTES: usize = 1 << 30;

/// The contents of an image.
#[derive(Debug, Clone)]
pub(crate) enum Image {
    Text(Arc<Program>),
    Binary(Arc<Cubin>),
}

/// The kernels of machine code, with the offset and size of each parameter.
#[derive(Debug, Default)]
pub(crate) struct Cubin {
    pub(crate) kernels: BTreeMap<String, Vec<(usize, usize)>>,
}

/// Why an image cannot be loaded. Used in the trace.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) text: String,
}

fn refused(code: Code, text: impl Into<String>) -> Refused {
    Refused {
        code,
        text: text.into(),
    }
}

/// Number of bytes to read of an image with this magic number to know its length. `None` for text.
pub(crate) fn header_length(magic: [u8; 4]) -> Option<usize> {
    match magic {
        ELF => Some(ELF_HEADER),
        FATBIN => Some(FATBIN_HEADER),
        _ => None,
    }
}

/// The length according to an image's header.
pub(crate) fn total_length(header: &[u8]) -> Option<usize> {
    let length = if header.starts_with(&FATBIN) {
        field(header, 6, 2)?.checked_add(field(header, 8, 8)?)?
    } else {
        let sections = field(header, 0x28, 8)?
            .checked_add(field(header, 0x3a, 2)? * field(header, 0x3c, 2)?)?;
        let segments = field(header, 0x20, 8)?
            .checked_add(field(header, 0x36, 2)? * field(header, 0x38, 2)?)?;
        sections.max(segments).max(ELF_HEADER as u64)
    };
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= MOST_BYTES)
}

/// Reads an image.
pub(crate) fn load(bytes: &[u8]) -> Result<Image, Refused> {
    if bytes.starts_with(&ELF) {
        return elf(bytes);
    }
    if bytes.starts_with(&FATBIN) {
        return fatbin(bytes);
    }
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|_| refused(Code::INVALID_IMAGE, "neither ELF, fatbin nor text"))?;
    self::text(text)
}

/// Parses PTX.
pub(crate) fn text(text: &str) -> Result<Image, Refused> {
    let program = ptx::parse(text).map_err(|error| {
        let code = match error.reason {
            Reason::Version(_) => Code::UNSUPPORTED_PTX_VERSION,
            _ => Code::INVALID_PTX,
        };
        refused(code, format!("PTX {error}"))
    })?;
    Ok(Image::Text(Arc::new(program)))
}

/// A little-endian number.
fn field(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}

fn elf(bytes: &[u8]) -> Result<Image, Refused> {
    let sections = sections(bytes);
    let sections = sections.ok_or(refused(Code::INVALID_IMAGE, "damaged ELF file"))?;
    if let Some((_, content)) = sections.iter().find(|(name, _)| name == TEXT_SECTION) {
        let text = std::str::from_utf8(content);
        return self::text(text.map_err(|_| refused(Code::INVALID_IMAGE, "damaged text"))?);
    }
    if field(bytes, 0x12, 2) != Some(MACHINE) {
        return Err(refused(
            Code::INVALID_IMAGE,
            "not an ELF file for CUDA devices",
        ));
    }
    let mut cubin = Cubin::default();
    for (name, content) in &sections {
        if let Some(kernel) = name.strip_prefix(INFO_SECTION) {
            let parameters = parameters(content);
            let parameters = parameters.ok_or(refused(Code::INVALID_IMAGE, "damaged cubin"))?;
            cubin.kernels.insert(kernel.to_owned(), parameters);
        }
    }
    Ok(Image::Binary(Arc::new(cubin)))
}

/// Names and contents of an ELF file's sections.
fn sections(bytes: &[u8]) -> Option<Vec<(String, &[u8])>> {
    let start = usize::try_from(field(bytes, 0x28, 8)?).ok()?;
    let size = field(bytes, 0x3a, 2)? as usize;
    let count = field(bytes, 0x3c, 2)? as usize;
    let names = field(bytes, 0x3e, 2)? as usize;
    let header = |index: usize| {
        let at = start.checked_add(index.checked_mul(size)?)?;
        bytes.get(at..at.checked_add(64)?)
    };
    let content = |header: &[u8]| {
        // Sections without contents in the file.
        if field(header, 4, 4)? == 8 {
            return Some(&bytes[..0]);
        }
        let at = usize::try_from(field(header, 0x18, 8)?).ok()?;
        let length = usize::try_from(field(header, 0x20, 8)?).ok()?;
        bytes.get(at..at.checked_add(length)?)
    };
    let names = content(header(names)?)?;
    let mut sections = Vec::new();
    for index in 0..count {
        let header = header(index)?;
        let name = names.get(field(header, 0, 4)? as usize..)?;
        let end = name.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        sections.push((name, content(header)?));
    }
    Some(sections)
}

/// The parameters that a kernel's information section lists, in order.
fn parameters(mut info: &[u8]) -> Option<Vec<(usize, usize)>> {
    let mut parameters = BTreeMap::new();
    while !info.is_empty() {
        let (format, attribute) = (*info.first()?, *info.get(1)?);
        // Only one format is longer than four bytes.
        let length = if format == 4 {
            field(info, 2, 2)? as usize
        } else {
            0
        };
        let value = info.get(4..4 + length)?;
        if format == 4 && attribute == PARAMETER_INFO {
            let ordinal = field(value, 4, 2)?;
            let offset = field(value, 6, 2)? as usize;
            let size = (field(value, 8, 4)? >> 18) as usize;
            parameters.insert(ordinal, (offset, size));
        }
        info = &info[4 + length..];
    }
    Some(parameters.into_values().collect())
}

/// The first PTX in a fatbin, or else its first machine code.
fn fatbin(bytes: &[u8]) -> Result<Image, Refused> {
    let damaged = || refused(Code::INVALID_IMAGE, "damaged fatbin");
    let mut at = field(bytes, 6, 2).ok_or_else(damaged)? as usize;
    let mut compressed = false;
    let mut binary = None;
    while at < bytes.len() {
        let kind = field(bytes, at, 2).ok_or_else(damaged)?;
        let header = field(bytes, at + 4, 4).ok_or_else(damaged)? as usize;
        let size = field(bytes, at + 8, 8).and_then(|size| usize::try_from(size).ok());
        let flags = field(bytes, at + 40, 8).ok_or_else(damaged)?;
        let start = at.checked_add(header.max(16)).ok_or_else(damaged)?;
        let end = size
            .and_then(|size| start.checked_add(size))
            .ok_or_else(damaged)?;
        let payload = bytes.get(start..end).ok_or_else(damaged)?;
        at = end;
        match kind {
            _ if flags & COMPRESSED != 0 => compressed = true,
            1 => {
                let end = payload
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(payload.len());
                return load(&payload[..end]);
            }
            2 if binary.is_none() => binary = Some(payload),
            _ => {}
        }
    }
    match binary {
        Some(binary) => elf(binary),
        None if compressed => Err(refused(
            Code::NO_BINARY_FOR_GPU,
            "all entries of the fatbin are compressed, which the fake does not undo",
        )),
        None => Err(refused(Code::NO_BINARY_FOR_GPU, "nothing in the fatbin")),
    }
}

/// Builds the ELF file that linking produces.
pub(crate) fn linked(text: &str) -> Vec<u8> {
    let names = format!("\0.shstrtab\0{TEXT_SECTION}\0");
    let mut file = vec![0; ELF_HEADER];
    let text_at = file.len() as u64;
    file.extend(text.as_bytes());
    let names_at = file.len() as u64;
    file.extend(names.as_bytes());
    file.resize(file.len().next_multiple_of(8), 0);
    let table = file.len() as u64;
    // Name, type, and location: the null section, a string table, the text.
    let rows = [
        (0u32, 0u32, 0, 0),
        (1, 3, names_at, names.len()),
        (11, 1, text_at, text.len()),
    ];
    for (name, kind, offset, size) in rows {
        let mut row = [0; 64];
        row[..4].copy_from_slice(&name.to_le_bytes());
        row[4..8].copy_from_slice(&kind.to_le_bytes());
        row[0x18..0x20].copy_from_slice(&offset.to_le_bytes());
        row[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
        file.extend(row);
    }
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[0x12..0x14].copy_from_slice(&(MACHINE as u16).to_le_bytes());
    file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    file[0x34..0x36].copy_from_slice(&(ELF_HEADER as u16).to_le_bytes());
    file[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
    file[0x3c..0x3e].copy_from_slice(&(rows.len() as u16).to_le_bytes());
    file[0x3e..0x40].copy_from_slice(&1u16.to_le_bytes());
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = ".version 7.5\n.target sm_75\n.address_size 64\n\
        .visible .entry k(.param .u64 a, .param .u8 b) { ret; }";

    #[test]
    fn linked_text_is_found_again() {
        let file = linked(TEXT);
        assert_eq!(total_length(&file[..ELF_HEADER]), Some(file.len()));
        let Image::Text(program) = load(&file).unwrap() else {
            panic!("no text");
        };
        assert_eq!(program.functions[0].name, "k");
    }

    #[test]
    fn fatbin_gives_its_text() {
        let mut entry = vec![0; 64];
        entry[0] = 1;
        entry[4] = 64;
        entry[8..16].copy_from_slice(&(TEXT.len() as u64 + 1).to_le_bytes());
        let mut file = FATBIN.to_vec();
        file.extend([1, 0, 16, 0]);
        file.extend((64 + TEXT.len() as u64 + 1).to_le_bytes());
        file.extend(&entry);
        file.extend(TEXT.as_bytes());
        file.push(0);
        assert_eq!(total_length(&file[..FATBIN_HEADER]), Some(file.len()));
        assert!(matches!(load(&file), Ok(Image::Text(_))));
        // The same image, marked as compressed.
        file[16 + 41] = 0x80;
        assert_eq!(load(&file).unwrap_err().code, Code::NO_BINARY_FOR_GPU);
    }

    #[test]
    fn parameters_of_machine_code_are_in_its_information() {
        let mut info = vec![];
        for (ordinal, offset, size) in [(1u16, 8u16, 4u32), (0, 0, 8)] {
            info.extend([4, PARAMETER_INFO, 12, 0, 0, 0, 0, 0]);
            info.extend(ordinal.to_le_bytes());
            info.extend(offset.to_le_bytes());
            info.extend((size << 18 | 0x1f000).to_le_bytes());
        }
        info.extend([1, 2, 0, 0]);
        assert_eq!(parameters(&info), Some(vec![(0, 8), (8, 4)]));
        assert_eq!(parameters(&info[..info.len() - 5]), None);
    }

    #[test]
    fn damaged_files_are_refused_at_every_length() {
        let file = linked(TEXT);
        for length in 0..file.len() {
            assert!(load(&file[..length]).is_err(), "{length}");
        }
    }
}
