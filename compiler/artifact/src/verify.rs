//! The full check of an artifact: SHA-256 over every byte.

use sha2::{Digest, Sha256};

use crate::directory::Directory;
use crate::error::ReadError;
use crate::header::{HEADER_SIZE, SHA256};
use crate::read::Artifact;

/// Why an artifact is not what was built.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum VerifyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "SHA-256 is {}, expected {}: the artifact is damaged; copy or build it again",
        hex(found),
        hex(expected)
    )]
    Sha256 { expected: [u8; 32], found: [u8; 32] },
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 that the file says it has, which [`verify`] checks.
///
/// # Errors
///
/// What [`Artifact::parse_all`] finds wrong.
pub fn recorded_sha256(file: &[u8]) -> Result<[u8; 32], ReadError> {
    Ok(match Directory::read(file)? {
        Some(directory) => directory.sha256,
        None => Artifact::parse_all(file)?
            .first()
            .map_or([0; 32], |artifact| artifact.header.sha256),
    })
}

/// Checks every byte of an artifact; returns all its variants.
///
/// # Errors
///
/// What [`Artifact::parse_all`] finds wrong, or a checksum that differs.
pub fn verify(file: &[u8]) -> Result<Vec<Artifact<'_>>, VerifyError> {
    let artifacts = Artifact::parse_all(file)?;
    let expected = recorded_sha256(file)?;
    let header = file.len() - HEADER_SIZE;
    let mut sha256 = Sha256::new();
    sha256.update(&file[..header + SHA256.start]);
    sha256.update([0; SHA256.end - SHA256.start]);
    sha256.update(&file[header + SHA256.end..]);
    let found: [u8; 32] = sha256.finalize().into();
    if found != expected {
        return Err(VerifyError::Sha256 { expected, found });
    }
    Ok(artifacts)
}
