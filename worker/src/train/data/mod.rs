//! The dataset as trials see it: the chosen images, standardised.

pub(crate) mod augment;
pub(crate) mod order;
mod planes;
mod tensors;

use std::sync::{Arc, OnceLock};

use ergodic_common::config::DataConfig;
use ergodic_common::dataset::{DataError, Dataset, Images, Subset, Target};
use ergodic_common::net::ActivationShape;
use ergodic_common::random_streams::{Purpose, Streams};

use super::data::augment::ImageTransform;
pub use super::data::tensors::ExperimentData;
use super::network::shape::HaloGrid;

/// A dataset's images that trials use, and how their bytes become inputs. Shared by all slots.
#[derive(Debug)]
pub struct TrialData {
    dataset: Arc<Dataset>,
    subset: Subset,
    scaling: InputScaling,
    /// Labels of all training images, some of them replaced by label noise.
    labels: Vec<u8>,
    /// The same images for experiments, once one has asked for them.
    tensors: OnceLock<Result<ExperimentData, String>>,
}

/// The scaling of an image's numbers to inputs.
#[derive(Debug)]
enum InputScaling {
    /// Per channel, the input for each byte: (p/255 − mean)/std over the training images that are
    /// used.
    ByteTables(Vec<[f32; 256]>),
    /// Per channel, mean and standard deviation of the training images used: x becomes (x − mean)/std.
    Moments(Vec<(f64, f64)>),
}

impl TrialData {
    /// Chooses the images and takes the training images' mean and standard deviation per channel, from exact sums.
    ///
    /// # Errors
    /// The config needs more images than the dataset has.
    pub fn new(
        dataset: Arc<Dataset>,
        config: &DataConfig,
        streams: &Streams,
    ) -> Result<Self, DataError> {
        let subset = dataset.choose_subset(config, streams)?;
        let scaling = if dataset.train.floats.is_empty() {
            InputScaling::ByteTables(compute_byte_tables(
                &dataset,
                &subset.train,
                config.standardize,
            ))
        } else {
            InputScaling::Moments(compute_channel_moments(
                &dataset,
                &subset.train,
                config.standardize,
            ))
        };

        let labels = draw_noisy_labels(&dataset, config.label_noise, streams);
        Ok(Self {
            dataset,
            subset,
            scaling,
            labels,
            tensors: OnceLock::new(),
        })
    }

    /// Indices of the training images.
    pub(crate) fn train_indices(&self) -> &[u32] {
        &self.subset.train
    }

    /// Indices of the test images of the probe set.
    pub(crate) fn probe_indices(&self, points: u32, streams: &Streams) -> Vec<u32> {
        self.dataset.choose_probe_set(points, streams)
    }

    /// Indices of the test images.
    pub(crate) fn test_indices(&self) -> &[u32] {
        &self.subset.test
    }

    /// Indices of the images to validate on, among those of the training part.
    pub(crate) fn validation_indices(&self) -> &[u32] {
        &self.subset.validation
    }

    /// Training images of these indices.
    pub(crate) fn train_batch<'a>(&'a self, indices: &'a [u32]) -> ImageBatch<'a> {
        let batch = self.build_batch(&self.dataset.train, indices);
        let targets = match batch.targets {
            TargetData::Labels(_) => TargetData::Labels(&self.labels),
            targets @ TargetData::Numbers(..) => targets,
        };
        ImageBatch { targets, ..batch }
    }

    /// Images to validate on of these indices, with the labels that they have in the dataset.
    pub(crate) fn validation_batch<'a>(&'a self, indices: &'a [u32]) -> ImageBatch<'a> {
        self.build_batch(&self.dataset.train, indices)
    }

    /// Test images of these indices.
    pub(crate) fn test_batch<'a>(&'a self, indices: &'a [u32]) -> ImageBatch<'a> {
        self.build_batch(&self.dataset.test, indices)
    }

    fn build_batch<'a>(&'a self, part: &'a Images, indices: &'a [u32]) -> ImageBatch<'a> {
        let pixels = match &self.scaling {
            InputScaling::ByteTables(tables) => PixelData::Bytes(&part.pixels, tables),
            InputScaling::Moments(moments) => PixelData::Floats(&part.floats, moments),
        };
        let (height, width, _) = self.dataset.name.image_shape();
        ImageBatch {
            pixels,
            sides: (height as usize, width as usize),
            targets: TargetData::of_images(part),
            indices,
            transforms: &[],
        }
    }
}

fn image_len(dataset: &Dataset) -> usize {
    let (height, width, channels) = dataset.name.image_shape();
    (height * width * channels) as usize
}

/// The input for each byte, per channel.
fn compute_byte_tables(dataset: &Dataset, images: &[u32], standardize: bool) -> Vec<[f32; 256]> {
    let channels = dataset.name.image_shape().2 as usize;
    let image = image_len(dataset);
    let mut counts = vec![[0_u64; 256]; channels];

    for i in images {
        let pixels = &dataset.train.pixels[*i as usize * image..][..image];
        for (at, p) in pixels.iter().enumerate() {
            counts[at % channels][usize::from(*p)] += 1;
        }
    }

    let table = if standardize {
        build_standardized_table
    } else {
        |_: &_| std::array::from_fn(|p| p as f32 / 255.0)
    };
    counts.iter().map(table).collect()
}

/// Mean and standard deviation of each channel, in two passes over the images in their order; (0, 1) unless
/// standardised, and 1 for a channel that never changes.
fn compute_channel_moments(
    dataset: &Dataset,
    images: &[u32],
    standardize: bool,
) -> Vec<(f64, f64)> {
    if !standardize {
        return vec![(0.0, 1.0); dataset.name.image_shape().2 as usize];
    }

    let means = channel_means(dataset, images, |_, x| x);
    let variances = channel_means(dataset, images, |c, x| (x - means[c]) * (x - means[c]));
    means
        .iter()
        .zip(variances)
        .map(|(mean, variance)| {
            let std = if variance > 0.0 {
                libm::sqrt(variance)
            } else {
                1.0
            };
            (*mean, std)
        })
        .collect()
}

/// The mean over all pixels of `term` of channel and value, for each channel.
fn channel_means(dataset: &Dataset, images: &[u32], term: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let channels = dataset.name.image_shape().2 as usize;
    let image = image_len(dataset);
    let mut sums = vec![0.0; channels];
    for i in images {
        let numbers = dataset.train.floats[*i as usize * image..][..image].iter();
        numbers
            .enumerate()
            .for_each(|(at, x)| sums[at % channels] += term(at % channels, f64::from(*x)));
    }

    let count = (images.len() * image / channels) as f64;
    sums.iter().map(|sum| sum / count).collect()
}

/// Labels of the training images, each replaced by one of another class with this probability. An image's label does not
/// depend on which others are used.
fn draw_noisy_labels(dataset: &Dataset, probability: f64, streams: &Streams) -> Vec<u8> {
    let mut labels = dataset.train.labels.clone();
    if probability > 0.0 {
        let classes = dataset.name.class_count();
        for (image, label) in (0_u64..).zip(&mut labels) {
            let mut stream = streams.open_stream(Purpose::LabelNoise, &image.to_le_bytes());
            if stream.next_uniform() < probability {
                *label = ((u32::from(*label) + 1 + stream.next_below(classes - 1)) % classes) as u8;
            }
        }
    }

    labels
}

/// The input for each byte of a channel, given how often each occurs.
fn build_standardized_table(counts: &[u64; 256]) -> [f32; 256] {
    let n = power_sum(counts, 0);
    let first = power_sum(counts, 1);
    let second = power_sum(counts, 2);

    // Computed in integers, so that the variance of a constant channel is exactly 0.
    let spread = u128::from(n) * u128::from(second) - u128::from(first) * u128::from(first);
    let mean = first as f64 / n as f64 / 255.0;
    let std = if spread == 0 {
        1.0
    } else {
        (spread as f64).sqrt() / n as f64 / 255.0
    };

    std::array::from_fn(|p| ((p as f64 / 255.0 - mean) / std) as f32)
}

/// Σ p^power over all bytes p, given how often each occurs.
fn power_sum(counts: &[u64; 256], power: u32) -> u64 {
    counts
        .iter()
        .zip(0_u64..)
        .map(|(n, p)| n * p.pow(power))
        .sum()
}

/// A batch of images.
#[derive(Clone, Copy)]
pub(crate) struct ImageBatch<'a> {
    /// The pixels of all images.
    pixels: PixelData<'a>,
    /// Height and width of an image.
    sides: (usize, usize),
    targets: TargetData<'a>,
    /// Indices of the batch's images in `pixels`.
    indices: &'a [u32],
    /// The augmentation of each image of the batch; empty without augmentation.
    transforms: &'a [ImageTransform],
}

/// What the outputs for the images of a part are compared with.
#[derive(Clone, Copy)]
pub(crate) enum TargetData<'a> {
    /// A label per image.
    Labels(&'a [u8]),
    /// So many numbers per image.
    Numbers(&'a [f32], usize),
}

impl<'a> TargetData<'a> {
    fn of_images(part: &'a Images) -> Self {
        match part.target_count() {
            0 => Self::Labels(&part.labels),
            width => Self::Numbers(&part.targets, width),
        }
    }

    fn of_image(self, image: usize) -> Target<'a> {
        match self {
            Self::Labels(labels) => Target::Label(labels[image]),
            Self::Numbers(numbers, width) => Target::Numbers(&numbers[image * width..][..width]),
        }
    }
}

#[derive(Clone, Copy)]
enum PixelData<'a> {
    /// Bytes, with a table of inputs per channel.
    Bytes(&'a [u8], &'a [[f32; 256]]),
    /// Numbers, with mean and standard deviation per channel.
    Floats(&'a [f32], &'a [(f64, f64)]),
}

impl<'a> ImageBatch<'a> {
    /// A batch of inputs that are not scaled.
    #[cfg(test)]
    pub(crate) fn from_floats(pixels: &'a [f32], labels: &'a [u8], indices: &'a [u32]) -> Self {
        Self::with_targets(pixels, TargetData::Labels(labels), indices)
    }

    /// A batch of inputs that are not scaled, with labels or targets.
    #[cfg(test)]
    pub(crate) fn with_targets(
        pixels: &'a [f32],
        targets: TargetData<'a>,
        indices: &'a [u32],
    ) -> Self {
        let pixels = PixelData::Floats(pixels, &[(0.0, 1.0)]);
        Self {
            pixels,
            sides: (1, 1),
            targets,
            indices,
            transforms: &[],
        }
    }

    /// Returns the same batch with a transform for each image.
    pub(crate) fn with_transforms(self, transforms: &'a [ImageTransform]) -> Self {
        Self { transforms, ..self }
    }

    /// Number of images.
    pub(crate) fn len(&self) -> usize {
        self.indices.len()
    }

    /// Splits the batch into pieces of up to `size` images.
    pub(crate) fn micro_batches(&self, size: usize) -> impl Iterator<Item = Self> + use<'a> {
        let whole = *self;
        self.indices
            .chunks(size)
            .enumerate()
            .map(move |(at, indices)| {
                let transforms = whole
                    .transforms
                    .get(at * size..at * size + indices.len())
                    .unwrap_or_default();
                Self {
                    indices,
                    transforms,
                    ..whole
                }
            })
    }

    /// What the outputs for the images are compared with.
    pub(crate) fn targets(&self) -> impl ExactSizeIterator<Item = Target<'a>> + use<'a> {
        let targets = self.targets;
        self.indices
            .iter()
            .map(move |i| targets.of_image(*i as usize))
    }

    fn image_shape(&self, channels: usize) -> ActivationShape {
        let (height, width) = self.sides;
        ActivationShape {
            height,
            width,
            channels,
        }
    }

    /// Writes `count` images from the `first` on into the inside of a grid, which may hold an image as a single pixel.
    pub(crate) fn write_images(
        &self,
        first: usize,
        count: usize,
        grid: &HaloGrid,
        out: &mut [f32],
    ) {
        let len = grid.inner_len();
        let images = self.indices[first..first + count]
            .iter()
            .zip(out.chunks_exact_mut(grid.len()));
        for (at, (image, out)) in images.enumerate() {
            let range = *image as usize * len..(*image as usize + 1) * len;
            let transform = self.transforms.get(first + at).copied();
            match self.pixels {
                PixelData::Bytes(all, tables) => {
                    self.write_byte_image(&all[range], tables, transform, grid, out);
                }
                PixelData::Floats(all, moments) => {
                    self.write_float_image(&all[range], moments, transform, grid, out);
                }
            }
        }
    }

    fn write_byte_image(
        &self,
        bytes: &[u8],
        tables: &[[f32; 256]],
        transform: Option<ImageTransform>,
        grid: &HaloGrid,
        out: &mut [f32],
    ) {
        let Some(transform) = transform else {
            return write_bytes(bytes, tables, grid, out);
        };
        write_transformed(
            bytes,
            transform,
            self.image_shape(tables.len()),
            |p, c| tables[c][usize::from(p)],
            grid,
            out,
        );
    }

    fn write_float_image(
        &self,
        numbers: &[f32],
        moments: &[(f64, f64)],
        transform: Option<ImageTransform>,
        grid: &HaloGrid,
        out: &mut [f32],
    ) {
        let shape = self.image_shape(moments.len());
        match transform {
            Some(transform) => write_transformed(
                numbers,
                transform,
                shape,
                |x, c| standardize_value(x, moments[c]),
                grid,
                out,
            ),
            None => write_floats(numbers, moments, grid, out),
        }
    }
}

fn standardize_value(x: f32, (mean, std): (f64, f64)) -> f32 {
    ((f64::from(x) - mean) / std) as f32
}

fn write_bytes(bytes: &[u8], tables: &[[f32; 256]], grid: &HaloGrid, out: &mut [f32]) {
    let channels = tables.len();
    for (from, to, len) in grid.contiguous_runs() {
        for (c, table) in tables.iter().enumerate() {
            let bytes = bytes[from..][..len][c..].iter().step_by(channels);
            let out = out[to..][..len][c..].iter_mut().step_by(channels);
            out.zip(bytes)
                .for_each(|(x, p)| *x = table[usize::from(*p)]);
        }
    }
}

fn write_floats(numbers: &[f32], moments: &[(f64, f64)], grid: &HaloGrid, out: &mut [f32]) {
    for (from, to, len) in grid.contiguous_runs() {
        let numbers = numbers[from..][..len].iter().enumerate();
        out[to..][..len]
            .iter_mut()
            .zip(numbers)
            .for_each(|(x, (at, number))| {
                *x = standardize_value(*number, moments[at % moments.len()])
            });
    }
}

/// Writes an image of this shape seen through a window that is moved and mirrored; outside the image it is black, which is
/// 0. Pixels are those of the image, even where the grid holds an image as a single pixel.
fn write_transformed<T: Copy + Default>(
    numbers: &[T],
    by: ImageTransform,
    ActivationShape {
        height,
        width,
        channels,
    }: ActivationShape,
    input: impl Fn(T, usize) -> f32,
    grid: &HaloGrid,
    out: &mut [f32],
) {
    let row = width * channels;
    // The grid has one run per image row if the image has a halo, and one run per image if not.
    let rows = grid
        .contiguous_runs()
        .flat_map(|(_, to, len)| (to..to + len).step_by(row));
    for (y, to) in rows.enumerate() {
        let pixels = out[to..to + row].chunks_exact_mut(channels);
        for (x, pixel) in pixels.enumerate() {
            let from = by.source_pixel(y, x, height, width);
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = input(
                    from.map_or_else(T::default, |from| numbers[from * channels + c]),
                    c,
                );
            }
        }
    }
}
