//! Artifacts, fat ones too: as they are, and with sums that are right. Input that is no ELF file is what an artifact
//! is decoded from: manifest, metadata and tables, each behind its length in two bytes.
#![no_main]

use faas_wasm_artifact::{
    Artifact, FunctionNames, Manifest, ModuleMetadata, Range, fuzzing, is_artifact,
    recorded_sha256, source_lines, trap_at, verify,
};

/// Size of an artifact with the sections that are given: larger than those that fuzzing begins with.
const SIZE: usize = 1 << 19;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    if !file.starts_with(b"\x7fELF") {
        let mut rest = file;
        let [manifest, module, tables] = [(); 3].map(|()| section(&mut rest));
        read(&fuzzing::assemble(SIZE, manifest, module, tables));
        return;
    }
    read(file);
    if verify(file).is_ok() {
        assert!(Artifact::parse_all(file).is_ok() && recorded_sha256(file).is_ok());
    }
    let mut sealed = file.to_vec();
    fuzzing::seal(&mut sealed);
    read(&sealed);
});

fn section<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, rest)) = input.split_first_chunk() else {
        return &[];
    };
    let length = usize::from(u16::from_le_bytes(*length));
    let (section, rest) = rest.split_at(length.min(rest.len()));
    *input = rest;
    section
}

fn read(file: &[u8]) {
    let variants = match (Artifact::parse(file), Artifact::parse_all(file)) {
        (Ok(best), Ok(all)) => {
            let places: Vec<_> = all.iter().map(Artifact::place).collect();
            assert!(
                places.contains(&best.place()),
                "the best variant is none of all"
            );
            all
        }
        // Another variant may be damaged, which a load does not look at.
        (Ok(best), Err(_)) => vec![best],
        (Err(_), Ok(all)) => all,
        (Err(_), Err(_)) => {
            return;
        }
    };
    assert!(is_artifact(file, file));
    for variant in &variants {
        let _ = variant.check_host("7.4.2");
        contents(file, variant);
    }
}

/// What the reader promises of an artifact that it takes.
fn contents(file: &[u8], artifact: &Artifact<'_>) {
    let bytes = |range: Range| {
        &file[range
            .within(file.len())
            .expect("a range lies outside of the file")]
    };
    let module = &artifact.module;
    for segment in &module.plan.segments {
        bytes(segment.bytes);
        assert!(segment.address + segment.memory_size <= u64::from(u32::MAX));
    }
    for run in &module.image {
        bytes(run.bytes);
        let size = u64::from(module.memories[run.memory as usize].minimum) << 16;
        assert!(run.address + run.bytes.length <= size);
    }
    for data in &module.passive_data {
        bytes(data.bytes);
    }
    let code = module.plan.code;
    let is_code =
        |address: u32| (code.offset..code.offset + code.length).contains(&u64::from(address));
    assert!(artifact.tables.code().all(is_code) && artifact.tables.trampolines().all(is_code));
    assert_eq!(
        artifact.tables.code().len(),
        module.local_functions as usize
    );
    let functions = module.imported_functions + module.local_functions;
    assert_eq!(artifact.tables.signatures().len(), functions as usize);
    assert!(
        artifact
            .tables
            .signatures()
            .all(|ty| (ty as usize) < module.types.len())
    );
    assert!(
        artifact
            .tables
            .elements()
            .all(|index| index < functions || index == u32::MAX)
    );
    let _ = FunctionNames::decode(bytes(module.names));
    let _ = trap_at(bytes(module.traps), 1);
    let _ = source_lines(bytes(module.lines), &[1]);

    let encoded = postcard::to_stdvec(&artifact.manifest).expect("it can be encoded");
    let again: Manifest<'_> = postcard::from_bytes(&encoded).expect("it can be decoded");
    assert_eq!(again, artifact.manifest);
    let encoded = postcard::to_stdvec(module).expect("it can be encoded");
    let again: ModuleMetadata = postcard::from_bytes(&encoded).expect("it can be decoded");
    assert_eq!(again, *module);
}
