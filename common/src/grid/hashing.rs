//! A quick hash, which tells equal cells.

/// Mixes a number into a hash.
pub(super) fn mix_hash(h: u64, x: u64) -> u64 {
    (h ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
