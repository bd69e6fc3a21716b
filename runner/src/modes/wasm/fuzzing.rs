//! Wasm mode's entry points for the fuzz targets.

use super::{head, scale};

/// Takes bytes as a response head, and as the body of a request to `/scale-updater`.
///
/// # Panics
///
/// If a parser violates its contract.
pub fn response_head(bytes: &[u8]) {
    head::fuzzing::response_head(bytes);
    let _ = scale::parse(bytes);
}
