//! The last of what a program prints.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use ergodic_common::program::output::{MAX_OUTPUT_BYTES, PackedOutput, last_lines};
use ergodic_proto::output::pack_output;

/// The last bytes of an output, shared by whoever reads the program and whoever is asked what it has printed.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutputTail(Arc<Mutex<TailBytes>>);

#[derive(Debug, Default)]
struct TailBytes {
    bytes: VecDeque<u8>,
    /// Number of bytes that were printed.
    printed: u64,
}

/// What is kept of the bytes of an output from some position on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TailPart {
    /// Number of bytes that were printed before.
    pub(crate) before: u64,
    pub(crate) bytes: Vec<u8>,
}

impl OutputTail {
    /// Adds bytes, and forgets the oldest beyond the limit.
    pub(crate) fn push_bytes(&self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(MAX_OUTPUT_BYTES)..];
        let mut tail = self.lock_bytes();
        let excess = (tail.bytes.len() + kept.len()).saturating_sub(MAX_OUTPUT_BYTES);
        tail.bytes.drain(..excess);
        tail.bytes.extend(kept);
        tail.printed += bytes.len() as u64;
    }

    /// The last lines as text, at most `lines` lines and `most` bytes; empty if nothing was printed.
    pub(super) fn last_lines(&self, lines: usize, most: usize) -> String {
        last_lines(&self.read_after(0).bytes, (lines, most))
    }

    /// What is kept of the bytes beyond the first `known` ones.
    pub(crate) fn read_after(&self, known: u64) -> TailPart {
        let tail = self.lock_bytes();
        let forgotten = tail.printed - tail.bytes.len() as u64;
        let before = known.clamp(forgotten, tail.printed);
        let skipped = (before - forgotten) as usize;
        TailPart {
            before,
            bytes: tail.bytes.range(skipped..).copied().collect(),
        }
    }

    /// All that is kept, packed; `None` if nothing was printed.
    pub(super) fn pack(&self) -> Option<PackedOutput> {
        let TailPart { before, bytes } = self.read_after(0);
        pack_output(before + bytes.len() as u64, &bytes)
    }

    fn lock_bytes(&self) -> MutexGuard<'_, TailBytes> {
        self.0
            .lock()
            .expect("nothing panics while it holds the output")
    }
}

#[cfg(test)]
mod tests {
    use ergodic_proto::output::unpack_output;

    use crate::program::tail::*;

    #[test]
    fn the_last_bytes_and_lines_are_kept() {
        let tail = OutputTail::default();
        assert_eq!(tail.last_lines(20, 100), "");
        for n in 0..100_000 {
            tail.push_bytes(format!("line {n}\n").as_bytes());
            assert!(tail.lock_bytes().bytes.len() <= MAX_OUTPUT_BYTES);
        }
        assert_eq!(tail.last_lines(2, 100), "line 99998\nline 99999");
        assert_eq!(tail.last_lines(2, 7), "e 99999");

        tail.push_bytes(&vec![b'x'; 3 * MAX_OUTPUT_BYTES]);
        assert_eq!(tail.lock_bytes().bytes.len(), MAX_OUTPUT_BYTES);
        tail.push_bytes(&[0xff, b'\n']);
        assert_eq!(tail.last_lines(1, 4), "x\u{fffd}");

        tail.push_bytes("█".repeat(3000).as_bytes());
        assert_eq!(tail.last_lines(20, 3000), "█".repeat(1000));
        assert_eq!(tail.last_lines(20, 3001), "█".repeat(1000));
    }

    #[test]
    fn pieces_of_any_size_leave_exactly_the_last_bytes() {
        let all: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for size in [
            1,
            7,
            4096,
            MAX_OUTPUT_BYTES,
            MAX_OUTPUT_BYTES + 1,
            all.len(),
        ] {
            let tail = OutputTail::default();
            for piece in all.chunks(size) {
                tail.push_bytes(piece);
                assert!(tail.lock_bytes().bytes.len() <= MAX_OUTPUT_BYTES);
            }
            let packed = tail.pack().expect("something was printed");
            assert_eq!(packed.printed, all.len() as u64);
            let kept = unpack_output(&packed).expect("as it was packed");
            assert_eq!(
                kept,
                all[all.len() - MAX_OUTPUT_BYTES..],
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn whoever_knows_a_part_gets_the_rest_and_learns_what_is_forgotten() {
        let tail = OutputTail::default();
        assert_eq!(tail.pack(), None);
        let part = |before: u64, bytes: &[u8]| TailPart {
            before,
            bytes: bytes.to_vec(),
        };
        assert_eq!(tail.read_after(0), part(0, b""));
        tail.push_bytes(b"abcdef");
        assert_eq!(tail.read_after(0), part(0, b"abcdef"));
        assert_eq!(tail.read_after(4), part(4, b"ef"));
        assert_eq!(tail.read_after(6), part(6, b""));
        assert_eq!(tail.read_after(7), part(6, b""), "nobody knows more");

        tail.push_bytes(&vec![b'x'; MAX_OUTPUT_BYTES - 2]);
        assert_eq!(tail.read_after(0).before, 4);
        assert_eq!(tail.read_after(3).bytes[..3], *b"efx");
        assert_eq!(tail.read_after(5).before, 5);
    }
}
