//! Reads artifacts. Every byte is checked before it is believed: an artifact is trusted like an
//! executable, but it may be damaged, cut off, or made for another machine.

use crate::cpu::{self, CpuFeature};
use crate::header::{FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, Range, Region};
use crate::manifest::Manifest;
use crate::module::ModuleMetadata;
use crate::tables::Tables;
use crate::{consistency, section};

const ELF_MAGIC: &[u8] = b"\x7fELF";
const WASM_MAGIC: &[u8] = b"\0asm";
/// Size of a 64-bit ELF header, from the System V ABI.
const ELF_HEADER_SIZE: usize = 64;

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
        consistency::check(&artifact)?;
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
    let bytes = file
        .last_chunk::<HEADER_SIZE>()
        .filter(|header| header.starts_with(&MAGIC) && size >= ELF_HEADER_SIZE + HEADER_SIZE)
        .ok_or(ReadError::NoHeader { size })?;
    let header = Header::decode(bytes);
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
    // The rest of the header is fixed, and not in the sum.
    if header.encode() != *bytes {
        return Err(ReadError::Inconsistent {
            what: "its header has content that its format does not know",
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
