//! Log lines in which foreign text can neither move the cursor nor begin another line.

use std::io::{self, Write};

use ergodic_common::escape::escape_line;

/// Writes events as single, escaped lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct EscapedLineWriter<W>(pub W);

impl<W: Write> Write for EscapedLineWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text
            .strip_suffix('\n')
            .map_or((text.as_ref(), ""), |line| (line, "\n"));
        self.0
            .write_all(format!("{}{end}", escape_line(line)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use crate::log::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let mut out = EscapedLineWriter(Vec::new());
        out.write_all("joined name=a\u{1b}[2J\nINFO forged\u{202e}\n".as_bytes())
            .expect("written");
        out.write_all(b"next\n").expect("written");
        assert_eq!(
            String::from_utf8_lossy(&out.0),
            "joined name=a\\u001b[2J\\nINFO forged\\u202e\nnext\n"
        );
    }
}
