//! The last of what a program prints.

use std::collections::VecDeque;

/// Bytes of output that are kept.
const MAX_TAIL_BYTES: usize = 64 << 10;

/// The last bytes of an output.
#[derive(Debug, Default)]
pub(super) struct OutputTail {
    bytes: VecDeque<u8>,
}

impl OutputTail {
    /// Adds bytes, and forgets the oldest beyond the limit.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(MAX_TAIL_BYTES)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(MAX_TAIL_BYTES);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// The last lines as text, at most `lines` lines and `most` bytes; empty if nothing was printed.
    pub(super) fn last_lines(&self, lines: usize, most: usize) -> String {
        let (first, second) = self.bytes.as_slices();
        let bytes = [first, second].concat();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.trim_end().lines().collect();
        let last = all[all.len().saturating_sub(lines)..].join("\n");
        let excess = last.len().saturating_sub(most);
        last[last.ceil_char_boundary(excess)..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use crate::program::tail::*;

    #[test]
    fn the_last_bytes_and_lines_are_kept() {
        let mut tail = OutputTail::default();
        assert_eq!(tail.last_lines(20, 100), "");
        for n in 0..100_000 {
            tail.push_bytes(format!("line {n}\n").as_bytes());
            assert!(tail.bytes.len() <= MAX_TAIL_BYTES);
        }
        assert_eq!(tail.last_lines(2, 100), "line 99998\nline 99999");
        assert_eq!(tail.last_lines(2, 7), "e 99999");

        tail.push_bytes(&vec![b'x'; 3 * MAX_TAIL_BYTES]);
        assert_eq!(tail.bytes.len(), MAX_TAIL_BYTES);
        tail.push_bytes(&[0xff, b'\n']);
        assert_eq!(tail.last_lines(1, 4), "x\u{fffd}");

        tail.push_bytes("█".repeat(3000).as_bytes());
        assert_eq!(tail.last_lines(20, 3000), "█".repeat(1000));
        assert_eq!(tail.last_lines(20, 3001), "█".repeat(1000));
    }
}
