//! `/scale-reader` and `/scale-updater`, with the bodies of the OpenFaaS types that a provider passes through.

use std::sync::atomic::{AtomicU64, Ordering};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use super::pool::Pool;
use crate::log::Logger;
use crate::request::Request;
use crate::response::{self, Response};
use crate::threads::PerThread;

pub(super) const READER: &str = "/scale-reader";
pub(super) const UPDATER: &str = "/scale-updater";

/// Longest body of an update that is read; real ones have some dozen bytes.
const MAX_BODY: usize = 64 * 1024;

/// Answers how many replicas there are.
pub(super) fn read(pool: &Pool, invocations: &PerThread<AtomicU64>) -> Response {
    let (replicas, ready) = pool.count();
    let invocations = invocations.all().map(|count| count.load(Ordering::Relaxed));
    let invocations: u64 = invocations.sum();
    let body = format!(
        "{{\"replicas\":{replicas},\"availableReplicas\":{ready},\"invocationCount\":{invocations}}}"
    );
    let mut response = response::with_body(StatusCode::OK, body.into());
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

/// Sets the floor.
pub(super) async fn update(pool: &'static Pool, logger: Logger, mut request: Request) -> Response {
    let mut body = Vec::new();
    while let Some(Ok(data)) = request.body.data().await {
        body.extend_from_slice(&data);
        if body.len() > MAX_BODY {
            return response::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
        }
    }
    let replicas = match parse(&body) {
        Ok(replicas) => replicas,
        Err(cause) => {
            let message = format!("Cannot parse request. Please pass valid JSON. Error={cause}");
            return response::text(StatusCode::BAD_REQUEST, message);
        }
    };
    let (min, max) = (pool.scale.min, pool.scale.max);
    if replicas < u64::from(min) {
        let message = format!("Replicas can not less then `{min}`!");
        return response::text(StatusCode::INTERNAL_SERVER_ERROR, message);
    }
    if replicas > u64::from(max) {
        let message = format!("Replicas can not greater than `{max}`!");
        return response::text(StatusCode::INTERNAL_SERVER_ERROR, message);
    }
    // At most `max`, which is a `u32`.
    pool.set_floor(u32::try_from(replicas).unwrap_or(max));
    logger.info(&format!("Wasm runner set the replicas to `{replicas}`"));
    response::empty(StatusCode::OK)
}

/// The number behind the key `"replicas"`. As in the original scanner the rest need not be JSON.
pub(super) fn parse(body: &[u8]) -> Result<u64, String> {
    const KEY: &[u8] = b"\"replicas\"";
    let at = body
        .windows(KEY.len())
        .position(|window| window == KEY)
        .ok_or("Cannot find key \"replicas\"")?;
    let rest = &body[at + KEY.len()..];
    let colon = rest
        .iter()
        .position(|byte| *byte == b':')
        .ok_or("Cannot find `:` after key \"replicas\"")?;
    let rest = rest[colon + 1..].trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return Err(match rest.first() {
            Some(byte) => format!("Unexpected character ascii=`{byte}`"),
            None => "Unexpected EOF".to_owned(),
        });
    }
    let number = std::str::from_utf8(&rest[..digits]).unwrap_or_default();
    // More digits than fit are more replicas than there can be.
    Ok(number.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_number() {
        for (body, expected) in [
            (r#"{"serviceName":"x","replicas":3}"#, Ok(3)),
            (r#"{"replicas" : 12 }"#, Ok(12)),
            (r#""replicas":007"#, Ok(7)),
            (r#"{"replicas":99999999999999999999999}"#, Ok(u64::MAX)),
            ("{}", Err("Cannot find key \"replicas\"")),
            (
                r#"{"replicas"}"#,
                Err("Cannot find `:` after key \"replicas\""),
            ),
            (r#"{"replicas":-1}"#, Err("Unexpected character ascii=`45`")),
            (r#"{"replicas": "#, Err("Unexpected EOF")),
        ] {
            assert_eq!(
                parse(body.as_bytes()),
                expected.map_err(str::to_owned),
                "{body}"
            );
        }
    }
}
