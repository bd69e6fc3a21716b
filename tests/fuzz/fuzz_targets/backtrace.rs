//! The parts of an artifact that a backtrace reads: names, traps, source lines.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Unstructured;
use faas_wasm_artifact::{FunctionNames, LineTable, SourceLine, source_lines, trap_at};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = FunctionNames::decode(bytes);
    let mut input = Unstructured::new(bytes);
    let addresses: Vec<u32> = input.arbitrary().unwrap_or_default();
    for address in &addresses {
        let _ = trap_at(bytes, *address);
    }
    let together = source_lines(bytes, &addresses);
    for (address, found) in addresses.iter().zip(&together) {
        assert_eq!(
            source_lines(bytes, &[*address]),
            std::slice::from_ref(found)
        );
    }
    let rows: Vec<(u32, Option<(u8, u32)>)> = input.arbitrary().unwrap_or_default();
    written(&rows, &addresses);
});

/// What is written is found: the last row at or before an address.
fn written(rows: &[(u32, Option<(u8, u32)>)], addresses: &[u32]) {
    let mut table = LineTable::default();
    let mut expected: BTreeMap<u32, Option<SourceLine>> = BTreeMap::new();
    for (address, place) in rows {
        let place = place.map(|(file, line)| SourceLine {
            file: format!("{file}.c"),
            line,
        });
        let numbered = place
            .as_ref()
            .map(|place| (table.file(place.file.clone()), place.line));
        table.insert(*address, numbered);
        let row = expected.entry(*address).or_default();
        *row = place.or(row.take());
    }
    let encoded = table.encode();
    let own = expected.keys().copied();
    let addresses: Vec<u32> = addresses.iter().copied().chain(own).collect();
    for (address, found) in addresses.iter().zip(source_lines(&encoded, &addresses)) {
        let row = expected.range(..=address).next_back();
        assert_eq!(found, row.and_then(|(_, place)| place.clone()), "{address}");
    }
}
