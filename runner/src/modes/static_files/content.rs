//! A file's bytes as a response: all of them, one range, or several as multipart.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE};
use ::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::task::JoinHandle;

use super::range::ByteRange;
use crate::response::{self, Response, ResponseBody, ResponseError};
use crate::sniff;

/// Files up to this size are read at once, on the thread that serves the request.
const SMALL: u64 = 64 * 1024;

/// How much of a larger file is read at a time, on a thread that may wait for a disk.
const CHUNK: u64 = 256 * 1024;

/// The type of a file without a known extension.
pub(super) fn sniff(file: &File) -> io::Result<&'static str> {
    let mut beginning = [0; sniff::SNIFF_LENGTH];
    let mut length = 0;
    while length < beginning.len() {
        match file.read_at(&mut beginning[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    Ok(sniff::content_type(&beginning[..length]))
}

/// Serves the ranges, or the whole file if there are none.
pub(super) fn respond(
    is_head: bool,
    file: File,
    size: u64,
    content_type: &str,
    ranges: &[ByteRange],
) -> io::Result<Response> {
    let whole = ByteRange {
        start: 0,
        length: size,
    };
    let (status, content_type, content_range, pieces) = match ranges {
        [] => (
            StatusCode::OK,
            content_type.to_owned(),
            None,
            vec![Piece::File(whole)],
        ),
        [range] => {
            let content_range = range.content_range(size);
            (
                StatusCode::PARTIAL_CONTENT,
                content_type.to_owned(),
                Some(content_range),
                vec![Piece::File(*range)],
            )
        }
        ranges => {
            let boundary = boundary();
            let pieces = multipart(ranges, size, content_type, &boundary);
            (
                StatusCode::PARTIAL_CONTENT,
                format!("multipart/byteranges; boundary={boundary}"),
                None,
                pieces,
            )
        }
    };
    let length = pieces.iter().map(Piece::length).sum();
    let body = if is_head {
        ResponseBody::empty()
    } else if length <= SMALL {
        read_all(&file, &pieces)?.into()
    } else {
        ResponseBody::stream(FileBody {
            file: Arc::new(file),
            pieces: pieces.into(),
            reading: None,
        })
    };
    let mut response = response::with_body(status, body);
    response::set_content_length(&mut response, length);
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Types come from tables of text, ranges are numbers.
    if let Ok(value) = HeaderValue::from_str(&content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    if let Some(value) = content_range.and_then(|range| HeaderValue::from_str(&range).ok()) {
        headers.insert(CONTENT_RANGE, value);
    }
    Ok(response)
}

/// A part of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Bytes),
    File(ByteRange),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(range) => range.length,
        }
    }
}

fn multipart(ranges: &[ByteRange], size: u64, content_type: &str, boundary: &str) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(ranges.len() * 2 + 1);
    for (index, range) in ranges.iter().enumerate() {
        let line_end = if index == 0 { "" } else { "\r\n" };
        let head = format!(
            "{line_end}--{boundary}\r\nContent-Range: {}\r\nContent-Type: {content_type}\r\n\r\n",
            range.content_range(size)
        );
        pieces.push(Piece::Text(head.into()));
        pieces.push(Piece::File(*range));
    }
    pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    pieces
}

/// Sixty random hexadecimal digits: too many to be in a file by accident.
fn boundary() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let seed = std::collections::hash_map::RandomState::new();
    (0_u8..4)
        .map(|word| {
            let mut hasher = seed.build_hasher();
            hasher.write_u8(word);
            format!("{:015x}", hasher.finish() >> 4)
        })
        .collect()
}

fn read_all(file: &File, pieces: &[Piece]) -> io::Result<Bytes> {
    if let [Piece::File(range)] = pieces {
        return read_range(file, *range);
    }
    let mut all = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => all.extend_from_slice(text),
            Piece::File(range) => all.extend_from_slice(&read_range(file, *range)?),
        }
    }
    Ok(all.into())
}

/// Reads exactly a range; a file that has become shorter is an error.
fn read_range(file: &File, range: ByteRange) -> io::Result<Bytes> {
    let length = usize::try_from(range.length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut data = vec![0; length];
    file.read_exact_at(&mut data, range.start)?;
    Ok(data.into())
}

/// The body of a large response, read as the client takes it.
struct FileBody {
    file: Arc<File>,
    pieces: std::collections::VecDeque<Piece>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    /// Takes the next piece of at most [`CHUNK`] bytes.
    fn next_piece(&mut self) -> Option<Piece> {
        loop {
            match self.pieces.pop_front()? {
                Piece::File(range) if range.length == 0 => {}
                Piece::File(range) if range.length > CHUNK => {
                    let rest = ByteRange {
                        start: range.start + CHUNK,
                        length: range.length - CHUNK,
                    };
                    self.pieces.push_front(Piece::File(rest));
                    return Some(Piece::File(ByteRange {
                        start: range.start,
                        length: CHUNK,
                    }));
                }
                piece => return Some(piece),
            }
        }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let this = self.get_mut();
        loop {
            if let Some(reading) = &mut this.reading {
                let read = std::task::ready!(Pin::new(reading).poll(cx));
                this.reading = None;
                return Poll::Ready(Some(match read {
                    Ok(Ok(data)) => Ok(Frame::data(data)),
                    Ok(Err(cause)) => Err(cause.into()),
                    Err(cause) => Err(cause.into()),
                }));
            }
            match this.next_piece() {
                None => return Poll::Ready(None),
                Some(Piece::Text(text)) => return Poll::Ready(Some(Ok(Frame::data(text)))),
                Some(Piece::File(range)) => {
                    let file = Arc::clone(&this.file);
                    this.reading = Some(tokio::task::spawn_blocking(move || {
                        read_range(&file, range)
                    }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use std::io::Write as _;

    use super::*;

    fn file(data: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(data).expect("written");
        file
    }

    #[tokio::test]
    async fn serves_ranges_of_small_and_large_files() {
        for size in [100_u64, 1_000_000] {
            let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let ranges = [
                ByteRange {
                    start: 1,
                    length: 2,
                },
                ByteRange {
                    start: 50,
                    length: size - 60,
                },
            ];
            for count in 0..=2 {
                let response =
                    respond(false, file(&data), size, "text/x", &ranges[..count]).expect("served");
                let headers = response.headers().clone();
                let body = response
                    .into_body()
                    .collect()
                    .await
                    .expect("read")
                    .to_bytes();
                assert_eq!(
                    headers["content-length"],
                    body.len().to_string().as_str(),
                    "{size} {count}"
                );
                match count {
                    0 => assert!(body == data, "{size}: the whole file"),
                    1 => {
                        assert_eq!(
                            headers["content-range"],
                            format!("bytes 1-2/{size}").as_str()
                        );
                        assert!(body == data[1..3], "{size}: one range");
                    }
                    _ => {
                        let kind = headers["content-type"].to_str().expect("text");
                        let boundary = kind
                            .strip_prefix("multipart/byteranges; boundary=")
                            .expect("multipart");
                        assert_eq!(boundary.len(), 60);
                        let mut expected = format!("--{boundary}\r\nContent-Range: bytes 1-2/{size}\r\nContent-Type: text/x\r\n\r\n").into_bytes();
                        expected.extend_from_slice(&data[1..3]);
                        let second = format!(
                            "\r\n--{boundary}\r\nContent-Range: bytes 50-{}/{size}\r\nContent-Type: text/x\r\n\r\n",
                            size - 11
                        );
                        expected.extend_from_slice(second.as_bytes());
                        expected.extend_from_slice(&data[50..data.len() - 10]);
                        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
                        assert!(body == expected, "{size}: two ranges");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_shrinks_breaks_the_body_off() {
        let response = respond(false, file(&[0; 10]), 1_000_000, "text/x", &[]).expect("served");
        assert!(response.into_body().collect().await.is_err());
    }
}
