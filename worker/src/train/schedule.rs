//! The hyperparameters of every step.

use ergodic_common::config::{Change, TrialConfig};

/// What a step trains with. Computed in f64 and rounded once where it is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// η
    pub(super) lr: f64,
    /// λ
    pub(super) wd: f64,
    /// μ
    pub(super) momentum: f64,
}

impl Rates {
    /// Those of a step, counted from 0: entries of the schedule apply in the order of the file, each from its step on.
    pub(super) fn at(config: &TrialConfig, step: u64) -> Self {
        let train = &config.train;
        let mut rates = Self { lr: train.lr, wd: train.wd, momentum: train.momentum };
        for entry in train.schedule.iter().filter(|e| config.to_steps(e.from) <= step) {
            apply(&mut rates.lr, entry.lr);
            apply(&mut rates.wd, entry.wd);
            apply(&mut rates.momentum, entry.momentum);
        }
        rates
    }
}

fn apply(value: &mut f64, change: Option<Change>) {
    match change {
        Some(Change::Set(x)) => *value = x,
        Some(Change::Times(factor)) => *value *= factor,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::cases;
    use ergodic_common::config::{Length, ScheduleStep};

    #[test]
    fn entries_hold_from_their_step_on_and_multiply_what_is_there() {
        let mut config = cases::mlp();
        (config.data.train, config.train.batch_size) = (100, 10);
        (config.train.lr, config.train.wd, config.train.momentum) = (0.5, 0.01, 0.9);
        let none = ScheduleStep { from: Length::Steps(0), lr: None, wd: None, momentum: None };
        config.train.schedule = vec![
            ScheduleStep { from: Length::Epochs(2), lr: Some(Change::Times(0.1)), ..none.clone() },
            ScheduleStep {
                from: Length::Steps(25),
                lr: Some(Change::Times(0.5)),
                wd: Some(Change::Set(0.0)),
                ..none.clone()
            },
            ScheduleStep {
                from: Length::Steps(30),
                lr: Some(Change::Set(1.0)),
                momentum: Some(Change::Set(0.5)),
                ..none
            },
        ];
        let at = |step| Rates::at(&config, step);
        assert_eq!(at(19), Rates { lr: 0.5, wd: 0.01, momentum: 0.9 });
        assert_eq!(at(20), Rates { lr: 0.5 * 0.1, wd: 0.01, momentum: 0.9 });
        assert_eq!(at(25), Rates { lr: 0.5 * 0.1 * 0.5, wd: 0.0, momentum: 0.9 });
        assert_eq!(at(30), Rates { lr: 1.0, wd: 0.0, momentum: 0.5 });
    }
}
