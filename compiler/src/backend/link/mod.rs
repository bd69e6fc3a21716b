//! The link: units to one ELF shared object, in memory, for any of our architectures.
//!
//! It does what a program of compiled WebAssembly needs and no more: calls between functions are
//! direct, library calls go through one stub and one word each, equal constants are stored once.
//! What comes out depends on nothing but the units and their order.
//!
//! ```text
//! ELF header, program headers, .dynsym .dynstr .rela.dyn, constants, unwind tables     read
//! functions, call trampolines, stubs                                                    execute
//! .dynamic, data with addresses, words of library calls                                 write
//! ---- not loaded: .symtab .strtab, wasmer's lists of addresses and traps
//! ```
//!
//! Addresses are file offsets, so that each part begins on a page of its own. The lists at the end
//! have wasmer's names and form: they are what [`crate::convert`] reads.

mod image;
mod layout;
mod relocate;

use std::collections::BTreeMap;

use object::elf::Machine;

use self::image::Image;
use self::layout::Layout;
use self::relocate::{Need, Refusal};
use super::object::{Kind, Unit};

/// What is linked.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) machine: Machine,
    /// Defined functions in their order.
    pub(super) functions: &'a [Unit],
    /// The functions that each of them names, see [`super::object::Target::Callee`].
    pub(super) callees: &'a [Vec<u32>],
    /// Call trampolines by type; equal types may share one.
    pub(super) trampolines: Vec<&'a Unit>,
}

/// Why units cannot be linked. All of them are our own failures, or the code is too large.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("relocation {kind} at {place:#x} is of an unknown kind")]
    UnknownRelocation { kind: u32, place: u64 },
    #[error("relocation {kind} at {place:#x} does not reach its target")]
    TooFar { kind: u32, place: u64 },
    #[error("relocation {kind} at {place:#x} refers to something that is not there")]
    Target { kind: u32, place: u64 },
}

/// Links units to a shared object.
///
/// # Errors
///
/// See [`Error`].
pub(super) fn link(program: &Program<'_>) -> Result<Vec<u8>, Error> {
    let layout = Layout::new(program)?;
    let mut image = Image::new(program, &layout);
    relocate(program, &layout, &mut image)?;
    let debug = debug(program, &layout)?;
    Ok(image.finish(program, &layout, &debug))
}

/// All units in the order in which they are placed.
fn units<'a>(program: &Program<'a>) -> impl Iterator<Item = (usize, &'a Unit)> {
    let trampolines = program.trampolines.iter().copied();
    program.functions.iter().chain(trampolines).enumerate()
}

impl<'a> Program<'a> {
    fn unit(&self, number: usize) -> Option<&'a Unit> {
        match number.checked_sub(self.functions.len()) {
            None => self.functions.get(number),
            Some(trampoline) => self.trampolines.get(trampoline).copied(),
        }
    }
}

fn relocate(program: &Program<'_>, layout: &Layout, image: &mut Image) -> Result<(), Error> {
    let machine = program.machine;
    for (number, unit) in units(program) {
        for (index, section) in unit.sections.iter().enumerate() {
            if !layout.is_first(number, index) {
                continue;
            }
            let start = layout.address(number, index);
            if section.kind == Kind::Debug {
                continue;
            }
            for relocation in &section.relocations {
                let place = start + u64::from(relocation.offset);
                let kind = relocation.kind;
                let refuse = |refusal| match refusal {
                    Refusal::Unknown => Error::UnknownRelocation { kind, place },
                    Refusal::TooFar => Error::TooFar { kind, place },
                };
                let need = relocate::need(machine, kind).map_err(refuse)?;
                let missing = || Error::Target { kind, place };
                let (value, place) = match need {
                    Need::Nothing | Need::Load => continue,
                    Need::Call | Need::Address | Need::Change => {
                        let target = layout.target(program, number, &relocation.target);
                        let target = target.ok_or_else(missing)?;
                        (target.wrapping_add_signed(relocation.addend), place)
                    }
                    Need::Word => {
                        let word = layout.word(&relocation.target);
                        let word = word.ok_or_else(missing)?;
                        (word.wrapping_add_signed(relocation.addend), place)
                    }
                    // The target is the instruction with the upper part: both use its distance.
                    Need::Upper => layout
                        .upper(program, number, &relocation.target)
                        .ok_or_else(missing)?,
                };
                let at = start + u64::from(relocation.offset);
                let bytes = image.at(at);
                relocate::apply(machine, kind, value, place, bytes).map_err(refuse)?;
            }
        }
    }
    for (word, stub) in layout.stubs() {
        let code = relocate::stub(machine, word, stub).map_err(|_| Error::TooFar {
            kind: 0,
            place: stub,
        })?;
        image.at(stub)[..code.len()].copy_from_slice(&code);
    }
    Ok(())
}

/// The debug sections by name, with addresses in them.
fn debug(program: &Program<'_>, layout: &Layout) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let zeros = |(name, size): (&String, &u64)| (name.clone(), vec![0; *size as usize]);
    let mut sections: BTreeMap<String, Vec<u8>> = layout.debug.iter().map(zeros).collect();
    for (number, unit) in units(program) {
        for (index, section) in unit.sections.iter().enumerate() {
            let Some(all) = section
                .debug
                .as_ref()
                .and_then(|name| sections.get_mut(name))
            else {
                continue;
            };
            let start = layout.address(number, index) as usize;
            let bytes = &mut all[start..start + section.bytes.len()];
            bytes.copy_from_slice(&section.bytes);
            for relocation in &section.relocations {
                let (kind, place) = (relocation.kind, u64::from(relocation.offset));
                let size = relocate::debug_size(program.machine, kind)
                    .map_err(|_| Error::UnknownRelocation { kind, place })?;
                let target = layout.target(program, number, &relocation.target);
                let missing = || Error::Target { kind, place };
                let value = target.ok_or_else(missing)?;
                let value = value.wrapping_add_signed(relocation.addend).to_le_bytes();
                let at = relocation.offset as usize;
                let bytes = bytes.get_mut(at..at + size).ok_or_else(missing)?;
                bytes.copy_from_slice(&value[..size]);
            }
        }
    }
    Ok(sections.into_iter().collect())
}

#[cfg(test)]
mod tests;
