//! The trained parameters, in groups that share weight decay and the factor on the learning rate.

use std::ops::Range;

use ergodic_common::config::{TrainConfig, WeightDecayScope};
use ergodic_common::net::{Param, ParamRole};

use super::schedule::StepHyperparams;
use crate::train::network::params::ParamLayout;

/// Trained parameters that one update rule acts on.
#[derive(Debug)]
pub(crate) struct TrainedGroup {
    pub(crate) ranges: Vec<Range<usize>>,
    decays: bool,
    lr_factor: f64,
}

impl TrainedGroup {
    /// The hyperparameters of the group in a step.
    pub(crate) fn scale_rates(&self, rates: StepHyperparams) -> StepHyperparams {
        StepHyperparams {
            lr: rates.lr * self.lr_factor,
            wd: if self.decays { rates.wd } else { 0.0 },
            ..rates
        }
    }
}

/// All trained parameters.
#[derive(Debug)]
pub(crate) struct TrainedGroups {
    pub(crate) groups: Vec<TrainedGroup>,
    /// The ranges of all groups.
    pub(crate) ranges: Vec<Range<usize>>,
}

impl TrainedGroups {
    pub(crate) fn new(layout: &ParamLayout, train: &TrainConfig) -> Self {
        let rule_of = |p: &Param| {
            let decays = has_weight_decay(p, train.wd_on);
            (decays, lr_factor_of(layout, train, p))
        };
        let mut rules: Vec<(bool, f64)> = Vec::new();
        for slot in layout.params.iter().filter(|slot| slot.param.trained) {
            let rule = rule_of(&slot.param);
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }

        let groups = rules.into_iter().map(|rule| TrainedGroup {
            ranges: layout.matching_ranges(|p| p.trained && rule_of(p) == rule),
            decays: rule.0,
            lr_factor: rule.1,
        });
        Self {
            groups: groups.collect(),
            ranges: layout.matching_ranges(|p| p.trained),
        }
    }
}

/// The factor on the learning rate of a parameter. The head is the last layer.
pub(crate) fn lr_factor_of(layout: &ParamLayout, train: &TrainConfig, param: &Param) -> f64 {
    let head = layout.params.last().map_or(0, |slot| slot.param.layer);
    param.lr_factor(&train.lr_on, head)
}

/// Whether weight decay acts on a parameter.
fn has_weight_decay(param: &Param, wd_on: WeightDecayScope) -> bool {
    match wd_on {
        WeightDecayScope::All => true,
        WeightDecayScope::Weights => param.role == ParamRole::Weight,
        WeightDecayScope::Normed => param.normed,
    }
}
