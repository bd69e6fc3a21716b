//! Access lines: what the modes have in common.

use crate::gotext;
use crate::log::{AccessRecord, Logger, When};
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
        write_line(logger, head, "ContentLength", answer, When::Now);
    }
}

/// The same where a thread that serves connections is about to be woken, which then takes the line along.
pub(super) fn log_soon(logger: &Logger, head: &RequestHead, answer: &Answer<'_>) {
    if !head.is_kube_probe() {
        write_line(logger, head, "ContentLength", answer, When::Soon);
    }
}

/// The same on a thread that serves connections.
pub(super) fn log_before_waiting(logger: &Logger, head: &RequestHead, answer: &Answer<'_>) {
    if !head.is_kube_probe() {
        write_line(logger, head, "ContentLength", answer, When::BeforeWaiting);
    }
}

/// Writes the line for every client, with another name for the size.
pub(super) fn log_always(
    logger: &Logger,
    head: &RequestHead,
    size_name: &str,
    answer: &Answer<'_>,
) {
    write_line(logger, head, size_name, answer, When::Now);
}

fn write_line(
    logger: &Logger,
    head: &RequestHead,
    size_name: &str,
    answer: &Answer<'_>,
    when: When,
) {
    let compose = |line: &mut Vec<u8>| {
        for text in [head.method.as_str(), " ", &head.target, " - "] {
            line.extend_from_slice(text.as_bytes());
        }
        match answer.status_text {
            Some(text) => line.extend_from_slice(text.as_bytes()),
            None => gotext::push_number(line, answer.status),
        }
        for text in [" - ", size_name, ": "] {
            line.extend_from_slice(text.as_bytes());
        }
        let bytes = answer.bytes.map(i64::try_from);
        gotext::push_size(line, bytes.map_or(-1, |bytes| bytes.unwrap_or(i64::MAX)));
        line.extend_from_slice(b" (");
        gotext::push_decimals::<4>(line, answer.seconds);
        line.extend_from_slice(b"s)");
        line.extend_from_slice(answer.suffix.as_bytes());
    };
    let record = || AccessRecord {
        method: head.method.as_str(),
        path: &head.target,
        status: answer.status,
        bytes: answer.bytes,
        seconds: answer.seconds,
        call_id: head.header("x-call-id"),
        traceparent: head.header("traceparent"),
    };
    logger.access(compose, record, when);
}
