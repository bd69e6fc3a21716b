//! The module `spectest` that scripts import from.
//!
//! The suite defines its exports: see "spectest host module" in `interpreter/README.md` of the specification's
//! repository, and `host/spectest.ml` there.

use std::collections::BTreeSet;

/// The module's name in imports.
pub(crate) const NAME: &str = "spectest";

/// The definition of each export in the text format, without the closing parenthesis.
const EXPORTS: [(&str, &str); 15] = [
    ("print", "(func"),
    ("print_i32", "(func (param i32)"),
    ("print_i64", "(func (param i64)"),
    ("print_f32", "(func (param f32)"),
    ("print_f64", "(func (param f64)"),
    ("print_i32_f32", "(func (param i32 f32)"),
    ("print_f64_f64", "(func (param f64 f64)"),
    ("global_i32", "(global i32 (i32.const 666)"),
    ("global_i64", "(global i64 (i64.const 666)"),
    ("global_f32", "(global f32 (f32.const 666.6)"),
    ("global_f64", "(global f64 (f64.const 666.6)"),
    ("table", "(table 10 20 funcref"),
    ("table64", "(table i64 10 20 funcref"),
    ("memory", "(memory 1 2"),
    ("shared_memory", "(memory 1 2 shared"),
];

/// A module with only these exports, because an additional memory, for example, would make a guest one with several
/// memories.
pub(crate) fn module(names: &BTreeSet<&str>) -> Vec<u8> {
    let mut text = String::from("(module");
    for (name, start) in EXPORTS.iter().filter(|(name, _)| names.contains(name)) {
        let (kind, rest) = start.split_once(' ').unwrap_or((start, ""));
        text += &format!("\n  {kind} (export \"{name}\") {rest})");
    }
    text += ")";
    wat::parse_str(&text).expect("the text is correct")
}
