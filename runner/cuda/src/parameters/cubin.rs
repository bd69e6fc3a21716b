//! Parameters from a cubin: the records of section `.nv.info.<kernel>`.
//!
//! A record has a format byte, an attribute byte, and two bytes of value or length; with format 4, that many bytes
//! follow. Attribute 0x17 describes one parameter: a word, ordinal and offset of two bytes each, and a word with the
//! address space of pointers in bits 8..12 and the size from bit 18 on. Source: the output of ptxas 13.0 for our
//! kernels.

use super::{Layout, MOST, Parameter, Role};

const FORMAT_SIZED: u8 = 4;
const PARAMETER: u8 = 0x17;

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(data: &[u8], at: usize) -> Option<u16> {
    bytes(data, at).map(u16::from_le_bytes)
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    bytes(data, at).map(u32::from_le_bytes)
}

fn place(data: &[u8], at: usize) -> Option<usize> {
    usize::try_from(bytes(data, at).map(u64::from_le_bytes)?).ok()
}

/// Contents of a section of a 64-bit little-endian ELF file.
fn section<'a>(elf: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let headers = place(elf, 0x28)?;
    let (size, count, names) = (half(elf, 0x3a)?, half(elf, 0x3c)?, half(elf, 0x3e)?);
    let header = |index: u16| headers.checked_add(usize::from(index) * usize::from(size));
    let contents = |header: usize| {
        let (start, length) = (
            place(elf, header.checked_add(0x18)?)?,
            place(elf, header.checked_add(0x20)?)?,
        );
        elf.get(start..start.checked_add(length)?)
    };
    let names = contents(header(names)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let own = names.get(word(elf, header)? as usize..)?;
        // Do not search for the end of the name: each of 65,535 sections may have a name as long as the file.
        let behind = own.strip_prefix(name.as_bytes())?;
        if behind.first() != Some(&0) {
            return None;
        }
        contents(header)
    })
}

/// The parameters of a kernel.
pub(super) fn layout(elf: &[u8], kernel: &str) -> Option<Layout> {
    let info = section(elf, &format!(".nv.info.{kernel}"))?;
    let mut found: Vec<(u16, Parameter, bool)> = Vec::new();
    let mut at = 0;
    while let (Some(head), Some(value)) = (bytes::<2>(info, at), half(info, at + 2)) {
        at += 4;
        if head[0] != FORMAT_SIZED {
            continue;
        }
        if head[1] == PARAMETER && value >= 12 {
            let (ordinal, offset) = (half(info, at + 4)?, half(info, at + 6)?);
            let flags = word(info, at + 8)?;
            let parameter = Parameter {
                offset: usize::from(offset),
                size: (flags >> 18) as usize,
                role: Role::Value,
            };
            found.push((ordinal, parameter, flags >> 8 & 0xf != 0));
            if found.len() > MOST {
                return None;
            }
        }
        at += usize::from(value);
    }
    found.sort_unstable_by_key(|(ordinal, ..)| *ordinal);
    let in_order = found
        .iter()
        .enumerate()
        .all(|(index, (ordinal, ..))| index == usize::from(*ordinal));
    if !in_order {
        return None;
    }
    // The compiler that writes the PTX marks either every pointer or none. So if one parameter has a space, a parameter
    // without one is not a pointer.
    let exact = found.iter().any(|(.., marked)| *marked);
    let parameters = found
        .into_iter()
        .map(|(_, parameter, marked)| {
            let role = match (parameter.size, marked) {
                (8, true) => Role::Pointer,
                (8, false) if !exact => Role::Unknown,
                _ => Role::Value,
            };
            Parameter { role, ..parameter }
        })
        .collect();
    Layout::new(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with one section of records in the format of ptxas.
    fn elf(records: &[(u16, u16, u32, u32)]) -> Vec<u8> {
        let mut info = vec![4, 0x37, 4, 0, 0x82, 0, 0, 0];
        for (ordinal, offset, space, size) in records.iter().rev() {
            info.extend([4, 0x17, 12, 0]);
            info.extend(0u32.to_le_bytes());
            info.extend(ordinal.to_le_bytes());
            info.extend(offset.to_le_bytes());
            info.extend((size << 18 | 0x1f000 | space << 8).to_le_bytes());
        }
        let names = b"\0.nv.info.k\0.shstrtab\0";
        let mut file = vec![0; 64];
        file[..4].copy_from_slice(b"\x7fELF");
        let info_at = file.len();
        file.extend(&info);
        let names_at = file.len();
        file.extend(names);
        let headers_at = file.len();
        for (name, at, length) in [
            (0u32, 0, 0),
            (1, info_at, info.len()),
            (12, names_at, names.len()),
        ] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            file.extend(header);
        }
        file[0x28..0x30].copy_from_slice(&(headers_at as u64).to_le_bytes());
        file[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        file
    }

    fn roles(records: &[(u16, u16, u32, u32)]) -> Vec<Role> {
        let layout = layout(&elf(records), "k").expect("a layout");
        layout
            .parameters
            .iter()
            .map(|parameter| parameter.role)
            .collect()
    }

    #[test]
    fn a_space_makes_all_certain() {
        use Role::*;
        assert_eq!(
            roles(&[(0, 0, 5, 8), (1, 8, 0, 8), (2, 16, 0, 4)]),
            [Pointer, Value, Value]
        );
        assert_eq!(
            roles(&[(0, 0, 0, 8), (1, 8, 0, 8), (2, 16, 0, 24)]),
            [Unknown, Unknown, Value]
        );
        let layout = layout(&elf(&[(0, 0, 0, 8), (1, 8, 0, 24)]), "k").unwrap();
        assert_eq!(layout.size, 32);
    }

    #[test]
    fn other_kernels_and_gaps_are_not_found() {
        assert_eq!(layout(&elf(&[(0, 0, 0, 8)]), "other"), None);
        assert_eq!(
            layout(&elf(&[(1, 0, 0, 8)]), "k"),
            None,
            "parameter 0 is missing"
        );
        assert_eq!(layout(&elf(&[(0, 0xffff, 0, 8)]), "k"), None, "too far out");
    }

    #[test]
    fn names_are_not_searched_for_their_ends() {
        // 65,535 sections whose name is 4 MiB long and has no end: searching for it would take minutes.
        let mut file = elf(&[]);
        let (headers, names) = (place(&file, 0x28).unwrap(), file.len());
        file[0x3a..0x40].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0]);
        file[headers + 0x18..headers + 0x20].copy_from_slice(&(names as u64).to_le_bytes());
        file[headers + 0x20..headers + 0x28].copy_from_slice(&(1_u64 << 22).to_le_bytes());
        file.resize(names + (1 << 22), b'n');
        assert_eq!(layout(&file, "k"), None);
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..400, value: u8, cut in 0usize..400) {
            let mut file = elf(&[(0, 0, 5, 8), (1, 8, 0, 8)]);
            if let Some(byte) = file.get_mut(at) {
                *byte = value;
            }
            file.truncate(file.len().saturating_sub(cut));
            let _ = layout(&file, "k");
        }
    }
}
