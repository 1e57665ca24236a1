//! What one cell resolves to: everything a worker must know to run a trial of it, fully typed.

mod data;
mod model;
mod schedule;
mod train;

use crate::error::{SpecError, nearest};
use crate::grammar::Reading;
use crate::net;
use crate::pin::FilePin;
use crate::reader::{Range, Reader};
use crate::tree::Table;

pub use data::{Augment, CROP_REACH, DataConfig, DatasetName, Order};
pub use model::{InitScheme, ModelConfig, ModelKind, Norm, Toy, VggDepth};
pub use schedule::{Change, Curve, CurveForm, ScheduleStep};
pub use train::{AdamW, Average, Loss, TrainConfig, WdOn};

/// All fields of a trial. Two cells with equal configs are the same cell.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialConfig {
    /// `[data]`
    pub data: DataConfig,
    /// `[model]`
    pub model: ModelConfig,
    /// `[train]`
    pub train: TrainConfig,
}

/// How long a trial trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// This many passes of floor(N/B) steps.
    Epochs(u32),
    /// This many steps.
    Steps(u64),
}

/// Axis names that stand for a longer path.
pub const SHORT_NAMES: [(&str, &str); 4] = [
    ("lr", "train.lr"),
    ("wd", "train.wd"),
    ("batch_size", "train.batch_size"),
    ("momentum", "train.optimizer.momentum"),
];

/// Numeric fields and the numbers they accept. `[derive]` may compute these.
pub const NUMERIC_FIELDS: [(&str, Range); 24] = [
    ("data.train", Range::whole(1, 10_000_000)),
    ("data.test", Range::whole(1, 10_000_000)),
    ("data.validation", Range::whole(0, 10_000_000)),
    ("data.label_noise", Range::FRACTION),
    ("model.width", Range::whole(1, 4096)),
    ("model.depth", Range::whole(8, 10_004)),
    ("model.widen", Range::whole(1, 64)),
    ("model.groups", Range::whole(1, 4096)),
    ("model.norm_eps", Range::NON_NEGATIVE),
    ("model.dim", Range::whole(2, 1_000_000)),
    ("model.noise", Range::NON_NEGATIVE),
    ("model.init.scale", Range::POSITIVE),
    ("train.epochs", Range::whole(1, 1_000_000)),
    ("train.steps", Range::whole(1, 1_000_000_000)),
    ("train.batch_size", Range::whole(1, 10_000_000)),
    ("train.lr", Range::NON_NEGATIVE),
    ("train.wd", Range::NON_NEGATIVE),
    ("train.optimizer.momentum", Range::FRACTION),
    ("train.optimizer.beta1", Range::FRACTION),
    ("train.optimizer.beta2", Range::FRACTION),
    ("train.optimizer.eps", Range::POSITIVE),
    ("train.loss.label_smoothing", Range::FRACTION),
    ("train.average.decay", Range::FRACTION),
    ("train.average.from_epoch", Range::whole(0, 1_000_000)),
];

/// Paths whose values decide a trial's shape class: architecture, batch size, number of steps.
pub fn decides_shape(path: &str) -> bool {
    matches!(path, "data.dataset" | "data.train" | "data.order" | "data.test" | "data.validation" | "model")
        || matches!(path, "train.batch_size")
        || matches!(path, "train.epochs" | "train.steps")
        || matches!(path, "model.kind" | "model.width" | "model.hidden" | "model.norm" | "model.affine")
        || matches!(path, "model.depth" | "model.widen" | "model.groups" | "model.dim")
        || matches!(path, "model.fixed_head" | "model.init.file")
}

/// Paths of fields that some trials do not use: they are left out of [`TrialConfig::fields`] there.
pub fn may_be_idle(path: &str) -> bool {
    matches!(path, "model.norm_eps" | "model.affine" | "model.groups" | "train.batch_size")
}

/// The numbers that the field at `path` accepts.
pub fn range_of(path: &str) -> Option<Range> {
    NUMERIC_FIELDS.iter().find(|(name, _)| *name == path).map(|(_, range)| *range)
}

fn word_of<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, v)| *v == value).map_or("?", |(word, _)| word)
}

impl TrialConfig {
    /// Reads the `[data]`, `[model]` and `[train]` tables of a document whose other keys are somebody else's, and which
    /// names these files.
    ///
    /// # Errors
    /// The first field that cannot be, by path and place.
    pub fn read(root: &Table, files: &[FilePin], reading: Reading) -> Result<Self, SpecError> {
        let reader = Reader::root(root, reading).with_files(files);
        let model = ModelConfig::read(&reader)?;
        let data = DataConfig::read(&reader)?;
        let train = TrainConfig::read(&reader, &model.kind)?;
        let config = Self { data, model, train };
        if matches!(config.model.kind, ModelKind::Toy(_)) && config.train.average.is_some() {
            return Err(reader.section("train")?.error("average", "kind = \"toy\" takes no averages"));
        }
        config.check_batch(&reader)?;
        config.check_shapes(&reader)?;
        config.check_layers(&reader)?;
        config.check_schedule(&reader)?;
        Ok(config)
    }

    /// Whether the model fits the images, and its norm the model.
    fn check_shapes(&self, reader: &Reader<'_>) -> Result<(), SpecError> {
        let (height, width, _) = self.data.dataset.shape();
        if matches!(self.model.kind, ModelKind::Vgg { .. }) && (height < 32 || width < 32) {
            let message = format!(
                "vgg halves its input five times and needs images of 32×32 at least; {} has {height}×{width}: \
                 choose cifar10, or kind = \"cnn4\"",
                self.data.dataset.word()
            );
            return Err(reader.section("model")?.error("kind", message));
        }
        let Norm::Group { groups } = self.model.norm else { return Ok(()) };
        for layer in crate::net::Net::of(self).iter().flat_map(|net| &net.layers) {
            let channels = layer.output.channels;
            if layer.norm.is_some() && !channels.is_multiple_of(groups as usize) {
                let message = format!(
                    "the {channels} channels of {} cannot be cut into {groups} equal groups; choose a divisor of it",
                    layer.name
                );
                return Err(reader.section("model")?.error("groups", message));
            }
        }
        Ok(())
    }

    /// Whether the layers that are named exist.
    fn check_layers(&self, reader: &Reader<'_>) -> Result<(), SpecError> {
        if self.model.layer_scales.is_empty() {
            return Ok(());
        }
        let Some(net) = crate::net::Net::of(self) else { return Ok(()) };
        let names = || net.layers.iter().map(|l| l.name.as_str());
        for (layer, _) in &self.model.layer_scales {
            if !names().any(|name| name == layer) {
                let hint = nearest(layer, names());
                let message = format!("the model has no layer '{layer}', {hint}");
                return Err(reader.section("model")?.section("init")?.error("layers", message));
            }
        }
        Ok(())
    }

    /// Whether every entry of the schedule comes before the end, and after the one before it: entries are applied as they stand there.
    fn check_schedule(&self, reader: &Reader<'_>) -> Result<(), SpecError> {
        let steps = self.steps();
        for (at, entry) in self.train.schedule.iter().enumerate() {
            let from = self.to_steps(entry.from);
            if from >= steps {
                let message = format!("entry {at} begins after {from} steps, but a trial has only {steps}");
                return Err(reader.section("train")?.error("schedule", message));
            }
        }
        let from = |at: usize| self.to_steps(self.train.schedule[at].from);
        if let Some(at) = (1..self.train.schedule.len()).find(|at| from(*at) <= from(at - 1)) {
            let message = || match from(at - 1) {
                same if same == from(at) => {
                    format!("the entries {} and {at} both begin after {same} steps: write them as one", at - 1)
                }
                later => format!(
                    "entry {at} begins after {} steps, and stands behind one that begins after {later}: write them in the \
                     order in which they begin",
                    from(at)
                ),
            };
            reader.section("train")?.refuse("schedule", message)?;
        }
        let Some(Curve { form: CurveForm::Piecewise { points }, .. }) = &self.train.curve else { return Ok(()) };
        if let Some(pair) = points.windows(2).find(|pair| self.to_steps(pair[0].0) >= self.to_steps(pair[1].0)) {
            let (a, b) = (self.to_steps(pair[0].0), self.to_steps(pair[1].0));
            let message =
                format!("points must follow each other in time, but one after {a} steps precedes one after {b}");
            return Err(reader.section("train")?.section("schedule")?.error("points", message));
        }
        Ok(())
    }

    /// A number that is its own mean is nothing without it: no norm may be over one number alone. The same for all cells of a shape
    /// class; refused of new sweeps alone.
    pub(crate) fn check_norm(&self, root: &Table, reading: Reading) -> Result<(), SpecError> {
        if !reading.new {
            return Ok(());
        }
        let batch = self.batch() as usize;
        let over = |shape: net::Shape| match self.model.norm {
            Norm::Batch => batch * shape.height * shape.width,
            Norm::Group { groups } => shape.channels / (groups as usize).max(1) * shape.height * shape.width,
            Norm::Layer => shape.channels * shape.height * shape.width,
            Norm::None => usize::MAX,
        };
        // Only then may that be: networks are not made for nothing.
        let possible = batch == 1 || matches!(self.model.norm, Norm::Group { .. } | Norm::Layer);
        let net = if possible { net::Net::of(self) } else { None };
        let Some(layer) = net.iter().flat_map(|net| &net.layers).find(|l| l.norm.is_some() && over(l.output) == 1)
        else {
            return Ok(());
        };
        let (section, field, what) = match self.model.norm {
            Norm::Batch => ("train", "batch_size", "with batches of one image, batch norm"),
            _ => ("model", "norm", "this norm"),
        };
        let message = || {
            format!(
                "{what} subtracts the mean of one number from itself in the layer {}, and nothing is left to train on: \
                 choose larger batches or layers, or another norm",
                layer.name
            )
        };
        Reader::root(root, reading).section(section)?.refuse(field, message)
    }

    fn check_batch(&self, reader: &Reader<'_>) -> Result<(), SpecError> {
        let (batch, images) = (self.train.batch_size, self.data.train);
        if batch > images && self.data.order != Order::FullBatch {
            let message = format!(
                "a batch of {batch} is larger than the {images} training images; choose one of at most {images}"
            );
            return Err(reader.section("train")?.error("batch_size", message));
        }
        Ok(())
    }

    /// Images per step.
    pub fn batch(&self) -> u32 {
        if self.data.order == Order::FullBatch { self.data.train } else { self.train.batch_size }
    }

    /// Steps per epoch: floor(N/B); the tail of the permutation is dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        u64::from(self.data.train / self.batch()).max(1)
    }

    /// Steps of the whole trial.
    pub fn steps(&self) -> u64 {
        self.to_steps(self.train.length)
    }

    /// A length in steps.
    pub fn to_steps(&self, length: Length) -> u64 {
        match length {
            Length::Epochs(epochs) => u64::from(epochs) * self.steps_per_epoch(),
            Length::Steps(steps) => steps,
        }
    }

    /// Dotted paths and canonical values of all fields that a trial's result depends on: the identity of a cell.
    ///
    /// A field added later appears here only where it differs from its default, so that old cells keep their identity.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = self.data.fields();
        fields.push(("train.batch_size", self.batch().to_string()));
        fields.push(("train.steps", self.steps().to_string()));
        fields.extend(self.model.fields());
        fields.extend(self.train.fields(|length| self.to_steps(length)));
        fields
    }
}

impl Length {
    /// "1 epoch", "50 steps"; at least 1.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.trim().split_once(' ')?;
        let count: u64 = count.parse().ok().filter(|n| (1..=1_000_000_000).contains(n))?;
        match unit.trim() {
            "epoch" | "epochs" => u32::try_from(count).ok().map(Self::Epochs),
            "step" | "steps" => Some(Self::Steps(count)),
            _ => None,
        }
    }
}

fn numeric(r: &Reader<'_>, key: &str) -> Range {
    range_of(&r.path_of(key)).expect("every numeric field stands in NUMERIC_FIELDS")
}
