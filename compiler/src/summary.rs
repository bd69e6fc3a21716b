//! What is told at the end of a build.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use faas_wasm_artifact::Manifest;

use crate::text;

/// The result of a build. [`fmt::Display`] is the summary for standard output.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) path: PathBuf,
    /// Of each variant; never empty.
    pub(crate) manifests: Vec<Manifest<'static>>,
    /// Size of each variant's machine code in bytes.
    pub(crate) code_sizes: Vec<u64>,
    /// Size of the file in bytes.
    pub(crate) artifact_size: u64,
    /// SHA-256 of the file.
    pub(crate) sha256: String,
    /// The document about what it is made of, if one was asked for.
    pub(crate) sbom: Option<PathBuf>,
    /// Imported functions that became traps.
    pub(crate) trapping: Vec<String>,
    /// What a runner refuses unless its limits are set.
    pub(crate) beyond_limits: Vec<String>,
    /// Functions that came from the cache, if there is one. Wrappers count too.
    pub(crate) reused: Option<usize>,
    /// Whether the CPU features are this machine's.
    pub(crate) native: bool,
    /// Why there are no source lines in it although they were asked for.
    pub(crate) without_lines: Option<&'static str>,
    /// Imports that look like the CUDA driver API's and are not in it.
    pub(crate) unknown_cuda: Vec<String>,
    pub(crate) elapsed: Duration,
}

impl Summary {
    /// What the user should know beside the numbers, for standard error.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        // With several variants the others are for other CPUs.
        if let ([only], true) = (&self.manifests[..], self.native) {
            notes.push(format!(
                "built for this machine's CPU: only CPUs with {} can run it; \
                 `--cpu x86-64-v2` makes it portable",
                features(only)
            ));
        }
        if !self.trapping.is_empty() {
            notes.push(format!(
                "nobody provides these imports; calling one is a trap: {}",
                self.trapping.join(", ")
            ));
        }
        notes.extend(self.beyond_limits.iter().cloned());
        if let Some(reason) = self.without_lines {
            notes.push(format!("`--debug` has found no source lines: {reason}"));
        }
        if !self.unknown_cuda.is_empty() {
            notes.push(format!(
                "not known to the CUDA driver API, calls give CUDA_ERROR_NOT_SUPPORTED: {}",
                self.unknown_cuda.join(", ")
            ));
        }
        notes
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(manifest) = self.manifests.first() else {
            return Ok(());
        };
        let mut line =
            |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<10} {}", text::line(value));
        line("artifact", &self.path.display())?;
        line("functions", &manifest.functions)?;
        let code: u64 = self.code_sizes.iter().sum();
        line("code", &bytes(code))?;
        line("image", &bytes(manifest.image_size))?;
        line("size", &bytes(self.artifact_size))?;
        if let Some(sbom) = &self.sbom {
            line("sbom", &sbom.display())?;
        }
        for manifest in &self.manifests {
            line("target", &manifest.triple)?;
            line("features", &features(manifest))?;
        }
        line("backend", &backend(manifest))?;
        if let Some(reused) = self.reused {
            let reused = reused.min(manifest.functions as usize);
            line("cache", &format_args!("{reused} functions reused"))?;
        }
        line("time", &format_args!("{:.1} s", self.elapsed.as_secs_f64()))
    }
}

/// `cranelift 7.4.2, -O3 (licence)`.
pub(crate) fn backend(manifest: &Manifest<'_>) -> String {
    format!(
        "{} {}, -O{} ({})",
        manifest.backend.name(),
        manifest.backend_version,
        manifest.opt_level.digit(),
        manifest.backend.licence()
    )
}

/// The CPU features, or that there are none.
pub(crate) fn features(manifest: &Manifest<'_>) -> String {
    let names: Vec<_> = manifest
        .cpu_features
        .iter()
        .map(|feature| feature.name())
        .collect();
    match names.as_slice() {
        [] => "none".into(),
        names => names.join(", "),
    }
}

/// A number of bytes, exact and, if it is large, in units: `16564224 bytes (15.8 MiB)`.
pub(crate) fn bytes(count: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| count >= *unit) {
        None => format!("{count} bytes"),
        Some((name, unit)) => format!("{count} bytes ({:.1} {name})", count as f64 / unit as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1536 bytes (1.5 KiB)");
        assert_eq!(bytes(16_564_224), "16564224 bytes (15.8 MiB)");
    }
}
