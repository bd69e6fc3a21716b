//! Static mode: files under one root, with the redirects, listings, conditions and ranges of Go's file server.
//!
//! Any method serves the file. Links are followed, out of the root too; `..` is resolved before the file system sees
//! a path, however it is written, so that it cannot leave the root.

mod conditions;
mod content;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod listing;
mod mime;
mod range;

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ::http::header::{CONTENT_TYPE, LAST_MODIFIED, LOCATION};
use ::http::{HeaderValue, Method, StatusCode};

use self::conditions::{Modified, Verdict};
use self::mime::ContentTypes;
use super::{BoxFuture, Mode, StartError};
use crate::config::{Config, ModeName};
use crate::log::Logger;
use crate::request::{Request, RequestHead};
use crate::response::{self, Response};

/// The file that stands for its directory.
const INDEX: &str = "index.html";

/// Static mode.
#[derive(Debug)]
pub(super) struct StaticFiles {
    root: PathBuf,
    types: ContentTypes,
}

impl StaticFiles {
    pub(super) fn new(config: &Config, logger: &Logger) -> Result<Self, StartError> {
        if config.static_path.is_empty() {
            return Err(StartError::new(
                "For mode=static you must specify the \"static_path\" to serve",
            ));
        }
        logger.info(&format!("Serving files at: {}", config.static_path));
        Ok(Self {
            root: PathBuf::from(&config.static_path),
            types: ContentTypes::load(),
        })
    }

    fn respond(&self, head: &RequestHead) -> Response {
        let path = head.decoded_path();
        if path.ends_with(b"/index.html") {
            return redirect(head, b"./");
        }
        match self.serve(head, &path) {
            Ok(response) => response,
            Err(error) => error_response(&error),
        }
    }

    fn serve(&self, head: &RequestHead, path: &[u8]) -> io::Result<Response> {
        if path.contains(&0) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (parts, ends_in_slash) = clean(path);
        let mut file_path = self.root.clone();
        file_path.extend(parts.iter().map(|part| OsStr::from_bytes(part)));
        let (file, metadata) = open(&file_path)?;
        let name = parts.last().copied().unwrap_or_default();
        if !metadata.is_dir() {
            if ends_in_slash {
                return Ok(redirect(head, &[b"../", name].concat()));
            }
            return self.serve_file(head, file, &metadata, Path::new(OsStr::from_bytes(name)));
        }
        if !ends_in_slash {
            return Ok(redirect(head, &[name, b"/"].concat()));
        }
        if let Ok((index, index_metadata)) = open(&file_path.join(INDEX))
            && !index_metadata.is_dir()
        {
            return self.serve_file(head, index, &index_metadata, Path::new(INDEX));
        }
        list(head, &file_path, &metadata)
    }

    fn serve_file(
        &self,
        head: &RequestHead,
        file: File,
        metadata: &Metadata,
        name: &Path,
    ) -> io::Result<Response> {
        let modified = Modified::of(metadata);
        let mut response = match conditions::check(head, modified) {
            Verdict::Fails => response::empty(StatusCode::PRECONDITION_FAILED),
            Verdict::NotModified => response::empty(StatusCode::NOT_MODIFIED),
            Verdict::Proceed { range } => {
                let size = metadata.len();
                let content_type = match self.types.of(name) {
                    Some(content_type) => content_type.to_owned(),
                    None => content::sniff(&file)?.to_owned(),
                };
                match range::parse(range, size) {
                    Ok(ranges) => content::respond(
                        head.method == Method::HEAD,
                        file,
                        size,
                        &content_type,
                        &ranges,
                    )?,
                    Err(error) => return Ok(range::refuse(&error, size)),
                }
            }
        };
        set_last_modified(&mut response, modified);
        Ok(response)
    }
}

impl Mode for StaticFiles {
    fn name(&self) -> ModeName {
        ModeName::Static
    }

    fn survives_disconnect(&self) -> bool {
        true
    }

    fn handle(&'static self, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            // Looking up names and reading their pages is done here: it is cached by the kernel nearly always, and
            // large files are read elsewhere.
            self.respond(&request.head)
        })
    }
}

/// The parts of a path with `.` and `..` resolved, and whether it ends in a slash as it was asked for.
fn clean(path: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    (parts, path.ends_with(b"/"))
}

/// Opens a file or directory. Anything else, such as a pipe that would block, does not exist.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() || metadata.is_dir() {
        Ok((file, metadata))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn list(head: &RequestHead, directory: &Path, metadata: &Metadata) -> io::Result<Response> {
    let modified = Modified::of(metadata);
    if conditions::is_not_modified_since(head, modified) {
        return Ok(response::empty(StatusCode::NOT_MODIFIED));
    }
    let mut response = response::with_body(StatusCode::OK, listing::html(directory)?.into());
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    set_last_modified(&mut response, modified);
    Ok(response)
}

fn set_last_modified(response: &mut Response, modified: Modified) {
    if let Some(value) = modified.header_value() {
        response.headers_mut().insert(LAST_MODIFIED, value);
    }
}

/// A redirect to a place that is relative to the one asked for.
fn redirect(head: &RequestHead, place: &[u8]) -> Response {
    let mut location = listing::percent_encode(place);
    if let Some(query) = head.query.as_deref().filter(|query| !query.is_empty()) {
        location.push('?');
        location.push_str(query);
    }
    let mut response = response::empty(StatusCode::MOVED_PERMANENTLY);
    // The place is encoded and the query came in a request line.
    if let Ok(location) = HeaderValue::from_bytes(location.as_bytes()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn error_response(error: &io::Error) -> Response {
    let (status, text) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            (StatusCode::NOT_FOUND, "404 page not found")
        }
        io::ErrorKind::PermissionDenied => (StatusCode::FORBIDDEN, "403 Forbidden"),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "500 Internal Server Error",
        ),
    };
    response::error(status, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::head;

    struct Site {
        directory: tempfile::TempDir,
        files: StaticFiles,
    }

    fn site() -> Site {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("with index")).expect("made");
        std::fs::create_dir_all(root.join("plain")).expect("made");
        for (name, text) in [
            ("../secret", "secret"),
            ("hello.txt", "hello"),
            (".hidden", "dot"),
            ("with index/index.html", "<p>index"),
            ("plain/a&b.txt", ""),
            ("plain/ä b", ""),
        ] {
            std::fs::write(root.join(name), text).expect("written");
        }
        let files = StaticFiles {
            root,
            types: ContentTypes::built_in(),
        };
        Site { directory, files }
    }

    fn status_and_location(site: &Site, target: &str) -> (u16, Option<String>) {
        let response = site.files.respond(&head(target, &[]));
        let location = response
            .headers()
            .get(LOCATION)
            .map(|value| value.to_str().expect("text").to_owned());
        (response.status().as_u16(), location)
    }

    #[test]
    fn finds_files_and_redirects() {
        let site = site();
        for (target, status, location) in [
            ("/hello.txt", 200, None),
            ("/.hidden", 200, None),
            ("/", 200, None),
            ("/missing", 404, None),
            ("/hello.txt/x", 404, None),
            ("/%00", 404, None),
            ("/plain", 301, Some("plain/")),
            ("/plain?a=1", 301, Some("plain/?a=1")),
            ("/with%20index", 301, Some("with%20index/")),
            ("/with%20index/", 200, None),
            ("/with%20index/index.html?q", 301, Some("./?q")),
            ("/hello.txt/", 301, Some("../hello.txt")),
            ("/%2e%2e/secret", 404, None),
            ("/..%2fsecret", 404, None),
            ("/plain/..%2f..%2fsecret", 404, None),
        ] {
            assert_eq!(
                status_and_location(&site, target),
                (status, location.map(str::to_owned)),
                "{target}"
            );
        }
        assert!(site.directory.path().join("secret").exists());
    }

    #[test]
    fn pipes_do_not_block() {
        let site = site();
        let pipe = site.files.root.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("made");
        assert_eq!(status_and_location(&site, "/pipe").0, 404);
    }
}
