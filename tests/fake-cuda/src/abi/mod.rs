//! The C interface: result codes, structures by their 64-bit layout, and pointers of callers.

mod code;
pub(crate) mod layout;
mod pointer;

pub(crate) use code::{Code, NAMES};
pub(crate) use pointer::{CText, Host, In, Out, PerThread, Stream, image_bytes};

/// What an entry point answers: `Ok` is `CUDA_SUCCESS`.
pub(crate) type Result<T = ()> = std::result::Result<T, Code>;
