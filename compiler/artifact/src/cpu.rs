//! Instruction sets by name, and which of them this host has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! cpu_features {
    ($($variant:ident $name:literal $architecture:literal;)*) => {
        /// An instruction set that compiled code may use. The list is what the code generators
        /// can be told to use; the names are LLVM's where they differ from the vendors'.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "vendors' names")]
        pub enum CpuFeature { $($variant),* }

        impl CpuFeature {
            /// All known features.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Name on the command line and in messages.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The architecture it belongs to, as in a target triple.
            pub fn architecture(self) -> &'static str {
                match self { $(Self::$variant => $architecture),* }
            }
        }
    };
}
cpu_features! {
    Sse2 "sse2" "x86_64";
    Sse3 "sse3" "x86_64";
    Ssse3 "ssse3" "x86_64";
    Sse41 "sse4.1" "x86_64";
    Sse42 "sse4.2" "x86_64";
    Popcnt "popcnt" "x86_64";
    Avx "avx" "x86_64";
    Bmi1 "bmi1" "x86_64";
    Bmi2 "bmi2" "x86_64";
    Avx2 "avx2" "x86_64";
    Avx512dq "avx512dq" "x86_64";
    Avx512vl "avx512vl" "x86_64";
    Avx512f "avx512f" "x86_64";
    Lzcnt "lzcnt" "x86_64";
    Fma "fma" "x86_64";
    Neon "neon" "aarch64";
}

impl fmt::Display for CpuFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A feature name that is not in the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown CPU feature `{0}`")]
pub struct UnknownFeature(
    /// The name as given.
    pub String,
);

impl FromStr for CpuFeature {
    type Err = UnknownFeature;

    /// Accepts the listed names in any case, and the spellings without a dot (`sse41`).
    fn from_str(name: &str) -> Result<Self, UnknownFeature> {
        let plain = |name: &str| name.to_ascii_lowercase().replace(['.', '_', '-'], "");
        Self::ALL
            .iter()
            .copied()
            .find(|feature| plain(feature.name()) == plain(name))
            .ok_or_else(|| UnknownFeature(name.into()))
    }
}

/// The known features that this machine has.
pub fn host_features() -> Vec<CpuFeature> {
    CpuFeature::ALL
        .iter()
        .copied()
        .filter(|feature| host_has(*feature))
        .collect()
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn host_has(feature: CpuFeature) -> bool {
    use std::is_x86_feature_detected as has;
    match feature {
        CpuFeature::Sse2 => has!("sse2"),
        CpuFeature::Sse3 => has!("sse3"),
        CpuFeature::Ssse3 => has!("ssse3"),
        CpuFeature::Sse41 => has!("sse4.1"),
        CpuFeature::Sse42 => has!("sse4.2"),
        CpuFeature::Popcnt => has!("popcnt"),
        CpuFeature::Avx => has!("avx"),
        CpuFeature::Bmi1 => has!("bmi1"),
        CpuFeature::Bmi2 => has!("bmi2"),
        CpuFeature::Avx2 => has!("avx2"),
        CpuFeature::Avx512dq => has!("avx512dq"),
        CpuFeature::Avx512vl => has!("avx512vl"),
        CpuFeature::Avx512f => has!("avx512f"),
        CpuFeature::Lzcnt => has!("lzcnt"),
        CpuFeature::Fma => has!("fma"),
        CpuFeature::Neon => false,
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn host_has(feature: CpuFeature) -> bool {
    cfg!(target_arch = "aarch64") && feature == CpuFeature::Neon
}

/// The triple that artifacts for this program must have. The environment (gnu, musl) does not
/// matter to an artifact: it calls nothing but the runner.
pub const fn host_triple() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "x86_64-unknown-linux-gnu"
    } else if cfg!(target_arch = "aarch64") {
        "aarch64-unknown-linux-gnu"
    } else if cfg!(target_arch = "riscv64") {
        "riscv64gc-unknown-linux-gnu"
    } else {
        "unsupported"
    }
}

/// The architecture of a triple, as far as it decides whether code runs.
pub(crate) fn architecture(triple: &str) -> &str {
    let architecture = triple.split('-').next().unwrap_or(triple);
    if architecture.starts_with("riscv64") {
        "riscv64"
    } else {
        architecture
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_in_every_spelling() {
        for feature in CpuFeature::ALL {
            assert_eq!(feature.name().parse(), Ok(*feature));
            assert_eq!(feature.name().to_uppercase().parse(), Ok(*feature));
            assert_eq!(feature.name().replace('.', "").parse(), Ok(*feature));
        }
        assert_eq!(
            "sse9".parse::<CpuFeature>(),
            Err(UnknownFeature("sse9".into()))
        );
    }
}
