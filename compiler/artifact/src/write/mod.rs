//! Writes artifacts: the linker's ELF shared object, rewritten with our sections behind it.
//!
//! Everything that the ELF's program headers load stays at its offset, section header table apart,
//! which moves to the end. Behind it follow, in this order: symbols, what is read lazily, the
//! memory image, what every load reads, the section headers, the header.

mod input;
mod output;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use self::input::Input;
use self::output::Output;
use crate::header::{Header, Region};
use crate::manifest::Manifest;
use crate::module::{FunctionNames, ImageRun, ModuleMetadata, PassiveData, TrapCode};
use crate::tables::TablesBuilder;
use crate::{IMAGE_ALIGNMENT, section};

/// A part of a memory's initial content. Zero pages between images need not be given.
#[derive(Debug, Clone)]
pub struct Image {
    /// Index of the memory.
    pub memory: u32,
    /// First byte in the memory, a multiple of [`crate::IMAGE_ALIGNMENT`].
    pub address: u64,
    /// Content; its length is padded with zeros to a multiple of [`crate::IMAGE_ALIGNMENT`].
    pub bytes: Vec<u8>,
}

/// What an artifact is made of.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The linked shared object of the backend (64-bit little-endian ELF).
    pub elf: &'a [u8],
    /// The manifest. `code_size` and `image_size` are filled in while writing.
    pub manifest: Manifest,
    /// The module. Where things lie in the file (`plan`, `image`, `passive_data`, `names`, `traps`)
    /// is filled in while writing.
    pub module: ModuleMetadata,
    /// Its large arrays. Addresses are those of the ELF file.
    pub tables: TablesBuilder,
    /// Names for backtraces.
    pub names: FunctionNames,
    /// Addresses of instructions that trap and why, where the instruction itself does not tell.
    pub traps: Vec<(u32, TrapCode)>,
    /// The memory image.
    pub images: Vec<Image>,
    /// Passive data segments by index.
    pub passive_data: Vec<(u32, Vec<u8>)>,
}

/// Why no artifact could be made of a backend's output. All of them are our own failures.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum WriteError {
    #[error("the linked object is not an ELF file as expected: {0}")]
    Elf(#[from] object::Error),
    #[error("the linked object has a loaded section (number {0}) behind one that is not loaded")]
    SectionOrder(usize),
    #[error("the linked object has an unexpected relocation of type {kind} at {address:#x}")]
    Relocation { address: u64, kind: u32 },
    #[error("the linked object has a segment that is both writable and executable")]
    WritableCode,
    #[error("the linked object has no code")]
    NoCode,
    #[error("could not encode a section: {0}")]
    Encode(#[from] postcard::Error),
}

/// A finished artifact: its bytes, with long runs of zeros left out.
#[derive(Debug)]
pub struct Written {
    chunks: Vec<(u64, Vec<u8>)>,
    /// Size of the file in bytes.
    pub size: u64,
    /// The header, with its sums.
    pub header: Header,
    /// The manifest as it was written.
    pub manifest: Manifest,
}

impl Written {
    /// Writes the artifact to an empty file, leaving holes where it is zero.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn save(&self, file: &File) -> io::Result<()> {
        file.set_len(self.size)?;
        self.chunks
            .iter()
            .try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
    }

    /// The whole file in memory, zeros included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = vec![0; self.size as usize];
        for (offset, bytes) in &self.chunks {
            let start = *offset as usize;
            file[start..start + bytes.len()].copy_from_slice(bytes);
        }
        file
    }
}

/// Writes an artifact.
///
/// # Errors
///
/// [`WriteError`] if the ELF file is not as the linker is expected to make it.
pub fn write(contents: Contents<'_>) -> Result<Written, WriteError> {
    let Contents {
        elf,
        mut manifest,
        mut module,
        tables,
        names,
        traps,
        images,
        passive_data,
    } = contents;
    let input = Input::parse(elf)?;
    module.plan = input.load_plan()?;
    manifest.code_size = module.plan.code.length;

    let mut out = Output::new(input.loaded_bytes());
    out.sections.extend(input.loaded_sections()?);
    let (symbols, locals, strings) = input.symbols(out.sections.len())?;
    out.symbols(symbols, locals, strings);
    module.names = out.section(section::NAMES, 8, &postcard::to_stdvec(&names)?);
    let traps: Vec<u8> = traps
        .iter()
        .flat_map(|(address, code)| [*address, *code as u32])
        .flat_map(u32::to_le_bytes)
        .collect();
    module.traps = out.section(section::TRAPS, 8, &traps);

    let data = out.begin(section::DATA, 8);
    for (segment, bytes) in passive_data {
        let bytes = out.append(&bytes);
        module.passive_data.push(PassiveData { segment, bytes });
    }
    out.end(data);
    let image = out.begin(section::IMAGE, IMAGE_ALIGNMENT);
    for Image {
        memory,
        address,
        bytes,
    } in images
    {
        out.align(IMAGE_ALIGNMENT);
        let mut bytes = out.append(&bytes);
        out.align(IMAGE_ALIGNMENT);
        bytes.length = bytes.length.next_multiple_of(IMAGE_ALIGNMENT);
        manifest.image_size += bytes.length;
        module.image.push(ImageRun {
            memory,
            address,
            bytes,
        });
    }
    out.end(image);

    let manifest_bytes = postcard::to_stdvec(&manifest)?;
    let regions = [
        (Region::ElfHeaders, input.headers()),
        (
            Region::Manifest,
            out.section(section::MANIFEST, 8, &manifest_bytes),
        ),
        (
            Region::Module,
            out.section(section::MODULE, 8, &postcard::to_stdvec(&module)?),
        ),
        (
            Region::Tables,
            out.section(section::TABLES, 8, &tables.encode()),
        ),
    ];
    Ok(out.finish(elf, manifest, &regions))
}
