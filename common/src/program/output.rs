//! What a program prints on standard output and standard error, of which the last part is kept.

/// Bytes of output that are kept of an attempt.
pub const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// Most bytes of it once it is packed: what zstd makes of bytes that it cannot compress.
pub const MAX_PACKED_BYTES: usize = MAX_OUTPUT_BYTES + 1024;

/// Lines and bytes of output that explain an end.
pub const SHOWN_OUTPUT: (usize, usize) = (20, 3000);

/// The last part of an output, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedOutput {
    /// Number of bytes that were printed.
    pub printed: u64,
    /// The last of them, at most [`MAX_OUTPUT_BYTES`], compressed.
    pub packed: Vec<u8>,
}

/// The last lines of an output as text, at most `lines` lines and `most` bytes; empty if nothing was printed.
pub fn last_lines(bytes: &[u8], (lines, most): (usize, usize)) -> String {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.trim_end().lines().collect();
    let last = all[all.len().saturating_sub(lines)..].join("\n");
    let excess = last.len().saturating_sub(most);
    last[last.ceil_char_boundary(excess)..].to_owned()
}
