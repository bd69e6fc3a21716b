//! How results and errors are told: to people, or with `--message-format json` to programs.
//!
//! For programs each message is one JSON object on a line: artifacts on standard output, errors and
//! notes on standard error. `reason` says what it is.

use serde_json::json;

use crate::error::Error;
use crate::summary::Summary;

/// Whom messages are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Text
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

/// An error, with the line end.
pub(crate) fn error(format: Format, error: &Error) -> String {
    match format {
        Format::Human => error.report(),
        Format::Json => line(&json!({
            "reason": "error",
            "code": error.code(),
            "message": error.to_string(),
            "causes": error.causes(),
            "hint": error.hint(),
        })),
    }
}

/// A remark.
pub(crate) fn note(format: Format, text: &str) -> String {
    match format {
        Format::Human => format!("note: {text}\n"),
        Format::Json => line(&json!({ "reason": "note", "message": text })),
    }
}

/// An artifact that was written.
pub(crate) fn artifact(format: Format, summary: &Summary) -> String {
    match format {
        Format::Human => summary.to_string(),
        Format::Json => line(&json!({
            "reason": "artifact",
            "path": summary.path,
            "size": summary.artifact_size,
            "sha256": summary.sha256,
            "targets": summary.manifests.iter().map(|one| &one.triple).collect::<Vec<_>>(),
            "backend": summary.manifests.first().map(|one| one.backend.name()),
            "functions": summary.manifests.first().map(|one| one.functions),
            "reused_functions": summary.reused,
            "sbom": summary.sbom,
        })),
    }
}

fn line(value: &serde_json::Value) -> String {
    format!("{value}\n")
}
