//! Damaged artifacts: the result must be an error and a non-zero exit code, never a crash and never a run of altered
//! contents.
//!
//! A load reads the load set: the ELF header and program headers, the manifest, the metadata with the loader's plan,
//! the tables, and the artifact header. Every load verifies its checksum. The rest (code, memory image, names) is
//! covered by a second checksum, which `verify` checks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use faas_wasm_tests::{Backend, Guest, Outcome, Work, runner_program, tool};

/// Exit code of the one-shot mode if the run could not start.
const NOT_STARTED: i32 = 125;

fn load(artifact: &Path) -> Outcome {
    Outcome::of(
        Command::new(runner_program())
            .args(["--one-shot", "--"])
            .arg(artifact),
    )
}

fn verify(artifact: &Path) -> Outcome {
    Outcome::of(tool().arg("verify").arg(artifact))
}

/// Byte ranges of the sections by name, from readelf.
fn sections(artifact: &Path) -> Vec<(String, std::ops::Range<usize>)> {
    let text = Outcome::of(Command::new("readelf").args(["-SW"]).arg(artifact)).success();
    text.lines()
        .filter_map(|line| line.split_once(']'))
        .filter_map(|(_, line)| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [name, kind, _, offset, size, ..] = fields[..] else {
                return None;
            };
            if !name.starts_with('.') || kind == "NOBITS" {
                return None;
            }
            let offset = usize::from_str_radix(offset, 16).ok()?;
            let size = usize::from_str_radix(size, 16).ok()?;
            Some((name.to_owned(), offset..offset + size))
        })
        .collect()
}

#[test]
fn the_intact_artifact_runs() {
    for backend in Backend::all() {
        let guest = Guest::fixture_by("hello", backend);
        let outcome = load(guest.artifact());
        assert_eq!(outcome.success(), "hello, world\n");
        assert_eq!(outcome.stderr, "");
    }
}

/// Lengths worth testing: around every section's start and end, around powers of two, and samples in between.
fn lengths(artifact: &Path, size: usize) -> BTreeSet<usize> {
    let mut edges: BTreeSet<usize> = (0..=200).collect();
    for (_, range) in sections(artifact) {
        edges.extend([range.start, range.end]);
    }
    edges.extend((8..usize::BITS).map(|bit| 1 << bit));
    edges.insert(size);
    let near = |edge: &usize| edge.saturating_sub(1)..=edge + 1;
    let mut lengths: BTreeSet<usize> = edges.iter().flat_map(near).collect();
    lengths.extend((0..size).step_by(997));
    lengths.retain(|length| *length < size);
    lengths
}

#[test]
fn truncation_at_any_length_is_an_error() {
    let guest = Guest::fixture("hello");
    let bytes = fs::read(guest.artifact()).expect("it is there");
    let work = Work::new();
    for length in lengths(guest.artifact(), bytes.len()) {
        let cut = work.write("cut.so", &bytes[..length]);
        let outcome = load(&cut);
        assert_eq!(outcome.code(), NOT_STARTED, "{length} bytes: {outcome:#?}");
        assert!(outcome.stdout.is_empty(), "{length} bytes");
        assert!(
            outcome.stderr.contains("cut.so"),
            "{length}: {}",
            outcome.stderr
        );
        // The tool must agree. Check only a sample, because the tool starts slowly.
        if length % 16 == 0 {
            assert_eq!(verify(&cut).code(), 1, "{length} bytes");
        }
    }
}

#[test]
fn bytes_appended_are_an_error() {
    let guest = Guest::fixture("hello");
    let bytes = fs::read(guest.artifact()).expect("it is there");
    let work = Work::new();
    for more in [1, 512, 65536] {
        let longer = work.write("longer.so", [&bytes[..], &vec![0; more]].concat());
        assert_eq!(load(&longer).code(), NOT_STARTED, "{more} bytes more");
        assert_eq!(verify(&longer).code(), 1, "{more} bytes more");
    }
}

/// Covers the whole load set except the artifact header, which has a separate test.
#[test]
fn every_flipped_byte_of_the_load_set_is_an_error() {
    for backend in Backend::all() {
        let guest = Guest::fixture_by("nop", backend);
        let mut bytes = fs::read(guest.artifact()).expect("it is there");
        let work = Work::new();
        let mut places: BTreeSet<usize> = (0..64).collect();
        let program_headers = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
        places.extend(64..64 + program_headers * 56);
        let mut found = BTreeSet::new();
        for (name, range) in sections(guest.artifact()) {
            let loaded = [".faaswasm.manifest", ".faaswasm.module", ".faaswasm.tables"];
            if loaded.contains(&name.as_str()) {
                found.insert(name);
                places.extend(range);
            }
        }
        assert_eq!(found.len(), 3, "{found:?}");
        for place in places {
            bytes[place] ^= 1 << (place % 8);
            let outcome = load(&work.write("damaged.so", &bytes));
            bytes[place] ^= 1 << (place % 8);
            assert_eq!(
                outcome.code(),
                NOT_STARTED,
                "{backend:?}, byte {place:#x}: {outcome:#?}"
            );
        }
    }
}

/// Whether a load uses the header field at this offset: magic and format, file size and fast checksum, and, after the
/// SHA-256, the locations of the regions. Only other readers use the number of regions (bytes 12 to 16).
fn is_used_by_loads(offset: usize) -> bool {
    (0..12).contains(&offset) || (16..32).contains(&offset) || (64..320).contains(&offset)
}

#[test]
fn flipped_bytes_of_the_header_are_an_error() {
    let guest = Guest::fixture("nop");
    let mut bytes = fs::read(guest.artifact()).expect("it is there");
    let work = Work::new();
    let sections = sections(guest.artifact());
    let header = sections.iter().find(|(name, _)| name == ".faaswasm.header");
    let (_, range) = header.expect("artifacts have a header").clone();
    for place in range.clone() {
        bytes[place] ^= 0x10;
        let path = work.write("damaged.so", &bytes);
        bytes[place] ^= 0x10;
        assert_eq!(verify(&path).code(), 1, "byte {place:#x}");
        let outcome = load(&path);
        if is_used_by_loads(place - range.start) {
            assert_eq!(outcome.code(), NOT_STARTED, "byte {place:#x}");
        }
        assert_eq!(
            outcome.status.signal(),
            None,
            "byte {place:#x}: {outcome:#?}"
        );
    }
}

#[test]
fn verify_finds_any_flipped_byte() {
    let guest = Guest::fixture("nop");
    let mut bytes = fs::read(guest.artifact()).expect("it is there");
    let work = Work::new();
    for place in (0..bytes.len()).step_by(211) {
        bytes[place] ^= 0x80;
        let path = work.write("damaged.so", &bytes);
        bytes[place] ^= 0x80;
        verify(&path).fails(1, &["error:", "damaged.so"]);
    }
}

#[test]
fn the_runner_says_in_one_line_why_it_does_not_start() {
    let guest = Guest::fixture("hello");
    let bytes = fs::read(guest.artifact()).expect("it is there");
    let work = Work::new();
    let mut flipped = bytes.clone();
    let sections = sections(guest.artifact());
    let tables = sections.iter().find(|(name, _)| name == ".faaswasm.module");
    flipped[tables.expect("artifacts have metadata").1.start] ^= 1;
    let cases: [(&str, &[u8], &str); 3] = [
        ("cut.so", &bytes[..bytes.len() / 2], "cut off"),
        ("changed.so", &flipped, "damaged"),
        (
            "other.so",
            &fs::read("/bin/true").expect("it is there"),
            "no artifact header",
        ),
    ];
    for (name, content, reason) in cases {
        let path = work.write(name, content);
        let outcome = faas_wasm_tests::RunnerCommand::new(&path.display().to_string()).run_to_end();
        assert_ne!(outcome.code(), 0, "{outcome:#?}");
        let lines: Vec<_> = outcome
            .stderr
            .lines()
            .filter(|line| line.contains(name) && line.contains(reason))
            .collect();
        assert_eq!(lines.len(), 1, "{}", outcome.stderr);
    }
}
