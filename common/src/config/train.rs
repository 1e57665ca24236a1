//! The settings of `[train]`.

use std::fmt;

use super::added_noise::AddedNoise;
use super::optimizer::{Adam, Optimizer};
use super::schedule::{Curve, ScheduleStep};
use super::step_rules::{LrFactors, Sam};
use super::{DataConfig, Length, ModelKind, VisitOrder, range_for_key};
use crate::dataset::name::DatasetName;
use crate::spec_file::error::SpecError;
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{NumberRange, TableReader};

/// The loss, as a mean over a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Cross-entropy of the softmax, in nats.
    CrossEntropy {
        /// Share of the target spread evenly over all classes.
        smoothing: f64,
    },
    /// Squared distance of the outputs from the image's targets, as a mean over outputs. An image with a label has the target 1
    /// for its class, and 0 for the others.
    Mse,
}

pub(super) const LOSSES: [(&str, Loss); 2] = [
    ("cross-entropy", Loss::CrossEntropy { smoothing: 0.0 }),
    ("mse", Loss::Mse),
];

/// The parameters that weight decay acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightDecayScope {
    /// All trained parameters.
    All,
    /// Weights, but neither biases nor the norms' scales and shifts. Metrics define "the weights"
    /// otherwise: without norms, they include biases.
    Weights,
    /// Weights that a norm follows.
    Normed,
}

pub(super) const WEIGHT_DECAY_SCOPES: [(&str, WeightDecayScope); 3] = [
    ("all", WeightDecayScope::All),
    ("weights", WeightDecayScope::Weights),
    ("normed", WeightDecayScope::Normed),
];

/// An average of the weights along a trial, kept beside the weights themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Average {
    /// Share of the old average that is kept at each take, or `None` for the plain mean of all
    /// taken weights (Izmailov et al. 2018).
    pub decay: Option<f64>,
    /// When the first weights are taken: after this many steps, and then every `every`. Initial
    /// weights are never taken: with 0, the first are those after `every`.
    pub from: Length,
    /// Interval between two takes.
    pub every: Length,
}

impl Average {
    fn read_section(r: &TableReader<'_>) -> Result<Option<Self>, SpecError> {
        if r.read_node("average").is_none() {
            return Ok(None);
        }

        let r = r.section("average")?;
        let Some(ema) = r.read_word("kind", &[("swa", false), ("ema", true)])? else {
            return Err(r.error_at(
                "kind",
                "which average? Set kind = \"swa\" or kind = \"ema\"",
            ));
        };

        let decay = r.read_number("decay", range_for_key(&r, "decay"))?;
        if decay.is_some() && !ema {
            return Err(r.error_at(
                "decay",
                "this belongs to kind = \"ema\" only: remove it, or set kind",
            ));
        }

        let from = r
            .read_whole_number("from_epoch", range_for_key(&r, "from_epoch"))?
            .map_or(Length::Steps(0), |n| Length::Epochs(n as u32));
        let default = if ema {
            Length::Steps(1)
        } else {
            Length::Epochs(1)
        };
        let every = Self::read_every(&r)?.unwrap_or(default);

        r.refuse_unknown_keys()?;
        Ok(Some(Self {
            decay: ema.then_some(decay.unwrap_or(0.999)),
            from,
            every,
        }))
    }

    /// Reads a number of epochs, or a length as text.
    fn read_every(r: &TableReader<'_>) -> Result<Option<Length>, SpecError> {
        let Some(node) = r.read_node("every") else {
            return Ok(None);
        };
        let length = match &node.value {
            SpecValue::Str(text) => Length::parse(text),
            value => value
                .as_f64()
                .filter(|n| AVERAGE_EVERY_RANGE.contains(*n))
                .map(|n| Length::Epochs(n as u32)),
        };
        let message = "expected a number of epochs, or a length like \"50 steps\"";

        length.map(Some).ok_or_else(|| r.error_at("every", message))
    }
}

const AVERAGE_EVERY_RANGE: NumberRange = NumberRange::whole_numbers(1, 1_000_000);

/// The settings of `[train]`.
#[derive(Clone, PartialEq)]
pub struct TrainConfig {
    /// Length of the trial.
    pub length: Length,
    /// Images per step.
    pub batch_size: u32,
    /// Learning rate η.
    pub lr: f64,
    /// Weight decay λ, added to the gradient as λw.
    pub wd: f64,
    /// The parameters that weight decay acts on.
    pub wd_on: WeightDecayScope,
    /// Momentum μ.
    pub momentum: f64,
    /// Whether momentum has Nesterov's form.
    pub nesterov: bool,
    /// Adam or AdamW, which replaces SGD if it is set.
    pub adam: Option<Adam>,
    /// The largest norm of a gradient; a larger one is scaled down to it.
    pub clip_norm: Option<f64>,
    /// Factors on the learning rate of some parameters.
    pub lr_on: LrFactors,
    /// Sharpness-aware minimization.
    pub sam: Option<Sam>,
    /// The loss that is minimised.
    pub loss: Loss,
    /// Changes of hyperparameters over time, in the order of the file.
    pub schedule: Vec<ScheduleStep>,
    /// A learning rate that changes at every step.
    pub curve: Option<Curve>,
    /// An average of the weights.
    pub average: Option<Average>,
    /// Noise that is added to the gradient.
    pub added_noise: Option<AddedNoise>,
}

/// The text is part of the identity of checkpoints: a field of later versions appears only where it is used.
impl fmt::Debug for TrainConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("TrainConfig");
        text.field("length", &self.length)
            .field("batch_size", &self.batch_size)
            .field("lr", &self.lr)
            .field("wd", &self.wd)
            .field("wd_on", &self.wd_on)
            .field("momentum", &self.momentum)
            .field("nesterov", &self.nesterov)
            .field("adamw", &self.adam)
            .field("loss", &self.loss)
            .field("schedule", &self.schedule)
            .field("curve", &self.curve)
            .field("average", &self.average);
        if let Some(noise) = &self.added_noise {
            text.field("added_noise", noise);
        }
        if let Some(clip_norm) = &self.clip_norm {
            text.field("clip_norm", clip_norm);
        }
        if !self.lr_on.is_empty() {
            text.field("lr_on", &self.lr_on);
        }
        if let Some(sam) = &self.sam {
            text.field("sam", sam);
        }
        text.finish()
    }
}

impl TrainConfig {
    pub(crate) fn read_section(
        root: &TableReader<'_>,
        kind: &ModelKind,
        data: &DataConfig,
        starts_from_results: bool,
    ) -> Result<Self, SpecError> {
        let empty = *kind == ModelKind::Empty;
        let r = root.section("train")?;
        let optimizer_section = r.section("optimizer")?;
        let optimizer = Optimizer::read_section(&optimizer_section)?;
        let length = Self::read_length(&r, starts_from_results)?;
        let [batch_size, lr, wd, clip_norm] = ["batch_size", "lr", "wd", "clip_norm"]
            .map(|key| r.read_number(key, range_for_key(&r, key)));
        let lr_on = LrFactors::read_section(&r)?;
        let sam = Sam::read_section(&r)?;
        let loss = Self::read_loss(&r, data.dataset)?;
        let schedule = Self::read_schedule(&r)?;

        let curve = Curve::read_section(&r)?;
        let average = Average::read_section(&r)?;
        let added_noise = AddedNoise::read_section(&r)?;
        let wd_on = r
            .read_word("wd_on", &WEIGHT_DECAY_SCOPES)?
            .unwrap_or(WeightDecayScope::All);

        // Unknown keys are reported first: a misspelt key explains the missing one that it stands
        // for.
        optimizer_section.refuse_unknown_keys()?;
        r.refuse_unknown_keys()?;
        let config = Self {
            length: required_length(&r, length, empty)?,
            // Otherwise, every step takes as many images as there are, or none.
            batch_size: if kind.needs_images() && data.order != VisitOrder::FullBatch {
                required_number(&r, "batch_size", batch_size?, empty.then_some(1.0))?
            } else {
                batch_size?.unwrap_or(1.0)
            } as u32,
            lr: required_number(&r, "lr", lr?, empty.then_some(0.0))?,
            wd: wd?.unwrap_or(0.0),
            wd_on,
            momentum: optimizer.momentum,
            nesterov: optimizer.nesterov,
            adam: optimizer.adam,
            clip_norm: clip_norm?,
            lr_on,
            sam,
            loss,
            schedule,
            curve,
            average,
            added_noise,
        };

        optimizer.check_nesterov(&optimizer_section)?;
        Ok(config)
    }

    /// Reads `loss = "mse"` or `loss = { kind = "cross-entropy", label_smoothing = 0.1 }`. Targets have squared errors alone.
    fn read_loss(r: &TableReader<'_>, dataset: DatasetName) -> Result<Loss, SpecError> {
        let loss = Self::read_any_loss(r, dataset)?;
        if dataset.has_targets() && loss != Loss::Mse {
            let message = "cross-entropy is of classes, and 'y_train' holds numbers (F32): set loss = \"mse\", or leave it out";
            return Err(r.error_at("loss", message).of_combination());
        }
        Ok(loss)
    }

    fn read_any_loss(r: &TableReader<'_>, dataset: DatasetName) -> Result<Loss, SpecError> {
        let words = LOSSES;
        let plain = match dataset.has_targets() {
            true => Loss::Mse,
            false => words[0].1,
        };

        if let Some(SpecNode {
            value: SpecValue::Str(_),
            ..
        }) = r.read_node("loss")
        {
            return Ok(r.read_word("loss", &words)?.unwrap_or(plain));
        }

        let section = r.section("loss")?;
        let mut loss = section.read_word("kind", &words)?.unwrap_or(plain);
        let smoothing = section.read_number(
            "label_smoothing",
            range_for_key(&section, "label_smoothing"),
        )?;
        if let Some(smoothing) = smoothing {
            if loss == Loss::Mse {
                return Err(section.error_at(
                    "label_smoothing",
                    "this belongs to kind = \"cross-entropy\" only: remove it, or set kind",
                ));
            }

            loss = Loss::CrossEntropy { smoothing };
        }

        section.refuse_unknown_keys()?;
        Ok(loss)
    }

    /// Reads how long a trial is. Only one that starts from what others kept may take no step, and just measure that.
    fn read_length(
        r: &TableReader<'_>,
        starts_from_results: bool,
    ) -> Result<Option<Length>, SpecError> {
        let epochs = r.read_whole_number("epochs", range_for_key(r, "epochs"))?;
        let mut range = range_for_key(r, "steps");
        if !starts_from_results {
            let is_0 = matches!(r.read_whole_number("steps", range), Ok(Some(0)));
            range.low = 1.0;
            if is_0 {
                let message = "expected a whole number >= 1 and <= 1000000000, found 0: a trial without steps measures the weights \
                               that it starts from, and needs model.init.results";
                return Err(r.error_at("steps", message));
            }
        }
        let steps = r.read_whole_number("steps", range)?;
        match (epochs, steps) {
            (Some(epochs), None) => Ok(Some(Length::Epochs(epochs as u32))),
            (None, Some(steps)) => Ok(Some(Length::Steps(steps))),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(r.error_at("steps", "train.epochs is set as well: keep one of the two"))
            }
        }
    }

    fn read_schedule(r: &TableReader<'_>) -> Result<Vec<ScheduleStep>, SpecError> {
        if let Some(SpecValue::Table(_)) = r.read_node("schedule").map(|n| &n.value) {
            return Ok(Vec::new());
        }

        let mut schedule = Vec::new();
        for (at, item) in r
            .read_list("schedule")?
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let path = format!("train.schedule[{at}]");
            let SpecValue::Table(table) = &item.value else {
                let message = "expected an entry like { epoch = 20, lr = \"x0.1\" }";
                return Err(SpecError::new(item.origin.clone(), path, message));
            };
            let entry = TableReader::from_list_element(table, &item.origin, path, r.reading_mode());
            schedule.push(ScheduleStep::read_entry(&entry)?);

            entry.refuse_unknown_keys()?;
        }

        Ok(schedule)
    }
}

/// Reads a number of `[train]` that trials must set, except those that do not use it.
fn required_number(
    r: &TableReader<'_>,
    key: &'static str,
    value: Option<f64>,
    default: Option<f64>,
) -> Result<f64, SpecError> {
    value.or(default).ok_or_else(|| {
        r.error_at(
            key,
            format!("this is needed: set train.{key}, or make it an axis of [grid]"),
        )
        .of_missing_value()
    })
}

fn required_length(
    r: &TableReader<'_>,
    length: Option<Length>,
    empty: bool,
) -> Result<Length, SpecError> {
    match length {
        Some(length) => Ok(length),
        None if empty => Ok(Length::Steps(20)),
        None => Err(r
            .error_at("epochs", "how long? Set train.epochs or train.steps")
            .of_missing_value()),
    }
}
