//! Log lines: the runner's own on stderr, the function's on the stream it wrote to, in of-watchdog's shape or as JSON.
//!
//! A line is one `write` call, so lines of different threads do not mix. There is no filter and no buffer: what is
//! logged has left the process before the call returns.

mod lines;

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Local, Timelike as _};
use serde_json::{Value, json};

pub use lines::{FunctionLines, LineAssembler, LineSink, pump};

use crate::config::LogFormat;

/// How serious a line is; only JSON shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The course of things.
    Info,
    /// Something was not as asked, and the runner goes on.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The stream a function wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionStream {
    /// Its standard output, logged to ours.
    Stdout,
    /// Its standard error, logged to ours.
    Stderr,
}

impl FunctionStream {
    /// The name in prefixes and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What an access line tells, for JSON; the text line is composed by the mode.
#[derive(Clone, Debug, Default)]
pub struct AccessRecord<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// The request URI as sent.
    pub path: &'a str,
    /// The status that the line reports.
    pub status: u16,
    /// Bytes of the response body, if known.
    pub bytes: Option<u64>,
    /// How long it took.
    pub seconds: f64,
    /// The request's `X-Call-Id`.
    pub call_id: Option<&'a str>,
    /// The request's `Traceparent`.
    pub traceparent: Option<&'a str>,
}

/// Writes log lines. Cloning is cheap; all clones write to the same streams.
#[derive(Clone, Debug)]
pub struct Logger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    format: LogFormat,
    prefix_function_lines: bool,
    /// The last second that was formatted, since most lines fall into the same one.
    clock: Mutex<(i64, String)>,
}

impl Logger {
    /// A logger with the format of the configuration.
    #[must_use]
    pub fn new(format: LogFormat, prefix_function_lines: bool) -> Self {
        let clock = Mutex::new((i64::MIN, String::new()));
        Self {
            inner: Arc::new(Inner {
                format,
                prefix_function_lines,
                clock,
            }),
        }
    }

    /// Logs the course of things.
    pub fn info(&self, text: &str) {
        self.own_line(Level::Info, text, None);
    }

    /// Logs something that is not as asked.
    pub fn warn(&self, text: &str) {
        self.own_line(Level::Warn, text, None);
    }

    /// Logs a failure.
    pub fn error(&self, text: &str) {
        self.own_line(Level::Error, text, None);
    }

    /// Logs the end of a request: `text` as it is, or the record's fields beside it in JSON.
    pub fn access(&self, text: &str, record: &AccessRecord<'_>) {
        self.own_line(Level::Info, text, Some(record));
    }

    /// Logs one line of the function, without its line end.
    pub fn function_line(&self, stream: FunctionStream, line: &[u8]) {
        let mut out = Vec::with_capacity(line.len() + 32);
        match self.inner.format {
            LogFormat::Json => {
                let fields = json!({
                    "time": json_time(&Local::now()),
                    "level": Level::Info.as_str(),
                    "message": String::from_utf8_lossy(line),
                    "stream": stream.as_str(),
                });
                out.extend_from_slice(fields.to_string().as_bytes());
            }
            LogFormat::Text => {
                if self.inner.prefix_function_lines {
                    self.push_time(&mut out);
                    out.extend_from_slice(stream.as_str().as_bytes());
                    out.extend_from_slice(b": ");
                }
                out.extend_from_slice(line);
            }
        }
        out.push(b'\n');
        // A log that cannot be written must not disturb the function.
        let _ = match stream {
            FunctionStream::Stderr => std::io::stderr().write_all(&out),
            FunctionStream::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&out).and_then(|()| stdout.flush())
            }
        };
    }

    fn own_line(&self, level: Level, text: &str, access: Option<&AccessRecord<'_>>) {
        let mut out = Vec::with_capacity(text.len() + 32);
        match self.inner.format {
            LogFormat::Json => {
                out.extend_from_slice(json_line(level, text, access).to_string().as_bytes())
            }
            LogFormat::Text => {
                self.push_time(&mut out);
                out.extend_from_slice(text.as_bytes());
            }
        }
        out.push(b'\n');
        // As above.
        let _ = std::io::stderr().write_all(&out);
    }

    /// `YYYY/MM/DD HH:MM:SS ` in local time.
    fn push_time(&self, out: &mut Vec<u8>) {
        let now = Local::now();
        // A poisoned clock still holds a second and its text.
        let mut clock = self
            .inner
            .clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if clock.0 != now.timestamp() {
            *clock = (
                now.timestamp(),
                now.format("%Y/%m/%d %H:%M:%S ").to_string(),
            );
        }
        out.extend_from_slice(clock.1.as_bytes());
    }
}

fn json_time(now: &DateTime<Local>) -> String {
    debug_assert!(now.nanosecond() < 2_000_000_000);
    now.to_rfc3339_opts(chrono::SecondsFormat::Micros, false)
}

fn json_line(level: Level, text: &str, access: Option<&AccessRecord<'_>>) -> Value {
    let mut line =
        json!({ "time": json_time(&Local::now()), "level": level.as_str(), "message": text });
    if let (Some(access), Some(fields)) = (access, line.as_object_mut()) {
        fields.insert("method".to_owned(), access.method.into());
        fields.insert("path".to_owned(), access.path.into());
        fields.insert("status".to_owned(), access.status.into());
        fields.insert("bytes".to_owned(), access.bytes.into());
        fields.insert("seconds".to_owned(), access.seconds.into());
        fields.insert("call_id".to_owned(), access.call_id.into());
        fields.insert("traceparent".to_owned(), access.traceparent.into());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_access_lines_carry_the_request() {
        let record = AccessRecord {
            method: "GET",
            path: "/a\n",
            status: 200,
            bytes: Some(5),
            call_id: Some("7"),
            ..AccessRecord::default()
        };
        let line = json_line(Level::Info, "GET /a", Some(&record)).to_string();
        assert!(!line.contains('\n'));
        let parsed: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(parsed["status"], 200);
        assert_eq!(parsed["path"], "/a\n");
        assert_eq!(parsed["bytes"], 5);
        assert_eq!(parsed["call_id"], "7");
        assert!(parsed["traceparent"].is_null());
        chrono::DateTime::parse_from_rfc3339(parsed["time"].as_str().expect("time"))
            .expect("RFC 3339");
    }
}
