//! Buffers for numbers that kernels read in blocks.

use super::simd::BLOCK;

/// Numbers that start on a cache line, so that no block lies across two. An empty default takes no memory.
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    /// The numbers, from `start` on, and a margin to align them.
    data: Vec<f32>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// Allocates `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let data = vec![0.0; len + BLOCK];
        // `align_offset` may give up and return `usize::MAX`. The buffer is then unaligned, which
        // is only slower.
        let start = data.as_ptr().align_offset(64).min(BLOCK);
        Self { data, start, len }
    }
}

impl std::ops::Deref for AlignedBuffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.data[self.start..][..self.len]
    }
}

impl std::ops::DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..][..self.len]
    }
}
