//! The modes' entry points for the fuzz targets.

pub use super::http::upstream_url;
pub use super::static_files::fuzzing::file_request;
pub use super::wasm::fuzzing::response_head;
