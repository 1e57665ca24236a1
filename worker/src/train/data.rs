//! The dataset as trials see it: which images, standardised.

use std::sync::Arc;

use ergodic_common::config::DataConfig;
use ergodic_common::dataset::{DataError, Dataset, Images, Subset};
use ergodic_common::seed::{Purpose, Streams};

use super::augment::Move;
use super::plan::Grid;

/// A dataset's images that trials use, and how their bytes become inputs. Shared by all slots.
#[derive(Debug)]
pub struct TrialData {
    dataset: Arc<Dataset>,
    subset: Subset,
    /// Per channel, what each byte becomes: (p/255 − mean)/std over the training images used.
    tables: Vec<[f32; 256]>,
    /// Labels of all training images, some of them wrong on purpose.
    labels: Vec<u8>,
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
        let table = if config.standardize { standardised } else { |_: &_| std::array::from_fn(|p| p as f32 / 255.0) };
        let tables = counts.iter().map(table).collect();
        let labels = noisy(&dataset, config.label_noise, streams);
        Ok(Self { dataset, subset, tables, labels })
    }

    /// Indices of the training images.
    pub(super) fn train(&self) -> &[u32] {
        &self.subset.train
    }

    /// Indices of the test images that predictions are kept for.
    pub(super) fn probe(&self, points: u32, streams: &Streams) -> Vec<u32> {
        self.dataset.probe(points, streams)
    }

    /// Indices of the test images.
    pub(super) fn test(&self) -> &[u32] {
        &self.subset.test
    }

    /// Training images of these indices.
    pub(super) fn batch<'a>(&'a self, indices: &'a [u32]) -> Source<'a> {
        Source { labels: &self.labels, ..self.source(&self.dataset.train, indices) }
    }

    /// Test images of these indices.
    pub(super) fn test_batch<'a>(&'a self, indices: &'a [u32]) -> Source<'a> {
        self.source(&self.dataset.test, indices)
    }

    fn source<'a>(&'a self, part: &'a Images, indices: &'a [u32]) -> Source<'a> {
        Source { pixels: Pixels::Bytes(&part.pixels, &self.tables), labels: &part.labels, indices, moves: &[] }
    }
}

fn image_len(dataset: &Dataset) -> usize {
    let (height, width, channels) = dataset.name.shape();
    (height * width * channels) as usize
}

/// Labels of the training images, each replaced by one of another class with this probability. An image's label does not
/// depend on which others are used.
fn noisy(dataset: &Dataset, probability: f64, streams: &Streams) -> Vec<u8> {
    let mut labels = dataset.train.labels.clone();
    if probability > 0.0 {
        let classes = dataset.name.classes();
        for (image, label) in (0_u64..).zip(&mut labels) {
            let mut stream = streams.open(Purpose::LabelNoise, &image.to_le_bytes());
            if stream.uniform() < probability {
                *label = ((u32::from(*label) + 1 + stream.below(classes - 1)) % classes) as u8;
            }
        }
    }
    labels
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
    /// How each of them is changed, if they are.
    moves: &'a [Move],
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
        Self { pixels: Pixels::Floats(pixels), labels, indices, moves: &[] }
    }

    /// The same images, each moved.
    pub(super) fn moved(self, moves: &'a [Move]) -> Self {
        Self { moves, ..self }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.indices.len()
    }

    /// The same images in pieces of up to `size`.
    pub(super) fn parts(&self, size: usize) -> impl Iterator<Item = Self> + use<'a> {
        let whole = *self;
        self.indices.chunks(size).enumerate().map(move |(at, indices)| {
            let moves = whole.moves.get(at * size..at * size + indices.len()).unwrap_or_default();
            Self { indices, moves, ..whole }
        })
    }

    /// Their labels.
    pub(super) fn labels(&self) -> impl ExactSizeIterator<Item = u8> + use<'a> {
        let labels = self.labels;
        self.indices.iter().map(move |i| labels[*i as usize])
    }

    /// Writes `count` images from the `first` on into the inside of a grid.
    pub(super) fn write(&self, first: usize, count: usize, grid: &Grid, out: &mut [f32]) {
        let len = grid.inner_len();
        let images = self.indices[first..first + count].iter().zip(out.chunks_exact_mut(grid.len()));
        for (at, (image, out)) in images.enumerate() {
            let place = *image as usize * len..(*image as usize + 1) * len;
            match self.pixels {
                Pixels::Bytes(all, tables) => match self.moves.get(first + at) {
                    Some(by) => write_moved(&all[place], *by, tables, grid, out),
                    None => write_bytes(&all[place], tables, grid, out),
                },
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

/// The same for an image seen through a window that is moved and mirrored; outside the image it is black.
fn write_moved(bytes: &[u8], by: Move, tables: &[[f32; 256]], grid: &Grid, out: &mut [f32]) {
    let channels = tables.len();
    let row = grid.width * channels;
    // An image inside a halo has a run for every row, and one without a halo a single one.
    let rows = grid.runs().flat_map(|(_, to, len)| (to..to + len).step_by(row));
    for (y, to) in rows.enumerate() {
        let pixels = out[to..to + row].chunks_exact_mut(channels);
        for (x, pixel) in pixels.enumerate() {
            let from = by.source(y, x, grid.height, grid.width);
            for (c, (value, table)) in pixel.iter_mut().zip(tables).enumerate() {
                *value = table[from.map_or(0, |from| usize::from(bytes[from * channels + c]))];
            }
        }
    }
}
