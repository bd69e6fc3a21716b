//! From the DWARF that a backend wrote to the artifact's table of source lines.
//!
//! A backend that is given a module's DWARF translates its line information to the code that it
//! makes. What it writes for a module without DWARF are offsets, no lines; nothing is read then.

use std::borrow::Cow;

use faas_wasm_artifact::{LineTable, SourceLine};
use gimli::{AttributeValue, Dwarf, EndianSlice, LittleEndian, Unit};
use object::{Object as _, ObjectSection as _};

use crate::error::BackendOutput;

/// What the backends name as the file of code without a place in the source; their line is an
/// offset then.
const NO_FILE: &str = "<module>";

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Collects the source lines of a linked object's code.
///
/// # Errors
///
/// [`BackendOutput`] if it has DWARF that cannot be read.
pub(crate) fn read(elf: &[u8]) -> Result<LineTable, BackendOutput> {
    let file = object::File::parse(elf)?;
    let dwarf = Dwarf::load(|section| -> Result<_, BackendOutput> {
        let data = file.section_by_name(section.name());
        let data = data.map_or(Ok(&[][..]), |section| section.data())?;
        Ok(EndianSlice::new(data, LittleEndian))
    })?;
    let mut table = LineTable::default();
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        add_unit(&dwarf, &dwarf.unit(header)?, &mut table)?;
    }
    Ok(table)
}

fn add_unit(
    dwarf: &Dwarf<Reader<'_>>,
    unit: &Unit<Reader<'_>>,
    table: &mut LineTable,
) -> Result<(), BackendOutput> {
    let Some(program) = unit.line_program.clone() else {
        return Ok(());
    };
    let mut rows = program.rows();
    while let Some((header, row)) = rows.next_row()? {
        let Ok(address) = u32::try_from(row.address()) else {
            return Err(BackendOutput::Address(row.address()));
        };
        let line = row.line().and_then(|line| u32::try_from(line.get()).ok());
        let place = match (row.end_sequence(), line, row.file(header)) {
            (false, Some(line), Some(file)) => Some(SourceLine {
                file: path(dwarf, unit, file, header)?,
                line,
            }),
            _ => None,
        };
        table.insert(address, place.filter(|place| place.file != NO_FILE));
    }
    Ok(())
}

/// Directory and name, as the source's compiler gave them.
fn path(
    dwarf: &Dwarf<Reader<'_>>,
    unit: &Unit<Reader<'_>>,
    file: &gimli::FileEntry<Reader<'_>>,
    header: &gimli::LineProgramHeader<Reader<'_>>,
) -> Result<String, BackendOutput> {
    let text = |value: AttributeValue<Reader<'_>>| -> Result<String, BackendOutput> {
        let bytes = dwarf.attr_string(unit, value)?;
        Ok(match bytes.to_string_lossy() {
            Cow::Borrowed(text) => text.to_owned(),
            Cow::Owned(text) => text,
        })
    };
    let name = text(file.path_name())?;
    if name.starts_with('/') {
        return Ok(name);
    }
    let directory = match file.directory(header) {
        Some(directory) => text(directory)?,
        None => String::new(),
    };
    Ok(match directory.trim_end_matches('/') {
        "" | "." => name,
        directory => format!("{directory}/{name}"),
    })
}
