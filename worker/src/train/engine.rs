//! Forward and backward pass of a [`Net`] over a batch, on flat packed parameters.
//!
//! Of a layer, only its map's output z is kept for the whole batch. Activations and ∂L/∂z are made chunk by chunk in
//! buffers that stay in the cache, just before the kernels that read them: forward once, backward once more. Nothing is
//! allocated per step.

use ergodic_common::net::{Net, NormSpec, Role};

use super::data::Source;
use super::loss::{CrossEntropy, Tally};
use super::norm::{Activate, AddMoments, AddSlopes, Backward, Channels, Moments, Slopes};
use super::params::Layout;
use super::plan::{self, Grid, LayerPlan};
use super::simd::{BLOCK, Buffer, Lanes, padded};
use super::taps::Taps;
use super::wgrad::WeightGradient;

/// A network with the memory to run it.
pub(super) struct Engine {
    /// Where parameters stand.
    pub(super) layout: Layout,
    layers: Vec<LayerState>,
    logits: Buffer,
    loss: CrossEntropy,
}

/// A layer's plan and buffers.
struct LayerState {
    plan: LayerPlan,
    norm: Option<NormSpec>,
    trained: bool,
    places: Places,
    /// Output of the map for the whole batch.
    z: Buffer,
    /// Gradient of the activations for the whole batch.
    gradient: Buffer,
    /// Inputs of a chunk, and the first image of the chunk if this pass has written it.
    input: Buffer,
    held: Option<usize>,
    /// ∂L/∂z of a chunk.
    z_gradient: Buffer,
    /// Weights of the transposed convolution.
    transposed: Buffer,
    channels: Channels,
    moments: Moments,
    slopes: Slopes,
}

/// Places of a layer's parameters.
struct Places {
    weight: std::ops::Range<usize>,
    scale: Option<std::ops::Range<usize>>,
    /// Of the bias, or of the norm's shift.
    shift: Option<std::ops::Range<usize>>,
}

impl LayerState {
    fn new(at: usize, net: &Net, plan: LayerPlan, layout: &Layout, batch: usize, capacity: usize) -> Self {
        let layer = &net.layers[at];
        let width = plan.channels;
        let place = |role| layout.range(at, role);
        let places = Places {
            weight: place(Role::Weight).expect("every layer has a weight"),
            scale: place(Role::NormScale),
            shift: place(Role::Bias).or(place(Role::NormShift)),
        };
        let zeros = Buffer::zeros;
        let transposed = plan.transposed.as_ref().map_or(0, |t| t.source.len());
        Self {
            norm: layer.norm,
            trained: layer.trained,
            places,
            z: zeros(capacity * plan.output_len()),
            gradient: zeros(batch * plan.output_len()),
            input: zeros(plan.chunk * plan.input.len()),
            held: None,
            z_gradient: zeros(plan.chunk * plan.gradient.len()),
            transposed: zeros(transposed),
            channels: Channels::identity(width, layer.relu),
            moments: Moments::new(width),
            slopes: Slopes::new(width),
            plan,
        }
    }

    /// Makes the inputs of a chunk, unless they are there.
    fn read_input<S: Lanes>(&mut self, s: S, before: Option<&Self>, source: &Source<'_>, chunk: Chunk) {
        if self.held == Some(chunk.first) {
            return;
        }
        self.held = Some(chunk.first);
        let (grid, images) = (self.plan.input, chunk.images);
        match before {
            None => source.write(chunk.first, images, &grid, &mut self.input),
            Some(before) => s.dispatch(Activate {
                z: chunk.of(&before.z, before.plan.output_len()),
                channels: &before.channels,
                grid,
                images,
                output: &mut self.input,
            }),
        }
    }

    /// The map, for a chunk.
    fn map<S: Lanes>(&mut self, s: S, weights: &[f32], chunk: Chunk) {
        let plan = &self.plan;
        s.dispatch(Taps {
            input: &self.input,
            weights: &weights[self.places.weight.clone()],
            taps: &plan.taps,
            pixels: &plan.forward[..chunk.images * plan.pixels],
            blocks: plan.blocks(),
            output: chunk.of_mut(&mut self.z, plan.output_len()),
        });
    }

    /// Sets what stands between the map and the activation.
    fn set_channels(&mut self, weights: &[f32], statistics: Option<Statistics<'_>>) {
        if let Some(norm) = self.norm {
            match statistics {
                None => self.channels.normalise(self.moments.statistics(), norm.eps),
                Some(running) => self.channels.normalise(running.pairs(), norm.eps),
            }
        }
        if let Some(scale) = &self.places.scale {
            self.channels.scale.copy_from_slice(&weights[scale.clone()]);
        }
        if let Some(shift) = &self.places.shift {
            self.channels.shift.copy_from_slice(&weights[shift.clone()]);
        }
    }

    /// Adds a chunk to the sums that the backward pass through norm, scale and shift needs.
    fn add_slopes<S: Lanes>(&mut self, s: S, chunk: Chunk) {
        if self.norm.is_none() && self.places.shift.is_none() {
            return;
        }
        let len = self.plan.output_len();
        s.dispatch(AddSlopes {
            z: chunk.of(&self.z, len),
            gradient: chunk.of(&self.gradient, len),
            channels: &self.channels,
            slopes: &mut self.slopes,
        });
    }

    /// Turns the finished sums into coefficients and gradients.
    fn finish_slopes(&mut self, images: usize, gradient: &mut [f32]) {
        if self.norm.is_some() {
            self.slopes.through_norm(&self.channels, (images * self.plan.pixels) as f64);
        }
        let mut write = |place: &Option<std::ops::Range<usize>>, sums: &[f64]| {
            if let Some(place) = place {
                gradient[place.clone()].iter_mut().zip(sums).for_each(|(g, sum)| *g = *sum as f32);
            }
        };
        write(&self.places.scale, &self.slopes.scale);
        write(&self.places.shift, &self.slopes.shift);
    }

    /// ∂L/∂z of a chunk.
    fn write_z_gradient<S: Lanes>(&mut self, s: S, chunk: Chunk) {
        let len = self.plan.output_len();
        s.dispatch(Backward {
            z: chunk.of(&self.z, len),
            gradient: chunk.of(&self.gradient, len),
            channels: &self.channels,
            slopes: &self.slopes,
            grid: self.plan.gradient,
            images: chunk.images,
            output: &mut self.z_gradient,
        });
    }

    /// Adds a chunk to the gradient of the weight.
    fn add_weight_gradient<S: Lanes>(&mut self, s: S, gradient: &mut [f32], chunk: Chunk) {
        let plan = &self.plan;
        s.dispatch(WeightGradient {
            input: &self.input,
            gradient: &self.z_gradient,
            taps: &plan.taps,
            pixels: &plan.backward[..chunk.images * plan.pixels],
            blocks: plan.blocks(),
            weights: &mut gradient[self.places.weight.clone()],
        });
    }

    fn transpose_weights(&mut self, weights: &[f32]) {
        let Some(transposed) = &self.plan.transposed else { return };
        let weights = &weights[self.places.weight.clone()];
        self.transposed.iter_mut().zip(&transposed.source).for_each(|(w, at)| *w = weights[*at as usize]);
    }

    /// The gradient of a chunk's inputs, which are the activations of the layer before.
    fn write_input_gradient<S: Lanes>(&self, s: S, before: &mut Self, chunk: Chunk) {
        let Some(transposed) = &self.plan.transposed else { return };
        let output = chunk.of_mut(&mut before.gradient, before.plan.output_len());
        for class in &transposed.classes {
            s.dispatch(Taps {
                input: &self.z_gradient,
                weights: &self.transposed[class.weights.clone()],
                taps: &class.taps,
                pixels: &class.pixels[..chunk.images * class.per_image],
                blocks: self.plan.input.channels / BLOCK,
                output,
            });
        }
    }
}

/// Consecutive images of a batch.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    first: usize,
    images: usize,
}

impl Chunk {
    /// The chunks of `images` images.
    fn all(images: usize, size: usize) -> impl Iterator<Item = Self> {
        (0..images).step_by(size).map(move |first| Self { first, images: size.min(images - first) })
    }

    fn of(self, data: &[f32], len: usize) -> &[f32] {
        &data[self.first * len..][..self.images * len]
    }

    fn of_mut(self, data: &mut [f32], len: usize) -> &mut [f32] {
        &mut data[self.first * len..][..self.images * len]
    }
}

/// Running mean and variance of one norm.
#[derive(Clone, Copy)]
struct Statistics<'a> {
    mean: &'a [f32],
    variance: &'a [f32],
}

impl<'a> Statistics<'a> {
    fn pairs(self) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        self.mean.iter().zip(self.variance).map(|(m, v)| (f64::from(*m), f64::from(*v)))
    }
}

/// Share of the new value in a running statistic.
const MOMENTUM: f64 = 0.1;

impl Engine {
    /// For training batches of `batch` images and passes without gradient of up to `test` images.
    pub(super) fn new(net: &Net, smoothing: f64, batch: usize, test: usize) -> Self {
        let plans = plan::plan(net);
        let layout = Layout::new(net, &plans);
        let capacity = batch.max(test);
        let state = |(at, plan)| LayerState::new(at, net, plan, &layout, batch, capacity);
        let layers: Vec<_> = plans.into_iter().enumerate().map(state).collect();
        let loss = CrossEntropy { classes: net.classes, smoothing };
        let logits = Buffer::zeros(capacity * padded(net.classes));
        Self { layout, layers, logits, loss }
    }

    /// Loss of a batch in training mode, and the gradient of its mean over the batch.
    pub(super) fn train<S: Lanes>(
        &mut self,
        s: S,
        weights: &[f32],
        source: &Source<'_>,
        gradient: &mut [f32],
    ) -> Tally {
        self.forward(s, weights, source, None);
        let last = self.layers.last_mut().expect("a network has a head");
        let len = last.plan.output_len();
        let tally = self.loss.train(&self.logits, len, source.labels(), &mut last.gradient);
        self.backward(s, weights, source, gradient);
        tally
    }

    /// Losses of a batch under the running statistics.
    pub(super) fn evaluate<S: Lanes>(
        &mut self,
        s: S,
        weights: &[f32],
        statistics: &[f32],
        source: &Source<'_>,
    ) -> Tally {
        self.forward(s, weights, source, Some(statistics));
        self.loss.evaluate(&self.logits, padded(self.loss.classes), source.labels())
    }

    /// Fills z of every layer, and the logits.
    fn forward<S: Lanes>(&mut self, s: S, weights: &[f32], source: &Source<'_>, running: Option<&[f32]>) {
        for at in 0..self.layers.len() {
            let (before, rest) = self.layers.split_at_mut(at);
            let (before, layer) = (before.last(), &mut rest[0]);
            let measure = layer.norm.is_some() && running.is_none();
            layer.moments.reset();
            layer.held = None;
            for chunk in Chunk::all(source.len(), layer.plan.chunk) {
                layer.read_input(s, before, source, chunk);
                layer.map(s, weights, chunk);
                if measure {
                    let z = chunk.of(&layer.z, layer.plan.output_len());
                    s.dispatch(AddMoments { z, moments: &mut layer.moments });
                }
            }
            let statistics = running.zip(self.layout.statistics[at].as_ref());
            let statistics = statistics.map(|(all, mean)| Statistics {
                mean: &all[mean.clone()],
                variance: &all[mean.end..mean.end + mean.len()],
            });
            layer.set_channels(weights, statistics);
        }
        let last = self.layers.last().expect("a network has a head");
        let grid = Grid::flat(last.plan.output_len());
        s.dispatch(Activate {
            z: &last.z,
            channels: &last.channels,
            grid,
            images: source.len(),
            output: &mut self.logits,
        });
    }

    fn backward<S: Lanes>(&mut self, s: S, weights: &[f32], source: &Source<'_>, gradient: &mut [f32]) {
        gradient.fill(0.0);
        let images = source.len();
        self.layers.iter_mut().for_each(|l| l.slopes.reset());
        let last = self.layers.last_mut().expect("a network has a head");
        last.add_slopes(s, Chunk { first: 0, images });
        for at in (0..self.layers.len()).rev() {
            let (before, rest) = self.layers.split_at_mut(at);
            let (mut before, layer) = (before.last_mut(), &mut rest[0]);
            layer.finish_slopes(images, gradient);
            layer.transpose_weights(weights);
            for chunk in Chunk::all(images, layer.plan.chunk) {
                layer.write_z_gradient(s, chunk);
                if layer.trained {
                    layer.read_input(s, before.as_deref(), source, chunk);
                    layer.add_weight_gradient(s, gradient, chunk);
                }
                if let Some(before) = before.as_deref_mut() {
                    layer.write_input_gradient(s, before, chunk);
                    before.add_slopes(s, chunk);
                }
            }
        }
    }

    /// Moves the running statistics towards those of the last training batch. The very first batch replaces them where
    /// ε = 0: the initial variance of 1 would set an absolute scale.
    pub(super) fn update_statistics(&self, running: &mut [f32], first: bool) {
        for (layer, mean) in self.layers.iter().zip(&self.layout.statistics) {
            let (Some(norm), Some(mean)) = (layer.norm, mean) else { continue };
            let keep = if first && norm.eps == 0.0 { 0.0 } else { 1.0 - MOMENTUM };
            let width = mean.len();
            for (c, (m, v)) in layer.moments.unbiased().enumerate() {
                let mut update = |at: usize, new: f64| {
                    running[at] = (keep * f64::from(running[at]) + (1.0 - keep) * new) as f32;
                };
                update(mean.start + c, m);
                update(mean.start + width + c, v);
            }
        }
    }
}
