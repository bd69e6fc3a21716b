//! Access lines: what the modes have in common.

use crate::gotext;
use crate::log::{AccessRecord, Logger};
use crate::request::RequestHead;

/// What an access line tells of an answer.
pub(super) struct Answer<'a> {
    pub status: u16,
    /// The status as the line shows it, where that is more than the number.
    pub status_text: Option<&'a str>,
    /// Bytes of the body; `None` if not known.
    pub bytes: Option<u64>,
    /// Seconds that it took.
    pub seconds: f64,
    /// Text after the closing parenthesis.
    pub suffix: &'a str,
}

/// Writes `<METHOD> <URI> - <status> - ContentLength: <size> (<seconds>s)`, unless the client is a probe.
pub(super) fn log(logger: &Logger, head: &RequestHead, answer: &Answer<'_>) {
    if !head.is_kube_probe() {
        log_always(logger, head, "ContentLength", answer);
    }
}

/// Writes the line for every client, with another name for the size.
pub(super) fn log_always(
    logger: &Logger,
    head: &RequestHead,
    size_name: &str,
    answer: &Answer<'_>,
) {
    let number = answer.status.to_string();
    let status = answer.status_text.unwrap_or(&number);
    let bytes = answer
        .bytes
        .map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let text = format!(
        "{} {} - {status} - {size_name}: {} ({:.4}s){}",
        head.method,
        head.target,
        gotext::size(bytes),
        answer.seconds,
        answer.suffix,
    );
    let record = AccessRecord {
        method: head.method.as_str(),
        path: &head.target,
        status: answer.status,
        bytes: answer.bytes,
        seconds: answer.seconds,
        call_id: head.header("x-call-id"),
        traceparent: head.header("traceparent"),
    };
    logger.access(&text, &record);
}
