//! What one cell resolves to: everything a worker must know to run a trial of it, fully typed.

mod data;
mod model;
mod schedule;
mod train;

pub use data::{Augment, DataConfig, DatasetName, MAX_CROP_SHIFT, VisitOrder};
pub use model::{InitScheme, ModelConfig, ModelKind, Norm, Toy, VggDepth};
pub use schedule::{Curve, HyperparamChange, LrScheduleForm, ScheduleStep};
pub use train::{AdamW, Average, Loss, TrainConfig, WeightDecayScope};

use crate::net;
use crate::pinned_file::FilePin;
use crate::spec_file::error::{SpecError, suggest_nearest};
use crate::spec_file::grammar::ReadingMode;
use crate::spec_file::node::SpecTable;
use crate::spec_file::reader::{NumberRange, TableReader};

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
pub const NUMERIC_FIELDS: [(&str, NumberRange); 24] = [
    ("data.train", NumberRange::whole_numbers(1, 10_000_000)),
    ("data.test", NumberRange::whole_numbers(1, 10_000_000)),
    ("data.validation", NumberRange::whole_numbers(0, 10_000_000)),
    ("data.label_noise", NumberRange::FRACTION),
    ("model.width", NumberRange::whole_numbers(1, 4096)),
    ("model.depth", NumberRange::whole_numbers(8, 10_004)),
    ("model.widen", NumberRange::whole_numbers(1, 64)),
    ("model.groups", NumberRange::whole_numbers(1, 4096)),
    ("model.norm_eps", NumberRange::NON_NEGATIVE),
    ("model.dim", NumberRange::whole_numbers(2, 1_000_000)),
    ("model.noise", NumberRange::NON_NEGATIVE),
    ("model.init.scale", NumberRange::POSITIVE),
    ("train.epochs", NumberRange::whole_numbers(1, 1_000_000)),
    ("train.steps", NumberRange::whole_numbers(1, 1_000_000_000)),
    (
        "train.batch_size",
        NumberRange::whole_numbers(1, 10_000_000),
    ),
    ("train.lr", NumberRange::NON_NEGATIVE),
    ("train.wd", NumberRange::NON_NEGATIVE),
    ("train.optimizer.momentum", NumberRange::FRACTION),
    ("train.optimizer.beta1", NumberRange::FRACTION),
    ("train.optimizer.beta2", NumberRange::FRACTION),
    ("train.optimizer.eps", NumberRange::POSITIVE),
    ("train.loss.label_smoothing", NumberRange::FRACTION),
    ("train.average.decay", NumberRange::FRACTION),
    (
        "train.average.from_epoch",
        NumberRange::whole_numbers(0, 1_000_000),
    ),
];

/// Paths whose values decide a trial's shape class: architecture, batch size, number of steps.
pub fn is_shape_field(path: &str) -> bool {
    matches!(
        path,
        "data.dataset" | "data.train" | "data.order" | "data.test" | "data.validation" | "model"
    ) || matches!(path, "train.batch_size")
        || matches!(path, "train.epochs" | "train.steps")
        || matches!(
            path,
            "model.kind" | "model.width" | "model.hidden" | "model.norm" | "model.affine"
        )
        || matches!(
            path,
            "model.depth" | "model.widen" | "model.groups" | "model.dim"
        )
        || matches!(path, "model.fixed_head" | "model.init.file")
}

/// Paths of fields that some trials do not use: they are left out of [`TrialConfig::fields`] there.
pub fn can_be_unused(path: &str) -> bool {
    matches!(
        path,
        "model.norm_eps" | "model.affine" | "model.groups" | "train.batch_size"
    )
}

/// The numbers that the field at `path` accepts.
pub fn numeric_field_range(path: &str) -> Option<NumberRange> {
    NUMERIC_FIELDS
        .iter()
        .find(|(name, _)| *name == path)
        .map(|(_, range)| *range)
}

fn word_for_value<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words
        .iter()
        .find(|(_, v)| *v == value)
        .map_or("?", |(word, _)| word)
}

impl TrialConfig {
    /// Reads the `[data]`, `[model]` and `[train]` tables of a document whose other keys are somebody else's, and which
    /// names these files.
    ///
    /// # Errors
    /// The first field that cannot be, by path and place.
    pub fn from_table(
        root: &SpecTable,
        files: &[FilePin],
        reading: ReadingMode,
    ) -> Result<Self, SpecError> {
        let reader = TableReader::from_document(root, reading).with_files(files);
        let model = ModelConfig::read_section(&reader)?;
        let data = DataConfig::read_section(&reader)?;
        let train = TrainConfig::read_section(&reader, &model.kind)?;
        let config = Self { data, model, train };
        if matches!(config.model.kind, ModelKind::Toy(_)) && config.train.average.is_some() {
            return Err(reader
                .section("train")?
                .error_at("average", "kind = \"toy\" takes no averages"));
        }

        config.check_batch(&reader)?;
        config.check_shapes(&reader)?;
        config.check_layer_names(&reader)?;
        config.check_schedule(&reader)?;
        Ok(config)
    }

    /// Whether the model fits the images, and its norm the model.
    fn check_shapes(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let (height, width, _) = self.data.dataset.image_shape();
        if matches!(self.model.kind, ModelKind::Vgg { .. }) && (height < 32 || width < 32) {
            let message = format!(
                "vgg halves its input five times and needs images of 32×32 at least; {} has {height}×{width}: \
                 choose cifar10, or kind = \"cnn4\"",
                self.data.dataset.as_str()
            );
            return Err(reader.section("model")?.error_at("kind", message));
        }

        let Norm::Group { groups } = self.model.norm else {
            return Ok(());
        };

        for layer in crate::net::Net::from_config(self)
            .iter()
            .flat_map(|net| &net.layers)
        {
            let channels = layer.output.channels;
            if layer.norm.is_some() && !channels.is_multiple_of(groups as usize) {
                let message = format!(
                    "the {channels} channels of {} cannot be cut into {groups} equal groups; choose a divisor of it",
                    layer.name
                );
                return Err(reader.section("model")?.error_at("groups", message));
            }
        }

        Ok(())
    }

    /// Whether the layers that are named exist.
    fn check_layer_names(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        if self.model.layer_scales.is_empty() {
            return Ok(());
        }

        let Some(net) = crate::net::Net::from_config(self) else {
            return Ok(());
        };
        let names = || net.layers.iter().map(|l| l.name.as_str());

        for (layer, _) in &self.model.layer_scales {
            if !names().any(|name| name == layer) {
                let hint = suggest_nearest(layer, names());
                let message = format!("the model has no layer '{layer}', {hint}");
                return Err(reader
                    .section("model")?
                    .section("init")?
                    .error_at("layers", message));
            }
        }

        Ok(())
    }

    /// Whether every entry of the schedule comes before the end, and after the one before it: entries are applied as they stand there.
    fn check_schedule(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let steps = self.total_steps();
        for (at, entry) in self.train.schedule.iter().enumerate() {
            let from = self.length_in_steps(entry.from);
            if from >= steps {
                let message =
                    format!("entry {at} begins after {from} steps, but a trial has only {steps}");
                return Err(reader.section("train")?.error_at("schedule", message));
            }
        }

        let from = |at: usize| self.length_in_steps(self.train.schedule[at].from);
        if let Some(at) = (1..self.train.schedule.len()).find(|at| from(*at) <= from(at - 1)) {
            let message = || match from(at - 1) {
                same if same == from(at) => {
                    format!(
                        "the entries {} and {at} both begin after {same} steps: write them as one",
                        at - 1
                    )
                }
                later => format!(
                    "entry {at} begins after {} steps, and stands behind one that begins after {later}: write them in the \
                     order in which they begin",
                    from(at)
                ),
            };

            reader
                .section("train")?
                .refuse_if_new("schedule", message)?;
        }

        let Some(Curve {
            form: LrScheduleForm::Piecewise { points },
            ..
        }) = &self.train.curve
        else {
            return Ok(());
        };
        if let Some(pair) = points
            .windows(2)
            .find(|pair| self.length_in_steps(pair[0].0) >= self.length_in_steps(pair[1].0))
        {
            let a = self.length_in_steps(pair[0].0);
            let b = self.length_in_steps(pair[1].0);
            let message = format!(
                "points must follow each other in time, but one after {a} steps precedes one after {b}"
            );
            return Err(reader
                .section("train")?
                .section("schedule")?
                .error_at("points", message));
        }

        Ok(())
    }

    /// A number that is its own mean is nothing without it: no norm may be over one number alone. The same for all cells of a shape
    /// class; refused of new sweeps alone.
    pub(crate) fn check_norm(
        &self,
        root: &SpecTable,
        reading: ReadingMode,
    ) -> Result<(), SpecError> {
        if !reading.is_new {
            return Ok(());
        }

        let batch = self.effective_batch_size() as usize;
        let over = |shape: net::ActivationShape| match self.model.norm {
            Norm::Batch => batch * shape.height * shape.width,
            Norm::Group { groups } => {
                shape.channels / (groups as usize).max(1) * shape.height * shape.width
            }
            Norm::Layer => shape.channels * shape.height * shape.width,
            Norm::None => usize::MAX,
        };

        // Only then may that be: networks are not made for nothing.
        let possible = batch == 1 || matches!(self.model.norm, Norm::Group { .. } | Norm::Layer);
        let net = if possible {
            net::Net::from_config(self)
        } else {
            None
        };
        let Some(layer) = net
            .iter()
            .flat_map(|net| &net.layers)
            .find(|l| l.norm.is_some() && over(l.output) == 1)
        else {
            return Ok(());
        };

        let (section, field, what) = match self.model.norm {
            Norm::Batch => (
                "train",
                "batch_size",
                "with batches of one image, batch norm",
            ),
            _ => ("model", "norm", "this norm"),
        };
        let message = || {
            format!(
                "{what} subtracts the mean of one number from itself in the layer {}, and nothing is left to train on: \
                 choose larger batches or layers, or another norm",
                layer.name
            )
        };

        TableReader::from_document(root, reading)
            .section(section)?
            .refuse_if_new(field, message)
    }

    fn check_batch(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let batch = self.train.batch_size;
        let images = self.data.train;
        if batch > images && self.data.order != VisitOrder::FullBatch {
            let message = format!(
                "a batch of {batch} is larger than the {images} training images; choose one of at most {images}"
            );
            return Err(reader.section("train")?.error_at("batch_size", message));
        }

        Ok(())
    }

    /// Images per step.
    pub fn effective_batch_size(&self) -> u32 {
        if self.data.order == VisitOrder::FullBatch {
            self.data.train
        } else {
            self.train.batch_size
        }
    }

    /// Steps per epoch: floor(N/B); the tail of the permutation is dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        u64::from(self.data.train / self.effective_batch_size()).max(1)
    }

    /// Steps of the whole trial.
    pub fn total_steps(&self) -> u64 {
        self.length_in_steps(self.train.length)
    }

    /// A length in steps.
    pub fn length_in_steps(&self, length: Length) -> u64 {
        match length {
            Length::Epochs(epochs) => u64::from(epochs) * self.steps_per_epoch(),
            Length::Steps(steps) => steps,
        }
    }

    /// Dotted paths and canonical values of all fields that a trial's result depends on: the identity of a cell.
    ///
    /// A field added later appears here only where it differs from its default, so that old cells keep their identity.
    pub fn identity_fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = self.data.identity_fields();
        fields.push(("train.batch_size", self.effective_batch_size().to_string()));
        fields.push(("train.steps", self.total_steps().to_string()));
        fields.extend(self.model.identity_fields());
        fields.extend(
            self.train
                .identity_fields(|length| self.length_in_steps(length)),
        );

        fields
    }
}

impl Length {
    /// "1 epoch", "50 steps"; at least 1.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.trim().split_once(' ')?;
        let count: u64 = count
            .parse()
            .ok()
            .filter(|n| (1..=1_000_000_000).contains(n))?;

        match unit.trim() {
            "epoch" | "epochs" => u32::try_from(count).ok().map(Self::Epochs),
            "step" | "steps" => Some(Self::Steps(count)),
            _ => None,
        }
    }
}

fn range_for_key(r: &TableReader<'_>, key: &str) -> NumberRange {
    numeric_field_range(&r.path_to(key)).expect("every numeric field stands in NUMERIC_FIELDS")
}
