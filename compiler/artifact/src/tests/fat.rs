//! Several variants in one file.

use super::*;
use crate::directory::{Directory, Entry};

/// Variants of the same module: one for another architecture, then, for this host, one with fewer
/// and one with all of its features, and one with features that it lacks.
fn fat() -> Vec<u8> {
    let elf = elf::linked();
    let with = |triple: &str, features: Vec<CpuFeature>| {
        let mut variant = variant(&elf);
        variant.manifest.triple = triple.into();
        variant.manifest.cpu_features = features;
        variant
    };
    let host = host_triple();
    let variants = vec![
        with(foreign(), vec![]),
        with(host, vec![]),
        with(host, host_features()),
        with(host, lacking()),
    ];
    let contents = Contents {
        variants,
        ..contents(&elf)
    };
    write(contents).expect("it is as expected").to_bytes()
}

fn foreign() -> &'static str {
    if host_triple().starts_with("riscv64") {
        "aarch64-unknown-linux-gnu"
    } else {
        "riscv64gc-unknown-linux-gnu"
    }
}

/// All features, among them those of another architecture, which no host has.
fn lacking() -> Vec<CpuFeature> {
    CpuFeature::ALL.to_vec()
}

#[test]
fn the_best_variant_that_runs_is_loaded() {
    let file = fat();
    let artifact = Artifact::parse(&file).expect("it is intact");
    assert_eq!(artifact.manifest.cpu_features, host_features());
    artifact.check_host("7.0.1").expect("it is for this host");
    let all = Artifact::parse_all(&file).expect("it is intact");
    let triples: Vec<_> = all.iter().map(|one| &*one.manifest.triple).collect();
    let host = host_triple();
    assert_eq!(triples, [foreign(), host, host, host]);
    assert_eq!(all[2].place(), artifact.place());
    assert_eq!(verify(&file).expect("all sums are right").len(), 4);
    let single = super::artifact();
    assert_eq!(Artifact::parse_all(&single).expect("intact").len(), 1);
}

#[test]
fn what_does_not_depend_on_the_host_is_there_once() {
    let file = fat();
    let all = Artifact::parse_all(&file).expect("it is intact");
    for artifact in &all {
        let (module, first) = (&artifact.module, &all[0].module);
        assert_eq!(module.image, first.image);
        assert_eq!(module.passive_data, first.passive_data);
        assert_eq!(module.names, first.names);
        assert_eq!(artifact.manifest.image_size, 4 * IMAGE_ALIGNMENT);
        // The code is each one's own, where the plan says.
        let code = &module.plan.segments[1];
        let bytes = &file[code.bytes.within(file.len()).expect("it is inside")];
        assert_eq!(bytes, [0xc3; elf::CODE_SIZE as usize]);
        assert!(code.bytes.offset >= artifact.place().offset);
    }
    let places: Vec<_> = all.iter().map(|artifact| artifact.place().offset).collect();
    assert!(places.is_sorted() && places[0] == 0, "{places:?}");
}

#[test]
fn each_variant_is_an_elf_file_for_tools() {
    use object::{Object, ObjectSection};
    let file = fat();
    for artifact in Artifact::parse_all(&file).expect("it is intact") {
        let place = artifact.place().within(file.len()).expect("it is inside");
        let parsed = object::File::parse(&file[place]).expect("it is an ELF file");
        let code = parsed.section_by_name(".text").expect("it is there");
        assert_eq!(
            code.data().expect("it is inside"),
            [0xc3; elf::CODE_SIZE as usize]
        );
    }
}

#[test]
fn an_artifact_for_other_hosts_says_for_which() {
    let elf = elf::linked();
    let mut variants = vec![variant(&elf), variant(&elf)];
    variants[0].manifest.triple = foreign().into();
    variants[1].manifest.cpu_features = lacking();
    let contents = Contents {
        variants,
        ..contents(&elf)
    };
    let file = write(contents).expect("it is as expected").to_bytes();
    let error = Artifact::parse(&file).expect_err("no variant fits");
    assert!(matches!(error, ReadError::NoVariant { .. }), "{error:?}");
    let text = error.to_string();
    let host = host_triple();
    for part in [
        format!("runs on this host, {host}: they are {}", foreign()),
        format!("{host} with "),
        "which it lacks".into(),
    ] {
        assert!(text.contains(&part), "{text}");
    }
}

#[test]
fn rejects_truncation_at_every_length() {
    let elf = elf::linked();
    let contents = Contents {
        variants: vec![variant(&elf), variant(&elf)],
        images: Vec::new(),
        ..contents(&elf)
    };
    let file = write(contents).expect("it is as expected").to_bytes();
    Artifact::parse(&file).expect("it is intact");
    // Also where a variant ends, so that the rest looks like an artifact.
    for length in 0..file.len() {
        Artifact::parse(&file[..length]).expect_err("something is missing");
    }
}

#[test]
fn rejects_every_flipped_byte_of_the_directory() {
    let mut file = fat();
    let start = file.len() - HEADER_SIZE;
    for at in start..file.len() {
        for bits in [0x01, 0x80, 0xff] {
            file[at] ^= bits;
            // The SHA-256 is for `verify` alone.
            let error = if (start + 32..start + 64).contains(&at) {
                verify(&file).is_err()
            } else {
                Artifact::parse(&file).is_err()
            };
            assert!(error, "byte {} ^ {bits:#x}", at - start);
            file[at] ^= bits;
        }
    }
}

#[test]
fn damage_of_a_variant_is_found_when_it_is_the_one() {
    let file = fat();
    let best = Artifact::parse(&file).expect("it is intact");
    for artifact in Artifact::parse_all(&file).expect("it is intact") {
        let mut damaged = file.clone();
        let at = artifact.header.region(Region::Module).offset as usize;
        damaged[at] ^= 1;
        let is_best = artifact.place() == best.place();
        assert_eq!(Artifact::parse(&damaged).is_err(), is_best);
        verify(&damaged).expect_err("a byte has changed");
    }
}

#[test]
fn forged_directories_never_panic() {
    let file = fat();
    let start = file.len() - HEADER_SIZE;
    let directory = Directory::read(&file).expect("intact").expect("it is fat");
    let forged = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut directory = directory.clone();
        change(&mut directory.variants);
        let file = [&file[..start], &directory.encode()].concat();
        Artifact::parse(&file).map(drop).map_err(|e| e.to_string())
    };
    forged(&|_| {}).expect("nothing was changed");
    for (change, expected) in [
        (
            (|variants| variants[2].place.offset = u64::MAX) as fn(&mut Vec<Entry>),
            "a variant lies outside of the file",
        ),
        (
            |variants| variants[0].place.length += 1 << 32,
            "a variant lies outside of the file",
        ),
        (
            |variants| variants[2].place.length -= 1,
            "no artifact header",
        ),
        (
            |variants| variants[2].place.length = 0,
            "no artifact header",
        ),
        (
            |variants| variants[2].place = variants[1].place,
            "says something else of a variant",
        ),
        (|variants| variants.truncate(1), "impossible number"),
        (
            |variants| variants[3].features = 0,
            // Not the best one: nothing of it is looked at.
            "",
        ),
    ] {
        match forged(&change) {
            Ok(()) => assert_eq!(expected, ""),
            Err(error) => assert!(
                error.contains(expected) && !expected.is_empty(),
                "{expected}: {error}"
            ),
        }
    }
    let variants = directory.variants.iter();
    assert!(variants.clone().all(|entry| entry.place.length > 0));
}
