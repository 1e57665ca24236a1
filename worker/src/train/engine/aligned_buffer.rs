//! Memory for numbers that kernels read in blocks.

use super::simd::BLOCK;

/// Numbers that start on a cache line, so that no block lies across two.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    data: Vec<f32>,
    start: usize,
}

impl AlignedBuffer {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let data = vec![0.0; len + BLOCK];
        // Where the allocation cannot be aligned, it is only slower.
        let start = data.as_ptr().align_offset(64).min(BLOCK);
        Self { data, start }
    }
}

impl Default for AlignedBuffer {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl std::ops::Deref for AlignedBuffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.data[self.start..self.data.len() - BLOCK + self.start]
    }
}

impl std::ops::DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        let end = self.data.len() - BLOCK + self.start;
        &mut self.data[self.start..end]
    }
}
