//! Exact products with the Hessian of a batch's loss, in f64.
//!
//! The derivative of the gradient along a direction: the forward and the backward pass,
//! differentiated once more (Pearlmutter 1994). ReLUs and max-pools choose as they do at the
//! weights, and have no second derivative; smooth activation functions have one. A *tangent* is the change of a number per unit of the
//! direction.

mod layer;
mod norm_sets;
mod params;
mod pool;

use std::mem::take;
use std::ops::Range;

use ergodic_common::config::Loss;
use ergodic_common::net::Net;

use self::layer::{HessianLayer, LayerPassRecord, LayerTangent, add_elementwise};
use self::params::locate_params;
use crate::train::data::ImageBatch;
use crate::train::engine::loss::Objective;
use crate::train::engine::simd::Simd16;
use crate::train::network::shape::HaloGrid;

/// The Hessian of the training objective on a batch, over all parameters; those that are not trained are held fixed.
pub(crate) struct Hessian<'a, S> {
    s: S,
    objective: Objective,
    layers: Vec<HessianLayer<'a>>,
    /// All parameters, concatenated in logical order.
    weights: Vec<f64>,
    /// Ranges of the trained parameters.
    trained: Vec<Range<usize>>,
    images: Vec<f64>,
    /// The numbers that outputs are compared with, image after image.
    targets: Vec<f64>,
    /// Number of images of the batch.
    image_count: usize,
    /// Number of images in a pass.
    micro_batch: usize,
    /// The passes at the weights, if a single one covers the whole batch.
    cached_pass: Vec<LayerPassRecord>,
}

impl<'a, S: Simd16> Hessian<'a, S> {
    /// The Hessian on a batch of images, at parameters in the order of [`Net::params`].
    pub(crate) fn new(
        s: S,
        net: &'a Net,
        loss: Loss,
        parameters: &[Vec<f32>],
        batch: &ImageBatch<'_>,
    ) -> Self {
        let weights: Vec<f64> = parameters.iter().flatten().map(|x| f64::from(*x)).collect();
        let params = locate_params(net);
        let trained = params.iter().filter(|param| param.trained);
        let layers = (0..net.layers.len()).map(|at| HessianLayer::new(net, at, &params, &weights));

        let outputs = net.classes;
        let objective = Objective { outputs, loss };
        let mut this = Self {
            s,
            objective,
            layers: layers.collect(),
            trained: trained.map(|param| param.range.clone()).collect(),
            weights,
            images: batch_images(batch, net.input.len()),
            targets: batch
                .targets()
                .flat_map(|target| objective.target_numbers(target))
                .collect(),
            image_count: batch.len(),
            micro_batch: net.micro_batch_size(batch.len() as u64) as usize,
            cached_pass: Vec::new(),
        };
        if this.micro_batch == this.image_count {
            this.cached_pass = this.forward_backward(0..this.image_count);
        }

        this
    }

    /// Numbers in a direction, and the ranges of those that are not held fixed.
    pub(crate) fn direction_layout(&self) -> (usize, Vec<Range<usize>>) {
        (self.weights.len(), self.trained.clone())
    }

    /// The product with a direction, which is 0 where parameters are held fixed.
    pub(crate) fn product_with(&self, direction: &[f64]) -> Vec<f64> {
        let mut product = vec![0.0; direction.len()];
        for first in (0..self.image_count).step_by(self.micro_batch) {
            let images = first..(first + self.micro_batch).min(self.image_count);
            let own;
            let records = if self.cached_pass.is_empty() {
                own = self.forward_backward(images.clone());
                &own
            } else {
                &self.cached_pass
            };
            let tangents = self.forward_tangents(records, images.clone(), direction);

            self.add_backward_tangents(records, &tangents, images, direction, &mut product);
        }

        product
    }

    /// Numbers of some images of the batch.
    fn input_images(&self, images: &Range<usize>) -> &[f64] {
        let len = self.images.len() / self.image_count;
        &self.images[images.start * len..images.end * len]
    }

    /// The forward and the backward pass at the weights.
    fn forward_backward(&self, images: Range<usize>) -> Vec<LayerPassRecord> {
        let mut records: Vec<LayerPassRecord> = Vec::with_capacity(self.layers.len());
        let mut sums = vec![Vec::new(); self.layers.len()];

        for (at, layer) in self.layers.iter().enumerate() {
            let weight = &self.weights[layer.weight.clone()];
            let source = layer.layer.source;
            let inputs =
                source.map_or(self.input_images(&images), |source| &records[source].output);
            let mut z = layer.initial_z(&mut sums, images.len(), &self.weights);
            layer.linear_op.add_outputs(self.s, inputs, weight, &mut z);

            if layer.adder.is_some() {
                sums[at].clone_from(&z);
            }

            records.push(layer.record_activations(z, images.len(), &self.weights));
        }

        self.backward(&mut records, images);
        records
    }

    /// The backward pass: fills the gradients of `records`.
    fn backward(&self, records: &mut [LayerPassRecord], images: Range<usize>) {
        let mut output_gradients = vec![Vec::new(); self.layers.len()];
        if let (Some(last), Some(record)) = (output_gradients.last_mut(), records.last()) {
            *last = self.logit_gradients(&record.output, &images);
        }

        for (at, layer) in self.layers.iter().enumerate().rev() {
            let output_gradient = take(&mut output_gradients[at]);
            let mut y_gradient = layer.unpool_gradient(&records[at], output_gradient, images.len());
            if layer.is_curved() {
                records[at].activation_gradient.clone_from(&y_gradient);
            }
            layer.multiply_by_slopes(&mut y_gradient, &records[at], &self.weights);
            let mut gradient = layer.norm_backward(&records[at], &y_gradient, &self.weights);

            if let Some(adder) = layer.adder {
                add_elementwise(&mut gradient, &records[adder].z_gradient);
            }

            if let Some(source) = layer.layer.source {
                let to = fill_zeros_if_empty(
                    &mut output_gradients[source],
                    records[source].output.len(),
                );
                layer
                    .linear_op
                    .add_input_gradient(self.s, &gradient, &layer.transposed, to);
            }

            records[at].y_gradient = y_gradient;
            records[at].z_gradient = gradient;
        }
    }

    /// The forward pass along a direction.
    fn forward_tangents(
        &self,
        records: &[LayerPassRecord],
        images: Range<usize>,
        direction: &[f64],
    ) -> Vec<LayerTangent> {
        let mut tangents: Vec<LayerTangent> = Vec::with_capacity(self.layers.len());
        let mut sums = vec![Vec::new(); self.layers.len()];

        for (at, layer) in self.layers.iter().enumerate() {
            let mut z = layer.initial_z(&mut sums, images.len(), direction);
            let source = layer.layer.source;
            let inputs =
                source.map_or(self.input_images(&images), |source| &records[source].output);

            if layer.has_trained_weight() {
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
                &records[at],
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
        records: &[LayerPassRecord],
        tangents: &[LayerTangent],
        images: Range<usize>,
        direction: &[f64],
        product: &mut [f64],
    ) {
        let mut output_gradients = vec![Vec::new(); self.layers.len()];
        let mut gradients = vec![Vec::new(); self.layers.len()];

        if let (Some(last), Some(record), Some(tangent)) =
            (output_gradients.last_mut(), records.last(), tangents.last())
        {
            *last = self.logit_gradient_tangents(&record.output, &tangent.output);
        }

        for (at, layer) in self.layers.iter().enumerate().rev() {
            let here = &records[at];
            let tangent = &tangents[at];
            let at_point = (&self.weights[..], direction);
            let output_gradient = take(&mut output_gradients[at]);
            let mut y_tangent = layer.unpool_gradient(here, output_gradient, images.len());
            layer.multiply_by_slopes(&mut y_tangent, here, &self.weights);
            layer.add_slope_tangents(here, tangent, &self.weights, &mut y_tangent);
            layer.add_affine_tangents(here, tangent, &y_tangent, product);
            let mut gradient = layer.norm_backward_tangent(here, tangent, &y_tangent, at_point);

            if let Some(adder) = layer.adder {
                add_elementwise(&mut gradient, &take(&mut gradients[adder]));
            }

            self.add_weight_tangents(
                layer,
                (records, tangents),
                &images,
                (&here.z_gradient, &gradient),
                product,
            );

            if let Some(source) = layer.layer.source {
                let to = fill_zeros_if_empty(
                    &mut output_gradients[source],
                    records[source].output.len(),
                );
                self.add_input_tangents(layer, &here.z_gradient, &gradient, direction, to);
            }

            if layer.layer.add.is_some() {
                gradients[at] = gradient;
            }
        }
    }

    /// Adds the tangent of the gradient of a layer's input, from ∂L/∂z and its tangent.
    fn add_input_tangents(
        &self,
        layer: &HessianLayer<'_>,
        z_gradient: &[f64],
        z_gradient_tangent: &[f64],
        direction: &[f64],
        to: &mut [f64],
    ) {
        let op = &layer.linear_op;
        op.add_input_gradient(self.s, z_gradient_tangent, &layer.transposed, to);

        if layer.has_trained_weight() {
            let transposed = op.transpose_weight(&direction[layer.weight.clone()]);
            op.add_input_gradient(self.s, z_gradient, &transposed, to);
        }
    }

    /// Adds the tangents of the gradients of a layer's weight and bias.
    fn add_weight_tangents(
        &self,
        layer: &HessianLayer<'_>,
        (records, tangents): (&[LayerPassRecord], &[LayerTangent]),
        images: &Range<usize>,
        (z_gradient, z_gradient_tangent): (&[f64], &[f64]),
        product: &mut [f64],
    ) {
        if !layer.layer.trained {
            return;
        }

        if let Some(bias) = &layer.bias {
            let sums = &mut product[bias.clone()];
            z_gradient_tangent
                .chunks_exact(sums.len())
                .for_each(|pixel| add_elementwise(sums, pixel));
        }

        let source = layer.layer.source;
        let to = &mut product[layer.weight.clone()];
        let inputs = source.map_or(self.input_images(images), |source| &records[source].output);
        layer
            .linear_op
            .add_weight_gradient(self.s, inputs, z_gradient_tangent, to);

        if let Some(source) = source {
            layer
                .linear_op
                .add_weight_gradient(self.s, &tangents[source].output, z_gradient, to);
        }
    }

    /// The gradient ∂L/∂logits.
    fn logit_gradients(&self, logits: &[f64], images: &Range<usize>) -> Vec<f64> {
        let share = 1.0 / self.image_count as f64;
        let Objective { outputs, loss } = self.objective;
        let targets = &self.targets[images.start * outputs..images.end * outputs];
        let mut gradients = Vec::with_capacity(logits.len());

        for (logits, targets) in logits
            .chunks_exact(outputs)
            .zip(targets.chunks_exact(outputs))
        {
            match loss {
                Loss::CrossEntropy { .. } => {
                    let pairs = softmax(logits).into_iter().zip(targets);
                    gradients.extend(pairs.map(|(p, target)| share * (p - target)));
                }
                Loss::Mse => {
                    let pairs = logits.iter().zip(targets);
                    let factor = share * 2.0 / outputs as f64;
                    gradients.extend(pairs.map(|(x, target)| factor * (x - target)));
                }
            }
        }

        gradients
    }

    /// The tangent of ∂L/∂logits.
    fn logit_gradient_tangents(&self, logits: &[f64], tangents: &[f64]) -> Vec<f64> {
        let share = 1.0 / self.image_count as f64;
        let Objective { outputs, loss } = self.objective;

        if loss == Loss::Mse {
            let factor = share * 2.0 / outputs as f64;
            return tangents.iter().map(|x| factor * x).collect();
        }

        let mut gradients = Vec::with_capacity(logits.len());
        for (logits, tangents) in logits
            .chunks_exact(outputs)
            .zip(tangents.chunks_exact(outputs))
        {
            let p = softmax(logits);
            let mean: f64 = p.iter().zip(tangents).map(|(p, x)| p * x).sum();
            gradients.extend(p.iter().zip(tangents).map(|(p, x)| share * p * (x - mean)));
        }

        gradients
    }
}

/// The numbers of a batch, `len` per image.
fn batch_images(batch: &ImageBatch<'_>, len: usize) -> Vec<f64> {
    let mut images = vec![0.0; batch.len() * len];
    let grid = HaloGrid::single_pixel(len);
    batch.write_images(0, batch.len(), &grid, &mut images);
    images.into_iter().map(f64::from).collect()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut all: Vec<f64> = logits.iter().map(|x| libm::exp(x - largest)).collect();
    let sum: f64 = all.iter().sum();
    all.iter_mut().for_each(|x| *x /= sum);
    all
}

/// The vector, or `len` zeros if it is empty.
fn fill_zeros_if_empty(x: &mut Vec<f64>, len: usize) -> &mut [f64] {
    if x.is_empty() {
        x.resize(len, 0.0);
    }
    x
}

#[cfg(test)]
mod tests {
    use ergodic_common::config::{ModelKind, Norm};
    use ergodic_common::net::ParamRole;
    use ergodic_common::random_streams::Purpose;

    use crate::train::candle::reference::{ReferenceBatch, forward_backward};
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

    /// The product of [`Hessian`] over ghost batches, and the change of Candle's gradient in f64 along the direction,
    /// relative to its size.
    struct GhostProduct<'a> {
        net: &'a Net,
        apart: &'a mut f64,
    }

    impl SimdProgram for GhostProduct<'_> {
        fn run_with<S: Simd16>(self, s: S) {
            let net = self.net;
            let loss = Loss::CrossEntropy { smoothing: 0.1 };
            let mut stream = cases::streams(0).open_stream(Purpose::Measure, b"ghosts");
            let mut normal = |len: usize, spread: f64| -> Vec<f32> {
                let drawn = (0..len).map(|_| spread * stream.next_normal());
                drawn.map(|x| x as f32).collect()
            };
            let images = normal(12 * net.input.len(), 1.0);
            let labels: Vec<u8> = (0..12).map(|i| (i % net.classes) as u8).collect();
            let indices: Vec<u32> = (0..12).collect();
            let mut parameters = Vec::new();
            for param in net.params() {
                let spread = match param.role {
                    ParamRole::Weight => (2.0 / param.fan_in as f64).sqrt(),
                    _ => 0.3,
                };
                let mut numbers = normal(param.len, spread);
                if param.role == ParamRole::NormScale {
                    numbers.iter_mut().for_each(|x| *x += 1.0);
                }
                parameters.push(numbers);
            }

            let batch = ImageBatch::from_floats(&images, &labels, &indices);
            let hessian = Hessian::new(s, net, loss, &parameters, &batch);
            let length = hessian.direction_layout().0;
            let direction: Vec<f64> = normal(length, 1.0).into_iter().map(f64::from).collect();
            let product = hessian.product_with(&direction);

            let batch = ReferenceBatch {
                images: images.iter().map(|x| f64::from(*x)).collect(),
                labels,
                targets: Vec::new(),
            };
            let gradient_at = |h: f64| {
                let mut along = direction.iter();
                let moved = parameters.iter().map(|numbers| {
                    let moved = numbers.iter().zip(along.by_ref());
                    moved.map(|(w, d)| f64::from(*w) + h * d).collect()
                });
                let moved: Vec<Vec<f64>> = moved.collect();
                let pass = forward_backward(net, &moved, &batch, loss);
                pass.expect("the reference runs").gradient.concat()
            };
            let pairs = gradient_at(1e-6).into_iter().zip(gradient_at(-1e-6));
            let expected: Vec<f64> = pairs.map(|(a, b)| (a - b) / 2e-6).collect();

            let apart = product.iter().zip(&expected);
            let apart: f64 = apart.map(|(a, b)| (a - b) * (a - b)).sum();
            let size: f64 = expected.iter().map(|x| x * x).sum();
            *self.apart = (apart / size).sqrt();
        }
    }

    #[test]
    fn a_product_over_ghost_batches_is_the_derivative_of_the_gradient() {
        for kind in [
            ModelKind::Mlp {
                hidden: vec![24, 17],
            },
            ModelKind::Cnn4 { width: 4 },
        ] {
            let mut config = cases::small_trial(kind.clone(), Norm::GhostBatch { size: 4 });
            config.model.affine = true;
            let net = Net::from_config(&config).expect("not the toy");
            let mut apart = f64::NAN;
            Isa::detect_fastest().run_program(GhostProduct {
                net: &net,
                apart: &mut apart,
            });

            assert!(apart < 1e-5, "{kind:?}: {apart:e}");
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
