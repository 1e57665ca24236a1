//! Forward and backward pass of a [`Net`] over a batch, on flat packed parameters.
//!
//! Sums run through a part of the batch, chunk by chunk, and are added part by part; parts may be on different threads.
//! Nothing is allocated per step on one thread.

use std::mem::take;

use ergodic_common::config::Loss;
use ergodic_common::net::{Net, Pool};

use super::data::Source;
use super::layer::{Chunk, Desk, Forms, LayerState, Mapped, Pass, Returned, Statistics};
use super::loss::{Objective, Tally, largest};
use super::params::Layout;
use super::plan::{self, Grid};
use super::simd::{Buffer, Lanes, padded};
use super::team::{Team, add, cut};

/// A network with the memory to run it.
pub(super) struct Engine {
    /// Where parameters stand.
    pub(super) layout: Layout,
    /// Images whose activations are kept at a time.
    batch: usize,
    layers: Vec<LayerState>,
    logits: Buffer,
    objective: Objective,
    /// The weights of the layer at work, as its kernels read them.
    forms: Forms,
    team: Team,
    desks: Vec<Desk>,
}

impl Engine {
    /// For training batches of `batch` images and passes without gradient of up to `test` images, on `threads` threads of
    /// the pool that it runs in.
    pub(super) fn new(net: &Net, loss: Loss, batch: usize, test: usize, threads: usize) -> Self {
        let plans = plan::plan(net);
        let layout = Layout::new(net, &plans);
        let part_of = net.micro_batch_size(batch as u64) as usize;
        let capacity = part_of.max(test);
        let state = |(at, plan)| LayerState::new(at, net, plan, &layout, part_of, capacity);
        let layers: Vec<_> = plans.into_iter().enumerate().map(state).collect();
        let objective = Objective { classes: net.classes, loss };
        let logits = Buffer::zeros(capacity * padded(net.classes));
        let team = Team::new(threads);
        let desks = team.desks(|| Desk::new(&layers, |plan| batch > plan.part));
        let forms = Forms::new(&layers);
        Self { layout, batch: part_of, layers, logits, objective, forms, team, desks }
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
        self.layers.iter_mut().for_each(|l| l.sums.reset());
        let mut tally = Tally::default();
        let (images, share) = (source.len(), 1.0 / source.len() as f64);
        for part in source.parts(self.batch) {
            self.forward(s, weights, &part, None);
            let last = self.layers.last_mut().expect("a network has a head");
            let len = last.plan.output_len();
            tally.add(self.objective.train(&self.logits, len, part.labels(), share, &mut last.gradient));
            self.backward(s, weights, &part, images, gradient);
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

    /// Classes that the last pass gives its first images.
    pub(super) fn classes(&self, images: usize) -> impl Iterator<Item = u8> {
        let logits = self.logits.chunks_exact(padded(self.objective.classes)).take(images);
        logits.map(|logits| largest(&logits[..self.objective.classes]) as u8)
    }

    /// Logits of an image of the last pass.
    #[cfg(test)]
    pub(super) fn logits(&self, image: usize) -> &[f32] {
        &self.logits[image * padded(self.objective.classes)..][..self.objective.classes]
    }

    /// Fills z of every layer, and the logits.
    fn forward<S: Lanes>(&mut self, s: S, weights: &[f32], source: &Source<'_>, running: Option<&[f32]>) {
        self.desks.iter_mut().flat_map(|desk| &mut desk.layers).for_each(|layer| layer.held = None);
        for at in 0..self.layers.len() {
            self.map(s, at, weights, source, running.is_none());
            let statistics = running.zip(self.layout.statistics[at].as_ref());
            let statistics = statistics.map(|(all, mean)| Statistics {
                mean: &all[mean.clone()],
                variance: &all[mean.end..mean.end + mean.len()],
            });
            let (before, rest) = self.layers.split_at_mut(at);
            rest[0].set_channels(before, weights, statistics);
        }
        let last = self.layers.last().expect("a network has a head");
        let grid = Grid::flat(last.plan.output_len());
        last.activate(s, Chunk { first: 0, images: source.len() }, grid, &mut self.logits);
    }

    /// Fills z of a layer, and takes its moments.
    fn map<S: Lanes>(&mut self, s: S, at: usize, weights: &[f32], source: &Source<'_>, training: bool) {
        let layer = &mut self.layers[at];
        let (mut z, mut moments) = (take(&mut layer.z), take(&mut layer.moments));
        let (mut mean, mut inv) = (take(&mut layer.channels.mean), take(&mut layer.channels.inv));
        moments.reset();
        let layer = &self.layers[at];
        let weights = layer.spread_weights(s, weights, &mut self.forms.spread);
        let pass = Pass { layers: &self.layers, weights, source, training };
        let (part, stride) = (layer.plan.part, layer.channels.stride);
        let parts = Chunk { first: 0, images: source.len() }.cut(part);
        let parts = parts.zip(cut(&mut z, part * layer.plan.output_len()));
        let parts = parts.zip(cut(&mut mean, part * stride).zip(cut(&mut inv, part * stride)));
        let parts = parts.map(|((part, z), (mean, inv))| Mapped { part, z, mean, inv });
        self.team.each(
            &mut self.desks,
            parts,
            |desk, part| layer.map_part(s, at, &pass, desk, part),
            |desk| moments.add(&desk.layers[at].moments),
        );
        let layer = &mut self.layers[at];
        (layer.z, layer.moments) = (z, moments);
        (layer.channels.mean, layer.channels.inv) = (mean, inv);
    }

    /// `whole`: images of the batch of which these are a part.
    fn backward<S: Lanes>(&mut self, s: S, weights: &[f32], source: &Source<'_>, whole: usize, gradient: &mut [f32]) {
        let images = source.len();
        self.begin_backward(s, images);
        for at in (0..self.layers.len()).rev() {
            let (_, rest) = self.layers.split_at_mut(at);
            let (layer, after) = rest.split_first_mut().expect("the index is a layer's");
            layer.finish_slopes(after, at + 1, images, gradient);
            let place = layer.places.weight.clone();
            let alone = whole <= layer.plan.part;
            self.give_back(s, at, weights, source, alone, &mut gradient[place]);
        }
    }

    /// Takes the slopes of the last layer, whose gradient the loss has written.
    fn begin_backward<S: Lanes>(&mut self, s: S, images: usize) {
        let (last, desk) = (self.layers.last_mut().expect("a network has a head"), &mut self.desks[0]);
        let (mut gradient, mut sums) = (take(&mut last.gradient), take(&mut last.sums));
        for part in (Chunk { first: 0, images }).cut(last.plan.chunk) {
            let gradient = part.of_mut(Chunk { first: 0, images }, &mut gradient, last.plan.output_len());
            let (weights, passed, pooled, slopes) = (None, &mut [][..], &mut [][..], (&mut [][..], &mut [][..]));
            let mut to = Returned { part, weights, passed, gradient, pooled, slopes };
            last.add_slopes(s, part, &mut to, &mut sums, &mut desk.image_sums);
        }
        (last.gradient, last.sums) = (gradient, sums);
    }

    /// The backward pass over a layer: adds to the gradient of its weight, and to those of the layers it reads.
    fn give_back<S: Lanes>(
        &mut self,
        s: S,
        at: usize,
        weights: &[f32],
        source: &Source<'_>,
        alone: bool,
        total: &mut [f32],
    ) {
        let (reads, adds) = (self.layers[at].source, self.layers[at].add);
        let mut lent = reads.map(|before| self.layers[before].lend()).unwrap_or_default();
        let mut passed = adds.map(|before| take(self.layers[before].passed())).unwrap_or_default();
        {
            let layer = &self.layers[at];
            let weights = layer.transpose_weights(s, weights, &mut self.forms);
            let pass = Pass { layers: &self.layers, weights, source, training: true };
            let part = layer.plan.part;
            let read = |len: fn(&LayerState) -> usize| reads.map_or(0, |before| part * len(&self.layers[before]));
            let (inner, stride) = (read(|l| l.plan.output_len()), read(|l| l.channels.stride));
            let pooled = read(|l| if l.pool == Pool::None { 0 } else { l.plan.readable });
            let added = if adds.is_some() { part * layer.plan.output_len() } else { 0 };
            // A single part writes where the sum of all belongs.
            let (mut direct, mut total) = if alone { (Some(total), None) } else { (None, Some(total)) };
            let parts = Chunk { first: 0, images: source.len() }.cut(part).zip(cut(&mut passed, added));
            let parts = parts.zip(cut(&mut lent.gradient, inner).zip(cut(&mut lent.pooled, pooled)));
            let slopes = cut(&mut lent.slopes.mean, stride).zip(cut(&mut lent.slopes.mean_x, stride));
            let parts = parts.zip(slopes).map(|(((part, passed), (gradient, pooled)), slopes)| Returned {
                part,
                weights: direct.take(),
                passed,
                gradient,
                pooled,
                slopes,
            });
            self.team.each(
                &mut self.desks,
                parts,
                |desk, part| layer.return_part(s, at, &pass, desk, part),
                |desk| {
                    lent.sums.add(&desk.sums);
                    if let (Some(total), true) = (&mut total, layer.trained) {
                        add(total, &desk.weights);
                    }
                },
            );
        }
        if let Some(before) = reads {
            self.layers[before].take_back(lent);
        }
        if let Some(before) = adds {
            *self.layers[before].passed() = passed;
        }
    }

    /// Passes over a batch in training mode, for its statistics.
    pub(super) fn estimate<S: Lanes>(&mut self, s: S, weights: &[f32], source: &Source<'_>) {
        self.forward(s, weights, source, None);
    }

    /// Mean and unbiased variance of the last training batch before a layer's norm.
    pub(super) fn moments(&self, layer: usize) -> impl Iterator<Item = (f64, f64)> {
        self.layers[layer].moments.unbiased()
    }
}
