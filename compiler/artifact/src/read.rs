//! Reads artifacts. Every byte is checked before it is believed: an artifact is trusted like an
//! executable, but it may be damaged, cut off, or made for another machine.

use crate::cpu::{self, CpuFeature};
use crate::header::{FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, Range, Region};
use crate::manifest::Manifest;
use crate::module::{ModuleMetadata, Protection};
use crate::tables::{NULL_FUNCTION, Tables};
use crate::{IMAGE_ALIGNMENT, section};

const ELF_MAGIC: &[u8] = b"\x7fELF";
const WASM_MAGIC: &[u8] = b"\0asm";
/// Size of a 64-bit ELF header, from the System V ABI.
const ELF_HEADER_SIZE: usize = 64;
/// Size of a page of WebAssembly memory.
const WASM_PAGE: u64 = 65536;

/// Why a file is no artifact, or none for this host. Each message says what was expected, what was
/// found and what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ReadError {
    #[error("the file is empty")]
    Empty,
    #[error(
        "this is a WebAssembly module, not an artifact: compile it first with `faas-wasm build`"
    )]
    Wasm,
    #[error(
        "not an artifact: expected an ELF file made by `faas-wasm build`, found bytes {found:02x?}"
    )]
    NotElf { found: Vec<u8> },
    #[error(
        "no artifact header at the end of this ELF file ({size} bytes): it was cut off, or it was \
         not made by `faas-wasm build`; copy or build it again"
    )]
    NoHeader { size: usize },
    #[error(
        "artifact format {found}, but this program reads format {expected}: use `faas-wasm build` \
         and the runner of the same release"
    )]
    Format { expected: u32, found: u32 },
    #[error(
        "the artifact should have {expected} bytes but has {found}: it was cut off or changed; \
         copy or build it again"
    )]
    Size { expected: u64, found: usize },
    #[error(
        "the artifact is damaged: {region:?} should lie at {range:?}, outside of the file; copy or \
         build it again"
    )]
    RegionOutside { region: Region, range: Range },
    #[error(
        "the artifact is damaged: checksum {found:016x}, expected {expected:016x}; copy or build \
         it again"
    )]
    Sum { expected: u64, found: u64 },
    #[error("the artifact is damaged: section {section} cannot be decoded; copy or build it again")]
    Decode {
        section: &'static str,
        #[source]
        source: postcard::Error,
    },
    #[error("the artifact is damaged: {what}; copy or build it again")]
    Inconsistent { what: &'static str },
    #[error(
        "the artifact is for {found}, this host is {expected}: build it with `faas-wasm build \
         --target {expected}`"
    )]
    Triple { expected: String, found: String },
    #[error(
        "the artifact needs CPU features that this host lacks: {}; build it for less, for example \
         with `faas-wasm build --cpu x86-64-v2`",
        names(missing)
    )]
    CpuFeatures { missing: Vec<CpuFeature> },
    #[error(
        "the artifact calls into engine {found}, this program has engine {expected}: build it with \
         the `faas-wasm` of the same release"
    )]
    Engine { expected: String, found: String },
}

fn names(features: &[CpuFeature]) -> String {
    let names: Vec<_> = features.iter().map(|feature| feature.name()).collect();
    names.join(", ")
}

/// Whether a file looks like an ELF file, by its first bytes.
pub fn is_elf(start: &[u8]) -> bool {
    start.starts_with(ELF_MAGIC)
}

/// Whether a file claims to be an artifact, by its first and last bytes (at least
/// [`HEADER_SIZE`] of the latter). Says nothing about its being intact.
pub fn is_artifact(start: &[u8], end: &[u8]) -> bool {
    is_elf(start)
        && end
            .len()
            .checked_sub(HEADER_SIZE)
            .is_some_and(|header| end[header..].starts_with(&MAGIC))
}

/// A checked artifact, borrowed from the bytes of its file.
#[derive(Debug)]
pub struct Artifact<'a> {
    /// The header.
    pub header: Header,
    /// The manifest.
    pub manifest: Manifest,
    /// The module.
    pub module: ModuleMetadata,
    /// Its large arrays.
    pub tables: Tables<'a>,
    file: &'a [u8],
}

impl<'a> Artifact<'a> {
    /// Reads an artifact and checks everything that loading relies on.
    ///
    /// Afterwards all ranges of the load plan, the image and passive data lie in the file, all
    /// addresses of functions in the code, all indices in their arrays. Whether this host can run
    /// it is another question, see [`Artifact::check_host`].
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn parse(file: &'a [u8]) -> Result<Self, ReadError> {
        let header = read_header(file)?;
        let manifest = decode(file, &header, Region::Manifest, section::MANIFEST)?;
        let module: ModuleMetadata = decode(file, &header, Region::Module, section::MODULE)?;
        let tables = header
            .region(Region::Tables)
            .within(file.len())
            .and_then(|range| Tables::new(&file[range], &module))
            .ok_or(ReadError::Inconsistent {
                what: "the tables have another size than the module says",
            })?;
        let artifact = Self {
            header,
            manifest,
            module,
            tables,
            file,
        };
        artifact.check_plan()?;
        artifact.check_indices()?;
        Ok(artifact)
    }

    /// Whether a host of this triple and with these CPU features and engine can run the artifact.
    ///
    /// # Errors
    ///
    /// [`ReadError::Triple`], [`ReadError::CpuFeatures`] or [`ReadError::Engine`].
    pub fn check_host(&self, engine_version: &str) -> Result<(), ReadError> {
        let expected = cpu::host_triple();
        if architecture(&self.manifest.triple) != architecture(expected) {
            return Err(ReadError::Triple {
                expected: expected.to_owned(),
                found: self.manifest.triple.clone(),
            });
        }
        let features = self.manifest.cpu_features.iter().copied();
        let missing: Vec<_> = features
            .filter(|feature| !cpu::host_has(*feature))
            .collect();
        if !missing.is_empty() {
            return Err(ReadError::CpuFeatures { missing });
        }
        if self.manifest.engine_version != engine_version {
            return Err(ReadError::Engine {
                expected: engine_version.to_owned(),
                found: self.manifest.engine_version.clone(),
            });
        }
        Ok(())
    }

    /// The file.
    pub fn file(&self) -> &'a [u8] {
        self.file
    }

    fn check_plan(&self) -> Result<(), ReadError> {
        let plan = &self.module.plan;
        let broken = |what| Err(ReadError::Inconsistent { what });
        let mut end = 0;
        for segment in &plan.segments {
            if segment.bytes.within(self.file.len()).is_none()
                || segment.memory_size < segment.bytes.length
                || segment.address < end
            {
                return broken("a segment lies outside of the file or overlaps another");
            }
            let Some(next) = segment.address.checked_add(segment.memory_size) else {
                return broken("a segment lies outside of the address space");
            };
            end = next;
        }
        // Keeps every address below in range of `u32` and far from overflow.
        if end > u64::from(u32::MAX) {
            return broken("the code is larger than 4 GiB");
        }
        let lies_in = |address: u64, length: u64, protection: Protection| {
            plan.segments.iter().any(|segment| {
                segment.protection == protection
                    && address >= segment.address
                    && address
                        .checked_add(length)
                        .is_some_and(|end| end <= segment.address + segment.memory_size)
            })
        };
        let words_in_place = plan.relocations.iter().all(|relocation| {
            use crate::module::Relocation::{Base, Libcall};
            let (Base { address, .. } | Libcall { address, .. }) = relocation;
            lies_in(*address, 8, Protection::ReadWrite)
        });
        if !words_in_place {
            return broken("a relocation lies outside of the writable segments");
        }
        if !lies_in(plan.code.offset, plan.code.length, Protection::ReadExecute) {
            return broken("the code lies outside of the executable segment");
        }
        let code = plan.code.offset..plan.code.offset + plan.code.length;
        let inside = |address: u32| code.contains(&u64::from(address));
        if !self.tables.code().all(inside) || !self.tables.trampolines().all(inside) {
            return broken("a function lies outside of the code");
        }
        if let Some(frames) = plan.eh_frame
            && !lies_in(frames.offset, frames.length, Protection::Read)
        {
            return broken("the unwind information lies outside of the constants");
        }
        for run in &self.module.image {
            let memory = self.module.memories.get(run.memory as usize);
            let limit = memory.map_or(0, |memory| u64::from(memory.minimum) * WASM_PAGE);
            let aligned = [run.address, run.bytes.offset, run.bytes.length]
                .iter()
                .all(|number| number % IMAGE_ALIGNMENT == 0);
            let fits = run
                .address
                .checked_add(run.bytes.length)
                .is_some_and(|end| end <= limit);
            if !aligned || !fits || run.bytes.within(self.file.len()).is_none() {
                return broken("the memory image does not fit the memory or the file");
            }
        }
        Ok(())
    }

    fn check_indices(&self) -> Result<(), ReadError> {
        let module = &self.module;
        let functions = module.imported_functions + module.local_functions;
        let types = module.types.len() as u32;
        let is_function = |index: u32| index < functions;
        let elements = |index: u32| index == NULL_FUNCTION || is_function(index);
        let tables = module.tables.len() as u32;
        let imported = |wanted: fn(&crate::ImportKind) -> bool| {
            module
                .imports
                .iter()
                .filter(|import| wanted(&import.kind))
                .count()
        };
        let fine = self.tables.signatures().all(|index| index < types)
            && self.tables.elements().all(elements)
            && module.start.is_none_or(is_function)
            && module.elements.iter().all(|segment| segment.table < tables)
            && module.tags.iter().all(|index| *index < types)
            && imported(|kind| matches!(kind, crate::ImportKind::Function(_)))
                == module.imported_functions as usize
            && module.imports.iter().all(|import| match import.kind {
                crate::ImportKind::Function(index) => index < types,
                crate::ImportKind::Table(index) => index < tables,
                crate::ImportKind::Memory(index) => (index as usize) < module.memories.len(),
                crate::ImportKind::Global(index) => (index as usize) < module.globals.len(),
                crate::ImportKind::Tag(index) => (index as usize) < module.tags.len(),
            })
            && module.exports.iter().all(|export| match export {
                crate::Export::Function { index, .. } => is_function(*index),
                crate::Export::Memory { index, .. } => (*index as usize) < module.memories.len(),
            })
            && module
                .passive_data
                .iter()
                .map(|data| data.bytes)
                .chain([module.names, module.traps])
                .all(|bytes| bytes.within(self.file.len()).is_some());
        fine.then_some(()).ok_or(ReadError::Inconsistent {
            what: "an index points outside of its array",
        })
    }
}

/// The architecture of a triple, as far as it decides whether code runs.
fn architecture(triple: &str) -> &str {
    let architecture = triple.split('-').next().unwrap_or(triple);
    if architecture.starts_with("riscv64") {
        "riscv64"
    } else {
        architecture
    }
}

fn read_header(file: &[u8]) -> Result<Header, ReadError> {
    if file.is_empty() {
        return Err(ReadError::Empty);
    }
    if file.starts_with(WASM_MAGIC) {
        return Err(ReadError::Wasm);
    }
    if !is_elf(file) {
        let found = file[..file.len().min(4)].to_vec();
        return Err(ReadError::NotElf { found });
    }
    let size = file.len();
    let header = file
        .last_chunk::<HEADER_SIZE>()
        .filter(|header| header.starts_with(&MAGIC) && size >= ELF_HEADER_SIZE + HEADER_SIZE)
        .ok_or(ReadError::NoHeader { size })?;
    let header = Header::decode(header);
    if header.format != FORMAT_VERSION {
        return Err(ReadError::Format {
            expected: FORMAT_VERSION,
            found: header.format,
        });
    }
    if header.file_size != size as u64 {
        return Err(ReadError::Size {
            expected: header.file_size,
            found: size,
        });
    }
    for region in Region::ALL {
        let range = header.region(region);
        if range.within(size).is_none() {
            return Err(ReadError::RegionOutside { region, range });
        }
    }
    let found = header.sum_load_set(file).unwrap_or_default();
    if found != header.fast_sum {
        return Err(ReadError::Sum {
            expected: header.fast_sum,
            found,
        });
    }
    Ok(header)
}

fn decode<T: serde::de::DeserializeOwned>(
    file: &[u8],
    header: &Header,
    region: Region,
    section: &'static str,
) -> Result<T, ReadError> {
    let range = header.region(region);
    let bytes = range
        .within(file.len())
        .map(|range| &file[range])
        .ok_or(ReadError::RegionOutside { region, range })?;
    postcard::from_bytes(bytes).map_err(|source| ReadError::Decode { section, source })
}
