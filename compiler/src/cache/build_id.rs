//! What tells this build of the program from every other one.
//!
//! The linker writes a hash of the program into it (`build.rs` asks for that), which costs nothing
//! to read. A program without one, such as a test's, is hashed as a whole. Version, size and time
//! would not do: images are built with all times the same.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::OnceLock;

use object::elf;
use object::read::elf::{FileHeader as _, NoteIterator, ProgramHeader as _};
use sha2::{Digest as _, Sha256};

/// The start of a program, where linkers put notes.
const START: u64 = 64 * 1024;

/// The identity of this program.
pub(super) fn get() -> &'static [u8] {
    static ID: OnceLock<Vec<u8>> = OnceLock::new();
    ID.get_or_init(|| {
        note()
            .or_else(|| whole().ok())
            // Without /proc there is nothing but the version, and nothing else to be done.
            .unwrap_or_else(|| env!("CARGO_PKG_VERSION").into())
    })
}

fn program() -> io::Result<File> {
    File::open("/proc/self/exe")
}

/// The linker's hash.
fn note() -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    program().ok()?.take(START).read_to_end(&mut bytes).ok()?;
    let header = elf::FileHeader64::<object::Endianness>::parse(&*bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, &*bytes).ok()?;
    for segment in segments {
        // Notes behind the start are not seen; then the whole is hashed.
        let notes: Option<NoteIterator<'_, _>> = segment.notes(endian, &*bytes).ok().flatten();
        let Some(mut notes) = notes else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                return Some(note.desc().to_vec());
            }
        }
    }
    None
}

fn whole() -> io::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    io::copy(&mut program()?, &mut hash)?;
    Ok(hash.finalize().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_one() {
        assert_eq!(whole().expect("it can be read").len(), 32);
        assert!(get().len() >= 16);
    }
}
