//! Lifts active data segments out of a module into a memory image.
//!
//! A module with many segments (esbuild has 100 000) would write them into every new instance.
//! Instead the segments are applied here, once, to a picture of each memory; what is not zero of
//! it becomes *runs* that the runner maps copy-on-write.
//!
//! ```text
//! memory   |....####....##..............................###.|   # not zero, . zero
//! runs         [----------]   gap of 1 MiB or more      [---]   multiples of 64 KiB
//! ```
//!
//! Segments keep their numbers: where `memory.init` and `data.drop` can occur, each lifted segment
//! stays as an empty passive one, which is just what an active segment is after instantiation.

use std::collections::BTreeMap;
use std::path::Path;

use faas_wasm_artifact::{IMAGE_ALIGNMENT, Image};
use wasm_encoder::{CustomSection, DataSection, RawSection};
use wasmparser::DataKind;

use crate::constant::Constants;
use crate::error::{Error, InstantiationTrap};
use crate::module::Module;

/// Zeros between two runs that are worth a mapping of their own.
const SPLIT_GAP: u64 = 1 << 20;
/// Most runs a memory: each is a mapping in every instance.
const MAX_RUNS: usize = 8;
/// Size of a WebAssembly page.
const WASM_PAGE: u64 = 65536;
/// Number of the data section in a module.
const DATA_SECTION: u8 = 11;

/// A module without its active data segments.
#[derive(Debug)]
pub(crate) struct Lifted {
    /// The module to compile: no active segments, no custom sections but those asked for.
    pub(crate) wasm: Vec<u8>,
    /// What the segments write.
    pub(crate) images: Vec<Image>,
    /// Passive segments that are not empty, by index.
    pub(crate) passive_data: Vec<(u32, Vec<u8>)>,
}

/// Lifts the segments of a validated module, and adds the custom sections `custom` to it.
///
/// # Errors
///
/// [`Error::DataOutside`] for a segment that would trap in every instance;
/// [`Error::DataOffset`] for one whose offset is not known. The latter could only depend on an
/// imported global, and nothing provides those, so that there is no way to apply such a segment
/// at run time.
pub(crate) fn lift(
    path: &Path,
    module: &Module<'_>,
    custom: &[(&str, &[u8])],
) -> Result<Lifted, Error> {
    let constants = Constants::of(module);
    let mut memories: BTreeMap<u32, Picture> = BTreeMap::new();
    let mut passive_data = Vec::new();
    for (index, segment) in (0..).zip(&module.data) {
        match &segment.kind {
            // Without a data count section nothing can refer to it.
            DataKind::Passive if !module.has_data_count => {}
            DataKind::Passive if segment.data.is_empty() => {}
            DataKind::Passive => passive_data.push((index, segment.data.to_vec())),
            DataKind::Active {
                memory_index,
                offset_expr,
            } => {
                let offset = constants.offset(offset_expr);
                let offset = offset.ok_or_else(|| Error::DataOffset {
                    path: path.into(),
                    segment: index,
                })?;
                let size = module
                    .memories
                    .get(*memory_index as usize)
                    .map_or(0, |memory| memory.initial * WASM_PAGE);
                if offset + segment.data.len() as u64 > size {
                    return Err(Error::DataOutside {
                        path: path.into(),
                        segment: index,
                        memory: *memory_index,
                        offset,
                        length: segment.data.len() as u64,
                        size,
                        source: InstantiationTrap::Memory,
                    });
                }
                memories
                    .entry(*memory_index)
                    .or_default()
                    .write(offset, segment.data);
            }
        }
    }
    let images = memories
        .into_iter()
        .flat_map(|(memory, picture)| picture.into_images(memory))
        .collect();
    Ok(Lifted {
        wasm: without_active_data(module, custom),
        images,
        passive_data,
    })
}

/// The module's other sections as they are, see [`Lifted::wasm`].
fn without_active_data(module: &Module<'_>, custom: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = wasm_encoder::Module::new();
    for (id, range) in &module.sections {
        if *id != DATA_SECTION {
            let data = &module.wasm[range.clone()];
            out.section(&RawSection { id: *id, data });
        } else if module.has_data_count {
            let mut section = DataSection::new();
            for segment in &module.data {
                section.passive(match segment.kind {
                    DataKind::Passive => segment.data.iter().copied(),
                    DataKind::Active { .. } => [].iter().copied(),
                });
            }
            out.section(&section);
        }
    }
    for (name, data) in custom {
        out.section(&CustomSection {
            name: (*name).into(),
            data: (*data).into(),
        });
    }
    out.finish()
}

/// The initial content of a memory, by aligned pieces; those that are missing are zero.
#[derive(Debug, Default)]
struct Picture {
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Picture {
    /// Later writes win where they overlap, as at instantiation.
    fn write(&mut self, mut address: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = (address % IMAGE_ALIGNMENT) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(IMAGE_ALIGNMENT as usize - at));
            let piece = self
                .pieces
                .entry(address / IMAGE_ALIGNMENT)
                .or_insert_with(|| vec![0; IMAGE_ALIGNMENT as usize]);
            piece[at..at + now.len()].copy_from_slice(now);
            address += now.len() as u64;
            bytes = rest;
        }
    }

    fn into_images(mut self, memory: u32) -> Vec<Image> {
        self.pieces
            .retain(|_, piece| piece.iter().any(|byte| *byte != 0));
        let runs = runs(self.pieces.keys().copied());
        let image = |run: std::ops::Range<u64>| {
            let mut bytes = vec![0; ((run.end - run.start) * IMAGE_ALIGNMENT) as usize];
            for (piece, content) in self.pieces.range(run.clone()) {
                let at = ((piece - run.start) * IMAGE_ALIGNMENT) as usize;
                bytes[at..at + content.len()].copy_from_slice(content);
            }
            Image {
                memory,
                address: run.start * IMAGE_ALIGNMENT,
                bytes,
            }
        };
        runs.into_iter().map(image).collect()
    }
}

/// Joins ascending piece numbers to runs, see the module's documentation.
fn runs(pieces: impl Iterator<Item = u64>) -> Vec<std::ops::Range<u64>> {
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(last) if (piece - last.end) * IMAGE_ALIGNMENT < SPLIT_GAP => last.end = piece + 1,
            _ => runs.push(piece..piece + 1),
        }
    }
    while runs.len() > MAX_RUNS {
        let gap = |index: &usize| runs[index + 1].start - runs[*index].end;
        // There are more than MAX_RUNS runs, so that there is a gap.
        let Some(smallest) = (0..runs.len() - 1).min_by_key(gap) else {
            break;
        };
        let next = runs.remove(smallest + 1);
        runs[smallest].end = next.end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use wasm_encoder::{
        CodeSection, DataCountSection, DataSegment, DataSegmentMode, Function, FunctionSection,
        MemorySection, TypeSection,
    };

    use super::*;

    #[derive(Debug, Clone)]
    struct Segment {
        /// Memory and offset, or `None` if it is passive.
        place: Option<(u32, u32)>,
        bytes: Vec<u8>,
    }

    fn encode(pages: &[u32], segments: &[Segment], data_count: bool) -> Vec<u8> {
        let mut module = wasm_encoder::Module::new();
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut memories = MemorySection::new();
        for pages in pages {
            memories.memory(wasm_encoder::MemoryType {
                minimum: u64::from(*pages),
                maximum: None,
                memory64: false,
                shared: false,
                page_size_log2: None,
            });
        }
        module
            .section(&types)
            .section(&functions)
            .section(&memories);
        if data_count {
            let count = segments.len() as u32;
            module.section(&DataCountSection { count });
        }
        let mut code = CodeSection::new();
        let mut body = Function::new([]);
        body.instructions().end();
        code.function(&body);
        let mut data = DataSection::new();
        for segment in segments {
            let offset;
            let mode = match segment.place {
                None => DataSegmentMode::Passive,
                Some((memory_index, address)) => {
                    offset = wasm_encoder::ConstExpr::i32_const(address as i32);
                    DataSegmentMode::Active {
                        memory_index,
                        offset: &offset,
                    }
                }
            };
            let data_segment = DataSegment {
                mode,
                data: segment.bytes.iter().copied(),
            };
            data.segment(data_segment);
        }
        module.section(&code).section(&data);
        module.finish()
    }

    /// What instantiation would do: the segments in order, into zeros.
    fn instantiate(pages: &[u32], segments: &[Segment]) -> Option<Vec<Vec<u8>>> {
        let mut memories: Vec<_> = pages
            .iter()
            .map(|pages| vec![0; *pages as usize * 65536])
            .collect();
        for segment in segments {
            if let Some((memory, address)) = segment.place {
                let address = address as usize;
                memories[memory as usize]
                    .get_mut(address..address + segment.bytes.len())?
                    .copy_from_slice(&segment.bytes);
            }
        }
        Some(memories)
    }

    fn segment() -> impl Strategy<Value = Segment> {
        let place = prop_oneof![
            1 => Just(None),
            9 => (0..2_u32, 0..60 * 65536_u32).prop_map(Some),
        ];
        let bytes = prop_oneof![
            4 => vec(any::<u8>(), 0..40),
            1 => Just(vec![0; 70_000]),
            1 => Just(vec![1; 140_000]),
        ];
        (place, bytes).prop_map(|(place, bytes)| Segment { place, bytes })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn image_is_what_instantiation_writes(
            segments in vec(segment(), 0..24),
            pages in [50..64_u32, 50..64_u32],
            data_count in any::<bool>(),
        ) {
            let wasm = encode(&pages, &segments, data_count);
            let module = Module::parse(&wasm).expect("it is well formed");
            let lifted = lift(Path::new("a.wasm"), &module, &[]);
            let Some(expected) = instantiate(&pages, &segments) else {
                let outside = matches!(lifted, Err(Error::DataOutside { .. }));
                prop_assert!(outside, "a segment is outside");
                return Ok(());
            };
            let lifted = lifted.expect("all segments are inside");
            let mut memories: Vec<Vec<u8>> = expected.iter().map(|memory| vec![0; memory.len()]).collect();
            for image in &lifted.images {
                prop_assert_eq!(image.address % IMAGE_ALIGNMENT, 0);
                prop_assert_eq!(image.bytes.len() as u64 % IMAGE_ALIGNMENT, 0);
                let at = image.address as usize;
                memories[image.memory as usize][at..at + image.bytes.len()].copy_from_slice(&image.bytes);
            }
            prop_assert!(memories == expected, "the image differs");
            for memory in 0..2 {
                let runs = lifted.images.iter().filter(|image| image.memory == memory);
                prop_assert!(runs.count() <= MAX_RUNS);
            }

            wasmparser::validate(&lifted.wasm).expect("the rest is valid");
            let rest = Module::parse(&lifted.wasm).expect("the rest is well formed");
            prop_assert!(rest.data.iter().all(|data| matches!(data.kind, DataKind::Passive)));
            prop_assert_eq!(rest.data.len(), if data_count { segments.len() } else { 0 });
            let kept: Vec<_> = (0..).zip(&rest.data)
                .filter(|(_, data)| !data.data.is_empty())
                .map(|(index, data)| (index, data.data.to_vec()))
                .collect();
            prop_assert_eq!(kept, lifted.passive_data);
        }
    }

    #[test]
    #[allow(
        clippy::single_range_in_vec_init,
        reason = "one run is a list of one range"
    )]
    fn runs_split_at_large_gaps_and_are_few() {
        let megabyte = SPLIT_GAP / IMAGE_ALIGNMENT;
        for (pieces, expected) in [
            (vec![], vec![]),
            (vec![3], vec![3..4]),
            (vec![0, 1, 5], vec![0..6]),
            (vec![0, megabyte], vec![0..megabyte + 1]),
            (
                vec![0, megabyte + 1],
                vec![0..1, megabyte + 1..megabyte + 2],
            ),
        ] {
            assert_eq!(runs(pieces.clone().into_iter()), expected, "{pieces:?}");
        }
        // Gaps grow, so that the first runs are joined.
        let pieces: Vec<u64> = (0..10)
            .map(|index| 100 * index + 10 * index * index)
            .collect();
        let runs = runs(pieces.iter().copied());
        assert_eq!(runs.len(), MAX_RUNS);
        assert_eq!(runs[0], 0..pieces[2] + 1);
        assert_eq!(runs[MAX_RUNS - 1], pieces[9]..pieces[9] + 1);
    }

    fn lift_text(text: &str) -> Result<Lifted, Error> {
        let wasm = wat::parse_str(text).expect("the text is correct");
        let module = Module::parse(&wasm).expect("it is well formed");
        lift(Path::new("a.wasm"), &module, &[])
    }

    #[test]
    fn constant_offsets_are_computed() {
        for (offset, address) in [
            ("i32.const 5", 5),
            (
                "(i32.add (i32.const 2) (i32.mul (i32.const 3) (i32.const 4)))",
                14,
            ),
            ("(i32.sub (i32.const 2) (i32.const -3))", 5),
            ("(i32.add (global.get $base) (i32.const 1))", 101),
        ] {
            let text = format!(
                r#"(module (global $base i32 (i32.const 100)) (memory 1) (data (offset {offset}) "x"))"#
            );
            let lifted = lift_text(&text).expect("the offset is known");
            let at = lifted.images[0].bytes.iter().position(|byte| *byte == b'x');
            assert_eq!(at, Some(address), "{offset}");
        }
    }

    #[test]
    fn rejects_segments_that_cannot_be_applied() {
        let report = |text| {
            lift_text(text)
                .expect_err("it cannot be lifted")
                .to_string()
        };
        assert_eq!(
            report(
                r#"(module (memory 1) (data (i32.const 65535) "") (data (i32.const 65535) "ab"))"#
            ),
            "data segment 1 of a.wasm writes 2 bytes at 65535, but memory 0 has 65536 bytes"
        );
        let outside = report(r#"(module (memory 1) (data (i32.const -1) ""))"#);
        assert!(outside.contains("0 bytes at 4294967295"), "{outside}");
        let unknown = report(
            r#"(module (import "env" "base" (global $base i32)) (memory 1)
                (data (global.get $base) "x"))"#,
        );
        assert!(
            unknown.starts_with("data segment 0 of a.wasm has an offset"),
            "{unknown}"
        );
    }
}
