//! One layer of a network at work: its buffers, and its passes over a part of a batch.
//!
//! Of a layer, only its map's output z is kept for the whole batch. Activations and ∂L/∂z are made chunk by chunk in
//! buffers that stay in the cache, just before the kernels that read them: forward once, backward once more.

use std::mem::take;
use std::ops::Range;

use ergodic_common::net::{Net, NormScope, NormSpec, ParamRole, Pool};

use super::data::Source;
use super::norm::{Activate, AddMoments, AddSlopes, Backward, Channels, Moments, Slopes, Sums, normalise};
use super::params::Layout;
use super::plan::{Direct, Grid, LayerPlan, Transposed, Way};
use super::pool::{ActivatePooled, Pooled, Unpool};
use super::simd::{BLOCK, Buffer, Lanes};
use super::taps::{Start, Taps};
use super::tiles::{self, GatherWeights, SpreadWeights, TileDesk, Tiled};
use super::wgrad::WeightGradient;

/// What the weights of a layer are turned into, with room for any layer's.
pub(super) struct Forms {
    /// At the points of tiles.
    pub(super) spread: Buffer,
    /// With inputs and outputs exchanged.
    transposed: Buffer,
}

impl Forms {
    pub(super) fn new(layers: &[LayerState]) -> Self {
        let most = |len: fn(&Way) -> usize| layers.iter().map(|l| len(&l.plan.way)).max().unwrap_or(0);
        let spread = most(|way| if let Way::Tiled(tiled) = way { tiled.weights() } else { 0 });
        let transposed = most(|way| match way {
            Way::Tiled(tiled) => tiled.weights(),
            Way::Direct(direct) => direct.transposed.as_ref().map_or(0, Transposed::weights),
        });
        Self { spread: Buffer::zeros(spread), transposed: Buffer::zeros(transposed) }
    }
}

/// What one thread writes on.
pub(super) struct Desk {
    pub(super) layers: Vec<LayerDesk>,
    /// Gradient of a weight over a part of the batch.
    pub(super) weights: Buffer,
    tiles: TileDesk,
    pub(super) sums: Sums,
    /// Sums of a single image, for norms over single images.
    pub(super) image_sums: Sums,
}

pub(super) struct LayerDesk {
    /// Inputs of a chunk, and the first image of the chunk if this pass has written it.
    input: Buffer,
    pub(super) held: Option<usize>,
    /// ∂L/∂z of a chunk.
    z_gradient: Buffer,
    pub(super) moments: Moments,
}

impl Desk {
    /// `parts`: whether a batch has several.
    pub(super) fn new(layers: &[LayerState], parts: impl Fn(&LayerPlan) -> bool) -> Self {
        let weights = layers.iter().filter(|l| l.trained && parts(&l.plan)).map(|l| l.places.weight.len());
        let width = layers.iter().map(|l| l.plan.channels).max().unwrap_or(0);
        let of = |l: &LayerState| LayerDesk {
            input: Buffer::zeros(l.plan.chunk * l.plan.input.len()),
            held: None,
            z_gradient: Buffer::zeros(l.plan.chunk * l.plan.output_len()),
            moments: Moments::new(l.plan.channels),
        };
        Self {
            weights: Buffer::zeros(weights.max().unwrap_or(0)),
            tiles: TileDesk::new(layers.iter().filter_map(|l| l.plan.tiled())),
            layers: layers.iter().map(of).collect(),
            sums: Sums::new(width),
            image_sums: Sums::new(width),
        }
    }
}

/// A layer's plan and buffers.
pub(super) struct LayerState {
    pub(super) plan: LayerPlan,
    pub(super) source: Option<usize>,
    pub(super) add: Option<usize>,
    pub(super) norm: Option<NormSpec>,
    pub(super) pool: Pool,
    pub(super) trained: bool,
    /// Channels without padding.
    width: usize,
    pub(super) places: Places,
    readers: Readers,
    /// Output of the map, and what is added to it, for the whole batch.
    pub(super) z: Buffer,
    /// Gradient of the activations for the whole batch; of z itself where no layer reads the activations.
    pub(super) gradient: Buffer,
    /// Gradient of the pooled activations.
    pub(super) pooled: Buffer,
    /// Gradient of z from the layer that adds it to its own.
    stream: Buffer,
    pub(super) channels: Channels,
    pub(super) moments: Moments,
    pub(super) sums: Sums,
    pub(super) slopes: Slopes,
    /// Σ ∂L/∂z where there is no norm: the gradient of the bias.
    bias: Vec<f64>,
}

/// Who uses a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Readers {
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
        Self { activation: first.zip(last), adder: net.adding_layer(at) }
    }
}

/// Places of a layer's parameters.
pub(super) struct Places {
    pub(super) weight: Range<usize>,
    scale: Option<Range<usize>>,
    /// Of the bias, or of the norm's shift.
    shift: Option<Range<usize>>,
}

/// What the backward pass over a layer writes for an earlier one, whose activations it reads.
#[derive(Default)]
pub(super) struct Lent {
    pub(super) gradient: Buffer,
    pub(super) pooled: Buffer,
    pub(super) slopes: Slopes,
    pub(super) sums: Sums,
}

/// A part of a batch in a layer's forward pass, and where its results go.
pub(super) struct Mapped<'a> {
    pub(super) part: Chunk,
    pub(super) z: &'a mut [f32],
    /// Of every image, where a norm runs over single images.
    pub(super) mean: &'a mut [f32],
    pub(super) inv: &'a mut [f32],
}

/// A part of a batch in a layer's backward pass, and where its results go.
pub(super) struct Returned<'a> {
    pub(super) part: Chunk,
    /// Gradient of the layer's weight, if this part is alone; it goes to the desk otherwise.
    pub(super) weights: Option<&'a mut [f32]>,
    /// Gradient that reaches what the layer adds to its z.
    pub(super) passed: &'a mut [f32],
    /// Of the activations that the layer reads, and of these after pooling.
    pub(super) gradient: &'a mut [f32],
    pub(super) pooled: &'a mut [f32],
    /// What their norm makes of it, where it runs over single images.
    pub(super) slopes: (&'a mut [f32], &'a mut [f32]),
}

impl LayerState {
    pub(super) fn new(at: usize, net: &Net, plan: LayerPlan, layout: &Layout, batch: usize, capacity: usize) -> Self {
        let layer = &net.layers[at];
        let width = plan.channels;
        let place = |role| layout.range(at, role);
        let places = Places {
            weight: place(ParamRole::Weight).expect("every layer has a weight"),
            scale: place(ParamRole::NormScale),
            shift: place(ParamRole::Bias).or(place(ParamRole::NormShift)),
        };
        let readers = Readers::of(net, at);
        let zeros = |wanted: bool, len: usize| Buffer::zeros(if wanted { len } else { 0 });
        let single = layer.norm.is_some_and(|n| !n.has_running_statistics());
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
            channels: if single { channels.per_image(capacity) } else { channels },
            moments: Moments::new(width),
            sums: Sums::new(width),
            slopes: Slopes::new(width, sets),
            bias: vec![0.0; width],
            plan,
        }
    }

    /// Groups of a norm over single images.
    fn groups(&self) -> Option<(usize, f64)> {
        self.norm.and_then(|norm| match norm.scope {
            NormScope::Groups(groups) => Some((groups, norm.eps)),
            NormScope::Batch => None,
        })
    }

    /// The forward pass over a part of the batch: inputs, map, and the sums that a norm needs.
    pub(super) fn map_part<S: Lanes>(&self, s: S, at: usize, pass: &Pass<'_>, desk: &mut Desk, mapped: Mapped<'_>) {
        let Mapped { part, z, mean, inv } = mapped;
        let (desk, tiles) = (&mut desk.layers[at], &mut desk.tiles);
        desk.moments.reset();
        for chunk in part.cut(self.plan.chunk) {
            let own = chunk.of_mut(part, z, self.plan.output_len());
            self.read_input(s, pass, desk, chunk);
            self.map(s, pass, &desk.input, chunk, tiles, own);
            if let Some((groups, eps)) = self.groups() {
                for (at, z) in own.chunks_exact(self.plan.output_len()).enumerate() {
                    let of_image = (chunk.first - part.first + at) * self.channels.stride..;
                    desk.moments.reset();
                    s.dispatch(AddMoments { z, moments: &mut desk.moments });
                    let statistics = desk.moments.of_groups(self.width, groups);
                    normalise(statistics, eps, &mut mean[of_image.clone()], &mut inv[of_image]);
                }
            } else if self.norm.is_some() && pass.training {
                s.dispatch(AddMoments { z: own, moments: &mut desk.moments });
            }
        }
    }

    /// Makes the inputs of a chunk, unless they are there.
    fn read_input<S: Lanes>(&self, s: S, pass: &Pass<'_>, desk: &mut LayerDesk, chunk: Chunk) {
        if desk.held == Some(chunk.first) {
            return;
        }
        desk.held = Some(chunk.first);
        let (grid, output) = (self.plan.input, &mut desk.input);
        match self.source {
            None => pass.source.write(chunk.first, chunk.images, &grid, output),
            Some(at) => pass.layers[at].activate(s, chunk, grid, output),
        }
    }

    /// Writes the activations of a chunk.
    pub(super) fn activate<S: Lanes>(&self, s: S, chunk: Chunk, grid: Grid, output: &mut [f32]) {
        let (z, channels) = (chunk.of(&self.z, self.plan.output_len()), &self.channels);
        let Chunk { first, images } = chunk;
        if self.pool == Pool::None {
            s.dispatch(Activate { z, channels, grid, first, images, output });
        } else {
            s.dispatch(ActivatePooled { from: self.pooled(chunk), grid, output });
        }
    }

    pub(super) fn pooled(&self, chunk: Chunk) -> Pooled<'_> {
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
    pub(super) fn map<S: Lanes>(
        &self,
        s: S,
        pass: &Pass<'_>,
        input: &[f32],
        chunk: Chunk,
        tiles: &mut TileDesk,
        output: &mut [f32],
    ) {
        let (plan, weights) = (&self.plan, pass.weights);
        let added = self.add.map(|at| chunk.of(&pass.layers[at].z, plan.output_len()));
        let start = added.map_or(Start::Zero, Start::From);
        match &plan.way {
            Way::Direct(direct) => {
                for group in &direct.forward {
                    s.dispatch(Taps {
                        input,
                        weights,
                        rows: plan.rows,
                        taps: &group.taps,
                        pixels: group.pixels(chunk.images),
                        blocks: plan.blocks(),
                        spacing: BLOCK,
                        start,
                        output,
                    });
                }
            }
            Way::Tiled(tiled) => {
                s.dispatch(tiles::Forward { tiled, images: chunk.images, input, weights, start, output, desk: tiles });
            }
        }
    }

    /// The weights as the forward pass reads them.
    pub(super) fn spread_weights<'a, S: Lanes>(&self, s: S, weights: &'a [f32], to: &'a mut [f32]) -> &'a [f32] {
        let weights = &weights[self.places.weight.clone()];
        let Way::Tiled(tiled) = &self.plan.way else { return weights };
        let to = &mut to[..tiled.weights()];
        s.dispatch(SpreadWeights { tiled, weights, to });
        to
    }

    /// The weights as the backward pass reads them, where another layer wants the gradient of what it gave.
    pub(super) fn transpose_weights<'a, S: Lanes>(&self, s: S, weights: &'a [f32], forms: &'a mut Forms) -> &'a [f32] {
        let Forms { spread, transposed: to } = forms;
        match &self.plan.way {
            Way::Tiled(tiled) => {
                let to = &mut to[..tiled.weights()];
                tiled.transpose(self.spread_weights(s, weights, spread), to);
                to
            }
            Way::Direct(Direct { transposed: Some(transposed), .. }) => {
                let to = &mut to[..transposed.weights()];
                transposed.transpose(&weights[self.places.weight.clone()], to);
                to
            }
            Way::Direct(_) => &[],
        }
    }

    /// Sets what stands between the map and the activation.
    pub(super) fn set_channels(&mut self, before: &[Self], weights: &[f32], statistics: Option<Statistics<'_>>) {
        if let Some(norm) = self.norm.filter(NormSpec::has_running_statistics) {
            let Channels { mean, inv, .. } = &mut self.channels;
            match statistics {
                None => normalise(self.moments.statistics(), norm.eps, mean, inv),
                Some(running) => normalise(running.pairs(), norm.eps, mean, inv),
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
    pub(super) fn add_slopes<S: Lanes>(
        &self,
        s: S,
        chunk: Chunk,
        to: &mut Returned<'_>,
        sums: &mut Sums,
        image_sums: &mut Sums,
    ) {
        let len = self.plan.output_len();
        if self.pool != Pool::None {
            let (pooled, readable) = (chunk.of_mut(to.part, to.pooled, self.plan.readable), self.pooled(chunk));
            s.dispatch(Unpool { to: readable, pooled, gradient: chunk.of_mut(to.part, to.gradient, len) });
        }
        let gradient = chunk.of_mut(to.part, to.gradient, len);
        let (z, channels) = (chunk.of(&self.z, len), &self.channels);
        if let Some((groups, _)) = self.groups() {
            for (at, (z, gradient)) in z.chunks_exact(len).zip(gradient.chunks_exact(len)).enumerate() {
                image_sums.reset();
                s.dispatch(AddSlopes { z, gradient, channels, image: chunk.first + at, sums: image_sums });
                let of_image = (chunk.first - to.part.first + at) * channels.stride..;
                let slopes = (&mut to.slopes.0[of_image.clone()], &mut to.slopes.1[of_image]);
                image_sums.through_groups(channels, self.plan.pixels as f64, (self.width, groups), slopes);
                sums.add(image_sums);
            }
        } else if self.norm.is_some() || self.places.shift.is_some() {
            s.dispatch(AddSlopes { z, gradient, channels, image: 0, sums });
        }
    }

    /// Turns the finished sums into coefficients and gradients.
    pub(super) fn finish_slopes(&mut self, after: &[Self], first_after: usize, images: usize, gradient: &mut [f32]) {
        if self.norm.is_some_and(|n| n.has_running_statistics()) {
            self.sums.through_norm(&self.channels, (images * self.plan.pixels) as f64, &mut self.slopes);
        }
        let mut write = |place: &Option<Range<usize>>, sums: &[f64]| {
            if let Some(place) = place {
                gradient[place.clone()].iter_mut().zip(sums).for_each(|(g, sum)| *g = *sum as f32);
            }
        };
        write(&self.places.scale, &self.sums.scale);
        if self.norm.is_some() {
            write(&self.places.shift, &self.sums.shift);
            return;
        }
        self.bias.copy_from_slice(&self.sums.shift);
        if let Some(adder) = self.readers.adder {
            self.bias.iter_mut().zip(&after[adder - first_after].bias).for_each(|(sum, x)| *sum += x);
        }
        write(&self.places.shift, &self.bias);
    }

    /// The backward pass of layer `at` over a part of the batch.
    pub(super) fn return_part<S: Lanes>(
        &self,
        s: S,
        at: usize,
        pass: &Pass<'_>,
        desk: &mut Desk,
        mut to: Returned<'_>,
    ) {
        let Desk { layers, weights, tiles, sums, image_sums } = desk;
        let desk = &mut layers[at];
        sums.reset();
        let mut total = to.weights.take();
        let gradient = match &mut total {
            Some(total) => &mut total[..],
            None if self.trained => {
                let own = &mut weights[..self.places.weight.len()];
                own.fill(0.0);
                own
            }
            None => &mut [],
        };
        if let Way::Tiled(tiled) = &self.plan.way {
            tiles.reset(tiled);
        }
        let source = self.source.map(|source| &pass.layers[source]);
        for chunk in to.part.cut(self.plan.chunk) {
            self.write_z_gradient(s, desk, chunk, &mut to);
            if self.trained {
                self.read_input(s, pass, desk, chunk);
            }
            let returned = source.map(|source| self.input_gradient(at, source, chunk, &mut to));
            let read = Read { transposed: pass.weights, desk, images: chunk.images };
            match &self.plan.way {
                Way::Direct(direct) => {
                    self.return_directly(s, direct, read, gradient, returned);
                }
                Way::Tiled(tiled) => self.return_tiles(s, tiled, read, tiles, returned),
            }
            let Some(source) = source else { continue };
            if source.readers.activation.is_some_and(|(first, _)| first == at) {
                source.add_slopes(s, chunk, &mut to, sums, image_sums);
            }
        }
        if let (Way::Tiled(tiled), true) = (&self.plan.way, self.trained) {
            s.dispatch(GatherWeights { tiled, desk: tiles, weights: gradient });
        }
    }

    /// ∂L/∂z of a chunk, also for the layer whose z was added.
    fn write_z_gradient<S: Lanes>(&self, s: S, desk: &mut LayerDesk, chunk: Chunk, to: &mut Returned<'_>) {
        let len = self.plan.output_len();
        s.dispatch(Backward {
            z: chunk.of(&self.z, len),
            gradient: chunk.of(&self.gradient, len),
            stream: (!self.stream.is_empty()).then(|| chunk.of(&self.stream, len)),
            passed: self.add.map(|_| chunk.of_mut(to.part, to.passed, len)),
            channels: &self.channels,
            slopes: self.norm.is_some().then_some(&self.slopes),
            first: chunk.first,
            images: chunk.images,
            output: &mut desk.z_gradient,
        });
    }

    /// Where the gradient goes that reaches z past norm and ReLU.
    pub(super) fn passed(&mut self) -> &mut Buffer {
        if self.readers.activation.is_some() { &mut self.stream } else { &mut self.gradient }
    }

    /// What those who read this layer's activations write.
    pub(super) fn lend(&mut self) -> Lent {
        let (gradient, pooled) = (take(&mut self.gradient), take(&mut self.pooled));
        Lent { gradient, pooled, slopes: take(&mut self.slopes), sums: take(&mut self.sums) }
    }

    pub(super) fn take_back(&mut self, lent: Lent) {
        (self.gradient, self.pooled) = (lent.gradient, lent.pooled);
        (self.slopes, self.sums) = (lent.slopes, lent.sums);
    }

    /// Where the gradient of a chunk's inputs goes, which are the activations of `before`, and what it starts from.
    fn input_gradient<'a>(
        &self,
        at: usize,
        before: &Self,
        chunk: Chunk,
        to: &'a mut Returned<'_>,
    ) -> (&'a mut [f32], Start<'static>) {
        // Layers are gone through backwards: the last reader is the first to write.
        let last = before.readers.activation.is_some_and(|(_, last)| last == at);
        let gradient = if before.pool == Pool::None { &mut *to.gradient } else { &mut *to.pooled };
        let output = chunk.of_mut(to.part, gradient, before.plan.readable);
        (output, if last { Start::Zero } else { Start::Output })
    }

    /// Adds a chunk to the gradients of the weight and of the inputs.
    fn return_directly<S: Lanes>(
        &self,
        s: S,
        direct: &Direct,
        read: Read<'_>,
        weights: &mut [f32],
        returned: Option<(&mut [f32], Start<'_>)>,
    ) {
        let plan = &self.plan;
        for run in direct.runs.iter().filter(|_| self.trained) {
            s.dispatch(WeightGradient {
                input: &read.desk.input,
                gradient: &read.desk.z_gradient,
                taps: &run.taps,
                pixels: run.pixels(read.images),
                blocks: plan.blocks(),
                spacing: BLOCK,
                weights,
                rows: plan.rows,
            });
        }
        let (Some(back), Some((output, start))) = (&direct.transposed, returned) else { return };
        for group in &back.groups {
            s.dispatch(Taps {
                input: &read.desk.z_gradient,
                weights: read.transposed,
                rows: plan.transposed_rows,
                taps: &group.taps,
                pixels: group.pixels(read.images),
                blocks: plan.input.channels / BLOCK,
                spacing: BLOCK,
                start,
                output,
            });
        }
    }

    /// The same tile by tile; the weight's gradient stays on the desk.
    fn return_tiles<S: Lanes>(
        &self,
        s: S,
        tiled: &Tiled,
        read: Read<'_>,
        tiles: &mut TileDesk,
        returned: Option<(&mut [f32], Start<'_>)>,
    ) {
        let (output, start) = returned.expect("only layers that read others are tiled");
        if let Start::Zero = start {
            output.fill(0.0);
        }
        s.dispatch(tiles::Backward {
            tiled,
            images: read.images,
            input: self.trained.then_some(&*read.desk.input),
            gradient: &read.desk.z_gradient,
            weights: read.transposed,
            output,
            desk: tiles,
        });
    }
}

/// What the backward pass over a chunk reads: the weights, and its inputs and ∂L/∂z on the desk.
#[derive(Clone, Copy)]
struct Read<'a> {
    transposed: &'a [f32],
    desk: &'a LayerDesk,
    images: usize,
}

/// What all threads read during a pass over a layer.
pub(super) struct Pass<'a> {
    pub(super) layers: &'a [LayerState],
    /// Of the layer, as its kernels read them.
    pub(super) weights: &'a [f32],
    pub(super) source: &'a Source<'a>,
    pub(super) training: bool,
}

/// Consecutive images of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) first: usize,
    pub(super) images: usize,
}

impl Chunk {
    /// These images in pieces of `size`.
    pub(super) fn cut(self, size: usize) -> impl Iterator<Item = Self> {
        let Self { first, images } = self;
        (0..images).step_by(size).map(move |at| Self { first: first + at, images: size.min(images - at) })
    }

    fn of(self, data: &[f32], len: usize) -> &[f32] {
        &data[self.first * len..][..self.images * len]
    }

    /// Of data that begins with `part`.
    pub(super) fn of_mut(self, part: Self, data: &mut [f32], len: usize) -> &mut [f32] {
        &mut data[(self.first - part.first) * len..][..self.images * len]
    }
}

/// Running mean and variance of one norm.
#[derive(Clone, Copy)]
pub(super) struct Statistics<'a> {
    pub(super) mean: &'a [f32],
    pub(super) variance: &'a [f32],
}

impl<'a> Statistics<'a> {
    fn pairs(self) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        self.mean.iter().zip(self.variance).map(|(m, v)| (f64::from(*m), f64::from(*v)))
    }
}
