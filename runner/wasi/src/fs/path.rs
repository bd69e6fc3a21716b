//! Addresses of lower files: a tree, and a canonical path in it.
//!
//! A canonical path has components joined by single slashes, relative to the root of the tree.

/// Index of a tree in its namespace.
pub(crate) type TreeId = usize;

/// Appends a component to a canonical path.
pub(crate) fn push_component(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Removes the last component of a canonical path and returns it.
pub(crate) fn truncate_to_parent(path: &mut Vec<u8>) -> Vec<u8> {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => {
            let name = path.split_off(slash + 1);
            path.truncate(slash);
            name
        }
        None => std::mem::take(path),
    }
}
