//! Reads artifacts. Every byte is checked before it is believed: an artifact is trusted like an
//! executable, but it may be damaged, cut off, or made for another machine.

use crate::cpu;
use crate::directory::{self, Directory};
use crate::error::{ReadError, names};
use crate::header::{FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, Range, Region};
use crate::manifest::Manifest;
use crate::module::ModuleMetadata;
use crate::tables::Tables;
use crate::{consistency, section};

const ELF_MAGIC: &[u8] = b"\x7fELF";
const WASM_MAGIC: &[u8] = b"\0asm";
/// Size of a 64-bit ELF header, from the System V ABI.
const ELF_HEADER_SIZE: usize = 64;

/// Whether a file looks like an ELF file, by its first bytes.
pub fn is_elf(start: &[u8]) -> bool {
    start.starts_with(ELF_MAGIC)
}

/// Whether a file claims to be an artifact, by its first and last bytes (at least
/// [`HEADER_SIZE`] of the latter). Says nothing about its being intact.
pub fn is_artifact(start: &[u8], end: &[u8]) -> bool {
    is_elf(start)
        && end.len().checked_sub(HEADER_SIZE).is_some_and(|header| {
            end[header..].starts_with(&MAGIC) || end[header..].starts_with(&directory::MAGIC)
        })
}

/// A checked artifact, borrowed from the bytes of its file.
pub struct Artifact<'a> {
    /// The header.
    pub header: Header,
    /// The manifest.
    pub manifest: Manifest<'a>,
    /// The module.
    pub module: ModuleMetadata,
    /// Its large arrays.
    pub tables: Tables<'a>,
    file: &'a [u8],
    place: Range,
}

impl std::fmt::Debug for Artifact<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact")
            .field("place", &self.place)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

impl<'a> Artifact<'a> {
    /// Reads an artifact and checks everything that loading relies on. Of a fat one it is the best
    /// variant for this host, and nothing of the others is looked at.
    ///
    /// Afterwards all ranges of the load plan, the image and passive data lie in the file, all
    /// addresses of functions in the code, all indices in their arrays. Whether this host can run
    /// it is another question, see [`Artifact::check_host`].
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn parse(file: &'a [u8]) -> Result<Self, ReadError> {
        let Some(directory) = Directory::read(file)? else {
            return Self::parse_variant(file, whole(file));
        };
        let Some(best) = directory.best() else {
            return Err(no_variant(&Self::parse_variants(file, &directory)?));
        };
        Self::parse_entry(file, &directory, best)
    }

    /// Reads all variants of a fat artifact, or the only one of another.
    ///
    /// # Errors
    ///
    /// See [`Artifact::parse`].
    pub fn parse_all(file: &'a [u8]) -> Result<Vec<Self>, ReadError> {
        match Directory::read(file)? {
            Some(directory) => Self::parse_variants(file, &directory),
            None => Ok(vec![Self::parse_variant(file, whole(file))?]),
        }
    }

    fn parse_variants(file: &'a [u8], directory: &Directory) -> Result<Vec<Self>, ReadError> {
        (0..directory.variants.len())
            .map(|index| Self::parse_entry(file, directory, index))
            .collect()
    }

    fn parse_entry(file: &'a [u8], directory: &Directory, index: usize) -> Result<Self, ReadError> {
        let entry = &directory.variants[index];
        let artifact = Self::parse_variant(file, entry.place)?;
        if entry.agrees_with(&artifact.manifest) {
            Ok(artifact)
        } else {
            Err(ReadError::Inconsistent {
                what: "the directory says something else of a variant than its manifest",
            })
        }
    }

    fn parse_variant(file: &'a [u8], place: Range) -> Result<Self, ReadError> {
        let header = read_header(file, place)?;
        let manifest = decode(file, &header, Region::Manifest, section::MANIFEST)?;
        let module: ModuleMetadata = decode(file, &header, Region::Module, section::MODULE)?;
        let tables = header
            .region(Region::Tables)
            .within(file.len())
            .and_then(|range| Tables::new(&file[range], &module))
            .ok_or(ReadError::Inconsistent {
                what: "the tables have another size than the module says",
            })?;
        consistency::check(&header, &module, &tables, file.len())?;
        Ok(Self {
            header,
            manifest,
            module,
            tables,
            file,
            place,
        })
    }

    /// Whether a host of this triple and with these CPU features and engine can run the artifact.
    ///
    /// # Errors
    ///
    /// [`ReadError::Triple`], [`ReadError::CpuFeatures`] or [`ReadError::Engine`].
    pub fn check_host(&self, engine_version: &str) -> Result<(), ReadError> {
        let expected = cpu::host_triple();
        if cpu::architecture(&self.manifest.triple) != cpu::architecture(expected) {
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

    /// The file: all of it, which the ranges of a variant are for.
    pub fn file(&self) -> &'a [u8] {
        self.file
    }

    /// Where this artifact lies in the file: everywhere, unless it is a variant of a fat one.
    pub fn place(&self) -> Range {
        self.place
    }
}

fn whole(file: &[u8]) -> Range {
    Range {
        offset: 0,
        length: file.len() as u64,
    }
}

/// The error for variants that are all for other hosts.
fn no_variant(variants: &[Artifact<'_>]) -> ReadError {
    let host = cpu::host_triple();
    let describe = |artifact: &Artifact<'_>| {
        let manifest = &artifact.manifest;
        let lacking = manifest.cpu_features.iter().copied();
        let lacking: Vec<_> = lacking.filter(|feature| !cpu::host_has(*feature)).collect();
        if cpu::architecture(&manifest.triple) == cpu::architecture(host) {
            format!(
                "{} with {}, which it lacks",
                manifest.triple,
                names(&lacking)
            )
        } else {
            manifest.triple.clone()
        }
    };
    ReadError::NoVariant {
        host: host.to_owned(),
        variants: variants.iter().map(describe).collect(),
    }
}

fn read_header(file: &[u8], place: Range) -> Result<Header, ReadError> {
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
    let bytes = place
        .within(size)
        .and_then(|place| file[place].last_chunk::<HEADER_SIZE>())
        .filter(|header| header.starts_with(&MAGIC))
        .filter(|_| place.length >= (ELF_HEADER_SIZE + HEADER_SIZE) as u64)
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

fn decode<'a, T: serde::Deserialize<'a>>(
    file: &'a [u8],
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
