//! The dataset as trials see it: which images, standardised.

use std::sync::Arc;

use ergodic_common::config::DataConfig;
use ergodic_common::dataset::{DataError, Dataset, Images, Subset};
use ergodic_common::seed::Streams;

use super::plan::Grid;

/// A dataset's images that trials use, and how their bytes become inputs. Shared by all slots.
#[derive(Debug)]
pub struct TrialData {
    dataset: Arc<Dataset>,
    subset: Subset,
    /// Per channel, what each byte becomes: (p/255 − mean)/std over the training images used.
    tables: Vec<[f32; 256]>,
}

impl TrialData {
    /// Chooses the images and takes the training images' mean and standard deviation per channel, from exact sums.
    ///
    /// # Errors
    /// More images are asked for than there are.
    pub fn new(dataset: Arc<Dataset>, config: &DataConfig, streams: &Streams) -> Result<Self, DataError> {
        let subset = dataset.subset(config, streams)?;
        let channels = dataset.name.shape().2 as usize;
        let image = image_len(&dataset);
        let mut counts = vec![[0_u64; 256]; channels];
        for i in &subset.train {
            let pixels = &dataset.train.pixels[*i as usize * image..][..image];
            for (at, p) in pixels.iter().enumerate() {
                counts[at % channels][usize::from(*p)] += 1;
            }
        }
        let tables = counts.iter().map(standardised).collect();
        Ok(Self { dataset, subset, tables })
    }

    /// Indices of the training images.
    pub(super) fn train(&self) -> &[u32] {
        &self.subset.train
    }

    /// Indices of the test images.
    pub(super) fn test(&self) -> &[u32] {
        &self.subset.test
    }

    /// Training images of these indices.
    pub(super) fn batch<'a>(&'a self, indices: &'a [u32]) -> Source<'a> {
        self.source(&self.dataset.train, indices)
    }

    /// Test images of these indices.
    pub(super) fn test_batch<'a>(&'a self, indices: &'a [u32]) -> Source<'a> {
        self.source(&self.dataset.test, indices)
    }

    fn source<'a>(&'a self, part: &'a Images, indices: &'a [u32]) -> Source<'a> {
        Source { pixels: Pixels::Bytes(&part.pixels, &self.tables), labels: &part.labels, indices }
    }
}

fn image_len(dataset: &Dataset) -> usize {
    let (height, width, channels) = dataset.name.shape();
    (height * width * channels) as usize
}

/// What each byte of a channel becomes, given how often each occurs.
fn standardised(counts: &[u64; 256]) -> [f32; 256] {
    let sum = |power: u32| counts.iter().zip(0_u64..).map(|(n, p)| n * p.pow(power)).sum::<u64>();
    let (n, first, second) = (sum(0), sum(1), sum(2));
    // Integers: the variance of a constant channel is 0 exactly.
    let spread = u128::from(n) * u128::from(second) - u128::from(first) * u128::from(first);
    let mean = first as f64 / n as f64 / 255.0;
    let std = if spread == 0 { 1.0 } else { (spread as f64).sqrt() / n as f64 / 255.0 };
    std::array::from_fn(|p| ((p as f64 / 255.0 - mean) / std) as f32)
}

/// A batch of images.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Of all images.
    pixels: Pixels<'a>,
    labels: &'a [u8],
    /// Which of them.
    indices: &'a [u32],
}

#[derive(Clone, Copy)]
enum Pixels<'a> {
    /// What each byte becomes stands in a table per channel.
    Bytes(&'a [u8], &'a [[f32; 256]]),
    /// Inputs as they are.
    #[cfg(test)]
    Floats(&'a [f32]),
}

impl<'a> Source<'a> {
    /// Inputs as they are.
    #[cfg(test)]
    pub(super) fn floats(pixels: &'a [f32], labels: &'a [u8], indices: &'a [u32]) -> Self {
        Self { pixels: Pixels::Floats(pixels), labels, indices }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.indices.len()
    }

    /// The same images in pieces of up to `size`.
    pub(super) fn parts(&self, size: usize) -> impl Iterator<Item = Self> + use<'a> {
        let whole = *self;
        self.indices.chunks(size).map(move |indices| Self { indices, ..whole })
    }

    /// Their labels.
    pub(super) fn labels(&self) -> impl ExactSizeIterator<Item = u8> + use<'a> {
        let labels = self.labels;
        self.indices.iter().map(move |i| labels[*i as usize])
    }

    /// Writes `count` images from the `first` on into the inside of a grid.
    pub(super) fn write(&self, first: usize, count: usize, grid: &Grid, out: &mut [f32]) {
        let len = grid.inner_len();
        for (image, out) in self.indices[first..first + count].iter().zip(out.chunks_exact_mut(grid.len())) {
            let place = *image as usize * len..(*image as usize + 1) * len;
            match self.pixels {
                Pixels::Bytes(all, tables) => write_bytes(&all[place], tables, grid, out),
                #[cfg(test)]
                Pixels::Floats(all) => {
                    grid.runs().for_each(|(from, to, len)| {
                        out[to..][..len].copy_from_slice(&all[place.clone()][from..][..len])
                    });
                }
            }
        }
    }
}

fn write_bytes(bytes: &[u8], tables: &[[f32; 256]], grid: &Grid, out: &mut [f32]) {
    let channels = tables.len();
    for (from, to, len) in grid.runs() {
        for (c, table) in tables.iter().enumerate() {
            let bytes = bytes[from..][..len][c..].iter().step_by(channels);
            let out = out[to..][..len][c..].iter_mut().step_by(channels);
            out.zip(bytes).for_each(|(x, p)| *x = table[usize::from(*p)]);
        }
    }
}
