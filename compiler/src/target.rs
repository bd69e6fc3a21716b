//! What to compile for: triples and the CPU features that the code may use.

use faas_wasm_artifact::{Backend, CpuFeature, MAX_VARIANTS, host_features, host_triple};
use target_lexicon::{
    Aarch64Architecture, Architecture, Environment, OperatingSystem, Riscv64Architecture, Triple,
};

use crate::backend;
use crate::error::Error;

/// A target, complete and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its environment is always `gnu`: an artifact calls nothing but the runner, so that it does
    /// not depend on a C library, and the same options give the same bytes.
    pub(crate) triple: Triple,
    /// Closed under implication, ascending, and all that the backend can use of them.
    pub(crate) features: Vec<CpuFeature>,
    /// Whether the features were taken from this machine.
    pub(crate) native: bool,
}

/// A CPU level: a name for a set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Level {
    /// SSE2, as every x86_64 CPU.
    #[value(name = "x86-64-v1")]
    V1,
    /// Up to SSE4.2 and POPCNT: CPUs since about 2009.
    #[value(name = "x86-64-v2")]
    V2,
    /// AVX2, BMI, FMA, LZCNT: CPUs since about 2013 to 2015.
    #[value(name = "x86-64-v3")]
    V3,
    /// AVX-512.
    #[value(name = "x86-64-v4")]
    V4,
    /// What this machine has.
    Native,
    /// What every CPU of the architecture has.
    Generic,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "x86-64-v1",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// Whether an architecture has such a level.
    fn fits(self, architecture: &str) -> bool {
        matches!(self, Self::Native | Self::Generic) || architecture == "x86_64"
    }

    /// The levels of the x86-64 psABI, as far as our features go.
    fn x86_features(self) -> &'static [CpuFeature] {
        use CpuFeature::{
            Avx, Avx2, Avx512dq, Avx512f, Avx512vl, Bmi1, Bmi2, Fma, Lzcnt, Popcnt, Sse42,
        };
        // Those that others imply are left out, see `close`.
        match self {
            Self::V2 => &[Sse42, Popcnt],
            Self::V3 => &[Sse42, Popcnt, Avx, Avx2, Bmi1, Bmi2, Fma, Lzcnt],
            Self::V4 => &[
                Sse42, Popcnt, Avx2, Bmi1, Bmi2, Fma, Lzcnt, Avx512f, Avx512dq, Avx512vl,
            ],
            Self::V1 | Self::Native | Self::Generic => &[],
        }
    }
}

impl Target {
    /// Finds out what is meant by the options' text: each triple with each level is a variant of
    /// the artifact, in their order. Levels of one architecture are for its triples, and the others
    /// get their default then. What is the same for the backend is there once.
    ///
    /// # Errors
    ///
    /// Names that are not known or do not fit together, or too many of them.
    pub(crate) fn resolve(
        triples: &[&str],
        levels: &[Level],
        features: Option<&str>,
        backend: Backend,
    ) -> Result<Vec<Self>, Error> {
        let mut triples: Vec<_> = triples
            .iter()
            .map(|name| parse_triple(name))
            .collect::<Result<_, _>>()?;
        if triples.is_empty() {
            triples.push(parse_triple(host_triple())?);
        }
        let several = triples.len() > 1;
        let useless = levels.iter().find(|level| {
            !triples
                .iter()
                .any(|triple| level.fits(architecture(triple)))
        });
        if let Some(level) = useless {
            return Err(Error::ForeignLevel {
                level: level.name(),
                architecture: architecture(&triples[0]),
            });
        }
        let mut variants: Vec<Self> = Vec::new();
        for triple in &triples {
            let fits = |level: &&Level| !several || level.fits(architecture(triple));
            let mut own: Vec<_> = levels
                .iter()
                .filter(fits)
                .map(|level| Some(*level))
                .collect();
            if own.is_empty() {
                own.push(None);
            }
            for level in own {
                let variant = Self::resolve_one(triple.clone(), level, features, several, backend)?;
                let same = |other: &Self| {
                    other.triple == variant.triple && other.features == variant.features
                };
                if !variants.iter().any(same) {
                    variants.push(variant);
                }
            }
        }
        match variants.len() {
            count if count > MAX_VARIANTS => Err(Error::TooManyVariants {
                count,
                most: MAX_VARIANTS,
            }),
            _ => Ok(variants),
        }
    }

    fn resolve_one(
        triple: Triple,
        level: Option<Level>,
        features: Option<&str>,
        several: bool,
        backend: Backend,
    ) -> Result<Self, Error> {
        let architecture = architecture(&triple);
        let added = features
            .map(|list| parse_features(list, architecture, several))
            .transpose()?;
        let foreign = triple.to_string() != host_triple();
        let level = match level {
            None if added.is_some() => Level::Generic,
            // Who wants an artifact for several hosts does not mean this one alone.
            None if !foreign && !several => Level::Native,
            None if architecture == "x86_64" => Level::V2,
            None => Level::Generic,
            Some(Level::Native) if foreign => {
                return Err(Error::ForeignNative {
                    triple: triple.to_string(),
                    host: host_triple(),
                });
            }
            Some(level) => level,
        };
        let mut wanted = added.unwrap_or_default();
        match level {
            Level::Native => wanted.extend(host_features()),
            level => wanted.extend(level.x86_features()),
        }
        wanted.extend(baseline(architecture));
        Ok(Self {
            triple,
            features: backend::usable_features(backend, &close(&wanted)),
            native: level == Level::Native,
        })
    }
}

impl Target {
    /// Whether it is another architecture than this machine's.
    pub(crate) fn is_foreign(&self) -> bool {
        self.triple.to_string() != host_triple()
    }

    /// Name of the architecture: that of our triples.
    pub(crate) fn architecture(&self) -> &'static str {
        architecture(&self.triple)
    }
}

/// Resolves a triple or one of Docker's architecture names.
fn parse_triple(name: &str) -> Result<Triple, Error> {
    // Docker's platforms: linux/amd64, linux/arm64/v8.
    let short = name.strip_prefix("linux/").unwrap_or(name);
    let short = match short.split_once('/') {
        Some(("arm64", "v8")) => "arm64",
        _ => short,
    };
    let full = match short {
        "amd64" | "x86_64" | "x86-64" => "x86_64-unknown-linux-gnu",
        "arm64" | "aarch64" => "aarch64-unknown-linux-gnu",
        "riscv64" | "riscv64gc" => "riscv64gc-unknown-linux-gnu",
        triple => triple,
    };
    let unknown = || Error::UnknownTarget { name: name.into() };
    let triple: Triple = full.parse().map_err(|_| unknown())?;
    // Not those of other byte orders, or of RISC-V without doubles.
    let normal = match triple.architecture {
        Architecture::X86_64 => "x86_64-unknown-linux-gnu",
        Architecture::Aarch64(Aarch64Architecture::Aarch64) => "aarch64-unknown-linux-gnu",
        Architecture::Riscv64(Riscv64Architecture::Riscv64 | Riscv64Architecture::Riscv64gc) => {
            "riscv64gc-unknown-linux-gnu"
        }
        _ => return Err(unknown()),
    };
    if triple.operating_system != OperatingSystem::Linux {
        return Err(Error::NotLinux {
            triple: name.into(),
        });
    }
    // Not those with pointers of four bytes, or a system that is Linux by its kernel alone.
    match triple.environment {
        Environment::Unknown | Environment::Gnu | Environment::Musl => {}
        _ => return Err(unknown()),
    }
    normal.parse().map_err(|_| unknown())
}

fn architecture(triple: &Triple) -> &'static str {
    match triple.architecture {
        Architecture::Aarch64(_) => "aarch64",
        Architecture::Riscv64(_) => "riscv64",
        _ => "x86_64",
    }
}

/// Parses a list separated by commas, spaces, tabs or newlines. A leading `+` is allowed, as LLVM
/// writes it. With `skip_foreign`, features of other architectures are for other variants.
fn parse_features(
    list: &str,
    architecture: &'static str,
    skip_foreign: bool,
) -> Result<Vec<CpuFeature>, Error> {
    list.split([',', ' ', '\t', '\n', '\r'])
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let feature = parse_feature(name, architecture);
            let foreign = matches!(feature, Err(Error::ForeignFeature { .. }));
            (!(foreign && skip_foreign)).then_some(feature)
        })
        .collect()
}

fn parse_feature(name: &str, architecture: &'static str) -> Result<CpuFeature, Error> {
    let plain = match name.strip_prefix('+').unwrap_or(name) {
        // LLVM's name for it.
        "bmi" => "bmi1",
        other => other,
    };
    let feature: CpuFeature = plain.parse().map_err(|_| Error::UnknownFeature {
        name: name.into(),
        architecture,
        known: known_features(architecture),
    })?;
    if feature.architecture() != architecture {
        return Err(Error::ForeignFeature {
            feature,
            architecture,
        });
    }
    Ok(feature)
}

fn known_features(architecture: &str) -> Vec<&'static str> {
    CpuFeature::ALL
        .iter()
        .filter(|feature| feature.architecture() == architecture)
        .map(|feature| feature.name())
        .collect()
}

fn baseline(architecture: &str) -> &'static [CpuFeature] {
    match architecture {
        "x86_64" => &[CpuFeature::Sse2],
        "aarch64" => &[CpuFeature::Neon],
        _ => &[],
    }
}

/// Adds what LLVM's features turn on with them, so that the manifest lists all that the code may
/// use. Sorted, without duplicates.
fn close(features: &[CpuFeature]) -> Vec<CpuFeature> {
    let mut closed = features.to_vec();
    let mut next = 0;
    // The chains are short and free of cycles, so that this ends.
    while let Some(feature) = closed.get(next).copied() {
        closed.extend(implied(feature));
        next += 1;
    }
    closed.sort_unstable();
    closed.dedup();
    closed
}

/// From LLVM's `X86.td`.
fn implied(feature: CpuFeature) -> &'static [CpuFeature] {
    use CpuFeature::{
        Avx, Avx2, Avx512dq, Avx512f, Avx512vl, Fma, Sse2, Sse3, Sse41, Sse42, Ssse3,
    };
    match feature {
        Sse3 => &[Sse2],
        Ssse3 => &[Sse3],
        Sse41 => &[Ssse3],
        Sse42 => &[Sse41],
        Avx => &[Sse42],
        Avx2 | Fma => &[Avx],
        Avx512f => &[Avx2, Fma],
        Avx512dq | Avx512vl => &[Avx512f],
        _ => &[],
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    fn names(triple: &str, levels: &[Level], features: Option<&str>) -> Result<String, String> {
        variants(&[triple], levels, features).map(|variants| variants.join("; "))
    }

    /// Architectures and features of all variants.
    fn variants(
        triples: &[&str],
        levels: &[Level],
        features: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let describe = |target: &Target| {
            let names: Vec<_> = target.features.iter().map(|f| f.name()).collect();
            names.join(" ")
        };
        Target::resolve(triples, levels, features, Backend::Llvm)
            .map(|targets| targets.iter().map(describe).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn levels_and_features_add_up() {
        let v2 = "sse2 sse3 ssse3 sse4.1 sse4.2 popcnt";
        for (levels, features, expected) in [
            (&[Level::Generic][..], None, "sse2"),
            (&[Level::V1], None, "sse2"),
            (&[Level::V2], None, v2),
            (&[], Some(""), "sse2"),
            (&[], Some("popcnt"), "sse2 popcnt"),
            (&[], Some("+bmi,bmi2"), "sse2 bmi1 bmi2"),
            (&[], Some(" sse4.2,\n\tpopcnt  SSE41 "), v2),
            (&[Level::V1], Some("+sse42,popcnt"), v2),
            (
                &[Level::V3],
                None,
                "sse2 sse3 ssse3 sse4.1 sse4.2 popcnt avx bmi1 bmi2 avx2 lzcnt fma",
            ),
        ] {
            assert_eq!(names("amd64", levels, features).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn lists_only_what_the_backend_can_use() {
        let features = |backend| {
            let targets = Target::resolve(&[], &[Level::V4], None, backend);
            targets.expect("the level is known").remove(0).features
        };
        assert!(features(Backend::Llvm).contains(&CpuFeature::Avx512f));
        #[cfg(feature = "cranelift")]
        assert!(!features(Backend::Cranelift).contains(&CpuFeature::Avx512f));
    }

    #[test]
    fn default_is_the_host() {
        let targets = Target::resolve(&[], &[], None, Backend::Llvm).expect("the host is known");
        let [target] = &targets[..] else {
            panic!("{targets:?}");
        };
        assert!(target.native);
        assert_eq!(target.triple.to_string(), host_triple());
        for feature in host_features() {
            assert!(target.features.contains(&feature), "{feature}");
        }
    }

    #[test]
    fn foreign_targets_default_to_their_baseline() {
        for (triple, expected) in [
            ("arm64", "neon"),
            ("linux/arm64/v8", "neon"),
            ("aarch64-unknown-linux-musl", "neon"),
            ("riscv64", ""),
        ] {
            assert_eq!(names(triple, &[], None).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn each_target_with_each_level_is_a_variant() {
        let v2 = "sse2 sse3 ssse3 sse4.1 sse4.2 popcnt";
        for (triples, levels, features, expected) in [
            (
                &["amd64"][..],
                &[Level::V1, Level::V2][..],
                None,
                &["sse2", v2][..],
            ),
            (&["amd64", "arm64"], &[], None, &[v2, "neon"]),
            (
                &["arm64", "amd64"],
                &[Level::V2, Level::V1],
                None,
                &["neon", v2, "sse2"],
            ),
            (
                &["amd64", "arm64", "x86_64"],
                &[Level::Generic],
                Some("popcnt neon"),
                &["sse2 popcnt", "neon"],
            ),
            (&["amd64"], &[Level::V1, Level::Generic], None, &["sse2"]),
        ] {
            let found = variants(triples, levels, features).expect("the options fit");
            assert_eq!(found, expected, "{triples:?} {levels:?}");
        }
        let useless = variants(&["arm64", "riscv64"], &[Level::V3], None);
        assert!(useless.is_err_and(|error| error.contains("`x86-64-v3` is of x86_64")));
        let many = ["amd64", "arm64", "riscv64"];
        assert_eq!(variants(&many, &[], None).map(|found| found.len()), Ok(3));
    }

    #[test]
    fn names_normalize() {
        for name in [
            "amd64",
            "linux/amd64",
            "x86_64-unknown-linux-gnu",
            "x86_64-linux-musl",
            "x86_64-pc-linux-gnu",
        ] {
            assert_eq!(
                names(name, &[Level::V1], None).as_deref(),
                Ok("sse2"),
                "{name}"
            );
        }
    }

    #[test]
    fn rejects_what_does_not_fit() {
        for (triple, levels, features, message) in [
            ("vax", &[][..], None, "unknown target `vax`"),
            ("i686-unknown-linux-gnu", &[], None, "unknown target"),
            ("x86_64-unknown-linux-gnux32", &[], None, "unknown target"),
            ("aarch64_be-unknown-linux-gnu", &[], None, "unknown target"),
            ("riscv64imac-unknown-linux-gnu", &[], None, "unknown target"),
            ("aarch64-linux-android", &[], None, "unknown target"),
            ("linux/riscv", &[], None, "unknown target"),
            ("x86_64-apple-darwin", &[], None, "for Linux only"),
            ("arm64", &[Level::Native], None, "the target is aarch64"),
            ("arm64", &[Level::V2], None, "`x86-64-v2` is of x86_64"),
            ("amd64", &[], Some("sse9"), "known for x86_64: sse2, sse3"),
            (
                "amd64",
                &[],
                Some("neon"),
                "`neon` is of aarch64, the target is x86_64",
            ),
        ] {
            let error = names(triple, levels, features).expect_err("it does not fit");
            assert!(error.contains(message), "{error}");
        }
    }
}
