use std::error::Error;

use http::{Request, Response, StatusCode};

/// The function. Each request runs in a fresh instance. An error is logged, and the response is status 500.
pub fn handle(request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Box<dyn Error>> {
    if request.uri().path() != "/" {
        let text = format!("nothing is at {}\n", request.uri().path());
        return Ok(Response::builder()
            .status(StatusCode::NOT_FOUND)
            .header("Content-Type", "text/plain; charset=utf-8")
            .body(text.into())?);
    }
    let text = String::from_utf8(request.into_body())?;
    let reversed: String = text.trim_end().chars().rev().collect();
    Ok(Response::builder()
        .header("Content-Type", "text/plain; charset=utf-8")
        .body(format!("Hello from Rust! {reversed}\n").into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverses_the_body() {
        let response = handle(Request::new("abc\n".into())).unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.body(), b"Hello from Rust! cba\n");
    }

    #[test]
    fn refuses_invalid_utf8() {
        assert!(handle(Request::new(vec![0xff])).is_err());
    }
}
