//! Log lines: the runner's own on stderr, the function's on the stream it wrote to, in of-watchdog's shape or as JSON.
//!
//! Lines of different threads do not mix, those of one thread keep their order, and there is no filter. What is logged
//! has left the process before the call returns, except for access lines that have no hurry: they leave together when
//! a thread that serves connections is about to wait ([`Logger::flush`]), at the latest. Whatever else is logged on
//! the same thread takes them along.

mod lines;
mod turn;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Local, Timelike as _};
use serde_json::{Value, json};

pub use lines::{LineAssembler, LineSink, pump, too_long_text};
pub use turn::Patience;

use crate::config::LogFormat;
use crate::threads::PerThread;
use turn::{PIECE, Turn, Turns, takes_lines};

/// Access lines that a thread keeps together at most, in bytes: as much as a pipe takes in one piece.
const MOST_KEPT: usize = PIECE;
/// About as long as somebody's turn takes who need not wait for room.
const TURN: Duration = Duration::from_millis(1);
/// For how long they are kept if nobody waits.
const KEPT_FOR: Duration = Duration::from_millis(10);

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

/// When an access line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// There is no hurry: a thread that serves connections is about to be woken.
    Soon,
    /// This is a thread that serves connections, and must not wait for the log.
    BeforeWaiting,
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

/// Writes log lines. All copies write to the same streams.
#[derive(Clone, Copy, Debug)]
pub struct Logger {
    inner: &'static Inner,
}

#[derive(Debug)]
struct Inner {
    format: LogFormat,
    prefix_function_lines: bool,
    lines: PerThread<Mutex<Lines>>,
    turns: Turns,
    /// There are lines that have not been written.
    kept: AtomicBool,
    /// They did not find room.
    is_full: AtomicBool,
}

/// A thread's lines.
#[derive(Debug, Default)]
struct Lines {
    /// Those that have not been written.
    text: Vec<u8>,
    /// When the first of them was added, since 1970.
    since: Duration,
    /// The last second that was formatted, since most lines fall into the same one.
    second: Option<u64>,
    stamp: String,
}

impl Logger {
    /// A logger with the format of the configuration. It is there for as long as the process.
    #[must_use]
    pub fn new(format: LogFormat, prefix_function_lines: bool) -> Self {
        Self {
            inner: Box::leak(Box::new(Inner {
                format,
                prefix_function_lines,
                lines: PerThread::new(Mutex::default),
                turns: Turns::new(),
                kept: AtomicBool::new(false),
                is_full: AtomicBool::new(false),
            })),
        }
    }

    /// Logs the course of things.
    pub fn info(self, text: &str) {
        self.own_line(Level::Info, text);
    }

    /// Logs something that is not as asked.
    pub fn warn(self, text: &str) {
        self.own_line(Level::Warn, text);
    }

    /// Logs a failure.
    pub fn error(self, text: &str) {
        self.own_line(Level::Error, text);
    }

    fn own_line(self, level: Level, text: &str) {
        let mut lines = self.lines();
        self.push_own(&mut lines, level, text);
        lines.write(&mut self.inner.turns.take());
    }

    fn push_own(self, lines: &mut Lines, level: Level, text: &str) {
        match self.inner.format {
            LogFormat::Json => lines.push_json(&json_line(level, text, None)),
            LogFormat::Text => {
                lines.push_time();
                lines.text.extend_from_slice(text.as_bytes());
            }
        }
        lines.end_line();
    }

    /// Logs the end of a request: what `compose` writes as it is, or the record's fields beside it in JSON.
    pub fn access<'a>(
        self,
        compose: impl FnOnce(&mut Vec<u8>),
        record: impl FnOnce() -> AccessRecord<'a>,
        when: When,
    ) {
        let mut lines = match when {
            When::Now | When::Soon => self.lines(),
            When::BeforeWaiting => self.free_lines(),
        };
        let now = match self.inner.format {
            LogFormat::Json => {
                let mut text = Vec::new();
                compose(&mut text);
                let text = String::from_utf8_lossy(&text);
                lines.push_json(&json_line(Level::Info, &text, Some(&record())));
                since_1970()
            }
            LogFormat::Text => {
                let now = lines.push_time();
                compose(&mut lines.text);
                now
            }
        };
        lines.end_line();
        if lines.since.is_zero() {
            lines.since = now;
        }
        let may_be_kept =
            lines.text.len() < MOST_KEPT && now.saturating_sub(lines.since) < KEPT_FOR;
        let is_kept = match when {
            When::Now => false,
            When::Soon => may_be_kept,
            When::BeforeWaiting => may_be_kept || !self.offer(&mut lines),
        };
        if !is_kept {
            lines.write(&mut self.inner.turns.take());
        } else if !self.inner.kept.load(Ordering::Relaxed) {
            // Who flushes clears this first: so it either finds the line or leaves it to the next.
            self.inner.kept.store(true, Ordering::Relaxed);
        }
    }

    /// Logs one line of the function, without its line end.
    pub fn function_line(self, stream: FunctionStream, line: &[u8]) {
        let mut lines = self.lines();
        // A line for the other stream goes ahead of what is kept for this one.
        let kept = match stream {
            FunctionStream::Stderr => Vec::new(),
            FunctionStream::Stdout => std::mem::take(&mut lines.text),
        };
        self.push_function(&mut lines, stream, line);
        match stream {
            FunctionStream::Stderr => lines.write(&mut self.inner.turns.take()),
            FunctionStream::Stdout => {
                let line = std::mem::replace(&mut lines.text, kept);
                let mut stdout = std::io::stdout().lock();
                // A log that cannot be written must not disturb the function.
                let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
            }
        }
    }

    fn push_function(self, lines: &mut Lines, stream: FunctionStream, line: &[u8]) {
        match self.inner.format {
            LogFormat::Json => lines.push_json(&json!({
                "time": json_time(&Local::now()),
                "level": Level::Info.as_str(),
                "message": String::from_utf8_lossy(line),
                "stream": stream.as_str(),
            })),
            LogFormat::Text => {
                if self.inner.prefix_function_lines {
                    lines.push_time();
                    lines.text.extend_from_slice(stream.as_str().as_bytes());
                    lines.text.extend_from_slice(b": ");
                }
                lines.text.extend_from_slice(line);
            }
        }
        lines.end_line();
    }

    /// Logs one line of a guest's stderr, as long as the patience lasts; whether it did.
    pub fn guest_line(self, line: &[u8], patience: Patience<'_>) -> bool {
        let push = |lines: &mut Lines| self.push_function(lines, FunctionStream::Stderr, line);
        self.write_patiently(push, patience)
    }

    /// Logs a failure that a guest can cause as often as it likes, in the same way.
    pub fn guest_error(self, text: &str, patience: Patience<'_>) -> bool {
        self.write_patiently(|lines| self.push_own(lines, Level::Error, text), patience)
    }

    fn write_patiently(self, push: impl FnOnce(&mut Lines), patience: Patience<'_>) -> bool {
        let own = self.inner.lines.own();
        let text = loop {
            // Who shares the thread's lines may be writing them, and wait for the log without end.
            let Ok(mut lines) = own.try_lock() else {
                let mut lines = Lines::default();
                push(&mut lines);
                break lines.text;
            };
            // What is kept goes ahead, and nobody is kept from these lines by waiting.
            if self.offer(&mut lines) {
                push(&mut lines);
                break std::mem::take(&mut lines.text);
            }
            drop(lines);
            let Some(nap) = patience() else {
                return false;
            };
            takes_lines(nap);
        };
        let turn = self.inner.turns.take_patiently(patience);
        turn.is_some_and(|mut turn| turn.write_patiently(&text, patience))
    }

    /// Writes what is kept, as far as nobody has to wait for that. To be called by threads that serve connections
    /// whenever they are about to wait.
    pub fn flush(self) {
        let kept = &self.inner.kept;
        if !kept.load(Ordering::Relaxed) || !kept.swap(false, Ordering::Relaxed) {
            return;
        }
        for lines in self.inner.lines.all() {
            // Who has it now either writes, and takes all along, or sees that there is something to flush again.
            let Ok(mut lines) = lines.try_lock() else {
                continue;
            };
            if lines.text.is_empty() {
                continue;
            }
            if !self.offer(&mut lines) {
                // Nobody reads the log. It is for threads to wait for that which serve nobody.
                kept.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Whether the log had no room for lines when it was last asked.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.inner.is_full.load(Ordering::Relaxed)
    }

    /// Writes lines as far as that takes no waiting; whether that was all.
    fn offer(self, lines: &mut Lines) -> bool {
        let all_taken = lines.text.is_empty() || lines.offer(&self.inner.turns);
        let is_full = &self.inner.is_full;
        if is_full.load(Ordering::Relaxed) == all_taken {
            is_full.store(!all_taken, Ordering::Relaxed);
        }
        all_taken
    }

    /// Writes what is kept, at the end of the process.
    pub fn finish(self) {
        for lines in self.inner.lines.all() {
            lock(lines).write(&mut self.inner.turns.take());
        }
    }

    fn lines(self) -> MutexGuard<'static, Lines> {
        lock(self.inner.lines.own())
    }

    /// Lines that are not being written: who shares the calling thread's may wait for the log.
    fn free_lines(self) -> MutexGuard<'static, Lines> {
        let lines = &self.inner.lines;
        let own = lines.own().try_lock().ok();
        own.or_else(|| lines.all().find_map(|lines| lines.try_lock().ok()))
            .unwrap_or_else(|| self.lines())
    }
}

/// Lines that a panic has cut are still lines.
fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

fn since_1970() -> Duration {
    // A clock before that shows its beginning.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

impl Lines {
    /// `YYYY/MM/DD HH:MM:SS ` in local time.
    fn push_time(&mut self) -> Duration {
        let now = since_1970();
        if self.second != Some(now.as_secs()) {
            let local = DateTime::<Local>::from(UNIX_EPOCH + now);
            self.second = Some(now.as_secs());
            self.stamp = local.format("%Y/%m/%d %H:%M:%S ").to_string();
        }
        self.text.extend_from_slice(self.stamp.as_bytes());
        now
    }

    fn push_json(&mut self, line: &Value) {
        self.text.extend_from_slice(line.to_string().as_bytes());
    }

    fn end_line(&mut self) {
        self.text.push(b'\n');
    }

    /// Lets the lines leave the process as long as they are taken without waiting; whether all were.
    fn offer(&mut self, turns: &Turns) -> bool {
        // Whose turn it is may come to wait for room while we wait for the turn.
        let patience = || takes_lines(Duration::ZERO).then_some(TURN);
        let Some(mut turn) = turns.take_patiently(&patience) else {
            return false;
        };
        while !self.text.is_empty() {
            if !takes_lines(Duration::ZERO) {
                return false;
            }
            if self.text.len() <= MOST_KEPT {
                self.write(&mut turn);
                break;
            }
            // Whole lines, so that those of other threads do not come between their parts.
            let end = self.text[..MOST_KEPT]
                .iter()
                .rposition(|byte| *byte == b'\n');
            let end = end.map_or(self.text.len(), |end| end + 1);
            turn.write(&self.text[..end]);
            self.text.drain(..end);
        }
        true
    }

    /// Lets the lines leave the process.
    fn write(&mut self, turn: &mut Turn<'_>) {
        if !self.text.is_empty() {
            turn.write(&self.text);
            self.text.clear();
            self.text.shrink_to(2 * MOST_KEPT);
        }
        self.since = Duration::ZERO;
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
