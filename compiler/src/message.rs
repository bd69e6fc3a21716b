//! How results and errors are told: to people, or with `--message-format json` to programs.
//!
//! For programs each message is one JSON object on a line: results on standard output, errors and
//! notes on standard error. `reason` says what it is.

use std::ffi::OsString;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::summary::Summary;
use crate::text;

/// Whom messages are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Text
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

impl Format {
    /// What was asked for on a command line that cannot be understood.
    pub(crate) fn of_arguments(arguments: impl IntoIterator<Item = OsString>) -> Self {
        const OPTION: &str = "--message-format";
        let mut last = OsString::new();
        for argument in arguments {
            let joined = argument.to_str().and_then(|word| word.strip_prefix(OPTION));
            if joined == Some("=json") || (last == OPTION && argument == "json") {
                return Self::Json;
            }
            last = argument;
        }
        Self::Human
    }
}

/// An error, with the line end.
pub(crate) fn error(format: Format, error: &Error) -> String {
    match format {
        Format::Human => error.report(),
        Format::Json => object(
            "error",
            json!({
                "code": error.code(),
                "message": error.to_string(),
                "causes": error.causes(),
                "hint": error.hint(),
            }),
        ),
    }
}

/// A command line that cannot be understood. People get what clap prints.
pub(crate) fn usage(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    object(
        "error",
        json!({
            "code": "usage",
            "message": first.strip_prefix("error: ").unwrap_or(first),
            "causes": lines.collect::<Vec<_>>(),
            "hint": null,
        }),
    )
}

/// A bug of ours, of which the panic hook has told the rest.
pub(crate) fn internal(format: Format) -> String {
    let hint = "please report this with the command line";
    match format {
        Format::Human => format!("error: internal error\nhint: {hint}\n"),
        Format::Json => object(
            "error",
            json!({ "code": "internal", "message": "internal error", "causes": [], "hint": hint }),
        ),
    }
}

/// A remark.
pub(crate) fn note(format: Format, note: &str) -> String {
    match format {
        Format::Human => format!("note: {}\n", text::line(note)),
        Format::Json => object("note", json!({ "message": note })),
    }
}

/// An artifact that was written.
pub(crate) fn artifact(format: Format, summary: &Summary) -> String {
    match format {
        Format::Human => summary.to_string(),
        Format::Json => object(
            "artifact",
            json!({
                "path": path(&summary.path),
                "size": summary.artifact_size,
                "sha256": summary.sha256,
                "targets": summary.manifests.iter().map(|one| &one.triple).collect::<Vec<_>>(),
                "backend": summary.manifests.first().map(|one| one.backend.name()),
                "functions": summary.manifests.first().map(|one| one.functions),
                "reused_functions": summary.reused,
                "sbom": summary.sbom.as_deref().map(path),
            }),
        ),
    }
}

/// An artifact that is intact.
pub(crate) fn intact(format: Format, artifact: &Path) -> String {
    match format {
        Format::Human => format!("{}: intact\n", text::line(artifact.display())),
        Format::Json => object("intact", json!({ "path": path(artifact) })),
    }
}

/// A path as JSON can have it: what is not UTF-8 in it is replaced.
pub(crate) fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A result in the form for programs: its own keys, and the reason.
pub(crate) fn object(reason: &str, result: impl Serialize) -> String {
    // Our own types, whose keys are strings, can always be written.
    let mut object = serde_json::to_value(result).unwrap_or_default();
    if let Value::Object(object) = &mut object {
        object.insert("reason".into(), reason.into());
    }
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_found_in_a_wrong_command_line() {
        for (line, expected) in [
            ("faas-wasm build --nonsense", Format::Human),
            (
                "faas-wasm build --message-format=json --nonsense",
                Format::Json,
            ),
            ("faas-wasm --message-format json nonsense", Format::Json),
            ("faas-wasm --message-format human json", Format::Human),
        ] {
            let words = line.split(' ').map(OsString::from);
            assert_eq!(Format::of_arguments(words), expected, "{line}");
        }
    }
}
