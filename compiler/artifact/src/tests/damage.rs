//! Damaged, cut off, foreign: an error with its message each time, and never a panic.

use super::*;

fn message(file: &[u8]) -> String {
    Artifact::parse(file).expect_err("it is wrong").to_string()
}

/// The file with a few bytes of its header replaced.
fn with_header(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let at = file.len() - HEADER_SIZE + at;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn rejects_truncation_at_every_length() {
    for file in [small_artifact(), artifact()] {
        for length in 0..file.len() {
            let error = Artifact::parse(&file[..length]).expect_err("something is missing");
            let expected = match length {
                0 => matches!(error, ReadError::Empty),
                1..4 => matches!(error, ReadError::NotElf { .. }),
                // Cut within the section names, a file can end with what looks like our magic.
                _ => matches!(error, ReadError::NoHeader { .. } | ReadError::Format { .. }),
            };
            assert!(expected, "{length}: {error}");
        }
    }
}

#[test]
fn rejects_every_flipped_byte_of_the_load_set_and_the_header() {
    let mut file = small_artifact();
    let header = Artifact::parse(&file).expect("it is intact").header;
    let start = file.len() - HEADER_SIZE;
    // The SHA-256 is for `verify` alone.
    let sha256 = start + 32..start + 64;
    let regions = Region::ALL.map(|region| header.region(region).within(file.len()));
    let parts = regions
        .into_iter()
        .map(|range| range.expect("it is inside"));
    for at in parts.chain(std::iter::once(start..file.len())).flatten() {
        for bits in [0x01, 0x80, 0xff] {
            file[at] ^= bits;
            if sha256.contains(&at) {
                assert!(
                    matches!(verify(&file), Err(VerifyError::Sha256 { .. })),
                    "{at}"
                );
            } else {
                assert!(Artifact::parse(&file).is_err(), "byte {at} ^ {bits:#x}");
            }
            file[at] ^= bits;
        }
    }
    verify(&file).expect("it is as it was");
}

#[test]
fn verify_rejects_every_flipped_byte() {
    let mut file = small_artifact();
    // Every byte costs a sum over all of them.
    for at in (0..file.len()).step_by(13) {
        file[at] ^= 0x10;
        verify(&file).expect_err("a byte has changed");
        file[at] ^= 0x10;
    }
}

#[test]
fn random_damage_is_an_error_or_harmless() {
    let original = artifact();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2000 {
        let mut file = original.clone();
        for _ in 0..1 + random.below(8) {
            let at = random.below(file.len());
            file[at] = random.below(256) as u8;
        }
        if let Ok(artifact) = Artifact::parse(&file) {
            // Damage outside of the load set; readers of lazy parts must bear it.
            let bytes = |range: Range| &file[range.within(file.len()).expect("it was checked")];
            FunctionNames::decode(bytes(artifact.module.names));
            trap_at(bytes(artifact.module.traps), FUNCTION);
        }
    }
}

#[test]
fn forged_load_sets_never_panic() {
    let original = small_artifact();
    let header = Artifact::parse(&original).expect("it is intact").header;
    let regions = Region::ALL.map(|region| (region, header.region(region)));
    let content = &original[..original.len() - HEADER_SIZE];
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut accepted = 0;
    for _ in 0..30_000 {
        let mut file = content.to_vec();
        // Sums are right, so that the decoders and all checks see the damage.
        for _ in 0..1 + random.below(3) {
            let (_, range) = regions[1 + random.below(regions.len() - 1)];
            let at = range.offset as usize + random.below(range.length as usize);
            file[at] = match random.below(4) {
                0 => 0xff,
                1 => 0x7f,
                2 => 0,
                _ => random.below(256) as u8,
            };
        }
        let file = seal(&file, &regions);
        if let Ok(artifact) = Artifact::parse(&file) {
            accepted += 1;
            let _ = artifact.check_host("7.0.1");
        }
    }
    // Otherwise the test would not reach what is behind the decoders.
    assert!((1..30_000).contains(&accepted), "{accepted} were accepted");
}

#[test]
fn each_error_says_what_was_found_and_what_to_do() {
    let file = small_artifact();
    let size = file.len();
    let header = Artifact::parse(&file).expect("it is intact").header;
    let junk = {
        let junk = Range {
            offset: 0,
            length: 64,
        };
        seal(
            &file[..size - HEADER_SIZE],
            &Region::ALL.map(|region| (region, junk)),
        )
    };
    let sum = header.fast_sum;
    for (file, expected) in [
        (vec![], "the file is empty".to_owned()),
        (
            b"\0asm\x01\0\0\0".to_vec(),
            "this is a WebAssembly module, not an artifact: compile it first with \
             `faas-wasm build`"
                .into(),
        ),
        (
            b"#!/bin/sh".to_vec(),
            "not an artifact: expected an ELF file made by `faas-wasm build`, found bytes \
             [23, 21, 2f, 62]"
                .into(),
        ),
        (
            elf::linked(),
            format!(
                "no artifact header at the end of this ELF file ({} bytes): it was cut off, or it \
                 was not made by `faas-wasm build`; copy or build it again",
                elf::linked().len()
            ),
        ),
        (
            with_header(&file, 8, &[9, 0, 0, 0]),
            format!(
                "artifact format 9, but this program reads format {FORMAT_VERSION}: use \
                 `faas-wasm build` and the runner of the same release"
            ),
        ),
        (
            with_header(&file, 16, &77_u64.to_le_bytes()),
            format!(
                "the artifact should have 77 bytes but has {size}: it was cut off or changed; \
                 copy or build it again"
            ),
        ),
        (
            with_header(&file, 64 + 16, &u64::MAX.to_le_bytes()),
            format!(
                "the artifact is damaged: Manifest should lie at Range {{ offset: {}, length: {} \
                 }}, outside of the file; copy or build it again",
                u64::MAX,
                header.region(Region::Manifest).length
            ),
        ),
        (
            with_header(&file, 24, &(sum ^ 1).to_le_bytes()),
            format!(
                "the artifact is damaged: checksum {sum:016x}, expected {:016x}; copy or build it \
                 again",
                sum ^ 1
            ),
        ),
        (
            junk,
            "the artifact is damaged: section .faaswasm.manifest cannot be decoded; copy or build \
             it again"
                .into(),
        ),
        (
            with_header(&file, 12, &[6]),
            "the artifact is damaged: its header has content that its format does not know; copy \
             or build it again"
                .into(),
        ),
    ] {
        assert_eq!(message(&file), expected);
    }

    let mut damaged = file.clone();
    let at = Artifact::parse(&file)
        .expect("it is intact")
        .module
        .names
        .offset as usize;
    damaged[at] ^= 1;
    let message = verify(&damaged)
        .expect_err("a byte has changed")
        .to_string();
    assert!(message.starts_with("SHA-256 is "), "{message}");
    assert!(
        message.ends_with("the artifact is damaged; copy or build it again"),
        "{message}"
    );
}

#[test]
fn artifact_of_another_host_is_told_what_is_missing() {
    let file = small_artifact();
    let intact = Artifact::parse(&file).expect("it is intact");
    intact.check_host("7.0.1").expect("it is for this host");
    let report = |engine: &str, change: &dyn Fn(&mut Manifest<'_>)| {
        let forged = forge(&file, |parts| change(&mut parts.manifest));
        let artifact = Artifact::parse(&forged).expect("it is intact");
        artifact
            .check_host(engine)
            .expect_err("it does not fit")
            .to_string()
    };
    let host = host_triple();
    assert_eq!(
        report("7.0.1", &|manifest| manifest.triple =
            "sparc64-unknown-linux-gnu".into()),
        format!(
            "the artifact is for sparc64-unknown-linux-gnu, this host is {host}: build it with \
             `faas-wasm build --target {host}`"
        )
    );
    let features = host_features();
    let missing: Vec<_> = CpuFeature::ALL
        .iter()
        .copied()
        .filter(|feature| !features.contains(feature))
        .collect();
    let names: Vec<_> = missing.iter().map(|feature| feature.name()).collect();
    assert!(
        !names.is_empty(),
        "no host has the features of two architectures"
    );
    assert_eq!(
        report("7.0.1", &|manifest| manifest.cpu_features.extend(&missing)),
        format!(
            "the artifact needs CPU features that this host lacks: {}; build it for less, for \
             example with `faas-wasm build --cpu x86-64-v2`",
            names.join(", ")
        )
    );
    assert_eq!(
        report("8.0.0", &|_| {}),
        "the artifact calls into engine 7.0.1, this program has engine 8.0.0: build it with the \
         `faas-wasm` of the same release"
    );
    // Another C library does not matter: the code calls nothing but the runner.
    let forged = forge(&file, |parts| {
        parts.manifest.triple = host.replace("gnu", "musl");
    });
    let artifact = Artifact::parse(&forged).expect("it is intact");
    artifact.check_host("7.0.1").expect("it is for this host");
}
