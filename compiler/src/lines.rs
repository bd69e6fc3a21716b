//! From the DWARF that a backend wrote to the artifact's table of source lines.
//!
//! A backend that is given a module's DWARF translates its line information to the code that it
//! makes. What it writes for a module without DWARF are offsets, no lines; nothing is read then.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use faas_wasm_artifact::LineTable;
use gimli::{Dwarf, EndianSlice, LittleEndian, SectionId, Unit};
use object::{Object as _, ObjectSection as _};

use crate::error::BackendOutput;

/// What the backends name as the file of code without a place in the source; their line is an
/// offset then.
const NO_FILE: &str = "<module>";

/// The longest path of a source file in bytes: Linux's `PATH_MAX`.
const LONGEST_PATH: usize = 4096;

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Collects the source lines of a linked object's code.
///
/// # Errors
///
/// [`BackendOutput`] if it has DWARF that cannot be read.
pub(crate) fn read(elf: &[u8]) -> Result<LineTable, BackendOutput> {
    let file = object::File::parse(elf)?;
    read_sections(|name| {
        let data = file.section_by_name(name);
        Ok(data.map_or(Ok(&[][..]), |section| section.data())?)
    })
}

/// Collects the source lines of DWARF, whose sections `find` gives by name.
///
/// # Errors
///
/// See [`read`], and what `find` says.
pub(crate) fn read_sections<'a>(
    find: impl Fn(&str) -> Result<&'a [u8], BackendOutput>,
) -> Result<LineTable, BackendOutput> {
    let dwarf = Dwarf::load(|section| -> Result<_, BackendOutput> {
        Ok(EndianSlice::new(find(section.name())?, LittleEndian))
    })?;
    let mut collector = Collector {
        dwarf: &dwarf,
        table: LineTable::default(),
        seen: HashSet::new(),
        left: find(SectionId::DebugLine.name())?.len(),
    };
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        collector.add_unit(&dwarf.unit(header)?)?;
    }
    Ok(collector.table)
}

struct Collector<'d, 'a> {
    dwarf: &'d Dwarf<Reader<'a>>,
    table: LineTable,
    /// Programs that were read. Several units can share one.
    seen: HashSet<usize>,
    /// Bytes that are left for further programs, which do not overlap.
    left: usize,
}

impl<'a> Collector<'_, 'a> {
    fn add_unit(&mut self, unit: &Unit<Reader<'a>>) -> Result<(), BackendOutput> {
        let Some(program) = unit.line_program.clone() else {
            return Ok(());
        };
        if !self.seen.insert(program.header().offset().0) {
            return Ok(());
        }
        let length = program.header().raw_program_buf().len();
        let Some(left) = self.left.checked_sub(length) else {
            return Ok(());
        };
        self.left = left;
        let mut rows = program.rows();
        // Resolve each path once: a program of N bytes can make N rows for a file with a path of N bytes.
        let mut files = HashMap::new();
        while let Some((header, row)) = rows.next_row()? {
            let Ok(address) = u32::try_from(row.address()) else {
                return Err(BackendOutput::Address(row.address()));
            };
            let line = row.line().and_then(|line| u32::try_from(line.get()).ok());
            let place = match (row.end_sequence(), line, row.file(header)) {
                (false, Some(line), Some(file)) => {
                    let file = match files.entry(row.file_index()) {
                        Entry::Occupied(known) => *known.get(),
                        Entry::Vacant(new) => {
                            let path = path(self.dwarf, unit, file, header)?;
                            let path = path.filter(|path| path != NO_FILE);
                            *new.insert(path.map(|path| self.table.file(path)))
                        }
                    };
                    file.map(|file| (file, line))
                }
                _ => None,
            };
            self.table.insert(address, place);
        }
        Ok(())
    }
}

/// Directory and name, as the source's compiler gave them. `None` if the path is longer than [`LONGEST_PATH`].
fn path(
    dwarf: &Dwarf<Reader<'_>>,
    unit: &Unit<Reader<'_>>,
    file: &gimli::FileEntry<Reader<'_>>,
    header: &gimli::LineProgramHeader<Reader<'_>>,
) -> Result<Option<String>, BackendOutput> {
    let name = dwarf.attr_string(unit, file.path_name())?;
    let directory = match file.directory(header) {
        Some(directory) if !name.starts_with(b"/") => {
            trim_end_slashes(dwarf.attr_string(unit, directory)?.slice())
        }
        _ => b"",
    };
    let path = match directory {
        b"" | b"." if name.len() <= LONGEST_PATH => name.to_vec(),
        // Check before copying: many files can share one long directory.
        _ if directory.len() + 1 + name.len() > LONGEST_PATH => return Ok(None),
        _ => [directory, b"/", name.slice()].concat(),
    };
    Ok(Some(String::from_utf8_lossy(&path).into_owned()))
}

fn trim_end_slashes(mut path: &[u8]) -> &[u8] {
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    path
}

#[cfg(test)]
mod tests {
    use faas_wasm_artifact::{SourceLine, source_lines};

    use super::*;

    /// The table of a line program of DWARF 4 with one directory and one file.
    fn lines(directory: &str, file: &str, program: &[u8]) -> LineTable {
        let prefixed = |bytes: Vec<u8>| [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat();
        // Instructions of one byte, statements, line base -1, line range 4, and 10 standard opcodes.
        let mut header = vec![1, 1, 1, 0xff, 4, 10, 0, 1, 1, 1, 1, 0, 0, 0, 1];
        header.extend(
            [
                directory.as_bytes(),
                b"\0\0",
                file.as_bytes(),
                b"\0\x01\0\0\0",
            ]
            .concat(),
        );
        let line = prefixed([&[4, 0][..], &prefixed(header), program].concat());
        // A unit with an abbreviation: DW_TAG_compile_unit with DW_AT_stmt_list as DW_FORM_sec_offset.
        let info = prefixed(vec![4, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0, 0]);
        let sections = |name: &str| -> Result<&[u8], BackendOutput> {
            Ok(match name {
                ".debug_line" => &line,
                ".debug_info" => &info,
                ".debug_abbrev" => &[1, 0x11, 0, 0x10, 0x17, 0, 0, 0],
                _ => &[],
            })
        };
        read_sections(sections).expect("it can be read")
    }

    /// Sets the address to 256, and makes a row for each of so many bytes, in the same line.
    fn rows(count: usize) -> Vec<u8> {
        let mut program = vec![0, 9, 2, 0, 1, 0, 0, 0, 0, 0, 0];
        // Special opcode: one byte further, no line further.
        program.resize(program.len() + count, 10 + 1 + 4);
        program
    }

    #[test]
    fn rows_have_directory_and_name() {
        for (directory, file, path) in [
            ("dir//", "a.c", "dir/a.c"),
            (".", "a.c", "a.c"),
            ("dir", "/a.c", "/a.c"),
        ] {
            let table = lines(directory, file, &rows(3));
            let place = SourceLine {
                file: path.into(),
                line: 1,
            };
            let found = source_lines(&table.encode(), &[256, 258, 259]);
            assert_eq!(found, [None, Some(place.clone()), Some(place)], "{path}");
        }
    }

    #[test]
    fn paths_longer_than_the_limit_are_left_out() {
        // A path for each row would need 64 GiB.
        let long = "a".repeat(1 << 20);
        assert!(lines(".", &long, &rows(1 << 16)).is_empty());
        assert!(lines(&long, "a.c", &rows(1)).is_empty());
        let longest = "a".repeat(LONGEST_PATH);
        assert!(!lines(".", &longest, &rows(1 << 16)).is_empty());
        assert!(lines("dir", &longest, &rows(1)).is_empty());
    }
}
