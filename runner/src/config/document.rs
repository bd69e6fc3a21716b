//! Writes `CONFIGURATION.md` from the table, so that the two cannot differ.

use super::table::{Group, TABLE, Variable};

const INTRODUCTION: &str = "\
# Configuration of the runner

Generated from `src/config/table.rs`; `UPDATE=1 cargo test -p faas-wasm-runner configuration_document` writes it anew.

The runner is configured by environment variables, read once at start. Names are exact.

- **duration**: a whole number counts seconds; else a Go duration such as `50ms`, `1m30s`, `1.5s`.
- **size**: bytes, or a number with `Ki`, `Mi` or `Gi`.
- **list**: separated by commas.
- **bool**: `true`, `false`, `1` or `0`. **bool A**: true only for `true` and `1`. **bool B**: `1 t T TRUE true True` or
  `0 f F FALSE false False`.

Junk in one of of-watchdog's variables falls back to the default (a number to 0) and gives one warning line. Junk in
one of our own is an error: all of them are reported together and the exit code is 2. There, empty means absent. A
variable whose name begins with `wasm_`, `cuda_` or `faas_` and is not known gives a warning that names the nearest
known one.
";

/// The text of `CONFIGURATION.md`.
#[must_use]
pub fn configuration() -> String {
    let mut text = INTRODUCTION.to_owned();
    for group in Group::ALL {
        text.push_str(&format!(
            "\n## {}\n\n| name | type | default | meaning |\n|---|---|---|---|\n",
            title(group)
        ));
        for variable in TABLE.iter().filter(|variable| variable.group == group) {
            text.push_str(&row(variable));
        }
    }
    text
}

fn title(group: Group) -> &'static str {
    match group {
        Group::Watchdog => "Variables of of-watchdog",
        Group::AllModes => "Our own, all modes",
        Group::Wasm => "Wasm mode",
        Group::Cuda => "CUDA in wasm mode",
        Group::Build => "Of the build tool, accepted and ignored",
    }
}

fn row(variable: &Variable) -> String {
    let names = match variable.overridden_by {
        Some(winner) => format!("`{}`, `{winner}`", variable.name),
        None => format!("`{}`", variable.name),
    };
    let default = match (variable.default, variable.default_note) {
        ("", "") => "none".to_owned(),
        ("", note) => note.to_owned(),
        (default, _) => format!("`{default}`"),
    };
    let escape = |text: &str| text.replace('|', "\\|");
    format!(
        "| {names} | {} | {default} | {} |\n",
        escape(variable.kind),
        escape(variable.meaning)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/CONFIGURATION.md");
        let expected = configuration();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &expected).expect("CONFIGURATION.md is writable");
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == expected,
            "CONFIGURATION.md differs from the table; run this test with UPDATE=1"
        );
    }
}
