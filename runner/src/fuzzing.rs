//! Entry points for the fuzz targets in `tests/fuzz`: the parsers of what clients, guests and token issuers send. A
//! violated property is a panic.

pub use crate::jwt::fuzzing::token;
pub use crate::modes::fuzzing::{file_request, response_head, upstream_url};
pub use crate::server::fuzzing::{framing, request_target};
