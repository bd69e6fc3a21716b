//! The text forms of Go: durations, numbers, quoted strings, header names, sizes.
#![no_main]

use faas_wasm_runner::gotext::{self, AtoiError, GoDuration};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(number) = bytes.first_chunk() {
        let number = i64::from_le_bytes(*number);
        let duration = GoDuration::from_nanos(number);
        assert_eq!(GoDuration::parse(&duration.to_string()), Some(duration));
        let mut size = Vec::new();
        // Below zero there is only -1, for an unknown size.
        gotext::push_size(&mut size, number.max(-1));
        assert!(size.ends_with(b"B") && size.len() <= 12, "{size:?}");
        decimals(f64::from_bits(number as u64));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(duration) = GoDuration::parse(text) {
        assert_eq!(GoDuration::parse(&duration.to_string()), Some(duration));
        assert!(duration.limit().is_none_or(|limit| !limit.is_zero()));
    }
    assert_eq!(gotext::atoi(text), atoi(text));
    let _ = gotext::parse_bool(text);
    let quoted = gotext::quote(text);
    assert_eq!(unquoted(&quoted).as_deref(), Some(text), "{quoted}");
    assert!(!quoted.contains(|c: char| c.is_control()), "{quoted}");
    let canonical: String = gotext::canonical_header_name(text).collect();
    let again: String = gotext::canonical_header_name(&canonical).collect();
    assert_eq!(again, canonical);
    assert!(canonical.eq_ignore_ascii_case(text));
});

fn decimals(seconds: f64) {
    if !(0.0..1e9).contains(&seconds) {
        return;
    }
    let mut text = Vec::new();
    gotext::push_decimals::<6>(&mut text, seconds);
    let text = String::from_utf8(text).expect("digits");
    let found: f64 = text.parse().expect("a number");
    // Half a unit, and what a double of this size cannot tell.
    assert!(
        (found - seconds).abs() <= 0.501e-6 + seconds * f64::EPSILON,
        "{seconds}: {text}"
    );
    assert_eq!(
        text.split_once('.').map(|(_, digits)| digits.len()),
        Some(6),
        "{text}"
    );
}

/// By wider numbers than the result has.
fn atoi(text: &str) -> Result<i64, AtoiError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AtoiError::Syntax);
    }
    let digits = digits.trim_start_matches('0');
    if digits.len() > 20 {
        return Err(AtoiError::Range);
    }
    let number = digits.bytes().fold(0_i128, |number, digit| {
        number * 10 + i128::from(digit - b'0')
    });
    let signed = if text.starts_with('-') {
        -number
    } else {
        number
    };
    i64::try_from(signed).map_err(|_| AtoiError::Range)
}

/// What Go reads of a quoted string.
fn unquoted(quoted: &str) -> Option<String> {
    let mut rest = quoted.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut text = String::new();
    while let Some(c) = rest.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match rest.next()? {
            'x' => hex(&mut rest, 2)?,
            'u' => hex(&mut rest, 4)?,
            'U' => hex(&mut rest, 8)?,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            c @ ('"' | '\\') => c,
            _ => return None,
        });
    }
    Some(text)
}

fn hex(rest: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let digits: String = rest.by_ref().take(digits).collect();
    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
}
