//! For the fuzz targets in `tests/fuzz`: gives mutated artifacts valid checksums, so that the mutations reach the
//! decoders and checks behind them.

use crate::directory;
use crate::header::{
    FAST_SUM, FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, REGIONS, Range, Region, number_at,
};

/// An artifact of `size` bytes with these sections, a header with valid checksums, and zeros.
///
/// # Panics
///
/// If the sections do not fit.
pub fn assemble(size: usize, manifest: &[u8], module: &[u8], tables: &[u8]) -> Vec<u8> {
    let mut header = Header::new(size as u64);
    let mut file = vec![0; size];
    let mut end = size - HEADER_SIZE;
    let sections = [
        (Region::Manifest, manifest),
        (Region::Module, module),
        (Region::Tables, tables),
    ];
    for (region, content) in sections {
        let start = end - content.len();
        file[start..end].copy_from_slice(content);
        let range = Range {
            offset: start as u64,
            length: content.len() as u64,
        };
        header.set_region(region, range);
        end = start;
    }
    file[size - HEADER_SIZE..].copy_from_slice(&header.encode());
    seal(&mut file);
    file
}

/// Gives a file the magic numbers, version, sizes and fast sums of an artifact, or of a fat one if its last bytes begin
/// like a directory. All other bytes stay as they are; so does a file that is shorter than a header.
pub fn seal(file: &mut [u8]) {
    let size = file.len();
    let Some(mut end) = file.last_chunk::<HEADER_SIZE>().copied() else {
        return;
    };
    file[..4].copy_from_slice(b"\x7fELF");
    if end.starts_with(&directory::MAGIC) {
        for slot in end[directory::ENTRIES..].chunks_exact(directory::ENTRY_SIZE) {
            let Some((place, _)) = slot.split_first_chunk::<16>() else {
                continue;
            };
            let (offset, length) = place.split_at(8);
            let number = |bytes: &[u8]| bytes.try_into().map_or(u64::MAX, u64::from_le_bytes);
            let place = Range {
                offset: number(offset),
                length: number(length),
            };
            if let Some(place) = place.within(size - HEADER_SIZE) {
                seal_header(file, place.end);
            }
        }
        end[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        end[16..24].copy_from_slice(&(size as u64).to_le_bytes());
        let sum = directory::sum(&end);
        end[FAST_SUM].copy_from_slice(&sum.to_le_bytes());
        file[size - HEADER_SIZE..].copy_from_slice(&end);
    } else {
        seal_header(file, size);
    }
}

/// Seals the header that ends at `end`, if there is room for one.
fn seal_header(file: &mut [u8], end: usize) {
    let size = file.len();
    let Some(mut header) = file[..end].last_chunk::<HEADER_SIZE>().copied() else {
        return;
    };
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(Region::ALL.len() as u32).to_le_bytes());
    header[16..24].copy_from_slice(&(size as u64).to_le_bytes());
    header[REGIONS.end..].fill(0);
    let place = end - HEADER_SIZE..end;
    file[place.clone()].copy_from_slice(&header);
    if let Some(sum) = Header::decode(&header).sum_load_set(file) {
        header[FAST_SUM].copy_from_slice(&sum.to_le_bytes());
        file[place].copy_from_slice(&header);
    }
    debug_assert_eq!(number_at(&header, 16), size as u64);
}
