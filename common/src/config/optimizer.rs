//! The settings of `[train.optimizer]`.

use std::fmt;

use super::range_for_key;
use crate::spec_file::error::SpecError;
use crate::spec_file::reader::TableReader;

/// Adam (Kingma and Ba 2015), with PyTorch's conventions.
#[derive(Clone, Copy, PartialEq)]
pub struct Adam {
    /// Decay of the gradient's average.
    pub beta1: f64,
    /// Decay of the squared gradient's average.
    pub beta2: f64,
    /// The constant ε added to the root of the squared gradient's average.
    pub eps: f64,
    /// How weights decay.
    pub decay: AdamDecay,
}

/// The form of Adam's weight decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdamDecay {
    /// λw is added to the gradient, and so enters the averages: Adam.
    Coupled,
    /// The weights shrink by ηλ beside the step (Loshchilov and Hutter 2019): AdamW.
    Decoupled,
}

/// The text is part of the identity of checkpoints, in which AdamW came before Adam.
impl fmt::Debug for Adam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("AdamW");
        text.field("beta1", &self.beta1)
            .field("beta2", &self.beta2)
            .field("eps", &self.eps);
        if self.decay != AdamDecay::Decoupled {
            text.field("decay", &self.decay);
        }
        text.finish()
    }
}

/// An optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OptimizerKind {
    Sgd,
    Adam,
    AdamW,
}

/// The optimizers, by the words for them.
pub(super) const OPTIMIZERS: [(&str, OptimizerKind); 3] = [
    ("sgd", OptimizerKind::Sgd),
    ("adam", OptimizerKind::Adam),
    ("adamw", OptimizerKind::AdamW),
];

const SGD_KEYS: [&str; 2] = ["momentum", "nesterov"];
const ADAM_KEYS: [&str; 3] = ["beta1", "beta2", "eps"];

impl OptimizerKind {
    /// The settings that the optimizer has, beside its kind.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Sgd => &SGD_KEYS,
            Self::Adam | Self::AdamW => &ADAM_KEYS,
        }
    }

    /// The form of weight decay, if the optimizer is an Adam.
    fn adam_decay(self) -> Option<AdamDecay> {
        match self {
            Self::Sgd => None,
            Self::Adam => Some(AdamDecay::Coupled),
            Self::AdamW => Some(AdamDecay::Decoupled),
        }
    }
}

/// The settings of `[train.optimizer]` that an optimizer has; `None` for an unknown word.
pub(crate) fn optimizer_keys(word: &str) -> Option<&'static [&'static str]> {
    let found = OPTIMIZERS.iter().find(|(known, _)| *known == word);
    found.map(|(_, kind)| kind.keys())
}

/// All settings that some optimizer has and another has not.
pub(crate) fn all_optimizer_keys() -> impl Iterator<Item = &'static str> {
    SGD_KEYS.into_iter().chain(ADAM_KEYS)
}

/// What `[train.optimizer]` says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Optimizer {
    pub(super) adam: Option<Adam>,
    pub(super) momentum: f64,
    pub(super) nesterov: bool,
}

impl Optimizer {
    pub(super) fn read_section(r: &TableReader<'_>) -> Result<Self, SpecError> {
        let kind = r
            .read_word("kind", &OPTIMIZERS)?
            .unwrap_or(OptimizerKind::Sgd);
        let [beta1, beta2, eps] = ADAM_KEYS.map(|key| r.read_number(key, range_for_key(r, key)));
        let (beta1, beta2, eps) = (beta1?, beta2?, eps?);
        Self::refuse_foreign_keys(r, kind)?;

        let adam = kind.adam_decay().map(|decay| Adam {
            beta1: beta1.unwrap_or(0.9),
            beta2: beta2.unwrap_or(0.999),
            eps: eps.unwrap_or(1e-8),
            decay,
        });
        let momentum = r.read_number("momentum", range_for_key(r, "momentum"))?;
        let nesterov = r.read_bool("nesterov")?;
        Ok(Self {
            adam,
            momentum: momentum.unwrap_or(0.0),
            nesterov: nesterov.unwrap_or(false),
        })
    }

    /// Checks that Nesterov's form has a momentum.
    pub(super) fn check_nesterov(self, r: &TableReader<'_>) -> Result<(), SpecError> {
        if self.nesterov && self.momentum == 0.0 {
            let message = "Nesterov's form needs a momentum above 0";
            return Err(r.error_at("nesterov", message).of_combination());
        }
        Ok(())
    }

    /// Refuses the settings that only other optimizers have.
    fn refuse_foreign_keys(r: &TableReader<'_>, kind: OptimizerKind) -> Result<(), SpecError> {
        let foreign = all_optimizer_keys()
            .find(|key| !kind.keys().contains(key) && r.read_node(key).is_some());
        let Some(key) = foreign else {
            return Ok(());
        };

        let owners = OPTIMIZERS.iter().filter(|(_, of)| of.keys().contains(&key));
        let words: Vec<&str> = owners.map(|(word, _)| *word).collect();
        let owners = words.join("\" or \"");
        let message = format!("this belongs to kind = \"{owners}\" only: remove it, or set kind");
        Err(r.error_at(key, message))
    }
}
