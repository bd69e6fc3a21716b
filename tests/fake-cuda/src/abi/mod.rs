//! The C interface: result codes, structures in their 64-bit layout, and callers' pointers.

mod code;
pub(crate) mod layout;
mod pointer;

pub(crate) use code::{Code, NAMES};
pub(crate) use pointer::{CText, Host, In, Out, PerThread, Stream, image_bytes};

/// The result of an entry point; `Ok` is `CUDA_SUCCESS`.
pub(crate) type Result<T = ()> = std::result::Result<T, Code>;
