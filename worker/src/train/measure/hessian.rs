//! Exact products with the Hessian of a batch's loss, in f64.
//!
//! The derivative of the gradient along a direction: the forward and the backward pass, differentiated once more (Pearlmutter
//! 1994). ReLUs and max-pools choose as they do at the weights, and have no second derivative. What is called a tangent here is
//! how a number changes per unit of the direction.

use std::mem::take;
use std::ops::Range;

use ergodic_common::config::Loss;
use ergodic_common::net::{Layer, Net, NormScope, ParamRole, Pool};

use super::linear_op::ExactLinearOp;
use crate::train::data::ImageBatch;
use crate::train::engine::simd::Simd16;
use crate::train::network::plan::HaloGrid;

/// The Hessian of what is minimised on a batch, over all parameters, those that are not trained held fast.
pub(crate) struct Hessian<'a, S> {
    s: S,
    loss: Loss,
    classes: usize,
    layers: Vec<HessianLayer<'a>>,
    /// All parameters, one after the other in logical order.
    weights: Vec<f64>,
    /// Places of the trained ones.
    trained: Vec<Range<usize>>,
    images: Vec<f64>,
    labels: Vec<u8>,
    /// Images that are passed over at a time.
    micro_batch: usize,
    /// The passes at the weights, where one covers the whole batch.
    cached_pass: Vec<LayerPassRecord>,
}

struct HessianLayer<'a> {
    layer: &'a Layer,
    linear_op: ExactLinearOp,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    scale: Option<Range<usize>>,
    shift: Option<Range<usize>>,
    /// The layer that adds this one's z to its own.
    adder: Option<usize>,
    /// The weight with inputs and outputs exchanged; none for the first layer.
    transposed: Vec<f64>,
}

/// What the passes over some images leave of a layer.
struct LayerPassRecord {
    /// z, normalised if a norm follows.
    x: Vec<f64>,
    /// 1/√(variance + ε), of each set that a norm runs over.
    inv_std: Vec<f64>,
    /// Which of the pixels that are pooled is the largest.
    max_choices: Vec<u8>,
    /// What its readers see.
    output: Vec<f64>,
    /// ∂L/∂y behind scale and shift, and ∂L/∂z.
    y_gradient: Vec<f64>,
    z_gradient: Vec<f64>,
}

/// How a layer changes along a direction.
struct LayerTangent {
    x: Vec<f64>,
    /// Of `inv`, relative to it.
    inv_std: Vec<f64>,
    output: Vec<f64>,
}

impl<'a, S: Simd16> Hessian<'a, S> {
    /// Of a batch of images, at parameters in the order of [`Net::params`].
    pub(crate) fn new(
        s: S,
        net: &'a Net,
        loss: Loss,
        parameters: &[Vec<f32>],
        batch: &ImageBatch<'_>,
    ) -> Self {
        let weights: Vec<f64> = parameters.iter().flatten().map(|x| f64::from(*x)).collect();
        let mut images = vec![0.0; batch.len() * net.input.len()];
        batch.write_images(
            0,
            batch.len(),
            &HaloGrid::single_pixel(net.input.len()),
            &mut images,
        );

        let mut places = Vec::new();
        let mut trained = Vec::new();
        let mut from = 0;

        for param in net.params() {
            let place = from..from + param.len;
            from = place.end;

            if param.trained {
                trained.push(place.clone());
            }

            places.push((param.layer, param.role, place));
        }

        let layer_at = |(at, layer): (usize, &'a Layer)| {
            let place = |role| {
                places
                    .iter()
                    .find(|(l, r, _)| (*l, *r) == (at, role))
                    .map(|(.., place)| place.clone())
            };
            let weight = place(ParamRole::Weight).expect("every layer has a weight");

            let map = ExactLinearOp::from_layer(layer);
            let transposed = layer
                .source
                .map(|_| map.transpose_weight(&weights[weight.clone()]))
                .unwrap_or_default();
            let bias = place(ParamRole::Bias);

            let scale = place(ParamRole::NormScale);
            let shift = place(ParamRole::NormShift);
            HessianLayer {
                layer,
                linear_op: map,
                weight,
                bias,
                scale,
                shift,
                adder: net.adding_layer(at),
                transposed,
            }
        };
        let layers = net.layers.iter().enumerate().map(layer_at).collect();
        let mut this = Self {
            s,
            loss,
            classes: net.classes,
            layers,
            weights,
            trained,
            images: images.into_iter().map(f64::from).collect(),
            labels: batch.labels().collect(),
            micro_batch: net.micro_batch_size(batch.len() as u64) as usize,
            cached_pass: Vec::new(),
        };
        if this.micro_batch == this.labels.len() {
            this.cached_pass = this.forward_backward(0..this.labels.len());
        }

        this
    }

    /// Numbers in a direction, and the places of those that are not held fast.
    pub(crate) fn direction_layout(&self) -> (usize, Vec<Range<usize>>) {
        (self.weights.len(), self.trained.clone())
    }

    /// The product with a direction, which is 0 where parameters are held fast.
    pub(crate) fn product_with(&self, direction: &[f64]) -> Vec<f64> {
        let mut product = vec![0.0; direction.len()];
        for first in (0..self.labels.len()).step_by(self.micro_batch) {
            let images = first..(first + self.micro_batch).min(self.labels.len());
            let again = if self.cached_pass.is_empty() {
                self.forward_backward(images.clone())
            } else {
                Vec::new()
            };
            let passed = if self.cached_pass.is_empty() {
                &again
            } else {
                &self.cached_pass
            };
            let tangents = self.forward_tangents(passed, images.clone(), direction);

            self.add_backward_tangents(passed, &tangents, images, direction, &mut product);
        }

        product
    }

    fn input_images(&self, images: &Range<usize>) -> &[f64] {
        let len = self.images.len() / self.labels.len();
        &self.images[images.start * len..images.end * len]
    }

    /// Both passes at the weights.
    fn forward_backward(&self, images: Range<usize>) -> Vec<LayerPassRecord> {
        let mut passed: Vec<LayerPassRecord> = Vec::with_capacity(self.layers.len());
        let mut sums = vec![Vec::new(); self.layers.len()];

        for (at, layer) in self.layers.iter().enumerate() {
            let z = {
                let inputs = layer
                    .layer
                    .source
                    .map_or(self.input_images(&images), |source| &passed[source].output);
                let mut z = layer.initial_z(&mut sums, images.len(), &self.weights);
                layer.linear_op.add_outputs(
                    self.s,
                    inputs,
                    &self.weights[layer.weight.clone()],
                    &mut z,
                );

                z
            };

            if layer.adder.is_some() {
                sums[at].clone_from(&z);
            }

            passed.push(layer.record_activations(z, images.len(), &self.weights));
        }

        self.backward(&mut passed, images);
        passed
    }

    fn backward(&self, passed: &mut [LayerPassRecord], images: Range<usize>) {
        let mut given = vec![Vec::new(); self.layers.len()];
        if let (Some(last), Some(passed)) = (given.last_mut(), passed.last()) {
            *last = self.logit_gradients(&passed.output, &self.labels[images.clone()]);
        }

        for (at, layer) in self.layers.iter().enumerate().rev() {
            let slope = layer.unpool_gradient(
                &passed[at],
                take(&mut given[at]),
                images.len(),
                &self.weights,
            );
            let mut gradient = layer.norm_backward(&passed[at], &slope, &self.weights);

            if let Some(adder) = layer.adder {
                add_elementwise(&mut gradient, &passed[adder].z_gradient);
            }

            if let Some(source) = layer.layer.source {
                let to = fill_zeros_if_empty(&mut given[source], passed[source].output.len());
                layer
                    .linear_op
                    .add_input_gradient(self.s, &gradient, &layer.transposed, to);
            }

            (passed[at].y_gradient, passed[at].z_gradient) = (slope, gradient);
        }
    }

    /// The forward pass along a direction.
    fn forward_tangents(
        &self,
        passed: &[LayerPassRecord],
        images: Range<usize>,
        direction: &[f64],
    ) -> Vec<LayerTangent> {
        let mut tangents: Vec<LayerTangent> = Vec::with_capacity(self.layers.len());
        let mut sums = vec![Vec::new(); self.layers.len()];

        for (at, layer) in self.layers.iter().enumerate() {
            let mut z = layer.initial_z(&mut sums, images.len(), direction);
            let source = layer.layer.source;
            let inputs = source.map_or(self.input_images(&images), |source| &passed[source].output);

            if layer.layer.trained {
                layer.linear_op.add_outputs(
                    self.s,
                    inputs,
                    &direction[layer.weight.clone()],
                    &mut z,
                );
            }

            if let Some(source) = source {
                let weight = &self.weights[layer.weight.clone()];
                layer
                    .linear_op
                    .add_outputs(self.s, &tangents[source].output, weight, &mut z);
            }

            if layer.adder.is_some() {
                sums[at].clone_from(&z);
            }

            tangents.push(layer.forward_tangent(
                &passed[at],
                z,
                images.len(),
                (&self.weights, direction),
            ));
        }

        tangents
    }

    /// The backward pass along a direction; adds the tangents of all gradients.
    fn add_backward_tangents(
        &self,
        passed: &[LayerPassRecord],
        tangents: &[LayerTangent],
        images: Range<usize>,
        direction: &[f64],
        product: &mut [f64],
    ) {
        let mut given = vec![Vec::new(); self.layers.len()];
        let mut gradients = vec![Vec::new(); self.layers.len()];

        if let (Some(last), Some(passed), Some(tangent)) =
            (given.last_mut(), passed.last(), tangents.last())
        {
            *last = self.logit_gradient_tangents(&passed.output, &tangent.output);
        }

        for (at, layer) in self.layers.iter().enumerate().rev() {
            let here = &passed[at];
            let tangent = &tangents[at];
            let slope =
                layer.unpool_gradient(here, take(&mut given[at]), images.len(), &self.weights);
            layer.add_affine_tangents(here, tangent, &slope, product);
            let mut gradient =
                layer.norm_backward_tangent(here, tangent, &slope, (&self.weights, direction));

            if let Some(adder) = layer.adder {
                add_elementwise(&mut gradient, &take(&mut gradients[adder]));
            }

            self.add_weight_tangents(
                layer,
                (passed, tangents),
                &images,
                (&here.z_gradient, &gradient),
                product,
            );

            if let Some(source) = layer.layer.source {
                let to = fill_zeros_if_empty(&mut given[source], passed[source].output.len());
                layer
                    .linear_op
                    .add_input_gradient(self.s, &gradient, &layer.transposed, to);

                if layer.layer.trained {
                    let turned = layer
                        .linear_op
                        .transpose_weight(&direction[layer.weight.clone()]);
                    layer
                        .linear_op
                        .add_input_gradient(self.s, &here.z_gradient, &turned, to);
                }
            }

            if layer.layer.add.is_some() {
                gradients[at] = gradient;
            }
        }
    }

    /// Adds the tangents of the gradients of a layer's weight and bias.
    fn add_weight_tangents(
        &self,
        layer: &HessianLayer<'_>,
        (passed, tangents): (&[LayerPassRecord], &[LayerTangent]),
        images: &Range<usize>,
        (gradient, changed): (&[f64], &[f64]),
        product: &mut [f64],
    ) {
        if let Some(bias) = &layer.bias
            && layer.layer.trained
        {
            let sums = &mut product[bias.clone()];
            changed
                .chunks_exact(sums.len())
                .for_each(|pixel| add_elementwise(sums, pixel));
        }

        if !layer.layer.trained {
            return;
        }

        let source = layer.layer.source;
        let to = &mut product[layer.weight.clone()];
        let inputs = source.map_or(self.input_images(images), |source| &passed[source].output);
        layer
            .linear_op
            .add_weight_gradient(self.s, inputs, changed, to);

        if let Some(source) = source {
            layer
                .linear_op
                .add_weight_gradient(self.s, &tangents[source].output, gradient, to);
        }
    }

    /// ∂L/∂logits.
    fn logit_gradients(&self, logits: &[f64], labels: &[u8]) -> Vec<f64> {
        let share = 1.0 / self.labels.len() as f64;
        let classes = self.classes as f64;
        let mut slopes = Vec::with_capacity(logits.len());

        for (logits, label) in logits.chunks_exact(self.classes).zip(labels) {
            let of_class = |c: usize| f64::from(u8::from(c == usize::from(*label)));
            match self.loss {
                Loss::CrossEntropy { smoothing } => {
                    let target = |c| (1.0 - smoothing) * of_class(c) + smoothing / classes;
                    slopes.extend(
                        softmax(logits)
                            .iter()
                            .enumerate()
                            .map(|(c, p)| share * (p - target(c))),
                    );
                }
                Loss::Mse => {
                    slopes.extend(
                        logits
                            .iter()
                            .enumerate()
                            .map(|(c, x)| share * 2.0 / classes * (x - of_class(c))),
                    );
                }
            }
        }

        slopes
    }

    fn logit_gradient_tangents(&self, logits: &[f64], tangents: &[f64]) -> Vec<f64> {
        let share = 1.0 / self.labels.len() as f64;
        let classes = self.classes as f64;

        if self.loss == Loss::Mse {
            return tangents.iter().map(|x| share * 2.0 / classes * x).collect();
        }

        let mut slopes = Vec::with_capacity(logits.len());
        for (logits, tangents) in logits
            .chunks_exact(self.classes)
            .zip(tangents.chunks_exact(self.classes))
        {
            let p = softmax(logits);
            let mean: f64 = p.iter().zip(tangents).map(|(p, x)| p * x).sum();
            slopes.extend(p.iter().zip(tangents).map(|(p, x)| share * p * (x - mean)));
        }

        slopes
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut all: Vec<f64> = logits.iter().map(|x| libm::exp(x - largest)).collect();
    let sum: f64 = all.iter().sum();
    all.iter_mut().for_each(|x| *x /= sum);
    all
}

fn add_elementwise(to: &mut [f64], more: &[f64]) {
    to.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
}

/// So many zeros, unless there is something already.
fn fill_zeros_if_empty(place: &mut Vec<f64>, len: usize) -> &mut [f64] {
    if place.is_empty() {
        place.resize(len, 0.0);
    }
    place
}

/// The sets of numbers that a norm makes alike: one per channel, or one per image and group of channels.
struct NormSets {
    /// From one image's sets to the next one's.
    per_image: usize,
    /// The set of each channel, within an image's.
    of_channel: Vec<usize>,
    count: usize,
    /// Numbers in a set.
    size: f64,
}

impl NormSets {
    /// Calls `each` with every number's index and set.
    fn for_each_number(&self, image_len: usize, len: usize, mut each: impl FnMut(usize, usize)) {
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
    fn compute_means(&self, image_len: usize, len: usize, f: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut means = vec![0.0; self.count];
        self.for_each_number(image_len, len, |i, set| means[set] += f(i));
        means.iter_mut().for_each(|sum| *sum /= self.size);
        means
    }
}

impl HessianLayer<'_> {
    /// Numbers of an image before pooling.
    fn image_len(&self) -> usize {
        self.linear_op.output_len()
    }

    fn channel_count(&self) -> usize {
        self.layer.output.channels
    }

    fn norm_sets(&self, images: usize) -> Option<(NormSets, f64)> {
        let norm = self.layer.norm?;
        let channels = self.channel_count();
        let pixels = self.image_len() / self.channel_count();
        let sets = match norm.scope {
            NormScope::Batch => {
                let of_channel = (0..channels).collect();
                NormSets {
                    per_image: 0,
                    of_channel,
                    count: channels,
                    size: (images * pixels) as f64,
                }
            }
            NormScope::Groups(groups) => {
                let within = channels / groups;
                let of_channel = (0..channels).map(|c| c / within).collect();
                NormSets {
                    per_image: groups,
                    of_channel,
                    count: images * groups,
                    size: (pixels * within) as f64,
                }
            }
        };

        Some((sets, norm.eps))
    }

    /// z, or its tangent, before the map is added: what another layer has left in `sums`, and the bias.
    fn initial_z(&self, sums: &mut [Vec<f64>], images: usize, parameters: &[f64]) -> Vec<f64> {
        let mut z = match self.layer.add {
            Some(added) => take(&mut sums[added]),
            None => vec![0.0; images * self.image_len()],
        };

        if let Some(bias) = &self.bias {
            let bias = &parameters[bias.clone()];
            z.chunks_exact_mut(bias.len())
                .for_each(|pixel| add_elementwise(pixel, bias));
        }

        z
    }

    /// What stands at a place, if there is one.
    fn params_at<'b>(
        &self,
        place: Option<&Range<usize>>,
        parameters: &'b [f64],
    ) -> Option<&'b [f64]> {
        place.map(|place| &parameters[place.clone()])
    }

    /// Behind scale and shift.
    fn scale_and_shift(&self, x: &[f64], weights: &[f64]) -> Vec<f64> {
        let (Some(scale), Some(shift)) = (
            self.params_at(self.scale.as_ref(), weights),
            self.params_at(self.shift.as_ref(), weights),
        ) else {
            return x.to_vec();
        };

        let channels = self.channel_count();
        x.iter()
            .enumerate()
            .map(|(i, x)| x * scale[i % channels] + shift[i % channels])
            .collect()
    }

    /// From z to what its readers see.
    fn record_activations(&self, z: Vec<f64>, images: usize, weights: &[f64]) -> LayerPassRecord {
        let mut x = z;
        let mut inv = Vec::new();

        if let Some((sets, eps)) = self.norm_sets(images) {
            let image = self.image_len();
            let len = x.len();
            let means = sets.compute_means(image, len, |i| x[i]);
            sets.for_each_number(image, len, |i, set| x[i] -= means[set]);
            inv = sets.compute_means(image, len, |i| x[i] * x[i]);
            inv.iter_mut().for_each(|v| {
                *v = if *v + eps == 0.0 {
                    0.0
                } else {
                    1.0 / (*v + eps).sqrt()
                }
            });

            sets.for_each_number(image, len, |i, set| x[i] *= inv[set]);
        }

        let mut y = self.scale_and_shift(&x, weights);
        if self.layer.relu {
            y.iter_mut()
                .for_each(|y| *y = if *y > 0.0 { *y } else { 0.0 });
        }

        let largest = if self.layer.pool == Pool::Max2 {
            self.choose_max_pixels(&y)
        } else {
            Vec::new()
        };
        let output = self.pool_activations(y, &largest);
        LayerPassRecord {
            x,
            inv_std: inv,
            max_choices: largest,
            output,
            y_gradient: Vec::new(),
            z_gradient: Vec::new(),
        }
    }

    /// Which of four pixels is the first of the largest, for every number behind a max-pool.
    fn choose_max_pixels(&self, y: &[f64]) -> Vec<u8> {
        let mut chosen = Vec::new();
        self.for_each_pooled(y.len(), |_, members| {
            let best = (1..4).fold(0, |best, i| {
                if y[members[i]] > y[members[best]] {
                    i
                } else {
                    best
                }
            });
            chosen.push(best as u8);
        });

        chosen
    }

    /// Calls `each` with the index of every number behind a max-pool and those of the four that it is chosen from.
    fn for_each_pooled(&self, len: usize, mut each: impl FnMut(usize, [usize; 4])) {
        let width = self.layer.output.width;
        let channels = self.channel_count();
        let pooled = self.layer.activation_shape();
        let mut at = 0;

        for image in (0..len).step_by(self.image_len()) {
            for y in 0..pooled.height {
                for x in 0..pooled.width {
                    for c in 0..channels {
                        let corner = image + (2 * y * width + 2 * x) * channels + c;
                        let below = corner + width * channels;
                        each(at, [corner, corner + channels, below, below + channels]);
                        at += 1;
                    }
                }
            }
        }
    }

    /// Activations, or their tangents, as readers see them.
    fn pool_activations(&self, y: Vec<f64>, largest: &[u8]) -> Vec<f64> {
        let channels = self.channel_count();
        let pixels = self.image_len() / self.channel_count();

        match self.layer.pool {
            Pool::None => y,
            Pool::Average => {
                let mut means = vec![0.0; y.len() / pixels];
                for (image, means) in y
                    .chunks_exact(self.image_len())
                    .zip(means.chunks_exact_mut(channels))
                {
                    image
                        .chunks_exact(channels)
                        .for_each(|pixel| add_elementwise(means, pixel));
                    means.iter_mut().for_each(|sum| *sum /= pixels as f64);
                }

                means
            }
            Pool::Max2 => {
                let mut pooled = vec![0.0; largest.len()];
                self.for_each_pooled(y.len(), |at, members| {
                    pooled[at] = y[members[usize::from(largest[at])]]
                });
                pooled
            }
        }
    }

    /// From the gradient of what readers see, or its tangent, to that behind scale and shift; nothing if nobody reads it.
    fn unpool_gradient(
        &self,
        passed: &LayerPassRecord,
        given: Vec<f64>,
        images: usize,
        weights: &[f64],
    ) -> Vec<f64> {
        let channels = self.channel_count();
        let pixels = self.image_len() / self.channel_count();
        let mut slope = vec![0.0; images * self.image_len()];

        if given.is_empty() {
            return slope;
        }

        match self.layer.pool {
            Pool::None => slope = given,
            Pool::Average => {
                let share = |x: &f64| x / pixels as f64;
                for (image, given) in slope
                    .chunks_exact_mut(self.image_len())
                    .zip(given.chunks_exact(channels))
                {
                    for pixel in image.chunks_exact_mut(channels) {
                        pixel
                            .iter_mut()
                            .zip(given)
                            .for_each(|(to, x)| *to = share(x));
                    }
                }
            }
            Pool::Max2 => {
                let len = slope.len();
                self.for_each_pooled(len, |at, members| {
                    slope[members[usize::from(passed.max_choices[at])]] = given[at]
                });
            }
        }

        if self.layer.relu {
            let y = self.scale_and_shift(&passed.x, weights);
            slope
                .iter_mut()
                .zip(y)
                .for_each(|(g, y)| *g = if y > 0.0 { *g } else { 0.0 });
        }

        slope
    }

    /// Times a norm's scale, if it has one.
    fn multiply_by_scale(&self, slope: &[f64], weights: &[f64]) -> Vec<f64> {
        let Some(scale) = self.params_at(self.scale.as_ref(), weights) else {
            return slope.to_vec();
        };
        slope
            .iter()
            .enumerate()
            .map(|(i, g)| g * scale[i % scale.len()])
            .collect()
    }

    /// ∂L/∂z = inv·(u − mean(u) − x·mean(u·x)) with u = ∂L/∂x.
    fn norm_backward(&self, passed: &LayerPassRecord, slope: &[f64], weights: &[f64]) -> Vec<f64> {
        let mut u = self.multiply_by_scale(slope, weights);
        let Some((sets, _)) = self.norm_sets(u.len() / self.image_len()) else {
            return u;
        };
        let image = self.image_len();
        let len = u.len();

        let x = &passed.x;
        let mean = sets.compute_means(image, len, |i| u[i]);
        let mean_x = sets.compute_means(image, len, |i| u[i] * x[i]);
        sets.for_each_number(image, len, |i, set| {
            u[i] = passed.inv_std[set] * (u[i] - mean[set] - x[i] * mean_x[set])
        });

        u
    }

    /// From the tangent of z to those of what follows.
    fn forward_tangent(
        &self,
        passed: &LayerPassRecord,
        z: Vec<f64>,
        images: usize,
        (weights, direction): (&[f64], &[f64]),
    ) -> LayerTangent {
        let mut x = z;
        let mut inv = Vec::new();

        if let Some((sets, _)) = self.norm_sets(images) {
            let image = self.image_len();
            let len = x.len();
            let mean = sets.compute_means(image, len, |i| x[i]);
            let mean_x = sets.compute_means(image, len, |i| x[i] * passed.x[i]);
            sets.for_each_number(image, len, |i, set| {
                x[i] = passed.inv_std[set] * (x[i] - mean[set] - passed.x[i] * mean_x[set])
            });

            inv = passed
                .inv_std
                .iter()
                .zip(mean_x)
                .map(|(inv, mean_x)| -inv * mean_x)
                .collect();
        }

        let mut y = self.multiply_by_scale(&x, weights);
        if let (Some(scale), Some(shift)) = (
            self.params_at(self.scale.as_ref(), direction),
            self.params_at(self.shift.as_ref(), direction),
        ) {
            let c = |i: usize| i % scale.len();
            y.iter_mut()
                .enumerate()
                .for_each(|(i, y)| *y += passed.x[i] * scale[c(i)] + shift[c(i)]);
        }

        if self.layer.relu {
            let at_weights = self.scale_and_shift(&passed.x, weights);
            y.iter_mut()
                .zip(at_weights)
                .for_each(|(y, there)| *y = if there > 0.0 { *y } else { 0.0 });
        }

        LayerTangent {
            x,
            inv_std: inv,
            output: self.pool_activations(y, &passed.max_choices),
        }
    }

    /// Adds the tangents of the gradients of a norm's scale and shift.
    fn add_affine_tangents(
        &self,
        passed: &LayerPassRecord,
        tangent: &LayerTangent,
        changed: &[f64],
        product: &mut [f64],
    ) {
        let (Some(scale), Some(shift)) = (&self.scale, &self.shift) else {
            return;
        };
        let channels = self.channel_count();

        for (i, g) in changed.iter().enumerate() {
            product[scale.start + i % channels] +=
                g * passed.x[i] + passed.y_gradient[i] * tangent.x[i];
            product[shift.start + i % channels] += g;
        }
    }

    /// The tangent of ∂L/∂z, from that of ∂L/∂y.
    fn norm_backward_tangent(
        &self,
        passed: &LayerPassRecord,
        tangent: &LayerTangent,
        changed: &[f64],
        (weights, direction): (&[f64], &[f64]),
    ) -> Vec<f64> {
        let mut du = self.multiply_by_scale(changed, weights);
        if let Some(scale) = self.params_at(self.scale.as_ref(), direction) {
            du.iter_mut()
                .enumerate()
                .for_each(|(i, du)| *du += passed.y_gradient[i] * scale[i % scale.len()]);
        }

        let Some((sets, _)) = self.norm_sets(du.len() / self.image_len()) else {
            return du;
        };
        let (image, len, x, dx) = (self.image_len(), du.len(), &passed.x, &tangent.x);
        let u = self.multiply_by_scale(&passed.y_gradient, weights);
        let mean = sets.compute_means(image, len, |i| u[i]);

        let mean_x = sets.compute_means(image, len, |i| u[i] * x[i]);
        let d_mean = sets.compute_means(image, len, |i| du[i]);
        let d_mean_x = sets.compute_means(image, len, |i| du[i] * x[i] + u[i] * dx[i]);
        sets.for_each_number(image, len, |i, set| {
            let before = u[i] - mean[set] - x[i] * mean_x[set];
            let after = du[i] - d_mean[set] - dx[i] * mean_x[set] - x[i] * d_mean_x[set];
            du[i] = passed.inv_std[set] * (tangent.inv_std[set] * before + after);
        });

        du
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::config::{ModelKind, Norm};
    use ergodic_common::random_streams::Purpose;

    use crate::train::measure::hessian::*;
    use crate::train::tests::cases;
    use crate::train::{Isa, SimdProgram};

    /// More than two pieces, the last of them smaller.
    const IMAGES: usize = 300;

    /// How far a product in pieces is from one that takes the batch as a whole, relative to its largest number.
    struct MicroBatchedProduct<'a> {
        net: &'a Net,
        apart: &'a mut f64,
    }

    impl SimdProgram for MicroBatchedProduct<'_> {
        fn run_with<S: Simd16>(self, s: S) {
            let net = self.net;
            let loss = Loss::CrossEntropy { smoothing: 0.1 };
            let mut stream = cases::streams(0).open_stream(Purpose::Measure, b"pieces");
            let images: Vec<f32> = (0..IMAGES * net.input.len())
                .map(|_| stream.next_normal() as f32)
                .collect();
            let labels: Vec<u8> = (0..IMAGES).map(|i| (i % net.classes) as u8).collect();
            let all: Vec<u32> = (0..IMAGES as u32).collect();
            let batch = ImageBatch::from_floats(&images, &labels, &all);

            let mut near = |len: usize, centre: f64, reach: f64| -> Vec<f64> {
                (0..len)
                    .map(|_| centre + reach * stream.next_normal())
                    .collect()
            };

            let mut parameters = Vec::new();
            for param in net.params() {
                let centre = if param.role == ParamRole::NormScale {
                    1.0
                } else {
                    0.0
                };
                let numbers = near(param.len, centre, 0.1);
                parameters.push(numbers.into_iter().map(|x| x as f32).collect::<Vec<f32>>());
            }

            let pieces = Hessian::new(s, net, loss, &parameters, &batch);
            assert!(
                pieces.micro_batch < IMAGES / 2 && pieces.cached_pass.is_empty(),
                "the batch is not cut"
            );
            let mut whole = Hessian::new(s, net, loss, &parameters, &batch);
            whole.micro_batch = IMAGES;

            whole.cached_pass = whole.forward_backward(0..IMAGES);

            let direction = near(whole.direction_layout().0, 0.0, 1.0);
            let found = pieces.product_with(&direction);
            let expected = whole.product_with(&direction);
            let largest = expected
                .iter()
                .fold(0.0, |largest: f64, x| largest.max(x.abs()));
            assert!(largest > 0.0, "there is no product");

            let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            *self.apart = apart.fold(0.0, f64::max) / largest;
        }
    }

    #[test]
    fn a_product_over_a_batch_in_pieces_is_that_over_the_whole() {
        for (kind, norm) in [
            (
                ModelKind::Mlp {
                    hidden: vec![24, 17],
                },
                Norm::None,
            ),
            (ModelKind::Cnn4 { width: 4 }, Norm::Group { groups: 2 }),
            (ModelKind::Preresnet { depth: 8, widen: 1 }, Norm::Layer),
        ] {
            let mut config = cases::small_trial(kind.clone(), norm);
            config.model.affine = norm != Norm::None;
            let net = Net::from_config(&config).expect("not the toy");
            let mut apart = f64::NAN;
            Isa::detect_fastest().run_program(MicroBatchedProduct {
                net: &net,
                apart: &mut apart,
            });

            assert!(apart < 1e-12, "{kind:?}: {apart:e}");
        }
    }
}
