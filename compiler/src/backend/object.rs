//! What a backend made of one function: the parts of its object that a program needs, and what they
//! refer to.
//!
//! A unit names no function by its number, so that it stays good when functions before it come or
//! go: it calls "the third function that its body names", and the module says which one that is.

use std::collections::HashMap;

use object::read::elf::{ElfFile64, SectionHeader as _, Sym as _};
use object::{LittleEndian as LE, elf};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags};
use serde::{Deserialize, Serialize};

/// wasmer's list of instructions that trap: a count, then pairs of offset and code.
const TRAPS: &str = ".w.traps";
/// Prefix of the sections of DWARF.
const DEBUG_PREFIX: &str = ".debug_";
/// Prefix of symbols that every object defines anew and that are to be one.
const SHARED_PREFIX: &str = "DW.ref.";

/// A compiled function or trampoline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    /// The code first; the function begins at its start.
    pub(super) sections: Vec<Section>,
    /// Instructions that trap: the content of wasmer's section, if there is one.
    pub(super) traps: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Section {
    pub(super) kind: Kind,
    /// A power of two.
    pub(super) alignment: u64,
    pub(super) bytes: Vec<u8>,
    /// Ascending by offset.
    pub(super) relocations: Vec<Relocation>,
    /// Sections of one name in several units are one section.
    pub(super) shared: Option<String>,
    /// Which of the debug sections it is.
    pub(super) debug: Option<String>,
}

/// What a section holds, in the order of the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Kind {
    Constants,
    ExceptionTable,
    UnwindTable,
    Code,
    /// Has words that loading fills in.
    Data,
    /// DWARF, which is not loaded.
    Debug,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Relocation {
    /// First byte in the section.
    pub(super) offset: u32,
    /// The architecture's number of it.
    pub(super) kind: u32,
    pub(super) addend: i64,
    pub(super) target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Target {
    /// A place in a section of the unit.
    Section { index: u32, offset: u64 },
    /// The function that the unit's body names in this place of its list of callees.
    Callee(u32),
    /// A library call.
    Symbol(String),
}

/// What is taken from an object beside code, constants and traps.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extras {
    /// Tables for exceptions.
    pub(super) unwind: bool,
    /// DWARF.
    pub(super) debug: bool,
}

/// Why an object is not as expected. All of them are our own failures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("an object cannot be read")]
    Read(#[from] object::Error),
    #[error("the object of {0} defines it nowhere, or not at the start of a section")]
    Function(String),
    #[error("the object of {function} refers to function {callee}, which its body does not name")]
    Callee { function: String, callee: u32 },
    #[error("the object of {0} has an unexpected relocation")]
    Relocation(String),
}

impl Unit {
    /// Takes an object apart. `callee` finds a function's place in the list of callees.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub(super) fn read(
        object: &[u8],
        symbol: &str,
        extras: Extras,
        callee: impl Fn(u32) -> Option<u32>,
    ) -> Result<Self, Error> {
        let file = ElfFile64::<LE>::parse(object)?;
        let root = file
            .symbols()
            .find(|found| found.name() == Ok(symbol) && found.is_definition())
            .filter(|found| found.address() == 0)
            .and_then(|found| found.section_index())
            .ok_or_else(|| Error::Function(symbol.into()))?;
        let mut reader = Reader {
            file: &file,
            symbol,
            callee,
            numbers: HashMap::new(),
            wanted: Vec::new(),
        };
        reader.number(root);
        for section in file.sections() {
            let name = section.name()?;
            if extras.unwind && name == ".eh_frame"
                || extras.debug && name.starts_with(DEBUG_PREFIX)
            {
                reader.number(section.index());
            }
        }
        let mut sections = Vec::new();
        while let Some(index) = reader.wanted.get(sections.len()) {
            let section = reader.section(*index)?;
            sections.push(section);
        }
        let traps = match file.section_by_name(TRAPS) {
            Some(section) => section.data()?.to_vec(),
            None => Vec::new(),
        };
        Ok(Self { sections, traps })
    }
}

struct Reader<'a, 'data, F> {
    file: &'a ElfFile64<'data, LE>,
    symbol: &'a str,
    callee: F,
    /// Our numbers of the object's sections.
    numbers: HashMap<object::SectionIndex, u32>,
    /// The object's sections by our numbers.
    wanted: Vec<object::SectionIndex>,
}

impl<F: Fn(u32) -> Option<u32>> Reader<'_, '_, F> {
    fn number(&mut self, section: object::SectionIndex) -> u32 {
        let wanted = &mut self.wanted;
        *self.numbers.entry(section).or_insert_with(|| {
            wanted.push(section);
            wanted.len() as u32 - 1
        })
    }

    fn section(&mut self, index: object::SectionIndex) -> Result<Section, Error> {
        let section = self.file.section_by_index(index)?;
        let name = section.name()?;
        let header = section.elf_section_header();
        let flags = header.sh_flags(LE);
        let kind = if name == ".eh_frame" {
            Kind::UnwindTable
        } else if name.starts_with(".gcc_except_table") {
            Kind::ExceptionTable
        } else if flags.contains(elf::SHF_EXECINSTR) {
            Kind::Code
        } else if name.starts_with(DEBUG_PREFIX) {
            Kind::Debug
        } else if flags.contains(elf::SHF_WRITE) || name.starts_with(".data") {
            Kind::Data
        } else {
            Kind::Constants
        };
        let shared = self.file.symbols().find_map(|symbol| {
            let name = symbol.name().ok()?;
            let here = symbol.section_index() == Some(index) && symbol.address() == 0;
            (here && name.starts_with(SHARED_PREFIX)).then(|| name.to_owned())
        });
        let mut relocations = Vec::new();
        for (offset, relocation) in section.relocations() {
            relocations.push(self.relocation(offset, &relocation)?);
        }
        // As the object has them; a stable order for places that have several.
        relocations.sort_by_key(|relocation| relocation.offset);
        Ok(Section {
            kind,
            alignment: section.align().max(1),
            bytes: section.data()?.to_vec(),
            relocations,
            shared,
            debug: (kind == Kind::Debug).then(|| name.to_owned()),
        })
    }

    fn relocation(
        &mut self,
        offset: u64,
        relocation: &object::Relocation,
    ) -> Result<Relocation, Error> {
        let unexpected = || Error::Relocation(self.symbol.into());
        let RelocationFlags::Elf { r_type } = relocation.flags() else {
            return Err(unexpected());
        };
        let object::RelocationTarget::Symbol(index) = relocation.target() else {
            return Err(unexpected());
        };
        let offset = u32::try_from(offset).map_err(|_| unexpected())?;
        let symbol = self.file.symbol_by_index(index)?;
        let target = match symbol.section_index() {
            Some(section) => Target::Section {
                index: self.number(section),
                offset: symbol.elf_symbol().st_value(LE),
            },
            None => self.undefined(symbol.name()?)?,
        };
        Ok(Relocation {
            offset,
            kind: r_type.0,
            addend: relocation.addend(),
            target,
        })
    }

    /// wasmer's names of functions are `f` and the number; no library call is named like that.
    fn undefined(&self, name: &str) -> Result<Target, Error> {
        let number = name
            .strip_prefix('f')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        match number {
            None => Ok(Target::Symbol(name.into())),
            Some(number) => match (self.callee)(number) {
                Some(place) => Ok(Target::Callee(place)),
                None => Err(Error::Callee {
                    function: self.symbol.into(),
                    callee: number,
                }),
            },
        }
    }
}
