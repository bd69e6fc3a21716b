//! Go's path cleaning, as its request router does it before any handler sees a request: on the path as sent.

use crate::request::target::percent_decode;

/// The clean form of a path that is not clean; `None` where nothing has to change.
pub(super) fn cleaned(path: &str) -> Option<String> {
    // Most are clean, and can be seen to be.
    let is_suspect = |pair: &[u8]| pair == b"//" || pair == b"/.";
    if path.starts_with('/') && !path.as_bytes().windows(2).any(is_suspect) {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = String::with_capacity(path.len());
    for part in &parts {
        clean.push('/');
        clean.push_str(part);
    }
    if clean.is_empty() || path.ends_with('/') {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// Whether a path as sent is `wanted`, where each segment may be written with escapes.
pub(super) fn is(path: &str, wanted: &str) -> bool {
    if !path.contains('%') {
        return path == wanted;
    }
    let mut segments = path.split('/');
    wanted.split('/').all(|wanted| {
        segments
            .next()
            .is_some_and(|segment| percent_decode(segment.as_bytes()) == wanted.as_bytes())
    }) && segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, clean) in [
            ("/", None),
            ("/a", None),
            ("/a/", None),
            ("/a/b.c", None),
            ("/...", None),
            ("//", Some("/")),
            ("//a", Some("/a")),
            ("/a//b", Some("/a/b")),
            ("/a//", Some("/a/")),
            ("/a/./b", Some("/a/b")),
            ("/a/.", Some("/a")),
            ("/./", Some("/")),
            ("/.", Some("/")),
            ("/a/..", Some("/")),
            ("/a/../b", Some("/b")),
            ("/a/b/..", Some("/a")),
            ("/a/b/../", Some("/a/")),
            ("/../x", Some("/x")),
            ("/../..", Some("/")),
            ("/%2e%2e/x", None),
            ("/a%2f%2fb", None),
            ("/a/%2e/b", None),
        ] {
            assert_eq!(cleaned(path).as_deref(), clean, "{path}");
        }
    }

    #[test]
    fn matches_whole_paths() {
        for (path, matches) in [
            ("/_/health", true),
            ("/_/%68ealth", true),
            ("/_/health/", false),
            ("/_/healthz", false),
            ("/_%2fhealth", false),
            ("/", false),
        ] {
            assert_eq!(is(path, "/_/health"), matches, "{path}");
        }
    }
}
