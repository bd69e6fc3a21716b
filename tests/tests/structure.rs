//! The structure of the source tree: no import circles between modules, and no overlong files.
//!
//! A reader relies on the direction of dependencies to find the place for a change. So the modules in a folder must
//! not import each other in a circle, at any level of a crate. An import counts as an arrow between the two siblings
//! that contain its ends: `crate::server::listen` using `crate::modes::http` is an arrow from `server` to `modes`.
//! Test code does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Maximum number of lines in a source file.
const MAX_LINES: usize = 800;

/// Source directories of the crates whose modules must not form circles.
const CRATES: [&str; 6] = [
    "compiler/artifact/src",
    "compiler/src",
    "runner/cuda/src",
    "runner/engine/src",
    "runner/src",
    "runner/wasi/src",
];

/// Known circles that remain to be untangled. Remove an entry together with its circle.
const KNOWN_CIRCLES: [&str; 2] = [
    "compiler/src: crate::: backend, build, cache, check, convert, cuda, elements, entry, error, imports, input, jump_tables, lift, lines, message, output, preinit, run, target, trap_imports",
    "runner/src: crate::: jwt, modes, request, server",
];

/// A module as its path from the crate root.
type Module = Vec<String>;

/// A group of siblings that import each other, with their parent.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Circle {
    parent: Module,
    members: Vec<String>,
}

impl std::fmt::Display for Circle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parent = self.parent.join("::");
        write!(f, "crate::{parent}: {}", self.members.join(", "))
    }
}

/// Collects the paths that a file names outside test code.
struct References<'a> {
    module: &'a Module,
    found: Vec<Module>,
}

impl References<'_> {
    /// Adds a path, resolved against the module that contains it.
    fn add(&mut self, path: &[String]) {
        let mut absolute = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.module.clone(),
            _ => return,
        };
        for segment in path {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => {
                    absolute.pop();
                }
                name => absolute.push(name.to_owned()),
            }
        }
        self.found.push(absolute);
    }

    fn add_use(&mut self, prefix: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_use(prefix, &path.tree);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(prefix, tree);
                }
            }
            syn::UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.add(prefix);
                prefix.pop();
            }
            syn::UseTree::Rename(rename) => {
                prefix.push(rename.ident.to_string());
                self.add(prefix);
                prefix.pop();
            }
            _ => self.add(prefix),
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            list.path.is_ident("cfg") && list.tokens.to_string().contains("test")
        }
        meta => meta.path().is_ident("test"),
    })
}

impl<'ast> Visit<'ast> for References<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[syn::Attribute] = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }
}

/// The source files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            // Standalone packages may have built into a `target` directory here.
            if !path.ends_with("target") {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The module that a file defines, given the crate's source directory.
fn module_of(root: &Path, file: &Path) -> Module {
    let relative = file.strip_prefix(root).expect("below the root");
    let mut module: Module = relative
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    // A file that replaces a module whose feature is off counts as that module.
    if let Some(last) = module.last_mut()
        && let Some(name) = last.strip_suffix("_disabled")
    {
        *last = name.to_owned();
    }
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// The circles among the modules of these files, which are given with their text.
fn circles(files: &[(Module, String)]) -> Vec<Circle> {
    let modules: BTreeSet<&Module> = files.iter().map(|(module, _)| module).collect();
    let mut arrows: BTreeMap<Module, BTreeSet<(String, String)>> = BTreeMap::new();
    for (module, text) in files {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{module:?}: {error}"));
        let mut references = References {
            module,
            found: Vec::new(),
        };
        references.visit_file(&file);
        for mut target in references.found {
            // Find the module that defines or re-exports the item.
            while !modules.contains(&target) && !target.is_empty() {
                target.pop();
            }
            let common = module
                .iter()
                .zip(&target)
                .take_while(|(a, b)| a == b)
                .count();
            if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                let siblings = arrows.entry(module[..common].to_vec()).or_default();
                siblings.insert((from.clone(), to.clone()));
            }
        }
    }
    arrows
        .into_iter()
        .flat_map(|(parent, arrows)| {
            components(&arrows).into_iter().map(move |members| Circle {
                parent: parent.clone(),
                members,
            })
        })
        .collect()
}

/// The strongly connected components with more than one node.
fn components(arrows: &BTreeSet<(String, String)>) -> Vec<Vec<String>> {
    let reachable = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut pending = vec![start];
        while let Some(node) = pending.pop() {
            for (_, to) in arrows.iter().filter(|(from, _)| from == node) {
                if seen.insert(to) {
                    pending.push(to);
                }
            }
        }
        seen
    };
    let nodes: BTreeSet<&String> = arrows.iter().flat_map(|(from, to)| [from, to]).collect();
    let reach: BTreeMap<_, _> = nodes.iter().map(|node| (*node, reachable(node))).collect();
    let mut groups = BTreeSet::new();
    for (node, from_node) in &reach {
        let group: Vec<String> = from_node
            .iter()
            .filter(|other| reach[**other].contains(*node))
            .map(|other| (*other).clone())
            .collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    groups.into_iter().collect()
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn no_modules_form_an_import_circle() {
    let mut problems = Vec::new();
    for name in CRATES {
        let root = tree().join(name);
        let files: Vec<_> = sources(&root)
            .into_iter()
            .map(|file| (module_of(&root, &file), file))
            .filter(|(module, _)| !module.iter().any(|name| name == "tests"))
            .map(|(module, file)| (module, fs::read_to_string(file).expect("a source file")))
            .collect();
        assert!(files.len() > 3, "{name} has sources");
        problems.extend(circles(&files).iter().map(|c| format!("{name}: {c}")));
    }
    assert_eq!(problems, KNOWN_CIRCLES);
}

#[test]
fn no_source_file_is_overlong() {
    let mut problems = Vec::new();
    for name in ["compiler", "runner", "tests"] {
        for file in sources(&tree().join(name)) {
            let lines = fs::read_to_string(&file)
                .expect("a source file")
                .lines()
                .count();
            if lines > MAX_LINES {
                problems.push(format!("{}: {lines} lines", file.display()));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The circles among files given as path and text.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let root = Path::new("src");
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (module_of(root, &root.join(path)), (*text).to_owned()))
        .collect();
    circles(&files).iter().map(ToString::to_string).collect()
}

#[test]
fn circles_are_found_in_every_import_syntax() {
    let back = ("b.rs", "pub fn f() { crate::a::g() }");
    for there in [
        "use crate::b;",
        "use crate::{c::X, b::f};",
        "use super::b::f as other;",
        "fn g() { super::b::f() }",
    ] {
        let found = circles_of(&[("a.rs", there), back, ("c.rs", "")]);
        assert_eq!(found, ["crate::: a, b"], "{there}");
    }
    // Between folders, through the files in them.
    let found = circles_of(&[
        ("x/one.rs", "use crate::y::two::T;"),
        ("y/two.rs", "use crate::z;"),
        ("z.rs", "use crate::x::one;"),
        ("x/mod.rs", ""),
        ("y/mod.rs", ""),
    ]);
    assert_eq!(found, ["crate::: x, y, z"]);
    // Inside a folder.
    let found = circles_of(&[
        ("x/mod.rs", ""),
        ("x/one.rs", "use super::two::T;"),
        ("x/two.rs", "use crate::x::one;"),
    ]);
    assert_eq!(found, ["crate::x: one, two"]);
}

#[test]
fn imports_without_a_circle_are_accepted() {
    for files in [
        [("a.rs", "use crate::b;"), ("b.rs", "use std::fmt;")],
        [
            ("a.rs", "use crate::b;"),
            ("b.rs", "#[cfg(test)] mod tests { use crate::a; }"),
        ],
        [
            ("a/mod.rs", "use self::x::T;"),
            ("a/x.rs", "use super::U; use crate::a::V;"),
        ],
    ] {
        assert_eq!(circles_of(&files), [""; 0], "{files:?}");
    }
}
