//! Connects the runner and `function::handle`: reads the request from the environment and standard
//! input, and writes the response to standard output with a CGI head (the runner's
//! `wasm_response=cgi`).

use std::error::Error;
use std::io::{self, Read as _, Write as _};

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Request, Response};

/// Builds the request from the variables that the runner sets.
fn request() -> Result<Request<Vec<u8>>, Box<dyn Error>> {
    let mut request = Request::new(Vec::new());
    let (mut path, mut query) = (Vec::new(), None);
    for (name, value) in std::env::vars_os() {
        let name = name.into_encoded_bytes();
        let value = value.into_encoded_bytes();
        match name.as_slice() {
            b"Http_Method" => *request.method_mut() = value.as_slice().try_into()?,
            b"Http_Path" => path = value,
            b"Http_Query" => query = Some(value),
            _ => {
                let Some(name) = name.strip_prefix(b"Http_") else {
                    continue;
                };
                let name: Vec<u8> = name.iter().map(|c| if *c == b'_' { b'-' } else { *c }).collect();
                let name = HeaderName::from_bytes(&name)?;
                request.headers_mut().append(name, HeaderValue::from_bytes(&value)?);
            }
        }
    }
    let mut uri = encode(&path);
    if let Some(query) = query {
        uri.push(b'?');
        uri.extend(query);
    }
    *request.uri_mut() = uri.as_slice().try_into()?;
    io::stdin().lock().read_to_end(request.body_mut())?;
    Ok(request)
}

/// Percent-encodes a path for a URI, because the runner passes it decoded.
fn encode(path: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(path.len());
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(byte) {
            encoded.push(*byte);
        } else {
            encoded.extend(format!("%{byte:02X}").into_bytes());
        }
    }
    if encoded.is_empty() {
        encoded.push(b'/');
    }
    encoded
}

fn write(response: &Response<Vec<u8>>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    write!(output, "Status: {}\r\n", response.status().as_u16())?;
    let headers = response.headers();
    if !headers.contains_key(CONTENT_TYPE) && !headers.contains_key(LOCATION) {
        write!(output, "Content-Type: application/octet-stream\r\n")?;
    }
    for (name, value) in headers {
        write!(output, "{name}: ")?;
        output.write_all(value.as_bytes())?;
        write!(output, "\r\n")?;
    }
    write!(output, "\r\n")?;
    output.write_all(response.body())?;
    output.flush()
}

fn main() -> Result<(), Box<dyn Error>> {
    write(&function::handle(request()?)?)?;
    Ok(())
}
