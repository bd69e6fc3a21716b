//! Conditional requests against a modification time; there are no entity tags.

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use ::http::{HeaderValue, Method};

use crate::request::RequestHead;

/// Start of the year 10000 in seconds since 1970. Dates of HTTP have years of four digits.
const YEAR_10000: u64 = 253_402_300_800;

/// When a file was changed, in whole seconds; `None` if it is not known, or a date of HTTP cannot express it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Modified(Option<u64>);

impl Modified {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self::new(metadata.modified().ok().and_then(seconds_since_epoch))
    }

    /// A time in seconds since 1970.
    pub(super) fn new(seconds: Option<u64>) -> Self {
        // The epoch itself stands for "unknown" in many images.
        Self(seconds.filter(|seconds| (1..YEAR_10000).contains(seconds)))
    }

    pub(super) fn header_value(self) -> Option<HeaderValue> {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(self.0?))?;
        HeaderValue::from_str(&httpdate::fmt_http_date(time)).ok()
    }
}

fn seconds_since_epoch(time: SystemTime) -> Option<u64> {
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// What the conditions of a request say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// 412.
    Fails,
    /// 304.
    NotModified,
    /// Serve it, or the range of it that is asked for.
    Proceed {
        /// The `Range` header; empty for none.
        range: &'a str,
    },
}

/// Checks all conditions in the order of RFC 9110.
pub(super) fn check(head: &RequestHead, modified: Modified) -> Verdict<'_> {
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let fails = match nonempty(head, IF_MATCH) {
        // A file that is there matches `*`, and no tag.
        Some(tags) => tags != "*",
        None => date(head, IF_UNMODIFIED_SINCE)
            .zip(modified.0)
            .is_some_and(|(date, modified)| modified > date),
    };
    if fails {
        return Verdict::Fails;
    }
    match nonempty(head, IF_NONE_MATCH) {
        Some(tags) if tags.split(',').any(|tag| tag.trim() == "*") => {
            return if is_read {
                Verdict::NotModified
            } else {
                Verdict::Fails
            };
        }
        Some(_) => {}
        None if is_not_modified_since(head, modified) => return Verdict::NotModified,
        None => {}
    }
    let range = nonempty(head, RANGE).unwrap_or_default();
    let applies = !is_read
        || nonempty(head, IF_RANGE).is_none()
        || modified.0.is_some() && date(head, IF_RANGE) == modified.0;
    Verdict::Proceed {
        range: if applies { range } else { "" },
    }
}

/// Whether the client has the current version, by `If-Modified-Since`.
pub(super) fn is_not_modified_since(head: &RequestHead, modified: Modified) -> bool {
    matches!(head.method, Method::GET | Method::HEAD)
        && date(head, IF_MODIFIED_SINCE)
            .zip(modified.0)
            .is_some_and(|(date, modified)| modified <= date)
}

fn nonempty(head: &RequestHead, name: ::http::HeaderName) -> Option<&str> {
    head.header(name).filter(|value| !value.is_empty())
}

/// A header's date in seconds; one that is not a date counts as absent.
fn date(head: &RequestHead, name: ::http::HeaderName) -> Option<u64> {
    seconds_since_epoch(httpdate::parse_http_date(head.header(name)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::head;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const EXACT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const MODIFIED: Modified = Modified(Some(784_111_777));

    #[test]
    fn formats_the_time() {
        assert_eq!(
            MODIFIED.header_value(),
            Some(HeaderValue::from_static(EXACT))
        );
        assert_eq!(Modified(None).header_value(), None);
        let last = Modified::new(Some(YEAR_10000 - 1)).header_value();
        assert_eq!(
            last,
            Some(HeaderValue::from_static("Fri, 31 Dec 9999 23:59:59 GMT"))
        );
        assert_eq!(Modified::new(Some(YEAR_10000)).header_value(), None);
    }

    #[test]
    fn checks_conditions() {
        let all = Verdict::Proceed { range: "" };
        let part = Verdict::Proceed { range: "bytes=0-1" };
        for (headers, verdict) in [
            (&[][..], &all),
            (&[("if-modified-since", BEFORE)], &all),
            (&[("if-modified-since", EXACT)], &Verdict::NotModified),
            (&[("if-modified-since", AFTER)], &Verdict::NotModified),
            (&[("if-modified-since", "junk")], &all),
            (&[("if-unmodified-since", BEFORE)], &Verdict::Fails),
            (&[("if-unmodified-since", EXACT)], &all),
            (&[("if-match", "*")], &all),
            (&[("if-match", "\"tag\"")], &Verdict::Fails),
            (&[("if-none-match", "*")], &Verdict::NotModified),
            (
                &[("if-none-match", "\"tag\""), ("if-modified-since", AFTER)],
                &all,
            ),
            (&[("range", "bytes=0-1")], &part),
            (&[("range", "bytes=0-1"), ("if-range", EXACT)], &part),
            (&[("range", "bytes=0-1"), ("if-range", AFTER)], &all),
            (&[("range", "bytes=0-1"), ("if-range", "\"tag\"")], &all),
        ] {
            assert_eq!(
                check(&head("/", headers), MODIFIED),
                *verdict,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn only_reads_can_be_not_modified() {
        let mut post = head("/", &[("if-modified-since", AFTER)]);
        post.method = Method::POST;
        assert_eq!(check(&post, MODIFIED), Verdict::Proceed { range: "" });
        let mut post = head("/", &[("if-none-match", "*")]);
        post.method = Method::POST;
        assert_eq!(check(&post, MODIFIED), Verdict::Fails);
    }
}
