//! The forward pass of a micro-batch, layer by layer.

use std::ops::Range;

use super::activations::{PlainActivation, fma};
use super::nets::{PlainMap, PlainNet, PlainNorm};
use super::norms::{PlainMoments, compute_group_statistics, invert_std, measure_piece};
use super::params::{ParamRole, PlainNumbers, PlainParam, PlainStatistics, find_param};
use super::{direct, pools, tiles};

/// A network and its numbers.
#[derive(Clone, Copy)]
pub(super) struct PlainModel<'a> {
    pub(super) net: &'a PlainNet,
    pub(super) params: &'a [PlainParam],
    pub(super) numbers: &'a PlainNumbers,
}

impl<'a> PlainModel<'a> {
    pub(super) fn find_numbers(self, layer: usize, role: ParamRole) -> Option<&'a [f32]> {
        find_param(self.params, layer, role).map(|at| &self.numbers[at][..])
    }
}

/// What the statistics of norms over images are taken from.
#[derive(Clone, Copy)]
pub(super) enum PlainMode<'a> {
    Training,
    Evaluation(&'a PlainStatistics),
}

/// What the pass leaves of a layer.
pub(super) struct LayerValues {
    pub(super) z: Vec<f32>,
    /// Behind the pool.
    pub(super) activation: Vec<f32>,
    /// The biases that z lacks.
    pub(super) pending: Vec<f32>,
    /// `[image][channel]`
    means: Vec<f32>,
    pub(super) invs: Vec<f32>,
    pub(super) scale: Vec<f32>,
    shift: Vec<f32>,
    /// The moments of the micro-batch, channel by channel, under norms over images.
    pub(super) moments: Vec<PlainMoments>,
}

impl LayerValues {
    /// The normalized number x, and the number y that the activation function takes.
    pub(super) fn normalize(&self, image: usize, channel: usize, z: f32) -> (f32, f32) {
        let at = image * self.scale.len() + channel;
        let x = (z - self.means[at]) * self.invs[at];
        (x, fma(x, self.scale[channel], self.shift[channel]))
    }
}

/// Cuts images into parts, and these into chunks.
pub(super) fn cut_images(images: usize, part: usize, chunk: usize) -> Vec<Vec<Range<usize>>> {
    let mut parts = Vec::new();
    for start in (0..images).step_by(part) {
        let end = images.min(start + part);
        let mut chunks = Vec::new();
        for first in (start..end).step_by(chunk) {
            chunks.push(first..end.min(first + chunk));
        }
        parts.push(chunks);
    }
    parts
}

/// The numbers of a channel in some images, pixel by pixel.
pub(super) fn read_channel(
    z: &[f32],
    (pixels, stored): (usize, usize),
    images: Range<usize>,
    channel: usize,
) -> Vec<f32> {
    (images.start * pixels..images.end * pixels)
        .map(|pixel| z[pixel * stored + channel])
        .collect()
}

/// What the layer reads.
pub(super) fn find_input<'a>(
    net: &PlainNet,
    at: usize,
    image_inputs: &'a [f32],
    values: &'a [LayerValues],
) -> &'a [f32] {
    match net.layers[at].reads {
        Some(source) => &values[source].activation,
        None => image_inputs,
    }
}

/// Runs all layers on the inputs of some images.
pub(super) fn run_forward(
    model: PlainModel<'_>,
    mode: PlainMode<'_>,
    image_inputs: &[f32],
    images: usize,
) -> Vec<LayerValues> {
    let mut values = Vec::new();
    for at in 0..model.net.layers.len() {
        let layer = run_layer(model, mode, (image_inputs, images), (at, &values));
        values.push(layer);
    }
    values
}

fn run_layer(
    model: PlainModel<'_>,
    mode: PlainMode<'_>,
    (image_inputs, images): (&[f32], usize),
    (at, before): (usize, &[LayerValues]),
) -> LayerValues {
    let net = model.net;
    let (layer, shape) = (&net.layers[at], net.output_shape(at));
    let input = find_input(net, at, image_inputs, before);
    let added = layer.adds.map(|added| &before[added]);
    let mut z = compute_z(model, at, input, (added.map(|a| &a.z[..]), images));

    let bias = model.find_numbers(at, ParamRole::Bias);
    let mut pending = bias.map_or(vec![0.0; shape.stored], <[f32]>::to_vec);
    if let Some(added) = added {
        if net.biases_enter(at) {
            for (i, z) in z.iter_mut().enumerate() {
                *z += added.pending[i % shape.stored];
            }
        } else {
            for (pending, handed_on) in pending.iter_mut().zip(&added.pending) {
                *pending += handed_on;
            }
        }
    }

    let mut values = LayerValues {
        means: vec![0.0; images * shape.stored],
        invs: vec![1.0; images * shape.stored],
        scale: vec![1.0; shape.stored],
        shift: vec![0.0; shape.stored],
        moments: Vec::new(),
        activation: Vec::new(),
        z,
        pending,
    };
    set_scale_and_shift(model, at, &mut values);
    match mode {
        _ if layer.norm.is_over_groups() => set_group_statistics(net, at, &mut values, images),
        PlainMode::Training if layer.norm.is_over_images() => {
            set_batch_statistics(net, at, &mut values, images);
        }
        PlainMode::Evaluation(statistics) => {
            set_running_statistics(net, (at, statistics), &mut values, images);
        }
        PlainMode::Training => {}
    }

    let activations = activate(net, at, &values);
    values.activation = pools::pool_activations(layer.pool, shape, activations, images);
    values
}

fn compute_z(
    model: PlainModel<'_>,
    at: usize,
    input: &[f32],
    (added, images): (Option<&[f32]>, usize),
) -> Vec<f32> {
    let g = model.net.geometry(at);
    if model.net.layers[at].map == PlainMap::Copy {
        return copy_input(model.net, at, input, (added, images));
    }

    let w = model
        .find_numbers(at, ParamRole::Weight)
        .expect("a map has a weight");
    if g.tiled {
        return tiles::compute_z(&g, input, w, added, images);
    }
    let start = added.map_or(vec![0.0; images * g.output.numbers()], <[f32]>::to_vec);
    direct::compute_z(&g, input, w, start, images)
}

/// z of a layer without a map.
fn copy_input(
    net: &PlainNet,
    at: usize,
    input: &[f32],
    (added, images): (Option<&[f32]>, usize),
) -> Vec<f32> {
    let (from, to) = (net.input_shape(at), net.output_shape(at));
    let mut z = vec![0.0; images * to.numbers()];
    for pixel in 0..images * to.pixels() {
        for c in 0..from.stored.min(to.stored) {
            z[pixel * to.stored + c] = input[pixel * from.stored + c];
        }
    }
    for (z, added) in z.iter_mut().zip(added.unwrap_or_default()) {
        *z += added;
    }
    z
}

fn set_scale_and_shift(model: PlainModel<'_>, at: usize, values: &mut LayerValues) {
    let layer = &model.net.layers[at];
    if layer.norm == PlainNorm::None {
        values.shift = values.pending.clone();
    }
    if let Some(scale) = model.find_numbers(at, ParamRole::Scale) {
        values.scale = scale.to_vec();
    }
    if let Some(shift) = model.find_numbers(at, ParamRole::Shift) {
        values.shift = shift.to_vec();
    }
    if layer.activation == PlainActivation::Softplus {
        let channels = model.net.output_shape(at).channels;
        values.shift[channels..].fill(f32::NEG_INFINITY);
    }
}

fn set_batch_statistics(net: &PlainNet, at: usize, values: &mut LayerValues, images: usize) {
    let (g, shape) = (net.geometry(at), net.output_shape(at));
    for c in 0..shape.stored {
        let mut batch = PlainMoments::default();
        for part in cut_images(images, g.part, g.chunk) {
            let mut set = PlainMoments::default();
            for chunk in part {
                let z = read_channel(&values.z, (shape.pixels(), shape.stored), chunk, c);
                set.merge(measure_piece(&z));
            }
            batch.merge(set);
        }

        values.moments.push(batch);
        let inv = invert_std(batch.squares / batch.count, net.style.eps);
        for image in 0..images {
            values.means[image * shape.stored + c] = batch.mean as f32;
            values.invs[image * shape.stored + c] = inv;
        }
    }
}

fn set_running_statistics(
    net: &PlainNet,
    (at, statistics): (usize, &PlainStatistics),
    values: &mut LayerValues,
    images: usize,
) {
    let Some((means, variances)) = &statistics[at] else {
        return;
    };
    for image in 0..images {
        for c in 0..means.len() {
            let mean = f64::from(means[c]) - f64::from(values.pending[c]);
            let to = image * means.len() + c;
            values.means[to] = mean as f32;
            values.invs[to] = invert_std(f64::from(variances[c]), net.style.eps);
        }
    }
}

/// The channels of each group; layer norm has one group.
pub(super) fn list_groups(norm: PlainNorm, channels: usize) -> Vec<Range<usize>> {
    let groups = match norm {
        PlainNorm::Group { groups } => groups,
        _ => 1,
    };
    let size = channels / groups;
    (0..groups).map(|i| i * size..(i + 1) * size).collect()
}

fn set_group_statistics(net: &PlainNet, at: usize, values: &mut LayerValues, images: usize) {
    let shape = net.output_shape(at);
    for image in 0..images {
        for group in list_groups(net.layers[at].norm, shape.channels) {
            let mut channels = Vec::new();
            for c in group.clone() {
                let sizes = (shape.pixels(), shape.stored);
                let z = read_channel(&values.z, sizes, image..image + 1, c);
                let mut moments = PlainMoments::default();
                moments.merge(measure_piece(&z));
                channels.push(moments);
            }

            let (mean, variance) = compute_group_statistics(&channels);
            for c in group {
                values.means[image * shape.stored + c] = mean as f32;
                values.invs[image * shape.stored + c] = invert_std(variance, net.style.eps);
            }
        }
    }
}

/// Activations before the pool.
pub(super) fn activate(net: &PlainNet, at: usize, values: &LayerValues) -> Vec<f32> {
    let (shape, function) = (net.output_shape(at), net.layers[at].activation);
    let mut activations = Vec::new();
    for (i, z) in values.z.iter().enumerate() {
        let (image, channel) = (i / shape.numbers(), i % shape.stored);
        activations.push(function.value(values.normalize(image, channel, *z).1));
    }
    activations
}
