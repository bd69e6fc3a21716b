//! The text forms of Go's standard library that users of of-watchdog see: durations, numbers, quoted strings,
//! header names, and the decimal size format of its access log. Nothing here knows about configuration or HTTP.

use std::fmt;
use std::time::Duration;

const NANOS_PER_SEC: i64 = 1_000_000_000;

/// A signed span of time with Go's text form: `1m30s`, `500ms`, `0s`, `-5s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration {
    nanos: i64,
}

impl GoDuration {
    /// A span of whole seconds; saturates at the ends of the representable range.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self {
            nanos: seconds.saturating_mul(NANOS_PER_SEC),
        }
    }

    /// A span of nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// Whether the span is exactly zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The span as a limit: zero and negative spans mean "no limit".
    #[must_use]
    pub fn limit(self) -> Option<Duration> {
        u64::try_from(self.nanos)
            .ok()
            .filter(|nanos| *nanos > 0)
            .map(Duration::from_nanos)
    }

    /// Parses Go's `time.ParseDuration` grammar; a bare number other than `0` is not a duration.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(Self::default());
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (part, after) = parse_duration_part(rest)?;
            total = total.checked_add(part).filter(|total| *total <= 1 << 63)?;
            rest = after;
        }
        let nanos = match (negative, i64::try_from(total)) {
            (false, Ok(nanos)) => nanos,
            (true, Ok(nanos)) => -nanos,
            (true, Err(_)) => i64::MIN,
            (false, Err(_)) => return None,
        };
        Some(Self { nanos })
    }
}

/// One `<decimal><unit>` group: its nanoseconds and what follows it.
fn parse_duration_part(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let mut whole: u64 = 0;
    for digit in text[..digits].bytes() {
        whole = whole
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))
            .filter(|v| *v <= 1 << 63)?;
    }
    let mut rest = &text[digits..];
    let mut fraction = "";
    if let Some(after_point) = rest.strip_prefix('.') {
        let count = after_point.bytes().take_while(u8::is_ascii_digit).count();
        fraction = &after_point[..count];
        rest = &after_point[count..];
    }
    if digits == 0 && fraction.is_empty() {
        return None;
    }
    let unit_len = rest
        .bytes()
        .take_while(|b| *b != b'.' && !b.is_ascii_digit())
        .count();
    let unit: u64 = match &rest[..unit_len] {
        "ns" => 1,
        // The micro sign and the Greek letter mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let mut nanos = whole.checked_mul(unit).filter(|v| *v <= 1 << 63)?;
    let mut scale = unit;
    for digit in fraction.bytes() {
        // Ten digits past the unit's precision cannot matter, so dividing step by step loses less than a nanosecond.
        if scale < 10 {
            break;
        }
        scale /= 10;
        nanos = nanos.checked_add(u64::from(digit - b'0') * scale)?;
    }
    Some((nanos, &rest[unit_len..]))
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self {
            nanos: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.nanos.unsigned_abs();
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        if total == 0 {
            return f.write_str("0s");
        }
        if total < 1_000 {
            return write!(f, "{total}ns");
        }
        if total < 1_000_000 {
            return write!(
                f,
                "{}\u{b5}s",
                Decimal {
                    value: total,
                    digits: 3
                }
            );
        }
        if total < 1_000_000_000 {
            return write!(
                f,
                "{}ms",
                Decimal {
                    value: total,
                    digits: 6
                }
            );
        }
        let seconds = total / 1_000_000_000;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        let remainder = total % 60_000_000_000;
        write!(
            f,
            "{}s",
            Decimal {
                value: remainder,
                digits: 9
            }
        )
    }
}

/// A fixed-point number without trailing zeros.
struct Decimal {
    value: u64,
    digits: u32,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10_u64.pow(self.digits);
        write!(f, "{}", self.value / unit)?;
        let fraction = self.value % unit;
        if fraction == 0 {
            return Ok(());
        }
        let text = format!("{fraction:0width$}", width = self.digits as usize);
        write!(f, ".{}", text.trim_end_matches('0'))
    }
}

/// Why a text is no integer; the texts are Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AtoiError {
    /// Not a sign and digits.
    #[error("invalid syntax")]
    Syntax,
    /// More than 64 bits.
    #[error("value out of range")]
    Range,
}

/// Go's `strconv.Atoi`: an optional sign and decimal digits within 64 bits.
///
/// # Errors
/// See [`AtoiError`].
pub fn atoi(text: &str) -> Result<i64, AtoiError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AtoiError::Syntax);
    }
    text.parse().map_err(|_| AtoiError::Range)
}

/// Go's `strconv.ParseBool`.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `%q` of a string.
#[must_use]
pub fn quote(text: &str) -> String {
    use fmt::Write as _;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            // Writing to a String cannot fail.
            c if (c as u32) < 0x20 || c == '\x7f' => drop(write!(quoted, "\\x{:02x}", c as u32)),
            c if is_printable(c) => quoted.push(c),
            c if (c as u32) < 0x1_0000 => drop(write!(quoted, "\\u{:04x}", c as u32)),
            c => drop(write!(quoted, "\\U{:08x}", c as u32)),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a character is a letter, mark, number, punctuation or symbol, or the ASCII space.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // The standard library escapes in a debug text what is not; marks only at its beginning.
    let mut text = [b'a'; 5];
    let length = c.encode_utf8(&mut text[1..]).len();
    let text = str::from_utf8(&text[..=length]).unwrap_or_default();
    text.escape_debug().nth(1) == Some(c)
}

/// Go's canonical form of a header name: upper case at the start and after each hyphen, lower case elsewhere.
pub fn canonical_header_name(name: &str) -> impl Iterator<Item = char> {
    let mut upper = true;
    name.chars().map(move |c| {
        let canonical = if upper {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        };
        upper = c == '-';
        canonical
    })
}

/// Adds a number. Without the standard library's formatting, as that takes longer than short runs of guests.
pub fn push_number(text: &mut Vec<u8>, number: impl itoa::Integer) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Adds the access log's size: decimal units, four significant digits as by C's `%.4g`, no space; `-1B` for unknown.
pub fn push_size(text: &mut Vec<u8>, bytes: i64) {
    // All of so few digits are shown.
    if (0..1000).contains(&bytes) {
        push_number(text, bytes);
        return text.push(b'B');
    }
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are printed")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    text.extend_from_slice(four_significant(value).as_bytes());
    text.extend_from_slice(UNITS[unit].as_bytes());
}

/// Adds what `%.*f` gives with so many decimals for a time in seconds that is not below zero. Times that can be measured
/// take a fraction of what the exact digits of any number do.
pub fn push_decimals<const N: usize>(text: &mut Vec<u8>, seconds: f64) {
    if !(0.0..1e9).contains(&seconds) {
        return text.extend_from_slice(format!("{seconds:.N$}").as_bytes());
    }
    let unit = 10_u64.pow(N as u32);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a small power, and a number that it cannot make too large"
    )]
    let units = (seconds * unit as f64).round() as u64;
    push_number(text, units / unit);
    text.push(b'.');
    let mut fraction = units % unit;
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (fraction % 10) as u8;
        fraction /= 10;
    }
    text.extend_from_slice(&digits);
}

/// C's `%.4g` for a value whose magnitude is below 1000.
fn four_significant(value: f64) -> String {
    let whole_digits = match value.abs() {
        v if v >= 999.95 => return format!("{value:.0}"),
        v if v >= 99.995 => 3,
        v if v >= 9.9995 => 2,
        _ => 1,
    };
    let text = format!("{value:.prec$}", prec = 4 - whole_digits);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_as_the_standard_library_writes_them() {
        for seconds in [
            0.0,
            0.00004,
            0.00006,
            0.1234,
            1.5,
            59.99996,
            86400.0,
            2e9,
            f64::INFINITY,
        ] {
            let (mut four, mut six) = (Vec::new(), Vec::new());
            push_decimals::<4>(&mut four, seconds);
            push_decimals::<6>(&mut six, seconds);
            assert_eq!(four, format!("{seconds:.4}").into_bytes());
            assert_eq!(six, format!("{seconds:.6}").into_bytes());
        }
    }

    #[test]
    fn parses_go_durations() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5 * NANOS_PER_SEC),
            ("-5s", -5 * NANOS_PER_SEC),
            ("+1.5s", 1_500_000_000),
            ("1h30m", 5400 * NANOS_PER_SEC),
            (".5s", 500_000_000),
            ("1.s", NANOS_PER_SEC),
            ("500ms", 500_000_000),
            ("3us", 3_000),
            ("3\u{b5}s", 3_000),
            ("3\u{3bc}s", 3_000),
            ("1.0000000001s", NANOS_PER_SEC),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(
                GoDuration::parse(text),
                Some(GoDuration::from_nanos(nanos)),
                "{text}"
            );
        }
        for text in [
            "",
            "1.5",
            "-5",
            "5",
            "abc",
            " 5s",
            "5s ",
            "s",
            ".s",
            "-",
            "1h30",
            "9223372036854775808ns",
            "1d",
        ] {
            assert_eq!(GoDuration::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn prints_durations_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (1_500_000, "1.5ms"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (30 * NANOS_PER_SEC, "30s"),
            (90 * NANOS_PER_SEC, "1m30s"),
            (3600 * NANOS_PER_SEC, "1h0m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
            (-5 * NANOS_PER_SEC, "-5s"),
        ] {
            assert_eq!(GoDuration::from_nanos(nanos).to_string(), text);
        }
    }

    #[test]
    fn only_positive_spans_limit() {
        assert_eq!(GoDuration::from_secs(0).limit(), None);
        assert_eq!(GoDuration::from_secs(-1).limit(), None);
        assert_eq!(
            GoDuration::from_secs(2).limit(),
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn reads_integers_as_atoi() {
        for (text, value) in [
            ("5", Ok(5)),
            ("+5", Ok(5)),
            ("-5", Ok(-5)),
            ("", Err(AtoiError::Syntax)),
            ("+", Err(AtoiError::Syntax)),
            ("1_0", Err(AtoiError::Syntax)),
            ("9223372036854775808", Err(AtoiError::Range)),
        ] {
            assert_eq!(atoi(text), value, "{text:?}");
        }
    }

    #[test]
    fn quotes_as_go_does() {
        for (text, quoted) in [
            ("cat", r#""cat""#),
            ("a \"b\" \\ \t", r#""a \"b\" \\ \t""#),
            ("\u{1}\u{7f}é", r#""\x01\x7fé""#),
            ("it's\u{85}\u{a0}\u{200b}", r#""it's\u0085\u00a0\u200b""#),
            (
                "e\u{301}\u{1f600}\u{e0001}",
                "\"e\u{301}\u{1f600}\\U000e0001\"",
            ),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }

    #[test]
    fn canonicalizes_header_names() {
        for (name, canonical) in [
            ("x-call-id", "X-Call-Id"),
            ("foo_bar", "Foo_bar"),
            ("X-a.b", "X-A.b"),
            ("ETAG", "Etag"),
            ("a--b", "A--B"),
        ] {
            assert_eq!(canonical_header_name(name).collect::<String>(), canonical);
        }
    }

    #[test]
    fn formats_sizes_with_four_digits() {
        for (bytes, text) in [
            (-1, "-1B"),
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (12_345, "12.35kB"),
            (123_456, "123.5kB"),
            (1_234_567, "1.235MB"),
            (999_999, "1000kB"),
        ] {
            let mut size = Vec::new();
            push_size(&mut size, bytes);
            assert_eq!(size, text.as_bytes());
        }
    }
}
