//! Text for terminals.
//!
//! Names of imports and functions come from whoever made the module, and paths from whoever named
//! the file. Nothing in them may look like a line of ours, move the cursor or turn text around.

use std::fmt::{Display, Write as _};

/// What is to be shown on one line, with everything that is no visible character as its number.
pub(crate) fn line(text: impl Display) -> String {
    let text = text.to_string();
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_visible(c) {
            line.push(c);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(line, "{}", c.escape_debug());
        }
    }
    line
}

fn is_visible(c: char) -> bool {
    // Marks that change the direction of the text behind them (UAX #9).
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    // Excerpts of text modules are indented with tabs.
    c == '\t' || !(c.is_control() || turns || c == '\u{2028}' || c == '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_visible_is_told() {
        for (text, expected) in [
            (
                "plain text, ümläute and \"quotes\"",
                "plain text, ümläute and \"quotes\"",
            ),
            ("\x1b[2Jx", "\\u{1b}[2Jx"),
            ("a\nresult     good", "a\\nresult     good"),
            ("a\r\u{9b}\u{7f}\0", "a\\r\\u{9b}\\u{7f}\\0"),
            ("\u{202e}gnp.exe", "\\u{202e}gnp.exe"),
            ("\tindented", "\tindented"),
        ] {
            assert_eq!(line(text), expected);
        }
    }
}
