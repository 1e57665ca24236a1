//! The sets of numbers that a norm normalizes together.

use ergodic_common::net::{NormScope, NormSpec};

/// The sets of numbers that a norm normalizes together: one per channel, or one per image and group of channels.
pub(super) struct NormSets {
    /// Sets of one image; 0 where all images share them.
    pub(super) per_image: usize,
    /// The set of each channel, counted within an image.
    pub(super) of_channel: Vec<usize>,
    pub(super) count: usize,
    /// Numbers in a set, as f64.
    pub(super) size: f64,
}

impl NormSets {
    pub(super) fn new(norm: NormSpec, channels: usize, pixels: usize, images: usize) -> Self {
        match norm.scope {
            // A pass is over one ghost batch.
            NormScope::Batch | NormScope::GhostBatch(_) => Self {
                per_image: 0,
                of_channel: (0..channels).collect(),
                count: channels,
                size: (images * pixels) as f64,
            },
            NormScope::Groups(groups) => {
                let within = channels / groups;
                Self {
                    per_image: groups,
                    of_channel: (0..channels).map(|c| c / within).collect(),
                    count: images * groups,
                    size: (pixels * within) as f64,
                }
            }
        }
    }

    /// Calls `each` with every number's index and set.
    pub(super) fn for_each_number(
        &self,
        image_len: usize,
        len: usize,
        mut each: impl FnMut(usize, usize),
    ) {
        let channels = self.of_channel.len();
        for pixel in (0..len).step_by(channels) {
            let first = pixel / image_len * self.per_image;
            self.of_channel
                .iter()
                .enumerate()
                .for_each(|(c, set)| each(pixel + c, first + set));
        }
    }

    /// The mean of `f` over each set.
    pub(super) fn compute_means(
        &self,
        image_len: usize,
        len: usize,
        f: impl Fn(usize) -> f64,
    ) -> Vec<f64> {
        let mut means = vec![0.0; self.count];
        self.for_each_number(image_len, len, |i, set| means[set] += f(i));
        means.iter_mut().for_each(|sum| *sum /= self.size);
        means
    }
}
