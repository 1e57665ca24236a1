//! The settings of one cell, fully typed: everything that a worker needs to run a trial of the
//! cell.

mod activation;
mod added_noise;
mod data;
mod hidden;
mod identity;
mod layers;
mod model;
mod norm;
mod positions;
mod program;
mod results_start;
mod schedule;
pub mod schema;
mod toy;
mod train;

pub use activation::{ACTIVATIONS, Activation};
pub use added_noise::AddedNoise;
pub use data::{Augment, DataConfig, MAX_CROP_SHIFT, VisitOrder};
pub use layers::{
    AddedInput, LayerInput, LayerList, LayerMap, LayerPool, LayerSettings, ListedPool,
};
pub(crate) use layers::{describe_unknown_layer, resolve_layer_field};
pub use model::{InitScheme, ModelConfig, ModelKind, VggDepth};
pub use norm::Norm;
pub(crate) use positions::{WrittenNumber, find_number_position};
pub use results_start::{MAIN_STAGE, ResultsSelection, ResultsSource, ResultsStart};
pub use schedule::{Curve, HyperparamChange, LrScheduleForm, ScheduleStep};
pub use toy::Toy;
pub use train::{AdamW, Average, Loss, TrainConfig, WeightDecayScope};

use std::fmt;

use crate::spec_file::reader::{NumberRange, TableReader};

/// All fields of a trial. Two cells with equal configs are the same cell.
#[derive(Clone, PartialEq)]
pub struct TrialConfig {
    /// `[data]`
    pub data: DataConfig,
    /// `[model]`
    pub model: ModelConfig,
    /// `[train]`
    pub train: TrainConfig,
    /// The weights of other trials that it starts from, if it does.
    pub results_start: Option<ResultsStart>,
}

/// The text is part of the identity of checkpoints: a field of later versions appears only where it is used.
impl fmt::Debug for TrialConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("TrialConfig");
        text.field("data", &self.data)
            .field("model", &self.model)
            .field("train", &self.train);
        if let Some(start) = &self.results_start {
            text.field("results_start", start);
        }
        text.finish()
    }
}

/// The length of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// A number of passes of floor(N/B) steps each.
    Epochs(u32),
    /// A number of steps.
    Steps(u64),
}

/// Axis names that stand for a longer path.
pub const SHORT_NAMES: [(&str, &str); 4] = [
    ("lr", "train.lr"),
    ("wd", "train.wd"),
    ("batch_size", "train.batch_size"),
    ("momentum", "train.optimizer.momentum"),
];

/// Expands a short name: `--set lr=0.1` means the same as `--set train.lr=0.1`.
pub(crate) fn expand_short_name(path: &str) -> String {
    let short = SHORT_NAMES.iter().find(|(short, _)| *short == path);
    short.map_or_else(|| path.to_owned(), |(_, full)| (*full).to_owned())
}

/// Numeric fields and the numbers they accept. `[derive]` may compute these.
pub const NUMERIC_FIELDS: [(&str, NumberRange); 29] = [
    ("data.train", NumberRange::whole_numbers(1, 10_000_000)),
    ("data.test", NumberRange::whole_numbers(1, 10_000_000)),
    ("data.validation", NumberRange::whole_numbers(0, 10_000_000)),
    ("data.label_noise", NumberRange::FRACTION),
    ("model.width", NumberRange::whole_numbers(1, 4096)),
    ("model.depth", NumberRange::whole_numbers(8, 10_004)),
    ("model.widen", NumberRange::whole_numbers(1, 64)),
    ("model.groups", NumberRange::whole_numbers(1, 4096)),
    (
        "model.ghost_size",
        NumberRange::whole_numbers(1, 10_000_000),
    ),
    ("model.norm_eps", NumberRange::NON_NEGATIVE),
    ("model.dim", NumberRange::whole_numbers(2, 1_000_000)),
    ("model.noise", NumberRange::NON_NEGATIVE),
    ("model.init.scale", NumberRange::POSITIVE),
    (
        "model.init.results.trials",
        NumberRange::whole_numbers(1, 1_000_000),
    ),
    (
        "model.init.results.block",
        NumberRange::whole_numbers(1, 1_000_000),
    ),
    ("train.epochs", NumberRange::whole_numbers(1, 1_000_000)),
    ("train.steps", NumberRange::whole_numbers(0, 1_000_000_000)),
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
    (
        "train.added_noise.images",
        NumberRange::whole_numbers(1, 10_000_000),
    ),
    (
        "train.added_noise.pairs",
        NumberRange::whole_numbers(1, 1000),
    ),
];

/// Fields that are no numbers. With [`NUMERIC_FIELDS`], these are the names to choose from for an axis of `[grid]`.
pub const OTHER_FIELDS: [&str; 26] = [
    "data.dataset",
    "data.order",
    "data.augment",
    "data.standardize",
    "model.kind",
    "model.hidden",
    "model.layers",
    "model.activation",
    "model.bias",
    "model.norm",
    "model.affine",
    "model.fixed_head",
    "model.start",
    "model.init.scheme",
    "model.init.file",
    "model.init.results",
    "model.init.layers",
    "model.init.zero_residual",
    "train.wd_on",
    "train.loss",
    "train.schedule",
    "train.average",
    "train.average.every",
    "train.added_noise",
    "train.optimizer.kind",
    "train.optimizer.nesterov",
];

/// Whether the value at a path decides a trial's shape class: architecture, batch size, number of
/// steps.
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
        || matches!(path, "model.ghost_size")
        || path.starts_with("train.added_noise")
        || matches!(path, "model.hidden.width" | "model.hidden.depth")
        || matches!(path, "model.activation" | "model.bias")
        || path.starts_with("model.layers")
        || matches!(path, "model.fixed_head" | "model.init.file")
        || path.starts_with("model.init.results")
}

/// Whether some trials do not use the field at a path. [`TrialConfig::identity_fields`] leaves it
/// out there.
pub fn can_be_unused(path: &str) -> bool {
    matches!(
        path,
        "model.norm_eps"
            | "model.affine"
            | "model.groups"
            | "model.ghost_size"
            | "train.batch_size"
    )
}

/// The numbers that the field at `path` accepts.
pub fn numeric_field_range(path: &str) -> Option<NumberRange> {
    NUMERIC_FIELDS
        .iter()
        .find(|(name, _)| *name == path)
        .map(|(_, range)| *range)
        .or_else(|| layers::number_range_in_layers(path))
}

fn word_for_value<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words
        .iter()
        .find(|(_, v)| *v == value)
        .map_or("?", |(word, _)| word)
}

impl TrialConfig {
    /// Number of images per step.
    pub fn effective_batch_size(&self) -> u32 {
        if self.data.order == VisitOrder::FullBatch {
            self.data.train
        } else {
            self.train.batch_size
        }
    }

    /// Number of steps per epoch: floor(N/B). The tail of the permutation is dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        u64::from(self.data.train / self.effective_batch_size()).max(1)
    }

    /// Number of steps of the whole trial.
    pub fn total_steps(&self) -> u64 {
        self.length_in_steps(self.train.length)
    }

    /// Converts a length to a number of steps.
    pub fn length_in_steps(&self, length: Length) -> u64 {
        match length {
            Length::Epochs(epochs) => u64::from(epochs) * self.steps_per_epoch(),
            Length::Steps(steps) => steps,
        }
    }
}

impl Length {
    /// Parses "1 epoch" or "50 steps"; the number is at least 1.
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
