//! Escapes text of other people before it is shown, so that it cannot move the cursor, end a line
//! or reverse the reading direction.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Text of other people on one line. Misleading characters ([`is_misleading`]) are escaped as in
/// JSON: `\n`, `\u001b`.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape_chars(text, is_misleading)
}

/// Text of other people on several lines, each escaped as by [`escape_line`].
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_chars(text, |c| c != '\n' && is_misleading(c))
}

fn escape_chars(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }

    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !is_escaped(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(out, "\\u{unit:04x}");
            }),
        }
    }

    Cow::Owned(out)
}

/// Whether a character misleads: control characters (C1 too), separators of lines and paragraphs,
/// and characters that reverse the reading direction, have no width or are no characters.
pub fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use crate::escape::*;

    #[test]
    fn what_could_mislead_is_escaped_and_nothing_else() {
        let plain = "spare-1 (ä, 中文, ★ ✗ 👍 a\\b \"x\"): 40 %";
        assert!(matches!(escape_line(plain), Cow::Borrowed(text) if text == plain));
        assert_eq!(
            escape_line("a\u{1b}[2J\u{9b}31m\r\n\tb"),
            "a\\u001b[2J\\u009b31m\\r\\n\\tb"
        );

        assert_eq!(
            escape_line("x\u{202e}gpj\u{2066}\u{200f}\u{feff}\u{7f}\0"),
            "x\\u202egpj\\u2066\\u200f\\ufeff\\u007f\\u0000"
        );
        assert_eq!(escape_lines("a\nb\u{7}"), "a\nb\\u0007");

        for c in (0..=0x1f).chain(0x7f..=0x9f).filter_map(char::from_u32) {
            assert!(
                escape_line(&c.to_string())
                    .chars()
                    .all(|c| !is_misleading(c)),
                "{c:?}"
            );
        }
    }
}
