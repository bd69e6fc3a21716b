//! Splits text into tokens.

use super::{Error, Reason, Result};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name: `add`, `%r1`, `$L__BB0_1`, `_`.
    Word(String),
    /// A name after a dot, stored without the dot: `b32` for `.b32`.
    Dot(String),
    Integer(u64),
    /// Bits of a 32-bit float, written `0f3F800000`.
    Single(u32),
    Double(f64),
    Text,
    Symbol(char),
}

fn begins_word(character: char) -> bool {
    character.is_ascii_alphabetic() || matches!(character, '_' | '$' | '%')
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$')
}

/// The tokens with their line numbers.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, u32)>> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let at = |reason| Error { line, reason };
        let (token, length) = if character == '\n' {
            line += 1;
            (None, 1)
        } else if character.is_whitespace() {
            (None, character.len_utf8())
        } else if rest.starts_with("//") {
            (None, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            let end = rest
                .find("*/")
                .ok_or(at(Reason::Expected("the end of a comment")))?;
            line += rest[..end].matches('\n').count() as u32;
            (None, end + 2)
        } else if character == '"' {
            let end = rest[1..]
                .find('"')
                .ok_or(at(Reason::Expected("the end of a string")))?;
            line += rest[1..=end].matches('\n').count() as u32;
            (Some(Token::Text), end + 2)
        } else if character.is_ascii_digit() {
            let (token, length) = number(rest).ok_or(at(Reason::Expected("a number")))?;
            (Some(token), length)
        } else if begins_word(character) {
            let length = 1 + rest[1..]
                .find(|next| !is_word(next))
                .unwrap_or(rest.len() - 1);
            (Some(Token::Word(rest[..length].to_owned())), length)
        } else if character == '.' {
            let length = 1 + rest[1..]
                .find(|next| !is_word(next) && next != ':')
                .unwrap_or(rest.len() - 1);
            // `.shared::cta` is one modifier.
            let name = &rest[1..length];
            if name.is_empty() {
                return Err(at(Reason::Expected("a name after a dot")));
            }
            (Some(Token::Dot(name.to_owned())), length)
        } else if "{}()[]<>,;:@!|+-=*&".contains(character) {
            (Some(Token::Symbol(character)), 1)
        } else {
            return Err(at(Reason::Expected("a character of PTX")));
        };
        tokens.extend(token.map(|token| (token, line)));
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn number(text: &str) -> Option<(Token, usize)> {
    let length = text
        .find(|next: char| !next.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    let word = &text[..length];
    let (prefix, digits) = word.split_at_checked(2).unwrap_or((word, ""));
    match prefix {
        "0f" | "0F" => {
            let exact = digits.len() == 8;
            let bits = u32::from_str_radix(digits, 16).ok().filter(|_| exact)?;
            return Some((Token::Single(bits), length));
        }
        "0d" | "0D" => {
            let exact = digits.len() == 16;
            let bits = u64::from_str_radix(digits, 16).ok().filter(|_| exact)?;
            return Some((Token::Double(f64::from_bits(bits)), length));
        }
        "0x" | "0X" => {
            let value = u64::from_str_radix(unsuffixed(digits), 16).ok()?;
            return Some((Token::Integer(value), length));
        }
        "0b" | "0B" => {
            let value = u64::from_str_radix(unsuffixed(digits), 2).ok()?;
            return Some((Token::Integer(value), length));
        }
        _ => {}
    }
    // A decimal fraction.
    if let Some(rest) = text[length..].strip_prefix('.')
        && rest.starts_with(|next: char| next.is_ascii_digit())
    {
        let end = rest
            .find(|next: char| !next.is_ascii_digit())
            .unwrap_or(rest.len());
        let length = length + 1 + end;
        return Some((Token::Double(text[..length].parse().ok()?), length));
    }
    let digits = unsuffixed(word);
    let octal = digits.len() > 1 && digits.starts_with('0');
    let value = u64::from_str_radix(digits, if octal { 8 } else { 10 }).ok()?;
    Some((Token::Integer(value), length))
}

fn unsuffixed(digits: &str) -> &str {
    digits.strip_suffix('U').unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_token() {
        let text = "add.s64 %rd1, [$L_0+-4]; // end\n/* a\nb */ 0f3F800000 0d3FF0000000000000 0x1F 017 12U 7.5 \"x\" .shared::cta";
        let found: Vec<_> = tokens(text)
            .unwrap()
            .into_iter()
            .map(|(token, _)| token)
            .collect();
        let word = |text: &str| Token::Word(text.to_owned());
        let dot = |text: &str| Token::Dot(text.to_owned());
        let expected = [
            word("add"),
            dot("s64"),
            word("%rd1"),
            Token::Symbol(','),
            Token::Symbol('['),
            word("$L_0"),
            Token::Symbol('+'),
            Token::Symbol('-'),
            Token::Integer(4),
            Token::Symbol(']'),
            Token::Symbol(';'),
            Token::Single(0x3f80_0000),
            Token::Double(1.0),
            Token::Integer(31),
            Token::Integer(15),
            Token::Integer(12),
            Token::Double(7.5),
            Token::Text,
            dot("shared::cta"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_are_counted_through_comments() {
        let found = tokens("a\n/* 1\n2\n*/ b").unwrap();
        assert_eq!(
            found.iter().map(|(_, line)| *line).collect::<Vec<_>>(),
            [1, 4]
        );
    }

    #[test]
    fn refuses_invalid_tokens() {
        for text in [
            "\u{1}", "\"open", "/* open", "0fZ", "0f3F80", ". x", "12a", "é",
        ] {
            assert!(tokens(text).is_err(), "{text:?}");
        }
    }
}
