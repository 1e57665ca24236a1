//! Ranges of a batch's images: how a pass is cut into parts and chunks.

/// Consecutive images of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageRange {
    pub(crate) first: usize,
    pub(crate) images: usize,
}

impl ImageRange {
    /// The range of all images of a batch of `images`.
    pub(crate) fn whole_batch(images: usize) -> Self {
        Self { first: 0, images }
    }

    /// Splits the range into pieces of `size` images; the last one may be smaller.
    pub(crate) fn split_by(self, size: usize) -> impl Iterator<Item = Self> {
        let Self { first, images } = self;
        (0..images).step_by(size).map(move |at| Self {
            first: first + at,
            images: size.min(images - at),
        })
    }

    /// The images' numbers in the data of a whole batch, `len` numbers per image.
    pub(crate) fn slice_of(self, data: &[f32], len: usize) -> &[f32] {
        &data[self.first * len..][..self.images * len]
    }

    /// The images' numbers in data that begins with the first image of `part`, `len` numbers per image.
    pub(crate) fn slice_within_mut(self, part: Self, data: &mut [f32], len: usize) -> &mut [f32] {
        &mut data[(self.first - part.first) * len..][..self.images * len]
    }
}
