//! Writes artifacts: the linker's ELF shared object, rewritten with our sections behind it.
//!
//! Everything that the ELF's program headers load stays at its offset, section header table apart,
//! which moves to the end. Behind it follow, in this order: symbols, what is read lazily, the
//! memory image, what every load reads, the section headers, the header. In a fat artifact all of
//! it repeats for each variant, what they share excepted, and the directory ends the file.

mod input;
mod output;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use self::input::Input;
use self::output::Output;
use crate::directory::{self, MAX_VARIANTS};
use crate::header::{Range, Region};
use crate::lines::LineTable;
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
    /// The compiled module; several times, for several hosts, in a fat artifact.
    pub variants: Vec<Variant<'a>>,
    /// Names for backtraces and symbols.
    pub names: FunctionNames,
    /// The memory image.
    pub images: Vec<Image>,
    /// Passive data segments by index.
    pub passive_data: Vec<(u32, Vec<u8>)>,
}

/// A module compiled for one kind of host.
#[derive(Debug)]
pub struct Variant<'a> {
    /// The linked shared object of the backend (64-bit little-endian ELF).
    pub elf: &'a [u8],
    /// The manifest. `code_size` and `image_size` are filled in while writing.
    pub manifest: Manifest<'static>,
    /// The module. Where things lie in the file (`plan`, `image`, `passive_data`, `names`, `traps`,
    /// `lines`) is filled in while writing.
    pub module: ModuleMetadata,
    /// Its large arrays. Addresses are those of the ELF file.
    pub tables: TablesBuilder,
    /// Addresses of instructions that trap and why, where the instruction itself does not tell.
    pub traps: Vec<(u32, TrapCode)>,
    /// Source lines of the code.
    pub lines: LineTable,
    /// Whether the object's DWARF is kept.
    pub debug: bool,
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
    #[error("an artifact has 1 to {MAX_VARIANTS} variants, not {0}")]
    VariantCount(usize),
    #[error("an artifact cannot be for {0}")]
    Triple(String),
    #[error("could not encode a section: {0}")]
    Encode(#[from] postcard::Error),
}

/// A finished artifact: its bytes, with long runs of zeros left out.
#[derive(Debug)]
pub struct Written {
    chunks: Vec<(u64, Vec<u8>)>,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 over the file, as `verify` checks it.
    pub sha256: [u8; 32],
    /// The variants' manifests as they were written.
    pub manifests: Vec<Manifest<'static>>,
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
        variants,
        names,
        images,
        passive_data,
    } = contents;
    if !(1..=MAX_VARIANTS).contains(&variants.len()) {
        return Err(WriteError::VariantCount(variants.len()));
    }
    let mut out = Output::new();
    let common = Common {
        names,
        images,
        passive_data,
    };
    let mut placed = None;
    let mut manifests = Vec::new();
    for variant in variants {
        manifests.push(write_variant(&mut out, variant, &common, &mut placed)?);
    }
    Ok(out.finish(manifests))
}

/// What all variants share: it is written with the first one, and the others point to it.
struct Common {
    names: FunctionNames,
    images: Vec<Image>,
    passive_data: Vec<(u32, Vec<u8>)>,
}

/// Where it lies.
struct Placed {
    names: Range,
    image: Vec<ImageRun>,
    passive_data: Vec<PassiveData>,
}

impl Common {
    fn write(&self, out: &mut Output) -> Result<Placed, WriteError> {
        let names = out.section(section::NAMES, 8, &postcard::to_stdvec(&self.names)?);
        let data = out.begin(section::DATA, 8);
        let passive_data = self.passive_data.iter();
        let passive_data = passive_data
            .map(|(segment, bytes)| PassiveData {
                segment: *segment,
                bytes: out.append(bytes),
            })
            .collect();
        out.end(data);
        let section = out.begin(section::IMAGE, IMAGE_ALIGNMENT);
        let mut image = Vec::new();
        for run in &self.images {
            out.align(IMAGE_ALIGNMENT);
            let mut bytes = out.append(&run.bytes);
            out.align(IMAGE_ALIGNMENT);
            bytes.length = bytes.length.next_multiple_of(IMAGE_ALIGNMENT);
            image.push(ImageRun {
                memory: run.memory,
                address: run.address,
                bytes,
            });
        }
        out.end(section);
        Ok(Placed {
            names,
            image,
            passive_data,
        })
    }
}

fn write_variant(
    out: &mut Output,
    variant: Variant<'_>,
    common: &Common,
    placed: &mut Option<Placed>,
) -> Result<Manifest<'static>, WriteError> {
    let Variant {
        elf,
        mut manifest,
        mut module,
        tables,
        traps,
        lines,
        debug,
    } = variant;
    let input = Input::parse(elf)?;
    let origin = out.begin_variant(input.loaded_bytes());
    module.plan = input.load_plan(origin)?;
    manifest.code_size = module.plan.code.length;

    out.sections.extend(input.loaded_sections()?);
    let name = |symbol: &[u8]| symbol_name(symbol, &module, &common.names);
    let (symbols, locals, strings) = input.symbols(out.sections.len(), name)?;
    out.symbols(symbols, locals, strings);
    if debug {
        for (name, bytes) in input.debug_sections()? {
            out.section(&name, 1, &bytes);
        }
    }
    if !lines.is_empty() {
        module.lines = out.section(section::LINES, 1, &lines.encode());
    }
    let traps: Vec<u8> = traps
        .iter()
        .flat_map(|(address, code)| [*address, *code as u32])
        .flat_map(u32::to_le_bytes)
        .collect();
    module.traps = out.section(section::TRAPS, 8, &traps);
    let placed = match placed {
        Some(placed) => placed,
        None => placed.insert(common.write(out)?),
    };
    module.names = placed.names;
    module.passive_data.clone_from(&placed.passive_data);
    module.image.clone_from(&placed.image);
    manifest.image_size = module.image.iter().map(|run| run.bytes.length).sum();

    let machine = directory::machine(&manifest.triple)
        .ok_or_else(|| WriteError::Triple(manifest.triple.clone()))?;
    let throws = !module.tags.is_empty();
    let regions = [
        (Region::ElfHeaders, input.headers(origin)),
        (
            Region::Manifest,
            out.section(section::MANIFEST, 8, &postcard::to_stdvec(&manifest)?),
        ),
        (
            Region::Module,
            out.section(section::MODULE, 8, &postcard::to_stdvec(&module)?),
        ),
        (
            Region::Tables,
            out.section(section::TABLES, 8, &tables.encode()),
        ),
        (
            Region::Unwind,
            if throws {
                input.unwind_information(origin)
            } else {
                Range::default()
            },
        ),
    ];
    let features = directory::feature_bits(&manifest.cpu_features);
    out.finish_variant(elf, &regions, machine, features);
    Ok(manifest)
}

/// A function's name for tools, for the linker's `f` and number; a trampoline's for `t` and number.
fn symbol_name(symbol: &[u8], module: &ModuleMetadata, names: &FunctionNames) -> Vec<u8> {
    let number = || {
        let text = std::str::from_utf8(symbol.get(1..)?).ok()?;
        text.parse::<u32>().ok()
    };
    match (symbol.first(), number()) {
        (Some(b'f'), Some(local)) => {
            let index = module.imported_functions.saturating_add(local);
            let found = names
                .names
                .binary_search_by_key(&index, |(index, _)| *index);
            found.map_or_else(
                |_| format!("function[{index}]").into_bytes(),
                // Names come from the guest, and zeros end a symbol.
                |at| names.names[at].1.replace('\0', "\u{fffd}").into_bytes(),
            )
        }
        (Some(b't'), Some(ty)) => format!("trampoline[{ty}]").into_bytes(),
        _ => symbol.into(),
    }
}
