//! Forward and backward pass of a [`Net`] over a batch, on flat packed parameters.
//!
//! Of a layer, only its map's output z is kept for the whole batch. Activations and ∂L/∂z are made chunk by chunk in
//! buffers that stay in the cache, just before the kernels that read them: forward once, backward once more. Sums run
//! through a part of the batch, chunk by chunk, and are added part by part; parts may be on different threads. Nothing
//! is allocated per step on one thread.

use std::mem::take;
use std::ops::Range;

use ergodic_common::config::Loss;
use ergodic_common::net::{Net, NormSpec, Over, Pool, Role};

use super::data::Source;
use super::loss::{Objective, Tally, largest};
use super::norm::{Activate, AddMoments, AddSlopes, Backward, Channels, Moments, Slopes, Sums, normalise};
use super::params::Layout;
use super::plan::{self, Direct, Grid, LayerPlan, Way};
use super::pool::{ActivatePooled, Pooled, Unpool};
use super::simd::{BLOCK, Buffer, Lanes, padded};
use super::taps::{Start, Taps};
use super::team::{Team, add, cut};
use super::tiles::{self, GatherWeights, SpreadWeights, TileDesk, Tiled};
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
    /// The weights of the layer at work, as its kernels read them.
    forms: Forms,
    team: Team,
    desks: Vec<Desk>,
}

/// What the weights of a layer are turned into, with room for any layer's.
struct Forms {
    /// At the points of tiles.
    spread: Buffer,
    /// With inputs and outputs exchanged.
    transposed: Buffer,
}

impl Forms {
    fn new(layers: &[LayerState]) -> Self {
        let most = |len: fn(&Way) -> usize| layers.iter().map(|l| len(&l.plan.way)).max().unwrap_or(0);
        let spread = most(|way| if let Way::Tiled(tiled) = way { tiled.weights() } else { 0 });
        let transposed = most(|way| match way {
            Way::Tiled(tiled) => tiled.weights(),
            Way::Direct(direct) => direct.transposed.as_ref().map_or(0, |t| t.source.len()),
        });
        Self { spread: Buffer::zeros(spread), transposed: Buffer::zeros(transposed) }
    }
}

/// What one thread writes on.
struct Desk {
    layers: Vec<LayerDesk>,
    /// Gradient of a weight over a part of the batch.
    weights: Buffer,
    tiles: TileDesk,
    sums: Sums,
    /// Sums of a single image, for norms over single images.
    image_sums: Sums,
}

struct LayerDesk {
    /// Inputs of a chunk, and the first image of the chunk if this pass has written it.
    input: Buffer,
    held: Option<usize>,
    /// ∂L/∂z of a chunk.
    z_gradient: Buffer,
    moments: Moments,
}

impl Desk {
    /// `parts`: whether a batch has several.
    fn new(layers: &[LayerState], parts: impl Fn(&LayerPlan) -> bool) -> Self {
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
    channels: Channels,
    moments: Moments,
    sums: Sums,
    slopes: Slopes,
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
    weight: Range<usize>,
    scale: Option<Range<usize>>,
    /// Of the bias, or of the norm's shift.
    shift: Option<Range<usize>>,
}

/// What the backward pass over a layer writes for an earlier one, whose activations it reads.
#[derive(Default)]
struct Lent {
    gradient: Buffer,
    pooled: Buffer,
    slopes: Slopes,
    sums: Sums,
}

/// A part of a batch in a layer's forward pass, and where its results go.
struct Mapped<'a> {
    part: Chunk,
    z: &'a mut [f32],
    /// Of every image, where a norm runs over single images.
    mean: &'a mut [f32],
    inv: &'a mut [f32],
}

/// A part of a batch in a layer's backward pass, and where its results go.
struct Returned<'a> {
    part: Chunk,
    /// Gradient of the layer's weight, if this part is alone; it goes to the desk otherwise.
    weights: Option<&'a mut [f32]>,
    /// Gradient that reaches what the layer adds to its z.
    passed: &'a mut [f32],
    /// Of the activations that the layer reads, and of these after pooling.
    gradient: &'a mut [f32],
    pooled: &'a mut [f32],
    /// What their norm makes of it, where it runs over single images.
    slopes: (&'a mut [f32], &'a mut [f32]),
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
        self.norm.and_then(|norm| match norm.over {
            Over::Groups(groups) => Some((groups, norm.eps)),
            Over::Batch => None,
        })
    }

    /// The forward pass over a part of the batch: inputs, map, and the sums that a norm needs.
    fn map_part<S: Lanes>(&self, s: S, at: usize, pass: &Pass<'_>, desk: &mut Desk, mapped: Mapped<'_>) {
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
    fn map<S: Lanes>(
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
    fn spread_weights<'a, S: Lanes>(&self, s: S, weights: &'a [f32], to: &'a mut [f32]) -> &'a [f32] {
        let weights = &weights[self.places.weight.clone()];
        let Way::Tiled(tiled) = &self.plan.way else { return weights };
        let to = &mut to[..tiled.weights()];
        s.dispatch(SpreadWeights { tiled, weights, to });
        to
    }

    /// The weights as the backward pass reads them, where another layer wants the gradient of what it gave.
    fn transpose_weights<'a, S: Lanes>(&self, s: S, weights: &'a [f32], forms: &'a mut Forms) -> &'a [f32] {
        let Forms { spread, transposed: to } = forms;
        match &self.plan.way {
            Way::Tiled(tiled) => {
                let to = &mut to[..tiled.weights()];
                tiled.transpose(self.spread_weights(s, weights, spread), to);
                to
            }
            Way::Direct(Direct { transposed: Some(transposed), .. }) => {
                let (weights, to) = (&weights[self.places.weight.clone()], &mut to[..transposed.source.len()]);
                to.iter_mut().zip(&transposed.source).for_each(|(w, at)| *w = weights[*at as usize]);
                to
            }
            Way::Direct(_) => &[],
        }
    }

    /// Sets what stands between the map and the activation.
    fn set_channels(&mut self, before: &[Self], weights: &[f32], statistics: Option<Statistics<'_>>) {
        if let Some(norm) = self.norm.filter(NormSpec::has_statistics) {
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
    fn add_slopes<S: Lanes>(&self, s: S, chunk: Chunk, to: &mut Returned<'_>, sums: &mut Sums, image_sums: &mut Sums) {
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
    fn finish_slopes(&mut self, after: &[Self], first_after: usize, images: usize, gradient: &mut [f32]) {
        if self.norm.is_some_and(|n| n.has_statistics()) {
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
    fn return_part<S: Lanes>(&self, s: S, at: usize, pass: &Pass<'_>, desk: &mut Desk, mut to: Returned<'_>) {
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
            let (transposed, images) = (pass.weights, chunk.images);
            match &self.plan.way {
                Way::Direct(direct) => {
                    self.return_directly(s, direct, transposed, desk, images, gradient, returned);
                }
                Way::Tiled(tiled) => self.return_tiles(s, tiled, transposed, desk, images, tiles, returned),
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
            slopes: &self.slopes,
            first: chunk.first,
            images: chunk.images,
            output: &mut desk.z_gradient,
        });
    }

    /// Where the gradient goes that reaches z past norm and ReLU.
    fn passed(&mut self) -> &mut Buffer {
        if self.readers.activation.is_some() { &mut self.stream } else { &mut self.gradient }
    }

    /// What those who read this layer's activations write.
    fn lend(&mut self) -> Lent {
        let (gradient, pooled) = (take(&mut self.gradient), take(&mut self.pooled));
        Lent { gradient, pooled, slopes: take(&mut self.slopes), sums: take(&mut self.sums) }
    }

    fn take_back(&mut self, lent: Lent) {
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
        transposed: &[f32],
        desk: &LayerDesk,
        images: usize,
        weights: &mut [f32],
        returned: Option<(&mut [f32], Start<'_>)>,
    ) {
        let plan = &self.plan;
        for run in direct.runs.iter().filter(|_| self.trained) {
            s.dispatch(WeightGradient {
                input: &desk.input,
                gradient: &desk.z_gradient,
                taps: &run.taps,
                pixels: run.pixels(images),
                blocks: plan.blocks(),
                spacing: BLOCK,
                weights,
                rows: plan.rows,
            });
        }
        let (Some(back), Some((output, start))) = (&direct.transposed, returned) else { return };
        for group in &back.groups {
            s.dispatch(Taps {
                input: &desk.z_gradient,
                weights: transposed,
                rows: plan.transposed_rows,
                taps: &group.taps,
                pixels: group.pixels(images),
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
        transposed: &[f32],
        desk: &LayerDesk,
        images: usize,
        tiles: &mut TileDesk,
        returned: Option<(&mut [f32], Start<'_>)>,
    ) {
        let (output, start) = returned.expect("only layers that read others are tiled");
        if let Start::Zero = start {
            output.fill(0.0);
        }
        s.dispatch(tiles::Backward {
            tiled,
            images,
            input: self.trained.then_some(&*desk.input),
            gradient: &desk.z_gradient,
            weights: transposed,
            output,
            desk: tiles,
        });
    }
}

/// What all threads read during a pass over a layer.
struct Pass<'a> {
    layers: &'a [LayerState],
    /// Of the layer, as its kernels read them.
    weights: &'a [f32],
    source: &'a Source<'a>,
    training: bool,
}

/// Consecutive images of a batch.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    first: usize,
    images: usize,
}

impl Chunk {
    /// These images in pieces of `size`.
    fn cut(self, size: usize) -> impl Iterator<Item = Self> {
        let Self { first, images } = self;
        (0..images).step_by(size).map(move |at| Self { first: first + at, images: size.min(images - at) })
    }

    fn of(self, data: &[f32], len: usize) -> &[f32] {
        &data[self.first * len..][..self.images * len]
    }

    /// Of data that begins with `part`.
    fn of_mut(self, part: Self, data: &mut [f32], len: usize) -> &mut [f32] {
        &mut data[(self.first - part.first) * len..][..self.images * len]
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

impl Engine {
    /// For training batches of `batch` images and passes without gradient of up to `test` images, on `threads` threads of
    /// the pool that it runs in.
    pub(super) fn new(net: &Net, loss: Loss, batch: usize, test: usize, threads: usize) -> Self {
        let plans = plan::plan(net);
        let layout = Layout::new(net, &plans);
        let part_of = net.images_at_a_time(batch as u64) as usize;
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
