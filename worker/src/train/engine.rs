//! Forward and backward pass of a [`Net`] over a batch, on flat packed parameters.
//!
//! Of a layer, only its map's output z is kept for the whole batch. Activations and ∂L/∂z are made chunk by chunk in
//! buffers that stay in the cache, just before the kernels that read them: forward once, backward once more. Nothing is
//! allocated per step.

use ergodic_common::config::Loss;
use ergodic_common::net::{Net, NormSpec, Over, Pool, Role};

use super::data::Source;
use super::loss::{Objective, Tally};
use super::norm::{Activate, AddMoments, AddSlopes, Backward, Channels, Moments, Slopes};
use super::params::Layout;
use super::plan::{self, Grid, LayerPlan};
use super::pool::{ActivatePooled, Pooled, Unpool};
use super::simd::{BLOCK, Buffer, Lanes, padded};
use super::taps::{Start, Taps};
use super::wgrad::WeightGradient;

/// A network with the memory to run it.
pub(super) struct Engine {
    /// Where parameters stand.
    pub(super) layout: Layout,
    /// Images whose activations are kept at a time.
    batch: usize,
    layers: Vec<LayerState>,
    logits: Buffer,
    objective: Objective,
}

/// A layer's plan and buffers.
struct LayerState {
    plan: LayerPlan,
    source: Option<usize>,
    add: Option<usize>,
    norm: Option<NormSpec>,
    pool: Pool,
    trained: bool,
    /// Channels without padding.
    width: usize,
    places: Places,
    readers: Readers,
    /// Output of the map, and what is added to it, for the whole batch.
    z: Buffer,
    /// Gradient of the activations for the whole batch; of z itself where no layer reads the activations.
    gradient: Buffer,
    /// Gradient of the pooled activations.
    pooled: Buffer,
    /// Gradient of z from the layer that adds it to its own.
    stream: Buffer,
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
    /// Sums of a single image, for norms over single images.
    image_slopes: Slopes,
    /// Σ ∂L/∂z where there is no norm: the gradient of the bias.
    bias: Vec<f64>,
}

/// Who uses a layer.
#[derive(Debug, Clone, Copy)]
struct Readers {
    /// The first and last layer that read its activation.
    activation: Option<(usize, usize)>,
    /// The layer that adds its z.
    adder: Option<usize>,
}

impl Readers {
    fn of(net: &Net, at: usize) -> Self {
        let reads = |l: &ergodic_common::net::Layer| l.source == Some(at);
        let first = net.layers.iter().position(reads);
        let last = net.layers.iter().rposition(reads);
        Self { activation: first.zip(last), adder: net.adder_of(at) }
    }
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
        let readers = Readers::of(net, at);
        let zeros = |wanted: bool, len: usize| Buffer::zeros(if wanted { len } else { 0 });
        let transposed = plan.transposed.as_ref().map_or(0, |t| t.source.len());
        let single = layer.norm.is_some_and(|n| !n.has_statistics());
        let sets = if single { capacity } else { 1 };
        let channels = Channels::identity(width, layer.relu);
        Self {
            source: layer.source,
            add: layer.add,
            norm: layer.norm,
            pool: layer.pool,
            trained: layer.trained,
            width: layer.output.channels,
            places,
            z: Buffer::zeros(capacity * plan.output_len()),
            gradient: Buffer::zeros(batch * plan.output_len()),
            pooled: zeros(layer.pool != Pool::None, batch * plan.readable),
            stream: zeros(readers.activation.is_some() && readers.adder.is_some(), batch * plan.output_len()),
            readers,
            input: Buffer::zeros(plan.chunk * plan.input.len()),
            held: None,
            z_gradient: Buffer::zeros(plan.chunk * plan.gradient.len()),
            transposed: Buffer::zeros(transposed),
            channels: if single { channels.per_image(capacity) } else { channels },
            moments: Moments::new(width),
            slopes: Slopes::new(width, sets),
            image_slopes: Slopes::new(width, 1),
            bias: vec![0.0; width],
            plan,
        }
    }

    /// Groups of a norm over single images.
    fn groups(&self) -> Option<(usize, f64)> {
        self.norm.and_then(|norm| match norm.over {
            Over::Groups(groups) => Some((groups, norm.eps)),
            Over::Batch => None,
        })
    }

    /// Makes the inputs of a chunk, unless they are there.
    fn read_input<S: Lanes>(&mut self, s: S, before: &[Self], source: &Source<'_>, chunk: Chunk) {
        if self.held == Some(chunk.first) {
            return;
        }
        self.held = Some(chunk.first);
        let (grid, output) = (self.plan.input, &mut self.input);
        match self.source {
            None => source.write(chunk.first, chunk.images, &grid, output),
            Some(at) => before[at].activate(s, chunk, grid, output),
        }
    }

    /// Writes the activations of a chunk.
    fn activate<S: Lanes>(&self, s: S, chunk: Chunk, grid: Grid, output: &mut [f32]) {
        let (z, channels) = (chunk.of(&self.z, self.plan.output_len()), &self.channels);
        let Chunk { first, images } = chunk;
        if self.pool == Pool::None {
            s.dispatch(Activate { z, channels, grid, first, images, output });
        } else {
            s.dispatch(ActivatePooled { from: self.pooled(chunk), grid, output });
        }
    }

    fn pooled(&self, chunk: Chunk) -> Pooled<'_> {
        Pooled {
            z: chunk.of(&self.z, self.plan.output_len()),
            channels: &self.channels,
            pixels: self.plan.pixels,
            width: self.plan.width,
            pool: self.pool,
            first: chunk.first,
            images: chunk.images,
        }
    }

    /// The map, for a chunk.
    fn map<S: Lanes>(&mut self, s: S, before: &[Self], weights: &[f32], chunk: Chunk) {
        let plan = &self.plan;
        let added = self.add.map(|at| chunk.of(&before[at].z, plan.output_len()));
        s.dispatch(Taps {
            input: &self.input,
            weights: &weights[self.places.weight.clone()],
            taps: &plan.taps,
            pixels: &plan.forward[..chunk.images * plan.pixels],
            blocks: plan.blocks(),
            start: added.map_or(Start::Zero, Start::From),
            output: chunk.of_mut(&mut self.z, plan.output_len()),
        });
    }

    /// Takes a chunk of z into the norm's statistics, if they are the batch's own.
    fn measure<S: Lanes>(&mut self, s: S, chunk: Chunk, training: bool) {
        let len = self.plan.output_len();
        if let Some((groups, eps)) = self.groups() {
            for image in chunk.first..chunk.first + chunk.images {
                self.moments.reset();
                s.dispatch(AddMoments { z: &self.z[image * len..][..len], moments: &mut self.moments });
                self.channels.normalise(image, self.moments.of_groups(self.width, groups), eps);
            }
        } else if self.norm.is_some() && training {
            s.dispatch(AddMoments { z: chunk.of(&self.z, len), moments: &mut self.moments });
        }
    }

    /// Sets what stands between the map and the activation.
    fn set_channels(&mut self, before: &[Self], weights: &[f32], statistics: Option<Statistics<'_>>) {
        if let Some(norm) = self.norm.filter(NormSpec::has_statistics) {
            match statistics {
                None => self.channels.normalise(0, self.moments.statistics(), norm.eps),
                Some(running) => self.channels.normalise(0, running.pairs(), norm.eps),
            }
        }
        if let Some(scale) = &self.places.scale {
            self.channels.scale.copy_from_slice(&weights[scale.clone()]);
        }
        if let Some(shift) = &self.places.shift {
            self.channels.shift.copy_from_slice(&weights[shift.clone()]);
        }
        // Biases are not part of z, so those of what was added to it come along here.
        if let (Some(at), None) = (self.add, self.norm) {
            self.channels.shift.iter_mut().zip(&before[at].channels.shift).for_each(|(b, added)| *b += added);
        }
    }

    /// Adds a chunk, the gradient of whose activations is finished, to the sums that the backward pass through norm,
    /// scale and shift needs.
    fn add_slopes<S: Lanes>(&mut self, s: S, chunk: Chunk) {
        if self.pool != Pool::None {
            self.unpool(s, chunk);
        }
        let len = self.plan.output_len();
        if let Some((groups, _)) = self.groups() {
            for image in chunk.first..chunk.first + chunk.images {
                self.image_slopes.reset();
                s.dispatch(AddSlopes {
                    z: &self.z[image * len..][..len],
                    gradient: &self.gradient[image * len..][..len],
                    channels: &self.channels,
                    image,
                    slopes: &mut self.image_slopes,
                });
                let (of_image, pixels) = ((image, &self.image_slopes), self.plan.pixels as f64);
                self.slopes.through_groups(&self.channels, of_image, pixels, (self.width, groups));
            }
        } else if self.norm.is_some() || self.places.shift.is_some() {
            s.dispatch(AddSlopes {
                z: chunk.of(&self.z, len),
                gradient: chunk.of(&self.gradient, len),
                channels: &self.channels,
                image: 0,
                slopes: &mut self.slopes,
            });
        }
    }

    fn unpool<S: Lanes>(&mut self, s: S, chunk: Chunk) {
        let mut gradient = std::mem::replace(&mut self.gradient, Buffer::zeros(0));
        s.dispatch(Unpool {
            to: self.pooled(chunk),
            pooled: chunk.of(&self.pooled, self.plan.readable),
            gradient: chunk.of_mut(&mut gradient, self.plan.output_len()),
        });
        self.gradient = gradient;
    }

    /// Turns the finished sums into coefficients and gradients.
    fn finish_slopes(&mut self, after: &[Self], first_after: usize, images: usize, gradient: &mut [f32]) {
        if self.norm.is_some_and(|n| n.has_statistics()) {
            self.slopes.through_norm(&self.channels, (images * self.plan.pixels) as f64);
        }
        let mut write = |place: &Option<std::ops::Range<usize>>, sums: &[f64]| {
            if let Some(place) = place {
                gradient[place.clone()].iter_mut().zip(sums).for_each(|(g, sum)| *g = *sum as f32);
            }
        };
        write(&self.places.scale, &self.slopes.scale);
        if self.norm.is_some() {
            write(&self.places.shift, &self.slopes.shift);
            return;
        }
        self.bias.copy_from_slice(&self.slopes.shift);
        if let Some(adder) = self.readers.adder {
            self.bias.iter_mut().zip(&after[adder - first_after].bias).for_each(|(sum, x)| *sum += x);
        }
        write(&self.places.shift, &self.bias);
    }

    /// ∂L/∂z of a chunk, also for the layer whose z was added.
    fn write_z_gradient<S: Lanes>(&mut self, s: S, before: &mut [Self], chunk: Chunk) {
        let len = self.plan.output_len();
        let passed = self.add.map(|at| before[at].passed());
        s.dispatch(Backward {
            z: chunk.of(&self.z, len),
            gradient: chunk.of(&self.gradient, len),
            stream: (!self.stream.is_empty()).then(|| chunk.of(&self.stream, len)),
            passed: passed.map(|to| chunk.of_mut(to, len)),
            channels: &self.channels,
            slopes: &self.slopes,
            grid: self.plan.gradient,
            first: chunk.first,
            images: chunk.images,
            output: &mut self.z_gradient,
        });
    }

    /// Where the gradient goes that reaches z past norm and ReLU.
    fn passed(&mut self) -> &mut [f32] {
        if self.readers.activation.is_some() { &mut self.stream } else { &mut self.gradient }
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

    /// Adds to the gradient of a chunk's inputs, which are the activations of an earlier layer.
    fn write_input_gradient<S: Lanes>(&self, s: S, at: usize, before: &mut Self, chunk: Chunk) {
        let Some(transposed) = &self.plan.transposed else { return };
        let last = before.readers.activation.is_some_and(|(_, last)| last == at);
        let gradient = if before.pool == Pool::None { &mut before.gradient } else { &mut before.pooled };
        let output = chunk.of_mut(gradient, before.plan.readable);
        for class in &transposed.classes {
            s.dispatch(Taps {
                input: &self.z_gradient,
                weights: &self.transposed[class.weights.clone()],
                taps: &class.taps,
                pixels: &class.pixels[..chunk.images * class.per_image],
                blocks: self.plan.input.channels / BLOCK,
                // Layers are gone through backwards: the last reader is the first to write.
                start: if last { Start::Zero } else { Start::Output },
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
    pub(super) fn new(net: &Net, loss: Loss, batch: usize, test: usize) -> Self {
        let plans = plan::plan(net);
        let layout = Layout::new(net, &plans);
        let batch = net.images_at_a_time(batch as u64) as usize;
        let capacity = batch.max(test);
        let state = |(at, plan)| LayerState::new(at, net, plan, &layout, batch, capacity);
        let layers: Vec<_> = plans.into_iter().enumerate().map(state).collect();
        let objective = Objective { classes: net.classes, loss };
        let logits = Buffer::zeros(capacity * padded(net.classes));
        Self { layout, batch, layers, logits, objective }
    }

    /// Loss of a batch in training mode, and the gradient of its mean over the batch.
    pub(super) fn train<S: Lanes>(
        &mut self,
        s: S,
        weights: &[f32],
        source: &Source<'_>,
        gradient: &mut [f32],
    ) -> Tally {
        gradient.fill(0.0);
        self.layers.iter_mut().for_each(|l| l.slopes.reset());
        let mut tally = Tally::default();
        let share = 1.0 / source.len() as f64;
        for part in source.parts(self.batch) {
            self.forward(s, weights, &part, None);
            let last = self.layers.last_mut().expect("a network has a head");
            let len = last.plan.output_len();
            tally.add(self.objective.train(&self.logits, len, part.labels(), share, &mut last.gradient));
            self.backward(s, weights, &part, gradient);
        }
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
        self.objective.evaluate(&self.logits, padded(self.objective.classes), source.labels())
    }

    /// Logits of an image of the last pass.
    #[cfg(test)]
    pub(super) fn logits(&self, image: usize) -> &[f32] {
        &self.logits[image * padded(self.objective.classes)..][..self.objective.classes]
    }

    /// Fills z of every layer, and the logits.
    fn forward<S: Lanes>(&mut self, s: S, weights: &[f32], source: &Source<'_>, running: Option<&[f32]>) {
        for at in 0..self.layers.len() {
            let (before, rest) = self.layers.split_at_mut(at);
            let layer = &mut rest[0];
            layer.moments.reset();
            layer.held = None;
            for chunk in Chunk::all(source.len(), layer.plan.chunk) {
                layer.read_input(s, before, source, chunk);
                layer.map(s, before, weights, chunk);
                layer.measure(s, chunk, running.is_none());
            }
            let statistics = running.zip(self.layout.statistics[at].as_ref());
            let statistics = statistics.map(|(all, mean)| Statistics {
                mean: &all[mean.clone()],
                variance: &all[mean.end..mean.end + mean.len()],
            });
            layer.set_channels(before, weights, statistics);
        }
        let last = self.layers.last().expect("a network has a head");
        let grid = Grid::flat(last.plan.output_len());
        last.activate(s, Chunk { first: 0, images: source.len() }, grid, &mut self.logits);
    }

    fn backward<S: Lanes>(&mut self, s: S, weights: &[f32], source: &Source<'_>, gradient: &mut [f32]) {
        let images = source.len();
        let last = self.layers.last_mut().expect("a network has a head");
        last.add_slopes(s, Chunk { first: 0, images });
        for at in (0..self.layers.len()).rev() {
            let (before, rest) = self.layers.split_at_mut(at);
            let (layer, after) = rest.split_first_mut().expect("the index is a layer's");
            layer.finish_slopes(after, at + 1, images, gradient);
            layer.transpose_weights(weights);
            for chunk in Chunk::all(images, layer.plan.chunk) {
                layer.write_z_gradient(s, before, chunk);
                if layer.trained {
                    layer.read_input(s, before, source, chunk);
                    layer.add_weight_gradient(s, gradient, chunk);
                }
                let Some(before) = layer.source.map(|source| &mut before[source]) else { continue };
                layer.write_input_gradient(s, at, before, chunk);
                if before.readers.activation.is_some_and(|(first, _)| first == at) {
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
