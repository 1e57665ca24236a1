//! Lines out of a stream of bytes, of bounded length.

/// Maximum length of a line in bytes.
pub(super) const MAX_LINE_BYTES: usize = 64 << 10;

/// Splits what a program writes into lines.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    /// The begin of a line whose end has not arrived.
    partial: Vec<u8>,
    /// Number of whole lines so far.
    lines: u64,
}

/// A whole line and its number, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NumberedLine {
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
}

impl LineSplitter {
    /// Adds bytes, and returns the lines that they end.
    ///
    /// # Errors
    /// A line is too long.
    pub(super) fn push_bytes(&mut self, mut bytes: &[u8]) -> Result<Vec<NumberedLine>, String> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend_partial(&bytes[..end])?;
            bytes = &bytes[end + 1..];
            lines.push(self.end_line());
        }

        self.extend_partial(bytes)?;
        Ok(lines)
    }

    /// The last line, if its end is missing.
    pub(super) fn take_rest(&mut self) -> Option<NumberedLine> {
        (!self.partial.is_empty()).then(|| self.end_line())
    }

    fn end_line(&mut self) -> NumberedLine {
        self.lines += 1;
        NumberedLine {
            number: self.lines,
            bytes: std::mem::take(&mut self.partial),
        }
    }

    fn extend_partial(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.partial.len() + bytes.len() > MAX_LINE_BYTES {
            return Err(format!(
                "line {} of the metrics has more than {MAX_LINE_BYTES} bytes: report fewer values per line",
                self.lines + 1
            ));
        }
        self.partial.extend(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::program::lines::*;

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_arrive(
            bytes in prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 0..200),
            piece in 1_usize..20,
        ) {
            let mut splitter = LineSplitter::default();
            let mut lines = Vec::new();
            for piece in bytes.chunks(piece) {
                lines.extend(splitter.push_bytes(piece).expect("short lines"));
            }
            lines.extend(splitter.take_rest());

            let mut expected: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            prop_assert_eq!(lines.len(), expected.len());
            for (n, (line, expected)) in lines.iter().zip(expected).enumerate() {
                prop_assert_eq!(line.number, n as u64 + 1);
                prop_assert_eq!(&line.bytes[..], expected);
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_before_it_is_whole() {
        let mut splitter = LineSplitter::default();
        let most = vec![b'a'; MAX_LINE_BYTES];
        assert_eq!(splitter.push_bytes(b"x\n").map(|lines| lines.len()), Ok(1));
        assert_eq!(splitter.push_bytes(&most), Ok(Vec::new()));
        let why = splitter.push_bytes(b"a").expect_err("too long");
        assert!(why.contains("line 2 of the metrics has more than 65536 bytes"));
        assert_eq!(splitter.partial.len(), MAX_LINE_BYTES);
    }
}
