//! The gradient of a batch: micro-batch after micro-batch, layers from the last to the first.

use std::ops::Range;

use super::activations::fma;
use super::forward::{
    LayerValues, PlainMode, PlainModel, activate, cut_images, find_input, list_groups,
    read_channel, run_forward,
};
use super::loss::{LossSums, PlainAnswer, PlainLoss, compute_image_loss};
use super::nets::{PlainMap, PlainNet, PlainNorm};
use super::norms::add_interleaved;
use super::params::{ParamRole, PlainNumbers, find_param, make_zeros};
use super::{direct, pools, tiles};

/// Inputs of a batch, and what its outputs should be.
pub(super) struct PlainBatch {
    pub(super) inputs: Vec<f32>,
    pub(super) answers: Vec<PlainAnswer>,
}

/// What a batch's passes give.
pub(super) struct PlainGradient {
    pub(super) numbers: PlainNumbers,
    pub(super) sums: LossSums,
    /// For each layer with a norm over images, means and unbiased variances by channel.
    pub(super) statistics: Vec<Option<(Vec<f64>, Vec<f64>)>>,
}

/// What is summed over the batch for a layer, channel by channel.
#[derive(Clone)]
struct LayerTotals {
    shift: Vec<f64>,
    scale: Vec<f64>,
    /// The sum of ∂L/∂z, where biases enter z.
    entered: Vec<f64>,
    means: Vec<f64>,
    variances: Vec<f64>,
    /// The biases that z lacks, which running means contain.
    pending: Vec<f32>,
}

/// The gradients by z, and by the pooled activations, of the layers of a micro-batch.
struct LayerGradients {
    of_z: Vec<Vec<f32>>,
    of_activation: Vec<Option<Vec<f32>>>,
}

/// A micro-batch on its way backward.
struct BackwardPass<'a> {
    model: PlainModel<'a>,
    inputs: &'a [f32],
    images: usize,
    batch: usize,
    values: Vec<LayerValues>,
}

/// The gradient of the mean loss of a batch.
pub(super) fn compute_gradient(
    model: PlainModel<'_>,
    loss: PlainLoss,
    data: &PlainBatch,
) -> PlainGradient {
    let net = model.net;
    let batch = data.answers.len();
    let mut numbers = make_zeros(model.params);
    let mut sums = LossSums::default();
    let mut totals: Vec<LayerTotals> = (0..net.layers.len())
        .map(|at| new_totals(net.output_shape(at).stored))
        .collect();

    let size = net.micro_batch(batch);
    let mut count = 0.0;
    for start in (0..batch).step_by(size) {
        let end = batch.min(start + size);
        let inputs = &data.inputs[start * net.image.numbers()..end * net.image.numbers()];
        let values = run_forward(model, PlainMode::Training, inputs, end - start);
        let pass = BackwardPass {
            model,
            inputs,
            images: end - start,
            batch,
            values,
        };
        let (micro, head) = compute_losses(&pass, loss, &data.answers[start..end]);
        sums.add(micro);
        pass.add_moments(&mut totals);
        pass.run(head, &mut numbers, &mut totals);
        count += 1.0;
    }

    write_sums(model, &totals, &mut numbers);
    let statistics = (0..net.layers.len())
        .map(|at| {
            let total = &totals[at];
            let means = total.means.iter().zip(&total.pending);
            let means = means.map(|(mean, bias)| mean / count + f64::from(*bias));
            let means = means.collect();
            let variances = total.variances.iter().map(|v| v / count).collect();
            let kept = net.layers[at].norm.is_over_images();
            kept.then_some((means, variances))
        })
        .collect();
    PlainGradient {
        numbers,
        sums,
        statistics,
    }
}

fn new_totals(stored: usize) -> LayerTotals {
    let zeros = vec![0.0; stored];
    LayerTotals {
        shift: zeros.clone(),
        scale: zeros.clone(),
        entered: zeros.clone(),
        means: zeros.clone(),
        variances: zeros,
        pending: vec![0.0; stored],
    }
}

/// The losses of a micro-batch, and the gradient of the head's activation.
fn compute_losses(
    pass: &BackwardPass<'_>,
    loss: PlainLoss,
    answers: &[PlainAnswer],
) -> (LossSums, Vec<f32>) {
    let head = pass.values.len() - 1;
    let shape = pass.model.net.output_shape(head);
    let mut sums = LossSums::default();
    let mut gradient = vec![0.0; pass.images * shape.stored];
    for (image, answer) in answers.iter().enumerate() {
        let start = image * shape.stored;
        let logits = &pass.values[head].activation[start..start + shape.channels];
        let (of_image, by_logits) = compute_image_loss(loss, logits, answer, pass.batch);
        sums.add(of_image);
        gradient[start..start + shape.channels].copy_from_slice(&by_logits);
    }
    (sums, gradient)
}

/// Writes the gradients of scales, shifts and biases.
fn write_sums(model: PlainModel<'_>, totals: &[LayerTotals], numbers: &mut PlainNumbers) {
    for (param, numbers) in model.params.iter().zip(numbers) {
        if !param.trained {
            continue;
        }
        let sums = match param.role {
            ParamRole::Weight => continue,
            ParamRole::Scale => totals[param.layer].scale.clone(),
            ParamRole::Shift => totals[param.layer].shift.clone(),
            ParamRole::Bias => sum_bias(model.net, param.layer, totals),
        };
        for (number, sum) in numbers.iter_mut().zip(sums) {
            *number = sum as f32;
        }
    }
}

/// The gradient of the biases of a layer.
fn sum_bias(net: &PlainNet, at: usize, totals: &[LayerTotals]) -> Vec<f64> {
    if net.biases_enter(at) {
        return totals[at].entered.clone();
    }

    let mut sums = totals[at].shift.clone();
    if net.layers[at].norm != PlainNorm::None {
        sums.fill(0.0);
    }
    if let Some(adder) = net.adder(at) {
        for (sum, more) in sums.iter_mut().zip(sum_bias(net, adder, totals)) {
            *sum += more;
        }
    }
    sums
}

impl BackwardPass<'_> {
    /// Adds means and variances of the micro-batch.
    fn add_moments(&self, totals: &mut [LayerTotals]) {
        for (values, total) in self.values.iter().zip(totals) {
            total.pending.clone_from(&values.pending);
            for (c, moments) in values.moments.iter().enumerate() {
                total.means[c] += moments.mean;
                total.variances[c] += moments.unbiased_variance();
            }
        }
    }

    fn run(&self, head: Vec<f32>, numbers: &mut PlainNumbers, totals: &mut [LayerTotals]) {
        let layers = self.values.len();
        let mut gradients = LayerGradients {
            of_z: vec![Vec::new(); layers],
            of_activation: vec![None; layers],
        };
        gradients.of_activation[layers - 1] = Some(head);
        for at in (0..layers).rev() {
            gradients.of_z[at] = self.compute_z_gradient(at, &gradients, &mut totals[at]);
            self.add_entered(at, &gradients.of_z[at], &mut totals[at]);
            self.add_weight_gradient(at, &gradients.of_z[at], numbers);
            self.hand_on_gradient(at, &mut gradients);
        }
    }

    /// ∂L/∂z
    fn compute_z_gradient(
        &self,
        at: usize,
        gradients: &LayerGradients,
        totals: &mut LayerTotals,
    ) -> Vec<f32> {
        let net = self.model.net;
        let of_adder = net.adder(at).map(|adder| &gradients.of_z[adder]);
        let Some(gradient) = &gradients.of_activation[at] else {
            return of_adder.expect("z is read by a layer").clone();
        };

        let (layer, values, shape) = (&net.layers[at], &self.values[at], net.output_shape(at));
        let activations = activate(net, at, values);
        let both = (&activations[..], &gradient[..]);
        let mut d = pools::unpool_gradient(layer.pool, shape, both, self.images);

        // First the gradient of y, then that of z.
        for (i, d) in d.iter_mut().enumerate() {
            let (image, c) = (i / shape.numbers(), i % shape.stored);
            let (_, y) = values.normalize(image, c, values.z[i]);
            *d = layer.activation.backward(y, *d);
        }
        let (means, means_x) = self.sum_gradient(at, &d, totals);
        for (i, d) in d.iter_mut().enumerate() {
            let (image, c) = (i / shape.numbers(), i % shape.stored);
            if layer.norm != PlainNorm::None {
                let (x, _) = values.normalize(image, c, values.z[i]);
                let to = image * shape.stored + c;
                let centered = values.scale[c] * *d - means[to];
                *d = values.invs[to] * fma(x, 0.0 - means_x[to], centered);
            }
            if let Some(of_adder) = of_adder {
                *d += of_adder[i];
            }
        }
        d
    }

    /// Adds the two sums over the gradient of y to the totals, and returns the means that norms subtract:
    /// `[image][channel]`.
    fn sum_gradient(
        &self,
        at: usize,
        by_y: &[f32],
        totals: &mut LayerTotals,
    ) -> (Vec<f32>, Vec<f32>) {
        let net = self.model.net;
        let (norm, stored) = (net.layers[at].norm, net.output_shape(at).stored);
        let mut means = vec![0.0; self.images * stored];
        let mut means_x = means.clone();
        let (part, chunk) = self.find_sum_cuts(at);
        let mut shift = vec![0.0; stored];
        let mut scale = vec![0.0; stored];
        for chunks in cut_images(self.images, part, chunk) {
            let mut part_shift = vec![0.0; stored];
            let mut part_scale = vec![0.0; stored];
            for chunk in chunks {
                let first = chunk.start;
                let (by_shift, by_scale) = self.sum_chunk(at, by_y, chunk);
                if norm.is_over_groups() {
                    self.set_group_means(at, first, (&by_shift, &mut means));
                    self.set_group_means(at, first, (&by_scale, &mut means_x));
                }
                add_numbers(&mut part_shift, &by_shift);
                add_numbers(&mut part_scale, &by_scale);
            }

            if norm.is_over_images() {
                add_numbers(&mut shift, &part_shift);
                add_numbers(&mut scale, &part_scale);
            } else {
                add_numbers(&mut totals.shift, &part_shift);
                add_numbers(&mut totals.scale, &part_scale);
            }
        }

        if norm.is_over_images() {
            self.set_batch_means(at, (&shift, &mut means));
            self.set_batch_means(at, (&scale, &mut means_x));
            add_numbers(&mut totals.shift, &shift);
            add_numbers(&mut totals.scale, &scale);
        }
        (means, means_x)
    }

    /// Images of a part and of a chunk of the two sums: those of the first reader. The head has no parts, and norms
    /// over each image have sums over each image.
    fn find_sum_cuts(&self, at: usize) -> (usize, usize) {
        let net = self.model.net;
        let Some(reader) = net.first_reader(at) else {
            let chunk = net.geometry(at).chunk;
            return (chunk, chunk);
        };
        let g = net.geometry(reader);
        let by_image = net.layers[at].norm.is_over_groups();
        (g.part, if by_image { 1 } else { g.chunk })
    }

    /// The sums of g and of g·x over a chunk.
    fn sum_chunk(&self, at: usize, by_y: &[f32], chunk: Range<usize>) -> (Vec<f64>, Vec<f64>) {
        let (values, shape) = (&self.values[at], self.model.net.output_shape(at));
        let sizes = (shape.pixels(), shape.stored);
        let (mut by_shift, mut by_scale) = (Vec::new(), Vec::new());
        for c in 0..shape.stored {
            let gradients = read_channel(by_y, sizes, chunk.clone(), c);
            let z = read_channel(&values.z, sizes, chunk.clone(), c);
            let (mut h, mut k) = ([0.0; 4], [0.0; 4]);
            for (j, (g, z)) in gradients.iter().zip(z).enumerate() {
                let image = chunk.start + j / shape.pixels();
                let (x, _) = values.normalize(image, c, z);
                h[j % 4] += g;
                k[j % 4] = fma(*g, x, k[j % 4]);
            }
            by_shift.push(f64::from(add_interleaved(h)));
            by_scale.push(f64::from(add_interleaved(k)));
        }
        (by_shift, by_scale)
    }

    fn set_batch_means(&self, at: usize, (sums, means): (&[f64], &mut [f32])) {
        let (values, shape) = (&self.values[at], self.model.net.output_shape(at));
        let count = (self.images * shape.pixels()) as f64;
        for image in 0..self.images {
            for c in 0..shape.stored {
                let mean = f64::from(values.scale[c]) * sums[c] / count;
                means[image * shape.stored + c] = mean as f32;
            }
        }
    }

    fn set_group_means(&self, at: usize, image: usize, (sums, means): (&[f64], &mut [f32])) {
        let net = self.model.net;
        let (values, shape) = (&self.values[at], net.output_shape(at));
        for group in list_groups(net.layers[at].norm, shape.channels) {
            let count = (shape.pixels() * group.len()) as f64;
            let sum: f64 = group
                .clone()
                .map(|c| f64::from(values.scale[c]) * sums[c])
                .sum();
            for c in group {
                means[image * shape.stored + c] = (sum / count) as f32;
            }
        }
    }

    /// Adds ∂L/∂z over all pixels, where biases enter z.
    fn add_entered(&self, at: usize, d: &[f32], totals: &mut LayerTotals) {
        let net = self.model.net;
        if !net.biases_enter(at) {
            return;
        }
        let (g, shape) = (net.geometry(at), net.output_shape(at));
        for c in 0..shape.stored {
            for chunks in cut_images(self.images, g.part, g.chunk) {
                let mut part = 0.0;
                for chunk in chunks {
                    let sizes = (shape.pixels(), shape.stored);
                    let mut s = [0.0; 4];
                    for (j, d) in read_channel(d, sizes, chunk, c).iter().enumerate() {
                        s[j % 4] += d;
                    }
                    part += f64::from(add_interleaved(s));
                }
                totals.entered[c] += part;
            }
        }
    }

    fn add_weight_gradient(&self, at: usize, d: &[f32], numbers: &mut PlainNumbers) {
        let (net, params) = (self.model.net, self.model.params);
        let Some(weight) = find_param(params, at, ParamRole::Weight) else {
            return;
        };
        if !params[weight].trained {
            return;
        }

        let g = net.geometry(at);
        let x = find_input(net, at, self.inputs, &self.values);
        for chunks in cut_images(self.images, g.part, g.chunk) {
            let mut sums = Vec::new();
            if g.tiled {
                sums.push(tiles::sum_weight_gradient(&g, x, d, &chunks));
            } else {
                for chunk in chunks {
                    sums.push(direct::sum_weight_gradient(&g, x, d, chunk));
                }
            }

            // A batch that is one part is not summed on its own.
            if self.batch > g.part {
                let mut part = vec![0.0; numbers[weight].len()];
                for sum in &sums {
                    add_floats(&mut part, sum);
                }
                sums = vec![part];
            }
            for sum in &sums {
                add_floats(&mut numbers[weight], sum);
            }
        }
    }

    /// Adds to the gradient of the activation that the layer reads.
    fn hand_on_gradient(&self, at: usize, gradients: &mut LayerGradients) {
        let net = self.model.net;
        let Some(source) = net.layers[at].reads else {
            return;
        };
        let (g, d) = (net.geometry(at), &gradients.of_z[at]);
        let there = gradients.of_activation[source].take();
        if net.layers[at].map == PlainMap::Copy {
            let gradient = match there {
                None => d.clone(),
                Some(mut gradient) => {
                    add_floats(&mut gradient, d);
                    gradient
                }
            };
            gradients.of_activation[source] = Some(gradient);
            return;
        }

        let w = self.model.find_numbers(at, ParamRole::Weight);
        let w = w.expect("a map has a weight");
        let mut gradient = there.unwrap_or_else(|| vec![0.0; self.images * g.input.numbers()]);
        if g.tiled {
            tiles::add_input_gradient(&g, d, w, &mut gradient, self.images);
        } else {
            direct::add_input_gradient(&g, d, w, &mut gradient, self.images);
        }
        gradients.of_activation[source] = Some(gradient);
    }
}

fn add_numbers(sums: &mut [f64], more: &[f64]) {
    for (sum, number) in sums.iter_mut().zip(more) {
        *sum += number;
    }
}

fn add_floats(sums: &mut [f32], more: &[f32]) {
    for (sum, number) in sums.iter_mut().zip(more) {
        *sum += number;
    }
}
