//! Names of a guest's functions and files, made safe to print.

use faas_wasm_artifact::FunctionNames;

/// The function's name, or its number if the artifact has no name for it.
pub(crate) fn function_name(names: &FunctionNames, index: u32) -> String {
    names
        .names
        .binary_search_by_key(&index, |(index, _)| *index)
        .map_or_else(
            |_| format!("function {index}"),
            |at| printable(&names.names[at].1),
        )
}

/// Replaces control characters. Names come from the guest and must not imitate lines of the log or
/// change a terminal's colors.
pub(crate) fn printable(name: &str) -> String {
    let characters = name.chars();
    characters
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}
