//! Bytes that a program printed, as text for a terminal.

use std::fmt::Write as _;

use super::escape_terminal_controls;

/// Turns the bytes of an output into text that moves no cursor, piece by piece: characters may be cut anywhere.
#[derive(Debug, Default)]
pub struct PrintedText {
    /// The start of a character whose end has not come.
    cut: Vec<u8>,
    /// Whether the last line has no end.
    is_line_open: bool,
}

impl PrintedText {
    /// The text of the next bytes. What is no UTF-8 becomes `\xff`.
    pub fn escape_bytes(&mut self, bytes: &[u8]) -> String {
        let mut rest = std::mem::take(&mut self.cut);
        rest.extend(bytes);
        let mut text = String::new();

        for chunk in rest.utf8_chunks() {
            text += &escape_terminal_controls(chunk.valid(), false);
            let invalid = chunk.invalid();
            let is_last = rest.ends_with(invalid);
            match std::str::from_utf8(invalid) {
                Err(error) if error.error_len().is_none() && is_last => {
                    self.cut = invalid.to_vec();
                }
                _ => append_escaped(&mut text, invalid),
            }
        }

        self.note_end(&text);
        text
    }

    /// The text of what is left: a character that was cut for good, and the end of the last line.
    pub fn finish(mut self) -> String {
        let mut text = String::new();
        append_escaped(&mut text, &self.cut);
        self.note_end(&text);
        if self.is_line_open {
            text.push('\n');
        }
        text
    }

    fn note_end(&mut self, text: &str) {
        self.is_line_open = match text.is_empty() {
            true => self.is_line_open,
            false => !text.ends_with('\n'),
        };
    }
}

fn append_escaped(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of bytes that arrive in pieces of this size.
    fn escape(bytes: &[u8], size: usize) -> String {
        let mut printed = PrintedText::default();
        let pieces = bytes.chunks(size).map(|piece| printed.escape_bytes(piece));
        let text = pieces.collect::<String>();
        text + &printed.finish()
    }

    #[test]
    fn characters_are_whole_however_they_arrive() {
        let text = "ä中👍\tb\n";
        for size in 1..=text.len() {
            assert_eq!(escape(text.as_bytes(), size), text, "pieces of {size}");
        }
    }

    #[test]
    fn nothing_moves_the_cursor_and_no_byte_is_lost() {
        let bytes = b"a\x1b[31mb\rc\xff\xfed\xe4\xb8";
        for size in 1..=bytes.len() {
            assert_eq!(
                escape(bytes, size),
                "a\\u001b[31mb\\rc\\xff\\xfed\\xe4\\xb8\n",
                "pieces of {size}"
            );
        }
        assert_eq!(escape(b"", 1), "");
        assert_eq!(escape(b"x\n", 1), "x\n");
    }
}
