//! Content types by file extension: the table that is built into Go, and what the system adds to it.

use std::collections::HashMap;
use std::path::Path;

const GLOBS: &str = "/usr/share/mime/globs2";

const TYPE_FILES: [&str; 4] = [
    "/etc/mime.types",
    "/etc/apache2/mime.types",
    "/etc/apache/mime.types",
    "/etc/httpd/conf/mime.types",
];

/// Go's built-in table: extensions and their type.
const BUILT_IN: [(&str, &str); 45] = [
    ("ai eps ps", "application/postscript"),
    ("apk", "application/vnd.android.package-archive"),
    ("apng", "image/apng"),
    ("avif", "image/avif"),
    ("bin com exe", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("doc", "application/msword"),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    ("eml", "message/rfc822"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm html ehtml shtml", "text/html; charset=utf-8"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("jfif jpeg jpg pjp pjpeg", "image/jpeg"),
    ("js mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("m4a", "audio/mp4"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("oga ogg opus", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    (
        "pptx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
    ("rdf", "application/rdf+xml"),
    ("rtf", "application/rtf"),
    ("svg", "image/svg+xml"),
    ("text txt", "text/plain; charset=utf-8"),
    ("tif tiff", "image/tiff"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("xbl xml xsl", "text/xml; charset=utf-8"),
    ("xbm", "image/x-xbitmap"),
    ("xht xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    ("zip", "application/zip"),
];

/// Content types by extension.
#[derive(Debug)]
pub(super) struct ContentTypes {
    by_extension: HashMap<String, String>,
}

impl ContentTypes {
    /// The built-in table with the system's tables on top.
    pub(super) fn load() -> Self {
        let mut types = Self::built_in();
        if let Ok(globs) = std::fs::read_to_string(GLOBS) {
            types.add_globs(&globs);
        } else {
            for text in TYPE_FILES
                .iter()
                .filter_map(|file| std::fs::read_to_string(file).ok())
            {
                types.add_type_file(&text);
            }
        }
        types
    }

    pub(super) fn built_in() -> Self {
        let by_extension = BUILT_IN
            .iter()
            .flat_map(|(extensions, kind)| {
                extensions
                    .split(' ')
                    .map(move |one| (one.to_owned(), (*kind).to_owned()))
            })
            .collect();
        Self { by_extension }
    }

    /// The type for a file name: by its extension as written, else in lower case.
    pub(super) fn of(&self, name: &Path) -> Option<&str> {
        let name = name.to_str()?;
        let (_, extension) = name.rsplit_once('.')?;
        self.by_extension
            .get(extension)
            .or_else(|| self.by_extension.get(&extension.to_ascii_lowercase()))
            .map(String::as_str)
    }

    /// Adds `weight:type:*.extension` lines, heaviest first, for extensions that have no type yet.
    fn add_globs(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split(':').skip(1);
            if let (Some(kind), Some(pattern)) = (fields.next(), fields.next())
                && let Some(extension) = pattern
                    .strip_prefix("*.")
                    .filter(|e| !e.is_empty() && !e.contains(['?', '*', '[']))
            {
                self.by_extension
                    .entry(extension.to_owned())
                    .or_insert_with(|| with_charset(kind));
            }
        }
    }

    /// Adds lines of a type and its extensions; they win over what was known.
    fn add_type_file(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line
                .split_ascii_whitespace()
                .take_while(|word| !word.starts_with('#'));
            let Some(kind) = words.next().filter(|kind| kind.contains('/')) else {
                continue;
            };
            for extension in words {
                self.by_extension
                    .insert(extension.to_owned(), with_charset(kind));
            }
        }
    }
}

fn with_charset(kind: &str) -> String {
    if kind.starts_with("text/") && !kind.contains("charset=") {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(types: &ContentTypes, name: &str, expected: Option<&str>) {
        assert_eq!(types.of(Path::new(name)), expected, "{name}");
    }

    #[test]
    fn knows_gos_table() {
        let types = ContentTypes::built_in();
        for (name, expected) in [
            ("a.html", Some("text/html; charset=utf-8")),
            ("a.css", Some("text/css; charset=utf-8")),
            ("a.js", Some("text/javascript; charset=utf-8")),
            ("a.json", Some("application/json")),
            ("a.svg", Some("image/svg+xml")),
            ("a.PNG", Some("image/png")),
            ("a.tar.gz", Some("application/gzip")),
            ("a.wasm", Some("application/wasm")),
            (".txt", Some("text/plain; charset=utf-8")),
            ("txt", None),
            ("a.unknown", None),
            ("a.", None),
        ] {
            check(&types, name, expected);
        }
    }

    #[test]
    fn system_tables_add_types() {
        let mut types = ContentTypes::built_in();
        types.add_globs("# comment\n50:text/x-new:*.new\n40:text/x-other:*.new\n50:application/x-js:*.js\n50:a/b:*.[x]\n50:c/d\n");
        check(&types, "a.new", Some("text/x-new; charset=utf-8"));
        check(&types, "a.js", Some("text/javascript; charset=utf-8"));
        check(&types, "a.[x]", None);
        types
            .add_type_file("# comment\napplication/x-js js mjs # more\nlonely/type\nnonsense js\n");
        check(&types, "a.js", Some("application/x-js"));
    }
}
