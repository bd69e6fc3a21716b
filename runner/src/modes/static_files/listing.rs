//! The listing of a directory, in the markup of Go's file server.

use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use crate::server::escape_html;

/// A page with a link for each entry, sorted by name; directories end in a slash.
pub(super) fn html(directory: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        names.push((entry.file_name().into_vec(), is_directory));
    }
    names.sort();
    let mut page = String::from(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n",
    );
    for (mut name, is_directory) in names {
        if is_directory {
            name.push(b'/');
        }
        let text = escape_html(&String::from_utf8_lossy(&name));
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<a href=\"{}\">{text}</a>", link(&name));
    }
    page.push_str("</pre>\n");
    Ok(page)
}

/// A relative link to a name; one with a colon would be taken for a scheme.
fn link(name: &[u8]) -> String {
    let encoded = percent_encode(name);
    if encoded.contains(':') {
        format!("./{encoded}")
    } else {
        encoded
    }
}

/// Encodes what may not stand in a path as it is.
pub(super) fn percent_encode(path: &[u8]) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            // As above.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_links() {
        for (name, expected) in [
            ("a.txt", "a.txt"),
            ("a b?#%", "a%20b%3F%23%25"),
            ("ä", "%C3%A4"),
            ("a:b", "./a:b"),
            ("\"<'>", "%22%3C%27%3E"),
        ] {
            assert_eq!(link(name.as_bytes()), expected);
        }
    }

    #[test]
    fn lists_entries_by_name() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("sub")).expect("made");
        for name in ["z", "a<b>&.txt"] {
            std::fs::write(directory.path().join(name), "").expect("written");
        }
        assert_eq!(
            html(directory.path()).expect("listed"),
            "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n\
             <a href=\"a%3Cb%3E&.txt\">a&lt;b&gt;&amp;.txt</a>\n<a href=\"sub/\">sub/</a>\n<a href=\"z\">z</a>\n</pre>\n"
        );
    }
}
