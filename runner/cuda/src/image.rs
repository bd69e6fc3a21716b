//! Module images: detection of PTX, cubin, and fatbin, and the length of each.
//!
//! `cuModuleLoadData` takes an address without a length, so the length is read from the image. The image is checked and
//! copied out of guest memory before the driver reads it.
//!
//! A fatbin is a header of 16 bytes (magic, version, header length, body length) followed by parts: kind (1 PTX, 2
//! cubin) and flags of 2 bytes each, header length of 4, payload length of 8. Source: the output of nvcc 13.0.

use crate::code::Code;

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
const FATBIN_MAGIC: [u8; 4] = 0xBA55_ED50_u32.to_le_bytes();
/// `__fatBinC_Wrapper_t`: magic, version, and a pointer to the fatbin.
const WRAPPER_MAGIC: [u8; 4] = 0x4662_43B1_u32.to_le_bytes();
/// Most parts of a fatbin that are read.
const MOST_PARTS: usize = 256;

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Elf,
    Fatbin,
    Wrapper,
}

/// Detects the format by the first bytes.
pub(crate) fn format(image: &[u8]) -> Format {
    match image.first_chunk::<4>() {
        Some(&ELF_MAGIC) => Format::Elf,
        Some(&FATBIN_MAGIC) => Format::Fatbin,
        Some(&WRAPPER_MAGIC) => Format::Wrapper,
        _ => Format::Text,
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut number = [0; 8];
    number[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(number))
}

/// Length of an ELF file according to its header: the end of the last header table.
pub(crate) fn elf_length(header: &[u8]) -> Option<u64> {
    let table = |offset, size, count| {
        let size = number::<2>(header, size)?.checked_mul(number::<2>(header, count)?)?;
        number::<8>(header, offset)?.checked_add(size)
    };
    // Cubins of 64-bit drivers are 64-bit files.
    if header.get(4) != Some(&2) {
        return None;
    }
    Some(
        table(0x28, 0x3a, 0x3c)?
            .max(table(0x20, 0x36, 0x38)?)
            .max(64),
    )
}

/// Whether every section and segment of an ELF file lies inside it, so that a driver that trusts them reads no further.
fn elf_is_complete(file: &[u8]) -> bool {
    let inside = |offset: u64, length: u64| {
        offset
            .checked_add(length)
            .is_some_and(|end| end <= file.len() as u64)
    };
    let entries = |table, size, count, smallest: u64| {
        let (table, size) = (number::<8>(file, table)?, number::<2>(file, size)?);
        let count = number::<2>(file, count)?;
        (count == 0 || size >= smallest)
            .then(|| (0..count).map(move |index| (table + index * size) as usize))
    };
    let check = || {
        for header in entries(0x28, 0x3a, 0x3c, 64)? {
            // Sections of type 8 (`SHT_NOBITS`) and 0 (`SHT_NULL`) have no bytes in the file.
            let kind = number::<4>(file, header.checked_add(4)?)?;
            let (offset, size) = (
                number::<8>(file, header + 0x18)?,
                number::<8>(file, header + 0x20)?,
            );
            if !matches!(kind, 0 | 8) && !inside(offset, size) {
                return None;
            }
        }
        for header in entries(0x20, 0x36, 0x38, 56)? {
            let (offset, size) = (
                number::<8>(file, header.checked_add(8)?)?,
                number::<8>(file, header + 0x20)?,
            );
            if !inside(offset, size) {
                return None;
            }
        }
        Some(())
    };
    check().is_some()
}

/// The uncompressed parts of a fatbin.
pub(crate) fn fatbin_parts(image: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = number::<2>(image, 6).unwrap_or(u64::MAX);
    std::iter::from_fn(move || {
        let start = usize::try_from(at).ok()?;
        let kind = number::<2>(image, start)?;
        let (header, length) = (
            number::<4>(image, start + 4)?,
            number::<8>(image, start + 8)?,
        );
        let payload = at.checked_add(header).filter(|payload| *payload > at)?;
        at = payload.checked_add(length)?;
        let bytes = image.get(usize::try_from(payload).ok()?..usize::try_from(at).ok()?)?;
        Some((kind, bytes))
    })
    .take(MOST_PARTS)
    .filter_map(|(kind, bytes)| match (kind, format(bytes)) {
        (2, Format::Elf) => Some(bytes),
        (1, Format::Text) => {
            let end = bytes
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(bytes.len());
            // Skip compressed text.
            std::str::from_utf8(&bytes[..end])
                .is_ok_and(|text| text.contains(".version"))
                .then_some(&bytes[..end])
        }
        _ => None,
    })
}

/// Checks an image of known length.
pub(crate) fn check(image: &[u8]) -> Result<(), Code> {
    let complete = match format(image) {
        // Not checked for UTF-8: comments may have any encoding.
        Format::Text => !image.contains(&0),
        Format::Elf => {
            elf_length(image).is_some_and(|length| length <= image.len() as u64)
                && elf_is_complete(image)
        }
        Format::Fatbin => fatbin_length(image).is_some_and(|length| length <= image.len() as u64),
        Format::Wrapper => false,
    };
    complete.then_some(()).ok_or(Code::INVALID_IMAGE)
}

pub(crate) fn fatbin_length(header: &[u8]) -> Option<u64> {
    number::<2>(header, 6)?.checked_add(number::<8>(header, 8)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fatbin(parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, payload) in parts {
            body.extend(kind.to_le_bytes());
            body.extend(0x101u16.to_le_bytes());
            body.extend(64u32.to_le_bytes());
            body.extend((payload.len() as u64).to_le_bytes());
            body.extend([0; 48]);
            body.extend(*payload);
        }
        let mut image = FATBIN_MAGIC.to_vec();
        image.extend([1, 0, 16, 0]);
        image.extend((body.len() as u64).to_le_bytes());
        image.extend(body);
        image
    }

    #[test]
    fn a_fatbin_gives_its_readable_parts() {
        let text = b".version 7.5\n.entry k() {}\0\0\0";
        let image = fatbin(&[
            (1, b"(\xb5/\xfd compressed"),
            (2, b"\x7fELF and so on"),
            (1, text),
        ]);
        let parts: Vec<_> = fatbin_parts(&image).collect();
        assert_eq!(parts, [&b"\x7fELF and so on"[..], &text[..text.len() - 3]]);
        assert!(check(&image).is_ok());
        assert_eq!(check(&image[..image.len() - 1]), Err(Code::INVALID_IMAGE));
    }

    proptest! {
        #[test]
        fn damage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..4) {
            let magic = [*b".ver", ELF_MAGIC, FATBIN_MAGIC, WRAPPER_MAGIC][kind];
            let mut image = magic.to_vec();
            image.extend(bytes);
            let _ = check(&image);
            let _ = fatbin_parts(&image).count();
            let _ = elf_length(&image);
        }
    }
}
