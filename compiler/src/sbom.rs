//! `--emit-sbom`: what an artifact was made of and by what, as CycloneDX 1.5 JSON.
//!
//! Small on purpose: the artifact with its hash, the module that it was compiled from, what the
//! module's own `producers` section says of its toolchain, and the code generator with its licence.
//! Nothing in it depends on when or where it was made, unless SOURCE_DATE_EPOCH gives a time.

use faas_wasm_artifact::Manifest;
use serde_json::{Value, json};
use wasmparser::{KnownCustom, Parser, Payload};

/// What the document is about.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// File names, without directories: those are the machine's.
    pub(crate) artifact: &'a str,
    pub(crate) module: &'a str,
    pub(crate) artifact_sha256: [u8; 32],
    /// One for each variant, all of one module.
    pub(crate) manifests: &'a [Manifest<'a>],
    /// The module's bytes.
    pub(crate) wasm: &'a [u8],
    /// Seconds since 1970, if a time is to be told.
    pub(crate) time: Option<u64>,
}

/// Writes the document.
pub(crate) fn document(subject: &Subject<'_>) -> String {
    // There is a variant at least; without one there would be nothing to tell.
    let Some(manifest) = subject.manifests.first() else {
        return String::new();
    };
    let targets = subject.manifests.iter().flat_map(|manifest| {
        [
            property("faas-wasm:target", &manifest.triple),
            property(
                "faas-wasm:cpu-features",
                &crate::summary::features(manifest),
            ),
        ]
    });
    let optimization = manifest.opt_level.digit().to_string();
    let properties: Vec<_> = targets
        .chain([property("faas-wasm:optimization", &optimization)])
        .collect();
    let sha256 = hex(&subject.artifact_sha256);
    let module_sha256 = hex(&manifest.wasm_sha256);
    let version = env!("CARGO_PKG_VERSION");
    let mut metadata = json!({
        "tools": { "components": [{
            "type": "application",
            "name": "faas-wasm",
            "version": version,
            "licenses": [{ "license": { "id": "Apache-2.0" } }],
        }]},
        "component": {
            "type": "application",
            "bom-ref": "artifact",
            "name": subject.artifact,
            "hashes": [hash(&sha256)],
            "properties": properties,
        },
    });
    if let Some(time) = subject.time {
        metadata["timestamp"] = json!(timestamp(time));
    }
    let backend = format!("wasmer-compiler-{}", manifest.backend.name());
    let mut components = vec![
        json!({
            "type": "file",
            "bom-ref": "module",
            "name": subject.module,
            "hashes": [hash(&module_sha256)],
            "properties": producers(subject.wasm),
        }),
        library(
            "backend",
            &backend,
            &manifest.backend_version,
            manifest.backend.licence(),
        ),
        library(
            "engine",
            "wasmer-vm",
            &manifest.engine_version,
            "MIT OR Apache-2.0",
        ),
    ];
    components.sort_by_key(|component| component["bom-ref"].to_string());
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": format!("urn:uuid:{}", uuid(&subject.artifact_sha256)),
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": [{ "ref": "artifact", "dependsOn": ["backend", "engine", "module"] }],
    });
    crate::json(&document)
}

fn hash(sha256: &str) -> Value {
    json!({ "alg": "SHA-256", "content": sha256 })
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

fn library(reference: &str, name: &str, version: &str, licence: &str) -> Value {
    // What we call a licence may have a remark; an expression has none.
    let licence = match licence {
        "MIT OR Apache-2.0" => json!({ "expression": licence }),
        other => json!({ "license": { "name": other } }),
    };
    json!({
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "purl": format!("pkg:cargo/{name}@{version}"),
        "licenses": [licence],
    })
}

/// What the module says of the tools that made it.
fn producers(wasm: &[u8]) -> Vec<Value> {
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(wasm).flatten() {
        let Payload::CustomSection(section) = payload else {
            continue;
        };
        // It is for people to read: what cannot be read is left out.
        let KnownCustom::Producers(fields) = section.as_known() else {
            continue;
        };
        for field in fields.into_iter().flatten() {
            for value in field.values.into_iter().flatten() {
                let text = format!("{} {}", value.name, value.version);
                found.push(property(
                    &format!("wasm:producers:{}", field.name),
                    text.trim(),
                ));
            }
        }
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A version 8 UUID (RFC 9562), which leaves its bits to us: those of the hash.
fn uuid(sha256: &[u8; 32]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha256[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    parts.join("-")
}

/// RFC 3339, in UTC.
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years, so that leap days come last.
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year_of_era + era * 400 + next;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(seconds), expected);
        }
    }

    #[test]
    fn identifiers_are_uuids() {
        let text = uuid(&[0xff; 32]);
        assert_eq!(text, "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }
}
