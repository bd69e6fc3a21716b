//! A minimal HTTP/1.1 client that exposes what a library hides: how a response was framed, and whether it was cut
//! off.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A server that stays silent for this long has hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    head: String,
    body: Body,
}

#[derive(Clone)]
enum Body {
    None,
    Sized(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Sized(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Chunked(chunks) => write!(f, "{} chunks", chunks.len()),
        }
    }
}

impl Request {
    /// A request without body.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            head: format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"),
            body: Body::None,
        }
    }

    /// A GET request.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST request with a `Content-Length`.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let mut request =
            Self::new("POST", target).header("Content-Length", &body.len().to_string());
        request.body = Body::Sized(body);
        request
    }

    /// A POST request with a chunked body.
    pub fn post_chunks(target: &str, chunks: Vec<Vec<u8>>) -> Self {
        let mut request = Self::new("POST", target).header("Transfer-Encoding", "chunked");
        request.body = Body::Chunked(chunks);
        request
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    /// Sends the request on a new connection, and reads the response while the body is still being sent.
    ///
    /// # Errors
    ///
    /// If the response has no head or a malformed one.
    pub fn send(&self, address: SocketAddr) -> io::Result<Response> {
        let stream = connect(address)?;
        let mut writer = stream.try_clone()?;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The server may respond without reading the whole body.
                let _ = self.write(&mut writer);
            });
            let mut reader = BufReader::new(&stream);
            let response = Response::read(&mut reader, self.head.starts_with("HEAD "));
            // Wakes the writer if it is still writing.
            let _ = stream.shutdown(Shutdown::Both);
            response
        })
    }

    fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        stream.write_all(format!("{}\r\n", self.head).as_bytes())?;
        match &self.body {
            Body::None => Ok(()),
            Body::Sized(bytes) => stream.write_all(bytes),
            Body::Chunked(chunks) => {
                for chunk in chunks {
                    write_chunk(stream, chunk)?;
                }
                stream.write_all(b"0\r\n\r\n")
            }
        }
    }
}

/// Opens a connection for a test that reads and writes the bytes itself.
///
/// # Errors
///
/// If no server listens at the address.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Closes a connection with a reset, so that the other side notices at once.
pub fn reset(stream: TcpStream) {
    let linger = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    linger.expect("a socket has this option");
    drop(stream);
}

/// Reads the response to a request that the caller has already sent.
///
/// # Panics
///
/// If there is no valid response.
#[track_caller]
pub fn answer(stream: TcpStream) -> Response {
    Response::read(&mut BufReader::new(stream), false).expect("it is answered")
}

/// Writes one chunk of a chunked body. Skips an empty chunk, because it would end the body.
///
/// # Errors
///
/// If the connection is closed.
pub fn write_chunk(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    write!(stream, "{:x}\r\n", bytes.len())?;
    stream.write_all(bytes)?;
    stream.write_all(b"\r\n")
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Names as they were sent, with their values.
    pub headers: Vec<(String, String)>,
    /// The part of the body that arrived.
    pub body: Vec<u8>,
    /// Whether the body reached its announced end. A client must be able to see that a body was cut off.
    pub complete: bool,
}

impl Response {
    /// Reads a response up to its end, or to where the connection ends.
    ///
    /// # Errors
    ///
    /// If the response has no head or a malformed one.
    pub fn read(reader: &mut impl BufRead, without_body: bool) -> io::Result<Self> {
        let mut response = Self::read_head(reader)?;
        let complete = if without_body || matches!(response.status, 204 | 304) {
            Ok(true)
        } else if response.header("Transfer-Encoding") == Some("chunked") {
            read_chunks(reader, &mut response.body)
        } else if let Some(length) = response.header("Content-Length") {
            let length = length.parse().map_err(|_| malformed("Content-Length"))?;
            let read = reader.take(length).read_to_end(&mut response.body);
            read.map(|read| read as u64 == length)
        } else {
            reader.read_to_end(&mut response.body).map(|_| true)
        };
        response.complete = match complete {
            Ok(complete) => complete,
            // A server cuts off a response this way.
            Err(error) if is_cut(&error) => false,
            Err(error) => return Err(error),
        };
        Ok(response)
    }

    /// Reads a response's head and leaves the body to the caller.
    ///
    /// # Errors
    ///
    /// If the head is missing or malformed.
    pub fn read_head(reader: &mut impl BufRead) -> io::Result<Self> {
        let line = read_line(reader)?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| malformed(&line))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(reader)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Self {
            status,
            headers,
            body: Vec::new(),
            complete: false,
        })
    }

    /// The first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the connection ended after `{line}`"),
        )),
    }
}

/// Reads chunks up to the last one. Returns whether the last one arrived.
fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let line = read_line(reader)?;
        let size = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(|_| malformed(&line))?;
        let read = reader.take(size).read_to_end(body)?;
        if (read as u64) < size {
            return Ok(false);
        }
        // Reads the line end after a chunk, or the trailer.
        while !read_line(reader)?.is_empty() {}
        if size == 0 {
            return Ok(true);
        }
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: `{what}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, bool) {
        let response = Response::read(&mut text.as_bytes(), false).expect("there is a head");
        (response.text(), response.complete)
    }

    #[test]
    fn reports_whether_a_response_was_cut() {
        let head = "HTTP/1.1 200 OK\r\n";
        for (rest, expected) in [
            ("Content-Length: 3\r\n\r\nabc", ("abc", true)),
            ("Content-Length: 4\r\n\r\nabc", ("abc", false)),
            (
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                ("abc", true),
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
                ("abc", false),
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                ("abc", false),
            ),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\nab", ("ab", false)),
            ("\r\nabc", ("abc", true)),
        ] {
            let (text, complete) = read(&format!("{head}{rest}"));
            assert_eq!((text.as_str(), complete), expected, "{rest:?}");
        }
    }
}
