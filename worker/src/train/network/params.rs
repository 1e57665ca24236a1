//! The layout of all parameters in one packed vector, their initial values, and their digest.
//!
//! The packed form of a weight is `[block of outputs][row][BLOCK]` with rows of padded input channels; the padding is 0,
//! has gradient 0 and so stays 0. The logical order is that of [`Net::params`].

use std::ops::Range;

use ergodic_common::config::{InitScheme, TrialConfig};
use ergodic_common::ids::WeightsDigest;
use ergodic_common::net::{Net, NormSpec, Param, ParamRole};
use ergodic_common::random_streams::{Purpose, RandomStream, Streams};
use ergodic_common::weights::Weights;

use super::plan::LayerPlan;
use super::shape::padded_input_channels;
use crate::train::engine::simd::{BLOCK, round_up_to_block};

/// One parameter tensor in the packed vector.
#[derive(Debug)]
pub(crate) struct PackedParam {
    /// Name, role and size.
    pub(crate) param: Param,
    /// Range in the packed vector.
    pub(crate) range: Range<usize>,
    outputs: usize,
    /// Channels of the input, without and with padding, and rows of the packed form; of weights only.
    channels: (usize, usize),
    rows: usize,
}

impl PackedParam {
    /// The numbers in logical order.
    pub(crate) fn logical_values(&self, packed: &[f32]) -> impl Iterator<Item = f32> {
        self.packed_positions().map(|at| packed[at])
    }

    /// The packed positions of all numbers in logical order, without a division for each.
    fn packed_positions(&self) -> impl Iterator<Item = usize> + use<> {
        let weight = self.param.role == ParamRole::Weight;
        let outputs = if weight { self.outputs } else { self.param.len };
        let first = self.range.start;
        let rows = self.rows;
        let (inputs, padded) = self.channels;
        (0..self.param.len / outputs).flat_map(move |row| {
            let row = if weight {
                row / inputs * padded + row % inputs
            } else {
                0
            };

            // Parameters other than weights are one row of consecutive blocks.
            let rows = if weight { rows } else { 1 };
            (0..outputs).map(move |out| first + (out / BLOCK * rows + row) * BLOCK + out % BLOCK)
        })
    }

    /// The packed position of the `i`-th number in logical order.
    pub(crate) fn packed_position(&self, i: usize) -> usize {
        if self.param.role != ParamRole::Weight {
            return self.range.start + i;
        }
        let row = i / self.outputs;
        let out = i % self.outputs;
        let row = row / self.channels.0 * self.channels.1 + row % self.channels.0;
        self.range.start + (out / BLOCK * self.rows + row) * BLOCK + out % BLOCK
    }
}

/// The range of the running statistics of a layer's batch norm.
#[derive(Debug, Clone)]
pub(crate) struct NormStatisticsRange {
    /// Index of the layer.
    pub(crate) layer: usize,
    mean: Range<usize>,
}

impl NormStatisticsRange {
    /// Replaces the statistics by (1 − share) times themselves plus `share` times the means and variances of `moments`.
    pub(crate) fn blend_statistics(
        &self,
        moments: impl Iterator<Item = (f64, f64)>,
        share: f64,
        running: &mut [f32],
    ) {
        let keep = 1.0 - share;
        for (c, (mean, variance)) in moments.enumerate() {
            for (at, new) in [(self.mean.start + c, mean), (self.mean.end + c, variance)] {
                running[at] = (keep * f64::from(running[at]) + (1.0 - keep) * new) as f32;
            }
        }
    }
}

/// The ranges of all parameters and norm statistics.
#[derive(Debug)]
pub(crate) struct ParamLayout {
    /// All parameters, in logical order.
    pub(crate) params: Vec<PackedParam>,
    /// Length of the packed vector.
    pub(crate) len: usize,
    /// Per layer with a norm: the range of its running means; as many variances follow.
    pub(crate) running_mean_ranges: Vec<Option<Range<usize>>>,
    /// Length of the running statistics.
    pub(crate) statistics_len: usize,
    /// Channels per layer, without padding.
    channels: Vec<usize>,
    /// The norm of each layer.
    norm_specs: Vec<Option<NormSpec>>,
}

/// The range of the running means of every layer that has them, each followed by as many variances, and the length of all.
fn place_running_means(net: &Net) -> (Vec<Option<Range<usize>>>, usize) {
    let mut len = 0;
    let mut ranges = Vec::new();
    for layer in &net.layers {
        let has_statistics = layer.norm.is_some_and(|n| n.has_running_statistics());
        let width = round_up_to_block(layer.output.channels);
        ranges.push(has_statistics.then(|| len..len + width));
        if has_statistics {
            len += 2 * width;
        }
    }

    (ranges, len)
}

impl ParamLayout {
    pub(crate) fn new(net: &Net, plans: &[LayerPlan]) -> Self {
        let mut len = 0;
        let mut params = Vec::new();
        for param in net.params() {
            let layer = &net.layers[param.layer];
            let plan = &plans[param.layer];
            let from = len;
            len += if param.role == ParamRole::Weight {
                plan.weight_rows * plan.channels
            } else {
                plan.channels
            };
            params.push(PackedParam {
                param,
                range: from..len,
                outputs: layer.output.channels,
                channels: (layer.input.channels, padded_input_channels(layer)),
                rows: plan.weight_rows,
            });
        }

        let (running_mean_ranges, statistics_len) = place_running_means(net);
        Self {
            params,
            len,
            running_mean_ranges,
            statistics_len,
            channels: net.layers.iter().map(|l| l.output.channels).collect(),
            norm_specs: net.layers.iter().map(|l| l.norm).collect(),
        }
    }

    /// A single tensor `w` of `dim` numbers, on whose scale the loss does not depend.
    pub(crate) fn with_single_tensor(dim: usize) -> Self {
        let len = round_up_to_block(dim);
        let param = Param {
            name: "w".into(),
            layer: 0,
            role: ParamRole::Weight,
            len: dim,
            fan_in: 1,
            fan_out: dim,
            trained: true,
            normed: true,
        };
        let slot = PackedParam {
            param,
            range: 0..len,
            outputs: dim,
            channels: (1, 1),
            rows: 1,
        };

        Self {
            params: vec![slot],
            len,
            running_mean_ranges: Vec::new(),
            statistics_len: 0,
            channels: Vec::new(),
            norm_specs: Vec::new(),
        }
    }

    /// The range of the parameter with this role in a layer, if it has one.
    pub(crate) fn param_range(&self, layer: usize, role: ParamRole) -> Option<Range<usize>> {
        self.params
            .iter()
            .find(|p| p.param.layer == layer && p.param.role == role)
            .map(|p| p.range.clone())
    }

    /// The batch norms, in the order of their layers.
    pub(crate) fn batch_norms(&self) -> impl Iterator<Item = (NormStatisticsRange, NormSpec)> {
        let all = self
            .running_mean_ranges
            .iter()
            .zip(&self.norm_specs)
            .enumerate();
        all.filter_map(|(layer, (mean, norm))| {
            Some((
                NormStatisticsRange {
                    layer,
                    mean: mean.clone()?,
                },
                (*norm)?,
            ))
        })
    }

    /// The ranges of the parameters that `select` holds for; adjacent ranges are joined.
    pub(crate) fn matching_ranges(&self, select: impl Fn(&Param) -> bool) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for slot in self.params.iter().filter(|s| select(&s.param)) {
            match ranges.last_mut() {
                Some(last) if last.end == slot.range.start => last.end = slot.range.end,
                _ => ranges.push(slot.range.clone()),
            }
        }
        ranges
    }

    /// Initial values of all parameters.
    pub(crate) fn draw_initial_weights(&self, config: &TrialConfig, streams: &Streams) -> Vec<f32> {
        let mut packed = vec![0.0; self.len];
        for slot in &self.params {
            match slot.param.role {
                // `zero_residual` starts the last convolution of each residual block at 0, so that
                // the block begins as the identity.
                ParamRole::Weight
                    if config.model.zero_residual && slot.param.name.ends_with(".conv2.weight") => {
                }
                ParamRole::Weight => slot.draw_initial_values(config, streams, &mut packed),
                ParamRole::NormScale => {
                    (0..slot.param.len).for_each(|i| packed[slot.packed_position(i)] = 1.0)
                }
                ParamRole::Bias | ParamRole::NormShift => {}
            }
        }

        packed
    }

    /// Running statistics before the first step: mean 0, variance 1.
    pub(crate) fn initial_statistics(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.statistics_len];
        for mean in self.running_mean_ranges.iter().flatten() {
            all[mean.end..mean.end + mean.len()].fill(1.0);
        }
        all
    }

    /// Initial weights and running statistics from a file, the weights scaled as the config says.
    pub(crate) fn pack_initial_weights(
        &self,
        start: &Weights,
        config: &TrialConfig,
    ) -> (Vec<f32>, Vec<f32>) {
        let mut packed = vec![0.0; self.len];
        let mut statistics = self.initial_statistics();

        for (slot, numbers) in self.params.iter().zip(&start.params) {
            let factor = if slot.param.role == ParamRole::Weight {
                slot.init_factor(config)
            } else {
                1.0
            };
            slot.packed_positions()
                .zip(numbers)
                .for_each(|(at, x)| packed[at] = (f64::from(*x) * factor) as f32);
        }

        for (range, [mean, variance]) in self
            .running_mean_ranges
            .iter()
            .flatten()
            .zip(&start.statistics)
        {
            statistics[range.start..range.start + mean.len()].copy_from_slice(mean);
            statistics[range.end..range.end + variance.len()].copy_from_slice(variance);
        }

        (packed, statistics)
    }

    /// The numbers of all parameters in logical order.
    pub(crate) fn unpack_params(&self, packed: &[f32]) -> Vec<Vec<f32>> {
        self.params
            .iter()
            .map(|slot| slot.logical_values(packed).collect())
            .collect()
    }

    /// Mean and variance of all norms that keep them.
    pub(crate) fn unpack_statistics(&self, statistics: &[f32]) -> Vec<[Vec<f32>; 2]> {
        let with = self
            .running_mean_ranges
            .iter()
            .zip(&self.channels)
            .filter_map(|(mean, n)| Some((mean.as_ref()?, *n)));
        with.map(|(mean, n)| [mean.start, mean.end].map(|from| statistics[from..from + n].to_vec()))
            .collect()
    }

    /// BLAKE3 of all parameters in logical order, then of mean and variance norm by norm, NaNs made equal.
    pub(crate) fn compute_digest(&self, packed: &[f32], statistics: &[f32]) -> WeightsDigest {
        let mut bytes = Vec::with_capacity(4 * (packed.len() + statistics.len()));
        for param in &self.params {
            param
                .logical_values(packed)
                .for_each(|x| push_canonical(&mut bytes, x));
        }

        for (mean, channels) in self.running_mean_ranges.iter().zip(&self.channels) {
            let Some(mean) = mean else { continue };
            for from in [mean.start, mean.end] {
                statistics[from..from + channels]
                    .iter()
                    .for_each(|x| push_canonical(&mut bytes, *x));
            }
        }

        blake3::hash(&bytes).into()
    }
}

/// Appends the bits of a number, with a single representation of NaN.
fn push_canonical(bytes: &mut Vec<u8>, x: f32) {
    let bits = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
    bytes.extend(bits.to_le_bytes());
}

impl PackedParam {
    /// The factor of the initial weights.
    fn init_factor(&self, config: &TrialConfig) -> f64 {
        let factor = if self.param.trained {
            config.model.init_scale
        } else {
            1.0
        };

        let layer = config
            .model
            .layer_scales
            .iter()
            .find(|(layer, _)| self.param.name == format!("{layer}.weight"));
        factor * layer.map_or(1.0, |(_, scale)| *scale)
    }

    fn draw_initial_values(&self, config: &TrialConfig, streams: &Streams, packed: &mut [f32]) {
        let head = self.param.name == HEAD_WEIGHT;
        let (purpose, scheme) = if head {
            (Purpose::Head, InitScheme::KaimingNormal)
        } else {
            (Purpose::Init, config.model.init)
        };
        let mut stream = streams.open_stream(purpose, self.param.name.as_bytes());

        let factor = self.init_factor(config);
        if scheme == InitScheme::Orthogonal {
            let values =
                draw_orthogonal_matrix(self.param.len / self.outputs, self.outputs, &mut stream);
            self.packed_positions()
                .zip(values)
                .for_each(|(at, x)| packed[at] = (x * factor) as f32);

            return;
        }

        let draw = init_distribution(scheme, &self.param);
        self.packed_positions()
            .for_each(|at| packed[at] = (draw(&mut stream) * factor) as f32);
    }
}

const HEAD_WEIGHT: &str = "head.weight";

/// The distribution of initial numbers.
fn init_distribution(
    scheme: InitScheme,
    param: &Param,
) -> impl Fn(&mut RandomStream) -> f64 + use<> {
    let variance = match scheme {
        InitScheme::KaimingNormal | InitScheme::KaimingUniform => 2.0 / param.fan_in as f64,
        InitScheme::XavierNormal | InitScheme::XavierUniform => {
            2.0 / (param.fan_in + param.fan_out) as f64
        }
        InitScheme::Orthogonal => {
            unreachable!("an orthogonal matrix is not drawn number by number")
        }
    };

    let normal = matches!(scheme, InitScheme::KaimingNormal | InitScheme::XavierNormal);
    let deviation = libm::sqrt(variance);
    let bound = libm::sqrt(3.0 * variance);
    move |stream| {
        if normal {
            deviation * stream.next_normal()
        } else {
            bound * (2.0 * stream.next_uniform() - 1.0)
        }
    }
}

/// √2 times a random matrix `[rows, columns]` whose shorter side's vectors are orthonormal: a normal matrix taken through
/// Gram and Schmidt twice, because once leaves rounding errors behind.
fn draw_orthogonal_matrix(rows: usize, columns: usize, stream: &mut RandomStream) -> Vec<f64> {
    let normal: Vec<f64> = (0..rows * columns).map(|_| stream.next_normal()).collect();
    let by_columns = columns <= rows;
    let (count, len) = if by_columns {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    for v in 0..count {
        let mut vector: Vec<f64> = (0..len)
            .map(|i| normal[matrix_index(v, i, columns, by_columns)])
            .collect();
        orthonormalize(&mut vector, &basis);
        basis.push(vector);
    }

    let mut matrix = vec![0.0; rows * columns];
    for (v, vector) in basis.iter().enumerate() {
        for (i, x) in vector.iter().enumerate() {
            matrix[matrix_index(v, i, columns, by_columns)] = std::f64::consts::SQRT_2 * x;
        }
    }

    matrix
}

/// The index of component `i` of vector `v` in a matrix `[rows, columns]` whose columns or rows are
/// the vectors.
fn matrix_index(v: usize, i: usize, columns: usize, by_columns: bool) -> usize {
    if by_columns {
        i * columns + v
    } else {
        v * columns + i
    }
}

/// Makes a vector orthogonal to a basis, twice, and its length 1.
fn orthonormalize(vector: &mut [f64], basis: &[Vec<f64>]) {
    for other in basis.iter().chain(basis) {
        let along = dot_product(vector, other);
        vector
            .iter_mut()
            .zip(other)
            .for_each(|(x, o)| *x -= along * o);
    }

    let length = dot_product(vector, vector).sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
}

fn dot_product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use crate::train::network::params::*;
    use crate::train::tests::cases;

    #[test]
    fn orthogonal_matrices_are() {
        let mut stream = cases::streams(0).open_stream(Purpose::Init, b"w");
        for (rows, columns) in [(7, 7), (20, 3), (3, 20), (1, 5), (64, 48)] {
            let m = draw_orthogonal_matrix(rows, columns, &mut stream);
            let vector = |v: usize| -> Vec<f64> {
                let (count, step, start) = if columns <= rows {
                    (rows, columns, v)
                } else {
                    (columns, 1, v * columns)
                };
                (0..count).map(|i| m[start + i * step]).collect()
            };

            for a in 0..rows.min(columns) {
                for b in 0..=a {
                    let expected = if a == b { 2.0 } else { 0.0 };
                    assert!(
                        (dot_product(&vector(a), &vector(b)) - expected).abs() < 1e-13,
                        "{rows}x{columns}"
                    );
                }
            }
        }
    }
}
