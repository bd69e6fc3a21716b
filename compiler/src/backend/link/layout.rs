//! Where everything lies, found out before anything is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use object::elf::{self, Machine};

use super::relocate::{Need, Refusal, STUB_SIZE, need};
use super::{Error, Program, units};
use crate::backend::object::{Kind, Relocation, Section, Target, Unit};

/// Size of the ELF header, and of one program header.
pub(super) const HEADER: u64 = 64;
pub(super) const PROGRAM_HEADER: u64 = 56;
/// Read, execute, write, dynamic, protected after relocation, and that the stack is not code.
pub(super) const PROGRAM_HEADERS: u64 = 6;
/// An entry of `.dynsym`, of `.rela.dyn`, of `.dynamic`, and the number of the latter.
pub(super) const SYMBOL: u64 = 24;
pub(super) const DYNAMIC_RELOCATION: u64 = 24;
pub(super) const DYNAMIC: u64 = 16;
pub(super) const DYNAMICS: u64 = 7;
/// A word of a library call.
const WORD: u64 = 8;

/// A word of eight bytes to fill in when the program is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoadedWord {
    pub(super) place: u64,
    /// A library call, by its place in [`Layout::symbols`], or nothing for an address of ours.
    pub(super) symbol: Option<u32>,
    pub(super) addend: i64,
}

#[derive(Debug)]
pub(super) struct Layout {
    /// Address of each section of each unit.
    sections: Vec<Vec<u64>>,
    /// Sections that are another's second copy.
    copies: Vec<Vec<bool>>,
    /// Parts of the file by kind, in the order of [`Kind`].
    pub(super) parts: BTreeMap<Kind, Range<u64>>,
    /// The library calls in the order in which they are met, with a number.
    symbols: BTreeMap<String, u32>,
    pub(super) symbol_names: Vec<String>,
    pub(super) dynamic_symbols: Range<u64>,
    pub(super) dynamic_strings: Range<u64>,
    pub(super) dynamic_relocations: Range<u64>,
    pub(super) dynamic: Range<u64>,
    pub(super) words: Range<u64>,
    stubs: u64,
    pub(super) read: Range<u64>,
    pub(super) execute: Range<u64>,
    pub(super) write: Range<u64>,
    pub(super) page: u64,
    pub(super) loaded: Vec<LoadedWord>,
    /// Sizes of the debug sections, whose addresses are offsets in them.
    pub(super) debug: BTreeMap<String, u64>,
}

impl Layout {
    pub(super) fn new(program: &Program<'_>) -> Result<Self, Error> {
        let symbol_names = symbols(program);
        let symbols = (0..)
            .zip(&symbol_names)
            .map(|(number, name)| (name.clone(), number))
            .collect();
        let count = symbol_names.len() as u64;
        let strings: usize = symbol_names.iter().map(|name| name.len() + 1).sum();
        let page = page_size(program.machine);
        let mut layout = Self {
            sections: Vec::new(),
            copies: Vec::new(),
            parts: BTreeMap::new(),
            symbols,
            symbol_names,
            dynamic_symbols: 0..0,
            dynamic_strings: 0..0,
            dynamic_relocations: 0..0,
            dynamic: 0..0,
            words: 0..0,
            stubs: 0,
            read: 0..0,
            execute: 0..0,
            write: 0..0,
            page,
            loaded: Vec::new(),
            debug: BTreeMap::new(),
        };
        let mut end = HEADER + PROGRAM_HEADERS * PROGRAM_HEADER;
        let mut take = |alignment: u64, size: u64| {
            let start = end.next_multiple_of(alignment);
            end = start + size;
            start..end
        };
        layout.dynamic_symbols = take(8, (count + 1) * SYMBOL);
        layout.dynamic_strings = take(1, strings as u64 + 1);
        let loaded = count + loaded_places(program)?;
        layout.dynamic_relocations = take(8, loaded * DYNAMIC_RELOCATION);

        let mut place = Placement::new(program);
        for kind in [Kind::Constants, Kind::ExceptionTable, Kind::UnwindTable] {
            // Unwind tables end with a word of zeros.
            let terminator = if kind == Kind::UnwindTable { 4 } else { 0 };
            let part = place.kind(kind, end, terminator);
            end = part.end;
            layout.parts.insert(kind, part);
        }
        layout.read = 0..end;
        let mut code = place.kind(Kind::Code, end.next_multiple_of(page), 0);
        layout.stubs = code.end.next_multiple_of(STUB_SIZE);
        code.end = layout.stubs + count * STUB_SIZE;
        layout.execute = code.clone();
        end = code.end.next_multiple_of(page);
        layout.parts.insert(Kind::Code, code);
        let start = end;
        layout.dynamic = start..start + DYNAMICS * DYNAMIC;
        let data = place.kind(Kind::Data, layout.dynamic.end, 0);
        let words = data.end.next_multiple_of(WORD);
        layout.words = words..words + count * WORD;
        layout.parts.insert(Kind::Data, data);
        layout.write = start..layout.words.end;
        layout.debug = place.debug();
        (layout.sections, layout.copies) = (place.addresses, place.copies);
        layout.loaded = layout.load(program)?;
        Ok(layout)
    }

    /// Address of a unit's section.
    pub(super) fn address(&self, unit: usize, section: usize) -> u64 {
        self.sections[unit][section]
    }

    /// Whether the section is there by itself, and not as another's copy.
    pub(super) fn is_first(&self, unit: usize, section: usize) -> bool {
        !self.copies[unit][section]
    }

    /// Address of a target; a library call's is its stub.
    pub(super) fn target(
        &self,
        program: &Program<'_>,
        unit: usize,
        target: &Target,
    ) -> Option<u64> {
        match target {
            Target::Section { index, offset } => {
                let sections = self.sections.get(unit)?;
                Some(sections.get(*index as usize)? + offset)
            }
            Target::Callee(place) => {
                let callee = program.callees.get(unit)?.get(*place as usize)?;
                self.function(*callee)
            }
            Target::Symbol(name) => {
                Some(self.stubs + u64::from(*self.symbols.get(name)?) * STUB_SIZE)
            }
        }
    }

    /// Address of the word that holds a library call's.
    pub(super) fn word(&self, target: &Target) -> Option<u64> {
        match target {
            Target::Symbol(name) => {
                Some(self.words.start + u64::from(*self.symbols.get(name)?) * WORD)
            }
            // Whatever is ours is within reach; no compiler asks for a word.
            Target::Section { .. } | Target::Callee(_) => None,
        }
    }

    /// What the relocation at a target needs, and the target.
    pub(super) fn upper(
        &self,
        program: &Program<'_>,
        unit: usize,
        target: &Target,
    ) -> Option<(u64, u64)> {
        let Target::Section { index, offset } = target else {
            return None;
        };
        let section = program.unit(unit)?.sections.get(*index as usize)?;
        let at = |relocation: &&Relocation| {
            let need = need(program.machine, relocation.kind);
            u64::from(relocation.offset) == *offset
                && matches!(need, Ok(Need::Address | Need::Word))
        };
        let upper = section.relocations.iter().find(at)?;
        let value = match need(program.machine, upper.kind).ok()? {
            Need::Word => self.word(&upper.target)?,
            _ => self.target(program, unit, &upper.target)?,
        };
        let place = self.target(program, unit, target)?;
        Some((value.wrapping_add_signed(upper.addend), place))
    }

    /// Address of a defined function.
    pub(super) fn function(&self, index: u32) -> Option<u64> {
        Some(*self.sections.get(index as usize)?.first()?)
    }

    /// Address of a word and of the stub that jumps to what it holds.
    pub(super) fn stubs(&self) -> impl Iterator<Item = (u64, u64)> {
        let (words, stubs) = (self.words.start, self.stubs);
        (0..self.symbol_names.len() as u64)
            .map(move |number| (words + number * WORD, stubs + number * STUB_SIZE))
    }

    /// The words that loading fills in.
    fn load(&self, program: &Program<'_>) -> Result<Vec<LoadedWord>, Error> {
        let mut loaded = Vec::new();
        for (number, unit) in units(program) {
            for (index, section) in unit.sections.iter().enumerate() {
                if !self.is_first(number, index) || section.kind == Kind::Debug {
                    continue;
                }
                for relocation in &section.relocations {
                    let place = self.address(number, index) + u64::from(relocation.offset);
                    let kind = relocation.kind;
                    if need(program.machine, kind) != Ok(Need::Load) {
                        continue;
                    }
                    // Nothing else can be written to while a program is loaded.
                    if section.kind != Kind::Data {
                        return Err(Error::UnknownRelocation { kind, place });
                    }
                    let missing = || Error::Target { kind, place };
                    loaded.push(match &relocation.target {
                        Target::Symbol(name) => LoadedWord {
                            place,
                            symbol: Some(*self.symbols.get(name).ok_or_else(missing)?),
                            addend: relocation.addend,
                        },
                        target => {
                            let address = self.target(program, number, target);
                            let address = address.ok_or_else(missing)?;
                            LoadedWord {
                                place,
                                symbol: None,
                                addend: address as i64 + relocation.addend,
                            }
                        }
                    });
                }
            }
        }
        loaded.extend(
            (0..)
                .zip(self.stubs())
                .map(|(number, (word, _))| LoadedWord {
                    place: word,
                    symbol: Some(number),
                    addend: 0,
                }),
        );
        Ok(loaded)
    }
}

/// Places units kind by kind.
struct Placement<'a> {
    units: Vec<&'a Unit>,
    addresses: Vec<Vec<u64>>,
    copies: Vec<Vec<bool>>,
}

impl<'a> Placement<'a> {
    fn new(program: &Program<'a>) -> Self {
        let units: Vec<_> = units(program).map(|(_, unit)| unit).collect();
        let empty = |unit: &&Unit| vec![0; unit.sections.len()];
        Self {
            addresses: units.iter().map(empty).collect(),
            copies: units
                .iter()
                .map(|unit| vec![false; unit.sections.len()])
                .collect(),
            units,
        }
    }

    /// Places the debug sections, those of a name behind each other.
    fn debug(&mut self) -> BTreeMap<String, u64> {
        let mut sizes = BTreeMap::new();
        for (number, unit) in self.units.iter().enumerate() {
            for (index, section) in unit.sections.iter().enumerate() {
                if let Some(name) = &section.debug {
                    let size: &mut u64 = sizes.entry(name.clone()).or_default();
                    // Units of DWARF follow each other without gaps.
                    self.addresses[number][index] = *size;
                    *size += section.bytes.len() as u64;
                }
            }
        }
        sizes
    }

    /// Places all sections of a kind from `start` on.
    fn kind(&mut self, kind: Kind, start: u64, terminator: u64) -> Range<u64> {
        let mut end = start;
        let mut first = None;
        let mut known: HashMap<Identity<'a>, u64> = HashMap::new();
        for (number, unit) in self.units.iter().enumerate() {
            for (index, section) in unit.sections.iter().enumerate() {
                if section.kind != kind {
                    continue;
                }
                let alignment = match kind {
                    // Their entries are multiples of four bytes; a gap would end the table.
                    Kind::UnwindTable => 4,
                    _ => section.alignment,
                };
                let place = end.next_multiple_of(alignment);
                let address = match Identity::of(section) {
                    Some(identity) => *known.entry(identity).or_insert(place),
                    None => place,
                };
                if address == place {
                    first.get_or_insert(place);
                    end = place + section.bytes.len() as u64;
                } else {
                    self.copies[number][index] = true;
                }
                self.addresses[number][index] = address;
            }
        }
        // An empty section of an identity that is known looks like a new one; it has no bytes.
        match first {
            Some(first) => first..end + terminator,
            None => start..start,
        }
    }
}

/// What makes two sections one.
#[derive(PartialEq, Eq, Hash)]
enum Identity<'a> {
    Name(&'a str),
    Content(u64, &'a [u8]),
}

impl<'a> Identity<'a> {
    fn of(section: &'a Section) -> Option<Self> {
        if let Some(name) = &section.shared {
            return Some(Self::Name(name));
        }
        let constant = section.kind == Kind::Constants && section.relocations.is_empty();
        constant.then_some(Self::Content(section.alignment, &section.bytes))
    }
}

/// Names of the library calls, in the order in which they are met.
fn symbols(program: &Program<'_>) -> Vec<String> {
    let mut known = BTreeSet::new();
    let mut names = Vec::new();
    for (_, unit) in units(program) {
        for relocation in unit
            .sections
            .iter()
            .flat_map(|section| &section.relocations)
        {
            if let Target::Symbol(name) = &relocation.target
                && known.insert(name.as_str())
            {
                names.push(name.clone());
            }
        }
    }
    names
}

/// At least as many words as loading fills in, those of library calls apart.
fn loaded_places(program: &Program<'_>) -> Result<u64, Error> {
    let mut count = 0;
    let mut shared = BTreeSet::new();
    for (_, unit) in units(program) {
        for section in unit
            .sections
            .iter()
            .filter(|section| section.kind != Kind::Debug)
        {
            let first = match &section.shared {
                Some(name) => shared.insert(name.as_str()),
                None => true,
            };
            for relocation in &section.relocations {
                let kind = relocation.kind;
                let need = need(program.machine, kind).map_err(|refusal| match refusal {
                    Refusal::Unknown | Refusal::TooFar => {
                        let place = u64::from(relocation.offset);
                        Error::UnknownRelocation { kind, place }
                    }
                })?;
                count += u64::from(first && need == Need::Load);
            }
        }
    }
    Ok(count)
}

/// The largest page of a Linux kernel for the architecture.
fn page_size(machine: Machine) -> u64 {
    match machine {
        elf::EM_AARCH64 => 0x1_0000,
        _ => 0x1000,
    }
}
